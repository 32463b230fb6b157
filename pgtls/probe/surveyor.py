"""What a server does, asked from all sides: one short connection for each question.

:mod:`pgtls.probe.findings` says what to think of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from OpenSSL.SSL import Connection
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pgtls.certs.trust_on_first_use import RootNotSent, roots_of
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import TLS_VERSIONS, ChannelBinding, SSLCertMode
from pgtls.errors import CertificateNotVerified, ConfigurationError, PgTLSError
from pgtls.probe.probing import Result, run_probe, startup_message
from pgtls.probe.survey import (
    Authentication,
    ClientCertificate,
    KeyExchange,
    Survey,
    Tried,
)
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.any_server import EVERY_CIPHER, NOT_FORWARD_SECRET, AnyServerTLS, authorities
from pgtls.tls.tls_info import certificate_facts, chain_of_peer, describe
from pgtls.wire.attempts import SSLMode, SSLNegotiation, combination_error
from pgtls.wire.first_answer import FirstAnswer
from pgtls.wire.message_stream import printable_byte
from pgtls.wire.messages import GSSENC_REQUEST, SSL_REQUEST

#: Seconds for each connection where the connection string has no connect_timeout.
ATTEMPT_TIMEOUT = 5.0

#: Connections at a time, of some 20 in all: few enough for a small max_connections.
CONCURRENT = 4

#: Bytes of an answer that are read at most.
_LIMIT = 30000

#: One question.
Part = Callable[[], Coroutine[Deferred[Any], Any, None]]


class _Answer(Protocol):
    """Collects what the server says first.

    :param enough: whether that is all that was asked for.
    :ivar whole: fires with it, also where the server closes before.
    """

    transport: Any

    def __init__(self, question: bytes, enough: Callable[[bytes], object]) -> None:
        self._question = question
        self._enough = enough
        self._received = b""
        self.whole: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """Ask."""
        if self._question:
            self.transport.write(self._question)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer."""
        self._received += data
        if self._enough(self._received) or len(self._received) > _LIMIT:
            self._done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That was all."""
        self._done()

    def _done(self) -> None:
        if not self.whole.called:
            self.whole.callback(self._received)


class Surveyor:
    """Asks one server, at the first of its addresses that answers.

    :ivar survey: what is known so far.
    """

    def __init__(self, reactor: Any, conninfo: ConnInfo) -> None:
        self._reactor = reactor
        self._timeout = conninfo.connect_timeout or ATTEMPT_TIMEOUT
        self._conninfo = replace(conninfo, connect_timeout=self._timeout)
        host = conninfo.hosts[0]
        self.survey = Survey(host.name, host.port, host.hostaddr, host.unix_path is not None)

    async def everything(self) -> Survey:
        """Ask all there is to ask.

        :raises PgTLSError: the server cannot be reached.
        """
        await self.first_look()
        parts = [self.gssenc_request, self.session]
        if self.survey.ssl_request == "S":
            parts += [self.key_exchange, self.forward_secrecy, self.direct]
            parts += [partial(self.tls_version, version) for version in TLS_VERSIONS]
        parts += [partial(self.verdict, sslmode) for sslmode in SSLMode]
        await self.together(parts)
        survey = self.survey  # the answers came in any order
        survey.tls_versions = dict(sorted(survey.tls_versions.items()))
        survey.sslmodes = {mode.value: survey.sslmodes[mode] for mode in SSLMode}
        return survey

    async def together(self, parts: Sequence[Part]) -> None:
        """Ask several things, a few at a time."""
        slots = DeferredSemaphore(CONCURRENT)
        await gatherResults([slots.run(part) for part in parts], consumeErrors=True)

    async def first_look(self) -> None:
        """SSLRequest, and which address answers: all other questions go to that one.

        :raises PgTLSError: none does.
        """
        endpoint = PgTLSClientEndpoint(self._reactor, self._plain())
        answer = await self._ask(endpoint, SSL_REQUEST, bool)
        self.survey.ssl_request = _first_byte(answer)
        if endpoint.reached is not None:
            reached = endpoint.reached
            self._conninfo = replace(self._conninfo, hosts=(reached,))
            self.survey.host, self.survey.port = reached.name, reached.port
            self.survey.address = reached.hostaddr
            self.survey.unix_socket = reached.unix_path is not None

    async def gssenc_request(self) -> None:
        """What it answers to GSSENCRequest."""
        endpoint = PgTLSClientEndpoint(self._reactor, self._plain())
        try:
            answer = await self._ask(endpoint, GSSENC_REQUEST, bool)
        except PgTLSError:
            return  # not reached any more: the other answers say it
        self.survey.gssenc_request = _first_byte(answer)

    async def key_exchange(self) -> None:
        """TLS with a client that takes anything and shows no certificate."""
        conninfo = replace(self._encrypted(), sslcertmode=SSLCertMode.DISABLE)
        tls = AnyServerTLS(conninfo)
        try:
            transport = await self._handshake(conninfo, tls)
        except PgTLSError:
            return  # the versions, tried one by one, say why
        connection = cast(Connection, transport.getHandle())
        met = describe(connection)
        self.survey.key_exchange = KeyExchange(
            met.version,
            met.cipher,
            met.group,
            met.forward_secret,
            met.group is not None and "MLKEM" in met.group.upper(),
        )
        self.survey.client_certificate = ClientCertificate(
            tls.asked_for_certificate(connection), authorities(connection)
        )
        self._note_chain(connection)
        transport.loseConnection()

    def _note_chain(self, connection: Connection) -> None:
        chain = chain_of_peer(connection)
        self.survey.chain = [dict(certificate_facts(each)) for each in chain]
        try:
            roots_of(chain)
        except RootNotSent:
            self.survey.root_sent = False
        except CertificateNotVerified:
            self.survey.root_sent = True  # and does not verify it
        else:
            self.survey.root_sent = True

    async def forward_secrecy(self) -> None:
        """Whether it does without for a client that wants none."""
        refused = await self._refusal(self._encrypted("TLSv1.2"), NOT_FORWARD_SECRET)
        self.survey.static_rsa = refused is None

    async def tls_version(self, version: str) -> None:
        """Whether that version can be had."""
        error = await self._refusal(self._encrypted(version, version))
        self.survey.tls_versions[version] = Tried(error is None, error)

    async def direct(self) -> None:
        """TLS without SSLRequest."""
        conninfo = replace(self._encrypted(), sslnegotiation=SSLNegotiation.DIRECT)
        error = await self._refusal(conninfo)
        self.survey.direct_tls = Tried(error is None, error)

    async def session(self) -> None:
        """What the user is asked for, and which protocol there is; nothing without a user."""
        if self._conninfo.user is None:
            return
        encrypted = self.survey.ssl_request == "S"
        found = self.survey.authentication = Authentication(encrypted)
        try:
            request = (await self._start((3, 0))).request
        except PgTLSError as error:
            found.error = error.reason
            return
        if request is not None:
            found.method, found.mechanisms = request.method, list(request.mechanisms)
        try:
            newest = (await self._start((3, 2))).newest or (3, 2)
        except PgTLSError:
            newest = (3, 0)  # it breaks off at a version that it does not know
        self.survey.protocol = "{}.{}".format(*newest)

    async def verdict(self, sslmode: SSLMode) -> None:
        """What a client with the connection string, but this sslmode, meets."""
        conninfo = replace(self._conninfo, sslmode=sslmode)
        words = combination_error(sslmode, conninfo.sslnegotiation)
        if conninfo.sslrootcert == "system" and sslmode is not SSLMode.VERIFY_FULL:
            words = f'weak sslmode "{sslmode}" may not be used with sslrootcert=system'
        if words:
            result = Result()
            result.failed(ConfigurationError(words))
        else:
            result = await run_probe(self._reactor, conninfo)
        self.survey.sslmodes[sslmode.value] = result

    def _plain(self) -> ConnInfo:
        return replace(
            self._conninfo,
            sslmode=SSLMode.DISABLE,
            sslnegotiation=SSLNegotiation.POSTGRES,
            check_address=False,
            require_auth=None,
            channel_binding=ChannelBinding.PREFER,
        )

    def _encrypted(self, newest: str | None = None, oldest: str = "TLSv1") -> ConnInfo:
        return replace(
            self._plain(),
            sslmode=SSLMode.REQUIRE,
            ssl_min_protocol_version=oldest,
            ssl_max_protocol_version=newest,
        )

    async def _ask(
        self, endpoint: PgTLSClientEndpoint, question: bytes, enough: Callable[[bytes], object]
    ) -> bytes:
        """:raises PgTLSError: it could not be asked."""
        factory = Factory.forProtocol(lambda: _Answer(question, enough))
        factory.noisy = False
        answer = cast(_Answer, await endpoint.connect(factory))
        answer.whole.addTimeout(self._timeout, self._reactor, onTimeoutCancel=lambda *_: b"")
        received = await answer.whole
        answer.transport.loseConnection()
        return received

    async def _start(self, protocol: tuple[int, int]) -> FirstAnswer:
        """Ask for a session, over TLS where there is any.

        :returns: the answer, which is no error.
        :raises PgTLSError: the server refuses.
        """
        conninfo = self._encrypted() if self.survey.ssl_request == "S" else self._plain()
        startup = startup_message(replace(conninfo, max_protocol_version=protocol))
        endpoint = PgTLSClientEndpoint(
            self._reactor, conninfo, startup=startup, tls=lambda: AnyServerTLS(conninfo)
        )
        answer = FirstAnswer()
        answer.receive(await self._ask(endpoint, b"", bool))  # it has been looked at: it is whole
        return answer

    async def _handshake(self, conninfo: ConnInfo, tls: AnyServerTLS) -> Any:
        endpoint = PgTLSClientEndpoint(self._reactor, conninfo, tls=lambda: tls)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        return cast(Any, await endpoint.connect(factory)).transport

    async def _refusal(self, conninfo: ConnInfo, ciphers: str = EVERY_CIPHER) -> str | None:
        """Why a handshake fails, None where it does not."""
        try:
            transport = await self._handshake(conninfo, AnyServerTLS(conninfo, ciphers))
        except PgTLSError as error:
            return error.reason.partition(". This may indicate")[0]
        transport.loseConnection()
        return None


def _first_byte(answer: bytes) -> str:
    return printable_byte(answer[:1]) if answer else ""
