"""What an application may provide: to learn more than bytes, to decide, to be told."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol
from zope.interface import Attribute, Interface

from pgtls.conninfo.hosts import Host
from pgtls.protocols.stages import Admit, Client, Decision, Refuse, Refused, Upstream
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.transport.traffic import Traffic
from pgtls.wire.messages import CancelRequest, ErrorResponse, StartupMessage


class IPostgreSQLApplication(IProtocol):
    """A server application's protocol that takes the startup phase as values.

    One that provides just ``IProtocol`` gets the packet byte for byte in ``dataReceived``.
    """

    def startup_received(startup: StartupMessage, tls: NegotiatedTLS | None) -> None:
        """The client opened a session. What it sends from now on comes to ``dataReceived``.

        :param startup: the StartupMessage.
        :param tls: what was negotiated; None in plaintext.
        """

    def cancel_requested(request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        """The client asks to cancel another session's statement. It expects no answer; close the
        connection when the request has been carried out.

        :param request: the request.
        :param tls: what was negotiated; None in plaintext.
        """


class IPostgreSQLSession(IProtocol):
    """The same for a protocol that wants to know all of the client."""

    def session_requested(client: Client) -> None:
        """The client opened a session. What it sends from now on comes to ``dataReceived``.

        :param client: all that is known of it.
        """

    def cancel_requested(request: CancelRequest, tls: NegotiatedTLS | None) -> None:
        """The client asks to cancel another session's statement. It expects no answer; close the
        connection when the request has been carried out.

        :param request: the request.
        :param tls: what was negotiated; None in plaintext.
        """


class IAccessPolicy(Interface):
    """Decides which clients may connect."""

    def decide(client: Client) -> Decision | Deferred[Decision]:
        """Decide about a client.

        :param client: all that is known of it.
        :returns: whether it may connect. A Deferred is cancelled when the client goes, or when
            ``authentication_timeout`` is over. A failure, like an exception, refuses the client.
        """


class IRouter(Interface):
    """Decides where a session goes."""

    def upstream(client: Client) -> Upstream | Refuse | Deferred[Upstream | Refuse]:
        """Choose a client's server.

        :param client: all that is known of it; it may connect.
        :returns: the server, or why there is none. A Deferred is treated as
            :meth:`IAccessPolicy.decide`'s is.
        """


class ISession(Interface):
    """An open session, as observers see it."""

    client: Client = Attribute("""The client.""")
    host: Host | None = Attribute("""The server's host, with the address that it has.""")
    route: str = Attribute("""The route's name; empty where there is only one.""")
    seconds: float = Attribute("""How long it has lasted since its StartupMessage was there.""")
    bytes_from_client: int | None = Attribute(
        """Bytes relayed from the client; None where no observer counts them."""
    )
    bytes_from_server: int | None = Attribute("""The same from the server.""")
    server_error: ErrorResponse | None = Attribute(
        """What the server has refused it with, before it was ready for the first query."""
    )

    def traffic() -> Traffic | None:
        """Count the bytes each way, as TCP does on the client's connection, TLS's own included;
        where that is a Unix socket, on the server's.

        :returns: received from the client, and sent to it; None where no observer counts them.
        """


class ISessionObserver(Interface):
    """Is told of each stage of each connection, and changes nothing.
    :class:`~pgtls.protocols.observers.SessionObserver` has methods that do nothing."""

    counts_bytes: bool = Attribute(
        """Whether it wants to know how many bytes are relayed: each message is counted."""
    )
    counts_traffic: bool = Attribute(
        """Whether it wants to know how many bytes the connections have carried
        (:meth:`ISession.traffic`): the kernel counts them."""
    )

    def accepted(address: IAddress | None) -> None:
        """A connection was accepted.

        :param address: of its other end; behind a proxy, the proxy's.
        """

    def negotiated(client: Client) -> None:
        """A client's StartupMessage is there.

        :param client: all that is known of it.
        """

    def admitted(client: Client, decision: Admit) -> None:
        """The policy lets a client connect.

        :param client: all that is known of it.
        :param decision: the policy's.
        """

    def refused(refused: Refused) -> None:
        """A client gets no session, at whatever stage. Connections that close without having said
        anything are not told of.

        :param refused: the client, the stage and the reason.
        """

    def cancel_requested(address: IAddress | None, tls: NegotiatedTLS | None, taken: bool) -> None:
        """A CancelRequest came.

        :param address: the client's.
        :param tls: what was negotiated; None in plaintext.
        :param taken: whether it will be carried out; False where too many are on their way.
        """

    def tls_failed(address: IAddress | None, reason: str) -> None:
        """A client's connection ended with a TLS error after its handshake, a bad record for
        example.

        :param address: the client's.
        :param reason: what is wrong, in OpenSSL's words.
        """

    def connected(session: ISession) -> None:
        """A session's server is connected, and has answered: the relay begins.

        :param session: the session.
        """

    def ended(session: ISession) -> None:
        """A session is over, the connection from its client closed.

        :param session: the session; connected or not.
        """

    def stopped() -> None:
        """The listener is closed."""
