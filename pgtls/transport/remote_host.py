"""The host name of a client: PostgreSQL's double lookup, without blocking.

Source: ``check_hostname`` in ``src/backend/libpq/hba.c``; PostgreSQL documentation, "The
pg_hba.conf File".
"""

from __future__ import annotations

import socket
from collections import OrderedDict

from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as LookupTimeout
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pgtls.policy.hba_rules import IPAddress, RemoteHost
from pgtls.transport.name_resolution import resolve
from pgtls.transport.reactor import IReactor

_log = Logger(namespace="pgtls.server")

#: Seconds that the two lookups may take together.
LOOKUP_TIMEOUT = 10.0

#: Seconds that an answer counts: the resolver's functions do not tell how long it may.
ANSWER_LIFETIME = 30.0

#: Answers that are kept.
_MOST_ANSWERS = 1024

_UNKNOWN = RemoteHost(None, confirmed=False)


class RemoteHosts:
    """Looks up the host names of clients, and keeps each answer for a short time.

    :param reactor: Twisted's.
    """

    def __init__(self, reactor: IReactor) -> None:
        self._reactor = reactor
        self._answers: OrderedDict[IPAddress, tuple[float, RemoteHost]] = OrderedDict()

    def lookup(self, address: IPAddress) -> Deferred[RemoteHost]:
        """Look up the name of an address, and whether the name has that address.

        :param address: the client's.
        :returns: fires with the answer, within LOOKUP_TIMEOUT seconds; a name that cannot be found
            in that time is none. Cancelling it ends the wait.
        """
        known = self._answers.get(address)
        if known is not None and known[0] > self._reactor.seconds():
            return succeed(known[1])
        looked_up = Deferred.fromCoroutine(self._look_up(address))
        looked_up.addTimeout(LOOKUP_TIMEOUT, self._reactor)

        def too_late(failure: Failure) -> RemoteHost:
            failure.trap(LookupTimeout)
            _log.warn(
                "host name of {address} not found within {seconds:g} s",
                address=str(address),
                seconds=LOOKUP_TIMEOUT,
            )
            return _UNKNOWN

        return looked_up.addErrback(too_late)

    async def _look_up(self, address: IPAddress) -> RemoteHost:
        try:
            name, _ = await deferToThreadPool(
                self._reactor,
                self._reactor.getThreadPool(),
                socket.getnameinfo,
                (str(address), 0),
                socket.NI_NAMEREQD,
            )
        except OSError:
            return self._keep(address, _UNKNOWN)
        addresses = await resolve(self._reactor, name)
        return self._keep(address, RemoteHost(name, confirmed=str(address) in addresses))

    def _keep(self, address: IPAddress, answer: RemoteHost) -> RemoteHost:
        self._answers[address] = self._reactor.seconds() + ANSWER_LIFETIME, answer
        self._answers.move_to_end(address)
        if len(self._answers) > _MOST_ANSWERS:
            self._answers.popitem(last=False)
        return answer
