"""A certificate revocation list as it stands in DER, each part read when it is asked for.

OpenSSL decides with it; here are issuer, dates and serial numbers, to show them and to warn.
RFC 5280, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from pgtls.tls.certificate import extensions
from pgtls.tls.der import (
    GENERALIZED_TIME,
    INTEGER,
    SEQUENCE,
    UTC_TIME,
    Value,
    elements,
    first,
    moment,
)
from pgtls.tls.distinguished_name import UNREADABLE, DistinguishedName

AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"

_EXTENSIONS = 0xA0
_TIMES = (UTC_TIME, GENERALIZED_TIME)


@dataclass(frozen=True)
class RevocationList:
    """A CRL. Each property raises ValueError where its part is not what it should be.

    :ivar der: all of it.
    """

    der: bytes

    @cached_property
    def _fields(self) -> list[Value]:
        """signature, issuer, thisUpdate and what follows."""
        to_be_signed = first(first(self.der, SEQUENCE).content, SEQUENCE)
        fields = list(elements(to_be_signed.content))
        if fields and fields[0].tag == INTEGER:  # the version
            del fields[0]
        tags = [field.tag for field in fields[:3]]
        if tags[:2] != [SEQUENCE, SEQUENCE] or tags[2:] not in ([each] for each in _TIMES):
            raise ValueError("not a certificate revocation list")
        return fields

    @property
    def issuer_der(self) -> bytes:
        """The name of the authority that signed it, to compare it with a certificate's issuer."""
        return self._fields[1].whole

    @cached_property
    def issuer_text(self) -> str:
        """The same in RFC 4514's form, for a person to read; never fails."""
        try:
            return DistinguishedName.parse(self._fields[1].content).legible()
        except ValueError:
            return UNREADABLE

    @property
    def this_update(self) -> datetime:
        """When it was made, in UTC."""
        return moment(self._fields[2])

    @property
    def next_update(self) -> datetime | None:
        """When it expires, in UTC; None where it does not say."""
        following = self._fields[3] if len(self._fields) > 3 else None
        return moment(following) if following and following.tag in _TIMES else None

    @property
    def authority_key_identifier(self) -> bytes | None:
        """The extension that tells keys of one authority apart; None without one."""
        for field in self._fields[3:]:
            if field.tag == _EXTENSIONS:
                found = dict(extensions(first(field.content, SEQUENCE).content))
                return found.get(AUTHORITY_KEY_IDENTIFIER)
        return None

    def serials(self) -> Iterator[int]:
        """The serial numbers of the revoked certificates."""
        for field in self._fields[3:5]:
            if field.tag == SEQUENCE:
                for entry in elements(field.content):
                    number = first(entry.content, INTEGER).content
                    yield int.from_bytes(number, "big", signed=True)
