"""What a server's TLS lets a client do: tried with openssl s_client, with raw hellos, in memory."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from datetime import timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.openssl import use_key_pair
from pgtls.tls.server_context import ServerContext, ServerTLSSettings, server_context
from pgtls.tls.tls_info import describe
from pgtls.tls.validity import EXPIRY_WARNING, warnings
from pgtls.tls.verify_failures import failure_of
from tests.support.certificates import Authority, Files, Issued, Key, Kind, authority, days
from tests.support.gateway_daemon import Gateway, wait_until
from tests.support.in_memory import Pair, client_context, handshake
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import HOST, free_port
from tests.unit.tls.test_dh import CIPHER, FFDHE2048, FFDHE3072, pem, server_flight, without_ffdhe

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
OPENSSL = shutil.which("openssl") or "openssl"
#: OpenSSL's client does not even try what is known to be weak, unless it is told to.
ANYTHING = "@SECLEVEL=0"


@cache
def certificate(kind: Kind) -> Issued:
    """For localhost, with a key of that kind."""
    return authority().issue(["localhost"], cn="localhost", key=kind)


@cache
def daemon() -> Gateway:
    """A gateway with an RSA certificate and default settings, and one with RSA and ECDSA. Behind
    them there is nothing: no test here gets so far."""
    directory = tempfile.TemporaryDirectory(prefix="pgtls-server-context-")
    atexit.register(directory.cleanup)
    files = Files(directory.name)
    rsa = files.pair("rsa", certificate("rsa"))
    ecdsa = files.pair("ecdsa", certificate("ecdsa"))
    both = [f"{one},{other}" for one, other in zip(rsa, ecdsa, strict=True)]
    gateway = Gateway(
        config="".join(
            f'[[gateway]]\nlisten = "tcp:0:interface={HOST}"\n'
            f'upstream = "host={HOST} port={free_port()} sslmode=disable"\n'
            f'ssl_cert_file = "{crt}"\nssl_key_file = "{key}"\n'
            for crt, key in (rsa, both)
        )
    )
    atexit.register(gateway.remove)
    return gateway


def s_client(*options: str, port: int | None = None, typed: str = "") -> str:
    """What ``openssl s_client -starttls postgres`` prints."""
    done = subprocess.run(
        [
            *(OPENSSL, "s_client", "-starttls", "postgres"),
            *("-connect", f"{HOST}:{port or daemon().port}", *options),
        ],
        input=typed,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    return done.stdout + done.stderr


class SClient(SynchronousTestCase):
    """OpenSSL's own client against the default settings."""

    def refused(self, alert: str, *options: str) -> None:
        printed = s_client(*options)
        self.assertIn(alert, printed)
        self.assertRegex(printed, r"Cipher is \(NONE\)|Cipher    : 0000")

    def test_a_good_client_gets_in(self) -> None:
        self.assertRegex(s_client(), r"New, TLSv1\.3, Cipher is TLS_AES_256_GCM_SHA384")
        printed = s_client("-tls1_2")
        self.assertRegex(printed, r"New, TLSv1\.2, Cipher is ECDHE-RSA-AES256-GCM-SHA384")

    def test_static_rsa(self) -> None:
        suites = f"AES256-GCM-SHA384:AES128-GCM-SHA256:AES128-SHA:{ANYTHING}"
        self.refused("alert handshake failure", "-tls1_2", "-cipher", suites)

    def test_anonymous_suites(self) -> None:
        suites = f"ADH-AES256-GCM-SHA384:ADH-AES128-SHA:AECDH-AES256-SHA:{ANYTHING}"
        self.refused("alert handshake failure", "-tls1_2", "-cipher", suites)

    def test_suites_without_encryption(self) -> None:
        suites = f"ECDHE-RSA-NULL-SHA:NULL-SHA256:{ANYTHING}"
        self.refused("alert handshake failure", "-tls1_2", "-cipher", suites)

    def test_tls_1_1_and_1_0(self) -> None:
        for version in ("-tls1_1", "-tls1"):
            self.refused("alert protocol version", version, "-cipher", f"ALL:{ANYTHING}")

    def test_renegotiation(self) -> None:
        printed = s_client("-tls1_2", typed="R\n")
        self.assertIn("RENEGOTIATING", printed)
        self.assertIn("no renegotiation", printed)

    def test_compression(self) -> None:
        self.assertIn("Compression: NONE", s_client("-tls1_2", "-comp"))

    def test_resumption_in_tls_1_2(self) -> None:
        printed = s_client("-tls1_2", "-reconnect")
        self.assertEqual(printed.count("New, TLSv1.2"), 6)
        self.assertNotIn("Reused", printed)

    def test_resumption_in_tls_1_3(self) -> None:
        session = self.mktemp()
        # What comes behind the handshake, session tickets too, is read while we still have
        # something to say.
        s_client("-sess_out", session, typed="\n")
        offered = ["-sess_in", session] if os.path.exists(session) else []
        self.assertNotIn("Reused", s_client(*offered))

    def test_dhe_with_parameters_of_3072_bits(self) -> None:
        printed = s_client("-tls1_2", "-cipher", "DHE-RSA-AES256-GCM-SHA384")
        self.assertIn("Server Temp Key: DH, 3072 bits", printed)

    def test_what_the_client_can_verify_decides_between_rsa_and_ecdsa(self) -> None:
        port = int(daemon().places[1][1])
        for offered, used in {
            "RSA-PSS+SHA256": "RSA-PSS",
            "ECDSA+SHA256": "ECDSA",
            "RSA-PSS+SHA256:ECDSA+SHA256": "(RSA-PSS|ECDSA)",
        }.items():
            printed = s_client("-sigalgs", offered, port=port)
            self.assertRegex(printed, f"Peer signature type: {used}")

    def test_alpn(self) -> None:
        self.assertIn("ALPN protocol: postgresql", s_client("-alpn", "h2,postgresql"))
        self.refused("no application protocol", "-alpn", "h2")

    def test_the_log_says_why_a_client_failed(self) -> None:
        before = len(daemon().log())
        for _ in range(5):
            s_client("-tls1_2", "-cipher", f"AES128-SHA:{ANYTHING}")
        wait_until(lambda: daemon().log()[before:].count("could not accept") == 5, daemon().log)
        self.assertEqual(daemon().log()[before:].count("SSL error: no shared cipher"), 5)


