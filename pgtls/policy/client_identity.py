"""The client's identity: its certificate compared with the role that it asks for.

Source: be_tls_open_server() in ``src/backend/libpq/be-secure-openssl.c``, ClientAuthentication()
and CheckCertAuth() in ``src/backend/libpq/auth.c`` of PostgreSQL 17 and 18. ``clientname=SAN`` is
ours: PostgreSQL compares only CN and DN.

The certificate has been verified against ``ssl_ca_file`` before, in the TLS handshake. The client
learns that it was refused; why, the log says.
"""

from __future__ import annotations

from enum import StrEnum

from pgtls.errors import CertificateNotVerified
from pgtls.policy.ident_map import IdentMap
from pgtls.text import log_name
from pgtls.tls.certificate import Certificate, NameType
from pgtls.tls.distinguished_name import COMMON_NAME
from pgtls.wire.messages import ErrorResponse

__all__ = [
    "ClientCert",
    "ClientName",
    "ClientNotVerified",
    "check_client",
    "identities",
]

INVALID_AUTHORIZATION_SPECIFICATION = "28000"

#: PostgreSQL cuts the user name of a StartupMessage to this many bytes, NAMEDATALEN - 1, before
#: it compares anything, and so do we: else a longer name that a certificate bears would be
#: checked here, and the role that it is cut to would be let in there.
MAX_ROLE_LENGTH = 63

#: Names of one certificate whose mismatch the log spells out.
_REASONS_LOGGED = 4


class ClientCert(StrEnum):
    """The ``clientcert`` setting: what a client's certificate is needed for."""

    NO = "no"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class ClientName(StrEnum):
    """The ``clientname`` setting: what in the certificate is the client's name."""

    CN = "CN"
    DN = "DN"
    SAN = "SAN"


class ClientNotVerified(CertificateNotVerified):
    """The client's certificate is missing, or is not for the role.

    :param message: the primary message of the error for the client.
    :ivar response: what the client is told.
    :ivar log_detail: why, in one line for the log.
    """

    def __init__(self, message: str, log_detail: str) -> None:
        super().__init__(log_detail)
        self.response = ErrorResponse.fatal(INVALID_AUTHORIZATION_SPECIFICATION, message)
        self.log_detail = log_detail


def identities(certificate: Certificate, clientname: ClientName) -> list[str]:
    """The names that the certificate gives its owner; bytes that are not UTF-8 surrogate-escaped.

    :param certificate: the client's.
    :param clientname: which of its names.
    :returns: for CN the first one, as PostgreSQL takes it (OpenSSL's X509_NAME_get_text_by_NID());
        for DN the subject by RFC 2253; for SAN each URI, dNSName and email, in their order. Empty
        where there is none.
    :raises ValueError: the names cannot be read or hold a NUL. A common name with a NUL is refused
        whatever ``clientname`` is, as PostgreSQL does (CVE-2009-4034).
    """
    subject = certificate.subject
    common_name = subject.first(COMMON_NAME) or b""
    if b"\0" in common_name:
        raise ValueError("SSL certificate's common name contains embedded null")
    if clientname == ClientName.CN:
        names = [common_name.decode("utf-8", "surrogateescape")]
    elif clientname == ClientName.DN:
        names = [subject.rfc2253()]
    else:
        names = _alternative_names(certificate)
    return [name for name in names if name]


def check_client(
    certificate: Certificate | None,
    user: bytes,
    *,
    clientcert: ClientCert,
    clientname: ClientName = ClientName.CN,
    ident_map: IdentMap | None = None,
    map_name: str | None = None,
) -> str:
    """Hold the client's certificate against the role in its StartupMessage.

    :param certificate: the verified one, None where the client sent none.
    :param user: the StartupMessage's ``user``.
    :param clientcert: what the certificate is needed for.
    :param clientname: which of its names counts under ``verify-full``.
    :param ident_map: ``ident_file``, for ``verify-full`` too.
    :param map_name: ``map``; without one the names must be equal.
    :returns: the name that matched; empty where ``clientcert`` asks for none.
    :raises ClientNotVerified: the client is not let in.
    """
    if certificate is None:
        if clientcert == ClientCert.NO:
            return ""
        required = "connection requires a valid client certificate"
        raise ClientNotVerified(required, f"{required} (clientcert={clientcert})")
    role = user[:MAX_ROLE_LENGTH].decode("utf-8", "surrogateescape")
    full = clientcert == ClientCert.VERIFY_FULL
    try:
        # Common name and DN are read in any case: one with a NUL, one that breaks the rules for
        # its own strings, lets no client in.
        certificate.subject.rfc2253()
        names = identities(certificate, clientname if full else ClientName.CN)
    except ValueError as error:
        raise _refused(role, f"{_failed(log_name(role))}: {error}") from error
    if not full:
        return ""
    if not names:
        no_name = f"{_failed(log_name(role))}: client certificate contains no user name"
        raise _refused(role, no_name)
    reasons = []
    for name in names:
        reason = (ident_map or IdentMap()).refusal(map_name, name, role)
        if reason is None:
            return name
        reasons.append(reason)
    raise _mismatch(role, clientname, reasons)


def _alternative_names(certificate: Certificate) -> list[str]:
    """:raises ValueError: the extension cannot be read, or a name holds a NUL."""
    kinds = (NameType.URI, NameType.DNS, NameType.EMAIL)
    names = [name.value for name in certificate.alternative_names if name.type in kinds]
    if any(b"\0" in name for name in names):
        raise ValueError("SSL certificate's name contains embedded null")
    return [name.decode("ascii") for name in names]


def _mismatch(role: str, clientname: ClientName, reasons: list[str]) -> ClientNotVerified:
    """No name of the certificate is the role's."""
    shown = reasons[:_REASONS_LOGGED]
    if len(reasons) > len(shown):
        shown.append(f"and {len(reasons) - len(shown)} more")
    return _refused(
        role,
        "certificate validation (clientcert=verify-full) failed for user "
        f'"{log_name(role)}": {clientname} mismatch: {"; ".join(shown)}',
    )


def _refused(role: str, log_detail: str) -> ClientNotVerified:
    # The client gets its own name back as it sent it, as far as that is UTF-8.
    shown = role.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return ClientNotVerified(_failed(shown), log_detail)


def _failed(user: str) -> str:
    return f'certificate authentication failed for user "{user}"'
