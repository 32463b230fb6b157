"""What the tables of PostgreSQL's ssl test suite need: its certificates, a server, both clients.

The files are named as in ``src/test/ssl``, in the directory ``ssl`` of the test run, so that a
connection string can name them as there.
"""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, cast

import attrs
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from psycopg.pq import ConnStatus, PGconn, PollingStatus
from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from pgtls.commands.probe import run_probe
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError
from pgtls.policy.client_identity import ClientCert
from pgtls.protocols.server_factory import PgTLSServerFactory
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.server_tls import ServerTLS
from pgtls.tls.server_context import ServerTLSSettings
from pgtls.wire.server_negotiation import SSL
from tests.support.certificates import Authority, Files, Issued, Kind, days, self_signed
from tests.support.processes import TIMEOUT

reactor = cast(Any, _reactor)

PASSWORD = "dUmmyP^#+"
"""Of the encrypted keys: PostgreSQL's own, with characters that have to be quoted."""

COMMON_NAME = "common-name.pg-ssltest.test"
DNS1, DNS2 = "dns1.alt-name.pg-ssltest.test", "dns2.alt-name.pg-ssltest.test"

SERVER_CERTIFICATES: Mapping[str, dict[str, Any]] = {
    "server-cn-only": {"cn": COMMON_NAME},
    "server-revoked": {"cn": COMMON_NAME},
    "server-expired": {"cn": COMMON_NAME, "not_before": days(-9), "not_after": days(-2)},
    "server-not-yet": {"cn": COMMON_NAME, "not_before": days(2)},
    "server-for-clients": {"cn": COMMON_NAME, "client": True},
    "server-rsa": {"cn": COMMON_NAME, "key": "rsa"},
    "server-rsapss": {"cn": COMMON_NAME, "key": "rsa-pss"},
    "server-ed25519": {"cn": COMMON_NAME, "key": "ed25519"},
    "server-wildcard-cn": {"cn": "*.pg-ssltest.test"},
    "server-ip-cn-only": {"cn": "192.0.2.1"},
    "server-ip-in-dnsname": {"names": ["192.0.2.1"]},
    "server-single-alt-name": {"names": ["single.alt-name.pg-ssltest.test"]},
    "server-multiple-alt-names": {"names": [DNS1, DNS2, "*.wildcard.pg-ssltest.test"]},
    "server-ip-alt-names": {"ips": ["192.0.2.1", "2001:db8::1"]},
    "server-cn-and-alt-names": {"cn": COMMON_NAME, "names": [DNS1, DNS2]},
    "server-cn-and-ip-alt-names": {"cn": COMMON_NAME, "ips": ["192.0.2.1", "2001:db8::1"]},
    "server-ip-cn-and-alt-names": {"cn": "192.0.2.1", "ips": ["192.0.2.2", "2001:db8::1"]},
    "server-ip-cn-and-dns-alt-names": {"cn": "192.0.2.1", "names": [DNS1, DNS2]},
    "server-no-names": {},
}
"""The certificates of the server CA, as the arguments of Authority.issue()."""


class CAs(NamedTuple):
    """The authorities: two intermediate ones under one root, one that is too old, a stranger."""

    root: Authority
    server: Authority
    client: Authority
    old: Authority
    other: Authority


@cache
def certificates() -> dict[str, Issued]:
    """Write every file that a row may name; the server certificates by their names."""
    files = Files("ssl")
    root = Authority("root")
    cas = CAs(
        root,
        root.intermediate("server CA"),
        root.intermediate("client CA"),
        root.intermediate("old CA", not_before=days(-9), not_after=days(-2)),
        Authority("another root"),
    )
    servers = {name: cas.server.issue(**how) for name, how in SERVER_CERTIFICATES.items()}
    servers["server-of-old-ca"] = cas.old.issue(cn=COMMON_NAME)
    servers["server-self-signed"] = self_signed(COMMON_NAME)
    _write_roots(files, cas, servers)
    _write_crls(files, cas, servers)
    _write_clients(files, cas)
    _write_homes(files)
    return servers


