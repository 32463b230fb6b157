"""What workers have counted that are gone: put together in one file for each kind of metric.

prometheus_client leaves the files of each process where they are, and reads all of them each time.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

#: In place of a process ID, which is never 0.
_NOBODY = "0"


def merge_dead_workers(directory: str, living: Collection[int]) -> None:
    """Put together what has been counted by processes that are gone.

    :param directory: where they have counted.
    :param living: the IDs of the processes that still count there.
    """
    kept = {_NOBODY, *map(str, living)}
    for kind in ("counter", "histogram"):
        dead = [
            path
            for path in Path(directory).glob(f"{kind}_*.db")
            if path.stem.rpartition("_")[2] not in kept
        ]
        if dead:
            _merge(kind, Path(directory), dead)


def _merge(kind: str, directory: Path, dead: list[Path]) -> None:
    whole, made = directory / f"{kind}_{_NOBODY}.db", directory / f".{kind}.new"
    files = [*dead, *([whole] if whole.exists() else [])]
    metrics = MultiProcessCollector.merge(map(str, files), accumulate=False)  # type: ignore[no-untyped-call]
    values = MmapedDict(str(made))  # type: ignore[no-untyped-call]
    for metric in metrics:
        for sample in metric.samples:
            names, labels = list(sample.labels), list(sample.labels.values())
            key = mmap_key(metric.name, sample.name, names, labels, metric.documentation)
            values.write_value(key, sample.value, 0.0)  # type: ignore[no-untyped-call]
    values.close()  # type: ignore[no-untyped-call]
    os.replace(made, whole)
    for path in dead:
        with suppress(FileNotFoundError):
            path.unlink()
