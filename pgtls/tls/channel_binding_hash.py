"""The hash of a certificate that SCRAM binds a channel to.

RFC 5929, section 4 (``tls-server-end-point``): the hash function of the certificate's signature,
SHA-256 in place of MD5 and SHA-1. ``pgtls_get_peer_certificate_hash`` in
``src/interfaces/libpq/fe-secure-openssl.c``.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from pgtls.tls.certificate import Certificate
from pgtls.tls.der import OBJECT_IDENTIFIER, SEQUENCE, Value, dotted, elements, first

_RSASSA_PSS = "1.2.840.113549.1.1.10"

#: The first parameter of RSASSA-PSS, its hash function; SHA-1 where it is not there.
_PSS_HASH = 0xA0

_SHA2 = "2.16.840.1.101.3.4"

#: Hash functions of signature algorithms, and of hash algorithms by themselves.
_HASHES = {
    "1.2.840.113549.1.1.4": "sha256",  # MD5
    "1.2.840.113549.1.1.5": "sha256",  # SHA-1
    "1.2.840.10040.4.3": "sha256",
    "1.2.840.10045.4.1": "sha256",
    "1.3.14.3.2.26": "sha256",
    "1.2.840.113549.2.5": "sha256",
    **{f"1.2.840.113549.1.1.{n}": h for n, h in ((14, "sha224"), (11, "sha256"))},
    **{f"1.2.840.113549.1.1.{n}": h for n, h in ((12, "sha384"), (13, "sha512"))},
    **{f"1.2.840.10045.4.3.{n}": f"sha{size}" for n, size in enumerate((224, 256, 384, 512), 1)},
    **{f"{_SHA2}.3.{n}": f"sha{size}" for n, size in enumerate((224, 256, 384, 512), 1)},
    **{f"{_SHA2}.3.{n}": f"sha3_{size}" for n, size in enumerate((224, 256, 384, 512), 9)},
    **{f"{_SHA2}.3.{n}": f"sha3_{size}" for n, size in enumerate((224, 256, 384, 512), 13)},
    **{f"{_SHA2}.2.{n}": f"sha{size}" for n, size in enumerate((256, 384, 512, 224), 1)},
    **{f"{_SHA2}.2.{n}": f"sha3_{size}" for n, size in enumerate((224, 256, 384, 512), 7)},
}


@lru_cache(maxsize=256)
def channel_binding_hash(certificate: Certificate) -> bytes | None:
    """Hash a server's certificate for ``tls-server-end-point``.

    :param certificate: the server's.
    :returns: the hash; None where its signature has no hash function of its own (Ed25519), or it
        cannot be found out: then no channel can be bound.
    """
    try:
        _, algorithm, *_ = elements(first(certificate.der, SEQUENCE).content)
        name = _HASHES.get(_hash_algorithm(algorithm))
    except ValueError:
        return None
    return hashlib.new(name, certificate.der).digest() if name is not None else None


def _hash_algorithm(algorithm: Value) -> str:
    """The type of an AlgorithmIdentifier; of RSASSA-PSS, that of its hash function.

    :raises ValueError: it is none.
    """
    oid, *parameters = elements(algorithm.content)
    if oid.tag != OBJECT_IDENTIFIER:
        raise ValueError("not an AlgorithmIdentifier")
    if dotted(oid.content) != _RSASSA_PSS:
        return dotted(oid.content)
    for part in elements(parameters[0].content) if parameters else ():
        if part.tag == _PSS_HASH:
            return _hash_algorithm(first(part.content, SEQUENCE))
    return "1.3.14.3.2.26"
