"""The addresses behind a host's name."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Address as IPv4
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

from pgtls.conninfo.connection_string import Host
from pgtls.errors import CertificateNotVerified, ConnectFailed


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self) -> None:
        self._addresses: list[str] = []
        self.done: Deferred[list[str]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address) and address.host not in self._addresses:
            self._addresses.append(address.host)

    def resolutionComplete(self) -> None:
        if not self.done.called:
            self.done.callback(self._addresses)


def resolve(reactor: IReactorPluggableNameResolver, name: str) -> Deferred[list[str]]:
    """Look a name up. Never blocks.

    :param reactor: Twisted's.
    :param name: the name.
    :returns: fires with its addresses, in the resolver's order; none where it has none.
    """
    receiver = _Receiver()
    reactor.nameResolver.resolveHostName(receiver, name, transportSemantics="TCP")
    return receiver.done


def _is_a_name(name: str) -> bool:
    """Whether DNS could know it: no label is empty or too long."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


@lru_cache(maxsize=1024)
def known_place(host: Host) -> Host | None:
    """A host with its address; None where only a resolver knows it.

    :param host: as the connection string has it.
    :returns: the host; None where its name is to be looked up.
    """
    if host.unix_path is not None or host.hostaddr:
        return host
    try:
        ip_address(host.host.partition("%")[0])  # %eth0: an IPv6 zone
    except ValueError:
        return None
    return replace(host, hostaddr=host.host)


async def places(reactor: IReactorPluggableNameResolver, host: Host) -> list[Host]:
    """A host that is a name, once for each of its addresses, as libpq tries them one after the
    other.

    :param reactor: Twisted's.
    :param host: as the connection string has it.
    :returns: the host once for each of its addresses.
    :raises ConnectFailed: the name has no address.
    """
    # Twisted's resolver never answers where Python cannot encode the name.
    found = await resolve(reactor, host.host) if _is_a_name(host.host) else []
    if not found:
        raise ConnectFailed(f'could not translate host name "{host.host}" to address')
    return [replace(host, hostaddr=address) for address in found]


async def check_address(reactor: IReactorPluggableNameResolver, name: str, address: str) -> None:
    """Check that a name, as it resolves now, has the address that was connected to.

    :param reactor: Twisted's.
    :param name: the host's name.
    :param address: the address that was connected to.
    :raises CertificateNotVerified: it has not.
    """
    found = await resolve(reactor, name)
    if _without_zone(address) not in map(_without_zone, found):
        raise CertificateNotVerified(
            f'host name "{name}" does not resolve to the address of the server, "{address}", '
            f"but to {', '.join(found) or 'none'} (check_address=1)"
        )


def _without_zone(address: str) -> IPv4 | IPv6:
    return ip_address(address.partition("%")[0])
