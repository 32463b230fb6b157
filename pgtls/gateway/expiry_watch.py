"""Certificates, authorities and CRLs that end: said at the start, at a reload and once a day.

Those in a gateway's files, and those that its upstreams show. The timer follows the reactor's
clock, which in the daemon is a monotonic one; the dates are held against the wall clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pgtls.conninfo.hosts import Host
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.tls.certificate import Certificate
from pgtls.tls.validity import Kind, Validity, of_certificate

_log = Logger(namespace="pgtls.gateway")

#: Seconds between two looks.
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Expiry:
    """When something ends that connections need.

    :ivar kind: what it is, see :class:`~pgtls.tls.validity.Kind`.
    :ivar name: the subject of a certificate, the issuer of a CRL.
    :ivar file: the file that it is in; empty for what an upstream shows.
    :ivar gateway: what the gateway listens on, as its ``listen`` has it.
    :ivar upstream: the upstream's host and port; empty for what is the listener's.
    :ivar not_after: its end, in seconds since 1970 (UTC).
    """

    kind: str
    name: str
    file: str
    gateway: str
    upstream: str
    not_after: float


class ExpiryWatch:
    """Watches one gateway's.

    :param clock: the reactor.
    :param soon: how long before the end there is a warning.
    :ivar soon: the same, as it is now.
    :param loaded: tells what the gateway has read.
    :param look: has the upstreams looked at: :meth:`shown` is to be called for each.
    """

    def __init__(
        self,
        clock: IReactorTime,
        soon: timedelta,
        loaded: Callable[[], LoadedGateway],
        look: Callable[[], object],
    ) -> None:
        self.soon = soon
        self._loaded = loaded
        self._look = look
        self._shown: dict[tuple[str, str], Validity] = {}
        self._daily = LoopingCall(self._look_again)
        self._daily.clock = clock

    def start(self) -> None:
        """Warn of what is in files, now and once a day from now on."""
        self._warn(self._loaded().validities)
        if not self._daily.running:
            self._daily.start(DAY, now=False)

    def stop(self) -> None:
        """Warn no more."""
        if self._daily.running:
            self._daily.stop()

    def renewed(self) -> None:
        """Files have been read again: warn of what is in them; what upstreams have shown was
        another configuration's, perhaps."""
        self._shown.clear()
        self._warn(self._loaded().validities)

    def shown(self, route: str, host: Host, certificate: Certificate) -> None:
        """An upstream has shown its certificate.

        :param route: the route's name; empty for the gateway's own upstream.
        :param host: where it was.
        :param certificate: the certificate.
        """
        validity = replace(
            of_certificate(certificate, None, Kind.SERVER_CERTIFICATE),
            route=route,
            upstream=host.place,
        )
        if self._shown.get((route, host.place)) != validity:
            self._shown[route, host.place] = validity
            self._warn([validity])

    def expiries(self) -> list[Expiry]:
        """What has an end.

        :returns: each once, whatever it was read for.
        """
        loaded = self._loaded()
        found = {
            Expiry(
                each.kind,
                each.name,
                each.file or "",
                loaded.configuration.settings.listen,
                each.upstream,
                each.not_after.timestamp(),
            ): None
            for each in (*loaded.validities, *self._shown.values())
            if each.not_after is not None
        }
        return list(found)

    def _look_again(self) -> None:
        self._warn([*self._loaded().validities, *self._shown.values()])
        self._look()

    def _warn(self, validities: Iterable[Validity]) -> None:
        location = self._loaded().configuration.location
        warned: set[str] = set()
        for each in validities:
            text = each.warning(self.soon)
            if text is not None and text not in warned:
                warned.add(text)
                _log.warn(
                    # Not "warning": an event with that field is one of Python's to trial.
                    "{location}{text}",
                    location=location,
                    text=text,
                    kind=str(each.kind),
                    name=each.name,
                    file=each.file,
                    upstream=each.upstream,
                    not_after=each.not_after.isoformat() if each.not_after else None,
                )
