"""The server's rows of PostgreSQL's own SSL tests (``src/test/ssl/t/001_ssltests.pl``).

Each row is run against a gateway and, as the oracle, against PostgreSQL 17 with the same settings;
by psql 17 and by psycopg with libpq 18. The outcome must be the same for all four, and where the
gateway refuses, the server behind it must not have seen anything.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Authority, Files, Issued, days, self_signed
from tests.support.gateway_daemon import Gateway, wait_until
from tests.support.processes import environment
from tests.support.servers import HOST, Server, psql

ROOT = "Test root CA for PostgreSQL SSL regression test suite"
CLIENT_CA = "Test CA for PostgreSQL SSL regression test client certs"
LONG_CN = "ssl-123456789012345678901234567890123456789012345678901234567890"
PASSWORD = "dUmmyP^#+"

IDENT = r"""
# MAPNAME  SYSTEM-USERNAME                                        PG-USERNAME
dn         "CN=ssltestuser-dn,OU=Testing,OU=Engineering,O=PGDG"   ssltestuser
dnre       "/^.*OU=Testing,.*$"                                   ssltestuser
cn         ssltestuser-dn                                         ssltestuser
"""

# What libpq prints, of either version, whoever it talks to.
NO_CERTIFICATE = "FATAL:  connection requires a valid client certificate"
WRONG_USER = 'FATAL:  certificate authentication failed for user "{}"'
REVOKED = "SSL error: ssl[a-z0-9/]* alert certificate revoked"
EXPIRED = "SSL error: ssl[a-z0-9/]* alert certificate expired"
UNKNOWN_CA = "SSL error: tlsv1 alert unknown ca"
ANY_ALERT = "SSL error: .* alert "


def name(**parts: str | list[str]) -> x509.Name:
    """A subject with those parts, in their order."""
    oids = {
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "CN": NameOID.COMMON_NAME,
    }
    values = {part: [value] if isinstance(value, str) else value for part, value in parts.items()}
    return x509.Name(
        x509.NameAttribute(oids[part], each) for part, every in values.items() for each in every
    )


class Row(NamedTuple):
    """One connection.

    :ivar config: the settings of the server that it goes to, a key of ``CONFIGS``.
    :ivar rule: the line of pg_hba.conf, or the listener, a key of ``RULES``.
    :ivar client: the stem of the client's certificate and key; None for none.
    :ivar error: what the client is told; None where it is let in.
    :ivar log: what the gateway's log says of it.
    """

    config: str
    rule: str
    client: str | None
    error: str | None = None
    log: str | None = None
    user: str = "ssltestuser"
    more: Mapping[str, str] = {}


#: How a rule reads in a gateway's configuration, and in pg_hba.conf behind the database's name.
RULES = {
    "cert": ('clientcert = "verify-full"', "cert"),
    "cert_dn": (
        'clientcert = "verify-full"\nclientname = "DN"\nmap = "dn"\nident_file = "{ident}"',
        "cert clientname=DN map=dn",
    ),
    "cert_dn_re": (
        'clientcert = "verify-full"\nclientname = "DN"\nmap = "dnre"\nident_file = "{ident}"',
        "cert clientname=DN map=dnre",
    ),
    "cert_cn": (
        'clientcert = "verify-full"\nmap = "cn"\nident_file = "{ident}"',
        "cert clientname=CN map=cn",
    ),
    "verify_ca": ('clientcert = "verify-ca"', "trust clientcert=verify-ca"),
    "trust": ("", "trust"),
}

#: Settings about client certificates, by name: files of pki().
CONFIGS: dict[str, dict[str, str]] = {
    "crl_file": {"ssl_ca_file": "root+client_ca.crt", "ssl_crl_file": "root+client.crl"},
    "crl_dir": {"ssl_ca_file": "root+client_ca.crt", "ssl_crl_dir": "root+client-crldir"},
    "crl_expired": {"ssl_ca_file": "root+client_ca.crt", "ssl_crl_file": "expired.crl"},
    "root_only": {"ssl_ca_file": "root.crt"},
    "wrong_ca": {"ssl_ca_file": "server.crt"},
    "self_signed": {"ssl_ca_file": "self-signed.crt"},
    "no_ca": {},
}


def failed(depth: int, reason: str, subject: str, issuer: str = f"/CN={CLIENT_CA}") -> str:
    """The log's line, as PostgreSQL's tests look for it."""
    return (
        f"Client certificate verification failed at depth {depth}: {reason}.*"
        rf'Failed certificate data \(unverified\): subject "{re.escape(subject)}", '
        rf'serial number \d+, issuer "{re.escape(issuer)}"'
    )


UNTRUSTED = "unable to get local issuer certificate"
DN_LOGGED = 'client_dn="/O=PGDG/OU=Engineering/OU=Testing/CN=ssltestuser-dn"'
ENCRYPTED = {"sslpassword": PASSWORD}
ODYSSEUS = r"/CN=\xce\x9f\xce\xb4\xcf\x85\xcf\x83\xcf\x83\xce\xad\xce\xb1\xcf\x82"

ROWS = {
    # the certificate is needed
    "without_a_certificate": Row("crl_file", "cert", None, NO_CERTIFICATE),
    "sslcertmode_disable": Row(
        "crl_file", "cert", "client", NO_CERTIFICATE, more={"sslcertmode": "disable"}
    ),
    "sslcertmode_require": Row("crl_file", "cert", "client", more={"sslcertmode": "require"}),
    "pem": Row("crl_file", "cert", "client", log='client_dn="/CN=ssltestuser"'),
    "a_servers_certificate": Row("crl_file", "cert", "for-servers", ANY_ALERT),
    "der_key": Row("crl_file", "cert", "client-der"),
    "encrypted_pem_key": Row("crl_file", "cert", "client-encrypted-pem", more=ENCRYPTED),
    "without_where_none_is_needed": Row("crl_file", "trust", None, user="anotheruser"),
    "where_none_is_asked_for": Row("no_ca", "trust", "client", log="SSL=TLSv1.3"),
    # whose it is
    "another_users": Row(
        *("crl_file", "cert", "client", WRONG_USER.format("anotheruser")),
        log='CN mismatch.* user=anotheruser .*client_dn="/CN=ssltestuser"',
        user="anotheruser",
    ),
    "verify_ca_takes_another_users": Row("crl_file", "verify_ca", "client", user="yetanotheruser"),
    "verify_ca_needs_one": Row("crl_file", "verify_ca", None, NO_CERTIFICATE),
    "dn_map": Row("crl_file", "cert_dn", "client-dn", log=DN_LOGGED),
    "dn_map_with_a_regular_expression": Row("crl_file", "cert_dn_re", "client-dn", log=DN_LOGGED),
    "cn_map": Row("crl_file", "cert_cn", "client-dn", log=DN_LOGGED),
    "cn_map_to_another_user": Row(
        *("crl_file", "cert_cn", "client-dn", WRONG_USER.format("anotheruser")),
        user="anotheruser",
    ),
    "dn_map_of_another_dn": Row("crl_file", "cert_dn", "client", WRONG_USER.format("ssltestuser")),
    "no_map_for_the_cn": Row("crl_file", "cert", "client-dn", WRONG_USER.format("ssltestuser")),
    # names that PostgreSQL's own rows do not have
    "the_first_of_two_cns": Row("crl_file", "cert", "two-cns"),
    "the_second_of_two_cns": Row(
        *("crl_file", "cert", "two-cns", WRONG_USER.format("anotheruser")),
        log='client_dn="/CN=ssltestuser/CN=anotheruser"',
        user="anotheruser",
    ),
    "utf8_cn": Row("crl_file", "cert", "client-utf8", log=re.escape(ODYSSEUS), user="Οδυσσέας"),
    "a_cn_that_goes_on_behind_nul": Row(
        *("crl_file", "cert", "nul", f"closed unexpectedly|{WRONG_USER.format('ssltestuser')}"),
        log=r"common name contains embedded null: .*client_dn=\"/CN=ssltestuser\\00.evil\"",
    ),
    "nul_where_none_is_needed": Row(
        "crl_file", "trust", "nul", f"closed unexpectedly|{WRONG_USER.format('ssltestuser')}"
    ),
    "a_subject_of_5_kilobytes": Row(
        *("crl_file", "cert", "huge", WRONG_USER.format("ssltestuser")),
        log=rf'client_dn="\.\.\./CN={"x" * 64}"',
    ),
    # revoked, expired
    "revoked": Row(
        *("crl_file", "cert", "client-revoked", REVOKED),
        failed(0, "certificate revoked", "/CN=ssltestuser"),
    ),
    "revoked_by_crl_directory": Row(
        *("crl_dir", "cert", "client-revoked", REVOKED),
        failed(0, "certificate revoked", "/CN=ssltestuser"),
    ),
    "revoked_utf8": Row(
        *("crl_dir", "cert", "client-revoked-utf8", REVOKED),
        failed(0, "certificate revoked", ODYSSEUS),
    ),
    "revoked_where_none_is_needed": Row("crl_file", "trust", "client-revoked", REVOKED),
    "not_revoked_by_crl_directory": Row("crl_dir", "cert", "client"),
    "crl_expired": Row(
        *("crl_expired", "cert", "client", ANY_ALERT),
        failed(0, r"CRL has expired", "/CN=ssltestuser"),
    ),
    "expired": Row(
        *("crl_file", "cert", "client-expired", EXPIRED),
        failed(0, "certificate has expired", "/CN=ssltestuser"),
    ),
    # chains
    "intermediate_from_the_client": Row("root_only", "cert", "client+client_ca"),
    "intermediate_missing": Row(
        *("root_only", "cert", "client", UNKNOWN_CA), failed(0, UNTRUSTED, "/CN=ssltestuser")
    ),
    "long_subject": Row(
        *("root_only", "cert", "client-long", UNKNOWN_CA),
        failed(0, UNTRUSTED, f".../CN={LONG_CN}"),
    ),
    "wrong_ca": Row(
        *("wrong_ca", "cert", "client+client_ca", UNKNOWN_CA),
        failed(1, UNTRUSTED, f"/CN={CLIENT_CA}", f"/CN={ROOT}"),
    ),
    "wrong_ca_where_none_is_needed": Row("wrong_ca", "trust", "client+client_ca", UNKNOWN_CA),
    "self_signed_in_ssl_ca_file": Row(
        "self_signed", "cert", "self-signed", log='client_dn="/CN=ssltestuser"'
    ),
    "self_signed_of_a_stranger": Row("self_signed", "cert", "stranger", UNKNOWN_CA),
}


class PKI(NamedTuple):
    """Everybody's files, in one directory."""

    files: Files
    roots: str

    def path(self, file: str) -> str:
        return str(self.files.directory / file)

    def read(self, file: str) -> bytes:
        return Path(self.path(file)).read_bytes()


