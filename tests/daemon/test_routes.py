"""``[[gateway.route]]``: each tenant at its own server, its cancel requests too."""

from __future__ import annotations

import re
import signal
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor

from pgtls.wire.messages import CancelRequest
from tests.support.gateway_daemon import Gateway, GatewayCase, GatewayFailed
from tests.support.raw_client import RawSession, answer, connect, startup_message
from tests.support.servers import HOST
from tests.support.tenants import Tenants, is_open

RELOADED = "reloaded: new connections get what is in the files now"
DIRECT = ssl.create_default_context()
DIRECT.check_hostname = False
DIRECT.verify_mode = ssl.CERT_NONE
DIRECT.set_alpn_protocols(["postgresql"])


def direct(gateway: Gateway, name: str) -> ssl.SSLSocket:
    """A connection with direct TLS that asks for a host name."""
    return DIRECT.wrap_socket(connect(gateway.address), server_hostname=name)


class TLSSession:
    """A session in TLS, open when it is made; or what it was refused with."""

    def __init__(self, gateway: Gateway, name: str, **parameters: str) -> None:
        self.connection = direct(gateway, name)
        self.connection.sendall(startup_message(**parameters))
        self.answer = b""
        while not self.answer.endswith(b"Z\0\0\0\5I"):
            chunk = self.connection.recv(4096)
            if not chunk:
                break
            self.answer += chunk
        found = re.search(rb"K\0\0\0\x0c(.{8})", self.answer, re.DOTALL)
        self.key = found[1] if found else b""
        self.tenant: int | None = struct.unpack("!I", self.key[:4])[0] if self.key else None


class RoutesCase(GatewayCase):
    """Gateways with routes, tenants behind them."""

    workers = 1

    def setUp(self) -> None:
        self.tenants = self.servers()

    def servers(self, *, same_keys: bool = False) -> Tenants:
        tenants = Tenants(same_keys=same_keys)
        self.addCleanup(tenants.stop)
        return tenants

    def at(self, tenant: int | str, more: str = "") -> str:
        return f"host=127.0.0.{tenant} port={self.tenants.port} {more}".strip()

    def config(self, *routes: dict[str, object], **gateway: str) -> str:
        settings = {"ssl": "on", "listen": f"tcp:0:interface={HOST}", **gateway}
        lines = [
            f'state_dir = "{{state}}"\nreload_interval = 0\nworkers = {self.workers}',
            "[[gateway]]",
        ]
        lines += [f"{name} = '{value}'" for name, value in settings.items()]
        for route in routes:
            lines.append("[[gateway.route]]")
            lines += [f"{name} = {value!r}" for name, value in route.items()]
        return "\n".join(lines).replace("\\\\", "\\") + "\n"

    def started(self, *routes: dict[str, object], **gateway: str) -> Gateway:
        return self.gateway(config=self.config(*routes, **gateway))

    def reload(self, gateway: Gateway, *routes: dict[str, object], **more: str) -> None:
        toml = self.config(*routes, **more).replace("{state}", str(gateway.state))
        (gateway.directory / "pgtls.toml").write_text(toml)
        count = gateway.log().count(RELOADED)
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(RELOADED, count + 1)

    def tls(self, gateway: Gateway, name: str, **parameters: str) -> TLSSession:
        session = TLSSession(gateway, name, **parameters)
        self.addCleanup(session.connection.close)
        return session

    def plain(self, gateway: Gateway, **parameters: str) -> RawSession:
        session = RawSession(gateway.address, **parameters)
        self.addCleanup(session.close)
        return session

    def by_label(self) -> dict[str, object]:
        return {
            "sni": "*.example.com",
            "upstream": rf"host=\1.internal hostaddr=127.0.0.\1 port={self.tenants.port}",
        }

    def cancel(self, gateway: Gateway, key: bytes, name: str = "") -> None:
        """Send a CancelRequest, in TLS where there is a name."""
        request = CancelRequest.build(key).raw
        if not name:
            self.assertEqual(answer(gateway.address, request), b"")
            return
        with direct(gateway, name) as connection:
            connection.sendall(request)
            self.assertEqual(connection.recv(1), b"")


