"""What pyOpenSSL is made to do: ALPN, no resumption, groups, key pairs of every kind."""

from __future__ import annotations

import ssl

from cryptography import x509
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.groups import set_groups
from pgtls.tls.openssl import (
    select_alpn,
    use_key_pair,
)
from pgtls.tls.switched_off import forbid_renegotiation_and_compression, forbid_resumption
from tests.support.certificates import Authority, Issued, Key, Kind, localhost
from tests.support.in_memory import (
    client_context,
    handshake,
    handshake_with_python,
    python_client,
    server_context,
    transfer,
)

VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
PYTHON_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class ALPNTests(SynchronousTestCase):
    """A server that selects ``postgresql``."""

    def setUp(self) -> None:
        self.server = server_context()
        select_alpn(self.server)

    def test_postgresql_is_selected(self) -> None:
        long = b"x" * 255
        for offered in ([b"postgresql"], [b"h2", b"postgresql"], [long, b"postgresql", long]):
            pair = handshake(self.server, client_context(alpn=offered))
            self.assertEqual(pair.client.get_alpn_proto_negotiated(), b"postgresql")

    def test_a_client_that_offers_nothing_is_accepted(self) -> None:
        pair = handshake(self.server)
        self.assertEqual((pair.server_error, pair.client_error), (None, None))

    def test_another_protocol_gets_the_alert_no_application_protocol(self) -> None:
        for version in VERSIONS:
            pair = handshake(self.server, client_context(version=version, alpn=[b"h2"]))
            self.assertEqual(pair.client_error, "tlsv1 alert no application protocol")
            self.assertEqual(pair.server_error, "no application protocol")

    def test_a_name_that_only_contains_it(self) -> None:
        for name in (b"xpostgresql", b"postgresqlx", b"\npostgresql", b"postgres", b"POSTGRESQL"):
            pair = handshake(self.server, client_context(alpn=[name]))
            self.assertEqual(pair.client_error, "tlsv1 alert no application protocol")

    def test_the_alert_as_another_openssl_reads_it(self) -> None:
        client = python_client()
        client.set_alpn_protocols(["h2"])
        error = self.assertRaises(ssl.SSLError, handshake_with_python, self.server, client)
        self.assertIn("no application protocol", str(error))

    def test_the_next_client_does_not_see_the_error_of_the_last(self) -> None:
        handshake(self.server, client_context(alpn=[b"h2"]))
        pair = handshake(self.server, client_context(alpn=[b"postgresql"]))
        self.assertEqual((pair.server_error, pair.client_error), (None, None))


class ResumptionTests(SynchronousTestCase):
    """No session is ever resumed, whatever a client offers."""

    def setUp(self) -> None:
        self.server = server_context()
        forbid_resumption(self.server)

    def test_an_offered_session_is_not_resumed(self) -> None:
        for version in VERSIONS:
            client = client_context(version=version)
            first = handshake(self.server, client)
            second = handshake(self.server, client, first.client.get_session())
            self.assertEqual((second.server_error, second.client_error), (None, None))
            self.assertFalse(SSL._lib.SSL_session_reused(second.server._ssl))

    def test_nor_one_that_python_offers(self) -> None:
        for version in PYTHON_VERSIONS:
            client = python_client(version)
            _, first = handshake_with_python(self.server, client)
            _, second = handshake_with_python(self.server, client, first.session)
            self.assertFalse(second.session_reused)

    def test_the_check_itself_sees_a_resumed_session(self) -> None:
        for version in PYTHON_VERSIONS:
            client = python_client(version)
            context = server_context()
            _, first = handshake_with_python(context, client)
            _, second = handshake_with_python(context, client, first.session)
            self.assertTrue(second.session_reused)

    def test_tls_1_2_clients_get_no_ticket(self) -> None:
        _, client = handshake_with_python(self.server, python_client(ssl.TLSVersion.TLSv1_2))
        session = client.session
        self.assertFalse(session is not None and (session.has_ticket or session.id))

    def test_an_offered_session_does_not_stop_a_server_that_asks_for_certificates(self) -> None:
        server = server_context()
        forbid_resumption(server)
        server.set_verify(SSL.VERIFY_PEER)
        client = python_client()
        _, first = handshake_with_python(server, client)
        _, second = handshake_with_python(server, client, first.session)
        self.assertEqual(second.version(), "TLSv1.3")