def hello(
    version: int = 0x0303, suites: tuple[int, ...] = (0xC030,), compression: bytes = b"\0"
) -> bytes:
    """A ClientHello of TLS 1.2, or of what else it says."""
    extensions = b"".join(
        struct.pack("!HH", kind, len(content)) + content
        for kind, content in {
            10: struct.pack("!HH", 2, 29),  # supported_groups: x25519
            11: b"\1\0",  # ec_point_formats
            13: struct.pack("!HHHH", 6, 0x0804, 0x0401, 0x0403),  # signature_algorithms
            23: b"",  # extended_master_secret
        }.items()
    )
    body = (
        struct.pack("!H", version)
        + bytes(range(32))
        + b"\0"
        + struct.pack(f"!H{len(suites)}H", 2 * len(suites), *suites)
        + bytes([len(compression)])
        + compression
        + struct.pack("!H", len(extensions))
        + extensions
    )
    message = b"\1" + len(body).to_bytes(3) + body
    return struct.pack("!BHH", 22, 0x0301, len(message)) + message


def answer(request: bytes) -> bytes:
    """The server's first record to a raw hello, or nothing where it just closes."""
    with contextlib.closing(socket.create_connection((HOST, daemon().port), TIMEOUT)) as connection:
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        connection.sendall(request)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while len(received) < 5 or len(received) < 5 + int.from_bytes(received[3:5]):
                chunk = connection.recv(65536)
                if not chunk:
                    break
                received += chunk
        return received


