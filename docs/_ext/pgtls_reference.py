"""Directives whose content is read from the code, so that the reference cannot drift from it.

``pgtls-settings``
    A table of the settings of the class that is its argument.
``pgtls-commands``
    What ``--help`` prints, for a click group and each of its commands.
``pgtls-interface``
    A zope.interface interface with its methods, which autodoc does not know.
``pgtls-modules``
    The modules of each package, with the first line of their documentation.
``pgtls-log-events``
    Every message that the package logs, with its level and fields.
``pgtls-metrics``
    The metrics of a tuple of them that is its argument.
``pgtls-refusal-reasons``
    The values that the label ``reason`` can have.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from pathlib import Path

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from zope.interface.interface import Method

import pgtls
from pgtls import settings
from pgtls.gateway.refusal_reason import REASONS, SERVER

PACKAGE = Path(pgtls.__file__).parent
LEVELS = {"debug", "info", "warn", "error", "critical", "failure"}


def resolve(path: str) -> object:
    """``package.module.Name`` as the object of that name."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


class FromCode(SphinxDirective):
    """A directive whose content is reStructuredText that is made from the code."""

    required_arguments = 0
    optional_arguments = 1

    def lines(self) -> Iterator[str]:
        """The text."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the text in the directive's place."""
        text = "\n".join(self.lines())
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def table(header: list[str], widths: list[int], rows: list[list[str]]) -> Iterator[str]:
    """A list-table."""
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield f"   :widths: {' '.join(map(str, widths))}"
    yield ""
    for row in [header, *rows]:
        for number, cell in enumerate(row):
            yield f"   {'*' if number == 0 else ' '} - {cell}".rstrip()
    yield ""


class Settings(FromCode):
    """``pgtls-settings``"""

    def lines(self) -> Iterator[str]:
        """A row for each setting."""
        rows = []
        for field in settings.fields(resolve(self.arguments[0])):
            default = field.default
            if isinstance(default, bool):
                default = "on" if default else "off"
            help_text = field.metadata["help"]
            sentence = (help_text[0].upper() + help_text[1:] + ".").replace("*", r"\*")
            shown = f"``{default}``" if default not in ("", ()) else ""
            rows.append([f"``{field.name}``", shown, sentence])
        yield from table(["setting", "default", "what it is"], [24, 16, 60], rows)


class Interface(FromCode):
    """``pgtls-interface``"""

    def lines(self) -> Iterator[str]:
        """The interface's text, and each of its methods."""
        interface = resolve(self.arguments[0])
        yield f".. py:class:: {self.arguments[0].rpartition('.')[2]}"
        yield ""
        yield from (f"   {line}" for line in cleandoc(interface.__doc__).splitlines())
        yield ""
        for name, method in interface.namesAndDescriptions(all=False):
            if isinstance(method, Method):
                yield f"   .. py:method:: {name}{method.getSignatureString()}"
            else:
                yield f"   .. py:attribute:: {name}"
            yield ""
            yield from (f"      {line}" for line in cleandoc(method.__doc__).splitlines())
            yield ""


class Commands(FromCode):
    """``pgtls-commands``"""

    def lines(self) -> Iterator[str]:
        """A section for the group and for each of its commands, with what ``--help`` prints."""
        group = resolve(self.arguments[0])
        whole = click.Context(group, info_name="pgtls", **group.context_settings)
        contexts = [whole]
        for name in group.list_commands(whole):
            command = group.get_command(whole, name)
            contexts.append(click.Context(command, info_name=name, parent=whole))
        for context in contexts:
            yield from section(context.command_path, context.get_help().splitlines())


def literal(text: Iterable[str]) -> Iterator[str]:
    """A literal block."""
    yield "::"
    yield ""
    yield from (f"   {line}".rstrip() for line in text)
    yield ""


def section(title: str, text: Iterable[str]) -> Iterator[str]:
    """A section with a literal block."""
    yield title
    yield "=" * len(title)
    yield ""
    yield from literal(text)


@dataclass(frozen=True, order=True)
class LogEvent:
    """A message of a ``Logger``'s, as the source has it."""

    room: str
    level: str
    format: str
    fields: tuple[str, ...]


