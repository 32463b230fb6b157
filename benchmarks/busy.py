"""A neighbour that takes a processor's caches: ``python -m benchmarks.busy PROCESSOR``.

Pinned to one processor, it reads through twice as much memory as the caches hold, a piece as large
as the second-level cache at a time, and pauses after each: what runs beside it finds its code and
data gone from the caches some thousand times a second, and still has most of the processor's time.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from subprocess import Popen

from tests.support.processes import environment

#: Seconds between two pieces.
PAUSE = 0.0005

#: Bytes of the caches, by level, where the system does not say.
TYPICAL = {2: 1 << 20, 3: 32 << 20}


@contextmanager
def neighbours() -> Iterator[list[Popen[bytes]]]:
    """One on each processor that we may use."""
    command = [sys.executable, "-m", "benchmarks.busy"]
    started = [
        Popen([*command, str(processor)], env=environment())
        for processor in os.sched_getaffinity(0)
    ]
    try:
        yield started
    finally:
        for each in started:
            each.kill()
            each.wait()


def take_caches(processor: int) -> None:
    """Go on until our parent is gone."""
    os.sched_setaffinity(0, {processor})
    sizes = TYPICAL | _caches(processor)
    pieces = [b"\1" * sizes[2] for _ in range(2 * max(sizes.values()) // sizes[2])]
    parent = os.getppid()
    for piece in cycle(pieces):
        piece.find(b"\0")  # reads all of it: there is none
        time.sleep(PAUSE)
        if os.getppid() != parent:
            return


def _caches(processor: int) -> dict[int, int]:
    """Bytes, by level, as Linux knows them."""
    entries = Path(f"/sys/devices/system/cpu/cpu{processor}/cache").glob("index*")
    return {
        int((each / "level").read_text()): int((each / "size").read_text().strip("K\n")) << 10
        for each in entries
    }


if __name__ == "__main__":
    take_caches(int(sys.argv[1]))
