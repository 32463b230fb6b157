"""Protocol versions, as both ends name their bounds."""

from __future__ import annotations

from OpenSSL import SSL

from pgtls.errors import ConfigurationError

_VERSIONS = {
    "TLSv1": SSL.TLS1_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.3": SSL.TLS1_3_VERSION,
}


def set_versions(
    context: SSL.Context, oldest: tuple[str, str | None], newest: tuple[str, str | None]
) -> None:
    """Bound the versions of a context.

    :param context: the context.
    :param oldest: the setting's name and its value; an empty one or None is no bound.
    :param newest: the same for the other bound.
    :raises ConfigurationError: a value that is no version, or bounds in the wrong order.
    """
    mistakes = [
        f'{name} must be one of {", ".join(_VERSIONS)}, not "{value}"'
        for name, value in (oldest, newest)
        if value and value not in _VERSIONS
    ]
    if mistakes:
        raise ConfigurationError(*mistakes)
    bounds = [_VERSIONS[value] if value else 0 for _, value in (oldest, newest)]
    if all(bounds) and bounds[0] > bounds[1]:
        raise ConfigurationError(f"{oldest[0]} is higher than {newest[0]}")
    context.set_min_proto_version(bounds[0])
    context.set_max_proto_version(bounds[1])
