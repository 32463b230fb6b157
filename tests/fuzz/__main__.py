"""``python -m tests.fuzz [-s SECONDS] [TARGET...]``: look for inputs that break a target.

Each target gets a process of its own. What is found stays in ``build/fuzz/TARGET``; when it is
mended, it goes into the corpus, ``tests/fuzz/corpora/TARGET``, under a name that says what it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FOUND = Path("build/fuzz")

#: Bytes of an input, and seconds that one may take: a tenth of what would be a fault of ours, on a
#: machine that does nothing else.
MAX_LENGTH, MAX_SECONDS = 4096, 5


def names() -> list[str]:
    """The targets, without importing them."""
    return sorted(path.name for path in (Path(__file__).parent / "corpora").iterdir())


def fuzz(target: str, seconds: int) -> int:
    """Fuzz one target in a process of its own.

    :returns: its exit status.
    """
    found = FOUND / target
    grown = found / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    print(f"== {target}: {seconds} s", flush=True)
    return subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz", "--process", target),
            *(f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", f"-timeout={MAX_SECONDS}"),
            *(f"-artifact_prefix={found}/", "-print_final_stats=0", "-verbosity=0"),
            *(str(grown), str(Path(__file__).parent / "corpora" / target)),
        ],
        check=False,
    ).returncode


def process(target: str, arguments: list[str]) -> None:
    """What that process does."""
    import atheris  # noqa: PLC0415 - CI runs without it

    with atheris.instrument_imports(include=["pgtls"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    atheris.Setup([sys.argv[0], *arguments], TARGETS[target])
    atheris.Fuzz()


def main() -> int:
    """The command."""
    if sys.argv[1:2] == ["--process"]:
        process(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("-s", "--seconds", type=int, default=20, help="for each target")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names()))
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    broken = [each for each in chosen.targets or names() if fuzz(each, chosen.seconds)]
    if broken:
        print(f"broken: {', '.join(broken)}; the inputs are in {FOUND}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