class WhereTo(RoutesCase):
    """The first route that matches."""

    def test_two_hundred_tenants(self) -> None:
        own = [
            {"sni": f"own-{number}.example.com", "upstream": self.at(number)}
            for number in range(101, 201)
        ]
        gateway = self.started(*own, self.by_label())
        names = [f"{number}.example.com" for number in range(1, 101)]
        names += [f"Own-{number}.Example.com" for number in range(101, 201)]
        with ThreadPoolExecutor(16) as pool:
            sessions = list(pool.map(lambda name: self.tls(gateway, name), names))
        self.assertEqual([session.tenant for session in sessions], list(range(1, 201)))
        self.assertTrue(all(is_open(session.connection) for session in sessions))
        self.assertEqual({len(got) for got in self.tenants.sessions.values()}, {1})
        gateway.wait_for_log(r"sni=7\.example\.com route=101\n")
        gateway.wait_for_log(r"sni=Own-101\.Example\.com route=1\n")

    def test_by_database_and_role_and_the_gateways_own_upstream(self) -> None:
        gateway = self.started(
            {"database": ["app", "web"], "user": "alice", "upstream": self.at(2)},
            {"database": "app", "upstream": self.at(3, "dbname=app_v2")},
            upstream=self.at(4),
        )
        for database, user, tenant, route in (
            ("web", "alice", 2, "1"),
            ("app", "bob", 3, "2"),
            ("web", "bob", 4, "default"),
        ):
            self.assertEqual(self.plain(gateway, database=database, user=user).pid, tenant)
            gateway.wait_for_log(f"user={user} database={database} SSL=off route={route}\n")
        self.assertEqual(self.tenants.sessions[2][0].database, b"web")
        (replaced,) = self.tenants.sessions[3]
        self.assertEqual(replaced.parameters, ((b"user", b"bob"), (b"database", b"app_v2")))

    def test_the_label_as_database_and_what_the_server_is_told(self) -> None:
        gateway = self.started(
            {"sni": "*.example.com", "upstream": self.at(2, r"dbname=db_\1")},
            upstream=self.at(3),
            tls_parameters="on",
        )
        self.tls(gateway, "acme.example.com", **{"pgtls.sni": "forged", "database": "mine"})
        self.plain(gateway, **{"pgtls.sni": "forged"})
        (routed,), (own,) = self.tenants.sessions[2], self.tenants.sessions[3]
        self.assertEqual(routed.database, b"db_acme")
        self.assertEqual(routed.get(b"pgtls.sni"), b"acme.example.com")
        self.assertEqual(own.get(b"pgtls.sni"), b"")
        self.assertEqual(own.database, b"postgres")

    def test_no_route(self) -> None:
        gateway = self.started({"sni": "a.example.com", "upstream": self.at(2)})
        asked = 'no route for host name "b.example.com", database "postgres", user "eve"'
        refused = self.tls(gateway, "b.example.com", user="eve").answer
        self.assertIn(b"C08004\0M" + asked.encode() + b"\0", refused)
        self.assertNotIn(b"a.example.com", refused)
        plain = answer(gateway.address, startup_message())
        self.assertIn(
            b'C08004\0Mno route for no host name, database "postgres", user "postgres"\0', plain
        )
        self.assertEqual(self.tenants.sessions, {})

    def test_names_that_would_break_out(self) -> None:
        gateway = self.started(
            self.by_label(),
            {"sni": "*.bare.example", "upstream": rf"host=\1 port={self.tenants.port}"},
        )
        for name in (
            "2130706433.bare.example",  # 127.0.0.1
            "0x7f000001.bare.example",
            "2,127.example.com",
            "2%20port=1.example.com",
            "x.example.com",
            "300.example.com",
            "*.example.com",
            "/tmp.bare.example",
            "@abstract.bare.example",
        ):
            session = self.tls(gateway, name)
            self.assertIn(b"C08004\0", session.answer, name)
        self.assertEqual(self.tenants.sessions, {})
        self.assertEqual(self.tls(gateway, "2.example.com").tenant, 2)

    def test_reload_adds_and_removes_them(self) -> None:
        first = {"sni": "a.example.com", "upstream": self.at(2)}
        second = {"sni": "b.example.com", "upstream": self.at(3)}
        gateway = self.started(first)
        old = self.tls(gateway, "a.example.com")
        self.reload(gateway, second)
        new = self.tls(gateway, "b.example.com")
        self.assertEqual((old.tenant, new.tenant), (2, 3))
        self.assertIn(b"C08004\0", self.tls(gateway, "a.example.com").answer)
        self.assertTrue(is_open(old.connection))
        answer(gateway.address, CancelRequest.build(old.key).raw)
        self.assertEqual(self.tenants.cancels[2], [old.key])
        toml = gateway.directory / "pgtls.toml"
        toml.write_text(toml.read_text().replace("upstream = ", "upstreem = "))
        gateway.signal(signal.SIGHUP)
        gateway.wait_for_log(r'not reloaded: .*gateway 1: route 1: unknown setting "upstreem"')
        gateway.wait_for_log(r"not reloaded: .*gateway 1: route 1: upstream is missing")
        self.assertEqual(self.tls(gateway, "b.example.com").tenant, 3)
        self.assertTrue(is_open(new.connection))

    def test_a_gateway_gets_its_first_route_by_a_reload(self) -> None:
        gateway = self.started(upstream=self.at(2))
        self.assertEqual(self.tls(gateway, "a.example.com").tenant, 2)
        self.reload(gateway, {"sni": "a.example.com", "upstream": self.at(3)}, upstream=self.at(2))
        self.assertEqual(self.tls(gateway, "a.example.com").tenant, 3)
        self.reload(gateway, upstream=self.at(2))
        self.assertEqual(self.tls(gateway, "a.example.com").tenant, 2)