ALERT, HANDSHAKE = 21, 22
UNEXPECTED_MESSAGE, HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, DECODE_ERROR, PROTOCOL_VERSION = (
    *(10, 40, 47, 50),
    70,
)


class RawHellos(SynchronousTestCase):
    """What OpenSSL's client is too polite to say."""

    def refused(self, request: bytes, *alerts: int) -> None:
        received = answer(request)
        self.assertEqual(received[:1], bytes([ALERT]))
        self.assertIn(received[6], alerts)

    def test_a_good_one_is_answered(self) -> None:
        self.assertEqual(answer(hello())[0], HANDSHAKE)

    def test_compression_is_not_chosen(self) -> None:
        received = answer(hello(compression=b"\1\0"))
        self.assertEqual((received[0], received[5]), (HANDSHAKE, 2))
        # ServerHello: version, random, session ID, suite, compression method
        session_id = received[43]
        self.assertEqual(received[43 + 1 + session_id + 2], 0)

    def test_nothing_but_compression(self) -> None:
        self.refused(hello(compression=b"\1"), DECODE_ERROR, ILLEGAL_PARAMETER)

    def test_tls_1_1_1_0_and_ssl_3(self) -> None:
        for version in (0x0302, 0x0301, 0x0300):
            self.refused(hello(version), PROTOCOL_VERSION)

    def test_static_rsa_anonymous_null_export_rc4_and_3des(self) -> None:
        for suite in (0x009D, 0x002F, 0x00A7, 0x0034, 0x0001, 0x0003, 0x0005, 0x000A):
            self.refused(hello(suites=(suite,)), HANDSHAKE_FAILURE)

    def test_a_fallback_is_noticed(self) -> None:
        """TLS_FALLBACK_SCSV: a client that knows TLS 1.3 was made to try TLS 1.2."""
        inappropriate_fallback = 86
        self.refused(hello(suites=(0xC030, 0x5600)), inappropriate_fallback)

    def test_what_is_no_hello(self) -> None:
        sslv2 = bytes.fromhex("802e 01 0002 0015 0000 0010") + bytes(44)
        for request in (b"GET / HTTP/1.0\r\n\r\n", sslv2, bytes(64), b"\x16\x03\x01\xff\xff"):
            received = answer(request + b"\0" * 64)
            self.assertIn(received[:1], (b"", bytes([ALERT])))


class ContextCase(SynchronousTestCase):
    """Contexts and clients in memory."""

    def setUp(self) -> None:
        self.files = Files(self.mktemp())

    def made(self, kind: Kind = "ecdsa", **settings: object) -> ServerContext:
        """A context with a certificate of that kind, and settings."""
        own = certificate(kind)
        pair = {"ssl_cert_file": own.chain(), "ssl_key_file": own.key.pem()}
        return server_context(ServerTLSSettings(**(pair | settings)))  # type: ignore[arg-type]

    def mistakes(self, **settings: object) -> str:
        error = self.assertRaises(ConfigurationError, self.made, **settings)
        return "\n".join(error.mistakes)

    def connect(self, made: ServerContext, client: SSL.Context | None = None) -> Pair:
        pair = handshake(made.context, client)
        self.assertEqual((pair.server_error, pair.client_error), (None, None))
        return pair


