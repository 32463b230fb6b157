"""What several processes know, put together."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pgtls.gateway.activity import GatewayActivity, LastRefusal
from pgtls.gateway.plaintext_clients import PlaintextClient
from pgtls.status.activity_sum import ActivitySum
from tests.support.status_documents import GATEWAY, session

Facts = tuple[str, int, float]


def activity(plaintext: tuple[Facts, ...] = (), refused: float | None = None) -> GatewayActivity:
    """Of a process with one session; plaintext: user, count, last seen."""
    return GatewayActivity(
        gateway=GATEWAY,
        open={"": 1},
        connections=2,
        sessions=[session()],
        plaintext=[
            PlaintextClient(
                gateway=GATEWAY,
                address="192.0.2.7",
                user=user,
                database="shop",
                count=count,
                last_seen=seen,
            )
            for user, count, seen in plaintext
        ],
        refusals=[
            LastRefusal(
                gateway=GATEWAY,
                reason="timeout",
                sqlstate="",
                last_seen=refused,
                address="192.0.2.7(1)",
                detail=f"at {refused}",
            )
        ]
        if refused is not None
        else [],
    )


class ActivitySumTests(SynchronousTestCase):
    """Two workers."""

    def setUp(self) -> None:
        self.sum = ActivitySum()

    def plaintext(self) -> list[Facts]:
        return [(each["user"], each["count"], each["last_seen"]) for each in self.sum.plaintext]

    def test_two_processes(self) -> None:
        one = activity((("alice", 2, 10.0), ("bob", 1, 30.0)), 5.0)
        other = activity((("alice", 3, 20.0),), 6.0)
        self.sum.update({"one": [one], "other": [other]}, ["one", "other"])
        self.assertEqual(self.sum.open, {(GATEWAY, ""): 2})
        self.assertEqual(self.sum.connections, {GATEWAY: 4})
        self.assertEqual(len(self.sum.sessions), 2)
        self.assertEqual(self.plaintext(), [("bob", 1, 30.0), ("alice", 5, 20.0)])
        self.assertEqual([each["detail"] for each in self.sum.refusals.values()], ["at 6.0"])

    def test_one_that_dies(self) -> None:
        one, other = activity((("alice", 2, 10.0),), 7.0), activity((("alice", 3, 20.0),), 6.0)
        self.sum.update({"one": [one], "other": [other]}, ["one", "other"])
        for _ in range(3):
            self.sum.update({"other": [other]}, ["other"])
            self.assertEqual(self.sum.open, {(GATEWAY, ""): 1})
            self.assertEqual(self.plaintext(), [("alice", 5, 20.0)])
            self.assertEqual([each["detail"] for each in self.sum.refusals.values()], ["at 7.0"])

    def test_one_that_does_not_answer_is_as_it_was(self) -> None:
        one, other = activity((("alice", 2, 10.0),)), activity((("alice", 3, 20.0),))
        self.sum.update({"one": [one], "other": [other]}, ["one", "other"])
        self.sum.update({"other": [other]}, ["one", "other"])
        self.assertEqual(self.sum.open, {(GATEWAY, ""): 2})
        self.assertEqual(self.plaintext(), [("alice", 5, 20.0)])