class RenegotiationTests(SynchronousTestCase):
    """TLS 1.2 connections keep the keys that they began with, and nothing is compressed."""

    def setUp(self) -> None:
        self.server = server_context()
        forbid_renegotiation_and_compression(self.server)

    def test_a_client_is_refused(self) -> None:
        pair = handshake(self.server, client_context(version=SSL.TLS1_2_VERSION))
        pair.client.renegotiate()
        self.assertRaises(SSL.WantReadError, pair.client.do_handshake)
        transfer(pair.client, pair.server)
        self.assertRaises(SSL.WantReadError, pair.server.recv, 1)
        transfer(pair.server, pair.client)
        error = self.assertRaises(SSL.Error, pair.client.do_handshake)
        self.assertIn("no renegotiation", str(error))

    def test_a_server_does_not_begin_one_either(self) -> None:
        pair = handshake(self.server, client_context(version=SSL.TLS1_2_VERSION))
        self.assertRaises(SSL.Error, pair.server.renegotiate)

    def test_compression_is_not_offered(self) -> None:
        _, client = handshake_with_python(self.server, python_client(ssl.TLSVersion.TLSv1_2))
        self.assertIsNone(client.compression())


class GroupsTests(SynchronousTestCase):
    """Key exchange groups."""

    def group(self, groups: str | None, client: SSL.Context | None = None) -> str | None:
        server = server_context()
        if groups is not None:
            set_groups(server, groups)
        return handshake(server, client).client.get_group_name()

    def test_by_default_it_is_post_quantum(self) -> None:
        self.assertEqual(self.group(None), "X25519MLKEM768")

    def test_the_first_common_one_is_used(self) -> None:
        self.assertEqual(self.group("X25519MLKEM768:X25519:prime256v1"), "X25519MLKEM768")
        self.assertEqual(self.group("X25519:prime256v1"), "x25519")
        self.assertEqual(self.group("prime256v1"), "secp256r1")

    def test_a_client_without_post_quantum_groups_gets_another(self) -> None:
        client = client_context()
        set_groups(client, "X25519")
        self.assertEqual(self.group("X25519MLKEM768:X25519:prime256v1", client), "x25519")

    def test_nothing_in_common(self) -> None:
        server, client = server_context(), client_context()
        set_groups(server, "X25519")
        set_groups(client, "prime256v1")
        self.assertIsNotNone(handshake(server, client).server_error)

    def test_an_unknown_name_is_named(self) -> None:
        error = self.assertRaises(
            ConfigurationError, set_groups, server_context(), "X25519:x25518:prime256v1"
        )
        self.assertRegex(
            str(error),
            r"^could not set group names specified in ssl_groups: "
            r'OpenSSL \d\S* has no group "x25518"$',
        )

    def test_a_list_that_is_none(self) -> None:
        for groups in ("", ":", "X25519,prime256v1", "X25519:"):
            self.assertRaises(ConfigurationError, set_groups, server_context(), groups)

    def test_a_refused_list_leaves_the_context_and_the_error_queue_as_they_were(self) -> None:
        server = server_context()
        self.assertRaises(ConfigurationError, set_groups, server, "X25519:")
        self.assertEqual(handshake(server).client.get_group_name(), "X25519MLKEM768")


