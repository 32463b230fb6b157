"""Tests of other modules, once more on Twisted's own transports."""

from __future__ import annotations

from tests.daemon import test_gateway, test_gateway_clients, test_gateway_limits
from tests.integration import (
    test_fake_servers,
    test_negotiation_table,
    test_parity,
    test_ssl_suite_client,
)
from tests.support.transports import OnTwistedsTransports

# The gateway -------------------------------------------------------------------------------------


class Upstreams(OnTwistedsTransports, test_gateway.Upstreams):
    pass


class UpstreamRefuses(OnTwistedsTransports, test_gateway.UpstreamRefuses):
    pass


class VerifyFull(OnTwistedsTransports, test_gateway_clients.VerifyFull):
    pass


class BackPressure(OnTwistedsTransports, test_gateway_clients.BackPressure):
    pass


class Cancel(OnTwistedsTransports, test_gateway_clients.Cancel):
    pass


class CancelByHand(OnTwistedsTransports, test_gateway_clients.CancelByHand):
    pass


class AuthenticationTimeout(OnTwistedsTransports, test_gateway_limits.AuthenticationTimeout):
    pass


# The server's rules, and the same bytes to PostgreSQL --------------------------------------------


class SSLRequest(OnTwistedsTransports, test_parity.SSLRequestTests):
    pass


class GSSENCRequest(OnTwistedsTransports, test_parity.GSSENCRequestTests):
    pass


class DirectTLS(OnTwistedsTransports, test_parity.DirectTLSTests):
    pass


class StartupMessage(OnTwistedsTransports, test_parity.StartupMessageTests):
    pass


class CancelRequest(OnTwistedsTransports, test_parity.CancelRequestTests):
    pass


class BrokenPacket(OnTwistedsTransports, test_parity.BrokenPacketTests):
    pass


class Require(OnTwistedsTransports, test_parity.RequireTests):
    pass


class Difference(OnTwistedsTransports, test_parity.DifferenceTests):
    pass


# The client's rules, and the same answers to libpq -----------------------------------------------


class AnswerE(OnTwistedsTransports, test_fake_servers.AnswerETests):
    pass


class AnswerN(OnTwistedsTransports, test_fake_servers.AnswerNTests):
    pass


class OtherAnswer(OnTwistedsTransports, test_fake_servers.OtherAnswerTests):
    pass


class AnswerS(OnTwistedsTransports, test_fake_servers.AnswerSTests):
    pass


class Direct(OnTwistedsTransports, test_fake_servers.DirectTests):
    pass


class ErrorResponse(OnTwistedsTransports, test_fake_servers.ErrorResponseTests):
    pass


class FirstAnswer(OnTwistedsTransports, test_fake_servers.FirstAnswerTests):
    pass


class AfterAuthentication(OnTwistedsTransports, test_fake_servers.AfterAuthenticationTests):
    pass


class ByteByByte(OnTwistedsTransports, test_fake_servers.ByteByByteTests):
    pass


# Both of ours, and PostgreSQL's tables -----------------------------------------------------------


class TableOfPostgreSQL(OnTwistedsTransports, test_negotiation_table.ServerTests):
    pass


class TableOfTheGateway(OnTwistedsTransports, test_negotiation_table.GatewayTests):
    pass


class SSLSuite(OnTwistedsTransports, test_ssl_suite_client.Client):
    pass
