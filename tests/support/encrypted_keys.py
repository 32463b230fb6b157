"""Private keys that are encrypted in every way that openssl knows."""

from __future__ import annotations

import subprocess

from tests.support.certificates import Key

#: How ``openssl`` encrypts a key, for a few ciphers of each kind.
ENCRYPTIONS = {
    "aes_128": ("pkcs8", "-topk8", "-v2", "aes-128-cbc"),
    "aes_192": ("pkcs8", "-topk8", "-v2", "aes-192-cbc"),
    "aes_256": ("pkcs8", "-topk8", "-v2", "aes-256-cbc"),
    "camellia": ("pkcs8", "-topk8", "-v2", "camellia-192-cbc"),
    "aria": ("pkcs8", "-topk8", "-v2", "aria-256-cbc"),
    "triple_des": ("pkcs8", "-topk8", "-v2", "des3"),
    "scrypt": ("pkcs8", "-topk8", "-scrypt"),
    "sha_512": ("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"),
    "pkcs12_triple_des": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES"),
    "traditional_aes_192": ("ec", "-aes192"),
    "traditional_camellia": ("ec", "-camellia256"),
    "traditional_triple_des": ("ec", "-des3"),
}

#: The same for ciphers that OpenSSL 3 has in its legacy provider only.
LEGACY = {
    "md5_des": ("pkcs8", "-topk8", "-v1", "PBE-MD5-DES"),
    "sha1_rc2": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-RC2-128"),
    "sha1_rc4": ("pkcs8", "-topk8", "-v1", "PBE-SHA1-RC4-128"),
    "blowfish": ("pkcs8", "-topk8", "-v2", "bf"),
    "traditional_des": ("ec", "-des"),
}


_ALL_CIPHERS = ("-passout", "pass:secret", "-provider", "default", "-provider", "legacy")


def encrypted_key(key: Key, *arguments: str) -> bytes:
    """A key as openssl encrypts it."""
    done = subprocess.run(
        ["openssl", *arguments, *_ALL_CIPHERS],
        input=key.pem(),
        capture_output=True,
        check=True,
    )
    return done.stdout
