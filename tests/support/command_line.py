"""The ``pgtls`` command as a process of its own, for what needs a reactor of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tests.support.processes import TIMEOUT, environment

PGTLS = (sys.executable, "-c", "from pgtls.commands.main import main; main(prog_name='pgtls')")


def pgtls(*arguments: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """Run it to its end, without a terminal."""
    return subprocess.run(
        [*PGTLS, *arguments],
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def pgtls_json(*arguments: str, env: Mapping[str, str] = {}) -> Any:
    """Its JSON, however it ends."""
    done = pgtls(*arguments, "--json", env=env)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"no JSON: {done}") from None
