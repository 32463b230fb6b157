"""A client's roots, CRLs, certificate and key, in the files where libpq looks for them.

``initialize_SSL`` in ``src/interfaces/libpq/fe-secure-openssl.c``; PostgreSQL's documentation,
"Client Verification of Server Certificates" and "Client Certificates".
"""

from __future__ import annotations

import os
from pathlib import Path

from OpenSSL import SSL

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.reading import exists, status_of
from pgtls.tls.certificate import Certificate
from pgtls.tls.sources import KeyPair, load_key_pair, read_roots
from pgtls.wire.attempts import SSLMode

#: Where systems keep their roots: the files that pyOpenSSL looks for.
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)

_VERIFYING = (SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)


def file_of(conninfo: ConnInfo, named: str | None, default: str) -> Path | None:
    """The file that a parameter names, else libpq's default.

    :param conninfo: the connection string.
    :param named: the parameter's value; None where it is not given.
    :param default: the name of the default in ``~/.postgresql``.
    :returns: the file; None where there is no home directory.
    """
    if named is not None:
        return Path(named)
    directory = conninfo.default_directory
    return None if directory is None else directory / default


def crl_sources(conninfo: ConnInfo) -> list[str]:
    """The files and directories of CRLs that are read: ``sslcrl`` and ``sslcrldir``, else
    ``root.crl`` in the default directory where there is one, and roots are not the system's.

    :param conninfo: the connection string.
    :returns: their paths.
    """
    named = [each for each in (conninfo.sslcrl, conninfo.sslcrldir) if each is not None]
    default = file_of(conninfo, None, "root.crl")
    if named or conninfo.sslrootcert == "system" or default is None:
        return named
    return [str(default)] if exists(default) else []


def roots_of(conninfo: ConnInfo, context: SSL.Context | None = None) -> list[Certificate] | None:
    """The certificates of ``sslrootcert``, or of ``root.crt`` in the default directory.

    :param conninfo: the connection string.
    :param context: is made to trust them.
    :returns: None where there is no such file and the sslmode does without.
    :raises ConfigurationError: the file is needed, or cannot be read.
    """
    roots = file_of(conninfo, conninfo.sslrootcert, "root.crt")
    if roots is not None and exists(roots):
        return read_roots(roots, context=context)
    if conninfo.sslmode not in _VERIFYING:
        return None
    what = (
        "could not get home directory to locate root certificate file"
        if roots is None
        else f'root certificate file "{roots}" does not exist'
    )
    raise ConfigurationError(
        f"{what}. Either provide the file, use the system's trusted roots with "
        "sslrootcert=system, or change sslmode to disable server certificate verification."
    )


def note_system_roots() -> None:
    """Have the system's roots noted among the files that are read: OpenSSL reads them itself."""
    for path in (os.environ.get("SSL_CERT_FILE"), *_SYSTEM_ROOTS):
        if path:
            exists(path)


def key_pair_of(conninfo: ConnInfo) -> KeyPair | None:
    """The client's certificate with its intermediates, and its key: ``sslcert``, ``sslkey``.

    :param conninfo: the connection string.
    :returns: None where there is no certificate file.
    :raises ConfigurationError: there is one, and it or its key cannot be used.
    """
    certificate = file_of(conninfo, conninfo.sslcert, "postgresql.crt")
    if certificate is None or not _is_there(certificate):
        return None
    key = file_of(conninfo, conninfo.sslkey, "postgresql.key")
    if key is None:
        raise ConfigurationError("certificate present, but not private key file")
    return load_key_pair(certificate, key, password_of(conninfo))


def _is_there(path: Path) -> bool:
    """:raises ConfigurationError: it cannot be told."""
    try:
        status_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigurationError(
            f'could not open certificate file "{path}": {error.strerror}'
        ) from error
    return True


def password_of(conninfo: ConnInfo) -> bytes | None:
    """The password of an encrypted key: ``sslpassword``.

    :param conninfo: the connection string.
    :returns: the password; None where none is given.
    """
    return conninfo.sslpassword.encode() if conninfo.sslpassword else None
