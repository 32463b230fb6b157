"""libpq's startup packet: ``build_startup_packet`` in ``src/interfaces/libpq/fe-protocol3.c``."""

from __future__ import annotations

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.wire.messages import StartupMessage


def startup_message(conninfo: ConnInfo) -> StartupMessage | None:
    """The StartupMessage that libpq would send.

    :param conninfo: user, dbname, max_protocol_version and the parameters of the session count.
    :returns: the message; None where the string names no user.
    """
    if conninfo.user is None:
        return None
    parameters = {"user": conninfo.user, "database": conninfo.dbname or conninfo.user}
    parameters.update(conninfo.startup_parameters)
    major, minor = conninfo.max_protocol_version
    return StartupMessage.build(
        {_as_given(name): _as_given(value) for name, value in parameters.items()}, major, minor
    )


def _as_given(text: str) -> bytes:
    """The bytes of the command line or the environment, whatever their encoding is."""
    return text.encode("utf-8", "surrogateescape")