def _write_roots(files: Files, cas: CAs, servers: Mapping[str, Issued]) -> None:
    root, server_ca, client_ca = cas.root.pem(), cas.server.pem(), cas.client.pem()
    files.write("root_ca.crt", root)
    files.write("server_ca.crt", server_ca)
    files.write("client_ca.crt", client_ca)
    files.write("other_ca.crt", cas.other.pem())
    files.write("root+server_ca.crt", root, server_ca)
    files.write("root+client_ca.crt", root, client_ca)
    files.write("both-cas-1.crt", root, client_ca, server_ca)
    files.write("both-cas-2.crt", root, server_ca, client_ca)
    files.write("other-first.crt", cas.other.pem(), server_ca, root)
    files.write("other-last.crt", b"# comments,\n", root, server_ca, root, cas.other.pem())
    files.write("root_ca.der", cas.root.issued.certificate.public_bytes(Encoding.DER))
    files.write("cut-off.crt", root[:-60])
    files.write("no.crt", b"no certificate\n")
    for name in ("server-cn-only", "server-self-signed"):
        files.write(f"{name}.crt", servers[name].pem())


def _write_crls(files: Files, cas: CAs, servers: Mapping[str, Issued]) -> None:
    root, client = cas.root.crl(), cas.client.crl()
    server = cas.server.crl([servers["server-revoked"]])
    expired = cas.server.crl(expired=True)
    files.write("client.crl", client)
    files.write("server.crl", server)
    files.write("root+server.crl", root, server)
    files.write("root+expired.crl", root, expired)
    files.crl_dir("client-crldir", [(cas.client, client)])
    files.crl_dir("root+server-crldir", [(cas.root, root), (cas.server, server)])
    files.crl_dir("root+expired-crldir", [(cas.root, root), (cas.server, expired)])


def _write_clients(files: Files, cas: CAs) -> None:
    """Client certificates, and keys in every form and mode."""
    client = cas.client.issue(cn="ssltestuser", client=True)
    revoked = cas.client.issue(cn="ssltestuser", client=True)
    expired = cas.client.issue(cn="ssltestuser", client=True, not_after=days(-0.5))
    files.write("root+client.crl", cas.root.crl(), cas.client.crl([revoked]))
    kinds: tuple[Kind, ...] = ("rsa", "rsa-pss", "ed25519")
    for kind in kinds:
        files.pair(f"client-{kind}", cas.client.issue(cn="ssltestuser", client=True, key=kind))
    for name, each in (("client-revoked", revoked), ("client-expired", expired)):
        files.write(f"{name}.crt", each.pem())
        files.write(f"{name}.key", each.key.pem())
    files.write("client.crt", client.pem())
    files.write("client+client_ca.crt", client.chain())
    files.write("client.der", client.certificate.public_bytes(Encoding.DER))
    files.write("no.key", b"no key\n")
    Files(files.directory / "directory.key")
    pem = client.key.pem()
    for name, mode in (("client", 0o600), ("readonly", 0o400), ("group", 0o640), ("all", 0o644)):
        files.write(f"{name}.key", pem, mode=mode)
    files.write("client-der.key", client.key.der())
    files.write("client-encrypted-pem.key", client.key.pem(PASSWORD))
    files.write("client-encrypted-der.key", client.key.der(PASSWORD))
    encryption = BestAvailableEncryption(PASSWORD.encode())
    for name, encoding, encrypted in (
        ("sec1-pem", Encoding.PEM, NoEncryption()),
        ("sec1-der", Encoding.DER, NoEncryption()),
        ("sec1-encrypted", Encoding.PEM, encryption),
    ):
        key = client.key.private.private_bytes(
            encoding, PrivateFormat.TraditionalOpenSSL, encrypted
        )
        files.write(f"client-{name}.key", key)


HOMES: Mapping[str, Mapping[str, str]] = {
    "with-root": {"root.crt": "root+server_ca.crt"},
    "with-other-root": {"root.crt": "other_ca.crt"},
    "with-crl": {"root.crt": "root+server_ca.crt", "root.crl": "root+server.crl"},
    "with-client-crl": {"root.crt": "root+server_ca.crt", "root.crl": "client.crl"},
    "with-client": {"postgresql.crt": "client.crt", "postgresql.key": "client.key"},
    "without-key": {"postgresql.crt": "client.crt"},
    "with-open-key": {"postgresql.crt": "client.crt", "postgresql.key": "all.key"},
}
"""Home directories: what is in ``~/.postgresql``, and which file it is."""


