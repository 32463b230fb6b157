"""What the status has to know of the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from pgtls.gateway.activity import GatewayActivity
from pgtls.gateway.gateway import Gateway


@dataclass
class Reloads:
    """Reloads that there have been.

    :ivar succeeded: how many.
    :ivar failed: how many changed nothing, because of a mistake.
    :ivar last: when the last one was, in seconds since 1970; None for none.
    :ivar mistakes: the last one's.
    """

    succeeded: int = 0
    failed: int = 0
    last: float | None = None
    mistakes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WorkersState:
    """The processes that serve.

    :ivar wanted: how many there are to be; 1: the daemon itself.
    :ivar ready: how many serve.
    :ivar replaced: how many have died and were replaced.
    """

    wanted: int = 1
    ready: int = 1
    replaced: int = 0


class DaemonView(Protocol):
    """The daemon, as the status sees it."""

    @property
    def gateways(self) -> Sequence[Gateway]:
        """Its gateways, in the order of the configuration."""

    @property
    def draining(self) -> bool:
        """Whether it is being stopped."""

    @property
    def reloads(self) -> Reloads:
        """What there was to reload."""

    @property
    def workers(self) -> WorkersState:
        """The processes that serve."""

    def activities(self, most: int) -> Deferred[Mapping[str, Sequence[GatewayActivity]]]:
        """Ask the processes that serve what they know.

        :param most: how many sessions each may list.
        :returns: what each of them says, by its name; without those that do not answer. Never
            fails.
        """

    def processes(self) -> Sequence[str]:
        """The names of the processes that serve."""
