"""Whether one certificate was signed by another, and a chain leads to a root: OpenSSL decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from OpenSSL import crypto

from pgtls.tls.certificate import Certificate

#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL has no name for.
_NO_CHECK_TIME = 0x200000

#: OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_DATES = (9, 10)


@dataclass(frozen=True, slots=True)
class VerifyError:
    """Why a chain does not verify: OpenSSL's words.

    :ivar about_dates: a certificate is not valid yet, or no longer.
    """

    reason: str
    about_dates: bool


def verify_chain(
    chain: Sequence[Certificate], roots: Sequence[Certificate] | crypto.X509Store
) -> VerifyError | None:
    """Whether a peer's chain verifies.

    :param chain: what the peer sent, its own certificate first.
    :param roots: what is trusted.
    :returns: None where it does.
    """
    store = roots if isinstance(roots, crypto.X509Store) else crypto.X509Store()
    try:
        if not isinstance(roots, crypto.X509Store):
            for root in roots:
                store.add_cert(root.openssl())
        leaf, *others = [certificate.openssl() for certificate in chain]
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        number, depth = error.errors[0], error.errors[1]
        return VerifyError(f"{error} (depth {depth})", number in _DATES)
    except (crypto.Error, ValueError) as error:
        return VerifyError(str(error), about_dates=False)
    return None


def signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether one certificate's key signed another, and the names say so too. Dates do not count.

    :param certificate: the one that was signed.
    :param issuer: the one that may have signed it; itself, for a self-signed one.
    :returns: what OpenSSL finds; false also where it cannot read one of them.
    """
    store = crypto.X509Store()
    # A trusted certificate's own signature is looked at in a whole chain only; another's issuer
    # need be no root.
    own = certificate == issuer
    flags = crypto.X509StoreFlags
    store.set_flags(
        (flags.CHECK_SS_SIGNATURE if own else flags.PARTIAL_CHAIN)
        | _NO_CHECK_TIME
        | flags.IGNORE_CRITICAL
    )
    try:
        store.add_cert(issuer.openssl())
        crypto.X509StoreContext(store, certificate.openssl()).verify_certificate()
    except (crypto.X509StoreContextError, crypto.Error, ValueError):
        return False
    return True
