"""The public API is typed: an application of it, and the examples, pass ``mypy --strict``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pgtls

TOP = Path(__file__).parent.parent.parent
APPLICATION = TOP / "tests" / "support" / "typed_application.py"


#: What a Twisted application needs: zope's interfaces are types by a plugin only.
CONFIGURATION = """
[mypy]
strict = true
plugins = mypy_zope:plugin
untyped_calls_exclude = twisted
follow_imports = silent
"""


def mypy(directory: Path, *files: Path) -> tuple[int, str]:
    """Check files as an application's author would.

    :param directory: for the configuration.
    :param files: what to check.
    :returns: the exit status and what mypy printed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "mypy.ini"
    configuration.write_text(CONFIGURATION)
    options = ("--config-file", configuration, "--no-error-summary")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", *options),
            *("--cache-dir", TOP / ".mypy_cache" / "api", *files),
        ],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class TypingTests(SynchronousTestCase):
    """mypy on applications."""

    def test_an_application_and_the_examples_are_typed(self) -> None:
        examples = sorted((TOP / "examples").glob("*.py"))
        self.assertEqual(mypy(Path(self.mktemp()).absolute(), APPLICATION, *examples), (0, ""))

    def test_a_wrong_use_is_found(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        wrong = directory / "wrong.py"
        wrong.write_text("import pgtls\nreveal_type(pgtls.ConnInfo.parse(1, {}))\n")
        status, output = mypy(directory, wrong)
        self.assertEqual(status, 1)
        self.assertIn('has incompatible type "int"; expected "str"', output)
        self.assertIn('Revealed type is "pgtls.conninfo.connection_string.ConnInfo"', output)

    def test_the_application_uses_every_public_name(self) -> None:
        text = APPLICATION.read_text()
        self.assertEqual([name for name in pgtls.__all__ if f"pgtls.{name}" not in text], [])
