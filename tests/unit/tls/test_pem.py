"""The reader of PEM, held against OpenSSL's: any bytes, and files that were edited by hand."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.pem import CERTIFICATES, CRLS, Block, blocks, file_of, why_nothing
from tests.support.certificates import Authority
from tests.support.pem_shapes import shapes

ONE, OTHER = Authority("one"), Authority("other")
FILES = [
    *shapes(ONE.pem(), OTHER.pem()).values(),
    ONE.pem() + ONE.issued.key.pem() + OTHER.crl(),
    ONE.crl() + OTHER.pem(),
]

#: What one finds, or puts, where lines begin and end.
PIECES = [
    *(
        b"#",
        b" ",
        b"x",
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\t",
        b":",
        b"-",
        b"=",
        b"\x80",
        b"\xef\xbb\xbf",
    ),
    *(b"-----", b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b"\n\n"),
    *(b"y" * 254, b"z" * 253, b"Proc-Type: 4,CLEAR\n", b"-----BEGIN X-----\n"),
    b"-----BEGIN FOO-----\nAAAA\n-----END FOO-----\n",
]


def openssl_reads(data: bytes) -> bool:
    """Whether OpenSSL loads a file of roots or CRLs."""
    with file_of(data) as path:
        try:
            SSL.Context(SSL.TLS_METHOD).load_verify_locations(path)
        except SSL.Error:
            return False
    return True


def we_read(data: bytes) -> bool:
    """The same of our reader, and of OpenSSL for what it finds."""
    try:
        found = blocks(data, (*CERTIFICATES, *CRLS))
    except ValueError:
        return False
    return bool(found)


def edited(data: bytes, dice: random.Random) -> bytes:
    """Changed in a few places, most of them where a line begins."""
    for _ in range(dice.randint(0, 4)):
        starts = [at for at in range(len(data)) if data[at - 1 : at] == b"\n"]
        at = dice.choice(starts) if starts and dice.random() < 0.7 else dice.randint(0, len(data))
        rest = at if dice.random() < 0.7 else at + dice.randint(1, 3)
        data = data[:at] + dice.choice(PIECES) * (rest == at) + data[rest:]
    return data


class AgainstOpenSSL(SynchronousTestCase):
    """What OpenSSL reads, it reads; what OpenSSL refuses for its form, it refuses."""

    def test_files_that_were_edited_by_hand(self) -> None:
        dice = random.Random(20261125)
        for _ in range(2000):
            data = edited(dice.choice(FILES), dice)
            if openssl_reads(data):
                self.assertTrue(we_read(data), data)
            elif we_read(data):  # for what is inside a block
                self.assertIn(b"-----", data)
                self.assertFalse(all(map(decodes, blocks(data))), data)

    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_any_bytes(self, data: bytes) -> None:
        for text in (
            data,
            b"-----BEGIN CERTIFICATE-----\n" + data + b"-----END CERTIFICATE-----\n",
        ):
            self.assertTrue(we_read(text) or not openssl_reads(text))


def decodes(block: Block) -> bool:
    """Whether OpenSSL can make something of what is in a block."""
    if block.header:
        return False
    try:
        if block.name in CERTIFICATES:
            crypto.load_certificate(crypto.FILETYPE_ASN1, block.der)
    except crypto.Error:
        return False
    return block.name in CERTIFICATES


class HintTests(SynchronousTestCase):
    """Why there is nothing in a file."""

    def test_the_true_reason(self) -> None:
        pem = Authority("root").pem()
        for data, expected in (
            (b"", "it is empty"),
            (b" \n", "it is empty"),
            (b"\0\xff" + pem, "it begins with a NUL"),
            (b"#" + pem, "a BEGIN line counts only at the start of a line"),
            (pem.replace(b"\n", b"\r"), "carriage return alone"),
            (blocks(pem)[0].der, "it is DER"),
            (b"text", ""),
        ):
            self.assertIn(expected, why_nothing(data))
            self.assertEqual(bool(expected), bool(why_nothing(data)))
