"""``hba_file``: one file for a real PostgreSQL 17 and for us, the same verdicts and mistakes."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
from functools import cache
from ipaddress import ip_address, ip_interface
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.policy.hba_file import load_hba_file
from pgtls.policy.hba_rules import AuthMethod, ConnectionRequest, HbaRules, refusal
from pgtls.wire.messages import ErrorResponse
from tests.support.processes import TIMEOUT
from tests.support.raw_client import SSL_REQUEST, startup_message
from tests.support.servers import HOST, Server


def interfaces() -> list[object]:
    return [ip_interface("127.0.0.1/8")]


def rules(path: object) -> HbaRules:
    return load_hba_file(str(path), interfaces)  # type: ignore[arg-type]


@cache
def server() -> Server:
    """A server of its own, whose pg_hba.conf the tests write."""
    started = Server(17, ssl=True, hba="local all all trust\n", conf={"max_connections": "50"})
    for role in ROLES:
        started.psql(f'CREATE ROLE "{role}" LOGIN REPLICATION')
    for database in DATABASES:
        if database != "postgres":
            started.psql(f'CREATE DATABASE "{database}" TEMPLATE template0')
    return started


#: One line each. What is wrong with it, PostgreSQL says.
LINES = r"""
local
local all
local all all
local all all foo
local all all trust extra
local,host all all trust
host all all
host all all all
host all all 127.0.0.1 trust
host all all 127.0.0.1/33 trust
host all all 127.0.0.1/-1 trust
host all all 127.0.0.1/ trust
host all all 127.0.0.1/+8 trust
host all all 127.0.0.1/8x trust
host all all ::1/129 trust
host all all ::1/128 trust
host all all /24 trust
host all all example.org/24 trust
host all all example.org trust
host all all .example.org trust
host all all 127.0.0.1,127.0.0.2 trust
host all all 127.0.0.1 255.0.0.0 trust
host all all 127.0.0.1 255.0.255.0 trust
host all all 127.0.0.1 ffff:: trust
host all all 127.0.0.1 nomask trust
host all all 127.0.0.1 255.0.0.0,255.0.0.0 trust
host all all 127.0.0.1
host all all 127.0.0.1 255.0.0.0
host all all samehost trust
host all all "samehost" trust
host all all 300.1.1.1/8 trust
host all all 127.1/8 trust
host all all all trust,reject
host all all all Trust
host all all all cert
hostnossl all all all cert
hostssl all all all cert
hostssl all all all cert map=foo
hostssl all all all cert clientcert=verify-ca
hostssl all all all cert clientcert=verify-full
hostssl all all all cert clientcert=1
hostssl all all all trust clientcert=verify-ca
hostssl all all all trust clientcert=verify-full clientname=DN
hostssl all all all trust clientcert=no-verify
hostssl all all all trust clientname=XX
hostssl all all all trust map=foo
host all all all trust clientcert=verify-ca
host all all all trust clientname=CN
host all all all trust what=ever
host all all all trust whatever
host all all all trust pamservice=x
host all all all trust ldapserver=x
host all all all trust krb_realm=x
host all all all trust include_realm=1
host all all all trust upn_username=1
host all all all trust radiusservers=x
host all /( all trust
host all,/( all all trust
host /( all all trust
host "/^a" "/b$" all trust
host / / all trust
hostgssenc all all all trust
hostnogssenc all all all trust
hostxyz all all all trust
"local" all all trust
host a,"b c",sameuser,replication d,"all" 10.0.0.0/8 reject
host all all all "trust"
""".strip().splitlines()

POLICY = """
# the first that matches
local    all             mallory                       reject
local    all             all                           trust
hostssl  replication     all             127.0.0.0/8   trust
host     replication     all             all           reject
host     sameuser        alice,bob       127.0.0.1/32  trust
hostssl  secrets         all             127.0.0.0/30  trust
hostnossl "all",public   all             127.0.0.2     255.255.255.255 trust
host     /^app_.*        /^svc           127.0.0.3/32  trust
host     "replication"   all             127.0.0.4/32  trust
host     all             mallory         all           reject
hostnogssenc postgres    "all"           samenet       trust
host     all             carol           samehost      trust
hostgssenc all           all             all           trust
host     all             dave            0.0.0.0 0.0.255.1  trust
"""

ADDRESSES = [None, "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.1.0.5"]
DATABASES = ["alice", "secrets", "public", "all", "app_x", "replication", "postgres"]
ROLES = ["alice", "bob", "mallory", "svc_1", "all", "carol", "dave"]


def short(mistake: str) -> str:
    """Without what a regular expression library says; no two say the same."""
    return re.sub(r'^(invalid regular expression ".*"): .*', r"\1", mistake)


class MistakeTests(SynchronousTestCase):
    """What PostgreSQL's pg_hba_file_rules says of each line."""

    def test_the_same_lines_for_the_same_reason(self) -> None:
        path = server().data / "pg_hba.conf"
        path.write_text("\n".join(["local all postgres trust", *LINES]) + "\n")
        answer = server().psql(
            "SELECT json_object_agg(line_number, error) FROM pg_hba_file_rules WHERE error <> ''"
        )
        theirs = {int(number): error for number, error in json.loads(answer).items()}
        # A message for the log; the line counts.
        theirs = {n: short(e) for n, e in theirs.items() if "cannot match because" not in e}
        error = self.assertRaises(ConfigurationError, rules, path)
        ours = {}
        for mistake in error.mistakes:
            place, _, text = mistake.partition(f' of configuration file "{path}": ')
            # PostgreSQL refuses these lines, and leaves them out of the view.
            if not text.startswith("invalid value for client"):
                ours[int(place.removeprefix("line "))] = short(text)
        self.assertEqual(ours, theirs)

    def test_what_only_a_server_knows_is_refused_all_at_once(self) -> None:
        path = self.mktemp()  # type: ignore[no-untyped-call]
        with open(path, "w") as file:
            file.write(
                "host all +admins all trust\n"
                "host samerole,samegroup all all trust\n"
                "host all all all md5\n"
                "host all all all ldap ldapserver=x\n"
                'host "samerole" "+admins" all trust\n'
            )
        error = self.assertRaises(ConfigurationError, rules, path)
        self.assertEqual(
            [mistake.partition('": ')[2].partition(":")[0] for mistake in error.mistakes],
            [
                'membership in role "admins" cannot be checked here, since only the server '
                "knows it",
                '"samerole" cannot be checked here, since only the server knows the '
                "members of roles",
                'authentication method "md5" is the server\'s',
                'authentication method "ldap" is the server\'s',
            ],
        )

    def test_a_file_without_a_line_is_a_mistake(self) -> None:
        path = self.mktemp()  # type: ignore[no-untyped-call]
        with open(path, "w") as file:
            file.write("# nothing\n")
        error = self.assertRaises(ConfigurationError, rules, path)
        self.assertIn("contains no entries", str(error))


def verdict(
    place: tuple[str, int] | str,
    address: str | None,
    *,
    tls: bool,
    database: str,
    user: str,
    replication: bool,
) -> tuple[str, str] | None:
    """What a server says to a StartupMessage.

    :param place: where it listens: address and port, or the path of a socket.
    :param address: where the client comes from.
    :returns: SQLSTATE and message of the refusal; None where the client is let in.
    """
    if isinstance(place, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place)
    else:
        connection = socket.create_connection(
            place, timeout=TIMEOUT, source_address=(address or HOST, 0)
        )
    with connection:
        if tls:
            connection.sendall(SSL_REQUEST)
            assert connection.recv(1) == b"S"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = context.wrap_socket(connection)
        wants = {"replication": "true"} if replication else {}
        connection.sendall(startup_message(user=user, database=database, **wants))
        reader = connection.makefile("rb")
        kind, length = struct.unpack("!cI", reader.read(5))
        error = ErrorResponse.parse(reader.read(length - 4), b"")
        connection.close()
    return (error.sqlstate, error.message) if kind == b"E" else None


class VerdictTests(SynchronousTestCase):
    """Every combination to PostgreSQL, from real addresses."""

    def ours(
        self, lines: HbaRules, address: str | None, tls: bool, database: str, user: str, repl: bool
    ) -> tuple[str, str] | None:
        request = ConnectionRequest(
            address=None if address is None else ip_address(address),
            tls=tls,
            database=database.encode(),
            user=user.encode(),
            replication=repl,
        )
        line = lines.find(request)
        error = refusal(request, line)
        if error is None:
            assert line is not None
            self.assertIs(line.method, AuthMethod.TRUST)
            return None
        return error.sqlstate, error.message

    def theirs(
        self, address: str | None, tls: bool, database: str, user: str, repl: bool
    ) -> tuple[str, str] | None:
        path = f"{server().socket_dir}/.s.PGSQL.{server().port}"
        place = path if address is None else (HOST, server().port)
        return verdict(place, address, tls=tls, database=database, user=user, replication=repl)

    def test_each(self) -> None:
        server().reload(hba="local all postgres trust\n" + POLICY)
        lines = rules(server().data / "pg_hba.conf")
        combinations = [
            each
            for each in product(ADDRESSES, (False, True), DATABASES, ROLES, (False, True))
            if not (each[0] is None and each[1])
        ]
        self.assertGreater(len(combinations), 900)
        for combination in combinations:
            self.assertEqual(self.ours(lines, *combination), self.theirs(*combination), combination)
