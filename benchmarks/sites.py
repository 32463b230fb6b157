"""Where a peer is set up: its directory and port, and which of its connections have TLS."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.support.servers import free_port


class Legs(StrEnum):
    """Which of the two connections of a session have TLS."""

    TLS_PLAIN = "tls-plain"
    PLAIN_TLS = "plain-tls"
    TLS_TLS = "tls-tls"

    @property
    def client_tls(self) -> bool:
        """Whether the client's has."""
        return self is not Legs.PLAIN_TLS

    @property
    def server_tls(self) -> bool:
        """Whether the server's has."""
        return self is not Legs.TLS_PLAIN

    @property
    def words(self) -> str:
        """For people."""
        return self.value.replace("tls", "TLS").replace("-", " to ")


@dataclass(frozen=True)
class Site:
    """Where a peer is set up.

    :ivar directory: for its configuration; everyone can read it.
    :ivar port: where it is to listen, on 127.0.0.1.
    :ivar upstream: the server's port, on the same address.
    """

    directory: Path
    port: int
    upstream: int
    certificate: Path
    key: Path
    legs: Legs

    def write(self, name: str, text: str) -> str:
        """A file in the directory; gives its path."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o644)
        return str(path)


def site(directory: Path, name: str, upstream: int, pair: tuple[Path, Path], legs: Legs) -> Site:
    """A place for a peer, with a port of its own."""
    port = free_port()
    own = directory / f"{name}-{legs}-{port}"
    own.mkdir()
    own.chmod(0o755)
    return Site(own, port, upstream, *pair, legs)
