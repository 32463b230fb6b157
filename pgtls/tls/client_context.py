"""What a client asks of TLS: the context that a connection string stands for, and who is let pass.

libpq's ``initialize_SSL`` and ``open_client_SSL`` (``src/interfaces/libpq/fe-secure-openssl.c``);
PostgreSQL's documentation, "SSL Support" in the chapter on libpq. Deliberately stricter in one
point: a CRL that is named and cannot be read is an error.
"""

from __future__ import annotations

from pathlib import Path

from OpenSSL import SSL

from pgtls.tls.ciphers import FORWARD_SECRET, set_ciphers
from pgtls.tls.facts import peer_certificate
from pgtls.tls.key_file import load_certificate_chain, load_key_pair
from pgtls.tls.keylog import keylog_to
from pgtls.tls.openssl import (
    POSTGRESQL,
    forbid_renegotiation_and_compression,
    forbid_resumption,
    use_key_pair,
)
from pgtls.tls.revocation import add_crl_directory, add_crl_file
from pgtls.tls.server_context import trust
from pgtls.tls.server_identity import verify_server_name
from pgtls.tls.verify_failures import failure_of, note_failure
from pgtls.tls.versions import set_versions
from pgtls.wire.attempts import SSLMode
from pgtls.wire.conninfo import ConnInfo, Host
from pgtls.wire.conninfo_options import SSLCertMode
from pgtls.wire.errors import CertificateNotVerified, ConfigurationError

_VERIFYING = (SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)


class ClientTLS:
    """The TLS that a connection string asks for.

    :raises ConfigurationError: a file it names, or needs, cannot be used.
    """

    def __init__(self, conninfo: ConnInfo) -> None:
        self._conninfo = conninfo
        self._context = context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        forbid_resumption(context)
        forbid_renegotiation_and_compression(context)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_alpn_protos([POSTGRESQL])
        set_versions(
            context,
            ("ssl_min_protocol_version", conninfo.ssl_min_protocol_version),
            ("ssl_max_protocol_version", conninfo.ssl_max_protocol_version),
        )
        set_ciphers(context, FORWARD_SECRET)
        self._verifies = self._trust_roots()
        if self._verifies:
            context.set_verify(SSL.VERIFY_PEER, note_failure)
        self._has_certificate = self._use_certificate()
        if conninfo.sslkeylogfile:
            keylog_to(context, conninfo.sslkeylogfile)

    def connection(self, host: Host) -> SSL.Connection:
        """A connection to ``host``, with SNI as libpq sends it: a name, never an address."""
        connection = SSL.Connection(self._context, None)
        if self._conninfo.sslsni and (name := sni(host.host)):
            connection.set_tlsext_host_name(name)
        return connection

    def verify(self, connection: SSL.Connection, host: Host) -> None:
        """Check what only shows after the handshake.

        :raises CertificateNotVerified: the server's certificate is not for this host.
        :raises NegotiationRefused: ``sslcertmode=require``, and no certificate was asked for.
        """
        if self._conninfo.sslmode is SSLMode.VERIFY_FULL:
            certificate = peer_certificate(connection)
            if certificate is None:
                raise CertificateNotVerified("the server's certificate cannot be read")
            verify_server_name(certificate, host.host)

    def failure(self, connection: SSL.Connection) -> CertificateNotVerified | None:
        """Why a handshake failed, if it was for the server's certificate."""
        failure = failure_of(connection)
        if failure is None:
            return None
        return CertificateNotVerified(
            f"SSL error: certificate verify failed: {failure.reason} "
            f'(depth {failure.depth}, subject "{failure.subject}", issuer "{failure.issuer}")',
            failure.depth,
        )

    def _file(self, named: str | None, default: str) -> Path | None:
        """The file that a parameter names, else libpq's default; None where there is no home."""
        if named is not None:
            return Path(named)
        directory = self._conninfo.default_directory
        return None if directory is None else directory / default

    def _trust_roots(self) -> bool:
        """Load roots and CRLs.

        :returns: whether there are any, and the chain is therefore to be verified.
        """
        conninfo = self._conninfo
        if conninfo.sslrootcert == "system":
            self._context.set_default_verify_paths()
            self._add_crls(default=False)
            return True
        roots = self._file(conninfo.sslrootcert, "root.crt")
        if roots is not None and roots.exists():
            trust(self._context, load_certificate_chain(roots))
            self._add_crls(default=True)
            return True
        if conninfo.sslmode in _VERIFYING:
            what = (
                f'root certificate file "{roots}" does not exist'
                if roots
                else ("could not get home directory to locate root certificate file")
            )
            raise ConfigurationError(
                f"{what}: either provide the file, use the system's trusted roots with "
                "sslrootcert=system, or change sslmode to disable server certificate verification"
            )
        return False

    def _add_crls(self, *, default: bool) -> None:
        conninfo = self._conninfo
        if conninfo.sslcrl is not None:
            add_crl_file(self._context, conninfo.sslcrl)
        if conninfo.sslcrldir is not None:
            add_crl_directory(self._context, conninfo.sslcrldir)
        if default and conninfo.sslcrl is None and conninfo.sslcrldir is None:
            crl = self._file(None, "root.crl")
            if crl is not None and crl.exists():
                add_crl_file(self._context, crl)

    def _use_certificate(self) -> bool:
        """Load the client's certificate and key, where there are any.

        :returns: whether there are.
        """
        conninfo = self._conninfo
        certificate = self._file(conninfo.sslcert, "postgresql.crt")
        if (
            conninfo.sslcertmode is SSLCertMode.DISABLE
            or certificate is None
            or not certificate.exists()
        ):
            return False
        key = self._file(conninfo.sslkey, "postgresql.key")
        if key is None:
            raise ConfigurationError("certificate present, but not private key file")
        password = conninfo.sslpassword.encode() if conninfo.sslpassword else None
        chain, private_key = load_key_pair(certificate, key, password)
        use_key_pair(self._context, chain, private_key)
        return True


def sni(host: str) -> bytes | None:
    """The name to send as Server Name Indication: none for an address (RFC 6066, section 3)."""
    if not host or not host.strip("0123456789.") or ":" in host:
        return None
    try:
        return host.encode("ascii")
    except UnicodeEncodeError:
        return None
