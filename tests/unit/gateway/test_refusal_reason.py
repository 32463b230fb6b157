"""Why clients were refused, in words that can be counted."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ConnectFailed, NegotiationRefused
from pgtls.gateway.refusal_reason import REASONS, reason_of
from pgtls.gateway.response_for_client import response_for_client
from pgtls.policy.client_identity import ClientCert, ClientName, ClientNotVerified, check_client
from pgtls.policy.hba_rules import ConnectionRequest, refusal
from pgtls.protocols.deciding import AUTHENTICATION_TIMEOUT, INTERNAL_ERROR
from pgtls.protocols.places import SHUTTING_DOWN, TOO_MANY_CLIENTS
from pgtls.protocols.stages import Refused, Stage
from pgtls.wire.messages import ErrorResponse, StartupMessage
from pgtls.wire.server_negotiation import SSL, CancelPolicy, Close, ServerNegotiation, ServerPolicy

STARTUP = StartupMessage.build({b"user": b"alice"}).raw


def negotiation(*sent: bytes, ssl: SSL = SSL.REQUIRE, ended: str = "") -> str:
    """The reason of a negotiation that ends when all of it has been sent, or as named."""
    negotiating = ServerNegotiation(ServerPolicy(ssl, CancelPolicy.TLS, ssl is not SSL.OFF))
    actions = [action for data in sent for action in negotiating.receive(data)]
    if ended:
        actions += getattr(negotiating, ended)()
    (close,) = (action for action in actions if isinstance(action, Close))
    assert close.reason is not None
    return reason_of(Refused(Stage.NEGOTIATION, None, close.reason, close.response))


def told(stage: Stage, response: ErrorResponse) -> str:
    return reason_of(Refused(stage, None, response.message, response))


class ReasonTests(SynchronousTestCase):
    """Each reason from where it comes from."""

    def test_the_negotiation(self) -> None:
        self.assertEqual(negotiation(STARTUP), "plaintext refused")
        self.assertEqual(negotiation(STARTUP[:5], ended="eof"), "protocol violation")
        self.assertEqual(negotiation(STARTUP[:5], ended="timed_out"), "timeout")
        self.assertEqual(negotiation(b"GET / HTTP/1.1\r\n\r\n"), "protocol violation")
        self.assertEqual(negotiation(b"\x16\x03\x01", ssl=SSL.OFF), "protocol violation")
        cancel = b"\0\0\0\x10\x04\xd2\x16\x2e" + 8 * b"k"
        self.assertEqual(negotiation(cancel), "cancel request refused")
        version_2 = (296).to_bytes(4) + (0x20000).to_bytes(4) + bytes(288)
        self.assertEqual(negotiation(version_2), "unsupported protocol")

    def test_places(self) -> None:
        self.assertEqual(told(Stage.NEGOTIATION, TOO_MANY_CLIENTS), "too many clients")
        self.assertEqual(told(Stage.NEGOTIATION, SHUTTING_DOWN), "shutting down")

    def test_a_direct_handshake_that_there_is_no_place_for(self) -> None:
        refused = Refused(Stage.NEGOTIATION, None, TOO_MANY_CLIENTS.message)
        self.assertEqual(reason_of(refused), "too many clients")

    def test_the_policy(self) -> None:
        self.assertEqual(told(Stage.POLICY, AUTHENTICATION_TIMEOUT), "timeout")
        self.assertEqual(told(Stage.POLICY, INTERNAL_ERROR), "internal error")
        request = ConnectionRequest(None, False, b"shop", b"alice", False)
        no_entry = refusal(request, None)
        assert no_entry is not None
        self.assertEqual(told(Stage.POLICY, no_entry), "no pg_hba.conf entry")

    def test_a_client_certificate(self) -> None:
        error = self.assertRaises(
            ClientNotVerified,
            check_client,
            None,
            b"alice",
            clientcert=ClientCert.VERIFY_FULL,
            clientname=ClientName.CN,
            ident_map=None,
            map_name=None,
        )
        self.assertEqual(told(Stage.POLICY, error.response), "client certificate")

    def test_the_upstream(self) -> None:
        unreachable = response_for_client(ConnectFailed("Connection refused"))
        self.assertEqual(told(Stage.UPSTREAM, unreachable), "upstream not reachable")
        insecure = response_for_client(NegotiationRefused("server does not support SSL"))
        self.assertEqual(told(Stage.UPSTREAM, insecure), "upstream not secure")

    def test_what_the_server_says_is_the_servers(self) -> None:
        body = b"SFATAL\0C53300\0Msorry, too many clients already\0\0"
        response = ErrorResponse.parse(body, b"E" + (4 + len(body)).to_bytes(4) + body)
        self.assertEqual(told(Stage.UPSTREAM, response), "refused by the server")

    def test_what_a_client_chooses_makes_no_other_reason(self) -> None:
        for text in ("x", "certificate", "no route for", "GET / HTTP", ""):
            for stage in Stage:
                for response in (None, ErrorResponse.fatal("XYZ12", text)):
                    self.assertIn(reason_of(Refused(stage, None, text, response)), REASONS)