def _write_homes(files: Files) -> None:
    for home, content in HOMES.items():
        inner = Files(files.directory / home / ".postgresql")
        for name, source in content.items():
            original = files.directory / source
            inner.write(name, original.read_bytes(), mode=original.stat().st_mode & 0o777)


@attrs.frozen
class InProcess:
    """A server of pgtls's own, whose application lets everyone in.

    :ivar certificate: of :func:`certificates`.
    :ivar chain: whether it sends the intermediate certificates.
    """

    certificate: str
    chain: bool = False
    ssl: SSL = SSL.REQUIRE
    ssl_ca_file: str = ""
    ssl_crl_file: str = ""
    ssl_min_protocol_version: str = "TLSv1.2"
    ssl_max_protocol_version: str = ""
    clientcert: ClientCert = ClientCert.NO

    def listen(self, test: TestCase) -> int:
        """Listen until the test ends; the port."""
        own = certificates()[self.certificate]
        tls = ServerTLSSettings(
            ssl_cert_file=own.chain() if self.chain else own.pem(),
            ssl_key_file=own.key.pem(),
            ssl_ca_file=self.ssl_ca_file,
            ssl_crl_file=self.ssl_crl_file,
            ssl_min_protocol_version=self.ssl_min_protocol_version,
            ssl_max_protocol_version=self.ssl_max_protocol_version,
        )
        settings = ListenerSettings(ssl=self.ssl, tls=tls, clientcert=self.clientcert)
        factory = PgTLSServerFactory(_Sessions(), ServerTLS(tls), settings, reactor=reactor)
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        test.addCleanup(factory.drain, TIMEOUT)
        test.addCleanup(listening.stopListening)
        return cast(int, listening.getHost().port)


class _Session(Protocol):
    """AuthenticationOk and ReadyForQuery, for whatever comes first."""

    def connectionMade(self) -> None:
        cast(Any, self.transport).write(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")


class _Sessions(Factory):
    noisy = False
    protocol = _Session


class Outcome(NamedTuple):
    """What a client made of it: ``ssl``, ``plain`` or ``fail``, and why."""

    outcome: str
    error: str


async def probe(conninfo: str, home: str) -> Outcome:
    """Connect as ``pgtls probe`` does."""
    try:
        parsed = ConnInfo.parse(conninfo, {"HOME": home})
    except ConfigurationError as error:
        return Outcome("fail", str(error))
    result = await run_probe(reactor, parsed)
    return Outcome(result.outcome, result.error or "")


async def libpq(test: TestCase, conninfo: str, home: str) -> Outcome:
    """Connect as libpq does."""
    set_environment(test, HOME=home)
    return await deferToThread(_libpq, f"{conninfo} gssencmode=disable")


def set_environment(test: TestCase, **variables: str) -> None:
    """Set variables of the process, C libraries included, until the test ends; no PG* is set."""
    unset = [name for name in os.environ if name.startswith("PG")]
    for name in (*variables, *unset):
        if name in os.environ:
            test.addCleanup(os.environ.__setitem__, name, os.environ.pop(name))
        else:
            test.addCleanup(os.environ.pop, name, None)
    os.environ.update(variables)


def _libpq(conninfo: str) -> Outcome:
    connection = PGconn.connect_start(conninfo.encode())
    try:
        # Not PQconnectdb(), which would hold the interpreter that the server needs too.
        while connection.status != ConnStatus.BAD:
            match connection.connect_poll():
                case PollingStatus.READING:
                    select.select([connection.socket], [], [], TIMEOUT)
                case PollingStatus.WRITING:
                    select.select([], [connection.socket], [], TIMEOUT)
                case PollingStatus.OK:
                    return Outcome("ssl" if connection.ssl_in_use else "plain", "")
        return Outcome("fail", connection.error_message.decode())
    finally:
        connection.finish()
