"""The garbage collector of a daemon's processes."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from pgtls.daemon.garbage_collector import collect_garbage, collect_no_garbage


class GarbageCollector(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def test_it_rests_while_a_process_starts(self) -> None:
        collect_no_garbage()
        self.assertFalse(gc.isenabled())
        collect_garbage()
        self.assertTrue(gc.isenabled())

    def test_what_is_there_when_it_begins_is_no_work_for_it(self) -> None:
        there: list[object] = []
        collect_garbage()
        self.assertTrue(gc.is_tracked(there))
        self.assertFalse(any(each is there for each in gc.get_objects()))
