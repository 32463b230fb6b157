"""The project's jobs: ``nox`` runs the usual ones, ``nox -l`` lists all of them.

``.ci/run`` runs the same jobs on a bare machine.
"""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import nox

TOP = Path(__file__).parent
PYTHONS = ["3.11", "3.12", "3.13"]

nox.options.sessions = ["unit", "lint", "types", "docs"]
nox.options.error_on_missing_interpreters = False


def lower_bounds() -> list[str]:
    """The oldest release of each dependency that setup.cfg allows, as constraints of pip's.

    :returns: ``twisted==26.4`` for ``twisted[tls] >= 26.4``, and so on.
    """
    parser = configparser.ConfigParser()
    parser.read(TOP / "setup.cfg")
    required = parser["options"]["install_requires"]
    bounds = re.findall(r"^([\w.-]+)(?:\[\w+\])? *>= *([\d.]+)", required, re.MULTILINE)
    return [f"{name}=={version}" for name, version in bounds]


def trial(session: nox.Session, *default: str) -> None:
    """Run tests with trial, those named behind ``--`` instead of the default."""
    session.run("python", "-m", "twisted.trial", *(session.posargs or default))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, on each Python that is there."""
    session.install(".[test]")
    trial(session, "tests")


@nox.session
def unit(session: nox.Session) -> None:
    """The tests that need no server; under a minute."""
    session.install(".[test]")
    trial(session, "tests.unit")


@nox.session
def integration(session: nox.Session) -> None:
    """The tests against real servers and clients."""
    session.install(".[test]")
    trial(session, "tests.integration", "tests.daemon")


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """The unit tests with the oldest dependencies that setup.cfg allows."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(lower_bounds()) + "\n")
    session.install("--constraint", str(constraints), ".[test]")
    trial(session, "-j2", "tests.unit")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: style, mistakes, formatting."""
    session.install("ruff>=0.13")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install(".[dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into ``build/docs``; a warning is an error."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "build/docs")


@nox.session
def faults(session: nox.Session) -> None:
    """What must survive when things fail, with figures: half an hour.

    Linux, root, HAProxy, socat, curl, faketime.
    """
    programs = ("unshare", "ip", "haproxy", "socat", "curl", "faketime")
    if missing := [program for program in programs if not shutil.which(program)]:
        session.error(f"not installed: {', '.join(missing)}")
    # Networks and mounts of its own, which go with it.
    apart = ("unshare", "-n", "-m")
    if subprocess.run([*apart, "true"], check=False).returncode:  # noqa: S603
        session.error("namespaces need root, in a container CAP_SYS_ADMIN too: sudo nox -s faults")
    session.install(".[test]")
    modules = ("fleet", "servers_fail", "clients_fail", "resources_fail", "very_many")
    names = session.posargs or [f"tests.faults.{module}" for module in modules]
    session.run(*apart, "python", "-m", "twisted.trial", *names, external=True)


@nox.session
def soak(session: nox.Session) -> None:
    """Everything at once for 30 minutes: no failure, and nothing grows; ``-- --minutes 5``."""
    session.install(".[test]")
    session.run("python", "-m", "tests.faults.soak", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The gateway beside its peers; takes a quarter of an hour."""
    session.install(".[test]")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Inputs that break a parser: 20 s for each; ``-- -s 600 hba ident``: longer, and some."""
    session.install(".[fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines the unit tests run; fails below the floor."""
    session.install(".[dev]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "twisted.trial", *(session.posargs or ["tests.unit"]))
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def changelog(session: nox.Session) -> None:
    """What CHANGELOG.rst would say of the next version."""
    session.install("towncrier>=24.8")
    session.run("towncrier", "build", "--draft", "--version", "next")
