"""The status page in a real browser: one session of it for all that there is to see."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.daemon.test_status import StatusCase
from tests.support.browser import NONE, Browser, browser
from tests.support.certificates import Files, authority
from tests.support.gateway_daemon import wait_until
from tests.support.servers import Server

ROLE = "<img src=x onerror=alert(1)>"
NAME = '"><script>alert(2)</script>'

TAB = "\ue004"
ENTER = "\ue007"


class StatusPageTests(StatusCase):
    """A gateway with clients whose names try to be HTML."""

    if NONE:
        skip = NONE

    def test_in_a_browser(self) -> None:
        server = Server(17)
        self.addCleanup(server.stop)
        with psycopg.connect(server.conninfo(), autocommit=True) as session:
            session.execute(f'CREATE ROLE "{ROLE}" LOGIN')
        files = Files(Path(self.mktemp()).absolute())
        certificate, key = files.pair("client", authority().issue(cn=NAME, client=True))
        ca = files.write("ca.crt", authority().pem())
        upstream = server.conninfo(user=None, dbname=None)
        gateway, site = self.started("--ssl-ca-file", ca, upstream=upstream)
        conninfo = gateway.conninfo(user=ROLE, sslcert=certificate, sslkey=key)
        plaintext = gateway.conninfo(user=ROLE, sslmode="disable", sslrootcert=None)
        with psycopg.connect(conninfo), browser() as seen:
            seen.emulate(1400, dark=False)
            seen.open(f"{site.url}/")
            self.assertEqual(seen.run("document.title"), "pgtls: ready, 1 open")
            self.names_are_text(seen)
            with psycopg.connect(plaintext):
                self.what_changes_is_shown(seen)
            self.by_keyboard(seen)
            self.in_both_themes_and_every_width(seen)
            self.without_scripts(seen, f"{site.url}/")
            self.assertEqual(seen.complaints(), [])
            gateway.signal(2)
            gateway.wait()
            self.update(seen)
            wait_until(lambda: seen.run("document.title") == "pgtls: no answer", gateway.log)

    def update(self, seen: Browser) -> None:
        """What happens every few seconds, now."""
        seen.run("document.dispatchEvent(new Event('visibilitychange'))")

    def names_are_text(self, seen: Browser) -> None:
        (row,) = seen.run("[...document.getElementById('session-rows').rows].map(r => r.innerText)")  # type: ignore[misc]
        self.assertIn(ROLE, row)
        self.assertIn("script", row)
        self.assertEqual(seen.run("document.querySelectorAll('main img, main script').length"), 0)

    def what_changes_is_shown(self, seen: Browser) -> None:
        seen.run("document.getElementById('sessions').focus()")
        self.update(seen)
        wait_until(
            lambda: seen.run("document.getElementById('session-rows').rows.length") == 2,
            lambda: str(seen.run("document.body.innerText")),
        )
        self.assertIn("plaintext", str(seen.run("document.body.innerText")))
        self.assertEqual(seen.run("document.activeElement.id"), "sessions")
        row = "document.getElementById('plaintext-rows').innerText"
        self.assertIn(ROLE, str(seen.run(row)))

    def by_keyboard(self, seen: Browser) -> None:
        seen.run("document.activeElement.blur()")
        seen.run("getSelection().removeAllRanges()")
        seen.run("document.querySelector('.skip').focus()")
        stops = []
        for _ in range(12):
            stops.append(seen.run("document.activeElement.outerHTML.split('>')[0]"))
            outline = seen.run("getComputedStyle(document.activeElement).outlineStyle")
            self.assertEqual(outline, "solid", stops[-1])
            seen.press(TAB)
        text = "\n".join(map(str, stops))
        for stop in (
            'class="skip"',
            'id="pause"',
            'href="#sessions"',
            'aria-labelledby="sessions"',
        ):
            self.assertIn(stop, text)
        seen.run("document.getElementById('pause').focus()")
        for pressed in ("true", "false"):
            seen.press(ENTER)
            state = seen.run("document.getElementById('pause').getAttribute('aria-pressed')")
            self.assertEqual(state, pressed)
        seen.run("document.getElementById('filter').focus()")
        for letter in "nobody":
            seen.press(letter)
        rows = "[...document.getElementById('session-rows').rows]"
        self.assertTrue(seen.run(f"{rows}.every(row => row.hidden)"))

    def in_both_themes_and_every_width(self, seen: Browser) -> None:
        grounds = set()
        for dark in (False, True):
            for width in (320, 768, 1400):
                seen.emulate(width, dark=dark)
                wide = seen.run("document.documentElement.scrollWidth")
                self.assertLessEqual(wide, width)  # type: ignore[arg-type]
            grounds.add(seen.run("getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(len(grounds), 2)

    def without_scripts(self, seen: Browser, url: str) -> None:
        seen.without_scripts(True)
        seen.open(url)
        text = str(seen.run("document.body.innerText"))
        self.assertIn(ROLE, text)
        self.assertTrue(seen.run("document.getElementById('pause').hidden"))
        seen.without_scripts(False)
        seen.open(url)
