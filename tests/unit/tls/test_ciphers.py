"""Cipher suites: the defaults, an operator's list, DSA."""

from __future__ import annotations

import ssl

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.ciphers import (
    FORWARD_SECRET,
    check_dsa_key,
    cipher_names,
    set_ciphers,
    set_ciphersuites,
)
from pgtls.tls.dh import load_builtin_dh_params
from pgtls.tls.tls_info import is_ephemeral
from tests.support.certificates import Authority, Key
from tests.support.in_memory import (
    client_context,
    handshake,
    handshake_with_python,
    python_client,
    server_context,
)

DSS = "DHE-DSS-AES256-GCM-SHA384"
POSTGRESQL_DEFAULT = "HIGH:MEDIUM:+3DES:!aNULL"


class DefaultTests(SynchronousTestCase):
    """The list that holds without ``ssl_ciphers``."""

    def test_every_suite_is_forward_secret_and_authenticated_encryption(self) -> None:
        for name in cipher_names(FORWARD_SECRET):
            self.assertTrue(is_ephemeral(name), name)
            self.assertRegex(name, "GCM|CHACHA20")
            self.assertNotRegex(name, "ADH|AECDH|DSS|PSK")

    def test_nothing_in_it_deserves_a_warning(self) -> None:
        self.assertEqual(set_ciphers(server_context(), FORWARD_SECRET), [])

    def test_a_client_that_knows_static_rsa_only_is_refused(self) -> None:
        server = server_context(Authority("root").issue(["localhost"], key="rsa"))
        set_ciphers(server, FORWARD_SECRET)
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers="AES256-GCM-SHA384")
        self.assertEqual(handshake(server, client).server_error, "no shared cipher")

    def test_what_clients_offer_by_default_is_enough_in_tls_1_2(self) -> None:
        for key in ("rsa", "ecdsa"):
            server = server_context(Authority("root").issue(["localhost"], key=key))
            set_ciphers(server, FORWARD_SECRET)
            _, client = handshake_with_python(server, python_client(ssl.TLSVersion.TLSv1_2))
            self.assertEqual(client.version(), "TLSv1.2")


class OperatorsListTests(SynchronousTestCase):
    """``ssl_ciphers``."""

    def test_static_rsa_is_allowed_and_named(self) -> None:
        server = server_context(Authority("root").issue(["localhost"], key="rsa"))
        weak = set_ciphers(server, "ECDHE-RSA-AES128-GCM-SHA256:AES256-GCM-SHA384")
        self.assertEqual(weak, ["AES256-GCM-SHA384"])
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers="AES256-GCM-SHA384")
        self.assertIsNone(handshake(server, client).server_error)

    def test_suites_without_encryption_are_named(self) -> None:
        self.assertEqual(
            set_ciphers(server_context(), "ECDHE-RSA-NULL-SHA:ECDHE-RSA-AES128-SHA@SECLEVEL=0"),
            ["ECDHE-RSA-NULL-SHA"],
        )

    def test_postgresqls_default_is_accepted(self) -> None:
        weak = set_ciphers(server_context(), POSTGRESQL_DEFAULT)
        self.assertIn("AES256-GCM-SHA384", weak)
        self.assertFalse([name for name in weak if "PSK" in name or "SRP" in name])

    def test_anonymous_suites_are_refused_by_name(self) -> None:
        for name in ("ADH-AES256-GCM-SHA384", "AECDH-AES128-SHA", "aNULL", "ADH", "kDHE+aNULL"):
            error = self.assertRaises(
                ConfigurationError, set_ciphers, server_context(), f"HIGH:{name}:!PSK"
            )
            self.assertIn(f'"{name}"', str(error))

    def test_anonymous_suites_are_never_on(self) -> None:
        server = server_context()
        set_ciphers(server, "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        for names in ("ADH-AES256-GCM-SHA384", "AECDH-AES256-SHA"):
            client = client_context(version=SSL.TLS1_2_VERSION, ciphers=f"{names}:@SECLEVEL=0")
            self.assertEqual(handshake(server, client).server_error, "no shared cipher")

    def test_to_switch_anonymous_suites_off_is_no_mistake(self) -> None:
        for off in ("!aNULL", "-aNULL", "!ADH:!AECDH"):
            self.assertEqual(set_ciphers(server_context(), f"ECDHE+AESGCM:{off}"), [])

    def test_no_suite_at_all(self) -> None:
        for ciphers in ("", "nonsense", "EXPORT", "!ALL", "PSK", "ECDHE+AESGCM:!ECDHE"):
            error = self.assertRaises(ConfigurationError, set_ciphers, server_context(), ciphers)
            self.assertEqual(
                str(error), "could not set the TLSv1.2 cipher list (no valid ciphers available)"
            )

    def test_a_refused_list_leaves_no_error_behind(self) -> None:
        server = server_context()
        self.assertRaises(ConfigurationError, set_ciphers, server, "nonsense")
        self.assertIsNone(handshake(server).server_error)


class CiphersuitesTests(SynchronousTestCase):
    """``ssl_tls13_ciphers``."""

    def test_they_are_used(self) -> None:
        server = server_context()
        set_ciphersuites(server, "TLS_CHACHA20_POLY1305_SHA256")
        self.assertEqual(handshake(server).client.get_cipher_name(), "TLS_CHACHA20_POLY1305_SHA256")

    def test_empty_is_the_default(self) -> None:
        server = server_context()
        set_ciphersuites(server, "")
        self.assertEqual(handshake(server).client.get_cipher_name(), "TLS_AES_256_GCM_SHA384")

    def test_no_suite_of_tls_1_3(self) -> None:
        for names in ("nonsense", "ECDHE-RSA-AES128-GCM-SHA256"):
            error = self.assertRaises(ConfigurationError, set_ciphersuites, server_context(), names)
            self.assertEqual(
                str(error), "could not set the TLSv1.3 cipher suites (no valid ciphers available)"
            )


class DSATests(SynchronousTestCase):
    """DSA keys, for who must."""

    def server(self) -> SSL.Context:
        server = server_context(Authority("root", "dsa").issue(["localhost"], key="dsa"))
        set_ciphers(server, DSS)
        load_builtin_dh_params(server)
        return server

    def test_dhe_dss_named_explicitly_works(self) -> None:
        pair = handshake(self.server(), client_context(ciphers=DSS))
        self.assertEqual((pair.server_error, pair.client_error), (None, None))
        self.assertEqual(pair.client.get_cipher_name(), DSS)

    def test_also_with_another_openssl(self) -> None:
        _, client = handshake_with_python(self.server(), python_client(ssl.TLSVersion.TLSv1_2, DSS))
        cipher = client.cipher()
        self.assertEqual(cipher and cipher[0], DSS)

    def test_a_list_with_a_suite_for_it_passes(self) -> None:
        check_dsa_key(Key.generate("dsa").openssl(), DSS)
        check_dsa_key(Key.generate("dsa").openssl(), POSTGRESQL_DEFAULT)

    def test_the_default_list_has_none_and_the_error_says_what_to_do(self) -> None:
        error = self.assertRaises(
            ConfigurationError, check_dsa_key, Key.generate("dsa").openssl(), FORWARD_SECRET
        )
        self.assertIn(DSS, str(error))

    def test_other_keys_need_none(self) -> None:
        check_dsa_key(Key.generate("ecdsa").openssl(), FORWARD_SECRET)
