"""What a gateway changes in a StartupMessage: settings ``pgtls.*``, the client's taken out and ours
put in; and the name of the database.

PostgreSQL takes settings from two places of a StartupMessage: from parameters that it does not
know otherwise, and from the parameter ``options``, which holds command-line switches. Sources:
ProcessStartupPacket() in ``src/backend/tcop/backend_startup.c``, process_startup_options() and
pg_split_opts() in ``src/backend/utils/init/postinit.c``, process_postgres_switches() in
``src/backend/tcop/postgres.c``, ParseLongOption() and guc_name_compare() in
``src/backend/utils/misc/guc.c``.

Parameters win over ``options``, since PostgreSQL applies them later. A gateway that always sends
all of our settings, empty ones included, therefore does not depend on reading ``options`` as the
server does; taking them out there keeps a client from defining those that we do not send.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Mapping

from pgtls.errors import ProtocolViolation
from pgtls.text import clean_ascii
from pgtls.wire.messages import MAX_PACKET_LENGTH, StartupMessage

#: Settings whose names begin so are ours. No ``-`` in it: ``-`` and ``_`` are the same in switches.
PREFIX = b"pgtls."

#: Stands at the end of a value of ours that was cut, so that it never equals a shorter one.
CUT = b"..."

#: Switches of a backend that take an argument, of all versions since 8.4 (``A`` and ``o`` are gone
#: in today's); the others stand alone. ``-`` is the switch of ``--name=value``.
_WITH_ARGUMENT = frozenset(b"ABCcDdfhkNoprStvW-")

#: White space as isspace() has it in the C locale.
_BLANK = b" \t\n\v\f\r"

# 0x85 and 0xA0 are white space too in some locales. Escaped, they are part of the argument in all.
_TO_ESCAPE = re.compile(rb"[\s\\\x85\xa0]")


def with_tls_parameters(startup: StartupMessage, parameters: Mapping[str, str]) -> StartupMessage:
    r"""Give ``startup`` our parameters in place of all that begin with ``pgtls.``.

    Values become printable ASCII (other bytes ``\xXX``, as in ``application_name``). Where the
    whole would exceed MAX_PACKET_LENGTH, the longest of our values are cut and end in ``...``.

    :param startup: the client's message.
    :param parameters: names, with the prefix, and values.
    :returns: the message to send to the server.
    :raises ProtocolViolation: what the client sent leaves no room for them.
    """
    kept = [pair for name, value in startup.parameters for pair in _kept(name, value)]
    names = [name.encode("ascii") for name in parameters]
    values = [
        clean_ascii(value.encode("utf-8", "replace")).encode() for value in parameters.values()
    ]
    room = (
        MAX_PACKET_LENGTH - _length(kept) - _length([(name, b"") for name in names]) + _length([])
    )
    ours = zip(names, _cut_to(values, room), strict=True)
    return _encode((*kept, *ours), startup.major, startup.minor)


def with_database(startup: StartupMessage, database: bytes) -> StartupMessage:
    """Put another database in place of the one that the client asks for.

    :param startup: the client's message.
    :param database: the database's name, without NUL.
    :returns: the message to send to the server.
    :raises ProtocolViolation: what the client sent leaves no room for it.
    """
    kept = [pair for pair in startup.parameters if pair[0] != b"database"]
    pairs = (*kept, (b"database", database))
    if _length(list(pairs)) > MAX_PACKET_LENGTH:
        raise ProtocolViolation("the startup packet leaves no room for the name of the database")
    return _encode(pairs, startup.major, startup.minor)


def without_our_switches(options: bytes) -> bytes:
    """Take the switches that set ``pgtls.*`` out of the value of ``options``.

    ``-c pgtls.x=y``, ``-cpgtls.x=y``, ``--pgtls.x=y``, behind other switches in one argument
    (``-Ecpgtls.x=y``) too. What getopt() does not take for a switch stays: the server refuses it.

    :param options: the value, as the client sent it.
    :returns: the value without them.
    """
    arguments = _split_options(options)
    kept: list[bytes] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if argument == b"--":
            kept += arguments[position:]
            break
        following = arguments[position + 1] if position + 1 < len(arguments) else None
        remaining, taken = _without_ours(argument, following)
        kept += remaining
        position += taken
    return b" ".join(_TO_ESCAPE.sub(rb"\\\g<0>", argument) or b"\\" for argument in kept)


def _is_ours(name: bytes) -> bool:
    """Whether PostgreSQL, which folds ASCII letters only, would take this for a name of ours."""
    return name.lower().startswith(PREFIX)


def _kept(name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    """What stays of one parameter: itself, itself changed, or nothing."""
    if name == b"options":
        value = without_our_switches(value)
        return [(name, value)] if value else []
    return [] if _is_ours(name) else [(name, value)]


def _split_options(options: bytes) -> list[bytes]:
    """The arguments in ``options``: parted by white space, a backslash escapes any byte."""
    arguments = []
    position = 0
    while position < len(options):
        if options[position] in _BLANK:
            position += 1
            continue
        argument = bytearray()
        while position < len(options) and options[position] not in _BLANK:
            if options[position] == ord("\\"):
                position += 1
            argument += options[position : position + 1]
            position += 1
        arguments.append(bytes(argument))
    return arguments


def _without_ours(argument: bytes, following: bytes | None) -> tuple[list[bytes], int]:
    """Read one argument as getopt() does.

    :param following: the argument behind it.
    :returns: what is kept, and how many arguments were read: two where a switch took
        ``following`` as its own argument.
    """
    if not argument.startswith(b"-"):
        return [argument], 1
    for position, letter in enumerate(argument[1:], 1):
        if letter not in _WITH_ARGUMENT:
            continue
        attached = argument[position + 1 :]
        setting = attached or following
        read = [argument] if attached or following is None else [argument, following]
        if letter in b"c-" and setting is not None and _is_ours(setting):
            # Only the switches before this one stay; "-" alone would be none.
            return ([argument[:position]] if position > 1 else []), len(read)
        return read, len(read)
    return [argument], 1


def _cut_to(values: list[bytes], room: int) -> list[bytes]:
    """Cut the longest values so that all together fit into ``room`` bytes.

    :raises ProtocolViolation: they cannot.
    """
    longest = max(map(len, values), default=0)

    def needed(limit: int) -> int:
        return sum(min(len(value), limit) for value in values)

    limit = bisect_right(range(longest + 1), room, key=needed) - 1
    if limit < min(longest, len(CUT)):
        raise ProtocolViolation("the startup packet leaves no room for the parameters of pgtls")
    return [value if len(value) <= limit else value[: limit - len(CUT)] + CUT for value in values]


def _length(pairs: list[tuple[bytes, bytes]]) -> int:
    """Bytes of a StartupMessage with these parameters: length, version, strings, terminator."""
    return 8 + sum(len(name) + len(value) + 2 for name, value in pairs) + 1


def _encode(pairs: tuple[tuple[bytes, bytes], ...], major: int, minor: int) -> StartupMessage:
    """The message with these parameters; a name may stand twice, unlike in StartupMessage.build."""
    strings = b"".join(name + b"\0" + value + b"\0" for name, value in pairs) + b"\0"
    raw = struct.pack("!IHH", 8 + len(strings), major, minor) + strings
    return StartupMessage(raw, major, minor, pairs)
