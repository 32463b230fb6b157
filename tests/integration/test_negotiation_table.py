"""PostgreSQL's table of negotiations, row by row, through ``pgtls probe``.

The rows are those of ``src/interfaces/libpq/t/005_negotiate_encryption.pl`` (PostgreSQL 17 and 18)
with ``gssencmode=disable``, in its notation: a dot is what stands above, a star is everything. Each
row is checked twice, as there against the server's log: what the probe tells must be what the
server saw. The last tables have a gateway in the place of the server.
"""

from __future__ import annotations

import atexit
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from pgtls.commands.probe import run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from tests.support.certificates import Files, localhost
from tests.support.gateway_daemon import Gateway, twistd
from tests.support.processes import run
from tests.support.servers import Server, negotiation_server
from tests.support.transports import Transports

reactor = cast(Any, _reactor)

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
SSLNEGOTIATIONS = ("postgres", "direct")

WEAK_DIRECT = """
*          disable      direct     -                                                     -> fail
*          allow        direct     -                                                     -> fail
*          prefer       direct     -                                                     -> fail
"""

SSL_OFF = f"""
# user     sslmode      negotiation  events                                              -> outcome
testuser   disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, sslreject, authok                            -> plain
.          require      postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-ca    postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-full  postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
{WEAK_DIRECT}
"""

SSL_ON = f"""
testuser   disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, sslaccept, authok                            -> ssl
.          require      postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-ca    postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-full  postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
{WEAK_DIRECT}
"""

SSL_ON_SPECIAL_USERS = f"""
ssluser    disable      postgres   connect, authfail                                     -> fail
.          allow        postgres   connect, authfail, reconnect, sslaccept, authok       -> ssl
.          prefer       postgres   connect, sslaccept, authok                            -> ssl
.          require      postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-ca    postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-full  postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
nossluser  disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, sslaccept, authfail, reconnect, authok       -> plain
.          require      postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
.          verify-ca    postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
.          verify-full  postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
{WEAK_DIRECT}
"""


# Users that the server's pg_hba.conf lets in one way only, on a server without SSL.
SSL_OFF_SPECIAL_USERS = f"""
ssluser    disable      postgres   connect, authfail                                     -> fail
.          allow        postgres   connect, authfail, reconnect, sslreject               -> fail
.          prefer       postgres   connect, sslreject, authfail                          -> fail
.          require      postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-ca    postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-full  postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
nossluser  disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, sslreject, authok                            -> plain
.          require      postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-ca    postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
.          verify-full  postgres   connect, sslreject                                    -> fail
.          .            direct     connect, directsslreject                              -> fail
{WEAK_DIRECT}
"""

UNIX_SOCKET = f"""
localuser  disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, authok                                       -> plain
.          require      postgres   connect, authok                                       -> plain
.          .            direct     connect, authok                                       -> plain
.          verify-ca    postgres   connect, authok                                       -> plain
.          .            direct     connect, authok                                       -> plain
.          verify-full  postgres   connect, authok                                       -> plain
.          .            direct     connect, authok                                       -> plain
{WEAK_DIRECT}
"""

# A gateway with ssl=require is to everyone what a hostssl line of pg_hba.conf is to ssluser.
GATEWAY_REQUIRE = f"""
testuser   disable      postgres   connect, authfail                                     -> fail
.          allow        postgres   connect, authfail, reconnect, sslaccept, authok       -> ssl
.          prefer       postgres   connect, sslaccept, authok                            -> ssl
.          require      postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-ca    postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-full  postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
{WEAK_DIRECT}
"""

