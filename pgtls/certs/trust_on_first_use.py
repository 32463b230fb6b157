"""Trust on first use: which certificate of a server's chain to trust, and ``root.crt`` that has it.

There is no store of our own. What is trusted goes into the file that libpq reads, below a line of
text, which libpq passes over, that says for which server: so a later look can tell a changed
certificate from a new server.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pgtls.certs.files import (
    PUBLIC,
    locked,
    make_directory,
    read_limited,
    refuse_symlink,
    write_file,
)
from pgtls.errors import CertificateNotVerified, ConfigurationError
from pgtls.text import printable
from pgtls.tls.certificate import Certificate
from pgtls.tls.chain import signed_by, verify_chain
from pgtls.tls.pem import looks_like_pem
from pgtls.tls.sources import load_roots, parse_roots, pem_of

#: The most that a root.crt may have: a system's whole collection is about a quarter of a megabyte.
_MAX_ROOT_CRT = 16 * 1024 * 1024

#: Octets of a SHA-256 digest.
_DIGEST = 32
_RECORD = re.compile(rb"^# pgtls trust: (\S+)", re.MULTILINE)


class RootNotSent(CertificateNotVerified):
    """The server sends no self-signed certificate that its own leads to.

    :ivar issuer: the name of the certificate that is missing, and of the authority that has it.
    """

    def __init__(self, issuer: str) -> None:
        super().__init__(
            f'the server does not send its root certificate, "{printable(issuer)}": ask the '
            "server's DBA, or that authority, for it; put it into root.crt yourself"
        )
        self.issuer = issuer


class CertificateChanged(CertificateNotVerified):
    """A server that was trusted shows a certificate that ``root.crt`` does not verify any more."""


def fingerprint(certificate: Certificate) -> str:
    """The SHA-256 fingerprint in the form in which ssh shows keys.

    :param certificate: the certificate.
    :returns: ``SHA256:`` and 43 characters of base64.
    """
    return "SHA256:" + base64.b64encode(certificate.sha256).decode().rstrip("=")


def parse_fingerprint(text: str) -> bytes:
    """Read a SHA-256 fingerprint: hexadecimal, with colons or without, or base64.

    :param text: as it was given, with ``SHA256:`` before it or without.
    :returns: its 32 bytes.
    :raises ValueError: it is none.
    """
    digits = re.sub(r"^sha-?256[:=]", "", text.strip(), flags=re.IGNORECASE)
    if re.fullmatch(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}", digits):
        return bytes.fromhex(digits.replace(":", ""))
    try:
        digest = base64.b64decode(digits.rstrip("=") + "=", validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != _DIGEST:
        raise ValueError(
            f'"{printable(text)}" is no SHA-256 fingerprint: 64 hexadecimal digits, or 43 '
            "characters of base64"
        )
    return digest


def roots_of(chain: Sequence[Certificate]) -> list[Certificate]:
    """The self-signed certificates that a server sent and by which its own verifies.

    A chain can lead to several, and by ways of which some are over: an authority that another has
    signed too ("cross-signed") is sent in two certificates of one name and key. So each is tried
    as a client's only root, by OpenSSL.

    :param chain: what the server sent, its own certificate first.
    :returns: in the order in which they were sent; at least one.
    :raises RootNotSent: the chain leads to none.
    :raises CertificateNotVerified: it leads to some, and verifies by none.
    """
    candidates = [each for each in dict.fromkeys(chain) if signed_by(each, each)]
    failures = {each: verify_chain(chain, [each]) for each in candidates}
    roots = [each for each in candidates if failures[each] is None]
    if roots:
        return roots
    reached = _reached(chain)
    reasons = [failure.reason for each, failure in failures.items() if failure and each in reached]
    if reasons:
        raise CertificateNotVerified(f"no client could verify this server: {reasons[0]}")
    raise RootNotSent(reached[-1].issuer_text)


def _reached(chain: Sequence[Certificate]) -> list[Certificate]:
    """The server's certificate and those that issued it, directly or not, whatever their dates."""
    reached = [chain[0]]
    for certificate in reached:  # which grows
        reached += [each for each in chain if each not in reached and signed_by(certificate, each)]
    return reached


