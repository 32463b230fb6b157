"""A check of the upstreams when a gateway starts: can they be reached, do they show the
certificates that they should, does SCRAM work?

One connection each, TLS included where the connection string has it, and no StartupMessage: the
servers log nothing of it. What is found goes to the log; nothing waits for it, and nothing fails by
it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.conninfo.connection_string import Host
from pgtls.gateway.channel_binding_check import ChannelBinding
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.parameters_without_effect import warn_of_parameters_without_effect
from pgtls.gateway.route_upstream import upstream_name
from pgtls.protocols.connection_info import negotiated_tls
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.certificate import Certificate
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.dial import OneProtocol
from pgtls.transport.relay_transport import IStreamTransport

_log = Logger(namespace="pgtls.gateway")

#: Seconds that the check may take.
TIMEOUT = 60.0

#: Servers that are looked at at a time.
AT_ONCE = 10


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


@attrs.frozen
class _Looks:
    """How servers are looked at: see :func:`check_upstreams`."""

    shown: Sequence[Certificate]
    binding: ChannelBinding
    clock: IReactorTime
    noted: Callable[[str, Host, Certificate], None]
    location: str
    quiet: bool

    async def in_turn(self, upstreams: Iterator[tuple[str, PgTLSClientEndpoint]]) -> None:
        """Look at those that nobody has taken yet."""
        for route, endpoint in upstreams:
            note = partial(self.noted, route)
            check = _check(endpoint, self.shown, self.binding, note)
            checking = Deferred.fromCoroutine(check).addTimeout(TIMEOUT, self.clock)
            name = upstream_name(self.location, route)
            try:
                tls, reached = await checking
            except CancelledError:
                return
            except Exception as error:
                if not self.quiet:
                    _failed(name, error)
            else:
                if not self.quiet:
                    _found(name, tls)
                await _note_others(endpoint, reached, note, self.clock)


def check_upstreams(
    loaded: LoadedGateway,
    shown: Sequence[Certificate],
    binding: ChannelBinding,
    clock: IReactorTime,
    noted: Callable[[str, Host, Certificate], None],
    *,
    quiet: bool = False,
) -> Deferred[None]:
    r"""Connect to a gateway's servers once, and log the outcome. Those of routes with ``\1`` are
    not known before a client comes.

    :param loaded: the gateway's configuration, all files read.
    :param shown: the certificates that the gateway shows its clients; none without TLS.
    :param binding: compares the certificates.
    :param clock: for the time limit.
    :param noted: is told the certificate of each server: the route's name, empty for the gateway's
        own upstream; which of its hosts it was; the certificate.
    :param quiet: do not log the outcome: this is not the first time.
    :returns: fires when it is done; never fails. Cancelling it ends the check.
    """
    location = loaded.configuration.location
    if not quiet:
        warn_of_parameters_without_effect(loaded)
    upstreams = _known_upstreams(loaded)
    looks = _Looks(shown, binding, clock, noted, location, quiet)
    waiting = iter(upstreams)
    turns = [
        Deferred.fromCoroutine(looks.in_turn(waiting)) for _ in range(min(AT_ONCE, len(upstreams)))
    ]
    return DeferredList(turns).addCallback(lambda _: None)


def _known_upstreams(loaded: LoadedGateway) -> list[tuple[str, PgTLSClientEndpoint]]:
    """The gateway's own upstream and those of routes, each with its route's name."""
    own = [("", loaded.upstream)] if loaded.upstream is not None else []
    return own + [
        (str(number), route.upstream.endpoint)
        for number, route in enumerate(loaded.routes, 1)
        if not route.upstream.takes_label
    ]


async def reach(upstream: PgTLSClientEndpoint) -> tuple[Host | None, NegotiatedTLS | None]:
    """Connect to a server, TLS included where the connection string has it, and close.

    :param upstream: connects to it.
    :returns: the host that was reached, and what was negotiated, None in plaintext. It raises what
        the connect fails with.
    """
    check, reached = await _connected(upstream)
    return reached, check.tls


async def _connected(upstream: PgTLSClientEndpoint) -> tuple[_Check, Host | None]:
    check = _Check()
    session = upstream.for_session(any_session=upstream.conninfo.user is None)
    await session.connect(OneProtocol.forProtocol(lambda: check))
    return check, session.reached


async def _check(
    upstream: PgTLSClientEndpoint,
    shown: Sequence[Certificate],
    binding: ChannelBinding,
    noted: Callable[[Host, Certificate], None],
) -> tuple[NegotiatedTLS | None, Host | None]:
    check, reached = await _connected(upstream)
    tls = check.tls
    if tls is not None and tls.certificate is not None:
        for each in shown:
            binding.compare(each, tls.certificate)
        if reached is not None:
            noted(reached, tls.certificate)
    await check.gone
    return tls, reached


async def _note_others(
    upstream: PgTLSClientEndpoint,
    reached: Host | None,
    noted: Callable[[Host, Certificate], None],
    clock: IReactorTime,
) -> None:
    """An upstream's other hosts, which sessions come to some other time, show certificates too.
    That one of them cannot be reached is nothing to warn of."""
    for host in upstream.conninfo.hosts:
        if reached is None or host.unix_path is not None or host.place == reached.place:
            continue
        session = upstream.for_session(host, any_session=True)
        check = Deferred.fromCoroutine(_check(session, (), ChannelBinding(), noted))
        with contextlib.suppress(Exception):
            await check.addTimeout(TIMEOUT, clock)


def _found(name: str, tls: NegotiatedTLS | None) -> None:
    if tls is None:
        _log.info("{upstream}: reached, in plaintext", upstream=name)
        return
    certificate = tls.certificate
    _log.info(
        "{upstream}: reached, SSL={version} cipher={cipher} group={group} certificate={sha256}",
        upstream=name,
        version=tls.version,
        cipher=tls.cipher,
        group=tls.group,
        sha256=certificate.fingerprint if certificate is not None else None,
    )


def _failed(name: str, reason: Exception) -> None:
    error = "timeout expired" if isinstance(reason, DeferredTimeout) else reason
    _log.warn(
        "{upstream}: {error}; until that changes clients are refused", upstream=name, error=error
    )
