"""What the two Protocols know of a transport: its TLS, its address, its time to close."""

from __future__ import annotations

from OpenSSL.SSL import Connection
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, ITransport

from pgtls.tls.certificate import Certificate
from pgtls.tls.tls_info import NegotiatedTLS, describe

#: Seconds that a connection which we close may take to go: a TLS peer owes a close_notify.
CLOSE_TIMEOUT = 10.0

#: Addresses with a host and a port. (``IPv4Address | IPv6Address`` is made anew each time it is
#: evaluated, which costs more than to ask.)
OVER_TCP = (IPv4Address, IPv6Address)


def negotiated_tls(transport: ITransport) -> NegotiatedTLS | None:
    """What TLS agreed on, on a client's or a server's transport.

    :param transport: the transport of an application's protocol.
    :returns: the TLS; None in plaintext.
    """
    # Not ISSLTransport.providedBy(): a wrapper such as haproxy's took its interfaces from the
    # transport before TLS began.
    handle = getattr(transport, "getHandle", lambda: None)()
    return describe(handle) if isinstance(handle, Connection) else None


def server_name(transport: ITransport) -> str | None:
    """Find the host name that a client asked for in its ClientHello.

    :param transport: the server's end, with TLS on it.
    :returns: the name; None where there was none.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    name = handle.get_servername() if isinstance(handle, Connection) else None
    return name.decode("ascii", "backslashreplace") if name is not None else None


def own_certificate(transport: ITransport) -> Certificate | None:
    """The certificate that this end has sent to the other one.

    :param transport: the transport.
    :returns: the certificate; None in plaintext.
    """
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, Connection):
        return None
    certificate = handle.get_certificate()
    return Certificate.of_openssl(certificate) if certificate is not None else None


def address_text(address: IAddress | None) -> str:
    """An address as PostgreSQL's log shows it: ``host(port)``, ``[local]`` for a Unix socket.

    :param address: the address.
    :returns: the text.
    """
    if isinstance(address, OVER_TCP):
        return f"{address.host}({address.port})"
    return "[local]" if isinstance(address, UNIXAddress) else str(address)


def listener_text(address: IAddress) -> str:
    """Where a listener is, as a user would write it.

    :param address: the address.
    :returns: ``127.0.0.1:6432``, ``[::1]:6432``, ``unix:/run/pgtls/.s.PGSQL.5432``.
    """
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress):
        return f"unix:{(address.name or b'').decode('utf-8', 'backslashreplace')}"
    return str(address)
