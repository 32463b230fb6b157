"""The status at work: its port, its look at the upstreams, its samples."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic, perf_counter
from typing import Protocol, cast

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from pgtls.protocols.connection_info import listener_text
from pgtls.protocols.server_tls import ServerTLS
from pgtls.status.activity_sum import ActivitySum
from pgtls.status.bounded_site import BoundedFactory, QuietSite
from pgtls.status.counted import Counted
from pgtls.status.daemon_view import DaemonView
from pgtls.status.document_maker import DocumentMaker
from pgtls.status.history import INTERVAL, Samples
from pgtls.status.status_document import MOST_SESSIONS, StatusDocument
from pgtls.status.status_page import MOST_ROWS, asset, page
from pgtls.status.status_resource import (
    CSS,
    HTML,
    SCRIPT,
    SVG,
    Answer,
    StatusResource,
    json_answer,
    metrics_answer,
    ready_answer,
)
from pgtls.status.status_tls import StatusTLS
from pgtls.status.upstream_watch import UpstreamWatch
from pgtls.transport.listening_sockets import is_unix_socket, server_endpoint
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.status")

#: Seconds of work at a time on a page, before sessions have their turn.
_SLICE = 0.001


class StatusService:
    """Serves the status of a daemon.

    :param reactor: Twisted's reactor.
    :param daemon: what it is the status of.
    :param registry: where the counters are.
    :param description: the setting ``status``, which has been checked.
    :param tls: gives the TLS of the first gateway; None for HTTP without TLS.
    """

    def __init__(
        self,
        reactor: IReactor,
        daemon: DaemonView,
        registry: CollectorRegistry,
        description: str,
        tls: Callable[[], ServerTLS | None] | None,
    ) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._registry = registry
        self._description = description
        self._scheme = "http" if tls is None else "https"
        self._watch = UpstreamWatch(reactor, lambda: daemon.gateways)
        self._maker = DocumentMaker(daemon, self._watch)
        self._activity = ActivitySum()
        self._samples = Samples()
        self._sampling = LoopingCall(self._sample)
        self._sampling.clock = reactor
        resource = StatusResource(
            {
                "/metrics": self._metrics,
                "/healthz": lambda: Answer("ok\n"),
                "/readyz": lambda: ready_answer(self._maker.problems()),
                "/status.json": self._json,
                "/": self._page,
                "/status.css": lambda: Answer(asset("status.css"), CSS),
                "/status.js": lambda: Answer(asset("status.js"), SCRIPT),
                "/status.svg": lambda: Answer(asset("status.svg"), SVG),
            },
            any_host=tls is not None or is_unix_socket(description),
        )
        site = QuietSite(resource)
        self._factory = BoundedFactory(
            site if tls is None else TLSMemoryBIOFactory(StatusTLS(tls), False, site), reactor
        )
        self._port: IListeningPort | None = None

    def open_port(self) -> Deferred[None]:
        """Open the port.

        :returns: fires when it is open, and fails with what the endpoint says.
        """
        endpoint = server_endpoint(self._reactor, self._description)
        return maybeDeferred(endpoint.listen, self._factory).addCallback(self._opened)

    def _opened(self, port: IListeningPort) -> None:
        self._port = port
        self._factory.pause = partial(_pause, self._reactor, port)

    @property
    def address(self) -> str:
        """Where it is, once its port is open: its URL, or a Unix socket."""
        if self._port is None:
            return ""
        place = listener_text(self._port.getHost())
        return place if place.startswith("unix:") else f"{self._scheme}://{place}/"

    def start(self) -> None:
        """Look at the upstreams from now on, and take samples."""
        self._watch.start()
        self._sampling.start(INTERVAL).addErrback(
            lambda failure: _log.failure("the status takes no more samples", failure)
        )

    def stop(self) -> Deferred[None]:
        """Close the port and all connections.

        :returns: fires when that is done.
        """
        self._watch.stop()
        if self._sampling.running:
            self._sampling.stop()
        port, self._port = self._port, None
        self._factory.close_all()
        return (port.stopListening() if port is not None else None) or succeed(None)

    async def _update(self, most: int) -> Counted:
        """Find out what all processes know now.

        :param most: how many sessions each may list.
        """
        answers = await self._daemon.activities(most)
        self._activity.update(answers, self._daemon.processes())
        return Counted(self._registry)

    async def _document(self, most: int) -> tuple[StatusDocument, Counted]:
        counted = await self._update(most)
        history = self._samples.history()
        return self._maker.document(self._activity, counted, history), counted

    def _sample(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._take_sample()).addErrback(_not_sampled)

    async def _take_sample(self) -> None:
        counted = await self._update(0)
        open_sessions = sum(self._activity.open.values())
        self._samples.add(monotonic(), open_sessions, counted.totals())

    def _metrics(self) -> Deferred[Answer]:
        async def answer() -> Answer:
            document, counted = await self._document(0)
            return metrics_answer(document, counted.families)

        return Deferred.fromCoroutine(answer())

    def _json(self) -> Deferred[Answer]:
        async def answer() -> Answer:
            return json_answer((await self._document(MOST_SESSIONS))[0])

        return Deferred.fromCoroutine(answer())

    def _page(self) -> Deferred[Answer]:
        async def answer() -> Answer:
            document, _ = await self._document(MOST_ROWS)
            pieces, end = [], perf_counter() + _SLICE
            for piece in page(document):
                pieces.append(piece)
                if perf_counter() > end:
                    self._factory.worked(_SLICE)
                    await deferLater(self._reactor, 0)
                    end = perf_counter() + _SLICE
            return Answer("".join(pieces), HTML)

        return Deferred.fromCoroutine(answer())


def _pause(reactor: IReactor, port: IListeningPort, seconds: float) -> None:
    """Accept nothing for a while; who comes meanwhile waits."""
    waiting = cast(_PausablePort, port)

    def go_on() -> None:
        if waiting.connected:
            waiting.startReading()

    waiting.stopReading()
    reactor.callLater(seconds, go_on)


class _PausablePort(Protocol):
    """A port of Twisted's."""

    connected: bool

    def startReading(self) -> None: ...
    def stopReading(self) -> None: ...


def _not_sampled(failure: Failure) -> None:
    _log.failure("no sample of the status", failure)
