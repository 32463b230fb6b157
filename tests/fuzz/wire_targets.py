"""Targets: what comes over the wire. Each takes the bytes of an input, and raises where one of our
parsers does what it must not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from pgtls.errors import PgTLSError, ProtocolViolation
from pgtls.wire.attempts import Attempts, SSLMode, SSLNegotiation
from pgtls.wire.client_negotiation import ClientNegotiation, Fail, NextHost, Ready, Reconnect
from pgtls.wire.client_negotiation import StartTLS as ClientStartTLS
from pgtls.wire.first_answer import FirstAnswer
from pgtls.wire.messages import StartupMessage, split_packet
from pgtls.wire.proxy_header import InvalidProxyHeader, ProxyHeader
from pgtls.wire.proxy_header_reader import ProxyHeaderReader
from pgtls.wire.proxy_header_writer import encode
from pgtls.wire.required_authentication import AuthenticationCheck, RequiredAuthentication
from pgtls.wire.scram import ScramClient
from pgtls.wire.scram_secret import ScramKeys, ScramSecret
from pgtls.wire.scram_server import ScramServer
from pgtls.wire.server_negotiation import (
    SSL,
    Cancel,
    CancelPolicy,
    Close,
    ServerNegotiation,
    ServerPolicy,
    StartTLS,
    Startup,
)
from pgtls.wire.session_attributes import TargetSessionAttrs
from pgtls.wire.session_start import SessionStart
from pgtls.wire.startup_parameters import with_database, with_tls_parameters

#: PostgreSQL's MAX_STARTUP_PACKET_LENGTH, and the length word.
MAX_STARTUP = 10_004

_ENDS = (Startup, Cancel, Close)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """An input as it may come.

    :param data: all of it.
    :param size: bytes in a piece; 0 for all at once.
    """
    size = size or max(len(data), 1)
    return (data[at : at + size] for at in range(0, len(data), size))


def startup(data: bytes) -> None:
    """A client, up to its StartupMessage or CancelRequest. The first byte chooses the settings, the
    second one the pieces.
    """
    chosen, size, stream = data[:1] or b"\0", data[1:2] or b"\0", data[2:]
    policy = ServerPolicy(
        tuple(SSL)[chosen[0] % 3], tuple(CancelPolicy)[chosen[0] // 3 % 2], chosen[0] & 64 == 0
    )
    negotiation = ServerNegotiation(policy)
    over = False
    for piece in pieces(stream, size[0]):
        actions = negotiation.receive(piece)
        assert not (over and actions), "it goes on after its end"
        for action in actions:
            over = over or isinstance(action, _ENDS)
            if isinstance(action, Startup):
                _startup_message(action.message)
            elif isinstance(action, StartTLS):
                assert not negotiation.receive(b"\0"), "bytes are read during the handshake"
                negotiation.handshake_completed("postgresql")
        assert len(negotiation._buffer) <= MAX_STARTUP + len(piece), "it holds too much"
    assert negotiation.eof()
    assert not negotiation.receive(b"\0"), "it goes on after the end of file"


def _startup_message(message: StartupMessage) -> None:
    split = split_packet(message.raw)
    assert split is not None
    assert split[1] == b""
    assert StartupMessage.parse(split[0]) == message
    _changed(message, lambda: with_database(message, b"other"), b"database", b"other")
    ours = {"pgtls.version": "TLSv1.3", "pgtls.client_dn": "CN=x"}
    _changed(message, lambda: with_tls_parameters(message, ours), b"pgtls.client_dn", b"CN=x")


def _changed(
    message: StartupMessage, change: Callable[[], StartupMessage], name: bytes, value: bytes
) -> None:
    """A message that we change is still one, says what it should, and is for the same role."""
    try:
        changed = change()
    except ProtocolViolation:
        assert len(message.raw) > MAX_STARTUP - 200, "there is room"
        return
    split = split_packet(changed.raw)
    assert split is not None
    again = StartupMessage.parse(split[0])
    assert again.get(name) == value
    assert again.user == message.user


def client_negotiation(data: bytes) -> None:
    """A server, up to its first answer. The first byte chooses the attempts, the second one the
    pieces, the third what follows a handshake.
    """
    chosen, size, after, stream = (*(data[:3].ljust(3, b"\0")), data[3:])
    sslmode = tuple(SSLMode)[chosen % len(SSLMode)]
    direct = chosen & 64 and sslmode not in (SSLMode.DISABLE, SSLMode.ALLOW, SSLMode.PREFER)
    attempts = Attempts.plan(
        sslmode,
        SSLNegotiation.DIRECT if direct else SSLNegotiation.POSTGRES,
        unix_socket=bool(chosen & 128),
    )
    required = RequiredAuthentication.read("scram-sha-256", channel_binding=bool(after & 2))
    message = StartupMessage.build({b"user": b"u"}).raw if after & 4 else None
    negotiation = ClientNegotiation(attempts, message, required=required if after & 8 else None)
    over = False
    waiting = negotiation.connected()
    stream_left = list(pieces(stream, size))
    for _ in range(len(stream_left) + 4):
        actions, waiting = waiting, []
        for action in actions:
            assert not over, "it goes on after its end"
            over = isinstance(action, Ready | Reconnect | NextHost | Fail)
            if isinstance(action, ClientStartTLS):
                waiting += negotiation.handshake_completed("postgresql" if after & 1 else None)
        if stream_left and not waiting:
            waiting = negotiation.receive(stream_left.pop(0))
    assert bool(negotiation.lost()) is not over


def backend_messages(data: bytes) -> None:
    """A server, up to ReadyForQuery: whole or in pieces, it must be the same. The first byte is
    their size.
    """
    size, stream = (data[:1] or b"\0")[0] % 64 + 1, data[1:]
    for target in (TargetSessionAttrs.ANY, TargetSessionAttrs.READ_WRITE):
        _same(lambda chosen=target: SessionStart(target=chosen), stream, size)  # type: ignore[misc]
    _same_outcome(lambda part, answer: answer.receive(part), FirstAnswer, stream, size)
    required = RequiredAuthentication.read("scram-sha-256", channel_binding=False)
    assert required is not None
    _same_outcome(
        lambda part, check: check.from_server(part),
        lambda: AuthenticationCheck(required, encrypted=True),
        stream,
        size,
    )
    _same_outcome(
        lambda part, check: check.from_client(part),
        lambda: AuthenticationCheck(required, encrypted=True),
        stream,
        size,
    )


def _same(make: Callable[[], SessionStart], stream: bytes, size: int) -> None:
    whole, split = make(), make()
    passed = whole.receive(stream)
    in_pieces = b"".join(split.receive(piece) for piece in pieces(stream, size))
    assert in_pieces + split.held == passed + whole.held or whole.mismatch is not None
    assert (whole.key, whole.done, whole.error, whole.mismatch) == (
        *(split.key, split.done, split.error, split.mismatch),
    )


def _same_outcome(
    receive: Callable[[bytes, object], object],  # type: ignore[type-arg]
    make: Callable[[], object],
    stream: bytes,
    size: int,
) -> None:
    outcomes = []
    for each in (0, size):
        reader = make()
        try:
            for piece in pieces(stream, each):
                receive(piece, reader)
        except PgTLSError as error:
            outcomes.append(type(error))
        else:
            outcomes.append(type(None))
    assert outcomes[0] == outcomes[1], outcomes


def proxy_header(data: bytes) -> None:
    """A proxy: whole or in pieces, it must be the same; what is read can be written. The first byte
    is the size of the pieces.
    """
    size, stream = (data[:1] or b"\0")[0] % 64 + 1, data[1:]
    whole, split = _proxy_header(stream, 0), _proxy_header(stream, size)
    assert whole == split, (whole, split)
    header = whole[0]
    if isinstance(header, ProxyHeader):
        assert header.authority is None or isinstance(header.authority, str)
        assert header.tls is None or isinstance(header.tls.verified, bool)
        again = ProxyHeaderReader().receive(
            encode(ProxyHeader(2, source=header.source, destination=header.destination))
        )
        assert again is not None
        if header.source is not None and header.source.port is not None:
            assert again.source is not None
            assert again.source.port == header.source.port


def _proxy_header(stream: bytes, size: int) -> tuple[object, bytes]:
    reader = ProxyHeaderReader()
    rest = b""
    header: object = None
    for piece in pieces(stream, size):
        if header is not None:
            rest += piece
            continue
        try:
            header = reader.receive(piece)
        except InvalidProxyHeader as error:
            return type(error), b""
        rest = reader.rest if header is not None else b""
    return header, rest


_KEYS = ScramKeys.derive("pencil", b"0123456789abcdef", 1)
_SECRET = ScramSecret.build("pencil", b"0123456789abcdef", 1)


def scram_client(data: bytes) -> None:
    """A server that authenticates us: its first message, a NUL, its last one. It does not know the
    secret.
    """
    first, _, final = data.partition(b"\0")
    client = ScramClient(lambda salt, iterations: _KEYS, make_nonce=lambda: "nonce")
    client.initial_response()
    try:
        client.receive_continue(first)
        client.receive_final(final)
    except PgTLSError:
        return
    raise AssertionError("a server is believed that does not know the secret")


def scram_server(data: bytes) -> None:
    """A client that wants to be authenticated: its messages, with five NULs between. It does not
    know the password. The first byte chooses channel binding.
    """
    binding = bytes(32) if data[:1] == b"\1" else None
    server = ScramServer(
        *(b"user", _SECRET if data[:1] != b"\2" else None),
        mock_nonce=b"mock",
        certificate_hash=binding,
        make_nonce=lambda: "nonce",
    )
    with suppress(PgTLSError):
        for message in data[1:].split(b"\0\0\0\0\0"):
            server.receive(message)
    assert server.keys is None, "a client is let in that does not know the password"
