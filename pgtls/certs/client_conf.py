"""``client.conf``: what a user needs to know of a site before making a key.

A text file: sections with ``name = value`` lines, then the authority's certificate as PEM, which
``openssl x509 -in client.conf`` finds too::

    [subject]
    organizationName = Example Inc.

    [key]
    type = ecdsa

    -----BEGIN CERTIFICATE-----
    ...
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from pgtls.certs.files import read_limited
from pgtls.certs.keys import KeyType
from pgtls.certs.names import SUBJECT_FIELDS, subject_field
from pgtls.errors import ConfigurationError
from pgtls.text import printable
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import signed_by
from pgtls.tls.sources import parse_chain, pem_of

_NAMES = {oid: name for name, (oid, _) in SUBJECT_FIELDS.items()}
_FIELDS = {oid.dotted_string: name for name, (oid, _) in SUBJECT_FIELDS.items()}
_BEGIN = re.compile(r"^-----BEGIN CERTIFICATE-----[ \t]*$", re.MULTILINE)
_END = re.compile(r"^-----END CERTIFICATE-----[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ClientConf:
    """The site's part of every client certificate.

    :ivar subject: fields in the order of the certificate; the common name is the user's own.
    """

    subject: tuple[x509.NameAttribute[str], ...]
    key_type: KeyType
    root: Certificate

    def text(self) -> str:
        """As it goes into the file."""
        fields = "".join(f"{_NAMES[field.oid]} = {field.value}\n" for field in self.subject)
        pem = pem_of(self.root.der).decode()
        return (
            "# For the users of this site's databases. To get a client certificate:\n"
            "#     pgtls keygen --conf client.conf --user ROLE\n"
            f"# Authority: {printable(self.root.subject_text)}\n"
            f"# SHA-256 of its certificate, to compare with what the DBA tells you:\n"
            f"#     {self.root.fingerprint}\n"
            f"\n[subject]\n{fields}\n[key]\ntype = {self.key_type}\n\n{pem}"
        )


def subject_of(fields: Iterable[tuple[str, str]]) -> tuple[x509.NameAttribute[str], ...]:
    """The site's fields of a subject.

    :param fields: names, as in :data:`~pgtls.certs.names.SUBJECT_FIELDS` or their short forms, and
        values.
    :returns: the fields, as a certificate has them.
    :raises ConfigurationError: a field is unknown, there twice, or its value cannot be used.
    """
    found: list[x509.NameAttribute[str]] = []
    for name, value in fields:
        field = subject_field(name, value)
        if field.oid == NameOID.COMMON_NAME:
            raise ConfigurationError("the commonName is the user's own: the role")
        if field.oid in [other.oid for other in found]:
            raise ConfigurationError(f"{_NAMES[field.oid]} is there twice")
        found.append(field)
    return tuple(found)


def fields_of(root: Certificate) -> list[tuple[str, str]]:
    """The fields of an authority's subject that its users' certificates may have too.

    :param root: the authority's certificate.
    :returns: names, as in :data:`~pgtls.certs.names.SUBJECT_FIELDS`, and values; the first of each.
    :raises ConfigurationError: they cannot be read.
    """
    found: dict[str, str] = {}
    try:
        for attribute in (each for rdn in root.subject.rdns for each in rdn):
            name = _FIELDS.get(attribute.oid)
            if name is not None and name != "commonName":
                found.setdefault(name, attribute.text())
    except ValueError as error:
        raise ConfigurationError(
            f"the subject of root.crt cannot be read ({error}): give the fields with --subject"
        ) from error
    return [(name, found[name]) for name in SUBJECT_FIELDS if name in found]


def read_client_conf(path: Path) -> ClientConf:
    """Read a ``client.conf`` that a DBA sent.

    :param path: the file, which is not trusted: at most 64 KiB are read.
    :returns: what it says.
    :raises ConfigurationError: it is not one, with the reason.
    """
    data = read_limited(path, "client configuration")
    try:
        return _parse(data)
    except ConfigurationError as error:
        raise ConfigurationError(f'client configuration "{path}": {error}') from error


def _parse(data: bytes) -> ClientConf:
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError("it is not text in UTF-8") from error
    begin = _BEGIN.search(text)
    sections = _sections(text[: begin.start()] if begin else text)
    unknown = [name for name in sections if name not in ("subject", "key")]
    if unknown:
        raise ConfigurationError(
            f"there is no section [{printable(unknown[0])}] in it, only [subject] and [key]"
        )
    key = dict(sections.get("key", {}))
    key_type = key.pop("type", KeyType.ECDSA)
    if key or key_type not in list(KeyType):
        kinds = ", ".join(KeyType)
        raise ConfigurationError(f"[key] has just one setting: type, one of {kinds}")
    subject = subject_of(sections.get("subject", {}).items())
    return ClientConf(subject, KeyType(key_type), _root(text[begin.start() :] if begin else ""))


def _sections(text: str) -> dict[str, dict[str, str]]:
    if not all(line.isprintable() for line in text.replace("\t", " ").split("\n")):
        raise ConfigurationError("it has characters that cannot be printed")
    parser = configparser.RawConfigParser(
        delimiters="=", comment_prefixes="#", default_section="", empty_lines_in_values=False
    )
    # Field names are countryName, not countryname.
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text, "line")
    except configparser.Error as error:
        raise ConfigurationError(printable(" ".join(str(error).split()))) from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _root(pem: str) -> Certificate:
    ends = list(_END.finditer(pem))
    if len(_BEGIN.findall(pem)) != 1 or len(ends) != 1 or pem[ends[0].end() :].strip():
        raise ConfigurationError(
            "it must end with the authority's certificate, in PEM, and with that alone"
        )
    try:
        root = parse_chain(pem.encode(), "it").certificates[0]
    except ConfigurationError as error:
        raise ConfigurationError("the authority's certificate is damaged") from error
    if not root.is_authority or not signed_by(root, root):
        raise ConfigurationError("the certificate in it is not an authority's own")
    return root
