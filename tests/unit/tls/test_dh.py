"""Ephemeral Diffie-Hellman: the built-in parameters, and ``ssl_dh_params_file``."""

from __future__ import annotations

import base64
import contextlib
import ssl
import textwrap
from decimal import Decimal, localcontext
from importlib.resources import files

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConfigurationError
from pgtls.tls.dh import load_builtin_dh_params, load_dh_params
from pgtls.tls.groups import set_groups
from tests.support.certificates import Authority, Files, _sequence, _tagged
from tests.support.in_memory import (
    client_context,
    handshake,
    handshake_with_python,
    python_client,
    server_context,
    transfer,
)

CIPHER = "DHE-RSA-AES256-GCM-SHA384"


def ffdhe(bits: int, x: int) -> int:
    """The prime of RFC 7919, appendix A, from its formula."""
    with localcontext() as context:
        context.prec = bits // 3
        e = int(Decimal(1).exp() * 2 ** (bits - 130))
    return 2**bits - 2 ** (bits - 64) + (e + x) * 2**64 - 1


FFDHE2048 = ffdhe(2048, 560316)
FFDHE3072 = ffdhe(3072, 2625351)


def pem(*numbers: int, kind: str = "DH PARAMETERS") -> bytes:
    """Parameters as ``openssl dhparam`` writes them."""
    der = _sequence(
        b"".join(_tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1)) for number in numbers)
    )
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""]).encode()


def rsa_server() -> SSL.Context:
    return server_context(Authority("root").issue(["localhost"], key="rsa"))


def without_ffdhe(ciphers: str = CIPHER) -> SSL.Context:
    """A client that does not know RFC 7919, as those before OpenSSL 3."""
    client = client_context(version=SSL.TLS1_2_VERSION, ciphers=ciphers)
    set_groups(client, "X25519:prime256v1")
    return client


def server_flight(server: SSL.Context, client: SSL.Context) -> bytes:
    """What the server sends first: in TLS 1.2 the parameters are in it, in plaintext."""
    accepting, connecting = SSL.Connection(server), SSL.Connection(client)
    accepting.set_accept_state()
    connecting.set_connect_state()
    for connection in (connecting, accepting):
        with contextlib.suppress(SSL.WantReadError):
            connection.do_handshake()
        transfer(connecting, accepting)
    return accepting.bio_read(1 << 16)


class BuiltInTests(SynchronousTestCase):
    """ffdhe3072."""

    def test_the_file_is_the_group_of_rfc_7919(self) -> None:
        self.assertEqual((files("pgtls.tls") / "ffdhe3072.pem").read_bytes(), pem(FFDHE3072, 2))

    def test_a_client_without_rfc_7919_gets_them(self) -> None:
        server = rsa_server()
        load_builtin_dh_params(server)
        self.assertIn(FFDHE3072.to_bytes(384), server_flight(server, without_ffdhe()))
        pair = handshake(server, without_ffdhe())
        self.assertEqual(pair.client.get_cipher_name(), CIPHER)

    def test_a_client_with_rfc_7919_gets_one_of_its_groups(self) -> None:
        server = rsa_server()
        load_builtin_dh_params(server)
        client = client_context(version=SSL.TLS1_2_VERSION, ciphers=CIPHER)
        pair = handshake(server, client)
        self.assertEqual(pair.client.get_cipher_name(), CIPHER)

    def test_another_openssl_agrees(self) -> None:
        server = rsa_server()
        load_builtin_dh_params(server)
        _, client = handshake_with_python(server, python_client(ssl.TLSVersion.TLSv1_2, CIPHER))
        cipher = client.cipher()
        self.assertEqual(cipher and cipher[0], CIPHER)