class KeyExchange(ContextCase):
    """Groups, parameters, versions, suites."""

    def test_post_quantum_by_default(self) -> None:
        facts = describe(self.connect(self.made()).server)
        self.assertEqual((facts.version, facts.group), ("TLSv1.3", "X25519MLKEM768"))

    def test_ssl_groups(self) -> None:
        made = self.made(ssl_groups="secp384r1:prime256v1")
        self.assertEqual(describe(self.connect(made).server).group, "secp384r1")

    def test_an_unknown_group(self) -> None:
        self.assertIn('no group "nonsense"', self.mistakes(ssl_groups="nonsense:X25519"))

    def test_ffdhe3072_is_built_in(self) -> None:
        flight = server_flight(self.made("rsa").context, without_ffdhe())
        self.assertIn(FFDHE3072.to_bytes(384), flight)

    def test_ssl_dh_params_file(self) -> None:
        made = self.made("rsa", ssl_dh_params_file=self.files.write("dh.pem", pem(FFDHE2048, 2)))
        flight = server_flight(made.context, without_ffdhe())
        self.assertIn(FFDHE2048.to_bytes(256), flight)
        self.assertEqual(self.connect(made, without_ffdhe()).client.get_cipher_name(), CIPHER)

    def test_bad_parameters_are_refused(self) -> None:
        path = self.files.write("dh.pem", pem(FFDHE2048 + 2, 2))
        mistakes = self.mistakes(ssl_dh_params_file=path)
        self.assertEqual(
            mistakes, f'ssl_dh_params_file: invalid DH parameters in "{path}": p is not prime'
        )

    def test_the_lower_bound(self) -> None:
        pair = handshake(
            self.made(ssl_min_protocol_version="TLSv1.3").context,
            client_context(version=SSL.TLS1_2_VERSION),
        )
        self.assertEqual(pair.client_error, "tlsv1 alert protocol version")

    def test_the_upper_bound(self) -> None:
        made = self.made(ssl_max_protocol_version="TLSv1.2")
        facts = describe(self.connect(made).server)
        self.assertEqual((facts.version, facts.forward_secret), ("TLSv1.2", True))

    def test_bounds_that_are_none(self) -> None:
        self.assertIn("must be one of", self.mistakes(ssl_min_protocol_version="TLSv9"))
        self.assertIn(
            "ssl_min_protocol_version is higher than ssl_max_protocol_version",
            self.mistakes(ssl_min_protocol_version="TLSv1.3", ssl_max_protocol_version="TLSv1.2"),
        )

    def test_whose_order_counts(self) -> None:
        preferred = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
        client = client_context(
            version=SSL.TLS1_2_VERSION,
            ciphers="ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
        )
        for ours, used in ((True, "AES128"), (False, "AES256")):
            made = self.made(ssl_ciphers=preferred, ssl_prefer_server_ciphers=ours)
            self.assertIn(used, self.connect(made, client).server.get_cipher_name() or "")


class Keys(ContextCase):
    """Certificates and keys of every kind, from files and from memory."""

    def test_every_kind_of_key(self) -> None:
        for kind in ("rsa", "rsa-pss", "ecdsa", "ed25519"):
            pair = self.connect(self.made(kind))
            shown = pair.client.get_peer_certificate(as_cryptography=True)
            self.assertEqual(shown, certificate(kind).certificate)

    def test_dsa_for_who_must(self) -> None:
        suite = "DHE-DSS-AES256-GCM-SHA384"
        made = self.made("dsa", ssl_ciphers=suite)
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers=f"{suite}:@SECLEVEL=0")
        self.assertEqual(self.connect(made, client).client.get_cipher_name(), suite)

    def test_dsa_by_default_is_told_what_it_needs(self) -> None:
        self.assertIn("name them in ssl_ciphers", self.mistakes(kind="dsa"))

    def test_files(self) -> None:
        crt, key = self.files.pair("server", certificate("rsa"))
        made = self.made(ssl_cert_file=crt, ssl_key_file=key)
        self.assertEqual(made.certificates, [certificate("rsa").shown])
        self.connect(made)

    def test_objects(self) -> None:
        own = certificate("ecdsa")
        self.connect(self.made(ssl_cert_file=own.certificate, ssl_key_file=own.key.private))

    def test_two_from_memory(self) -> None:
        both = certificate("rsa"), certificate("ed25519")
        made = self.made(
            ssl_cert_file=[each.chain() for each in both],
            ssl_key_file=[each.key.pem() for each in both],
        )
        self.assertEqual(made.certificates, [each.shown for each in both])

    def test_a_key_of_another_certificate(self) -> None:
        stranger = Key.generate("ecdsa").pem()
        self.assertIn("does not match", self.mistakes(ssl_key_file=stranger))

    def test_more_keys_than_certificates(self) -> None:
        self.assertIn("as many", self.mistakes(ssl_key_file="a.key,b.key"))

    def test_all_mistakes_at_once(self) -> None:
        wrong = {
            "ssl_min_protocol_version": "x",
            "ssl_ciphers": "x",
            "ssl_tls13_ciphers": "x",
            "ssl_groups": "x",
            "ssl_dh_params_file": "/nonexistent/x",
            "ssl_key_file": "/nonexistent/x",
            "ssl_ca_file": "/nonexistent/x",
            "ssl_crl_dir": "/nonexistent/x",
            "ssl_keylog_file": "/nonexistent/x",
        }
        mistakes = self.mistakes(**wrong).splitlines()
        for setting, mistake in zip(wrong, mistakes, strict=True):
            self.assertIn(setting, mistake)