@cache
def pki() -> PKI:
    """The certificates of PostgreSQL's tests, anew."""
    directory = tempfile.TemporaryDirectory(prefix="pgtls-ssl-suite-")
    atexit.register(directory.cleanup)
    Path(directory.name).chmod(0o755)  # the servers run as another user
    files = Files(directory.name)
    root = Authority(ROOT)
    client_ca = root.intermediate(CLIENT_CA)
    server_ca = root.intermediate("Test CA for PostgreSQL SSL regression test server certs")
    files.pair("server", server_ca.issue(["localhost"], cn="localhost"))
    files.write("root.crt", root.pem())
    files.write("root+client_ca.crt", root.pem(), client_ca.pem())
    revoked = _client_certificates(files, client_ca)
    crls = [(root, root.crl()), (client_ca, client_ca.crl(revoked))]
    files.write("root+client.crl", *(crl for _, crl in crls))
    files.crl_dir("root+client-crldir", crls)
    files.write("expired.crl", root.crl(), client_ca.crl(revoked, expired=True))
    files.write("pg_ident.conf", IDENT.encode())
    return PKI(files, files.write("roots.crt", root.pem()))


def _client_certificates(files: Files, client_ca: Authority) -> list[Issued]:
    """Write them; a stem is both a certificate without its intermediate and a key.

    :returns: those that are to be revoked.
    """
    issue = partial(client_ca.issue, client=True)
    client, revoked, utf8 = issue(cn="ssltestuser"), issue(cn="ssltestuser"), issue(cn="Οδυσσέας")
    issued = {
        "client": client,
        "client-dn": issue(
            subject=name(O="PGDG", OU=["Engineering", "Testing"], CN="ssltestuser-dn")
        ),
        "client-long": issue(
            subject=name(
                O="PostgreSQL Global Development Group", OU="Some Organizational Unit", CN=LONG_CN
            )
        ),
        "client-expired": issue(cn="ssltestuser", not_before=days(-9), not_after=days(-2)),
        "for-servers": client_ca.issue(cn="ssltestuser"),
        "client-revoked": revoked,
        "client-revoked-utf8": utf8,
        "two-cns": issue(subject=name(CN=["ssltestuser", "anotheruser"])),
        "client-utf8": issue(cn="Οδυσσέας"),
        "nul": issue(cn="ssltestuser\0.evil"),
        "huge": issue(subject=name(OU=["y" * 64] * 80, CN="x" * 64)),
        "self-signed": self_signed("ssltestuser", client=True),
        "stranger": self_signed("ssltestuser", client=True),
    }
    for stem, each in issued.items():
        files.write(f"{stem}.crt", each.pem())
        files.write(f"{stem}.key", each.key.pem())
    for stem, key in {
        "client+client_ca": client.key.pem(),
        "client-der": client.key.der(),
        "client-encrypted-pem": client.key.pem(PASSWORD),
    }.items():
        files.write(f"{stem}.crt", client.chain() if "+" in stem else client.pem())
        files.write(f"{stem}.key", key)
    return [revoked, utf8]