@dataclass(frozen=True)
class RootFile:
    """``root.crt`` as it is.

    :ivar content: all of it, empty where there is no file.
    """

    path: Path
    content: bytes
    mode: int

    @classmethod
    def read(cls, path: Path) -> RootFile:
        """Read the file.

        :param path: where it is, or will be.
        :returns: it; empty where there is none.
        :raises ConfigurationError: it cannot be read, or libpq could make nothing of it.
        """
        refuse_symlink(path, "root certificate file")
        if not path.exists():
            return cls(path, b"", PUBLIC)
        content = read_limited(path, "root certificate file", _MAX_ROOT_CRT)
        if content.strip() and not looks_like_pem(content):
            raise ConfigurationError(
                f'root certificate file "{path}" is not in PEM, which is all that libpq reads'
            )
        return cls(path, content, stat.S_IMODE(path.stat().st_mode))

    @property
    def certificates(self) -> list[Certificate]:
        """The roots in it.

        :raises ConfigurationError: one of them cannot be read.
        """
        if not self.content.strip():
            return []
        return parse_roots(self.content, f'root certificate file "{self.path}"')

    @property
    def hosts(self) -> set[str]:
        """The servers for which something in it was added."""
        return {each.decode("utf-8", "replace") for each in _RECORD.findall(self.content)}

    def content_with(self, root: Certificate | None, host: str) -> bytes:
        """What it has to be for a server to be trusted.

        :param root: what to add, if it is not there; None where what is there verifies the server.
        :param host: the server, as in :func:`known`.
        :returns: all of it; as it is where nothing is missing.
        """
        pem = b""
        if root is not None and root not in self.certificates:
            pem = pem_of(root.der)
        elif host in self.hosts:
            return self.content
        today = datetime.now(UTC)
        line = f"# pgtls trust: {host} {today:%Y-%m-%d}\n".encode()
        between = b"" if self.content.endswith(b"\n") or not self.content else b"\n"
        return self.content + between + line + pem


def known(file: RootFile, chain: Sequence[Certificate], host: str) -> bool:
    """Whether ``root.crt`` verifies a server already.

    :param file: as it is.
    :param chain: what the server sent, its own certificate first.
    :param host: ``db.example.com:5432``.
    :returns: whether it does.
    :raises CertificateChanged: it did, and does not any more.
    :raises CertificateNotVerified: it would, were it not for the dates, and no other root that the
        server sends would either.
    """
    roots = file.certificates
    failure = verify_chain(chain, load_roots(file.content)) if roots else None
    if failure is None:
        return bool(roots)
    if any(signed_by(each, root) for each in _reached(chain) for root in roots):
        # An authority that was cross-signed may have outlived the older one.
        try:
            roots_of(chain)
        except CertificateNotVerified as error:
            raise CertificateNotVerified(
                f"the server's certificate does not verify: {failure.reason}"
            ) from error
        return False
    if host in file.hosts or _same_name_other_key(chain, roots):
        raise CertificateChanged(failure.reason)
    return False


def _same_name_other_key(chain: Sequence[Certificate], roots: Sequence[Certificate]) -> bool:
    """Whether the chain ends at an authority by the name of one that is trusted."""
    issuers = {certificate.issuer_der for certificate in chain}
    return any(root.subject_der in issuers for root in roots)


def chosen_root(
    chain: Sequence[Certificate], roots: Sequence[Certificate], wanted: bytes | None, host: str
) -> tuple[str, Certificate | None]:
    """Which root to add, and by which fingerprint the server is trusted.

    :param chain: what the server sent, its own certificate first.
    :param roots: those that could be added; none where ``root.crt`` verifies the server already.
    :param wanted: the SHA-256 fingerprint that was given; None where the user is asked.
    :param host: the server, as in :func:`known`.
    :returns: what has that fingerprint, empty without one; and the root, None for none.
    :raises CertificateNotVerified: neither the server's certificate nor a root has it.
    """
    first = roots[0] if roots else None
    if wanted is None:
        return "", first
    own = "fingerprint of the server's own certificate"
    candidates = [(own, chain[0], first)]
    candidates += [("fingerprint of the root", root, root) for root in roots]
    if not roots and len(chain) > 1:  # known already, and the root need not be sent then
        candidates.append(("fingerprint of the root", chain[-1], None))
    for by, certificate, root in candidates:
        if certificate.sha256 == wanted:
            return by, root
    raise CertificateNotVerified(
        f"neither the server's certificate nor its root has that fingerprint: {host} is another "
        "server, or somebody is between you and it; nothing was written"
    )


def trust_root(
    directory: Path, host: str, chain: Sequence[Certificate], root: Certificate | None
) -> Path:
    """Have every libpq client that reads ``root.crt`` in a directory verify a server from now on.

    :param directory: where ``root.crt`` is, or will be.
    :param host: the server, as in :func:`known`.
    :param chain: what it sent, its own certificate first.
    :param root: what to add; None where it is there and just the server is new.
    :returns: the file.
    :raises ConfigurationError: directory or file cannot be used; the file is then as it was.
    :raises CertificateChanged: another process has recorded another server's in the meantime.
    """
    make_directory(directory, 0o700)
    with locked(directory):
        file = RootFile.read(directory / "root.crt")
        known(file, chain, host)
        content = file.content_with(root, host)
        if content != file.content:
            write_file(file.path, content, file.mode, overwrite=True)
        return file.path