class Passphrases(ContextCase):
    """``ssl_passphrase_command``."""

    def encrypted(self, command: str) -> dict[str, str]:
        crt, key = self.files.pair("server", certificate("rsa"), "s3cret word")
        return {"ssl_cert_file": crt, "ssl_key_file": key, "ssl_passphrase_command": command}

    def test_what_it_prints_is_the_passphrase(self) -> None:
        self.connect(self.made(**self.encrypted("echo 's3cret word'")))

    def test_it_gets_a_prompt(self) -> None:
        asked = str(Path(self.mktemp()).absolute())
        settings = self.encrypted(f"echo %p > {asked}; echo 's3cret word'")
        self.made(**settings)
        prompt = f"Enter PEM pass phrase for {settings['ssl_key_file']}:"
        self.assertEqual(Path(asked).read_text().strip(), prompt)

    def test_a_wrong_one(self) -> None:
        mistakes = self.mistakes(**self.encrypted("echo sesame"))
        self.assertIn("bad decrypt", mistakes)
        self.assertNotIn("sesame", mistakes)

    def test_a_command_that_fails(self) -> None:
        self.assertIn("ssl_passphrase_command failed", self.mistakes(**self.encrypted("exit 3")))

    def test_none(self) -> None:
        self.assertIn("set ssl_passphrase_command", self.mistakes(**self.encrypted("")))

    def test_a_key_that_is_not_encrypted_asks_nobody(self) -> None:
        self.connect(self.made(ssl_passphrase_command="exit 3"))


