"""What can go wrong, in one tree: :class:`PgTLSError` and what a caller would catch apart.

One more stands where what it holds does: :class:`pgtls.wire.messages.ServerRejected`.
"""

from __future__ import annotations


class PgTLSError(Exception):
    """The root of every error that pgtls raises. ``str()`` is one line for a person to read.

    :ivar reason: what went wrong, without the place.
    :ivar where: the connection that failed, as libpq names it; empty where it is none.
    """

    where = ""

    @property
    def reason(self) -> str:
        """The message alone."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.where} failed: {self.reason}" if self.where else self.reason


class ConfigurationError(PgTLSError):
    """Options, a connection string or a file named in them cannot be used.

    :ivar mistakes: every mistake that was found, one sentence each.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class ConnectFailed(PgTLSError):
    """No connection came up: name resolution, TCP, a time limit, or the peer went away."""


class NegotiationRefused(PgTLSError):
    """The peer would not do what the sslmode asks for (``N``, ``E``, a failed TLS handshake)."""


class SessionAttributesNotMet(NegotiationRefused):
    """The server's sessions are not as ``target_session_attrs`` wants them."""


class AuthenticationNotAllowed(NegotiationRefused):
    """The server asks for an authentication that ``require_auth`` or ``channel_binding=require``
    rules out, or lets in without the one that they require."""


class ProtocolViolation(PgTLSError):
    """The peer sent what the protocol does not allow."""


class CertificateNotVerified(NegotiationRefused):
    """The peer's certificate failed verification.

    :param message: why, in libpq's words where it has some.
    :ivar depth: place in the chain, 0 for the peer's own certificate; None where the chain is
        sound and only the name is wrong.
    """

    def __init__(self, message: str, depth: int | None = None) -> None:
        super().__init__(message)
        self.depth = depth
