"""What the daemon prints when it is up: where it listens, and how to reach it."""

from __future__ import annotations

import shlex
import sys

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from pgtls.conninfo.grammar import format_text
from pgtls.daemon.state import DefaultCertificate
from pgtls.gateway.gateway_configuration import GatewaySettings
from pgtls.protocols.connection_info import listener_text
from pgtls.wire.proxy_header import ProxyProtocol

_log = Logger(namespace="pgtls.gateway")

#: Addresses that stand for every one of the machine's.
_ANY = ("0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104


def print_line(line: str) -> None:
    """Print a line on standard output, beside the log.

    :param line: without its end.
    """
    if sys.__stdout__ is not None:
        print(line, file=sys.__stdout__, flush=True)


def print_listening(
    address: IAddress,
    settings: GatewaySettings,
    certificate: DefaultCertificate | None,
    *,
    embedded: bool,
) -> None:
    """Print and log where a gateway listens and, where its certificate is self-made, the psql
    command that reaches and verifies it.

    :param address: where it listens.
    :param settings: the gateway's.
    :param certificate: the daemon's own; None where another one is shown.
    :param embedded: whether the upstream is the embedded PostgreSQL.
    """
    shown = listener_text(address)
    _log.info("listening on {address}, ssl={ssl}", address=shown, ssl=settings.listener.ssl)
    print_line(f"pgtls: listening on {shown}")
    if certificate is None or not isinstance(address, IPv4Address | IPv6Address):
        return
    if settings.listener.proxy_protocol is ProxyProtocol.REQUIRE:
        return  # clients come through the proxy, wherever that is
    print_line(f"certificate (SHA-256): {certificate.sha256}")
    conninfo = {
        "host": "localhost" if address.host in _ANY else address.host,
        "port": str(address.port),
        "sslmode": "verify-full",
        "sslrootcert": str(certificate.root_crt),
        "dbname": "postgres",
    }
    if embedded:
        conninfo["user"] = "postgres"
    line = shlex.join(["psql", format_text(conninfo)])
    print_line(f"connect with:\n\n    {line}\n")
