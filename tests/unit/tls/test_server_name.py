"""Contexts by host name: what is chosen, what comes with it, which alert there is for none."""

from __future__ import annotations

import gc

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.certificate import Certificate
from pgtls.tls.groups import set_groups
from pgtls.tls.server_name import ServerNames, choose_by_name
from pgtls.tls.sources import ask_for_certificates_of
from tests.support.certificates import Authority, Issued
from tests.support.in_memory import (
    Pair,
    client_context,
    finish,
    handshake,
    server_context,
    transfer,
)

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)

ROOT = Authority("root")
HOSTS = ("a.example", "b.example", "any", "nameless")
SHOWN = {name: ROOT.issue([name], cn=name) for name in HOSTS}
#: Of clients; "nameless" asks for no certificate.
AUTHORITIES = {name: Authority(f"clients of {name}") for name in HOSTS if name != "nameless"}
CLIENTS = {name: each.issue(cn="alice", client=True) for name, each in AUTHORITIES.items()}


class FindTests(SynchronousTestCase):
    """Which one is for a name."""

    def find(self, name: bytes | None, **names: int | None) -> int | None:
        named = {b"a.example": 1, b"*.example": 2, b"*.b.example": 3, b"localhost": 4}
        return ServerNames(named, **names).find(name)

    def test_names(self) -> None:
        for name, found in (
            (b"a.example", 1),
            (b"A.Example", 1),
            (b"b.example", 2),
            (b"B.EXAMPLE", 2),
            (b"a.b.example", 3),
            (b"localhost", 4),
            (b"c.d.example", None),
            (b".example", None),
            (b"example", None),
            (b"x.a.example", None),
            (b"a.example.", None),
            (b"localhost.localhost", None),
            (b"a.exampl\xc3\xa9", None),
            (b"", None),
            (b".", None),
            (b"/no_sni/", None),
        ):
            self.assertEqual(self.find(name), found, name)
            self.assertEqual(self.find(name, default=9), found or 9, name)
            self.assertEqual(self.find(name, default=9, nameless=8), found or 9, name)
            self.assertEqual(self.find(name, nameless=8), found, name)

    def test_no_name(self) -> None:
        self.assertIsNone(self.find(None))
        self.assertEqual(self.find(None, default=9), 9)
        self.assertEqual(self.find(None, nameless=8), 8)
        self.assertEqual(self.find(None, default=9, nameless=8), 8)


def context_of(name: str) -> SSL.Context:
    """A host's context, which asks for certificates of its own authority's."""
    context = server_context(SHOWN[name])
    if authority := AUTHORITIES.get(name):
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(certificate_of(authority.issued).openssl())
        ask_for_certificates_of(context, [authority.pem()])
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, lambda *args: bool(args[-1]))
    return context


def certificate_of(issued: Issued) -> Certificate:
    return Certificate.of(issued.certificate)


