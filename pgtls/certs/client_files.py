"""The user's files, where libpq looks for them: ``~/.postgresql``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from pgtls.certs.certification_request import CertificationRequest
from pgtls.certs.client_conf import ClientConf
from pgtls.certs.files import (
    locked,
    make_directory,
    read_limited,
    refuse_foreign,
    refuse_symlink,
    write_file,
)
from pgtls.certs.keys import IssuerKey, KeyType, issuer_key, key_in, public_key_der, signing_hash
from pgtls.certs.names import role_field
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import verify_chain
from pgtls.tls.key_file import Password, check_key_matches, load_private_key
from pgtls.tls.sources import load_roots, parse_chain, pem_of, pem_or_der, read_roots


def default_directory() -> Path:
    """``~/.postgresql``.

    :raises ConfigurationError: there is no home directory.
    """
    try:
        return Path("~/.postgresql").expanduser()
    except RuntimeError as error:
        raise ConfigurationError("there is no home directory: name a directory with -D") from error


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """What :func:`keygen` leaves.

    :ivar key_created: whether the key is new.
    :ivar root_known: whether ``root.crt`` has the site's authority.
    """

    key: Path
    csr: Path
    root_crt: Path
    subject: x509.Name
    key_created: bool
    root_created: bool
    root_known: bool


def keygen(
    directory: Path,
    conf: ClientConf,
    role: str,
    *,
    key_type: KeyType | None = None,
    password: Password = None,
    new_password: bytes | None = None,
    force: bool = False,
) -> KeyFiles:
    """Make ``postgresql.key`` and ``postgresql.csr``, and ``root.crt`` if there is none.

    A key without a request for it is used as it is, so that an interrupted command can be repeated.

    :param directory: the user's, such as ``~/.postgresql``; it is made if absent.
    :param conf: what the DBA's ``client.conf`` says.
    :param role: the role, which becomes the common name.
    :param key_type: the kind of a new key; None for the one in ``conf``.
    :param password: of an existing key.
    :param new_password: to encrypt a new key with.
    :param force: replace an existing key and request.
    :returns: the files, and what there is to say about them.
    :raises ConfigurationError: they are there; or a file or the role's name cannot be used.
    """
    subject = x509.Name([*conf.subject, role_field(role)])
    make_directory(directory, 0o700)
    with locked(directory):
        key_path, csr_path, root_crt = (
            directory / name for name in ("postgresql.key", "postgresql.csr", "root.crt")
        )
        refuse_symlink(csr_path, "file")  # before the key is made
        waits = key_path.exists() and not _belongs(csr_path, issuer_key(key_path, password))
        if not force and not waits and os.path.lexists(key_path):
            raise ConfigurationError(
                f'"{key_path}" is there already: send "{csr_path}" to your DBA; for a second key '
                "take another directory (-D), and --force to replace it"
            )
        created = force or not waits
        kind = key_type or conf.key_type
        key = key_in(key_path, kind, new_password, password=password, overwrite=force)
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        csr = builder.sign(key, signing_hash(key))
        write_file(csr_path, csr.public_bytes(Encoding.PEM), overwrite=True)
        root_created = not os.path.lexists(root_crt)
        if root_created:
            write_file(root_crt, pem_of(conf.root.der))
        known = conf.root in read_roots(root_crt)
        return KeyFiles(key_path, csr_path, root_crt, subject, created, root_created, known)


def _belongs(csr_path: Path, key: IssuerKey) -> bool:
    """Whether there is a request for that key."""
    try:
        request = CertificationRequest.read(csr_path.read_bytes())
        return request is not None and request.public_key_der == public_key_der(key)
    except (OSError, ValueError):
        return False


def install(
    certificate_path: Path, directory: Path, *, password: Password = None, force: bool = False
) -> tuple[Path, Certificate]:
    """Check that a certificate fits the key and ``root.crt`` in ``directory``, and put it there as
    ``postgresql.crt``.

    :param certificate_path: what the DBA sent, in PEM or DER.
    :param directory: the user's, such as ``~/.postgresql``.
    :param password: of the key.
    :param force: replace another ``postgresql.crt``.
    :returns: the file that was written, and the certificate.
    :raises ConfigurationError: it does not fit; or there is another certificate and ``force`` is
        false.
    """
    data = read_limited(certificate_path, "certificate file")
    what = f'certificate file "{certificate_path}"'
    chain = parse_chain(pem_or_der(data), what).certificates
    key_path = directory / "postgresql.key"
    if not os.path.lexists(key_path):
        raise ConfigurationError(f'there is no "{key_path}": begin with pgtls keygen')
    refuse_foreign(directory)
    with locked(directory):
        refuse_symlink(key_path)
        key = load_private_key(key_path, password)
        check_key_matches(chain[0], key, f'private key file "{key_path}"')
        _check_purpose(chain[0])
        _check_chain(chain, directory / "root.crt")
        target = directory / "postgresql.crt"
        refuse_symlink(target, "file")
        pem = b"".join(pem_of(certificate.der) for certificate in chain)
        if not target.exists() or target.read_bytes() != pem:
            if target.exists() and not force and not certificate_path.samefile(target):
                raise ConfigurationError(f'"{target}" is there already: --force replaces it')
            write_file(target, pem, overwrite=True)
        return target, chain[0]


def _check_purpose(certificate: Certificate) -> None:
    found = certificate.purposes
    if found is not None and ExtendedKeyUsageOID.CLIENT_AUTH.dotted_string not in found:
        raise ConfigurationError("it is not a client certificate: servers would refuse it")


def _check_chain(chain: Sequence[Certificate], root_crt: Path) -> None:
    """As a server does: by OpenSSL, signatures and dates."""
    failure = verify_chain(chain, load_roots(root_crt))
    if failure is not None:
        raise ConfigurationError(f'it does not verify by "{root_crt}": {failure.reason}')
