"""The daemon: gateways as a Twisted service, checked whole before a port is opened."""

from __future__ import annotations

import os
import resource
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.gateway.announce import announce, say
from pgtls.gateway.embedded import EmbeddedPostgreSQL
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.settings import Configuration, GatewaySettings
from pgtls.gateway.state import DefaultCertificate, default_certificate, state_directory
from pgtls.protocols.admission import Admission
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.poller import dedicate
from pgtls.protocols.server_tls import ServerTLS
from pgtls.wire.conninfo import ConnInfo
from pgtls.wire.errors import ConfigurationError
from pgtls.wire.server import SSL

_log = Logger(namespace="pgtls.gateway")

#: File descriptors that the daemon needs besides those for clients.
_SPARE_FILES = 64


@attrs.frozen
class _Prepared:
    """A gateway whose settings have been checked; what it still lacks is known at the start."""

    settings: GatewaySettings
    tls: ServerTLS | None
    certificate: DefaultCertificate | None
    upstream: ConnInfo | None  # None: the embedded one


class CannotStart(SystemExit, Exception):
    """The end of a daemon that cannot begin: a line for each mistake, without a traceback.

    An Exception as well, since twistd removes its pidfile for nothing else, nor lets the parent of
    a daemon know.
    """

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__("\n".join(f"pgtls: {mistake}" for mistake in error.mistakes))