# With sslmode=require behind the gateway, the server sees SSL whatever the client does.
GATEWAY_TO_SSL = f"""
ssluser    disable      postgres   connect, authok                                       -> plain
.          allow        postgres   connect, authok                                       -> plain
.          prefer       postgres   connect, sslaccept, authok                            -> ssl
.          require      postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-ca    postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
.          verify-full  postgres   connect, sslaccept, authok                            -> ssl
.          .            direct     connect, directsslaccept, authok                      -> ssl
nossluser  disable      postgres   connect, authfail                                     -> fail
.          allow        postgres   connect, authfail, reconnect, sslaccept, authfail     -> fail
.          prefer       postgres   connect, sslaccept, authfail, reconnect, authfail     -> fail
.          require      postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
.          verify-ca    postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
.          verify-full  postgres   connect, sslaccept, authfail                          -> fail
.          .            direct     connect, directsslaccept, authfail                    -> fail
{WEAK_DIRECT}
"""

Row = tuple[str, str, str]
"""User, sslmode, sslnegotiation."""


def rows(table: str) -> dict[Row, str]:
    """The events and the outcome of each row, ``connect, authok -> plain``."""
    lines = [line.split(None, 3) for line in table.splitlines() if line.strip(" #")[:4] != "user"]
    users = {line[0] for line in lines if line} - {".", "*"}
    expected: dict[Row, str] = {}
    above = ["", "", ""]
    for line in filter(None, lines):
        above = [old if new == "." else new for new, old in zip(line, above, strict=False)]
        for user in users if above[0] == "*" else {above[0]}:
            expected[user, above[1], above[2]] = re.sub(r"\s+->", " ->", line[3])
    return expected


async def probed(conninfo: str) -> str:
    """What the probe says to a connection string, in the table's form."""
    try:
        parsed = ConnInfo.parse(conninfo, {"HOME": "/nonexistent"})
    except ConfigurationError:
        return "- -> fail"
    result = await run_probe(reactor, parsed)
    return f"{', '.join(result.events)} -> {result.outcome}"


SEEN = re.compile(
    r"(?P<connect>connection received)|(?P<sslaccept>SSLRequest accepted)"
    r"|(?P<sslreject>SSLRequest rejected)|(?P<directsslaccept>direct SSL connection accepted)"
    r"|(?P<directsslreject>direct SSL connection rejected)|(?P<authok>connection authenticated)"
    r"|(?P<authfail>no pg_hba.conf entry)"
)


def seen(log: str) -> str:
    """The events in a server's log."""
    events = [cast(str, match.lastgroup) for match in SEEN.finditer(log)]
    again = ["reconnect" if event == "connect" else event for event in events[1:]]
    return ", ".join([*events[:1], *again]) or "-"


@cache
def gateway(fast: bool, ssl: str, behind_ssl: bool = False) -> Gateway:
    """A gateway that all tests share, in front of a negotiation server."""
    files = Files(negotiation_server(False).data.parent / "gateway")
    certificate, key = files.pair("server", localhost())
    upstream = negotiation_server(behind_ssl).conninfo(
        user=None, dbname=None, sslmode="require" if behind_ssl else "disable"
    )
    options = {"ssl": ssl, "ssl-cert-file": certificate, "ssl-key-file": key, "upstream": upstream}
    started = Gateway(
        *(f"--{name}={value}" for name, value in options.items()), program=twistd(fast)
    )
    atexit.register(started.remove)
    assert started.has_fast_transports() is fast
    return started


class TableCase(Transports, TestCase):
    """A test case that compares tables."""

    maxDiff = None

    def conninfos(self, table: str, **place: str | int | None) -> Iterator[tuple[Row, str]]:
        """Each row of the table, which must have all combinations, with its connection string."""
        users = {user for user, _, _ in rows(table)}
        self.assertEqual(set(rows(table)), set(product(users, SSLMODES, SSLNEGOTIATIONS)))
        server = negotiation_server(True)
        for user, sslmode, sslnegotiation in rows(table):
            parameters: dict[str, str | int | None] = {
                "host": "localhost",
                "hostaddr": server.host,
                "user": user,
                "sslmode": sslmode,
                "sslnegotiation": sslnegotiation,
                "sslrootcert": server.root_crt,
            }
            yield (user, sslmode, sslnegotiation), server.conninfo(**parameters | place)


