"""``target_session_attrs``: which sessions will do, and what has to be asked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.wire.session_attributes import (
    SELECT_RECOVERY,
    SHOW_READ_ONLY,
    SessionAttributes,
    TargetSessionAttrs,
    query_failed,
)
from pgtls.wire.session_start import SessionStart

ANY, READ_WRITE, READ_ONLY, PRIMARY, STANDBY, PREFER_STANDBY = TargetSessionAttrs
READY = b"Z\0\0\0\x05I"


def status(name: str, value: str) -> bytes:
    """The body of a ParameterStatus message."""
    return f"{name}\0{value}\0".encode()


def message(name: str, value: str) -> bytes:
    """All of it."""
    body = status(name, value)
    return b"S" + (4 + len(body)).to_bytes(4, "big") + body


def reported(*pairs: tuple[str, str]) -> SessionAttributes:
    """What is known after these."""
    known = SessionAttributes()
    for name, value in pairs:
        known = known.with_parameter(status(name, value))
    return known


class AttributesTests(SynchronousTestCase):
    def test_each_value_by_each_report(self) -> None:
        for read_only in ("on", "off"):
            for standby in ("on", "off"):
                known = reported(
                    ("default_transaction_read_only", read_only), ("in_hot_standby", standby)
                )
                writes = (read_only, standby) == ("off", "off")
                expected = {
                    ANY: None,
                    PREFER_STANDBY: None,
                    READ_WRITE: None if writes else "session is read-only",
                    READ_ONLY: "session is not read-only" if writes else None,
                    PRIMARY: None if standby == "off" else "server is in hot standby mode",
                    STANDBY: None if standby == "on" else "server is not in hot standby mode",
                }
                for target, mismatch in expected.items():
                    self.assertEqual(target.mismatch(known), mismatch, (target, known))

    def test_prefer_standby_goes_through_the_hosts_twice(self) -> None:
        self.assertEqual(PREFER_STANDBY.passes, (STANDBY, ANY))
        self.assertEqual(PRIMARY.passes, (PRIMARY,))

    def test_servers_that_do_not_report_it_are_asked(self) -> None:
        unknown = reported(("server_version", "13.4"))
        self.assertIsNone(ANY.query(unknown))
        for target, query, yes, mismatch in (
            (READ_WRITE, SHOW_READ_ONLY, b"on", "session is read-only"),
            (READ_ONLY, SHOW_READ_ONLY, b"off", "session is not read-only"),
            (PRIMARY, SELECT_RECOVERY, b"t", "server is in hot standby mode"),
            (STANDBY, SELECT_RECOVERY, b"f", "server is not in hot standby mode"),
        ):
            self.assertEqual(target.query(unknown), query)
            self.assertIsNone(target.mismatch(unknown))
            known = unknown.with_answer(query, yes)
            self.assertIsNone(target.query(known))
            self.assertEqual(target.mismatch(known), mismatch)

    def test_servers_before_9_have_no_standbys(self) -> None:
        known = reported(("server_version", "8.4.22"))
        self.assertIsNone(PRIMARY.query(known))
        self.assertIsNone(PRIMARY.mismatch(known))
        self.assertEqual(STANDBY.mismatch(known), "server is not in hot standby mode")
        self.assertEqual(READ_WRITE.query(known), SHOW_READ_ONLY)

    def test_the_names_of_queries_that_fail(self) -> None:
        self.assertEqual(query_failed(SHOW_READ_ONLY), '"SHOW transaction_read_only" failed')
        self.assertEqual(query_failed(SELECT_RECOVERY), '"SELECT pg_is_in_recovery()" failed')

    def test_what_is_no_parameter_status(self) -> None:
        for body in (b"", b"\0", b"in_hot_standby", b"server_version\0x\0"):
            self.assertIn(
                SessionAttributes().with_parameter(body),
                (SessionAttributes(), SessionAttributes(hot_standby=False)),
            )


class SessionStartTests(SynchronousTestCase):
    """A session's own messages, in any chunks."""

    def start(
        self, target: TargetSessionAttrs, data: bytes, size: int
    ) -> tuple[SessionStart, bytes]:
        start = SessionStart(target=target)
        passed = b""
        for at in range(0, len(data), size):
            passed += start.receive(data[at : at + size])
        return start, passed

    def test_ready_for_query_is_kept_back_where_it_is_another_session(self) -> None:
        before = message("in_hot_standby", "on") + message("default_transaction_read_only", "off")
        for size in (1, 7, 1000):
            start, passed = self.start(PRIMARY, before + READY, size)
            self.assertEqual(start.mismatch, "server is in hot standby mode")
            self.assertEqual(passed, before)
            for target in (ANY, STANDBY, PREFER_STANDBY):
                start, passed = self.start(target, before + READY, size)
                self.assertIsNone(start.mismatch)
                self.assertEqual(passed, before + READY)

    def test_what_is_not_reported_is_no_reason(self) -> None:
        start, passed = self.start(READ_WRITE, message("server_version", "13.4") + READY, 5)
        self.assertIsNone(start.mismatch)
        self.assertTrue(passed.endswith(READY))
