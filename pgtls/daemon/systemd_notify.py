"""What the daemon tells systemd: that it is ready, reloading, stopping, alive.

Source: sd_notify(3), systemd.service(5) (``Type=notify-reload``, ``WatchdogSec=``): a datagram of
``NAME=value`` lines to the socket that ``$NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

from twisted.logger import Logger

_log = Logger(namespace="pgtls.daemon")

#: Characters of a status line at most.
_STATUS_LENGTH = 500

#: Seconds that the service manager has to take a message without which it would act wrongly.
_PATIENCE = 1.0


class SystemdNotify:
    """Sends messages to the service manager; does nothing where there is none.

    :param environ: with ``NOTIFY_SOCKET``, and ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` where the
        unit has ``WatchdogSec=``.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog = _watchdog_seconds(environ) if self._address else None
        self._took = True

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> SystemdNotify:
        """Speak for the service, and have no program that this one starts do so.

        :param environ: the process's own; the variables are removed from it.
        :returns: what sends the messages.
        """
        notify = cls(environ)
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)
        return notify

    @property
    def used(self) -> bool:
        """Whether there is a service manager that takes messages."""
        return self._address[:1] in ("/", "@")

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between two calls of :meth:`alive`: half of what the unit allows. None where
        no service manager watches."""
        return None if self._watchdog is None else self._watchdog / 2

    def environment(self) -> dict[str, str]:
        """What a process that is to take this one's place needs to speak for the service.

        :returns: environment variables.
        """
        if not self.used:
            return {}
        watchdog = (
            {}
            if self._watchdog is None
            else {"WATCHDOG_USEC": str(int(self._watchdog * 1_000_000))}
        )
        return {"NOTIFY_SOCKET": self._address, **watchdog}

    def ready(self, status: str) -> None:
        """The daemon serves; also at the end of a reload, whether it succeeded or not.

        :param status: a line for ``systemctl status``.
        """
        self._send("READY=1", _status(status), f"MAINPID={os.getpid()}", patience=_PATIENCE)

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` must follow."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={microseconds}", patience=_PATIENCE)

    def stopping(self, status: str) -> None:
        """The daemon has been told to stop.

        :param status: a line for ``systemctl status``.
        """
        self._send("STOPPING=1", _status(status), patience=_PATIENCE)

    def status(self, status: str) -> None:
        """Something has changed.

        :param status: a line for ``systemctl status``.
        """
        self._send(_status(status))

    def alive(self) -> None:
        """The reactor is running."""
        self._send("WATCHDOG=1")

    def new_main_process(self, pid: int) -> None:
        """Another process takes over.

        :param pid: its process id.
        """
        self._send(f"MAINPID={pid}", patience=_PATIENCE)

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping takes longer.

        :param seconds: how long, from now on, at most.
        """
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def _send(self, *lines: str, patience: float = 0.0) -> None:
        """A service manager that does not listen must not hold up or end the daemon.

        :param patience: seconds that it has to make room for the message.
        """
        if not self.used:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(patience)
                sender.connect(address)
                sender.send("\n".join(lines).encode("utf-8", "replace"))
            self._took = True
        except OSError as error:
            if self._took:  # one line, not one for each beat of the watchdog
                _log.warn(
                    "could not notify the service manager at {address}: {error}",
                    address=self._address,
                    error=error.strerror or error,
                )
            self._took = False


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """``sd_watchdog_enabled``."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1_000_000 if text.isascii() and text.isdigit() and int(text) else None


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())[:_STATUS_LENGTH]