class ServerTests(TableCase):
    """PostgreSQL's own rows."""

    async def check(self, server: Server, table: str, **place: str | None) -> None:
        told, logged = {}, {}
        for row, conninfo in self.conninfos(table, port=server.port, **place):
            before = len(server.log())
            told[row] = await probed(conninfo)
            logged[row] = seen(server.log()[before:])
        self.check_transports()
        self.assertEqual(told, rows(table))
        self.assertEqual(logged, {row: text.split(" -> ")[0] for row, text in rows(table).items()})

    async def test_ssl_off(self) -> None:
        await self.check(negotiation_server(False), SSL_OFF)

    async def test_ssl_on(self) -> None:
        await self.check(negotiation_server(True), SSL_ON)

    async def test_ssl_off_and_users_for_one_way_only(self) -> None:
        await self.check(negotiation_server(False), SSL_OFF_SPECIAL_USERS)

    async def test_ssl_on_and_users_for_one_way_only(self) -> None:
        await self.check(negotiation_server(True), SSL_ON_SPECIAL_USERS)

    async def test_a_unix_socket_is_plain_whatever_the_sslmode(self) -> None:
        server = negotiation_server(True)
        await self.check(server, UNIX_SOCKET, host=server.socket_dir, hostaddr=None)


class GatewayTests(TableCase):
    """The gateway's ``ssl`` in place of the server's, and of pg_hba.conf's hostssl."""

    async def check(self, port: int, table: str) -> None:
        told = {row: await probed(text) for row, text in self.conninfos(table, port=port)}
        self.assertEqual(told, rows(table))
        self.check_transports()

    async def test_ssl_off(self) -> None:
        await self.check(gateway(self.fast, "off").port, SSL_OFF)

    async def test_ssl_on(self) -> None:
        await self.check(gateway(self.fast, "on").port, SSL_ON)

    async def test_ssl_require(self) -> None:
        await self.check(gateway(self.fast, "require").port, GATEWAY_REQUIRE)

    async def test_ssl_on_before_a_server_that_wants_ssl(self) -> None:
        await self.check(gateway(self.fast, "on", behind_ssl=True).port, GATEWAY_TO_SSL)


class CommandLineTests(TableCase):
    """The same through the command itself: a few rows, since each takes a process."""

    async def check(self, server: Server, table: str, row: Row, status: int) -> None:
        conninfo = dict(self.conninfos(table, port=server.port))[row]
        command = "from pgtls.commands.main import main; main()"
        done = await run([sys.executable, "-c", command, "probe", conninfo, "--json"])
        result = json.loads(done.out)
        told = f"{', '.join(result['events']) or '-'} -> {result['outcome']}"
        self.assertEqual((told, done.code), (rows(table)[row], status))

    async def test_plaintext_where_ssl_is_off(self) -> None:
        await self.check(negotiation_server(False), SSL_OFF, ("testuser", "prefer", "postgres"), 0)

    async def test_no_direct_ssl_where_ssl_is_off(self) -> None:
        await self.check(negotiation_server(False), SSL_OFF, ("testuser", "require", "direct"), 1)

    async def test_a_weak_direct_is_refused_before_connecting(self) -> None:
        await self.check(negotiation_server(False), SSL_OFF, ("testuser", "prefer", "direct"), 2)

    async def test_allow_goes_on_to_ssl(self) -> None:
        await self.check(
            negotiation_server(True), SSL_ON_SPECIAL_USERS, ("ssluser", "allow", "postgres"), 0
        )

    async def test_prefer_comes_back_to_plaintext(self) -> None:
        await self.check(
            negotiation_server(True), SSL_ON_SPECIAL_USERS, ("nossluser", "prefer", "postgres"), 0
        )

    async def test_direct_ssl(self) -> None:
        await self.check(negotiation_server(True), SSL_ON, ("testuser", "verify-full", "direct"), 0)
