"""What the daemon says when it is up: where it listens, and how to reach it."""

from __future__ import annotations

import shlex
import sys

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from pgtls.conninfo.grammar import format_text
from pgtls.daemon.configuration import DaemonSettings, GatewaySettings
from pgtls.daemon.state import DefaultCertificate

_log = Logger(namespace="pgtls.gateway")

#: Addresses that stand for every one of the machine's.
_ANY = ("0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104


def say(line: str) -> None:
    """A line for who started the daemon, beside its log."""
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)


def announce(
    address: IAddress,
    settings: GatewaySettings,
    certificate: DefaultCertificate | None,
    daemon: DaemonSettings,
) -> None:
    """Say where a gateway listens and, where its certificate is self-made, which psql command
    reaches and verifies it."""
    host, port = _host_port(address)
    _log.info(
        "listening on {address}, ssl={ssl}", address=f"{host}:{port}", ssl=settings.listener.ssl
    )
    say(f"pgtls: listening on {host}:{port}")
    if certificate is None or not isinstance(address, IPv4Address | IPv6Address):
        return
    if settings.listen.startswith("haproxy:"):
        return  # clients come through the proxy, wherever that is
    say(f"certificate (SHA-256): {certificate.sha256}")
    conninfo = {
        "host": "localhost" if host in _ANY else host,
        "port": str(port),
        "sslmode": "verify-full",
        "sslrootcert": str(certificate.root_crt),
        "dbname": "postgres",
    }
    if daemon.embedded and not settings.upstream:
        conninfo["user"] = "postgres"
    line = shlex.join(["psql", format_text(conninfo)])
    say(f"connect with:\n\n    {line}\n")


def _host_port(address: IAddress) -> tuple[str, int | str]:
    if isinstance(address, IPv4Address | IPv6Address):
        return address.host, address.port
    if isinstance(address, UNIXAddress):
        return "unix", (address.name or b"").decode("utf-8", "backslashreplace")
    return str(address), ""
