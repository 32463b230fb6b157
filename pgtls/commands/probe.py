"""``pgtls probe``: connect as a client would, and say what happened."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import attrs
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

from pgtls.protocols.endpoint import PgTLSClientEndpoint, where
from pgtls.protocols.negotiated import CLOSE_TIMEOUT, negotiated_tls
from pgtls.tls.facts import NegotiatedTLS, certificate_facts
from pgtls.wire.client import CLOSED_UNEXPECTEDLY, Event, rejection
from pgtls.wire.conninfo import ConnInfo
from pgtls.wire.errors import ConfigurationError, ConnectFailed, PgTLSError, ServerRejected
from pgtls.wire.messages import StartupMessage
from pgtls.wire.session_start import SessionStart

#: Seconds for all of it where the connection string has no connect_timeout.
DEFAULT_TIMEOUT = 15

#: Seconds that a server which let us in has to say that it is ready for queries, or why not.
READY_TIMEOUT = 5


@attrs.define
class Result:
    """What a probe found out; the JSON has these keys."""

    events: list[str] = attrs.field(factory=list)
    outcome: str = "fail"
    error: str | None = None
    tls: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None

    def succeeded(self, tls: NegotiatedTLS | None) -> None:
        """A usable connection came out."""
        self.outcome = "ssl" if tls else "plain"
        if tls is None:
            return
        self.tls = {
            "version": tls.version,
            "cipher": tls.cipher,
            "bits": tls.bits,
            "group": tls.group,
            "alpn": tls.alpn,
            "forward_secret": tls.forward_secret,
        }
        # cryptography is stricter than OpenSSL: names or dates may be there that it can't read.
        with suppress(ValueError):
            if tls.peer_certificate is not None:
                self.certificate = dict(certificate_facts(tls.peer_certificate))

    def failed(self, error: PgTLSError) -> None:
        """No usable connection came out."""
        self.outcome = "fail"
        earlier = [f"before that: {note}" for note in getattr(error, "__notes__", [])]
        self.error = _legible("; ".join(" ".join(text.split()) for text in [str(error), *earlier]))


class _Session(Protocol):
    """Reads on after the first answer: a server may let a user in and then have no database.

    :ivar over: fires with None when the session may begin, else with the reason why not.
    """

    transport: Any

    def __init__(self) -> None:
        self._start = SessionStart()
        self.over: Deferred[PgTLSError | None] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Look for ReadyForQuery or an error."""
        start = self._start
        start.receive(data)
        if (start.done or start.error) and not self.over.called:
            self.over.callback(ServerRejected(start.error) if start.error else None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        if not self.over.called:
            self.over.callback(ConnectFailed(CLOSED_UNEXPECTEDLY))
        if not self.closed.called:
            self.closed.callback(None)


class _Sessions(Factory):
    noisy = False
    protocol = _Session


async def run_probe(reactor: Any, conninfo: ConnInfo) -> Result:
    """Connect, and say what happened.

    :param conninfo: with a user named, a StartupMessage is sent.
    """
    result = Result()
    if conninfo.connect_timeout is None:
        conninfo = replace(conninfo, connect_timeout=DEFAULT_TIMEOUT)
    endpoint = PgTLSClientEndpoint(
        reactor,
        conninfo,
        startup=startup_message(conninfo),
        observe=lambda event: result.events.append(event.value),
    )
    try:
        session = cast(_Session, await endpoint.connect(_Sessions()))
        result.succeeded(negotiated_tls(session.transport))
        if Event.AUTHOK in result.events:
            session.over.addTimeout(READY_TIMEOUT, reactor, onTimeoutCancel=lambda *_: None)
            error = await session.over
            if isinstance(error, ServerRejected):
                result.events.append(rejection(error).value)
            if error is not None:
                error.where = where(endpoint.reached) if endpoint.reached else ""
                result.failed(error)
        session.transport.loseConnection()
        await session.closed.addTimeout(CLOSE_TIMEOUT, reactor, onTimeoutCancel=lambda *_: None)
    except PgTLSError as error:
        result.failed(error)
    return result


def startup_message(conninfo: ConnInfo) -> StartupMessage | None:
    """The StartupMessage that libpq would send; None where the string names no user."""
    if conninfo.user is None:
        return None
    parameters = {"user": conninfo.user, "database": conninfo.dbname or conninfo.user}
    parameters.update(conninfo.startup_parameters)
    major, minor = conninfo.max_protocol_version
    return StartupMessage.build(
        {_as_given(name): _as_given(value) for name, value in parameters.items()}, major, minor
    )


def _as_given(text: str) -> bytes:
    """The bytes of the command line or the environment, whatever their encoding is."""
    return text.encode("utf-8", "surrogateescape")


@click.command()
@click.argument("conninfo", default="")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, also at a terminal; elsewhere always."
)
def probe(conninfo: str, as_json: bool) -> None:
    """Connect as a client would under CONNINFO, and say what happened.

    CONNINFO is a libpq connection string, "host=db.example.com sslmode=verify-full" or a
    postgresql:// URI; PG* environment variables and ~/.postgresql count, as for psql. Where it
    names a user, a StartupMessage is sent too; a password is never asked for nor sent.

    Exit status: 0 for a usable connection, 1 for none (the reason on standard error), 2 for a
    connection string that cannot be used.
    """
    try:
        parsed = ConnInfo.parse(conninfo, os.environ)
    except ConfigurationError as error:
        result, status = Result(), 2
        result.failed(error)
    else:
        result = _run(parsed)
        status = 0 if result.error is None else 1
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(attrs.asdict(result)))
    else:
        _show(result)
    if result.error is not None:
        click.echo(f"pgtls probe: {result.error}", err=True)
    sys.exit(status)


def _run(conninfo: ConnInfo) -> Result:
    results: list[Result] = []

    async def main(reactor: Any) -> None:
        results.append(await run_probe(reactor, conninfo))

    try:
        react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
    except SystemExit:
        if not results:  # a bug of ours: its traceback is on standard error
            raise
    return results[0]


def _show(result: Result) -> None:
    """The result as a table."""
    table = Table(show_header=False, box=None)
    table.add_row("events", " → ".join(result.events) or "none")
    table.add_row("outcome", f"[{'green' if result.error is None else 'red'}]{result.outcome}")
    for heading, facts in (("TLS", result.tls), ("certificate", result.certificate)):
        for name, value in (facts or {}).items():
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            # As Text: to rich, a certificate's "[red]" would be markup.
            table.add_row(f"{heading} {name.replace('_', ' ')}", Text(_legible(shown)))
    Console().print(table)


def _legible(text: str) -> str:
    """What a server said, with everything escaped that could steer a terminal."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
