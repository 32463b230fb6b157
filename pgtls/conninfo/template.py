r"""A connection string with a place for a name: ``\1`` in ``host``, ``hostaddr`` or ``dbname``.

``\1`` is replaced in the values, when the string has been taken apart: whatever the name is, it
adds no parameter. A name that would make a list, a path or an abstract socket of its value is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.grammar import parse_text
from pgtls.errors import ConfigurationError

PLACE = r"\1"

#: Where ``\1`` may stand.
_KEYWORDS = ("host", "hostaddr", "dbname")

#: A label of a host name, underscores allowed (RFC 1035, section 2.3.1).
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)

#: What is tried when a template is read: a label of a name, or a part of an address.
_SAMPLE = "a"
_SAMPLE_OF_ADDRESS = "1"


@dataclass(frozen=True, slots=True)
class ConnInfoTemplate:
    r"""A connection string, with ``\1`` or without.

    :ivar takes_label: whether ``\1`` is in it.
    """

    takes_label: bool
    _values: Mapping[str, str]
    _environ: Mapping[str, str]
    _home: Path | None

    @classmethod
    def parse(
        cls, text: str, environ: Mapping[str, str], home: Path | None = None
    ) -> ConnInfoTemplate:
        r"""Read a connection string in either form; a backslash before the 1 needs no escape.

        :param text: the connection string.
        :param environ: see :meth:`ConnInfo.parse`.
        :param home: see :meth:`ConnInfo.parse`.
        :returns: the template.
        :raises ConfigurationError: with every mistake, ``\1`` in another parameter included.
        """
        # In keyword=value strings a backslash is an escape, so ``\1`` would be read as "1".
        mark = f"label{token_hex(8)}"
        values = {
            keyword: value.replace(mark, PLACE)
            for keyword, value in parse_text(text.replace(PLACE, mark)).items()
        }
        named = [keyword for keyword, value in values.items() if PLACE in value]
        if wrong := [keyword for keyword in named if keyword not in _KEYWORDS]:
            raise ConfigurationError(
                *(rf'"\1" can stand in host, hostaddr and dbname, not in {name}' for name in wrong)
            )
        template = cls(bool(named), MappingProxyType(values), environ, home)
        template.example()
        return template

    def example(self) -> ConnInfo:
        """The connection string with a label that stands for any other.

        :returns: the parameters, all checked.
        :raises ConfigurationError: it cannot be used, whatever the label.
        """
        in_address = PLACE in self._values.get("hostaddr", "")
        return self.fill(_SAMPLE_OF_ADDRESS if in_address else _SAMPLE)

    def parameters(self, label: str) -> dict[str, str]:
        r"""What is written in the connection string, for one name.

        :param label: stands in place of ``\1``.
        :returns: values by keyword.
        """
        return {keyword: value.replace(PLACE, label) for keyword, value in self._values.items()}

    def fill(self, label: str) -> ConnInfo:
        r"""The connection string for one name.

        :param label: stands in place of ``\1``: 1 to 63 letters, digits, hyphens and underscores.
        :returns: the parameters, all checked.
        :raises ConfigurationError: the name is none that can stand there, or what it makes is no
            host.
        """
        if not _LABEL.fullmatch(label):
            raise ConfigurationError(f"{label[:63]!a} is not a label of a host name")
        conninfo = ConnInfo.from_parameters(self.parameters(label), self._environ, self._home)
        self._check_addresses(conninfo)
        return conninfo

    def _check_addresses(self, conninfo: ConnInfo) -> None:
        """See that no label makes an address by itself: for resolvers 2130706433 is 127.0.0.1.

        :raises ConfigurationError: it does.
        """
        named = self._values.get("host", "").split(",")
        for written, host in zip(named, conninfo.hosts, strict=False):  # not those of a service
            if written.startswith(PLACE) and not host.hostaddr and not host.has_name:
                raise ConfigurationError(f'"{host.host}" would be an address, not a host name')
        if any(each.startswith(PLACE) for each in self._values.get("hostaddr", "").split(",")):
            raise ConfigurationError(rf'"{PLACE}" cannot be the beginning of hostaddr')
