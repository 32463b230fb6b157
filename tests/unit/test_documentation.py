"""The documentation names what is there: modules, files, public names."""

from __future__ import annotations

import re
from importlib import import_module
from io import StringIO
from pathlib import Path

from docutils.core import publish_doctree
from docutils.nodes import system_message
from twisted.trial.unittest import SynchronousTestCase

import pgtls

TOP = Path(__file__).parent.parent.parent
TEXTS = {
    str(path.relative_to(TOP)): path.read_text("utf-8")
    for path in (
        *TOP.glob("*.rst"),
        *TOP.glob("*.md"),
        *(TOP / "docs").glob("*.rst"),
        *(path for path in (TOP / "conf").rglob("*") if path.is_file()),
    )
}

#: A path of this repository's in a text; ``{a,b}`` and such are not looked at.
PATHS = re.compile(
    r"(?<![\w/.@-])((?:pgtls|docs|conf|tests|examples|benchmarks)/[\w./-]*\w\.(?:py|rst|toml|md|conf|cnf|service|json|yml|cfg))"
)

#: What docutils says of what is Sphinx's.
SPHINXS = re.compile(
    r"Unknown (directive type|interpreted text role)|No role entry|directive disabled"
)


class DocumentationTests(SynchronousTestCase):
    """README, docs/ and the others."""

    def test_the_files_that_are_named_exist(self) -> None:
        wrong = [
            f"{text}: {path}"
            for text, content in TEXTS.items()
            if text != "CHANGELOG.rst"
            for path in PATHS.findall(content)
            if not (TOP / path).exists()
        ]
        self.assertEqual(wrong, [])

    def test_the_markup_is_sound(self) -> None:
        """As far as docutils alone knows it: Sphinx's directives and roles are unknown to it."""
        settings = {"report_level": 2, "halt_level": 5, "warning_stream": StringIO()}
        wrong = []
        for text, content in TEXTS.items():
            if not text.endswith(".rst"):
                continue
            place = str((TOP / text).resolve())  # where names of included files count from
            tree = publish_doctree(content, source_path=place, settings_overrides=settings)
            for message in [*tree.findall(system_message), *tree.parse_messages]:
                said = message.astext()
                if message["level"] > 1 and not SPHINXS.search(said):
                    wrong.append(f"{text}: {said}")
        self.assertEqual(wrong, [])

    def test_the_names_in_directives_exist(self) -> None:
        wrong = []
        for text, content in TEXTS.items():
            for name in re.findall(r"^\.\. (?:auto\w+|pgtls-\w+):: (\S+)$", content, re.MULTILINE):
                module, _, attribute = name.rpartition(".")
                if not hasattr(import_module(module), attribute):
                    wrong.append(f"{text}: {name}")
        self.assertEqual(wrong, [])

    def test_every_public_name_is_in_the_reference(self) -> None:
        reference = re.findall(r":: pgtls\.(\w+)$", TEXTS["docs/api.rst"], re.MULTILINE)
        self.assertEqual(sorted(reference), pgtls.__all__)

    def test_every_page_is_in_the_table_of_contents(self) -> None:
        pages = {Path(text).stem for text in TEXTS if text.startswith("docs/")} - {"index"}
        contents = set(re.findall(r"^   (\w+)$", TEXTS["docs/index.rst"], re.MULTILINE))
        self.assertEqual(contents, pages)
