"""The peers' configuration: as each comes, but for what the measuring needs.

Each function writes the files of a peer, and gives the command that starts it. Each shows the same
certificate (ECDSA P-256), and passes everything on to one server.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.sites import Site
from tests.support.servers import HOST, free_port

#: The checkout that this is in.
SOURCE = Path(__file__).resolve().parent.parent

#: ``twistd`` with the plugin in the directory that comes first: another pgtls may be installed, and
#: Twisted would find the plugin of that one.
_TWISTD = (
    "import sys, twisted.plugins; twisted.plugins.__path__.insert(0, sys.argv.pop(1)); "
    "from twisted.scripts.twistd import run; run()"
)

#: Clients that each peer lets in at a time.
CLIENTS = 6_000


def pgtls(
    program: str,
    site: Site,
    *,
    workers: int = 1,
    everything: bool = False,
    source: Path = SOURCE,
) -> list[str]:
    """The gateway.

    :param everything: with routes, hba_file, metrics, and PROXY headers that clients may send.
    :param source: the checkout whose gateway it is.
    """
    sslmode = "require" if site.legs.server_tls else "disable"
    upstream = f"host={HOST} port={site.upstream} sslmode={sslmode}"
    daemon = {"state_dir": str(site.directory / "state"), "workers": workers}
    gateway: dict[str, Any] = {
        "listen": f"tcp:{site.port}:interface={HOST}:backlog=1024",
        "upstream": upstream,
        "max_connections": CLIENTS,
    }
    if site.legs.client_tls:
        gateway |= {"ssl_cert_file": str(site.certificate), "ssl_key_file": str(site.key)}
    else:
        gateway |= {"ssl": "off"}
    routes: list[dict[str, Any]] = []
    if everything:
        daemon |= {"status": f"tcp:{free_port()}:interface={HOST}"}
        hba = site.write("pg_hba.conf", f"hostssl all all {HOST}/32 trust\n")
        gateway |= {"hba_file": hba, "proxy_protocol": "allow", "proxy_protocol_from": [HOST]}
        matching = {"sni": "*.example.com"}, {"database": "postgres"}
        routes = [{**each, "upstream": upstream} for each in matching]
    tables = [_toml(daemon), "[[gateway]]", _toml(gateway)]
    for route in routes:
        tables += ["[[gateway.route]]", _toml(route)]
    config = site.write("pgtls.toml", "\n".join(tables) + "\n")
    # As its unit runs it, without session tickets: pgbouncer sends none either.
    environment = [
        f"OPENSSL_CONF={SOURCE / 'conf/openssl.cnf'}",
        "GLIBC_TUNABLES=glibc.malloc.hugetlb=1",
        f"PYTHONPATH={source}",
    ]
    log = f"--logfile={site.directory / 'log'}"
    twistd = [sys.executable, "-c", _TWISTD, f"{source / 'twisted/plugins'}"]
    return ["env", *environment, *twistd, "-n", "--pidfile=", log, "pgtls", "--config", config]


def _toml(settings: Mapping[str, Any]) -> str:
    # A value in JSON is one in TOML too, as far as they are used here.
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())


def stunnel(program: str, site: Site) -> list[str]:
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


def pgbouncer(program: str, site: Site) -> list[str]:
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


def haproxy(program: str, site: Site) -> list[str]:
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


def envoy(program: str, site: Site) -> list[str]:
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
