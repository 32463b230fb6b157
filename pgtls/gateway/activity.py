"""What a gateway's sessions are, and were: an observer counts them, and lists the open ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import islice
from time import time
from typing import TypedDict

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime

from pgtls.gateway.plaintext_clients import PlaintextClient, PlaintextClients, shown_name
from pgtls.gateway.refusal_reason import is_servers, reason_of
from pgtls.gateway.session_metrics import SessionMetrics, Tally
from pgtls.protocols.connection_info import address_text
from pgtls.protocols.interfaces import ISession
from pgtls.protocols.observers import SessionObserver
from pgtls.protocols.stages import Client, Refused, Stage
from pgtls.text import printable
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.traffic import Traffic

#: The value of the label ``tls_version`` for a session without TLS.
PLAINTEXT = "plaintext"

#: Seconds until what has been counted is in the metrics, in files too where they outlive a process.
FLUSH = 0.2

_NO_TRAFFIC = Traffic(0, 0)


class ClientCertificate(TypedDict):
    """The certificate that a client has shown."""

    subject: str
    issuer: str
    serial: str


class OpenSession(TypedDict):
    """An open session. Times are in seconds since 1970; without TLS its fields are None."""

    gateway: str
    route: str
    address: str
    user: str
    database: str
    tls_version: str | None
    cipher: str | None
    group: str | None
    sni: str | None
    certificate: ClientCertificate | None
    authentication: str
    server: str
    since: float
    bytes_from_client: int
    bytes_to_client: int


class LastRefusal(TypedDict):
    """The last client that was refused for a reason."""

    gateway: str
    reason: str
    sqlstate: str
    last_seen: float
    address: str
    detail: str


class GatewayActivity(TypedDict):
    """What there is to know of one gateway in one process, beside its metrics."""

    gateway: str
    open: dict[str, int]  # by route
    connections: int
    sessions: list[OpenSession]
    plaintext: list[PlaintextClient]
    refusals: list[LastRefusal]


class ActivityObserver(SessionObserver):
    """Observes the sessions of one gateway.

    :param name: gives its name; asked once, at the first event.
    :param metrics: the process's.
    :param clock: the reactor.
    :ivar counts_bytes: whether each message is counted, where the kernel does not count: between
        two Unix sockets.
    """

    counts_traffic = True

    def __init__(
        self,
        name: Callable[[], str],
        metrics: SessionMetrics,
        clock: IReactorTime,
        *,
        counts_bytes: bool = False,
    ) -> None:
        self.counts_bytes = counts_bytes
        self._name = name
        self._metrics = metrics
        self._clock = clock
        self._open: dict[ISession, Traffic] = {}  # with the bytes that have been counted
        # Sessions by route, TLS and authentication, and bytes: counted, and in no metric yet.
        self._connected: dict[tuple[str, str, str, str], int] = {}
        self._received = self._sent = 0
        self._flushing: IDelayedCall | None = None
        self._plaintext = PlaintextClients()
        self._refusals: dict[tuple[str, str], LastRefusal] = {}

    @cached_property
    def _gateway(self) -> str:
        return self._name()

    @cached_property
    def _handshake_seconds(self) -> Tally:
        return Tally(self._metrics.handshake_seconds[(self._gateway,)])

    @cached_property
    def _connect_seconds(self) -> Tally:
        return Tally(self._metrics.connect_seconds[(self._gateway,)])

    @cached_property
    def _session_seconds(self) -> Tally:
        return Tally(self._metrics.session_seconds[(self._gateway,)])

    def negotiated(self, client: Client) -> None:
        """Note how long it took, and who comes in plaintext.

        :param client: one whose StartupMessage is there.
        """
        self._handshake_seconds.observe(self._clock.seconds() - client.accepted)
        if self._flushing is None:
            self._flush_soon()
        if client.tls is None:
            self._plaintext.came(client)

    def refused(self, refused: Refused) -> None:
        """Count a client that gets no session.

        :param refused: the client, and why.
        """
        client, response = refused.client, refused.response
        sqlstate = self._metrics.sqlstate(response.sqlstate if response is not None else "")
        if is_servers(refused):
            self._metrics.server_refusals[self._gateway, "", sqlstate].inc()
            return
        reason = reason_of(refused)
        labels = (self._gateway, "", "refused", reason, sqlstate)
        version, group, authentication = _client_labels(client)
        if refused.stage is not Stage.UPSTREAM:
            authentication = ""  # it was not let in
        self._metrics.sessions[(*labels, version, group, authentication)].inc()
        self._refusals[reason, sqlstate] = LastRefusal(
            gateway=self._gateway,
            reason=reason,
            sqlstate=sqlstate,
            last_seen=time(),
            address=address_text(refused.address),
            detail=printable(refused.reason),
        )

    def cancel_requested(
        self, address: IAddress | None, tls: NegotiatedTLS | None, taken: bool
    ) -> None:
        """Count it.

        :param address: the client's.
        :param tls: what was negotiated.
        :param taken: whether the request will be carried out.
        """
        outcome = "accepted" if taken else "dropped"
        self._metrics.cancel_requests[self._gateway, outcome].inc()

    def tls_failed(self, address: IAddress | None, reason: str) -> None:
        """Count it.

        :param address: the client's.
        :param reason: what is wrong.
        """
        self._metrics.tls_errors[(self._gateway,)].inc()

    def connected(self, session: ISession) -> None:
        """Count a session, which is open from now on.

        :param session: the session.
        """
        kind = (session.route, *_client_labels(session.client))
        self._connected[kind] = self._connected.get(kind, 0) + 1
        self._connect_seconds.observe(session.seconds)
        if self._flushing is None:
            self._flush_soon()
        self._open[session] = _NO_TRAFFIC

    def ended(self, session: ISession) -> None:
        """Count what is known of a session at its end.

        :param session: the session; connected or not.
        """
        counted = self._open.pop(session, None)
        if counted is None:
            return
        self._count_traffic(session, counted)
        self._session_seconds.observe(session.seconds)
        if self._flushing is None:
            self._flush_soon()
        if (error := session.server_error) is not None:
            sqlstate = self._metrics.sqlstate(error.sqlstate)
            self._metrics.server_refusals[self._gateway, session.route, sqlstate].inc()

    def stopped(self) -> None:
        """Nothing more comes."""
        self.flush()

    def _count_traffic(self, session: ISession, before: Traffic) -> Traffic:
        now = session.traffic() or before
        self._received += max(0, now.received - before.received)
        self._sent += max(0, now.sent - before.sent)
        return now

    def _flush_soon(self) -> None:
        self._flushing = self._clock.callLater(FLUSH, self.flush)

    def flush(self) -> None:
        """Have the metrics say all that has been counted."""
        flushing, self._flushing = self._flushing, None
        if flushing is not None and flushing.active():
            flushing.cancel()
        for tally in (self._handshake_seconds, self._connect_seconds, self._session_seconds):
            tally.flush()
        for (route, *labels), count in self._connected.items():
            where = (self._gateway, route, "connected", "", "")
            self._metrics.sessions[(*where, *labels)].inc(count)
        self._connected.clear()
        counted, self._received, self._sent = (self._received, self._sent), 0, 0
        for direction, count in zip(("from_client", "to_client"), counted, strict=True):
            self._metrics.bytes[self._gateway, direction].inc(count)

    def activity(self, connections: int, most: int) -> GatewayActivity:
        """What there is to know, at this moment. The bytes of open sessions are counted up to now.

        :param connections: how many clients' connections are open, whether or not with a session.
        :param most: how many sessions are listed, 0 or more; the oldest first.
        :returns: what JSON can have.
        """
        by_route: dict[str, int] = {}
        for session, counted in self._open.items():
            self._open[session] = self._count_traffic(session, counted)
            by_route[session.route] = by_route.get(session.route, 0) + 1
        self.flush()
        listed = [
            self._described(session, traffic)
            for session, traffic in islice(self._open.items(), most)
        ]
        return GatewayActivity(
            gateway=self._gateway,
            open=by_route,
            connections=connections,
            sessions=listed,
            plaintext=self._plaintext.listed(self._gateway),
            refusals=list(self._refusals.values()),
        )

    def _described(self, session: ISession, traffic: Traffic) -> OpenSession:
        client, tls, host = session.client, session.client.tls, session.host
        certificate = tls.certificate if tls is not None else None
        return OpenSession(
            gateway=self._gateway,
            route=session.route,
            address=address_text(client.address),
            user=shown_name(client.startup.user),
            database=shown_name(client.startup.database),
            tls_version=tls.version if tls is not None else None,
            cipher=tls.cipher if tls is not None else None,
            group=tls.group if tls is not None else None,
            sni=printable(client.sni) if client.sni is not None else None,
            certificate=ClientCertificate(
                subject=printable(certificate.subject_text),
                issuer=printable(certificate.issuer_text),
                serial=certificate.serial_text,
            )
            if certificate is not None
            else None,
            authentication=client.auth_method,
            server=host.place if host is not None else "",
            since=time() - session.seconds,
            bytes_from_client=traffic.received,
            bytes_to_client=traffic.sent,
        )


def _client_labels(client: Client | None) -> tuple[str, str, str]:
    """Version of TLS, group and authentication: of each there are few."""
    if client is None:
        return "", "", ""
    if client.tls is None:
        return PLAINTEXT, "", client.auth_method
    return client.tls.version, client.tls.group or "", client.auth_method
