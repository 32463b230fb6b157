"""The log of a listener: one line for each client, with its TLS and its certificate."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from time import time

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger, LogLevel

from pgtls.protocols.connection_info import address_text
from pgtls.protocols.interfaces import ISession
from pgtls.protocols.log_limit import PERIOD, LogLimit
from pgtls.protocols.observers import SessionObserver
from pgtls.protocols.stages import Admit, Client, Refused, Stage
from pgtls.text import log_text
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.wire.messages import StartupMessage
from pgtls.wire.proxy_header import ProxyHeader

_log = Logger(namespace="pgtls.server")
_gateway_log = Logger(namespace="pgtls.gateway")

#: CancelRequests in a period that are logged one by one.
_CANCELS_LOGGED = 50


class ConnectionLog(SessionObserver):
    """Logs what happens to connections.

    :param clock: the reactor.
    :param log_disconnections: whether the end of each session is logged too.
    :ivar log_disconnections: whether the end of each session is logged too.
    :ivar route_name: says which route a client's session will take; None where there are none.
    """

    route_name: Callable[[Client], str | None] | None = None

    def __init__(self, clock: IReactorTime, *, log_disconnections: bool = False) -> None:
        self.log_disconnections = log_disconnections
        self._cancels = LogLimit(clock, _CANCELS_LOGGED, _log_cancels)
        self._drops = LogLimit(clock, 1, _log_drops)

    def admitted(self, client: Client, decision: Admit) -> None:
        """Log a client that may connect.

        :param client: the client.
        :param decision: the policy's; its detail goes in front.
        """
        route = self.route_name(client) if self.route_name is not None else None
        _log_client(client, f"{decision.detail}: " if decision.detail else "", route)

    def refused(self, refused: Refused) -> None:
        """Log a client that gets no session.

        :param refused: the client, and why.
        """
        client = refused.client
        if client is None:
            _log_refused(refused)
        elif refused.stage is Stage.POLICY:
            _log_client(client, f"{refused.reason}: ")
        else:
            _log_refusal(refused.stage, client, refused.reason)

    def cancel_requested(
        self, address: IAddress | None, tls: NegotiatedTLS | None, taken: bool
    ) -> None:
        """Log a CancelRequest; of very many, how many there were.

        :param address: the client's.
        :param tls: what was negotiated; None in plaintext.
        :param taken: whether the request will be carried out.
        """
        if taken and self._cancels.allows():
            _log_line(address, f"cancel request {tls_text(tls)}", _fields(None, tls))
        elif not taken and self._drops.allows():
            _log_line(address, "cancel request dropped: too many at this moment", {})

    def tls_failed(self, address: IAddress | None, reason: str) -> None:
        """Log a connection that ended with a TLS error.

        :param address: the client's.
        :param reason: what is wrong.
        """
        _log_line(address, reason, {})

    def ended(self, session: ISession) -> None:
        """Log the end of a session, if that is asked for.

        :param session: the session.
        """
        if not self.log_disconnections:
            return
        client = address_text(session.client.address)
        who = role_and_database(session.client.startup)
        seconds = session.seconds
        text = f"{client}: disconnection: {who} session time: {seconds:.3f} s"
        log_line(_gateway_log, text, {"client": client, "who": who, "seconds": seconds})

    def stopped(self) -> None:
        """Log at once what has been counted."""
        self._cancels.stop()
        self._drops.stop()


def log_line(log: Logger, line: str, fields: dict[str, object]) -> None:
    """Log a line with its fields, which become the event.

    As ``log.info("{line}", line=line, **fields)``, which first sorts all levels there are. With
    one field in the format, since each more costs 10 us at every connection.

    :param log: the logger.
    :param line: the whole line.
    :param fields: what a program that reads the log wants to know.
    """
    fields["line"] = line
    fields["log_format"] = "{line}"
    fields["log_level"] = LogLevel.info
    fields["log_logger"] = log
    fields["log_namespace"] = log.namespace
    fields["log_source"] = log.source
    fields["log_time"] = time()
    log.observer(fields)


def role_and_database(startup: StartupMessage) -> str:
    """Describe what a client asks for.

    :param startup: its StartupMessage.
    :returns: the role and the database, escaped and cut.
    """
    return f"user={_text(startup.user)} database={_text(startup.database)}"


def tls_text(tls: NegotiatedTLS | None) -> str:
    """Describe a client's TLS.

    :param tls: what was negotiated; None in plaintext.
    :returns: version, cipher and group, and the certificate if one was used.
    """
    if tls is None:
        return "SSL=off"
    text = f"SSL={tls.version} cipher={tls.cipher} group={tls.group}"
    if (certificate := tls.certificate) is None:
        return text
    return (
        f'{text} client_dn="{certificate.subject_line}" '
        f"client_serial={certificate.serial_text} "
        f'issuer_dn="{certificate.issuer_line}"'
    )


def proxy_fields(header: ProxyHeader, proxy: IAddress | None) -> dict[str, object]:
    """Describe what a proxy says of a client beside its address.

    :param header: the PROXY header.
    :param proxy: the proxy's address.
    :returns: the fields of the log: the proxy's address, and what its header has of host name, ID,
        TLS and certificate.
    """
    if not header.tlvs:
        return {"proxy": address_text(proxy)}
    tls = header.tls
    said = {
        "proxy_sni": header.authority,
        "proxy_unique_id": header.unique_id,
        "proxy_tls_version": tls.version if tls is not None else None,
        "proxy_client_cn": tls.common_name if tls is not None else None,
    }
    named = {name: log_text(value) for name, value in said.items() if value is not None}
    return {"proxy": address_text(proxy), **named}


def _log_client(client: Client, why: str, route: str | None = None) -> None:
    fields = _fields(client.startup, client.tls)
    text = f"{why}user={fields['user']} database={fields['database']} {tls_text(client.tls)}"
    if client.sni is not None:
        fields["sni"] = name = _text(client.sni)
        text = f"{text} sni={name}"
    if route is not None:
        fields["route"] = route
        text = f"{text} route={route}"
    if client.proxy is not None:
        proxied = proxy_fields(client.proxy, client.proxy_address)
        fields.update(proxied)
        text = " ".join([text, *(f"{name}={value}" for name, value in proxied.items())])
    _log_line(client.address, text, fields)


def _log_refusal(stage: Stage, client: Client, reason: str) -> None:
    address, who = address_text(client.address), role_and_database(client.startup)
    if stage is Stage.UPSTREAM:
        _gateway_log.error(
            "{client}: {who} upstream: {error}", client=address, who=who, error=reason
        )
    else:
        _gateway_log.error("{client}: {who} {error}", client=address, who=who, error=reason)


def _log_refused(refused: Refused) -> None:
    """A client that was refused before its StartupMessage was there."""
    failure = refused.verify_failure
    if failure is None:
        _log_line(refused.address, refused.reason, {})
        return
    _log_line(
        refused.address,
        f"{refused.reason}. {failure}",
        {
            "depth": failure.depth,
            "verify_error": failure.reason,
            "client_dn": failure.subject,
            "client_serial": failure.serial,
            "issuer_dn": failure.issuer,
        },
    )


def _log_line(address: IAddress | None, reason: str, fields: dict[str, object]) -> None:
    fields["address"] = text = address_text(address)
    fields["reason"] = reason
    log_line(_log, f"{text}: {reason}", fields)


def _fields(startup: StartupMessage | None, tls: NegotiatedTLS | None) -> dict[str, object]:
    """The same for programs that read logs: all names always, None where there is nothing."""
    certificate = tls.certificate if tls is not None else None
    return {
        "user": _text(startup.user) if startup is not None else None,
        "database": _text(startup.database) if startup is not None else None,
        "tls_version": tls.version if tls is not None else None,
        "tls_cipher": tls.cipher if tls is not None else None,
        "tls_group": tls.group if tls is not None else None,
        "sni": None,
        "route": None,
        "proxy": None,
        "client_dn": certificate.subject_line if certificate is not None else None,
        "client_serial": certificate.serial_text if certificate is not None else None,
        "issuer_dn": certificate.issuer_line if certificate is not None else None,
    }


@lru_cache(maxsize=256)  # many clients ask for the same
def _text(text: bytes | str) -> str:
    return log_text(text)


def _log_cancels(count: int) -> None:
    _log.info("{count} more cancel requests within {seconds:g} s", count=count, seconds=PERIOD)


def _log_drops(count: int) -> None:
    _log.warn(
        "{count} more cancel requests dropped within {seconds:g} s", count=count, seconds=PERIOD
    )
