"""What a certificate's key and signature are called."""

from __future__ import annotations

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from pgtls.tls.certificate import Certificate

#: Keys whose kind says all about them.
_EDWARDS = {ed25519.Ed25519PublicKey: "ED25519", ed448.Ed448PublicKey: "ED448"}

#: How OpenSSL's short name of a signature is made, by the kind of the key that signs.
_SIGNATURES = {"1.2.840.113549.1.1": "RSA-{}", "1.2.840.10045.4": "ecdsa-with-{}"}


@lru_cache(maxsize=256)
def key_name(certificate: Certificate) -> str | None:
    """The algorithm of a certificate's key, with its length in bits.

    :param certificate: the certificate.
    :returns: ``RSA2048``, ``EC256``, as HAProxy has them; ``ED25519``; None for an unknown one.
    """
    try:
        key = certificate.cryptography().public_key()
    except Exception:  # of whatever a later version of cryptography raises for a kind of keys
        return None
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC{key.key_size}"
    if isinstance(key, dsa.DSAPublicKey):
        return f"DSA{key.key_size}"
    return next((name for kind, name in _EDWARDS.items() if isinstance(key, kind)), None)


@lru_cache(maxsize=256)
def signature_name(certificate: Certificate) -> str | None:
    """The algorithm that a certificate is signed with.

    :param certificate: the certificate.
    :returns: OpenSSL's short name: ``RSA-SHA256``, ``ecdsa-with-SHA256``; ``ED25519``; None for an
        unknown one.
    """
    try:
        read = certificate.cryptography()
        oid, algorithm = read.signature_algorithm_oid, read.signature_hash_algorithm
    except Exception:  # as above
        return None
    if algorithm is None:
        return {"1.3.101.112": "ED25519", "1.3.101.113": "ED448"}.get(oid.dotted_string)
    for prefix, form in _SIGNATURES.items():
        if oid.dotted_string.startswith(f"{prefix}."):
            return form.format(algorithm.name.upper())
    return None
