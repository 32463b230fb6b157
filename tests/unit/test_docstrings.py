"""Public docstrings are complete, and what the package got rid of stays away.

A public function or method with arguments documents each of them (``:param x:``), what it returns
(``:returns:``) and what it raises itself (``:raises X:``). Not so methods of Twisted's interfaces
(in camelCase), which are documented there, and click's commands, where it is the help text.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pgtls

PACKAGE = Path(pgtls.__file__).parent

#: What has no place in the package, as regular expressions.
LEFTOVERS = (r"__class__\s*=[^=]", r"\breactor: Any\b", r"\btransport: Any\b")

#: The packages without ``Any``.
TYPED = ("wire", "conninfo", "policy")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public function or method."""

    module: str
    line: int
    name: str
    node: Function

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.name}()"


def name_of(path: Path) -> str:
    """``pgtls.wire.messages`` for the file of that module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    """Each module's source, by its name."""
    return {name_of(path): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def public(module: str, source: str) -> Iterator[Public]:
    """The public functions of a module, those in its public classes included."""
    for node in ast.parse(source).body:
        inner: list[ast.stmt] = [node]
        prefix = ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            inner, prefix = node.body, f"{node.name}."
        for function in inner:
            if isinstance(function, Function) and has_a_docstring_of_its_own(function):
                yield Public(module, function.lineno, prefix + function.name, function)


def has_a_docstring_of_its_own(function: Function) -> bool:
    """Whether a caller looks for its documentation here."""
    interface = re.search(r"[a-z][A-Z]", function.name)
    decorators = " ".join(ast.unparse(decorator) for decorator in function.decorator_list)
    elsewhere = re.search(r"\b(click\.\w+|command|overload|override|\w+\.setter)\b", decorators)
    return not (function.name.startswith("_") or interface or elsewhere) and bool(
        parameters(function)
    )


def parameters(function: Function) -> list[str]:
    """The names of the parameters, without ``self`` and ``cls``."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    return [argument.arg for argument in every if argument.arg not in {"self", "cls"}]


def raised(function: Function) -> set[str]:
    """The names of the exceptions that its own ``raise`` statements let out."""
    found: set[str] = set()

    def walk(node: ast.AST, caught: set[str]) -> None:
        if isinstance(node, Function | ast.Lambda | ast.ClassDef):
            return
        if isinstance(node, ast.Raise) and node.exc is not None:
            called = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = ast.unparse(called).rpartition(".")[2]
            if name[0].isupper() and name not in caught | {"NotImplementedError"}:
                found.add(name)
        if isinstance(node, ast.Try):
            handled = {
                name.rpartition(".")[2]
                for handler in node.handlers
                for name in re.findall(r"[\w.]+", ast.unparse(handler.type or ast.Name("")))
            }
            for statement in node.body:
                walk(statement, caught | handled)
            rest = [*node.handlers, *node.orelse, *node.finalbody]
        else:
            rest = list(ast.iter_child_nodes(node))
        for child in rest:
            walk(child, caught)

    for statement in function.body:
        walk(statement, set())
    return found


def missing(function: Function) -> list[str]:
    """The fields that its docstring lacks."""
    docstring = ast.get_docstring(function) or ""
    wanted = [f":param {name}:" for name in parameters(function)]
    returned = ast.unparse(function.returns) if function.returns else "None"
    if returned not in {"None", "NoReturn", "Never"}:
        wanted.append(":returns:")
    wanted += [f":raises {name}:" for name in sorted(raised(function))]
    return [field for field in wanted if field not in docstring]


def undocumented_construction(module: str, source: str) -> Iterator[str]:
    """The parameters of public classes that neither ``:param x:`` nor ``:ivar x:`` tells of."""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for function in node.body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                docstring = ast.get_docstring(node) or ""
                yield from (
                    f"{module}:{node.lineno}: {node.name} lacks :param {name}:"
                    for name in parameters(function)
                    if not re.search(rf":(param|ivar) {name}:", docstring)
                )


class DocstringTests(SynchronousTestCase):
    """Docstrings."""

    def test_public_classes_document_how_they_are_made(self) -> None:
        mistakes = [
            mistake
            for module, source in sources().items()
            for mistake in undocumented_construction(module, source)
        ]
        self.assertEqual(mistakes, [], "\n" + "\n".join(mistakes))

    def test_public_functions_document_their_parameters_results_and_exceptions(self) -> None:
        mistakes = [
            f"{function} lacks {', '.join(lacking)}"
            for module, source in sources().items()
            for function in public(module, source)
            if (lacking := missing(function.node))
        ]
        self.assertEqual(mistakes, [], "\n" + "\n".join(mistakes))

    def test_the_check_sees_what_is_missing(self) -> None:
        source = (
            "def documented(one: int) -> int:\n"
            "    ''':param one: x. :returns: y. :raises ValueError: z.'''\n"
            "    raise ValueError\n"
            "def bare(one: int, *, two: int) -> int:\n"
            "    try:\n"
            "        raise KeyError('caught')\n"
            "    except KeyError:\n"
            "        raise errors.Refused('not caught') from None\n"
            "def _private(one: int) -> int: ...\n"
            "class Protocol:\n"
            "    def dataReceived(self, data: bytes) -> None: ...\n"
            "    def method(self, one: int) -> None: ...\n"
        )
        found = {function.name: missing(function.node) for function in public("example", source)}
        self.assertEqual(
            found,
            {
                "documented": [],
                "bare": [":param one:", ":param two:", ":returns:", ":raises Refused:"],
                "Protocol.method": [":param one:"],
            },
        )


class LeftoverTests(SynchronousTestCase):
    """What the package got rid of."""

    def test_they_do_not_come_back(self) -> None:
        for pattern in LEFTOVERS:
            found = [module for module, source in sources().items() if re.search(pattern, source)]
            self.assertEqual(found, [], pattern)

    def test_protocol_connection_strings_and_policy_have_no_Any(self) -> None:
        found = [
            module
            for module, source in sources().items()
            if module.split(".")[1:2] and module.split(".")[1] in TYPED
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name | ast.alias)
            and getattr(node, "id", getattr(node, "name", "")) == "Any"
        ]
        self.assertEqual(found, [])

    def test_no_two_modules_have_one_name(self) -> None:
        names = Counter(
            path.stem for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")
        )
        twice = {name for name, count in names.items() if count > 1}
        self.assertEqual(twice, set())