def served_by(names: ServerNames[SSL.Context]) -> SSL.Context:
    """A context without a certificate, that goes on with those."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    choose_by_name(context, names)
    return context


class HandshakeTests(SynchronousTestCase):
    """What clients of each version of TLS meet."""

    def setUp(self) -> None:
        named = {name.encode(): context_of(name) for name in ("a.example", "b.example")}
        self.server = served_by(ServerNames(named, context_of("any"), context_of("nameless")))
        self.strict = served_by(ServerNames({b"a.example": context_of("a.example")}))

    def connect(
        self,
        name: str | None,
        version: int,
        *,
        server: SSL.Context | None = None,
        client: Issued | None = None,
    ) -> Pair:
        context = client_context(version=version)
        if client is not None:
            context.use_certificate(client.certificate)
            context.use_privatekey(client.key.private)
        server_name = name.encode() if name is not None else None
        return handshake(server or self.server, context, server_name=server_name)

    def test_the_certificate_shown(self) -> None:
        for version in VERSIONS:
            for name, host in (
                ("a.example", "a.example"),
                ("B.Example", "b.example"),
                ("c.example", "any"),
                (None, "nameless"),
            ):
                pair = self.connect(name, version)
                self.assertEqual((pair.server_error, pair.client_error), (None, None))
                shown, own = pair.client.get_peer_certificate(), pair.server.get_certificate()
                assert shown is not None
                assert own is not None
                self.assertEqual(Certificate.of_openssl(shown), certificate_of(SHOWN[host]))
                self.assertEqual(Certificate.of_openssl(own), certificate_of(SHOWN[host]))

    def test_alerts(self) -> None:
        for version in VERSIONS:
            pair = self.connect("b.example", version, server=self.strict)
            self.assertEqual(pair.client_error, "tlsv1 unrecognized name")
            self.assertEqual(pair.server_error, "callback failed")
            pair = self.connect(None, version, server=self.strict)
            self.assertRegex(str(pair.client_error), "alert handshake failure$")
            pair = self.connect("A.example", version, server=self.strict)
            self.assertIsNone(pair.client_error)

    def test_a_clients_certificate_counts_at_its_own_host_only(self) -> None:
        for version in VERSIONS:
            for host in HOSTS:
                name = None if host == "nameless" else host
                for whose, client in CLIENTS.items():
                    pair = self.connect(name, version, client=client)
                    if host == "nameless":  # it does not ask for any
                        self.assertIsNone(pair.server_error)
                        self.assertIsNone(pair.server.get_peer_certificate())
                    elif host == whose:
                        self.assertIsNone(pair.server_error)
                        self.assertIsNotNone(pair.server.get_peer_certificate())
                    else:
                        self.assertEqual(pair.server_error, "certificate verify failed")
                        self.assertEqual(pair.client_error, "tlsv1 alert unknown ca")

    def test_the_authorities_that_a_client_is_told_of(self) -> None:
        for version in VERSIONS:
            for name in ("a.example", "b.example", "any"):
                told = self.connect(name, version).client.get_client_ca_list()
                self.assertEqual([each.CN for each in told], [f"clients of {name}"])
            self.assertEqual(self.connect(None, version).client.get_client_ca_list(), [])

    def test_behind_a_hello_retry_request(self) -> None:
        """A client that offers a key share of another group is asked to try again."""
        server = SSL.Context(SSL.TLS_SERVER_METHOD)
        set_groups(server, "secp384r1")
        context = context_of("a.example")
        choose_by_name(server, ServerNames({b"a.example": context}))
        for name, error in ((b"a.example", None), (b"b.example", "tlsv1 unrecognized name")):
            client = client_context(version=SSL.TLS1_3_VERSION)
            set_groups(client, "x25519:secp384r1")
            pair = handshake(server, client, server_name=name)
            self.assertEqual(pair.client_error, error)
            if error is None:
                self.assertEqual(pair.client.get_group_name(), "secp384r1")

    def test_a_client_that_changes_its_mind_behind_a_hello_retry_request(self) -> None:
        """The last name counts, for all that goes with it."""
        server = SSL.Context(SSL.TLS_SERVER_METHOD)
        set_groups(server, "secp384r1")
        hosts = ("a.example", "b.example")
        choose_by_name(server, ServerNames({name.encode(): context_of(name) for name in hosts}))
        for first, last in (hosts, hosts[::-1]):
            for whose in hosts:
                client = client_context(version=SSL.TLS1_3_VERSION)
                set_groups(client, "x25519:secp384r1")
                client.use_certificate(CLIENTS[whose].certificate)
                client.use_privatekey(CLIENTS[whose].key.private)
                accepting, connecting = SSL.Connection(server), SSL.Connection(client)
                accepting.set_accept_state()
                connecting.set_connect_state()
                connecting.set_tlsext_host_name(first.encode())
                self.assertRaises(SSL.WantReadError, connecting.do_handshake)
                transfer(connecting, accepting)
                self.assertRaises(SSL.WantReadError, accepting.do_handshake)
                transfer(accepting, connecting)
                connecting.set_tlsext_host_name(last.encode())
                self.assertRaises(SSL.WantReadError, connecting.do_handshake)
                transfer(connecting, accepting)
                self.assertRaises(SSL.WantReadError, accepting.do_handshake)
                transfer(accepting, connecting)
                connecting.do_handshake()
                shown = connecting.get_peer_certificate()
                assert shown is not None
                self.assertEqual(Certificate.of_openssl(shown), certificate_of(SHOWN[last]))
                transfer(connecting, accepting)
                self.assertEqual(accepting.get_servername(), last.encode())
                if whose == last:
                    accepting.do_handshake()
                else:
                    self.assertRaises(SSL.Error, accepting.do_handshake)

    def test_the_contexts_live_as_long_as_a_connection_needs_them(self) -> None:
        accepting = SSL.Connection(served_by(ServerNames({b"a.example": context_of("a.example")})))
        gc.collect()
        pair = finish(accepting, server_name=b"a.example")
        self.assertEqual((pair.server_error, pair.client_error), (None, None))

    def test_pyopenssls_own_call_cannot_send_an_alert(self) -> None:
        """When it can, ours is not needed any more."""
        server = server_context()

        def refuse(_connection: SSL.Connection) -> int:
            return 2  # SSL_TLSEXT_ERR_ALERT_FATAL

        server.set_tlsext_servername_callback(refuse)
        pair = handshake(server, server_name=b"a.example")
        self.assertIsNone(pair.client_error)
