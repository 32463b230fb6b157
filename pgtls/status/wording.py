"""Numbers and times for a person."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE, _HOUR, _DAY = 60, 3600, 86400

#: Days before the end of a certificate at which it wants attention.
SOON = 30

#: And at which it has to have it.
URGENT = 7


def count_text(number: float) -> str:
    """A number.

    :param number: 0 or more.
    :returns: such as ``12,345``; below 10 with a decimal where it has one.
    """
    return f"{number:.1f}" if number < 10 and number != int(number) else f"{number:,.0f}"


def bytes_text(number: float) -> str:
    """A number of bytes.

    :param number: 0 or more.
    :returns: such as ``1.2 MB``.
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            break
        number /= 1000
    shown = f"{number:.1f}" if number < 99.5 and unit != "B" else f"{number:,.0f}"
    return f"{shown} {unit}"


def duration_text(seconds: float) -> str:
    """A length of time.

    :param seconds: its length; less than 0 is 0.
    :returns: such as ``45 s``, ``12 min``, ``3 h 20 min``, ``5 d``.
    """
    seconds = max(0, int(seconds))
    if seconds < _MINUTE:
        return f"{seconds} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} min"
    if seconds < _DAY:
        return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE} min"
    return f"{seconds // _DAY} d"


def moment_text(moment: float) -> str:
    """A moment.

    :param moment: in seconds since 1970.
    :returns: such as ``2026-11-26 09:30:00 UTC``.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def machine_text(moment: float) -> str:
    """The same for programs.

    :param moment: in seconds since 1970.
    :returns: in ISO 8601.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def days_left(expires: float, now: float) -> int:
    """How many whole days are left.

    :param expires: the end, in seconds since 1970.
    :param now: the time.
    :returns: below 0 where it is over.
    """
    return int((expires - now) // _DAY)


def left_text(days: int) -> str:
    """How many days are left.

    :param days: see :func:`days_left`.
    :returns: in words.
    """
    if days < 0:
        return "expired"
    return "1 day" if days == 1 else "less than a day" if days == 0 else f"{days:,} days"
