"""The house: who may import whom, and how long a module may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pgtls
from tests.support.processes import environment

PACKAGE = Path(pgtls.__file__).parent

#: For each layer those below it. Imports go downwards only.
BELOW = {
    "wire": set[str](),
    "conninfo": {"wire"},
    "tls": {"wire", "conninfo"},
    "policy": {"wire", "conninfo", "tls"},
    "transport": {"wire", "conninfo", "tls", "policy"},
    "protocols": {"wire", "conninfo", "tls", "policy", "transport"},
    "certs": {"wire", "conninfo", "tls"},
    "probe": {"wire", "conninfo", "tls", "policy", "transport", "protocols", "certs"},
    "gateway": {"wire", "conninfo", "tls", "policy", "transport", "protocols", "certs"},
}
BELOW["status"] = {*BELOW["gateway"], "gateway"}
BELOW["daemon"] = {*BELOW["status"], "status"}
BELOW["commands"] = {*BELOW["daemon"], "daemon", "probe"}

#: Modules beside the rooms, which every room may use.
SHARED = {"errors", "reading", "settings", "text"}

#: Where twisted is not to be seen, and what else is not.
FOREIGN = {
    "wire": {"twisted", "OpenSSL", "cryptography"},
    "conninfo": {"twisted", "OpenSSL", "cryptography"},
    "tls": {"twisted"},
    "policy": {"twisted"},
}

#: What a module of ``wire`` leaves alone besides: files, sockets, processes, the clock.
IO = {
    "asyncio",
    "fcntl",
    "glob",
    "io",
    "mmap",
    "multiprocessing",
    "os",
    "pathlib",
    "pwd",
    "grp",
    "resource",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
}

#: Upward imports that are still to go.
STILL_UPWARD: set[str] = set()

MAX_LINES = 350

#: Modules that may be longer, each with the reason.
LONGER: dict[str, str] = {}


def modules(layer: str = "") -> list[Path]:
    """The source files of one layer, or of all."""
    found = sorted((PACKAGE / layer).rglob("*.py"))
    assert found, layer
    return found


def name_of(module: Path) -> str:
    """``pgtls.wire.server_negotiation``."""
    return ".".join(module.relative_to(PACKAGE.parent).with_suffix("").parts)


def imported(module: Path) -> Iterator[str]:
    """The full names of all that a module imports, under ``if TYPE_CHECKING`` and inside
    functions too."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:  # from . import server, from ..wire import server
                base = name_of(module).split(".")[: -node.level]
                origin = ".".join([*base, *([origin] if origin else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


class LayeringTests(SynchronousTestCase):
    """Layers."""

    def test_every_package_is_a_layer(self) -> None:
        packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        self.assertEqual(packages, set(BELOW))

    def test_imports_go_downwards_only(self) -> None:
        upward = []
        for layer, below in BELOW.items():
            for module in modules(layer):
                for name in imported(module):
                    root, *rest = name.split(".")
                    if root == "pgtls" and (not rest or rest[0] not in {layer, *below, *SHARED}):
                        upward.append(f"{name_of(module)} imports {name}")
        self.assertEqual(set(upward), STILL_UPWARD)

    def test_what_every_layer_may_use_uses_none(self) -> None:
        upward = [
            f"{name} imports {imports}"
            for name in sorted(SHARED)
            for imports in imported(PACKAGE / f"{name}.py")
            if imports.startswith("pgtls") and imports.split(".")[1] not in SHARED
        ]
        self.assertEqual(upward, [])

    def test_the_lower_layers_leave_out_what_is_not_theirs(self) -> None:
        wrong = [
            f"{name_of(module)} imports {name}"
            for layer, foreign in FOREIGN.items()
            for module in modules(layer)
            for name in imported(module)
            if name.split(".")[0] in foreign
        ]
        self.assertEqual(wrong, [])

    def test_wire_does_no_IO(self) -> None:
        wrong = [
            f"{name_of(module)} imports {name}"
            for module in modules("wire")
            for name in imported(module)
            if name.split(".")[0] in IO
        ]
        wrong += [
            f"{name_of(module)} calls {node.func.id}()"
            for module in modules("wire")
            for node in ast.walk(ast.parse(module.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if node.func.id in {"open", "print", "input", "__import__", "exec", "eval"}
        ]
        self.assertEqual(wrong, [])

    def test_no_module_of_wire_brings_in_twisted_or_OpenSSL(self) -> None:
        program = (
            "import importlib, sys\n"
            "for name in sys.argv[1:]:\n"
            "    importlib.import_module(name)\n"
            f"    foreign = {sorted(FOREIGN['wire'])} \n"
            "    brought = [package for package in foreign if package in sys.modules]\n"
            "    assert not brought, f'{name} brings in {brought}'\n"
        )
        names = [name_of(module) for module in modules("wire")]
        finished = subprocess.run(
            [sys.executable, "-c", program, *names],
            cwd=PACKAGE.parent,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((finished.returncode, finished.stderr), (0, ""))

    def test_the_public_names_resolve(self) -> None:
        for name in pgtls.__all__:
            self.assertTrue(hasattr(pgtls, name), name)

    def test_a_name_that_is_not_public_is_an_AttributeError(self) -> None:
        self.assertFalse(hasattr(pgtls, "no_such_name"))

    def test_modules_are_short(self) -> None:
        long = {
            name_of(module)
            for module in modules()
            if len(module.read_text("utf-8").splitlines()) > MAX_LINES
        }
        self.assertEqual(long, set(LONGER))
