"""How a process has ended, in words."""

from __future__ import annotations

import signal


def described(code: int) -> str:
    """Describe it.

    :param code: the exit status, or minus the number of the signal.
    :returns: what goes behind the process's name.
    """
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = "SIGRT"
    return f"was ended by signal {-code} ({name})"
