"""``require_auth`` and ``channel_binding=require``: what a server may ask a client for.

The rules and the sentences are libpq's: ``check_expected_areq`` and ``pg_SASL_init`` in
``src/interfaces/libpq/fe-auth.c``, and the reading of ``require_auth`` in ``pqConnectOptions2``
(``fe-connect.c``). A client that leaves the answer to another program, as a gateway and a library
do, must not let a request pass that is not allowed (CVE-2025-49146 is another client that did).
Sans-I/O.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from pgtls.errors import AuthenticationNotAllowed, ProtocolViolation
from pgtls.wire.authentication import AuthenticationRequest, RequestCode
from pgtls.wire.message_stream import (
    AUTHENTICATION,
    HEADER_SIZE,
    MAX_AUTHENTICATION_LENGTH,
    MessageStream,
    check_authentication_phase,
)

#: require_auth's names of the methods that have requests of their own. Both GSSAPI and SSPI go on
#: with the same message.
_REQUESTS = {
    "password": frozenset({RequestCode.PASSWORD}),
    "md5": frozenset({RequestCode.MD5}),
    "gss": frozenset({RequestCode.GSS, RequestCode.GSS_CONTINUE}),
    "sspi": frozenset({RequestCode.SSPI, RequestCode.GSS_CONTINUE}),
}
_SASL_REQUESTS = frozenset({RequestCode.SASL, RequestCode.SASL_CONTINUE, RequestCode.SASL_FINAL})

#: The SASL mechanisms that libpq knows, with require_auth's names.
_SCRAM, _SCRAM_PLUS, _OAUTH = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER"
_MECHANISMS = {_SCRAM: "scram-sha-256", _SCRAM_PLUS: "scram-sha-256", _OAUTH: "oauth"}
_SASL_METHODS = frozenset(_MECHANISMS.values())

#: Every name that require_auth takes.
METHODS = (*_REQUESTS, "scram-sha-256", "oauth", "none")

_DESCRIPTIONS: dict[int, str] = {
    RequestCode.PASSWORD: "server requested a cleartext password",
    RequestCode.MD5: "server requested a hashed password",
    RequestCode.GSS: "server requested GSSAPI authentication",
    RequestCode.GSS_CONTINUE: "server requested GSSAPI authentication",
    RequestCode.SSPI: "server requested SSPI authentication",
    RequestCode.SASL: "server requested SASL authentication",
    RequestCode.SASL_CONTINUE: "server requested SASL authentication",
    RequestCode.SASL_FINAL: "server requested SASL authentication",
}

#: Requests behind which AuthenticationOk may come: the client has given all that it has to, or, in
#: GSSAPI with mutual authentication and in SSPI, the server has.
_FINISHING = (RequestCode.PASSWORD, RequestCode.MD5, RequestCode.GSS_CONTINUE)

#: The client's answer to any request, and PostgreSQL's limit for it (PG_MAX_AUTH_TOKEN_LENGTH in
#: ``src/include/libpq/auth.h``, and the length word).
_PASSWORD_MESSAGE = ord("p")
_MAX_ANSWER = 65535 + 4

#: type byte and length word
_header = struct.Struct(">BI").unpack_from

#: Characters of a mechanism's name, as a client sent it, that an error shows.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class RequiredAuthentication:
    """What a connection string allows.

    :ivar require_auth: as written; empty where every method is allowed.
    :ivar codes: the authentication requests that are allowed, AuthenticationOk apart.
    :ivar sasl_methods: those of require_auth's names that stand for a SASL mechanism.
    :ivar exchange: whether AuthenticationOk may only end an exchange.
    :ivar channel_binding: whether the exchange must bind the channel (channel_binding=require).
    """

    require_auth: str
    codes: frozenset[int]
    sasl_methods: frozenset[str]
    exchange: bool
    channel_binding: bool

    @classmethod
    @cache
    def read(cls, require_auth: str, *, channel_binding: bool) -> RequiredAuthentication | None:
        """Read the two parameters.

        :param require_auth: names with commas between, or each with a ``!``; checked by
            :mod:`pgtls.conninfo.checks`.
        :param channel_binding: whether channel_binding is ``require``.
        :returns: None where everything is allowed.
        """
        if not require_auth and not channel_binding:
            return None
        names = require_auth.split(",") if require_auth else ["!"]
        negated = names[0].startswith("!")
        named = {name.removeprefix("!") for name in names}
        requests = frozenset[int]().union(*(_REQUESTS.get(name, ()) for name in named))
        sasl = _SASL_METHODS & named
        if negated:
            requests = frozenset(_DESCRIPTIONS) - requests
            sasl = _SASL_METHODS - sasl
        return cls(
            require_auth,
            requests | _SASL_REQUESTS if sasl else requests - _SASL_REQUESTS,
            sasl,
            ("none" in named) is negated,
            channel_binding,
        )

    @property
    def allows_cleartext(self) -> bool:
        """Whether the server may ask for the password itself."""
        return not self.channel_binding and RequestCode.PASSWORD in self.codes

    def allows(self, mechanism: str) -> bool:
        """Look a SASL mechanism up.

        :param mechanism: its registered name.
        :returns: whether it may be used.
        """
        if self.channel_binding and mechanism != _SCRAM_PLUS:
            return False
        return not self.require_auth or _MECHANISMS.get(mechanism) in self.sasl_methods


class AuthenticationCheck:
    """Watches one connection until AuthenticationOk: each request of the server's, and each answer
    of the client's.

    :param required: what is allowed.
    :param encrypted: whether the connection to the server has TLS.
    """

    def __init__(self, required: RequiredAuthentication, *, encrypted: bool) -> None:
        self.required = required
        self._encrypted = encrypted
        self._server = MessageStream(
            {AUTHENTICATION: MAX_AUTHENTICATION_LENGTH}, self._request, check_authentication_phase
        )
        self._held = b""  # what the client sent and the server does not get yet
        self._asked: deque[int] = deque()  # the requests that the client has not answered yet
        self._mechanism = ""  # of SASL: libpq's choice, then the client's; empty before
        self._challenged = False
        self._finished = False  # libpq's client_finished_auth

    @property
    def completed(self) -> bool:
        """AuthenticationOk came and was allowed: nothing is looked at any more."""
        return self._server.done

    def from_server(self, data: bytes) -> bytes:
        """Read on.

        :param data: more bytes from the server.
        :returns: the bytes to pass on: an offer of SASL mechanisms without those that are not
            allowed, everything else as it came.
        :raises AuthenticationNotAllowed: the server asks for what is not allowed, or accepts
            the client without what is required.
        :raises ProtocolViolation: something that may not come before AuthenticationOk.
        """
        return self._server.receive(data)

    def from_client(self, data: bytes) -> bytes:
        """Read on.

        :param data: more bytes from the client.
        :returns: the bytes to pass on: answers to the server's requests. The rest is held: a server
            that has not shown yet what is required of it gets no query. After :attr:`completed`
            it is all that was held, too.
        :raises AuthenticationNotAllowed: the client chose a mechanism that is not allowed.
        :raises ProtocolViolation: an answer that was not asked for, or none where one was.
        """
        self._held += data
        passed = b"" if self.completed else b"".join(self._answers())
        if self.completed:
            passed, self._held = self._held, b""
        elif len(self._held) > _MAX_ANSWER + 1:
            raise ProtocolViolation("client sent too much before authentication was complete")
        return passed

    def _answers(self) -> Iterator[bytes]:
        """Take the client's answers off what is held, up to one that is not whole or another
        message."""
        while len(self._held) >= HEADER_SIZE:
            kind, length = _header(self._held)
            if kind != _PASSWORD_MESSAGE:
                if self._asked:
                    raise ProtocolViolation(f"expected password response, got message type {kind}")
                return
            if not 4 <= length <= _MAX_ANSWER:
                raise ProtocolViolation("invalid length of the client's message")
            if len(self._held) <= length:
                return
            message, self._held = self._held[: length + 1], self._held[length + 1 :]
            self._answer(message)
            yield message

    def _request(self, kind: int, message: bytes) -> bytes:
        request = AuthenticationRequest.parse(message)
        self._check_method(request.code)
        self._check_binding(request.code)
        if request.is_ok:
            self._server.done = True
            return message
        if request.code != RequestCode.SASL_FINAL:
            self._asked.append(request.code)
        if request.code == RequestCode.SASL:
            return self._offer(request)
        if request.code in _SASL_REQUESTS:
            self._challenge(request.code)
        elif request.code in _FINISHING:
            self._finished = True
        return message

    def _check_method(self, code: int) -> None:
        required = self.required
        if not required.require_auth or code in required.codes:
            return
        reason = _DESCRIPTIONS.get(code, "server requested an unknown authentication type")
        if code == RequestCode.OK:
            if self._finished or not required.exchange:
                return
            reason = "server did not complete authentication"
        raise self._not_met(reason)

    def _check_binding(self, code: int) -> None:
        if not self.required.channel_binding or code in _SASL_REQUESTS:
            return
        if code != RequestCode.OK:
            raise AuthenticationNotAllowed(
                "channel binding required but not supported by server's authentication request"
            )
        if not self._finished or self._mechanism != _SCRAM_PLUS:
            raise AuthenticationNotAllowed(
                "channel binding required, but server authenticated client without channel binding"
            )

    def _offer(self, request: AuthenticationRequest) -> bytes:
        """AuthenticationSASL."""
        if self.required.channel_binding and not self._encrypted:
            raise AuthenticationNotAllowed("channel binding required, but SSL not in use")
        if self._mechanism:
            raise ProtocolViolation("duplicate SASL authentication request")
        chosen = self._choice(request.mechanisms)
        if self.required.require_auth and _MECHANISMS[chosen] not in self.required.sasl_methods:
            raise self._not_met(f"server requested {chosen} authentication")
        if self.required.channel_binding and chosen != _SCRAM_PLUS:
            raise AuthenticationNotAllowed(
                "channel binding is required, but server did not offer an authentication method "
                "that supports channel binding"
            )
        self._mechanism = chosen
        # As in libpq, what was finished by another method before stays so. With OAuth the token is
        # all that a client has to say.
        self._finished = self._finished or chosen == _OAUTH
        return sasl_request(name for name in request.mechanisms if self.required.allows(name))

    def _choice(self, offered: tuple[str, ...]) -> str:
        """The mechanism that libpq would take."""
        if _SCRAM_PLUS in offered:
            if self._encrypted:
                return _SCRAM_PLUS
            raise AuthenticationNotAllowed(
                "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection"
            )
        for name in offered:
            if name in _MECHANISMS:
                return name
        raise AuthenticationNotAllowed(
            "none of the server's SASL authentication mechanisms are supported"
        )

    def _challenge(self, code: int) -> None:
        """AuthenticationSASLContinue or AuthenticationSASLFinal."""
        if not self._mechanism:
            raise ProtocolViolation(
                "fe_sendauth: invalid authentication request from server: "
                "AUTH_REQ_SASL_CONT without AUTH_REQ_SASL"
            )
        if code == RequestCode.SASL_CONTINUE:
            self._challenged = True
            return
        if not self._challenged:
            raise ProtocolViolation(
                "AuthenticationSASLFinal received from server, but SASL authentication was not "
                "completed"
            )
        self._finished = True

    def _answer(self, message: bytes) -> None:
        """Check the client's PasswordMessage, SASLInitialResponse, SASLResponse or GSSResponse."""
        if not self._asked:
            raise ProtocolViolation("client answered before the server asked for authentication")
        if self._asked.popleft() == RequestCode.SASL:
            name = message[HEADER_SIZE:].split(b"\0", 1)[0].decode("ascii", "backslashreplace")
            self._check_choice(name)
            self._mechanism = name
            self._finished = self._finished or name == _OAUTH

    def _check_choice(self, name: str) -> None:
        required = self.required
        if required.require_auth and _MECHANISMS.get(name) not in required.sasl_methods:
            raise self._not_met(f'client requested "{name[:_SHOWN]}" authentication')
        if required.channel_binding and name != _SCRAM_PLUS:
            raise AuthenticationNotAllowed(
                f'channel binding required, but client chose "{name[:_SHOWN]}", '
                "which does not bind the channel"
            )

    def _not_met(self, reason: str) -> AuthenticationNotAllowed:
        return AuthenticationNotAllowed(
            f'authentication method requirement "{self.required.require_auth}" failed: {reason}'
        )


def sasl_request(mechanisms: Iterable[str]) -> bytes:
    """An AuthenticationSASL message.

    :param mechanisms: the names that it offers, in this order; ASCII.
    :returns: the message, type byte included.
    """
    names = b"".join(name.encode("ascii") + b"\0" for name in mechanisms)
    return b"R" + struct.pack("!II", 9 + len(names), RequestCode.SASL) + names + b"\0"
