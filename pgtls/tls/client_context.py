"""A client's TLS: the context that a connection string stands for, and the checks of the server.

libpq's ``initialize_SSL`` and ``open_client_SSL`` (``src/interfaces/libpq/fe-secure-openssl.c``);
PostgreSQL's documentation, "SSL Support" in the chapter on libpq. Deliberately stricter in two
points: a CRL that is named and cannot be read is an error, and CRLs count with
``sslrootcert=system`` too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from weakref import WeakSet

from OpenSSL import SSL

from pgtls.conninfo.connection_string import ConnInfo, Host
from pgtls.conninfo.keywords import SSLCertMode
from pgtls.errors import CertificateNotVerified, ConfigurationError, NegotiationRefused
from pgtls.tls.ciphers import FORWARD_SECRET, set_ciphers
from pgtls.tls.keylog import keylog_to
from pgtls.tls.libpq_files import crl_sources, key_pair_of, note_system_roots, password_of, roots_of
from pgtls.tls.openssl import (
    POSTGRESQL,
    use_key_pair,
)
from pgtls.tls.record_size import Connection
from pgtls.tls.revocation import add_crl_directory, add_crl_file, read_crls
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.server_identity import verify_server_name
from pgtls.tls.sources import CertificateSource, KeySource, load_key_pair, read_roots
from pgtls.tls.switched_off import forbid_renegotiation_and_compression, forbid_resumption
from pgtls.tls.tls_info import shown_by_peer
from pgtls.tls.verify_failures import failure_noting, failure_of
from pgtls.tls.versions import set_versions
from pgtls.wire.attempts import SSLMode

#: What TLS before 1.2 needs besides: suites without authenticated encryption, signatures with
#: SHA-1, short keys. All of it comes into reach of a server only where a connection string asks
#: for such a version, and then for certificates too.
_OLD_VERSIONS = "ECDHE+AES:DHE+AES:@SECLEVEL=0"

#: OpenSSL's state of a client whose server asks it for a certificate, in TLS 1.3 and before.
_CERTIFICATE_REQUEST = b"SSLv3/TLS read server certificate request"

#: OpenSSL's errors where both sides have no version in common, as libpq lists them.
_VERSION_ERRORS = (
    "no protocols available",
    "unsupported protocol",
    "bad protocol version number",
    "unknown protocol",
    "unknown ssl version",
    "unsupported ssl version",
    "wrong ssl version",
    "wrong version number",
    "tlsv1 alert protocol version",
    "version too high",
    "version too low",
)


#: One source of roots, or several.
Roots = CertificateSource | Sequence[CertificateSource]


class ClientTLS:
    """The TLS that a connection string asks for.

    :param conninfo: the connection string.
    :param roots: what to trust, in place of ``sslrootcert`` and of ``root.crt`` and ``root.crl``
        in ``~/.postgresql``; ``sslcrl`` and ``sslcrldir`` count. PEM, DER or objects, in memory,
        so that an application can have them compiled in.
    :param certificate: the client's own certificate, with its intermediates in PEM, in place of
        ``sslcert``; ``sslcertmode`` counts.
    :param key: its private key, in place of ``sslkey``; ``sslpassword`` counts.
    :ivar has_certificate: whether there is a certificate to show.
    :raises ConfigurationError: a file that the connection string names, or needs, cannot be used,
        or what was given in its place.
    """

    def __init__(
        self,
        conninfo: ConnInfo,
        *,
        roots: Roots | None = None,
        certificate: CertificateSource | None = None,
        key: KeySource | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._crls: list[str] = []
        self._asked: WeakSet[SSL.Connection] = WeakSet()
        forbid_resumption(context)
        forbid_renegotiation_and_compression(context)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_alpn_protos([POSTGRESQL])
        self._set_versions()
        if self._trust(roots):
            context.set_verify(SSL.VERIFY_PEER, failure_noting(self._current_crls))
        self.has_certificate = self._use_certificate(certificate, key)
        if conninfo.sslcertmode is SSLCertMode.REQUIRE:
            context.set_info_callback(self._note_request)
        if conninfo.sslkeylogfile:
            keylog_to(context, conninfo.sslkeylogfile)

    def connection(self, host: Host) -> SSL.Connection:
        """Make a connection in memory, with SNI as libpq sends it: a name, never an address.

        :param host: one host of the connection string.
        :returns: the connection, before its handshake.
        """
        connection = Connection(self._context, None)
        if self._conninfo.sslsni and (name := sni(host.host)):
            connection.set_tlsext_host_name(name)
        return connection

    def verify(self, connection: SSL.Connection, host: Host) -> None:
        """Check what only shows after the handshake: under ``verify-full``, the host name.

        :param connection: after its handshake.
        :param host: the host that was connected to.
        :raises CertificateNotVerified: the server's certificate is not for this host.
        """
        if self._conninfo.sslmode is SSLMode.VERIFY_FULL:
            certificate = shown_by_peer(connection)
            if certificate is None:
                raise CertificateNotVerified("the server showed no certificate")
            verify_server_name(certificate, host.host)

    def asked_for_certificate(self, connection: SSL.Connection) -> bool:
        """Whether the server asked for the client's certificate.

        :param connection: during or after its handshake.
        :returns: whether it did; always false unless ``sslcertmode=require``.
        """
        return connection in self._asked

    def handshake_error(self, connection: SSL.Connection, reason: str) -> NegotiationRefused:
        """Why a handshake failed.

        :param connection: the one whose handshake it was.
        :param reason: the error that it ended with, in OpenSSL's words.
        :returns: the exception to raise: :exc:`CertificateNotVerified` where it was verification.
        """
        if failure := failure_of(connection):
            return CertificateNotVerified(
                f"SSL error: certificate verify failed: {failure.reason} "
                f'(depth {failure.depth}, subject "{failure.subject}", issuer "{failure.issuer}")',
                failure.depth,
            )
        if reason.endswith(_VERSION_ERRORS):
            oldest = self._conninfo.ssl_min_protocol_version or "TLSv1"
            newest = self._conninfo.ssl_max_protocol_version or "TLSv1.3"
            reason += (
                ". This may indicate that the server does not support any SSL protocol version "
                f"between {oldest} and {newest}."
            )
        return NegotiationRefused(reason)

    def _set_versions(self) -> None:
        oldest = self._conninfo.ssl_min_protocol_version
        set_versions(
            self._context,
            ("ssl_min_protocol_version", oldest),
            ("ssl_max_protocol_version", self._conninfo.ssl_max_protocol_version),
        )
        old = oldest in ("TLSv1", "TLSv1.1")
        set_ciphers(self._context, f"{FORWARD_SECRET}:{_OLD_VERSIONS}" if old else FORWARD_SECRET)

    def _trust(self, given: Roots | None) -> bool:
        """Load roots and CRLs.

        :returns: whether there are any, and the chain is therefore to be verified.
        """
        if given is not None:
            read_roots(given, "certificate file", self._context)
        elif self._conninfo.sslrootcert == "system":
            note_system_roots()
            self._context.set_default_verify_paths()
        elif roots_of(self._conninfo, self._context) is None:
            return False
        self._add_crls(with_default=given is None)
        return True

    def _add_crls(self, *, with_default: bool) -> None:
        named, directory = self._conninfo.sslcrl, self._conninfo.sslcrldir
        if named is not None:
            add_crl_file(self._context, named)
        if directory is not None:
            add_crl_directory(self._context, directory)
        self._crls = crl_sources(self._conninfo)
        if named is None and directory is None:
            if not with_default:
                self._crls = []
            for default in self._crls:
                add_crl_file(self._context, default)

    def _current_crls(self) -> Iterator[RevocationList]:
        for source in self._crls:
            for _, crl in read_crls(source):
                yield crl

    def _use_certificate(
        self, certificate: CertificateSource | None, key: KeySource | None
    ) -> bool:
        """Load the client's certificate and key, where there are any.

        :returns: whether there are.
        """
        if (certificate is None) != (key is None):
            raise ConfigurationError("certificate and key are to be given together")
        if self._conninfo.sslcertmode is SSLCertMode.DISABLE:
            return False
        if certificate is not None and key is not None:
            pair = load_key_pair(certificate, key, password_of(self._conninfo))
        elif (found := key_pair_of(self._conninfo)) is not None:
            pair = found
        else:
            return False
        use_key_pair(self._context, pair.chain.pem, pair.key)
        return True

    def _note_request(self, connection: SSL.Connection, where: int, _result: int) -> None:
        # libpq has SSL_CTX_set_cert_cb() for it, which pyOpenSSL has not. This is called some 20
        # times in a handshake.
        if where & SSL.SSL_CB_LOOP and connection.get_state_string() == _CERTIFICATE_REQUEST:
            self._asked.add(connection)


def sni(host: str) -> bytes | None:
    """The name to send as Server Name Indication (RFC 6066, section 3).

    :param host: a host of the connection string.
    :returns: the name; None for an address, for no host, and for a name that is not ASCII.
    """
    if not host or not host.strip("0123456789.") or ":" in host:
        return None
    try:
        return host.encode("ascii")
    except UnicodeEncodeError:
        return None
