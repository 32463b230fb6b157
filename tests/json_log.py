"""``twistd --logger tests.json_log.observer``: the log with all its fields, on standard output."""

from __future__ import annotations

import sys

from twisted.logger import ILogObserver, jsonFileLogObserver


def observer() -> ILogObserver:
    return jsonFileLogObserver(sys.__stdout__, recordSeparator="")
