"""Certificate revocation lists, for the verification that OpenSSL does.

As libpq and the server do it: every certificate of the chain is checked, and one without a CRL of
its issuer is refused. OpenSSL fails closed on an expired CRL too: until a new one is there it
refuses every certificate of that issuer, and :func:`read_crls` is what a log can say when and why
with.

Deliberately stricter than libpq, which goes on without any check: a CRL that is named and cannot
be used is an error.
"""

from __future__ import annotations

import os
import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError
from pgtls.reading import is_directory, names_in, read_file
from pgtls.tls.loading import reason_of
from pgtls.tls.pem import CRLS, blocks, file_of, is_der, why_nothing
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.sources import pem_of

Path = str | os.PathLike[str]

#: Where CRLs are: in a file, in memory as PEM or DER, or ready-made.
CRLSource = Path | bytes | x509.CertificateRevocationList

#: Hash of the issuer's name, ``r``, and a number where several issuers have the same hash, or one
#: issuer has several CRLs.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.r[0-9]+")


def add_crl_file(context: SSL.Context, source: CRLSource, parameter: str = "sslcrl") -> None:
    """Have ``context`` check the peer's chain against the CRLs of a file.

    OpenSSL reads them, X509_STORE_load_locations(), and must be able to read all that is in the
    file. Only the CRLs count: a certificate in the file does not become a trusted one, as it does
    in libpq.

    :param context: the context.
    :param source: a file in PEM; or PEM, DER or an object in memory.
    :param parameter: the name of the option that names the file, for the error message.
    :raises ConfigurationError: the file cannot be read or holds no CRL.
    """
    pem = _checked(source, parameter)
    only_crls = b"".join(block.text for block in blocks(pem, CRLS))
    store = _checking_store(context)
    with file_of(only_crls) as path:
        store.load_locations(path)


def add_crl_directory(context: SSL.Context, path: Path, parameter: str = "sslcrldir") -> None:
    """Have ``context`` check the peer's chain against a directory as ``openssl rehash`` makes it.

    OpenSSL looks for the file of an issuer when it first meets a certificate of that issuer, and
    then also for files with higher numbers that came later: a new CRL that gets the next number
    is found without a new context. As in libpq, a certificate under a hashed name in there
    (``XXXXXXXX.0``) is a trusted one, so the directory is to hold CRLs only.

    :param context: the context.
    :param path: the directory.
    :param parameter: the name of the option that names the directory, for the error message.
    :raises ConfigurationError: there is no such directory, no CRL under a hashed name is in it, or
        one is that OpenSSL would not read.
    """
    for name in hashed_crls(path, parameter):
        _checked(name, parameter)
    load_crl_directory(context, path)


def load_crl_directory(context: SSL.Context, path: Path) -> None:
    """As :func:`add_crl_directory`, where the files in it have been looked at.

    :param context: whose peers' chains are checked.
    :param path: the directory.
    """
    _checking_store(context).load_locations(None, path)


def read_crls(
    source: CRLSource, parameter: str = "sslcrl"
) -> list[tuple[CRLSource, RevocationList]]:
    """The CRLs of a file or a directory.

    :param source: as for :func:`add_crl_file`, or a directory.
    :param parameter: the name of the option, for the error message.
    :returns: each with the file that it is in.
    :raises ConfigurationError: as :func:`add_crl_file` and :func:`add_crl_directory`.
    """
    files: list[CRLSource] = [source]
    if isinstance(source, str | os.PathLike) and is_directory(source):
        files = [*hashed_crls(source, parameter)]
    return [
        (file, RevocationList(block.der))
        for file in files
        for block in blocks(_checked(file, parameter), CRLS)
    ]


def hashed_crls(directory: Path, parameter: str) -> list[str]:
    """The files of a directory that OpenSSL would look for CRLs in.

    :param directory: the directory.
    :param parameter: the name of the option, for the error message.
    :returns: their names.
    :raises ConfigurationError: there is no such directory, or no such file in it.
    """
    try:
        names = sorted(filter(_HASHED_NAME.fullmatch, names_in(directory)))
    except OSError as error:
        raise _unusable(directory, parameter, error.strerror) from error
    if not names:
        raise _unusable(
            directory,
            parameter,
            "no CRL has a hashed name there (XXXXXXXX.r0); "
            f'run "openssl rehash {os.fspath(directory)}"',
        )
    return [os.path.join(directory, name) for name in names]


def _checked(source: CRLSource, parameter: str) -> bytes:
    """The PEM of a source, which OpenSSL has read once.

    :raises ConfigurationError: it cannot be read, or has no CRL.
    """
    pem = _pem(source, parameter)
    try:
        if not blocks(pem, CRLS):
            raise ValueError("no CRL in PEM in it")
        with file_of(pem) as path:
            crypto.X509Store().load_locations(path)
    except (crypto.Error, ValueError) as error:
        reason = reason_of(error) if isinstance(error, crypto.Error) else str(error)
        hint = why_nothing(pem)
        raise _unusable(source, parameter, f"{reason} ({hint})" if hint else reason) from error
    return pem


def _pem(source: CRLSource, parameter: str) -> bytes:
    if isinstance(source, x509.CertificateRevocationList):
        return source.public_bytes(Encoding.PEM)
    if isinstance(source, bytes):
        return pem_of(source, CRLS[0]) if is_der(source) else source
    try:
        return read_file(source)
    except OSError as error:
        raise _unusable(source, parameter, error.strerror) from error


def _checking_store(context: SSL.Context) -> crypto.X509Store:
    """The context's store, with the flags that make OpenSSL check the whole chain."""
    store = context.get_cert_store()
    if store is None:  # pyOpenSSL's type says so; a context has had one since it was made
        raise ConfigurationError("the TLS context has no certificate store")
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    return store


def _unusable(source: CRLSource, parameter: str, reason: str | None) -> ConfigurationError:
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else "memory"
    return ConfigurationError(f'{parameter}: could not load CRLs from "{name}": {reason}')
