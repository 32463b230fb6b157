"""conf/certificate-login.toml: a certificate is the login, by the words of the example itself."""

from __future__ import annotations

import atexit
import getpass
import re
import tempfile
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Authority, Files
from tests.support.gateway_daemon import Gateway
from tests.support.servers import HOST, Server

INDENT = "#     "
EXAMPLE = (Path(__file__).parent.parent.parent / "conf" / "certificate-login.toml").read_text()
ON_THE_MACHINE, FROM_ANOTHER = 0, 1


def shown(heading: str) -> str:
    """The indented lines behind a heading among the example's comments."""
    lines = iter(EXAMPLE.splitlines())
    behind = dropwhile(lambda line: not line.startswith(f"# {heading}"), lines)
    block = dropwhile(lambda line: not line.startswith(INDENT), behind)
    return "".join(
        line.removeprefix(INDENT) + "\n"
        for line in takewhile(lambda line: line.startswith(INDENT), block)
    )


@cache
def directory() -> Files:
    """What the example has in /etc/pgtls, and certificates for its users."""
    made = tempfile.TemporaryDirectory(prefix="pgtls-certificate-login-")
    atexit.register(made.cleanup)
    files = Files(made.name)
    root = Authority("root")
    issued = {
        "server": root.issue(["localhost"], cn="localhost"),
        "gateway": root.issue(cn="pgtls-gateway", client=True),
        **{name: root.issue(cn=name, client=True) for name in ("alice", "bob", "postgres")},
        "dismissed": root.issue(cn="alice", client=True),
        "stranger": Authority("strangers").issue(cn="alice", client=True),
    }
    for name, each in issued.items():
        files.pair(name, each)
    files.write("root.crt", root.pem())
    files.write("root.crl", root.crl([issued["dismissed"]]))
    return files


@cache
def server() -> Server:
    """The example's server: its pg_hba.conf, its pg_ident.conf, its roles; and below them the line
    of those who have a password."""
    hba = shown("pg_hba.conf").replace("192.0.2.10/32", f"{HOST}/32")
    user = getpass.getuser()  # who runs the gateway here
    ident = re.sub(r"^pgtls  pgtls  ", f"pgtls  {user}  ", shown("pg_ident.conf"), flags=re.M)
    names = ("root.crt", "server.crt", "server.key")
    started = Server(
        17,
        ssl=True,
        hba=f"{hba}local all postgres trust\nhost all all all scram-sha-256\n",
        conf={"ssl_ca_file": "root.crt"},
        files={
            **{name: (directory().directory / name).read_bytes() for name in names},
            "pg_ident.conf": ident.encode(),
        },
    )
    started.psql(shown("In the database"))
    started.psql("CREATE ROLE bob LOGIN IN ROLE certificate_login")
    return started


@cache
def gateways() -> Gateway:
    """The example, its paths and addresses aside."""
    text = EXAMPLE
    for old, new in {
        "/etc/pgtls": str(directory().directory),
        "tcp:6432": f"tcp:0:interface={HOST}",
        "tcp:6433": f"tcp:0:interface={HOST}",
        "host=/var/run/postgresql": f"host={server().socket_dir} port={server().port}",
        "host=db.example.com": f"host=localhost hostaddr={HOST} port={server().port}",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    gateway = Gateway(config=text)
    atexit.register(gateway.remove)
    return gateway


def login(place: int, role: str, certificate: str | None) -> str:
    """Log in through a gateway, without a password.

    :returns: role, certificate's name and method as the server sees them, or libpq's complaint.
    """
    parameters = {
        "host": "localhost",
        "hostaddr": HOST,
        "port": gateways().places[place][1],
        "user": role,
        "dbname": "postgres",
        "sslmode": "verify-full",
        "sslrootcert": f"{directory().directory}/root.crt",
        "sslcert": f"{directory().directory}/{certificate}.crt",
        "sslkey": f"{directory().directory}/{certificate}.key",
    }
    sql = (
        "SELECT session_user || ' by ' || current_setting('pgtls.client_dn') || ', ' || "
        "current_setting('pgtls.auth_method')"
    )
    try:
        with psycopg.connect(**parameters) as connection:  # type: ignore[arg-type]
            row = connection.execute(sql).fetchone()
    except psycopg.OperationalError as error:
        return str(error)
    return str(row and row[0])


class CertificateLogin(SynchronousTestCase):
    """The example, over the Unix socket and from another machine."""

    def each(self, role: str, certificate: str | None, expected: str) -> None:
        for place in (ON_THE_MACHINE, FROM_ANOTHER):
            self.assertRegex(login(place, role, certificate), expected)

    def sessions(self) -> int:
        return server().log().count("connection authorized")

    def test_a_certificate_is_the_login(self) -> None:
        self.each("alice", "alice", "^alice by CN=alice, cert$")
        self.each("bob", "bob", "^bob by CN=bob, cert$")

    def test_of_its_own_role_only(self) -> None:
        before = self.sessions()
        self.each("bob", "alice", 'FATAL:  certificate authentication failed for user "bob"')
        self.assertEqual(self.sessions(), before)

    def test_without_a_certificate(self) -> None:
        self.each("alice", None, "FATAL:  connection requires a valid client certificate")

    def test_with_a_revoked_one(self) -> None:
        self.each("alice", "dismissed", "alert certificate revoked")

    def test_with_a_strangers(self) -> None:
        self.each("alice", "stranger", "alert unknown ca")

    def test_superusers_stay_out(self) -> None:
        """Even with a certificate, for the server believes the gateway of members only."""
        said = login(FROM_ANOTHER, "postgres", "postgres")
        self.assertIn("password", said)

    def test_nobody_gets_around_the_gateway(self) -> None:
        """Not by a password either, which a role may give itself."""
        server().psql("SET ROLE alice; ALTER ROLE alice PASSWORD 'guess'")
        tcp = server().conninfo(user="alice", password="guess", sslmode="require")
        plaintext = server().conninfo(user="alice", password="guess", sslmode="disable")
        for conninfo, reason in (
            (tcp, "requires a valid client certificate"),
            (plaintext, "pg_hba.conf rejects connection"),
        ):
            error = self.assertRaises(psycopg.OperationalError, psycopg.connect, conninfo)
            self.assertRegex(str(error), reason)
