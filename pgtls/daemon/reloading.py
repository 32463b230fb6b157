"""A reload: what the configuration file has now, compared with what runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.daemon.configuration import Configuration, DaemonSettings, after_reload
from pgtls.daemon.gateway_loading import load_all
from pgtls.daemon.listener_keys import listener_keys
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import GatewayConfiguration, LoadedGateway
from pgtls.transport.listening_sockets import HAPROXY
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.gateway")


class InTurn:
    """Runs something again and again, never twice at a time.

    :param act: runs once, and returns a result. It never fails.
    """

    def __init__(self, act: Callable[[], Coroutine[Deferred[object], object, bool]]) -> None:
        self._act = act
        self._asked: list[Deferred[bool]] = []
        self._running = False

    def run(self) -> Deferred[bool]:
        """Run it, after the one that runs. Those that are asked for meanwhile are one.

        :returns: fires with the result.
        """
        done: Deferred[bool] = Deferred()
        self._asked.append(done)
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run())
        return done

    async def _run(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            result = False
            try:
                result = await self._act()
            except Exception:
                _log.failure("not reloaded")
            for done in asked:
                done.callback(result)
        self._running = False


@attrs.frozen
class Plan:
    """What a reload changes.

    :ivar settings: the daemon's, from then on.
    :ivar loaded: the gateways of the file, in their order, all files read.
    :ivar running: which gateway each of them is; None for one that is added.
    :ivar needs_restart: the names of settings that a reload does not change.
    """

    settings: DaemonSettings
    loaded: list[LoadedGateway]
    running: list[Gateway | None]
    needs_restart: list[str]

    @property
    def kept(self) -> dict[Gateway, LoadedGateway]:
        """The gateways that go on, with what they are to be."""
        pairs = zip(self.running, self.loaded, strict=True)
        return {gateway: loaded for gateway, loaded in pairs if gateway is not None}

    def served(self, make: Callable[[LoadedGateway], Gateway]) -> dict[Gateway, LoadedGateway]:
        """All gateways, in the order of the file.

        :param make: makes one that is new.
        :returns: each with what it is to be.
        """
        pairs = zip(self.running, self.loaded, strict=True)
        return {gateway or make(loaded): loaded for gateway, loaded in pairs}


def plan_reload(
    reactor: IReactor,
    configuration: Configuration,
    settings: DaemonSettings,
    gateways: Sequence[Gateway],
    *,
    embedded: ConnInfo | None,
) -> Plan:
    """Read the configuration and all of its files again. Nothing changes yet.

    :param reactor: Twisted's reactor.
    :param configuration: the one that the daemon was started with.
    :param settings: the daemon's, as they are.
    :param gateways: those that run. Where they listen says which is which.
    :param embedded: the embedded PostgreSQL, where it runs.
    :returns: what is to change.
    :raises ConfigurationError: with every mistake.
    """
    now = configuration.read_again()
    wanted, needs_restart = after_reload(settings, now.daemon)
    running = [gateway.loaded.configuration for gateway in gateways]
    by_key = dict(zip(listener_keys(running), gateways, strict=True))
    keys = listener_keys(now.gateways)
    found = [by_key.get(key) for key in keys]
    kept = [
        _with_listen(each, gateway, needs_restart)
        for each, gateway in zip(now.gateways, found, strict=True)
    ]
    now = attrs.evolve(now, daemon=wanted, gateways=tuple(kept))
    before = {key: gateway.loaded for key, gateway in by_key.items()}
    loaded = load_all(reactor, now, before, embedded=embedded)
    return Plan(wanted, loaded, found, needs_restart)


def _with_listen(
    wanted: GatewayConfiguration, gateway: Gateway | None, needs_restart: list[str]
) -> GatewayConfiguration:
    """A socket stays as it was opened: the queue's length and the like are not changed."""
    if gateway is None:
        return wanted
    listen = gateway.loaded.configuration.settings.listen
    if listen.removeprefix(HAPROXY) == wanted.settings.listen.removeprefix(HAPROXY):
        return wanted  # PROXY headers are a setting of connections
    needs_restart.append(f"{wanted.location}listen")
    return attrs.evolve(wanted, settings=attrs.evolve(wanted.settings, listen=listen))