USERS = ("ssltestuser", "anotheruser", "yetanotheruser", '"Οδυσσέας"')


@cache
def upstream() -> Server:
    """PostgreSQL 18, which was built without TLS and trusts whoever comes."""
    server = Server(18)
    for user in USERS:
        server.psql(f"CREATE USER {user}")
    return server


@cache
def listeners() -> tuple[Gateway, dict[tuple[str, str], int]]:
    """One daemon with a listener for every pair of settings and rule, and their ports."""
    pairs = sorted({(row.config, row.rule) for row in ROWS.values()})
    daemon = Gateway(config="\n".join(_listener(*pair) for pair in pairs))
    atexit.register(daemon.remove)
    return daemon, {pair: int(port) for pair, (_, port) in zip(pairs, daemon.places, strict=True)}


def _listener(config: str, rule: str) -> str:
    settings = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", **CONFIGS[config]}
    rule_text = RULES[rule][0].format(ident=pki().path("pg_ident.conf"))
    lines = [f'{key} = "{pki().path(file)}"' for key, file in settings.items()]
    return "\n".join(
        [
            "[[gateway]]",
            f'listen = "tcp:0:interface={HOST}"',
            f'upstream = "{upstream().conninfo(user=None, dbname=None)}"',
            rule_text,
            *lines,
        ]
    )


