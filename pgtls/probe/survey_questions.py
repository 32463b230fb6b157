"""What a server does, asked from all sides: one short connection for each question.

:mod:`pgtls.probe.assessment` says what to think of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import ISystemHandle

from pgtls.certs.trust_on_first_use import RootNotSent, roots_of
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import TLS_VERSIONS, ChannelBinding, SSLCertMode
from pgtls.conninfo.startup_packet import startup_message
from pgtls.errors import (
    CertificateNotVerified,
    ConfigurationError,
    ConnectFailed,
    PgTLSError,
)
from pgtls.probe.connection_probe import ProbeResult, probe_connection
from pgtls.probe.first_bytes import Asking, connect
from pgtls.probe.pacing import CONCURRENT, Pacing, Question, doubtful
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
from pgtls.transport.reactor import IReactor
from pgtls.wire.attempts import SSLMode, SSLNegotiation, combination_error
from pgtls.wire.client_negotiation import CLOSED_UNEXPECTEDLY, Event
from pgtls.wire.first_answer import FirstAnswer
from pgtls.wire.message_stream import printable_byte
from pgtls.wire.messages import GSSENC_REQUEST, SSL_REQUEST
from pgtls.wire.session_attributes import TargetSessionAttrs

#: Seconds for each connection where the connection string has no connect_timeout.
ATTEMPT_TIMEOUT = 5.0

#: Seconds that the server has to answer while other connections of ours are open.
_HELD_TIMEOUT = 2.0


class SurveyQuestions:
    """Asks one server, at the first of its addresses that answers.

    :param reactor: Twisted's.
    :param conninfo: the connection string; every question is asked under it.
    :ivar survey: what is known so far.
    """

    def __init__(self, reactor: IReactor, conninfo: ConnInfo) -> None:
        self._reactor = reactor
        self._timeout = conninfo.connect_timeout or ATTEMPT_TIMEOUT
        self._conninfo = replace(
            conninfo,
            connect_timeout=self._timeout,
            target_session_attrs=TargetSessionAttrs.ANY,  # the server itself is looked at
        )
        self._newest = (3, 0)  # version of the protocol
        self._pacing = Pacing(reactor, self._still_answers)
        host = conninfo.hosts[0]
        self.survey = Survey(host.name, host.port, host.hostaddr, host.unix_path is not None)

    async def everything(self) -> Survey:
        """Ask all there is to ask.

        :raises PgTLSError: the server cannot be reached.
        """
        await self.first_look()
        questions: list[Question] = [self.session, self.protocol]
        if self.survey.ssl_request == "S":
            questions += [self.key_exchange, self.forward_secrecy]
            questions += [partial(self.tls_version, version) for version in TLS_VERSIONS]
        questions += [partial(self.verdict, sslmode) for sslmode in SSLMode]
        questions.append(self.gssenc_request)
        if self.survey.ssl_request == "S":
            questions.append(self.direct)
        await self.ask(questions)
        survey = self.survey  # the answers came in any order
        if survey.authentication is not None and survey.authentication.error is None:
            survey.protocol = "{}.{}".format(*self._newest)
        survey.tls_versions = dict(sorted(survey.tls_versions.items()))
        survey.sslmodes = {mode.value: survey.sslmodes[mode] for mode in SSLMode}
        return survey

    async def ask(self, questions: Sequence[Question]) -> None:
        """Ask several questions, as many at a time as the server takes.

        :param questions: methods of this object.
        """
        await self._pacing.ask(questions)
        if self._pacing.limited:
            self.survey.concurrent = await self._count()

    async def _still_answers(self) -> bool:
        with suppress(PgTLSError):
            answer = await self._first_bytes(self._endpoint(self._plain()), SSL_REQUEST)
            return _first_byte(answer) == self.survey.ssl_request
        return False

    async def _count(self) -> int:
        """How many connections are answered at a time, CONCURRENT at most."""
        held: list[Asking] = []
        answered = 0
        endpoint = self._endpoint(replace(self._plain(), connect_timeout=_HELD_TIMEOUT))
        with suppress(PgTLSError):
            while answered == len(held) < CONCURRENT:
                held.append(await connect(endpoint, SSL_REQUEST))
                answer = await held[-1].answer(_HELD_TIMEOUT, self._reactor)
                answered += bool(answer) and _first_byte(answer) == self.survey.ssl_request
        for each in held:
            await each.close(self._reactor)
        return max(answered, 1)

    async def first_look(self) -> None:
        """SSLRequest, and which address answers: all other questions go to that one.

        :raises PgTLSError: none does.
        """
        endpoint = self._endpoint(self._plain())
        answer = await self._first_bytes(endpoint, SSL_REQUEST)
        self.survey.ssl_request = _first_byte(answer)
        if endpoint.reached is not None:
            reached = endpoint.reached
            self._conninfo = replace(self._conninfo, hosts=(reached,))
            self.survey.host, self.survey.port = reached.name, reached.port
            self.survey.address = reached.hostaddr
            self.survey.unix_socket = reached.unix_path is not None

    async def gssenc_request(self) -> PgTLSError | None:
        """What it answers to GSSENCRequest."""
        try:
            answer = await self._first_bytes(self._endpoint(self._plain()), GSSENC_REQUEST)
        except PgTLSError as error:
            return doubtful(error)  # not reached any more: the other answers say it
        first = self.survey.gssenc_request = _first_byte(answer)
        return ConnectFailed(CLOSED_UNEXPECTEDLY) if first in ("", "E") else None

    async def key_exchange(self) -> PgTLSError | None:
        """TLS with a client that takes anything and shows no certificate."""
        conninfo = replace(self._encrypted(), sslcertmode=SSLCertMode.DISABLE)
        tls = AnyServerTLS(conninfo)
        try:
            asking = await self._handshake(conninfo, tls)
        except PgTLSError as error:
            return doubtful(error)  # the versions, tried one by one, say why
        connection = cast(Connection, cast(ISystemHandle, asking.transport).getHandle())
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
        await asking.close(self._reactor)
        return None

    def _note_chain(self, connection: Connection) -> None:
        chain = chain_of_peer(connection)
        self.survey.chain = [certificate_facts(each) for each in chain]
        try:
            roots_of(chain)
        except RootNotSent:
            self.survey.root_sent = False
        except CertificateNotVerified:
            self.survey.root_sent = True  # and does not verify it
        else:
            self.survey.root_sent = True

    async def forward_secrecy(self) -> PgTLSError | None:
        """Whether it does without for a client that wants none."""
        error = await self._refusal(self._encrypted("TLSv1.2"), NOT_FORWARD_SECRET)
        self.survey.static_rsa = error is None
        return doubtful(error)

    async def tls_version(self, version: str) -> PgTLSError | None:
        """Whether a version of TLS can be had.

        :param version: one of TLS_VERSIONS.
        :returns: the error, where it is doubtful.
        """
        error = await self._refusal(self._encrypted(version, version))
        self.survey.tls_versions[version] = _tried(error)
        return doubtful(error)

    async def direct(self) -> PgTLSError | None:
        """TLS without SSLRequest."""
        conninfo = replace(self._encrypted(), sslnegotiation=SSLNegotiation.DIRECT)
        error = await self._refusal(conninfo)
        self.survey.direct_tls = _tried(error)
        return doubtful(error)

    async def session(self) -> PgTLSError | None:
        """What the user is asked for, and which protocol there is; nothing without a user."""
        if self._conninfo.user is None:
            return None
        encrypted = self.survey.ssl_request == "S"
        found = self.survey.authentication = Authentication(encrypted)
        try:
            request = (await self._start((3, 0))).request
        except PgTLSError as error:
            found.error = error.reason
            return doubtful(error)
        if request is not None:
            found.method, found.mechanisms = request.method, list(request.mechanisms)
        return None

    async def protocol(self) -> PgTLSError | None:
        """The newest version of the protocol; nothing without a user."""
        if self._conninfo.user is None:
            return None
        doubt, newest = None, (3, 0)
        try:
            newest = (await self._start((3, 2))).newest or (3, 2)
        except PgTLSError as error:
            doubt = doubtful(error)  # it breaks off at a version that it does not know
        self._newest = newest
        return doubt

    async def verdict(self, sslmode: SSLMode) -> PgTLSError | None:
        """What a client with the connection string, but another sslmode, meets.

        :param sslmode: that sslmode.
        :returns: the error, where it is doubtful.
        """
        conninfo = replace(self._conninfo, sslmode=sslmode)
        words = combination_error(sslmode, conninfo.sslnegotiation)
        if conninfo.sslrootcert == "system" and sslmode is not SSLMode.VERIFY_FULL:
            words = f'weak sslmode "{sslmode}" may not be used with sslrootcert=system'
        result, error = ProbeResult(), None
        if words:
            result.failed(ConfigurationError(words))
        else:
            result, error = await probe_connection(self._reactor, conninfo)
        self.survey.sslmodes[sslmode.value] = result
        if error is None and Event.RECONNECT in result.events:
            return ConnectFailed(CLOSED_UNEXPECTEDLY)  # what led to another attempt is not known
        return doubtful(error)

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

    def _endpoint(self, conninfo: ConnInfo) -> PgTLSClientEndpoint:
        return PgTLSClientEndpoint(self._reactor, conninfo)

    async def _first_bytes(self, endpoint: PgTLSClientEndpoint, request: bytes) -> bytes:
        """:raises PgTLSError: it could not be asked."""
        asking = await connect(endpoint, request)
        answer = await asking.answer(self._timeout, self._reactor)
        await asking.close(self._reactor)
        return answer

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
        answer.receive(await self._first_bytes(endpoint, b""))  # looked at before: it is whole
        return answer

    async def _handshake(self, conninfo: ConnInfo, tls: AnyServerTLS) -> Asking:
        return await connect(PgTLSClientEndpoint(self._reactor, conninfo, tls=lambda: tls))

    async def _refusal(self, conninfo: ConnInfo, ciphers: str = EVERY_CIPHER) -> PgTLSError | None:
        """Why a handshake fails, None where it does not."""
        try:
            asking = await self._handshake(conninfo, AnyServerTLS(conninfo, ciphers))
        except PgTLSError as error:
            return error
        await asking.close(self._reactor)
        return None


def _tried(error: PgTLSError | None) -> Tried:
    if error is None:
        return Tried(True, None)
    return Tried(False, error.reason.partition(". This may indicate")[0])


def _first_byte(answer: bytes) -> str:
    return printable_byte(answer[:1]) if answer else ""
