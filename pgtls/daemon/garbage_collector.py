"""Python's garbage collector: it has nothing to do while a process of the daemon starts.

What is imported then stays, and going through all of it again and again takes a thirtieth of a
start's instructions. This module imports nothing heavy: it is among the first that are loaded.
"""

from __future__ import annotations

import gc


def collect_no_garbage() -> None:
    """Until :func:`collect_garbage`."""
    gc.disable()


def collect_garbage() -> None:
    """From now on. What is there stays there, and is not gone through again."""
    gc.freeze()
    gc.enable()