@cache
def postgresql(config: str) -> Server:
    """PostgreSQL 17 with those settings, where the database's name chooses the rule."""
    hba = "".join(f"hostssl {rule} all all {line}\n" for rule, (_, line) in RULES.items())
    files = {file: pki().read(file) for file in CONFIGS[config].values() if "dir" not in file}
    crl_dir = CONFIGS[config].get("ssl_crl_dir")
    server = Server(
        17,
        hba=f"local all all trust\n{hba}",
        conf={
            "ssl": "on",
            "ssl_cert_file": "server.crt",
            "ssl_key_file": "server.key",
            **{key: file for key, file in CONFIGS[config].items() if "dir" not in file},
            **({"ssl_crl_dir": pki().path(crl_dir)} if crl_dir else {}),
        },
        files={
            "server.crt": pki().read("server.crt"),
            "server.key": pki().read("server.key"),
            "pg_ident.conf": IDENT.encode(),
            **files,
        },
    )
    rules = {row.rule for row in ROWS.values() if row.config == config}
    server.psql("\n".join([f"CREATE USER {user};" for user in USERS]))
    server.psql("\n".join([f"CREATE DATABASE {rule};" for rule in sorted(rules)]))
    return server


def conninfo(row: Row, port: int, database: str) -> str:
    """The connection string of a row."""
    stem = row.client or "none"
    parameters = {
        "host": "localhost",
        "hostaddr": HOST,
        "port": str(port),
        "user": row.user,
        "dbname": database,
        "sslmode": "require",
        "sslrootcert": pki().roots,
        "sslcert": pki().path(f"{stem}.crt"),
        "sslkey": pki().path(f"{stem}.key"),
        **row.more,
    }
    return " ".join(f"{key}='{value}'" for key, value in parameters.items())


