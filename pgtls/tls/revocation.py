"""Certificate revocation lists, for the verification that OpenSSL does.

As libpq and the server do it: every certificate of the chain is checked, and one without a CRL of
its issuer is refused. OpenSSL fails closed on an expired CRL too: until a new one is there it
refuses everybody, and :func:`crl_expiry` is what a log can say when and why with.

Deliberately stricter than libpq, which goes on without any check: a CRL that is named and cannot
be used is an error.
"""

from __future__ import annotations

import os
import re
from datetime import datetime

from cryptography import x509
from OpenSSL import SSL, crypto

from pgtls.errors import ConfigurationError

Path = str | os.PathLike[str]

#: Where CRLs are: in a file, in memory as PEM or DER, or ready-made.
CRLSource = Path | bytes | x509.CertificateRevocationList

_BEGIN_CRL = b"-----BEGIN X509 CRL-----"
_PEM_CRL = re.compile(_BEGIN_CRL + rb".*?-----END X509 CRL-----", re.DOTALL)

#: Hash of the issuer's name, ``r``, and a number where several issuers have the same hash, or one
#: issuer has several CRLs.
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.r[0-9]+")


def add_crl_file(context: SSL.Context, source: CRLSource, parameter: str = "sslcrl") -> None:
    """Have ``context`` check the peer's chain against the CRLs of a file, PEM or DER.

    Only the CRLs: a certificate in the file does not become a trusted one, as it does in libpq.

    :param parameter: the name of the option that names the file, for the error message.
    :raises ConfigurationError: the file cannot be read or holds no CRL.
    """
    crls = _read_crls(source, parameter)
    store = _checking_store(context)
    for crl in crls:
        store.add_crl(crl)


def add_crl_directory(context: SSL.Context, path: Path, parameter: str = "sslcrldir") -> None:
    """Have ``context`` check the peer's chain against a directory as ``openssl rehash`` makes it.

    OpenSSL looks for the file of an issuer when it first meets a certificate of that issuer, and
    then also for files with higher numbers that came later: a new CRL that gets the next number
    is found without a new context. As in libpq, a certificate under a hashed name in there
    (``XXXXXXXX.0``) is a trusted one, so the directory is to hold CRLs only.

    :param parameter: the name of the option that names the directory, for the error message.
    :raises ConfigurationError: there is no such directory, no CRL under a hashed name is in it,
        or one is that OpenSSL would not read.
    """
    for name in _hashed_crls(path, parameter):
        _read_crls(name, parameter, der_too=False)
    _checking_store(context).load_locations(None, path)


def crl_expiry(source: CRLSource, parameter: str = "sslcrl") -> list[tuple[str, datetime | None]]:
    """When the CRLs of a file or a directory expire.

    :returns: for each CRL its issuer (RFC 4514) and its nextUpdate in UTC, None where it has none.
    :raises ConfigurationError: as :func:`add_crl_file` and :func:`add_crl_directory`.
    """
    files: list[CRLSource] = [source]
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        files = [*_hashed_crls(source, parameter)]
    return [
        (crl.issuer.rfc4514_string(), crl.next_update_utc)
        for file in files
        for crl in _read_crls(file, parameter)
    ]


def _read_crls(
    source: CRLSource, parameter: str, *, der_too: bool = True
) -> list[x509.CertificateRevocationList]:
    """The CRLs in a file, or in memory.

    :raises ConfigurationError: it cannot be read, holds none, or a damaged one.
    """
    if isinstance(source, x509.CertificateRevocationList):
        return [source]
    data = source if isinstance(source, bytes) else _content(source, parameter)
    blocks = _PEM_CRL.findall(data)
    try:
        if len(blocks) != data.count(_BEGIN_CRL) or not (blocks or der_too):
            raise ValueError("cut off, or DER")
        if blocks:
            return [x509.load_pem_x509_crl(block) for block in blocks]
        return [x509.load_der_x509_crl(data)]
    except ValueError as error:
        forms = "PEM or DER" if der_too else "PEM"
        raise _unusable(
            source, parameter, f"there is no CRL in {forms} in it, or a damaged one"
        ) from error


def _content(path: Path, parameter: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unusable(path, parameter, error.strerror) from error


def _hashed_crls(directory: Path, parameter: str) -> list[str]:
    """The files of a directory that OpenSSL would look for CRLs in.

    :raises ConfigurationError: there is no such directory, or no such file in it.
    """
    try:
        names = sorted(filter(_HASHED_NAME.fullmatch, os.listdir(directory)))
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
