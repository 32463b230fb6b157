"""With what a private key is encrypted, as far as it matters: whether OpenSSL 3 can still do it.

PKCS #5 and PKCS #12 in an EncryptedPrivateKeyInfo (RFC 8018, RFC 7292), the header ``DEK-Info`` of
OpenSSL's traditional form (RFC 1421). The list is that of OpenSSL's manual, OSSL_PROVIDER-legacy.
"""

from __future__ import annotations

import re

from pgtls.tls.der import OBJECT_IDENTIFIER, SEQUENCE, dotted, elements, first, inner
from pgtls.tls.pem import blocks

_PBES2 = "1.2.840.113549.1.5.13"

#: By what stands in a key: a scheme of PKCS #5 or PKCS #12, or the cipher of PBES2.
_LEGACY = {
    "1.2.840.113549.1.5.1": "pbeWithMD2AndDES-CBC",
    "1.2.840.113549.1.5.3": "pbeWithMD5AndDES-CBC",
    "1.2.840.113549.1.5.4": "pbeWithMD2AndRC2-CBC",
    "1.2.840.113549.1.5.6": "pbeWithMD5AndRC2-CBC",
    "1.2.840.113549.1.5.10": "pbeWithSHA1AndDES-CBC",
    "1.2.840.113549.1.5.11": "pbeWithSHA1AndRC2-CBC",
    "1.2.840.113549.1.12.1.1": "pbeWithSHA1And128BitRC4",
    "1.2.840.113549.1.12.1.2": "pbeWithSHA1And40BitRC4",
    "1.2.840.113549.1.12.1.5": "pbeWithSHA1And128BitRC2-CBC",
    "1.2.840.113549.1.12.1.6": "pbeWithSHA1And40BitRC2-CBC",
    "1.2.840.113549.3.2": "RC2-CBC",
    "1.2.840.113549.3.4": "RC4",
    "1.2.840.113549.3.9": "RC5-CBC",
    "1.2.840.113533.7.66.10": "CAST5-CBC",
    "1.3.6.1.4.1.3029.1.2": "BF-CBC",
    "1.3.6.1.4.1.188.7.1.1.2": "IDEA-CBC",
    "1.2.410.200004.1.4": "SEED-CBC",
    "1.3.14.3.2.6": "DES-ECB",
    "1.3.14.3.2.7": "DES-CBC",
}

_DEK_INFO = re.compile(rb"^DEK-Info: *([A-Za-z0-9-]+)", re.MULTILINE)
_LEGACY_NAMES = re.compile(
    r"DES-(CBC|CFB|ECB|OFB).*|DESX.*|(BF|CAST|CAST5|IDEA|RC2|RC4|RC5|SEED)\b.*"
)


def legacy_cipher(data: bytes) -> str | None:
    """What a private key is encrypted with, if no default provider of OpenSSL 3 has it.

    :param data: the key, PEM or DER.
    :returns: the name of the cipher; None for any other, for no encryption, and for no key.
    """
    try:
        found = next((each for each in blocks(data) if each.name.endswith("PRIVATE KEY")), None)
    except ValueError:
        return None
    if found is None:
        return _scheme(data)
    if info := _DEK_INFO.search(found.header):
        name = info[1].decode().upper()
        return name if _LEGACY_NAMES.fullmatch(name) else None
    return _scheme(found.der) if found.name == "ENCRYPTED PRIVATE KEY" else None


def _scheme(der: bytes) -> str | None:
    """The same for an EncryptedPrivateKeyInfo."""
    try:
        oid, *parameters = inner(first(der, SEQUENCE).content)
        scheme = dotted(oid.content) if oid.tag == OBJECT_IDENTIFIER else ""
        if scheme == _PBES2:
            _, cipher = elements(parameters[0].content)
            scheme = dotted(first(cipher.content, OBJECT_IDENTIFIER).content)
    except (ValueError, IndexError):
        return None
    return _LEGACY.get(scheme)