class KeyPairTests(SynchronousTestCase):
    """Certificates with keys of every kind, one or several to a context."""

    def setUp(self) -> None:
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)

    def use(self, issued: Issued) -> None:
        use_key_pair(self.context, issued.chain(), issued.key.openssl())

    def test_every_kind_of_key(self) -> None:
        kinds: tuple[Kind, ...] = ("ecdsa", "rsa", "rsa-pss", "ed25519")
        for kind in kinds:
            for version in VERSIONS:
                self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
                issued = Authority("root").issue(["localhost"], key=kind)
                self.use(issued)
                pair = handshake(self.context, client_context(version=version))
                self.assertEqual((kind, pair.client_error), (kind, None))
                self.assertEqual(
                    pair.client.get_peer_certificate(as_cryptography=True), issued.certificate
                )

    def test_intermediates_are_sent(self) -> None:
        issued = Authority("root").intermediate("between").issue(["localhost"])
        self.use(issued)
        self.assertEqual(self.sent(client_context()), list(issued._all()))

    def test_rsa_and_ecdsa_each_with_its_own_intermediates(self) -> None:
        ecdsa = Authority("root").intermediate("of ECDSA").issue(["localhost"])
        rsa = Authority("root", "rsa").intermediate("of RSA", "rsa").issue(["x"], key="rsa")
        self.use(rsa)
        self.use(ecdsa)
        modern = client_context(version=SSL.TLS1_2_VERSION, ciphers="ECDHE+AESGCM")
        old = client_context(version=SSL.TLS1_2_VERSION, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
        self.assertEqual(self.sent(modern), list(ecdsa._all()))
        self.assertEqual(self.sent(old), list(rsa._all()))

    def sent(self, client: SSL.Context) -> list[x509.Certificate] | None:
        return handshake(self.context, client).client.get_peer_cert_chain(as_cryptography=True)

    def test_a_key_of_another_certificate_is_refused(self) -> None:
        kinds: tuple[Kind, ...] = ("ecdsa", "rsa")
        for kind in kinds:
            self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
            key = Key.generate(kind).openssl()
            error = self.assertRaises(
                ConfigurationError, use_key_pair, self.context, localhost().chain(), key
            )
            self.assertIn("could not use the certificate with its private key", str(error))

    def test_a_refused_pair_leaves_no_error_behind(self) -> None:
        key = Key.generate("ecdsa").openssl()
        self.assertRaises(ConfigurationError, use_key_pair, self.context, localhost().chain(), key)
        self.assertIsNone(handshake(server_context()).server_error)


class ProtocolVersionTests(SynchronousTestCase):
    """What the two public calls for versions do, on which others rely."""

    def test_tls_1_1_is_refused_below_the_minimum(self) -> None:
        server = server_context()
        server.set_cipher_list(b"ALL:@SECLEVEL=0")
        server.set_min_proto_version(SSL.TLS1_2_VERSION)
        client = client_context(version=SSL.TLS1_1_VERSION, ciphers="ALL:@SECLEVEL=0")
        self.assertEqual(handshake(server, client).client_error, "tlsv1 alert protocol version")


class PublicCallTests(SynchronousTestCase):
    """Fails when pyOpenSSL gains what ``pgtls.tls.openssl`` does without its help."""

    def test_groups(self) -> None:
        for name in ("set1_groups_list", "set_groups", "set1_curves_list"):
            self.assertFalse(
                hasattr(SSL.Context, name), f"set_groups() can call Context.{name}() now"
            )

    def test_tickets(self) -> None:
        for name in ("set_num_tickets", "set_session_ticket_count"):
            self.assertFalse(
                hasattr(SSL.Context, name),
                f"forbid_resumption() can call Context.{name}(0) now, and its module's "
                "docstring no longer has to apologise",
            )
        self.assertFalse(
            hasattr(SSL._lib, "SSL_CTX_set_num_tickets"),
            "forbid_resumption() can call lib.SSL_CTX_set_num_tickets(context, 0) now",
        )

    def test_chains_by_certificate(self) -> None:
        for name in ("add1_chain_cert", "add_chain_cert", "use_certificate_chain"):
            self.assertFalse(
                hasattr(SSL.Context, name), f"use_key_pair() can call Context.{name}() now"
            )

    def test_alpn_alert(self) -> None:
        for name in ("ALPN_ALERT_FATAL", "REJECT_PROTOCOLS"):
            self.assertFalse(
                hasattr(SSL, name), f"a callback of set_alpn_select_callback() can return {name}"
            )

    def test_verify_error_texts(self) -> None:
        for name in ("verify_error_string", "X509_verify_cert_error_string"):
            self.assertFalse(hasattr(SSL, name), f"verify_error_text() can call SSL.{name}() now")
