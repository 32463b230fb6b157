"""The page for a person: the status document as HTML.

It is made here whole, so that it says all without a script; the script fetches it again and
replaces what has changed. Everything is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from pgtls.status import wording
from pgtls.status.history import History
from pgtls.status.status_document import StatusDocument

#: Sessions and clients that the page lists; ``/status.json`` lists more.
MOST_ROWS = 100

#: The size of a plot, in units of its own.
_WIDTH, _HEIGHT = 600, 100

#: Samples that a plot has room for, at least.
_FEWEST = 13


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    :ivar name: what it shows.
    :ivar now: its last value, for a person.
    :ivar points: as SVG has them.
    """

    name: str
    now: str
    points: str


@dataclass(frozen=True)
class Plot:
    """A plot of the last minutes.

    :ivar title: what it shows.
    :ivar lines: its lines.
    :ivar most: the greatest value, for a person.
    :ivar seconds: how far it goes back.
    """

    title: str
    lines: tuple[Line, ...]
    most: str
    seconds: float

    @property
    def description(self) -> str:
        """The same in a sentence, for who does not see it."""
        lines = "; ".join(f"{line.name}: {line.now} now" for line in self.lines)
        back = wording.duration_text(self.seconds)
        return f"{self.title}, the last {back}. {lines}; at most {self.most}."


def _made_template() -> Template:
    environment = Environment(
        loader=PackageLoader("pgtls.status", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=wording.count_text,
        bytes=wording.bytes_text,
        duration=wording.duration_text,
        moment=wording.moment_text,
        machine=wording.machine_text,
        left=wording.left_text,
    )
    environment.globals.update(SOON=wording.SOON, URGENT=wording.URGENT)
    return environment.get_template("status.html")


#: Made when this is imported: with ``--uid``, the daemon's user may not be allowed to read what
#: jinja2 imports for it.
_TEMPLATE = _made_template()


def page(document: StatusDocument) -> Iterator[str]:
    """The page, piece by piece: the whole takes too long for a reactor that has sessions to serve.

    :param document: the status.
    :returns: HTML.
    """
    now = document["time"]
    return _TEMPLATE.generate(
        status=document,
        now=now,
        plots=plots(document["history"]),
        rows=MOST_ROWS,
        seen=lambda moment: f"{wording.duration_text(now - moment)} ago",
        days=lambda expires: wording.days_left(expires, now),
    )


def asset(name: str) -> bytes:
    """The style sheet or the script.

    :param name: of the file.
    :returns: what is in it.
    """
    return (files("pgtls.status") / name).read_bytes()


def plots(history: History) -> list[Plot]:
    """The plots of the last minutes.

    :param history: the samples.
    :returns: sessions, connections, bytes.
    """
    interval = history["interval"]
    return [
        _plot("Open sessions", "", interval, {"open": history["open"]}),
        _plot(
            "New sessions",
            "/s",
            interval,
            {"connected": history["connected"], "refused": history["refused"]},
        ),
        _plot(
            "Traffic",
            "B/s",
            interval,
            {
                "to clients": history["bytes_to_client"],
                "from clients": history["bytes_from_client"],
            },
        ),
    ]


def _plot(title: str, unit: str, interval: float, values: dict[str, Sequence[float]]) -> Plot:
    most = max((value for line in values.values() for value in line), default=0)
    steps = max(_FEWEST, *(len(line) for line in values.values())) - 1
    lines = tuple(
        Line(name, _value(line[-1] if line else 0, unit), _points(line, steps, most))
        for name, line in values.items()
    )
    return Plot(title, lines, _value(most, unit), steps * interval)


def _value(value: float, unit: str) -> str:
    if unit == "B/s":
        return f"{wording.bytes_text(value)}/s"
    return wording.count_text(value) + unit


def _points(values: Sequence[float], steps: int, most: float) -> str:
    """The newest at the right; a line of nothing but zeroes at the bottom."""
    step = _WIDTH / steps
    left = _WIDTH - step * (len(values) - 1)
    return " ".join(
        f"{left + number * step:.1f},{_HEIGHT - value / (most or 1) * (_HEIGHT - 4) - 1:.1f}"
        for number, value in enumerate(values)
    )
