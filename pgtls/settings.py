"""Settings as a table: each has a name, a default, a form and one line of help, in one place.

The classes of settings are frozen attrs classes whose fields are made here. From them come the
checks of a configuration file, the command line's options and the documentation's table. To a type
checker a field is a value of its default's type, as with attrs itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import TypeVar

import attrs

from pgtls.errors import ConfigurationError

S = TypeVar("S", bound="attrs.AttrsInstance")
E = TypeVar("E", bound=StrEnum)
N = TypeVar("N", int, float)
T = TypeVar("T")

#: How similar a name must be to one that was perhaps meant: difflib's ratio, from 0 to 1.
_SIMILAR = 0.75


def text(default: str, help_text: str) -> str:
    """A setting that is text: a name, a path, a list in OpenSSL's form.

    :param default: its value where none is given.
    :param help_text: one line of help.
    :returns: a field of an attrs class.
    """

    def convert(value: object) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError("a string")
        return value

    return _setting(default, convert, help_text)


def names(help_text: str, *, check: Callable[[str], None] = lambda name: None) -> tuple[str, ...]:
    """A setting that is a name, or a list of names; by default there is none.

    :param help_text: one line of help.
    :param check: raises ValueError, saying what would be right, for a name that cannot be used.
    :returns: a field of an attrs class.
    """

    def convert(value: object) -> tuple[str, ...]:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not listed:
            raise ValueError("a name, or a list of names")
        for name in listed:
            if not isinstance(name, str) or not name or "\0" in name:
                raise ValueError("a name, or a list of names")
            check(name)
        return tuple(listed)

    return _setting((), convert, help_text)


def several(help_text: str, *, check: Callable[[str], object]) -> tuple[str, ...]:
    """A setting that is a list, or text with commas between its parts; by default it is empty.

    :param help_text: one line of help.
    :param check: raises ValueError, saying what would be right, for a part that cannot be used.
    :returns: a field of an attrs class.
    """

    def convert(value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            raise ValueError("a list of strings")
        stripped = [part.strip() for part in parts]
        given = stripped if stripped != [""] else []
        for part in given:
            check(part)
        return tuple(given)

    return _setting((), convert, help_text)


def boolean(default: bool, help_text: str) -> bool:
    """A setting that is on or off: TOML's booleans, or the words that PostgreSQL takes.

    :param default: its value where none is given.
    :param help_text: one line of help.
    :returns: a field of an attrs class.
    """
    words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}

    def convert(value: object) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise ValueError('"on" or "off"')

    return _setting(default, convert, help_text)


def choice(default: E, help_text: str) -> E:
    """A setting with a few words to choose from.

    :param default: its value where none is given, one of an enum whose members are the words.
    :param help_text: one line of help.
    :returns: a field of an attrs class.
    """
    kind = type(default)
    allowed = " or ".join(f'"{word}"' for word in kind)

    def convert(value: object) -> E:
        if isinstance(value, bool):  # ssl = true, as a TOML boolean
            value = "on" if value else "off"
        if isinstance(value, str) and value in list(kind):
            return kind(value)
        raise ValueError(allowed)

    return _setting(default, convert, f"{allowed}: {help_text}")


#: Units of time of ``postgresql.conf``, in microseconds.
_UNITS = {
    "us": 1,
    "ms": 1000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION = re.compile(rf"\s*(\d+(?:\.\d*)?)\s*({'|'.join(_UNITS)})?\s*", re.ASCII)
_MAX_INT = 2**31 - 1


def duration(
    default: int, help_text: str, *, unit: str, check: Callable[[int], None] | None = None
) -> int:
    """A setting that is a time, as ``postgresql.conf`` has it: ``60``, ``"60s"``, ``"1min"``.

    :param default: in ``unit``.
    :param help_text: one line for the user.
    :param unit: ``s`` or ``ms``: what a number without a unit is in, and what the setting is in.
    :param check: raises ValueError, saying what would be right, for a value that cannot be used.
    :returns: an attrs field; whole numbers from 0 to 2147483647.
    """

    def convert(value: object) -> int:
        match = _DURATION.fullmatch(str(value)) if not isinstance(value, bool) else None
        if match is None:
            raise ValueError(f'a time such as 60 (in {unit}), "60s" or "1min"')
        converted = round(float(match[1]) * _UNITS[match[2] or unit] / _UNITS[unit])
        if converted > _MAX_INT:
            raise ValueError(f"a time from 0 to {_MAX_INT} {unit}")
        if check is not None:
            check(converted)
        return converted

    return _setting(default, convert, help_text)


def number(
    default: N,
    help_text: str,
    *,
    minimum: float,
    maximum: float,
    whole: bool,
    check: Callable[[int], None] | None = None,
) -> N:
    """A setting that is a number.

    :param default: within the bounds.
    :param help_text: one line for the user.
    :param minimum: the least value.
    :param maximum: the greatest value.
    :param whole: whether it must be a whole number.
    :param check: of whole numbers: raises ValueError, saying what would be right, for a value that
        cannot be used.
    :returns: an attrs field.
    """
    form = f"a {'whole ' if whole else ''}number from {minimum:.15g} to {maximum:.15g}"

    def convert(value: object) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            converted = int(value) if whole and not isinstance(value, float) else float(value)
            if whole and converted != int(converted):
                raise ValueError
        except ValueError:
            raise ValueError(form) from None
        if not minimum <= converted <= maximum:
            raise ValueError(form)
        if check is not None:
            check(int(converted))
        return int(converted) if whole else converted

    return _setting(default, convert, help_text)


def group(kind: type[S]) -> S:
    """Settings of another class, under their own names.

    :param kind: the other class.
    :returns: a field of an attrs class.
    """
    made: S = attrs.field(factory=kind, metadata={"group": kind})
    return made


def _setting(default: T, convert: Callable[[object], object], help_text: str) -> T:
    made: T = attrs.field(default=default, metadata={"convert": convert, "help": help_text})
    return made


def fields(kind: type[attrs.AttrsInstance]) -> Iterator[attrs.Attribute[object]]:
    """Every setting of a class, those of its groups included.

    :param kind: a class of settings.
    :returns: the fields.
    """
    for field in attrs.fields(kind):
        if "group" in field.metadata:
            yield from fields(field.metadata["group"])
        elif "convert" in field.metadata:
            yield field


def read(kind: type[S], values: Mapping[str, object]) -> S:
    """Make the settings from values as a file or a command line has them.

    :param kind: the class of settings.
    :param values: a value for each setting that is not to have its default.
    :returns: the settings.
    :raises ConfigurationError: with every unknown name and every value of the wrong form.
    """
    settings, mistakes = read_all(kind, values)
    if mistakes:
        raise ConfigurationError(*mistakes.values())
    return settings


def read_all(kind: type[S], values: Mapping[str, object]) -> tuple[S, dict[str, str]]:
    """The same, and where there are mistakes go on: others may be found in what is good.

    :param kind: the class of settings.
    :param values: a value for each setting that is not to have its default.
    :returns: the settings, with the default for each value of the wrong form; and the mistake for
        each such setting and each unknown name.
    """
    known = [field.name for field in fields(kind)]
    mistakes = {name: _unknown(name, known) for name in values if name not in known}
    return _read(kind, values, mistakes), mistakes


def _unknown(name: str, known: list[str]) -> str:
    meant = similar(name.replace("-", "_"), known)
    return f'unknown setting "{name}"' + (f': did you mean "{meant}"?' if meant else "")


def similar(name: str, known: Iterable[str]) -> str:
    """The name that was perhaps meant.

    :param name: one that is not known.
    :param known: those that are.
    :returns: one of them; empty where none is similar.
    """
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=_SIMILAR)), "")


def _read(kind: type[S], values: Mapping[str, object], mistakes: dict[str, str]) -> S:
    converted: dict[str, object] = {}
    for field in attrs.fields(kind):
        if "group" in field.metadata:
            converted[field.name] = _read(field.metadata["group"], values, mistakes)
        elif field.name in values:
            try:
                converted[field.name] = field.metadata["convert"](values[field.name])
            except ValueError as error:
                mistakes[field.name] = f"{field.name} must be {error}, not {values[field.name]!r}"
    return kind(**converted)
