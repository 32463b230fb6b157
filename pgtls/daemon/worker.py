"""The program of a worker: ``python -m pgtls.daemon.worker``.

It imports little before it has made sure that it ends with the daemon.
"""

from __future__ import annotations

import signal
import sys

from pgtls.daemon.garbage_collector import collect_no_garbage
from pgtls.daemon.parent_death import end_with_parent
from pgtls.daemon.signals import OTHER_SIGNALS, STOP_SIGNALS

#: The daemon's: a terminal or systemd send them to its workers as well, which are to wait for it.
SIGNALS = (*STOP_SIGNALS, *OTHER_SIGNALS)


def main(arguments: list[str]) -> None:
    """Serve until the daemon says that it is enough.

    :param arguments: ``name=number``: ``worker``, counted from 1, to be seen in ``ps``;
        ``parent``, the daemon's process id; ``handover``, ``control`` and ``report``, descriptors.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    given = {name: int(value) for name, _, value in (each.partition("=") for each in arguments)}
    end_with_parent(given["parent"])
    collect_no_garbage()
    from pgtls.daemon.worker_service import run  # noqa: PLC0415 - this takes its time

    run(given["worker"] - 1, given["handover"], given["control"], given["report"])


if __name__ == "__main__":
    main(sys.argv[1:])
