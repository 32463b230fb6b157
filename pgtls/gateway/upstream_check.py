"""A check of the upstream when a gateway starts: can it be reached, does it show the certificate
that it should, does SCRAM work?

One connection, TLS included where the connection string has it, and no StartupMessage: the server
logs nothing of it. What is found goes to the log; nothing waits for it, and nothing fails by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import Part
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.protocols.connection_info import negotiated_tls
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.certificate import Certificate
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.relay_transport import IStreamTransport

_log = Logger(namespace="pgtls.gateway")

#: Seconds that the check may take.
TIMEOUT = 60.0


class _Check(Protocol):
    """Notes what was negotiated, and closes.

    :ivar gone: fires when the connection is closed; cancelling it closes it.
    """

    transport: IStreamTransport
    tls: NegotiatedTLS | None = None

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        self.tls = negotiated_tls(self.transport)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.gone.called:
            self.gone.callback(None)


class _Checks(Factory):
    noisy = False


def check_upstream(
    upstream: PgTLSClientEndpoint,
    shown: Sequence[Certificate],
    binding: ChannelBinding,
    clock: IReactorTime,
) -> Deferred[None]:
    """Connect to the upstream once, and log the outcome.

    :param upstream: where to connect.
    :param shown: the certificates that the gateway shows its clients; none without TLS.
    :param binding: compares the certificates.
    :param clock: for the time limit.
    :returns: fires when it is done; never fails. Cancelling it ends the check.
    """
    _warn_of_parameters_without_effect(upstream.conninfo)
    checking = Deferred.fromCoroutine(_check(upstream, shown, binding))
    checking.addTimeout(TIMEOUT, clock)
    return checking.addErrback(_failed)


def _warn_of_parameters_without_effect(conninfo: ConnInfo) -> None:
    """Clients log in themselves, with a StartupMessage of their own."""
    for part, reason in (
        (Part.SESSION, "each client says that in its own StartupMessage"),
        (Part.LOGIN, "each client answers the server itself"),
    ):
        for keyword in conninfo.given_of(part):
            _log.warn(
                'upstream: "{keyword}" has no effect: {reason}', keyword=keyword, reason=reason
            )


async def _check(
    upstream: PgTLSClientEndpoint, shown: Sequence[Certificate], binding: ChannelBinding
) -> None:
    check = _Check()
    await upstream.for_session().connect(_Checks.forProtocol(lambda: check))
    _found(check.tls, shown, binding)
    await check.gone


def _found(
    tls: NegotiatedTLS | None, shown: Sequence[Certificate], binding: ChannelBinding
) -> None:
    if tls is None:
        _log.info("upstream: reached, in plaintext")
        return
    certificate = tls.certificate
    _log.info(
        "upstream: reached, SSL={version} cipher={cipher} group={group} certificate={sha256}",
        version=tls.version,
        cipher=tls.cipher,
        group=tls.group,
        sha256=certificate.fingerprint if certificate is not None else None,
    )
    if certificate is not None:
        for each in shown:
            binding.compare(each, certificate)


def _failed(failure: Failure) -> None:
    if failure.check(CancelledError):
        return
    error = "timeout expired" if failure.check(DeferredTimeout) else failure.value
    _log.warn("upstream: {error}; until that changes clients are refused", error=error)
