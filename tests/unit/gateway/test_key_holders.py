"""Several holders of cancel keys as if they were one."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from pgtls.gateway.key_holders import KeyHolders, first_yes


class Holder:
    """Answers when it is told to.

    :ivar asked: what it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.answer: Deferred[bool | None] = Deferred()

    def has_key(self, key: bytes) -> Deferred[bool | None]:
        self.asked.append(("has_key", key))
        return self.answer

    def cancel(self, key: bytes) -> Deferred[bool | None]:
        self.asked.append(("cancel", key))
        return self.answer


class FirstYes(SynchronousTestCase):
    def test_none_to_ask(self) -> None:
        self.assertIs(self.successResultOf(KeyHolders().has_key(b"k")), False)

    def test_a_yes_does_not_wait_for_the_others(self) -> None:
        answers: list[Deferred[bool | None]] = [Deferred(), Deferred(), Deferred()]
        first = first_yes(answers)
        answers[1].callback(False)
        self.assertNoResult(first)
        answers[2].callback(True)
        self.assertIs(self.successResultOf(first), True)
        answers[0].callback(True)

    def test_no_waits_for_all(self) -> None:
        answers: list[Deferred[bool | None]] = [Deferred(), Deferred()]
        first = first_yes(answers)
        answers[1].callback(False)
        self.assertNoResult(first)
        answers[0].callback(False)
        self.assertIs(self.successResultOf(first), False)

    def test_one_that_does_not_know_leaves_it_open(self) -> None:
        for order in ((None, False), (False, None)):
            self.assertIsNone(self.successResultOf(first_yes(succeed(each) for each in order)))
        self.assertIs(self.successResultOf(first_yes(succeed(each) for each in (None, True))), True)

    def test_one_that_fails_does_not_know(self) -> None:
        failing: Deferred[bool | None] = fail(ZeroDivisionError())
        self.assertIsNone(self.successResultOf(first_yes([failing, succeed(False)])))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Holders(SynchronousTestCase):
    def test_the_others_are_not_asked_where_one_has_it(self) -> None:
        near, far = Holder(), Holder()
        near.answer.callback(True)
        self.assertIs(self.successResultOf(KeyHolders(lambda: [near, far]).has_key(b"k")), True)
        self.assertEqual(far.asked, [])

    def test_a_request_is_for_all_of_them(self) -> None:
        """Servers that know nothing of each other may give out the same key."""
        near, far = Holder(), Holder()
        near.answer.callback(True)
        self.assertIs(self.successResultOf(KeyHolders(lambda: [near, far]).cancel(b"k")), True)
        self.assertEqual(far.asked, [("cancel", b"k")])

    def test_those_that_there_are_now(self) -> None:
        there: list[Holder] = []
        holders = KeyHolders(lambda: there)
        self.assertIs(self.successResultOf(holders.has_key(b"k")), False)
        there.append(Holder())
        self.assertNoResult(holders.has_key(b"k"))
