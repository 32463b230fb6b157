"""The certificates that a server shows, and whether a client that trusts some verifies it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as Interface
from typing import cast

from OpenSSL.SSL import Connection
from twisted.internet.protocol import Factory, Protocol

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import CertificateNotVerified, PgTLSError
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.tls.certificate import Certificate
from pgtls.tls.server_identity import verify_server_name
from pgtls.tls.tls_info import chain_of_peer
from pgtls.transport.reactor import IReactor
from pgtls.wire.attempts import SSLMode
from pgtls.wire.session_attributes import TargetSessionAttrs

#: Seconds for each connection.
TIMEOUT = 15


class _TLSTransport(Interface):
    """What Twisted's TLS transports have, and ours."""

    def getHandle(self) -> Connection:
        """pyOpenSSL's connection."""
        ...

    def abortConnection(self) -> None:
        """Close it at once."""
        ...


@dataclass(frozen=True)
class ServerChain:
    """What a server shows, and where it was.

    :ivar conninfo: how it was connected to.
    :ivar chain: the certificates that it sent, its own first.
    """

    conninfo: ConnInfo
    chain: list[Certificate]

    @property
    def host(self) -> str:
        """The name that a certificate must be for."""
        return self.conninfo.hosts[0].name

    @property
    def place(self) -> str:
        """Host and port, as ``root.crt`` records them."""
        name = f"[{self.host}]" if ":" in self.host else self.host.lower()
        return f"{name}:{self.conninfo.hosts[0].port}"

    @property
    def name_error(self) -> str | None:
        """Why verify-full would refuse it for its name."""
        try:
            verify_server_name(self.chain[0], self.host)
        except CertificateNotVerified as error:
            return error.reason
        return None


async def fetch_chain(reactor: IReactor, conninfo: ConnInfo) -> ServerChain:
    """Connect without verifying anything, and without showing a certificate of ours.

    :param reactor: the reactor.
    :param conninfo: where the server is.
    :returns: what it shows.
    :raises PgTLSError: there is no TLS to be had.
    """
    # Without a home directory there is no root.crt that would decide, and no postgresql.crt.
    transport = await _connected(reactor, replace(conninfo, home=None))
    try:
        return ServerChain(conninfo, chain_of_peer(transport.getHandle()))
    finally:
        transport.abortConnection()


async def failure_with_roots(reactor: IReactor, conninfo: ConnInfo, roots: bytes) -> str | None:
    """Whether a client with just these roots, and no CRL, can verify the server; the name apart.

    :param reactor: the reactor.
    :param conninfo: where the server is.
    :param roots: what ``root.crt`` would be.
    :returns: why not; None where it can.
    """
    with tempfile.TemporaryDirectory(prefix="pgtls-trust-") as directory:
        root_crt = Path(directory, "root.crt")
        root_crt.write_bytes(roots)
        mode = SSLMode.VERIFY_CA
        verifying = replace(conninfo, sslmode=mode, sslrootcert=str(root_crt), home=None)
        return await failure(reactor, verifying)


async def failure(reactor: IReactor, conninfo: ConnInfo) -> str | None:
    """Connect up to the end of the TLS handshake, as a client with that connection string does.

    :param reactor: the reactor.
    :param conninfo: the connection string, with its environment.
    :returns: why it fails, in one line; None where it succeeds.
    """
    try:
        transport = await _connected(reactor, conninfo)
    except PgTLSError as error:
        return error.reason
    transport.abortConnection()
    return None


async def _connected(reactor: IReactor, conninfo: ConnInfo) -> _TLSTransport:
    timely = replace(
        conninfo,
        connect_timeout=conninfo.connect_timeout or TIMEOUT,
        target_session_attrs=TargetSessionAttrs.ANY,  # no session is begun
    )
    endpoint = PgTLSClientEndpoint(reactor, timely)
    protocol = await endpoint.connect(Factory.forProtocol(Protocol))
    return cast(_TLSTransport, cast(Protocol, protocol).transport)
