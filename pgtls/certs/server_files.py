"""``server.crt`` and ``server.key`` in the authority's directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from pgtls.certs.authority import Authority
from pgtls.certs.database import Database
from pgtls.certs.files import locked, make_directory, refuse_symlink, write_file
from pgtls.certs.keys import IssuerKey, KeyType, issuer_key, key_in, public_key_der
from pgtls.certs.names import general_names
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.key_file import Password
from pgtls.tls.sources import read_chain
from pgtls.tls.tls_info import alternative_text


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What :func:`mkcert` leaves in the directory.

    :ivar root_created: whether the authority is new, so that clients need its ``root.crt``.
    """

    root_crt: Path
    server_crt: Path
    server_key: Path
    certificate: Certificate
    root_created: bool


def mkcert(
    directory: Path,
    names: Sequence[str],
    *,
    force: bool = False,
    key_type: KeyType = KeyType.ECDSA,
    password: Password = None,
    new_password: bytes | None = None,
) -> ServerFiles:
    """Make ``server.crt`` and ``server.key`` in ``directory``, and the authority if it is absent,
    with a first ``root.crl``.

    :param directory: the authority's.
    :param names: of the server: host names and addresses.
    :param force: replace an existing server certificate; never an authority.
    :param key_type: the kind of new keys.
    :param password: of ``root.key``.
    :param new_password: to encrypt a new ``root.key`` with.
    :returns: what was written.
    :raises ConfigurationError: a server certificate exists; or a name or a file cannot be used.
    """
    general_names(names)  # its complaints come before anything is made
    make_directory(directory, 0o755)
    with locked(directory):
        server_crt = directory / "server.crt"
        if server_crt.exists() and not force:
            raise ConfigurationError(_there_already(directory))
        files = write_server_files(directory, names, key_type, password, new_password)
        if not (directory / "root.crl").exists():
            authority = Authority.load(directory, new_password if files.root_created else password)
            authority.write_crl(Database.create(directory))
        return files


def renew(directory: Path, names: Sequence[str] = (), password: Password = None) -> ServerFiles:
    """A new ``server.crt`` for the same key and, unless others are given, the same names.

    :param directory: the authority's.
    :param names: of the server; empty for those in the certificate.
    :param password: of ``root.key``.
    :returns: what was written.
    :raises ConfigurationError: there is none to renew; or a name or a file cannot be used.
    """
    make_directory(directory, 0o755)
    with locked(directory):
        server_crt, server_key = directory / "server.crt", directory / "server.key"
        present = read_chain(server_crt).certificates[0]
        key = _key_of(present, server_key)
        authority = Authority.load(directory, password)
        certificate = _certify(authority, names or names_of(present), key)
        return ServerFiles(directory / "root.crt", server_crt, server_key, certificate, False)


def names_of(certificate: Certificate) -> list[str]:
    """The names that a certificate was made for.

    :param certificate: the server's.
    :returns: the names; none where they cannot be read.
    """
    try:
        names = [alternative_text(name) for name in certificate.alternative_names]
    except ValueError:
        return []
    return [name for name in names if name is not None]


def _key_of(certificate: Certificate, server_key: Path) -> IssuerKey:
    """:raises ConfigurationError: the file has no key, or another's."""
    key = issuer_key(server_key)
    if public_key_der(key) != certificate.public_key_der:
        raise ConfigurationError(f'certificate does not match private key file "{server_key}"')
    return key


def write_server_files(
    directory: Path,
    names: Sequence[str],
    key_type: KeyType = KeyType.ECDSA,
    password: Password = None,
    new_password: bytes | None = None,
) -> ServerFiles:
    """What :func:`mkcert` does, for a caller that holds the directory's lock and has decided that
    ``server.crt`` and ``server.key`` may be overwritten.

    A ``server.key`` without a ``server.crt`` is used as it is, so that an interrupted command can
    be repeated.

    :param directory: the authority's.
    :param names: of the server: host names and addresses.
    :param key_type: the kind of new keys.
    :param password: of ``root.key``.
    :param new_password: to encrypt a new ``root.key`` with.
    :returns: what was written.
    :raises ConfigurationError: a name or a file cannot be used.
    """
    root_crt, server_crt = directory / "root.crt", directory / "server.crt"
    root_created = not root_crt.exists()
    authority = (
        Authority.create_locked(directory, None, key_type, new_password, password)
        if root_created
        else Authority.load(directory, password)
    )
    authority.refuse_expired()
    server_key = directory / "server.key"
    refuse_symlink(server_crt, "file")
    key = key_in(server_key, key_type, None, overwrite=server_crt.exists())
    certificate = _certify(authority, names, key)
    return ServerFiles(root_crt, server_crt, server_key, certificate, root_created)


def _certify(authority: Authority, names: Sequence[str], key: IssuerKey) -> Certificate:
    """Issue, record, write: in this order, so that nothing is out that is not recorded."""
    made = authority.certify_server(names, key.public_key())
    certificate = Certificate.of(made)
    Database.create(authority.directory).add(certificate)
    pem = made.public_bytes(Encoding.PEM)
    write_file(authority.directory / "server.crt", pem, overwrite=True)
    return certificate


def _there_already(directory: Path) -> str:
    server_crt, server_key = directory / "server.crt", directory / "server.key"
    try:
        _key_of(read_chain(server_crt).certificates[0], server_key)
    except ConfigurationError as error:
        return f'"{server_crt}" is there already, but of no use: {error}; --force makes both anew'
    return f'"{server_crt}" is there already: --renew keeps its key, --force makes both anew'