class GatewayService(Service):
    """Runs the gateways of a configuration.

    Everything is checked when it is made; ports are opened when it is started.

    :raises ConfigurationError: with every mistake.
    """

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        self._reactor = reactor
        self._daemon = configuration.daemon
        self._embedded = (
            EmbeddedPostgreSQL(Path(self._daemon.embedded)) if self._daemon.embedded else None
        )
        self._gateways: list[Gateway] = []
        self._ports: list[IListeningPort] = []
        self._checks: list[Deferred[None]] = []
        self._prepared: list[_Prepared] = []
        mistakes: list[str] = []
        for place, settings in zip(configuration.places, configuration.gateways, strict=True):
            self._prepare(place, settings, mistakes)
        if mistakes:
            raise ConfigurationError(*mistakes)

    def _prepare(self, place: str, settings: GatewaySettings, mistakes: list[str]) -> None:
        """Check one gateway's settings, all of them.

        :param place: where they stand, in front of each mistake.
        """
        steps: dict[str, Any] = {
            "listen": partial(_check_listen, self._reactor, settings.listen),
            "certificate": partial(self._certificate, settings),
            "clients": partial(Admission, settings.listener),
            "upstream": partial(self._upstream, settings),
        }
        made: dict[str, Any] = {}
        for step, make in steps.items():
            try:
                made[step] = make()
            except ConfigurationError as error:
                mistakes.extend(f"{place}{mistake}" for mistake in error.mistakes)
        if len(made) == len(steps):
            tls, certificate = made["certificate"]
            self._prepared.append(_Prepared(settings, tls, certificate, made["upstream"]))

    def _certificate(
        self, settings: GatewaySettings
    ) -> tuple[ServerTLS | None, DefaultCertificate | None]:
        """What the listener shows: what its settings name, else what the daemon made itself."""
        tls = settings.listener.tls
        if settings.listener.ssl is SSL.OFF:
            return None, None
        if tls.ssl_cert_file or tls.ssl_key_file:
            return ServerTLS(tls), None
        made = default_certificate(state_directory(self._daemon.state_dir or None))
        # With its root, so that "pgtls trust" finds there what it is to trust.
        chain = made.server_crt.read_bytes() + made.root_crt.read_bytes()
        tls = attrs.evolve(tls, ssl_cert_file=chain, ssl_key_file=str(made.server_key))
        return ServerTLS(tls), made

    def _upstream(self, settings: GatewaySettings) -> ConnInfo | None:
        if self._embedded is not None and not settings.upstream:
            return None
        try:
            conninfo = ConnInfo.parse(settings.upstream, os.environ)
        except ConfigurationError as error:
            raise ConfigurationError(*(f"upstream: {each}" for each in error.mistakes)) from None
        missing = [h.unix_path for h in conninfo.hosts if _missing_socket(h.unix_path)]
        if not settings.upstream and missing:
            raise ConfigurationError(
                f"no PostgreSQL is at {missing[0]}: name a server with --upstream, "
                "or have one started with --embedded DIR"
            )
        PgTLSClientEndpoint(self._reactor, conninfo).check()
        return conninfo

    def startService(self) -> None:
        """Start the embedded PostgreSQL, open the ports, say how to reach them.

        :raises CannotStart: PostgreSQL does not start, or a port cannot be opened.
        """
        super().startService()  # type: ignore[no-untyped-call]
        dedicate(self._reactor)
        _allow_open_files(sum(p.settings.listener.max_connections for p in self._prepared))
        try:
            embedded = self._embedded.start(say) if self._embedded is not None else ""
            self._open_ports(embedded)
        except ConfigurationError as error:
            raise CannotStart(error) from None

    def _open_ports(self, embedded: str) -> None:
        """:raises ConfigurationError: with every port that cannot be opened."""
        opening = []
        for prepared in self._prepared:
            conninfo = prepared.upstream or ConnInfo.parse(embedded, {})
            upstream = PgTLSClientEndpoint(self._reactor, conninfo)
            gateway = Gateway(self._reactor, prepared.settings, prepared.tls, upstream)
            self._gateways.append(gateway)
            endpoint = serverFromString(self._reactor, prepared.settings.listen)
            opening.append(maybeDeferred(endpoint.listen, gateway.factory))
        listening = DeferredList(opening, consumeErrors=True).addCallback(self._listening)
        failed: list[Failure] = []
        if listening.called:  # as it is with every endpoint of Twisted's own
            listening.addErrback(failed.append)
        for failure in failed:
            failure.raiseException()

    def _listening(self, results: list[tuple[bool, Any]]) -> None:
        """Announce every gateway, or none."""
        self._ports = [port for opened, port in results if opened]
        mistakes = [
            f"{prepared.settings.listen}: {_why_not_opened(failure.value)}"
            for prepared, (opened, failure) in zip(self._prepared, results, strict=True)
            if not opened
        ]
        if mistakes:
            raise ConfigurationError(*mistakes)
        for prepared, gateway, port in zip(
            self._prepared, self._gateways, self._ports, strict=True
        ):
            # Not before signals are handled: who reads that it listens may stop it at once.
            self._reactor.callWhenRunning(
                announce, port.getHost(), prepared.settings, prepared.certificate, self._daemon
            )
            shown = prepared.tls.certificates if prepared.tls else ()
            self._checks.append(gateway.check_upstream(shown))

    @inlineCallbacks
    def stopService(self) -> Generator[Deferred[Any], Any, None]:
        """Stop listening, let sessions finish for ``shutdown_timeout``, then close them."""
        super().stopService()  # type: ignore[no-untyped-call]
        for check in self._checks:
            check.cancel()
        yield DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        count = sum(len(gateway.factory.connections) for gateway in self._gateways)
        timeout = self._daemon.shutdown_timeout
        if count:
            _log.info("{count} sessions have {timeout:g} s to finish", count=count, timeout=timeout)
        yield DeferredList([gateway.factory.drain(timeout) for gateway in self._gateways])
        if self._embedded is not None:
            yield deferToThread(self._embedded.stop)


def _check_listen(reactor: Any, description: str) -> None:
    try:
        serverFromString(reactor, description)
    except (ValueError, TypeError, LookupError, OSError) as error:
        raise ConfigurationError(
            f'listen: "{description}" is not a Twisted endpoint string such as "tcp:6432" '
            f'or "tcp:6432:interface=127.0.0.1": {error}'
        ) from error


def _missing_socket(path: str | None) -> bool:
    return path is not None and not path.startswith("@") and not os.path.exists(path)


def _why_not_opened(error: Exception) -> str:
    reason = error.socketError if isinstance(error, CannotListenError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason)


def _allow_open_files(sessions: int) -> None:
    """Two descriptors for each session, one for each client that is being turned away, and a few:
    as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 3 * sessions + _SPARE_FILES
    unlimited = hard == resource.RLIM_INFINITY
    if soft < needed:
        granted = needed if unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < needed:
            _log.warn(
                "max_connections needs {needed} open files, the limit is {granted}: raise it "
                "(ulimit -n, LimitNOFILE=)",
                needed=needed,
                granted=granted,
            )
