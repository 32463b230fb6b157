"""The gateway's state directory, and the certificate that it makes for itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pgtls.certs.files import locked, make_directory, refuse_foreign
from pgtls.certs.names import general_names
from pgtls.certs.server_files import names_of, write_server_files
from pgtls.errors import ConfigurationError
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import signed_by
from pgtls.tls.sources import load_key_pair, read_chain

#: How long before its end a certificate is made anew.
RENEWAL = timedelta(days=30)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DefaultCertificate:
    """The certificate of a gateway that was given none.

    :ivar root_crt: what clients verify it against.
    :ivar sha256: its fingerprint, as openssl prints it.
    :ivar created: whether it was made just now.
    """

    root_crt: Path
    server_crt: Path
    server_key: Path
    sha256: str
    created: bool


def state_directory(option: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The state directory, made (for its owner only) if it is not there.

    :param option: what ``--state-dir`` says. Without it: systemd's ``$STATE_DIRECTORY``, else
        ``pgtls`` in ``$XDG_STATE_HOME``, which is ``~/.local/state`` if unset.
    :param environ: the environment.
    :returns: its path.
    :raises ConfigurationError: it cannot be made, is another user's, or is writable for others.
    """
    directory = chosen_directory(option, environ)
    try:
        make_directory(directory, 0o700)
    except ConfigurationError as error:
        raise ConfigurationError(
            *(f"state directory: {mistake}" for mistake in error.mistakes)
        ) from None
    return directory


def check_state_directory(
    option: str | None = None, environ: Mapping[str, str] = os.environ
) -> DefaultCertificate | None:
    """See whether :func:`state_directory` and :func:`default_certificate` would succeed. Nothing is
    made.

    :param option: as there.
    :param environ: as there.
    :returns: the certificate that is there and would be used; None where one would be made.
    :raises ConfigurationError: they would fail.
    """
    directory = chosen_directory(option, environ)
    try:
        if os.path.lexists(directory):
            refuse_foreign(directory)
        present = _present(directory, _wanted())
        if present is not None:
            return _described(directory, present, created=False)
        existing = next(each for each in (directory, *directory.parents) if each.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f'no certificate can be made in "{directory}": "{existing}" cannot be written to'
            )
    except ConfigurationError as error:
        raise ConfigurationError(*(f"state directory: {each}" for each in error.mistakes)) from None
    except OSError as error:
        raise ConfigurationError(f"state directory: {error}") from error
    return None


def chosen_directory(option: str | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """Which directory :func:`state_directory` takes; it need not be there.

    :param option: as there.
    :param environ: as there.
    :returns: its path.
    :raises ConfigurationError: there is none to take.
    """
    if option:
        return Path(option).expanduser().absolute()
    # systemd names every StateDirectory= of the unit, the first one first.
    if systemds := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(systemds)
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    if xdg.is_absolute():  # the specification has relative ones ignored
        return xdg / "pgtls"
    try:
        return Path("~/.local/state/pgtls").expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            "there is no home directory to keep state in: name one with --state-dir"
        ) from error


def default_certificate(state_dir: Path, names: Sequence[str] = ()) -> DefaultCertificate:
    """The gateway's own certificate: made once, with an authority, and used from then on.

    It is renewed, by the same authority, when it expires soon, when it lacks a name that is wanted
    now (it keeps the others), or when its files do not fit together.

    :param state_dir: the state directory.
    :param names: host names and addresses that clients will use, besides this machine's own.
    :returns: the certificate's files.
    :raises ConfigurationError: a name or a file cannot be used.
    """
    wanted = [*_wanted(), *names]
    general_names(wanted)
    certificate = _present(state_dir, wanted)
    if certificate:
        return _described(state_dir, certificate, created=False)
    try:
        with locked(state_dir):
            # Another gateway may have been quicker.
            certificate = _present(state_dir, wanted)
            created = certificate is None
            if certificate is None:
                # The resolver may take its time, so it is asked only now.
                wanted += [*_usable(socket.getfqdn()), *_names_so_far(state_dir)]
                certificate = write_server_files(state_dir, wanted).certificate
    except OSError as error:
        raise ConfigurationError(
            f'no certificate can be made in state directory "{state_dir}": {error.strerror}'
        ) from error
    return _described(state_dir, certificate, created=created)


def _wanted() -> list[str]:
    return [*_LOOPBACK, *_usable(socket.gethostname())]


def _described(state_dir: Path, certificate: Certificate, *, created: bool) -> DefaultCertificate:
    return DefaultCertificate(
        root_crt=state_dir / "root.crt",
        server_crt=state_dir / "server.crt",
        server_key=state_dir / "server.key",
        sha256=certificate.fingerprint,
        created=created,
    )


def _usable(name: str) -> list[str]:
    """What the machine calls itself, if a certificate can say so and it is not made of an address
    (``1.0.0.127.in-addr.arpa``, where the resolver knows no better)."""
    try:
        general_names([name])
    except ConfigurationError:
        return []
    return [] if name.endswith(".arpa") else [name]


def _present(state_dir: Path, wanted: Sequence[str]) -> Certificate | None:
    """The certificate that is there, if it will do."""
    try:
        root = read_chain(state_dir / "root.crt").certificates[0]
        pair = load_key_pair(state_dir / "server.crt", state_dir / "server.key")
        certificate = pair.chain.certificates[0]
        ends, last = certificate.not_after, root.not_after
    except (ConfigurationError, ValueError):
        return None
    names = {str(name.value) for name in general_names(wanted)}
    if not signed_by(certificate, root) or not names.issubset(names_of(certificate)):
        return None
    # At the authority's own end a new certificate would end no later.
    early = RENEWAL if ends < last else timedelta(0)
    return certificate if datetime.now(UTC) + early < ends else None


def _names_so_far(state_dir: Path) -> list[str]:
    try:
        return names_of(read_chain(state_dir / "server.crt").certificates[0])
    except ConfigurationError:
        return []
