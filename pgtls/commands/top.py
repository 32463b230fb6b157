"""``pgtls top``: a daemon's status at a terminal, as it changes."""

from __future__ import annotations

import json
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pgtls.commands.reporting import CertificateCommand, json_option
from pgtls.commands.status_client import DEFAULT_URL, NoStatus, status_document
from pgtls.commands.top_screen import screen


@click.command(cls=CertificateCommand)
@click.argument("url", default=DEFAULT_URL)
@json_option
@click.option("--once", is_flag=True, help="Print the status once; so it is also in a pipe.")
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--root",
    metavar="FILE",
    help="Verify the site's certificate by these authorities; default: the system's.",
)
def top(url: str, as_json: bool, once: bool, interval: float, root: str | None) -> None:
    """Show what a gateway's daemon is doing.

    Open sessions, refusals, who is in plaintext, certificates that end.

    URL is where its status site is (the setting "status" in pgtls.toml): http://HOST:PORT/,
    https://HOST:PORT/ or unix:PATH.

    Keys: q ends it.

    \b
    Examples:
        pgtls top
        pgtls top unix:/run/pgtls/status
        pgtls top --json | jq .totals
    """
    if as_json:
        print(json.dumps(status_document(url, root), indent=2))
    elif once or not sys.stdout.isatty():
        Console(width=None if sys.stdout.isatty() else 160).print(
            screen(status_document(url, root))
        )
    else:
        _watch(url, root, interval)


def _watch(url: str, root: str | None, interval: float) -> None:
    console = Console()
    shown: RenderableType = screen(status_document(url, root), console.height)
    live = Live(shown, console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), _keys(), live:
        live.refresh()
        while not _ended(interval):
            try:
                shown = screen(status_document(url, root), console.height)
            except NoStatus as error:
                shown = Text(f" {error}", style="red")
            live.update(shown, refresh=True)


def _ended(seconds: float) -> bool:
    """Wait that long, unless a key ends it."""
    end = monotonic() + seconds
    while (left := end - monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            key = sys.stdin.read(1)
            if key in ("q", "Q", "\x1b", "\x04", ""):
                return True
    return False


@contextmanager
def _keys() -> Iterator[None]:
    """Get each key when it is pressed."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
