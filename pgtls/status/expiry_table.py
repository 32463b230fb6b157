"""Until when certificates, authorities and CRLs are valid, what upstreams show included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from pgtls.gateway.gateway import Gateway
from pgtls.status.upstream_watch import UpstreamState
from pgtls.tls.validity import Kind, of_certificate


class ExpiryStatus(TypedDict):
    """When something is over that connections need.

    :ivar gateway: whose it is.
    :ivar kind: what it is, one of :class:`~pgtls.tls.validity.Kind`.
    :ivar name: the subject of a certificate, the issuer of a CRL.
    :ivar file: where it is; empty for what an upstream has shown.
    :ivar upstream: the upstream's host and port; empty for what is for clients.
    :ivar expires: when it is over, in seconds since 1970.
    """

    gateway: str
    kind: str
    name: str
    file: str
    upstream: str
    expires: float


def expiry_table(
    gateways: Iterable[Gateway], upstreams: Iterable[UpstreamState]
) -> list[ExpiryStatus]:
    """All that has an end.

    :param gateways: the gateways.
    :param upstreams: what the last look at them has found.
    :returns: what is over first, first.
    """
    found = {}
    for gateway in gateways:
        for each in gateway.expiries():
            place = gateway.label, str(each.kind), each.name, each.file, each.upstream
            found[place] = each.not_after
    for state in upstreams:
        if state.certificate is not None and state.place:
            # Later than what the gateway has seen there once a day.
            earlier = (state.gateway, str(Kind.SERVER_CERTIFICATE), "", state.place)
            found = {
                place: end for place, end in found.items() if (*place[:2], *place[3:]) != earlier
            }
            shown = of_certificate(state.certificate, None, Kind.SERVER_CERTIFICATE)
            if shown.not_after is not None:
                place = state.gateway, str(shown.kind), shown.name, "", state.place
                found[place] = shown.not_after.timestamp()
    entries = [
        ExpiryStatus(
            gateway=gateway, kind=kind, name=name, file=file, upstream=upstream, expires=end
        )
        for (gateway, kind, name, file, upstream), end in found.items()
    ]
    return sorted(entries, key=lambda each: each["expires"])
