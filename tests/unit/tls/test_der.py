"""The reader of DER: values or a ValueError, and nothing else, whatever it is given."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.tls.certificate import Certificate
from pgtls.tls.der import (
    GENERALIZED_TIME,
    OBJECT_IDENTIFIER,
    SEQUENCE,
    UTC_TIME,
    Value,
    dotted,
    elements,
    encoded,
    first,
    inner,
    moment,
)
from pgtls.tls.revocation_list import RevocationList
from pgtls.tls.tls_info import certificate_facts
from tests.support.certificates import Authority
from tests.support.odd_certificates import oid

ROOT = Authority("root")


class ValuesTests(SynchronousTestCase):
    """Tags, lengths and contents."""

    @given(st.lists(st.tuples(st.sampled_from([2, 4, 0x30, 0x82]), st.binary(max_size=300))))
    @settings(deadline=None)
    def test_what_was_written_is_read(self, values: list[tuple[int, bytes]]) -> None:
        der = b"".join(encoded(tag, content) for tag, content in values)
        self.assertEqual([(each.tag, each.content) for each in elements(der)], values)
        self.assertEqual(b"".join(each.whole for each in elements(der)), der)
        self.assertEqual(
            [each.tag for each in inner(encoded(SEQUENCE, der))], [t for t, _ in values]
        )

    def test_an_indefinite_length(self) -> None:
        one, two = encoded(2, b"\1"), encoded(4, b"\0\0")
        nested = b"\x30\x80" + one + b"\x31\x80" + two + b"\0\0\0\0"
        outer, after = elements(nested + one)
        self.assertEqual((outer.whole, after.whole), (nested, one))
        number, inside = inner(outer.whole)
        self.assertEqual((number.whole, next(elements(inside.content)).whole), (one, two))
        for damaged in (nested[:-1], nested[:-2], b"\x04\x80ab\0\0", b"\x30\x80" * 5000):
            with self.assertRaises(ValueError):
                list(elements(damaged))

    @given(st.binary(max_size=60))
    @settings(deadline=None)
    def test_any_bytes(self, der: bytes) -> None:
        for read in (
            lambda: list(elements(der)),
            lambda: first(der, SEQUENCE),
            lambda: inner(der),
            lambda: dotted(der),
            lambda: moment(Value(UTC_TIME, der, b"")),
            lambda: moment(Value(GENERALIZED_TIME, der, b"")),
        ):
            try:
                read()
            except ValueError:
                continue

    def test_a_length_that_is_longer_than_it_need_be(self) -> None:
        """BER, which OpenSSL reads too."""
        self.assertEqual(first(b"\x04\x82\x00\x01a", 4).content, b"a")

    def test_object_identifiers(self) -> None:
        for text in ("1.2.840.113549.1.9.14", "2.5.29.17", "2.47.3", "0.9.2342.19200300.100.1.25"):
            self.assertEqual(dotted(first(oid(text), OBJECT_IDENTIFIER).content), text)


class TimesTests(SynchronousTestCase):
    """UTCTime and GeneralizedTime, in the form that OpenSSL compares with."""

    def read(self, tag: int, text: bytes) -> datetime:
        return moment(Value(tag, text, b""))

    def test_both(self) -> None:
        self.assertEqual(self.read(UTC_TIME, b"491231235959Z").year, 2049)
        self.assertEqual(self.read(UTC_TIME, b"500101000000Z").year, 1950)
        self.assertEqual(
            self.read(GENERALIZED_TIME, b"99991231235959Z"),
            datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        )

    def test_other_forms(self) -> None:
        for text in (b"", b"4912312359Z", b"491231235959", b"491231235959+0100", b"491331000000Z"):
            self.assertRaises(ValueError, self.read, UTC_TIME, text)
        for text in (b"00000101000000Z", b"20300101000000.5Z", b"+2300101000000Z"):
            self.assertRaises(ValueError, self.read, GENERALIZED_TIME, text)


class DamagedTests(SynchronousTestCase):
    """Certificates and CRLs with a few bytes changed."""

    @given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 3))
    @settings(deadline=None, max_examples=300)
    def test_each_part_is_read_or_is_a_ValueError(self, at: int, byte: int, cut: int) -> None:
        whole = bytearray(ROOT.issued.shown.der)
        whole[at % len(whole)] = byte
        damaged = Certificate(bytes(whole[: len(whole) - cut]))
        certificate_facts(damaged)
        self.assertTrue(repr(damaged) and isinstance(damaged.is_authority, bool))
        for name in (
            "serial",
            "subject",
            "issuer",
            "not_before",
            "alternative_names",
            "self_issued",
        ):
            try:
                getattr(damaged, name)
            except ValueError:
                continue

    @given(st.binary(max_size=80))
    @settings(deadline=None)
    def test_a_CRL_of_any_bytes(self, der: bytes) -> None:
        crl = RevocationList(der)
        self.assertTrue(crl.issuer_text)
        for name in ("issuer_der", "this_update", "next_update", "authority_key_identifier"):
            self.assertRaises(ValueError, getattr, crl, name)