class WhereToWithWorkers(WhereTo):
    """The same with several processes."""

    workers = 2


class Start(RoutesCase):
    """What is checked before a port is open."""

    def test_every_mistake_of_every_route(self) -> None:
        error = self.assertRaises(
            GatewayFailed,
            self.started,
            {"sni": "*", "upstream": self.at(2)},
            {"database": [], "upstream": self.at(2)},
            {"sni": "a.example.com"},
            {"sni": "a.example.com", "upstream": r"host=\1"},
            {"sni": "*.example.com", "upstream": r"host=db user=\1"},
            {"upstream": "host=db sslmode=verify-full sslrootcert=/nowhere/root.crt"},
            {"users": "a", "upstream": "host=db"},
        )
        for mistake in (
            'route 1: sni must be host names such as "db.example.com" or "*.example.com"',
            "route 2: database must be a name, or a list of names, not []",
            "route 3: upstream is missing",
            r'route 4: upstream: "\1" needs an sni that begins with "*."',
            r'route 5: upstream: "\1" can stand in host, hostaddr and dbname, not in user',
            'route 6: upstream: root certificate file "/nowhere/root.crt"',
            'route 7: unknown setting "users"',
        ):
            self.assertIn(mistake, str(error))

    def test_each_upstream_is_looked_at(self) -> None:
        gateway = self.started(
            {"sni": "a.example.com", "upstream": self.at(2, "dbname=x user=y")}, self.by_label()
        )
        gateway.wait_for_log(r"info\] \S+toml: gateway 1: route 1: upstream: reached, in plaintext")
        gateway.wait_for_log(r'warn\] \S+toml: gateway 1: route 1: upstream: "user" has no effect')
        self.assertNotIn("route 2: upstream: reached", gateway.log())
        self.assertNotIn('"dbname" has no effect', gateway.log())


class Cancel(RoutesCase):
    """A key never reaches a server that it is not of."""

    def routed(self, **gateway: str) -> Gateway:
        return self.started(
            self.by_label(), {"database": "app", "upstream": self.at(151)}, **gateway
        )

    def strangers(self) -> None:
        """Every key that a server got is one that it gave out."""
        for tenant, keys in self.tenants.cancels.items():
            for key in keys:
                self.assertEqual(struct.unpack("!I", key[:4])[0], tenant)

    def test_known_keys_go_to_their_own_server(self) -> None:
        gateway = self.routed(upstream=self.at(152))
        sessions = [self.tls(gateway, f"{number}.example.com") for number in range(2, 32)]
        keys = [session.key for session in sessions]
        keys.append(self.plain(gateway, database="app").key)
        keys.append(self.plain(gateway).key)
        for number, key in enumerate(keys):
            self.cancel(gateway, key, "other.example.org" if number % 2 else "")
        got = [key for each in self.tenants.cancels.values() for key in each]
        self.assertEqual(sorted(got), sorted(keys))
        self.strangers()

    def test_a_session_of_another_process(self) -> None:
        """Its key is as one of a session that the gateway has never seen."""
        gateway = self.routed()
        key = struct.pack("!II", 9, 1)
        self.cancel(gateway, key)
        self.cancel(gateway, key, "example.org")  # depends on the database
        self.assertEqual(self.tenants.cancels, {})
        self.cancel(gateway, key, "9.example.com")
        self.assertEqual(self.tenants.cancels, {9: [key]})
        gateway.wait_for_log("cancel request not passed on: no session here has its key", 2)

    def test_an_unknown_key_in_plaintext_is_for_the_own_upstream(self) -> None:
        gateway = self.routed(upstream=self.at(152))
        key = struct.pack("!II", 152, 1)
        self.cancel(gateway, key)
        self.assertEqual(self.tenants.cancels, {152: [key]})


class SameKeys(RoutesCase):
    """Servers that know nothing of each other give out the same key."""

    def test_each_of_them_gets_it_while_its_session_is_open(self) -> None:
        self.tenants = self.servers(same_keys=True)
        gateway = self.started(self.by_label(), log_disconnections="on")
        first, *others = (self.tls(gateway, f"{number}.example.com") for number in (2, 3, 4))
        first.connection.close()
        gateway.wait_for_log("disconnection")
        self.assertEqual(answer(gateway.address, CancelRequest.build(first.key).raw), b"")
        self.assertEqual(self.tenants.cancels, {3: [first.key], 4: [first.key]})
        self.assertTrue(all(is_open(session.connection) for session in others))


class CancelWithWorkers(Cancel):
    """With several processes: each asks the others for the session."""

    workers = 3
