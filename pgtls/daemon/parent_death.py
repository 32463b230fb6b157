"""The end of a process whose parent has ended, hung or not.

Linux: ``PR_SET_PDEATHSIG`` in prctl(2). Elsewhere a worker ends when its pipe to the daemon does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent has ended, however that ended.

    :param parent: the parent's process id. Where it has ended already, this process ends here.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
