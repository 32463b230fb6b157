"""``twistd --logger tests.support.json_log.observer``: the log with all its fields."""

from __future__ import annotations

import sys

from twisted.logger import ILogObserver, jsonFileLogObserver


def observer() -> ILogObserver:
    return jsonFileLogObserver(sys.__stdout__, recordSeparator="")