def by_psql(string: str) -> str | None:
    """What psql 17 complains of; None where it gets in."""
    done = subprocess.run(
        [psql(17), "-XAtc", "SELECT 'connected'", "-d", string],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.stdout.strip() == "connected" else done.stderr


def by_psycopg(string: str) -> str | None:
    """What psycopg complains of; None where it gets in."""
    try:
        psycopg.connect(string).close()
    except psycopg.OperationalError as error:
        return str(error)
    return None


class SuiteCase(SynchronousTestCase):
    """Rows as tests: ``test_<row>``, made below."""

    def check(self, row: Row, port: int, database: str) -> None:
        """Both clients come out as the row says."""
        for client in (by_psql, by_psycopg):
            said = client(conninfo(row, port, database))
            if row.error is None:
                self.assertIsNone(said)
            else:
                self.assertIsNotNone(said)
                self.assertRegex(said or "", row.error)


def with_rows(case: Any) -> Any:
    """Give a test case a test for each row."""
    for key, row in ROWS.items():

        def test(self: Any, row: Row = row) -> None:
            self.run_row(row)

        setattr(case, f"test_{key}", test)
    return case


@with_rows
class Gateways(SuiteCase):
    """The rows, through the gateway."""

    def run_row(self, row: Row) -> None:
        daemon, ports = listeners()
        before = len(daemon.log())
        seen = upstream().log().count("connection authorized")
        self.check(row, ports[row.config, row.rule], "postgres")
        if row.log:
            pattern = re.compile(row.log)
            wait_until(lambda: bool(pattern.search(daemon.log()[before:])), daemon.log)
        if row.error:
            self.assertEqual(upstream().log().count("connection authorized"), seen)

    def test_when_a_crl_expired(self) -> None:
        """The log says when it was, and whose CRL it is."""
        daemon, ports = listeners()
        self.check(ROWS["crl_expired"], ports["crl_expired", "cert"], "postgres")
        when = f"{days(-1):%Y-%m-%d}"
        daemon.wait_for_log(rf"CRL has expired \(the one of CN={CLIENT_CA} at {when} .*UTC\)")
        daemon.wait_for_log(rf"the CRL of CN={CLIENT_CA} has expired at {when} ")


@with_rows
class Oracle(SuiteCase):
    """The rows, against PostgreSQL 17 itself."""

    def run_row(self, row: Row) -> None:
        self.check(row, postgresql(row.config).port, row.rule)
