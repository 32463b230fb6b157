"""What the stages of a session hand on: accept, negotiate, decide, route, connect, relay."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import attrs
from twisted.internet.interfaces import IAddress

from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.tls_info import NegotiatedTLS
from pgtls.tls.verify_failures import VerifyFailure
from pgtls.wire.messages import ErrorResponse, StartupMessage
from pgtls.wire.proxy_header import ProxyHeader
from pgtls.wire.scram import KnownKeys
from pgtls.wire.scram_secret import ScramSecret


@attrs.frozen  # one is made for each session, in a third of a dataclass's time
class Client:
    """A client that wants a session: all that is known of it when its StartupMessage is there.

    :ivar startup: the StartupMessage: role, database, parameters.
    :ivar address: its own address, behind a proxy too.
    :ivar tls: what was negotiated, its certificate included; None in plaintext.
    :ivar sni: the host name in its ClientHello; None where it sent none, and in plaintext.
    :ivar accepted: when it connected, in seconds of the reactor's clock.
    :ivar proxy: the PROXY header in front of its connection; None where there was none. What it
        says beside the address is the proxy's word, and nothing is admitted by it.
    :ivar proxy_address: the address of the proxy that has sent the header.
    :ivar scram: the keys that it has proved to know, where the listener has authenticated it by
        SCRAM: with them one can log in as its role. Never shown.
    :ivar auth_method: how it was authenticated, by PostgreSQL's name of the method; before the
        policy's decision, and where the policy asks for nothing, ``trust``.
    """

    startup: StartupMessage
    address: IAddress | None = None
    tls: NegotiatedTLS | None = None
    sni: str | None = None
    accepted: float = 0.0
    proxy: ProxyHeader | None = None
    proxy_address: IAddress | None = None
    scram: KnownKeys | None = attrs.field(default=None, repr=False)
    auth_method: str = "trust"


@dataclass(frozen=True, slots=True)
class Admit:
    """A policy's decision: the client may connect.

    :ivar detail: why, for the log; may be empty.
    :ivar auth_method: how it was authenticated, by PostgreSQL's name of the method: ``trust``
        (not at all), ``cert``, ``scram-sha-256``, or another one of a policy of one's own.
    """

    detail: str = ""
    auth_method: str = "trust"


@dataclass(frozen=True, slots=True)
class Refuse:
    """A policy's or a router's decision: the client may not connect.

    :ivar response: what the client gets to read.
    :ivar detail: why, for the log; empty where the response says it all.
    """

    response: ErrorResponse
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why, for the log."""
        return self.detail or self.response.message


#: For policies that have nothing to say about it.
ADMIT = Admit()


@dataclass(frozen=True, slots=True)
class Authenticate:
    """A policy's decision: the client must prove by SCRAM-SHA-256 that it knows the password.

    :ivar secret: the role's; None for a role without one, which fails as a wrong password does.
    :ivar mock_nonce: see :meth:`~pgtls.wire.scram_secret.ScramSecret.mock`. Never shown.
    :ivar then: what is decided about a client that has proved it.
    """

    secret: ScramSecret | None = field(repr=False)
    mock_nonce: bytes = field(repr=False)
    then: Admit | Refuse


Decision = Admit | Refuse | Authenticate


@dataclass(frozen=True, slots=True)
class Upstream:
    """A router's decision: where a session goes.

    :ivar endpoint: connects to the server.
    :ivar route: the name of the route, for the log; empty where there is only one.
    :ivar database: the database to ask for in place of the client's; None for the client's.
    """

    endpoint: PgTLSClientEndpoint
    route: str = ""
    database: bytes | None = None


class Stage(StrEnum):
    """Where a client was refused."""

    NEGOTIATION = "negotiation"
    POLICY = "policy"
    ROUTE = "route"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Refused:
    """A client that gets no session.

    :ivar stage: at which stage.
    :ivar address: the client's.
    :ivar reason: why, in one line for a log.
    :ivar response: what the client got to read; None for nothing.
    :ivar client: what is known of it; None before its StartupMessage was there.
    :ivar verify_failure: what is wrong with its certificate, where that is the reason.
    """

    stage: Stage
    address: IAddress | None
    reason: str
    response: ErrorResponse | None = None
    client: Client | None = None
    verify_failure: VerifyFailure | None = None
