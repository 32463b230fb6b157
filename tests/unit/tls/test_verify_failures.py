"""Why verification failed, as a log wants it."""

from __future__ import annotations

import gc

from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls import verify_failures
from pgtls.tls.openssl import use_key_pair
from pgtls.tls.verify_failures import VerifyFailure, failure_of, note_failure
from tests.support.certificates import Authority, Issued, days
from tests.support.in_memory import Pair, client_context, handshake, server_context


class VerifyFailureTests(SynchronousTestCase):
    """A server that asks for certificates."""

    def setUp(self) -> None:
        self.authority = Authority("clients")

    def connect(self, issued: Issued | None) -> Pair:
        server = server_context()
        store = server.get_cert_store()
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(self.authority.issued.certificate))
        server.set_verify(SSL.VERIFY_PEER, note_failure)
        client = client_context()
        if issued:
            use_key_pair(client, issued.chain(), issued.key.openssl())
        return handshake(server, client)

    def failure(self, issued: Issued) -> VerifyFailure:
        failure = failure_of(self.connect(issued).server)
        assert failure is not None
        return failure

    def test_a_good_certificate(self) -> None:
        pair = self.connect(self.authority.issue(cn="bob", client=True))
        self.assertIsNone(pair.server_error)
        self.assertIsNone(failure_of(pair.server))

    def test_no_certificate(self) -> None:
        pair = self.connect(None)
        self.assertIsNone(pair.server_error)
        self.assertIsNone(failure_of(pair.server))

    def test_an_expired_certificate(self) -> None:
        issued = self.authority.issue(
            cn="bob", client=True, not_before=days(-9), not_after=days(-2)
        )
        self.assertEqual(self.connect(issued).server_error, "certificate verify failed")
        failure = self.failure(issued)
        self.assertEqual(
            (failure.depth, failure.reason, failure.subject, failure.issuer),
            (0, "certificate has expired", "/CN=bob", "/CN=clients"),
        )
        self.assertEqual(int(failure.serial, 16), issued.certificate.serial_number)

    def test_the_depth_is_that_of_the_certificate_at_fault(self) -> None:
        between = self.authority.intermediate("between", not_before=days(-9), not_after=days(-2))
        failure = self.failure(between.issue(cn="bob", client=True))
        self.assertEqual((failure.depth, failure.subject), (1, "/CN=between"))

    def test_an_unknown_authority(self) -> None:
        failure = self.failure(Authority("strangers").issue(cn="bob", client=True))
        self.assertEqual(failure.reason, "unable to get local issuer certificate")

    def test_as_one_line(self) -> None:
        line = str(VerifyFailure(0, "certificate revoked", "/CN=bob", "0ABC", "/CN=clients"))
        self.assertEqual(
            line,
            "Client certificate verification failed at depth 0: certificate revoked. Failed "
            'certificate data (unverified): subject "/CN=bob", serial number 2748, issuer '
            '"/CN=clients".',
        )

    def test_names_are_escaped_and_cut(self) -> None:
        issued = Authority("strangers").issue(cn="\x1b[31m\nbob\u00e9" + "x" * 200, client=True)
        subject = self.failure(issued).subject
        self.assertTrue(subject.isascii() and subject.isprintable())
        self.assertEqual(len(subject), 71)

    def test_nothing_is_kept_of_connections_that_are_gone(self) -> None:
        self.failure(Authority("strangers").issue(cn="bob", client=True))
        gc.collect()
        self.assertEqual(len(verify_failures._failures), 0)
