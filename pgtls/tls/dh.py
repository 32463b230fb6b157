"""Parameters for ephemeral Diffie-Hellman in TLS 1.2, built in and from ``ssl_dh_params_file``.

A client that names RFC 7919's groups, as OpenSSL 3 and later do where TLS 1.3 is on as well, gets
one of those from OpenSSL 4 and never sees the parameters; they are for all others.
"""

from __future__ import annotations

import os
import secrets
from functools import lru_cache
from importlib.resources import as_file, files

from OpenSSL import SSL

from pgtls.errors import ConfigurationError
from pgtls.reading import read_file
from pgtls.tls.der import INTEGER, inner
from pgtls.tls.pem import file_of, first_block

Path = str | os.PathLike[str]

#: Bits of the smallest prime that is accepted; OpenSSL's security level 2 refuses less as well.
SMALLEST = 2048
#: Bits of the largest; OpenSSL computes with no more.
LARGEST = 10000

#: PKCS #3 and X9.42.
_NAMES = ("DH PARAMETERS", "X9.42 DH PARAMETERS")

# A composite number passes one round by chance with probability 1/4 at most.
_ROUNDS = 12


def load_builtin_dh_params(context: SSL.Context) -> None:
    """Use ffdhe3072 of RFC 7919, which is built in.

    :param context: a server's.
    """
    with as_file(files("pgtls.tls") / "ffdhe3072.pem") as path:
        context.load_tmp_dh(path)


def load_dh_params(context: SSL.Context, path: Path) -> None:
    """Use the parameters in a PEM file (``openssl dhparam`` makes them), as ``ssl_dh_params_file``.

    They are checked as PostgreSQL's ``load_dh_file`` does it, and for their size.

    :param context: a server's.
    :param path: the file.
    :raises ConfigurationError: the file cannot be read, or the parameters are unsafe.
    """
    name = os.fspath(path)
    try:
        content = read_file(path)
    except OSError as error:
        raise ConfigurationError(
            f'could not open DH parameters file "{name}": {error.strerror}'
        ) from error
    try:
        prime, generator = _parse(content)
    except ValueError as error:
        raise ConfigurationError(f'could not load DH parameters file "{name}": {error}') from error
    if mistake := _mistake(prime, generator):
        raise ConfigurationError(f'invalid DH parameters in "{name}": {mistake}')
    try:
        with file_of(content) as parameters:
            context.load_tmp_dh(parameters)
    except SSL.Error as error:
        raise ConfigurationError(
            f'could not load DH parameters file "{name}": OpenSSL refuses them'
        ) from error


@lru_cache(maxsize=8)  # a server with a context for each host name asks for each
def _mistake(prime: int, generator: int) -> str | None:
    """What is wrong with parameters.

    PostgreSQL lets a safe prime make up for a bad generator. We don't: the generators that
    ``DH_check`` finds unsuitable, 1 and p-1 and beyond, make the secret public.
    """
    bits = prime.bit_length()
    if not SMALLEST <= bits <= LARGEST:
        return f"p has {bits} bits; from {SMALLEST} to {LARGEST} are accepted"
    if not _is_prime(prime):
        return "p is not prime"
    if not 1 < generator < prime - 1:
        return "not a suitable generator"
    return None


def _is_prime(number: int) -> bool:
    """Miller and Rabin's test of a number over 3, with bases that cannot be foreseen."""
    if number % 2 == 0:
        return False
    odd = number - 1
    twos = (odd & -odd).bit_length() - 1
    odd >>= twos
    return all(
        _passes(number, odd, twos, 2 + secrets.randbelow(number - 3)) for _ in range(_ROUNDS)
    )


def _passes(number: int, odd: int, twos: int, base: int) -> bool:
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


# cryptography reads these files too, but warns that it will cease to. -----------------------------


def _parse(pem: bytes) -> tuple[int, int]:
    """The prime and the generator, which PKCS #3 and X9.42 both begin with.

    :raises ValueError: there are none.
    """
    try:
        block = first_block(pem, _NAMES)
        numbers = inner(block.der)[:2] if block is not None else None
    except ValueError as error:
        raise ValueError("what is in it cannot be decoded") from error
    if numbers is None:
        raise ValueError("no DH PARAMETERS in PEM in it")
    if [number.tag for number in numbers] != [INTEGER, INTEGER]:
        raise ValueError("what is in it cannot be decoded")
    prime, generator = (int.from_bytes(number.content, signed=True) for number in numbers)
    return prime, generator