def log_events() -> Iterator[LogEvent]:
    """Every call of a logger in the package that has its message in place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
            ):
                continue
            message = node.args[0]
            logger = ast.unparse(node.func.value)
            if (
                node.func.attr in LEVELS
                and logger.rpartition(".")[2].endswith(("_log", "log"))
                and isinstance(message, ast.Constant)
            ):
                fields = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
                yield LogEvent(room, node.func.attr, str(message.value), fields)


class LogEvents(FromCode):
    """``pgtls-log-events``"""

    def lines(self) -> Iterator[str]:
        """A row for each message."""
        rows = [
            [
                f"``pgtls.{event.room}``",
                "critical" if event.level == "failure" else event.level,
                f"``{event.format}``",
                ", ".join(f"``{field}``" for field in event.fields),
            ]
            for event in sorted(set(log_events()))
        ]
        yield from table(["package", "level", "message", "fields"], [18, 10, 47, 25], rows)


class Metrics(FromCode):
    """``pgtls-metrics``"""

    def lines(self) -> Iterator[str]:
        """A row for each metric."""
        rows = [
            [
                f"``{metric.shown}``",
                metric.kind,
                ", ".join(f"``{label}``" for label in metric.labels),
                metric.help.replace("*", r"\*"),
            ]
            for metric in resolve(self.arguments[0])
        ]
        yield from table(["metric", "kind", "labels", "what it says"], [30, 10, 24, 36], rows)


class RefusalReasons(FromCode):
    """``pgtls-refusal-reasons``"""

    def lines(self) -> Iterator[str]:
        """All of them."""
        yield ", ".join(f"``{reason}``" for reason in REASONS if reason != SERVER) + "."


class Modules(FromCode):
    """``pgtls-modules``"""

    def lines(self) -> Iterator[str]:
        """A table for each package."""
        for package in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
            yield f".. rubric:: pgtls/{package.name}"
            yield ""
            rows = [
                [f"``{path.name}``", first_line(path)]
                for path in sorted(package.glob("*.py"))
                if path.name != "__init__.py"
            ]
            yield from table(["module", "what it is for"], [25, 75], rows)


def first_line(path: Path) -> str:
    """The summary of a module's docstring, whose roles need no target here."""
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    summary = " ".join(docstring.partition("\n\n")[0].split())
    return re.sub(r":\w+:`~?([^`]+)`", r"``\1``", summary)


def check_public_names(app: Sphinx, failed: Exception | None) -> None:
    """Fail where a public name has no entry in the reference."""
    if failed is not None:
        return
    documented = {name for name, *_ in app.env.get_domain("py").get_objects()}
    for name in pgtls.__all__:
        if f"pgtls.{name}" not in documented:
            raise ValueError(f"docs/api.rst does not mention pgtls.{name}")


class AsWritten(str):
    """A piece of source whose repr() is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def signature_as_written(
    _app: Sphinx, what: str, _name: str, documented: object, *_: object
) -> tuple[str, str | None] | None:
    """A signature with its annotations as the source has them, and not what they stand for."""
    if what not in {"class", "exception", "function", "method"}:
        return None
    try:
        signature = inspect.signature(documented)
    except (TypeError, ValueError):
        return None
    parameters = [
        parameter.replace(
            annotation=_as_written(parameter.annotation),
            default=_shown_default(parameter.default),
        )
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    returned = signature.return_annotation
    shown = inspect.Signature(parameters)
    return str(shown), returned if what in {"function", "method"} else None


def _as_written(annotation: object) -> object:
    return AsWritten(annotation) if isinstance(annotation, str) else annotation


def _shown_default(default: object) -> object:
    made_in_place = callable(default) and default is not inspect.Parameter.empty
    return AsWritten("...") if made_in_place else default


def setup(app: Sphinx) -> dict[str, bool]:
    """Make the directives known to Sphinx."""
    app.add_directive("pgtls-settings", Settings)
    app.add_directive("pgtls-commands", Commands)
    app.add_directive("pgtls-interface", Interface)
    app.add_directive("pgtls-modules", Modules)
    app.add_directive("pgtls-log-events", LogEvents)
    app.add_directive("pgtls-metrics", Metrics)
    app.add_directive("pgtls-refusal-reasons", RefusalReasons)
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("build-finished", check_public_names)
    return {"parallel_read_safe": True}
