"""Each input that fuzzing begins with, or has found, through its target: see ``tests/fuzz``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import CORPORA, TARGETS, corpus


class CorpusTests(SynchronousTestCase):
    def test_every_target_takes_its_corpus(self) -> None:
        for name, target in TARGETS.items():
            for which, data in corpus(name):
                try:
                    target(data)
                except Exception as error:
                    raise AssertionError(f"{name}: {which}: {error!r}") from error

    def test_every_target_has_one(self) -> None:
        self.assertEqual({path.name for path in CORPORA.iterdir()}, set(TARGETS))

    def test_they_are_small(self) -> None:
        for name in TARGETS:
            sizes = {which: len(data) for which, data in corpus(name)}
            self.assertLessEqual(len(sizes), 60, name)
            self.assertLess(max(sizes.values()), 20_000, name)