class ClientCertificates(ContextCase):
    """``ssl_ca_file`` and CRLs, in files and in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.clients = Authority("clients")
        self.bob = self.clients.issue(cn="bob", client=True)

    def client(self, issued: Issued) -> SSL.Context:
        context = client_context()
        use_key_pair(context, issued.chain(), issued.key.openssl())
        return context

    def test_one_is_asked_for_with_the_names_of_the_authorities(self) -> None:
        pair = self.connect(self.made(ssl_ca_file=self.clients.pem()))
        self.assertEqual([each.CN for each in pair.client.get_client_ca_list()], ["clients"])

    def test_none_is_asked_for_without_an_authority(self) -> None:
        pair = self.connect(self.made(), self.client(self.bob))
        self.assertIsNone(describe(pair.server).peer_certificate)

    def test_in_every_form(self) -> None:
        certificate = self.clients.issued.certificate
        for root in (
            self.files.write("root.crt", self.clients.pem()),
            self.clients.pem(),
            certificate,
            [Authority("others").pem(), certificate],
        ):
            pair = self.connect(self.made(ssl_ca_file=root), self.client(self.bob))
            self.assertEqual(describe(pair.server).peer_certificate, self.bob.certificate)

    def test_revoked_in_every_form(self) -> None:
        crl = self.clients.crl([self.bob])
        for form in (
            {"ssl_crl_file": self.files.write("root.crl", crl)},
            {"ssl_crl_dir": self.files.crl_dir("crls", [(self.clients, crl)])},
            {"ssl_crl_file": crl},
            {"ssl_crl_file": x509.load_pem_x509_crl(crl)},
        ):
            made = self.made(ssl_ca_file=self.clients.pem(), **form)
            pair = handshake(made.context, self.client(self.bob))
            failure = failure_of(pair.server)
            self.assertEqual(failure and failure.reason, "certificate revoked")
            self.connect(made, self.client(self.clients.issue(cn="alice", client=True)))

    def test_a_crl_that_cannot_be_read(self) -> None:
        for setting in ("ssl_crl_file", "ssl_crl_dir"):
            mistakes = self.mistakes(ssl_ca_file=self.clients.pem(), **{setting: "/nonexistent"})
            self.assertIn(f'{setting}: could not load CRLs from "/nonexistent"', mistakes)

    def test_an_empty_list_of_authorities_is_a_mistake(self) -> None:
        self.assertIn("ssl_ca_file: there is no root certificate", self.mistakes(ssl_ca_file=[]))

    def test_crls_need_an_authority(self) -> None:
        self.assertIn("need ssl_ca_file", self.mistakes(ssl_crl_file=self.clients.crl()))

    def test_without_a_crl_of_the_issuer_nobody_gets_in(self) -> None:
        made = self.made(ssl_ca_file=self.clients.pem(), ssl_crl_file=Authority("others").crl())
        failure = failure_of(handshake(made.context, self.client(self.bob)).server)
        self.assertEqual(failure and failure.reason, "unable to get certificate CRL")


class Warnings(ContextCase):
    """What an operator reads at the start."""

    def test_nothing_by_default(self) -> None:
        clients = Authority("clients")
        made = self.made(ssl_ca_file=clients.pem(), ssl_crl_file=clients.crl())
        self.assertEqual(made.warnings, [])

    def test_weak_suites(self) -> None:
        (warning,) = self.made("rsa", ssl_ciphers="ECDHE+AESGCM:AES128-GCM-SHA256").warnings
        self.assertRegex(warning, "without forward secrecy or encryption: AES128-GCM-SHA256$")

    def test_a_key_log(self) -> None:
        path = self.mktemp()
        (warning,) = self.made(ssl_keylog_file=path).warnings
        self.assertIn(f'"{path}": whoever has it can decrypt them', warning)

    def test_crls_that_have_ended_or_soon_will(self) -> None:
        clients = Authority("clients")
        for end in (days(-1), days(3)):
            crl = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(clients.issued.certificate.subject)
                .last_update(end - timedelta(days=30))
                .next_update(end)
                .sign(**clients.issued.key.signing())
            )
            made = self.made(ssl_ca_file=clients.pem(), ssl_crl_file=crl)
            (warning,) = warnings(made.validities, EXPIRY_WARNING)
            verb = "expires" if end > days(0) else "has expired"
            self.assertIn(f"the CRL of CN=clients {verb} at {end:%Y-%m-%d %H:%M}", warning)

    def test_they_are_in_the_log(self) -> None:
        gateway = Gateway(
            *("--upstream", f"host={HOST} port={free_port()} sslmode=disable"),
            *("--ssl-ciphers", "HIGH:MEDIUM:+3DES:!aNULL"),
        )
        self.addCleanup(gateway.remove)
        gateway.wait_for_log(r"pgtls\.server#warn\] ssl_ciphers has suites without forward")

    def test_so_is_an_upstream_that_is_not_there(self) -> None:
        line = r"pgtls\.gateway#warn\] .*: gateway [12]: upstream: .*Connection refused.*"
        found = daemon().wait_for_log(line, 2)
        self.assertTrue(all(re.search("until that changes clients are refused", x) for x in found))