class ParametersFileTests(SynchronousTestCase):
    """``ssl_dh_params_file``."""

    def setUp(self) -> None:
        self.files = Files(self.mktemp())

    def refused(self, *content: bytes) -> str:
        """Why a file of that content is refused, without its name."""
        path = self.files.write("dh.pem", *content)
        error = self.assertRaises(ConfigurationError, load_dh_params, rsa_server(), path)
        self.assertIn(f'"{path}"', str(error))
        return str(error).replace(f' in "{path}"', "").replace(f' "{path}"', "")

    def test_its_parameters_are_used(self) -> None:
        server = rsa_server()
        load_dh_params(server, self.files.write("dh.pem", pem(FFDHE2048, 2)))
        self.assertIn(FFDHE2048.to_bytes(256), server_flight(server, without_ffdhe()))

    def test_text_around_them_and_the_x9_42_form_are_fine(self) -> None:
        x9_42 = pem(FFDHE2048, 2, (FFDHE2048 - 1) // 2, kind="X9.42 DH PARAMETERS")
        server = rsa_server()
        load_dh_params(server, self.files.write("dh.pem", b"DH Parameters: (2048 bit)\n", x9_42))
        self.assertIsNone(handshake(server, without_ffdhe()).server_error)

    def test_no_prime(self) -> None:
        product = (2**1279 - 1) * (2**2203 - 1)  # of two primes
        for composite in (FFDHE2048 - 2, FFDHE2048 * 3, 2**2048 - 2, product):
            self.assertEqual(
                self.refused(pem(composite, 2)), "invalid DH parameters: p is not prime"
            )

    def test_too_small(self) -> None:
        self.assertEqual(
            self.refused(pem(2**1279 - 1, 2)),
            "invalid DH parameters: p has 1279 bits; from 2048 to 10000 are accepted",
        )

    def test_too_large(self) -> None:
        self.assertIn("p has 11213 bits", self.refused(pem(2**11213 - 1, 2)))

    def test_nonsense_for_a_prime(self) -> None:
        for number in (0, 1, 4):
            self.assertIn("invalid DH parameters: p has", self.refused(pem(number, 2)))

    def test_generators_that_hide_nothing(self) -> None:
        for generator in (0, 1, FFDHE2048 - 1, FFDHE2048):
            self.assertEqual(
                self.refused(pem(FFDHE2048, generator)),
                "invalid DH parameters: not a suitable generator",
            )

    def test_no_parameters(self) -> None:
        for content in (b"", b"junk", Authority("root").pem()):
            self.assertEqual(
                self.refused(content),
                "could not load DH parameters file: no DH PARAMETERS in PEM in it",
            )

    def test_damaged_parameters(self) -> None:
        whole = pem(FFDHE2048, 2)
        cut = whole.replace(whole.split(b"\n")[3] + b"\n", b"")
        head, tail = b"-----BEGIN DH PARAMETERS-----\n", b"\n-----END DH PARAMETERS-----\n"
        for content in (cut, head + tail, head + b"!!!!" + tail, head + b"MAMCAQ8=" + tail):
            self.assertEqual(
                self.refused(content),
                "could not load DH parameters file: what is in it cannot be decoded",
            )

    def test_no_file(self) -> None:
        error = self.assertRaises(ConfigurationError, load_dh_params, rsa_server(), "missing.pem")
        self.assertEqual(
            str(error),
            'could not open DH parameters file "missing.pem": No such file or directory',
        )

    def test_pem_as_openssl_reads_it(self) -> None:
        """A BEGIN line counts at the start of a line only."""
        good = pem(FFDHE2048, 2)
        for content in (b"#" + good, good.replace(b"\n", b"\r"), good.rstrip(b"\n-")):
            self.assertIn("could not load DH parameters file", self.refused(content))
        server = server_context()
        load_dh_params(
            server, self.files.write("dh.pem", b"# -----BEGIN DH PARAMETERS-----\n", good)
        )

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes_end_in_an_error_of_ours(self, der: bytes) -> None:
        body = base64.b64encode(der)
        self.refused(b"-----BEGIN DH PARAMETERS-----\n" + body + b"\n-----END DH PARAMETERS-----\n")
