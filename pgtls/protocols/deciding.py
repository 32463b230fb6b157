"""Asking the access policy, which may take its time; what the client sends meanwhile is held."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.protocols.interfaces import IAccessPolicy
from pgtls.protocols.stages import Client, Decision, Refuse
from pgtls.transport.relay_transport import IStreamTransport
from pgtls.wire.messages import ErrorResponse

_log = Logger(namespace="pgtls.server")

#: Bytes that a client may send while it waits for a decision or its server; one that sends more is
#: not read from until then.
EARLY_LIMIT = 65536

AUTHENTICATION_TIMEOUT = ErrorResponse.fatal("57014", "canceling authentication due to timeout")
INTERNAL_ERROR = ErrorResponse.fatal("XX000", "internal error; the server's log has it")


def ask(policy: IAccessPolicy, client: Client) -> Decision | Deferred[Decision]:
    """Ask a policy. An error in it refuses the client.

    :param policy: the policy.
    :param client: the client.
    :returns: what the policy returns.
    """
    try:
        return policy.decide(client)
    except Exception:
        return _refusal(Failure())


class PendingDecision:
    """A client that waits for the policy's decision.

    :param client: the client.
    :param held: what it has sent behind its StartupMessage.
    :param decision: the policy's.
    :param transport: the client's connection.
    :param decided: is called with the client, what it has sent, and the decision, unless
        :meth:`stop` was called before.
    """

    def __init__(
        self,
        client: Client,
        held: bytes,
        decision: Deferred[Decision],
        transport: IStreamTransport,
        decided: Callable[[Client, bytes, Decision], None],
    ) -> None:
        self._client = client
        self._held = held
        self._decision = decision
        self._transport = transport
        self._decided: Callable[[Client, bytes, Decision], None] | None = decided

    def begin(self) -> None:
        """Wait. The decision may have been there already."""
        self._decision.addErrback(self._failed).addCallback(self._made)

    def receive(self, data: bytes) -> None:
        """Hold what the client sends.

        :param data: more bytes from it.
        """
        self._held += data
        if len(self._held) > EARLY_LIMIT:
            self._transport.pauseProducing()

    def time_out(self) -> None:
        """``authentication_timeout`` is over."""
        decided, self._decided = self._decided, None
        self._decision.cancel()
        if decided is not None:
            self._resume()
            decided(self._client, self._held, Refuse(AUTHENTICATION_TIMEOUT))

    def stop(self) -> None:
        """The client is gone."""
        self._decided = None
        self._decision.cancel()

    def _failed(self, failure: Failure) -> Decision:
        return _refusal(failure) if self._decided is not None else Refuse(INTERNAL_ERROR)

    def _made(self, decision: Decision) -> None:
        decided, self._decided = self._decided, None
        if decided is not None:
            self._resume()
            decided(self._client, self._held, decision)

    def _resume(self) -> None:
        if len(self._held) > EARLY_LIMIT:
            self._transport.resumeProducing()


def _refusal(failure: Failure) -> Refuse:
    _log.failure("error in the access policy", failure)
    return Refuse(INTERNAL_ERROR)
