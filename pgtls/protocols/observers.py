"""Telling observers what happens to connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVarTuple

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from zope.interface import implementer

from pgtls.protocols.interfaces import ISession, ISessionObserver
from pgtls.protocols.stages import Admit, Client, Refused
from pgtls.tls.tls_info import NegotiatedTLS

_log = Logger(namespace="pgtls.server")

Ts = TypeVarTuple("Ts")


@implementer(ISessionObserver)
class SessionObserver:
    """Is told of everything and does nothing: for observers to begin with."""

    counts_bytes = False
    counts_traffic = False

    def accepted(self, address: IAddress | None) -> None:
        """:param address: of the other end of a connection."""

    def negotiated(self, client: Client) -> None:
        """:param client: one whose StartupMessage is there."""

    def admitted(self, client: Client, decision: Admit) -> None:
        """Do nothing.

        :param client: one that may connect.
        :param decision: the policy's.
        """

    def refused(self, refused: Refused) -> None:
        """:param refused: a client that gets no session."""

    def cancel_requested(
        self, address: IAddress | None, tls: NegotiatedTLS | None, taken: bool
    ) -> None:
        """Do nothing.

        :param address: the client's.
        :param tls: what was negotiated.
        :param taken: whether the request will be carried out.
        """

    def tls_failed(self, address: IAddress | None, reason: str) -> None:
        """Do nothing.

        :param address: the client's.
        :param reason: what is wrong.
        """

    def connected(self, session: ISession) -> None:
        """:param session: one whose relay begins."""

    def ended(self, session: ISession) -> None:
        """:param session: one that is over."""

    def stopped(self) -> None:
        """The listener is closed."""


class Observers:
    """All observers of a listener: each event is a callable that tells those that want to know of
    it. Which do is found out once; the others cost nothing.

    :param observers: in the order in which they are told.
    :ivar counts_bytes: whether one wants to know how many bytes are relayed.
    :ivar counts_traffic: whether one wants to know how many bytes the connections have carried.
    """

    def __init__(self, observers: Sequence[ISessionObserver] = ()) -> None:
        self.counts_bytes = any(each.counts_bytes for each in observers)
        # An application's own class may be older than the attribute.
        self.counts_traffic = any(getattr(each, "counts_traffic", False) for each in observers)
        wanted = [
            {
                name: getattr(each, name)
                for name in ISessionObserver.names()
                if getattr(type(each), name, None) is not getattr(SessionObserver, name)
            }
            for each in observers
        ]

        def tell(name: str) -> list[Callable[..., None]]:
            return [each[name] for each in wanted if name in each]

        self.accepted: Callable[[IAddress | None], None] = _teller(tell("accepted"))
        self.negotiated: Callable[[Client], None] = _teller(tell("negotiated"))
        self.admitted: Callable[[Client, Admit], None] = _teller(tell("admitted"))
        self.refused: Callable[[Refused], None] = _teller(tell("refused"))
        self.cancel_requested: Callable[[IAddress | None, NegotiatedTLS | None, bool], None] = (
            _teller(tell("cancel_requested"))
        )
        self.tls_failed: Callable[[IAddress | None, str], None] = _teller(tell("tls_failed"))
        self.connected: Callable[[ISession], None] = _teller(tell("connected"))
        self.ended: Callable[[ISession], None] = _teller(tell("ended"))
        self.stopped: Callable[[], None] = _teller(tell("stopped"))


def _teller(wanted: Sequence[Callable[[*Ts], None]]) -> Callable[[*Ts], None]:
    """Make one of several; an error of an observer's is logged, and hinders nothing."""

    def tell(*args: *Ts) -> None:
        for each in wanted:
            try:
                each(*args)
            except Exception:
                _log.failure("error in an observer of sessions")

    return tell if wanted else _nothing


def _nothing(*args: object) -> None:
    """Observes nothing."""
