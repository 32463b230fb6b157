"""The page: all that there is to see, in HTML that nobody else can write into."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

from twisted.trial.unittest import SynchronousTestCase

from pgtls.status.status_page import MOST_ROWS, asset, page
from tests.support.processes import environment
from tests.support.status_documents import HOSTILE, status_document

#: Contrast of text (WCAG 2.2, 1.4.3).
ENOUGH = 4.5


class Elements(HTMLParser):
    """What a page consists of.

    :ivar found: each element's name and attributes.
    :ivar text: all text.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


class PageTests(SynchronousTestCase):
    """The page of a document with hostile names."""

    def setUp(self) -> None:
        self.elements = Elements("".join(page(status_document(ready=False))))

    def test_names_are_text(self) -> None:
        self.assertEqual(self.elements.named("img"), [])
        (script,) = self.elements.named("script")
        self.assertEqual(script, {"src": "status.js", "defer": None})
        for _, found in self.elements.found:
            self.assertFalse([name for name in found if name.startswith("on")])
            for name in ("id", "class", "href", "src"):
                self.assertNotIn("alert", found.get(name) or "")
        self.assertGreaterEqual(self.elements.text.count(HOSTILE[:20]), 8)

    def test_an_upstream_that_is_reached_through_SSH(self) -> None:
        self.assertIn(f"through ssh://{HOSTILE}@bastion", self.elements.text)

    def test_nothing_is_written_in_place(self) -> None:
        """The Content-Security-Policy forbids it."""
        self.assertEqual(self.elements.named("style"), [])
        self.assertFalse(any("style" in found for _, found in self.elements.found))

    def test_nothing_comes_from_elsewhere(self) -> None:
        html = "".join(page(status_document())) + "".join(
            asset(name).decode() for name in ("status.css", "status.js")
        )
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", html))
        self.assertEqual(found, set())

    def test_all_of_it_is_there_without_a_script(self) -> None:
        for text in (
            "Not ready",
            "the upstream is not reachable",
            "role0",
            "192.0.2.7(1234)",
            "X25519MLKEM768",
            "0A1B2C",
            "1 h 1 min",
            "56.8 MB",
            "expired",
            "3 days",
            "plaintext refused",
            "28000",
            "192.0.2.9",
            "[::1]:6433",
            "known when a client comes",
            "12,345",
        ):
            self.assertIn(text, self.elements.text)
        self.assertEqual(len(self.elements.named("polyline")), 5)

    def test_who_does_not_see_it(self) -> None:
        names = Counter(tag for tag, _ in self.elements.found)
        for landmark in ("header", "nav", "main", "footer", "h1"):
            self.assertEqual(names[landmark], 1, landmark)
        self.assertEqual(names["caption"], names["table"])
        self.assertTrue(all(each.get("scope") for each in self.elements.named("th")))
        for each in self.elements.named("svg"):
            self.assertEqual(each["role"], "img")
            self.assertRegex(each["aria-label"] or "", r"the last .* now; at most")
        (html,) = self.elements.named("html")
        self.assertEqual(html["lang"], "en")
        regions = [found for _, found in self.elements.found if found.get("role") == "region"]
        ids = Counter(found["id"] for _, found in self.elements.found if "id" in found)
        self.assertEqual(set(ids.values()), {1})
        for each in regions:
            self.assertEqual(each["tabindex"], "0")
            self.assertIn(each["aria-labelledby"], ids)
        links = {found["href"] for found in self.elements.named("a")}
        for link in links:
            if link and link.startswith("#"):
                self.assertIn(link[1:], ids)

    def test_what_is_replaced_can_be_found(self) -> None:
        for _, found in self.elements.found:
            if "data-live" in found:
                self.assertIn("id", found)

    def test_very_many_sessions(self) -> None:
        html = "".join(page(status_document(3 * MOST_ROWS)))
        self.assertIn(f"The oldest {MOST_ROWS} of {3 * MOST_ROWS}", html)
        self.assertEqual(html.count("192.0.2.7(1234)"), MOST_ROWS)

    def test_nothing_there_yet(self) -> None:
        document = status_document(0)
        document["sessions"] = document["refusals"] = document["plaintext"] = []  # type: ignore[typeddict-item]
        for name in ("open", "connected", "refused", "bytes_from_client", "bytes_to_client"):
            document["history"][name] = []  # type: ignore[literal-required]
        text = Elements("".join(page(document))).text
        for said in ("No session is open", "No client has been refused", "Nobody has"):
            self.assertIn(said, text)


class ColourTests(SynchronousTestCase):
    """Both themes can be read."""

    def test_contrast(self) -> None:
        light, dark = re.findall(r":root \{(.*?)\}", asset("status.css").decode(), re.DOTALL)
        for theme in (light, dark):
            colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
            pairs = [
                (name, ground) for name in ("text", "quiet") for ground in ("ground", "surface")
            ]
            pairs += [(name, "surface") for name in ("accent", "second", "good", "warn", "bad")]
            pairs += [("accent", "ground")]
            pairs += [(name, f"{name}-ground") for name in ("good", "warn", "bad")]
            for name, ground in pairs:
                ratio = contrast(colours[name], colours[ground])
                self.assertGreaterEqual(ratio, ENOUGH, f"{name} on {ground}")


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG has it."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


SHOWN_WITHOUT_IMPORTS = """
import sys
from pgtls.status.status_page import page
from tests.support.status_documents import status_document

class NothingMore:
    @staticmethod
    def find_spec(name, path=None, target=None):
        raise ImportError(name)

sys.meta_path.insert(0, NothingMore)
print("".join(page(status_document())))
"""


class Loaded(SynchronousTestCase):
    def test_it_is_shown_by_a_user_who_may_not_read_python(self) -> None:
        """As a daemon with ``--uid`` is."""
        done = subprocess.run(
            [sys.executable, "-c", SHOWN_WITHOUT_IMPORTS],
            env=environment({"PYTHONIOENCODING": "utf-8"}),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn("<title>", done.stdout, done.stderr)
