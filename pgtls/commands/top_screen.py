"""What ``pgtls top`` shows: the status at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgtls.status import wording
from pgtls.status.status_document import StatusDocument
from pgtls.text import printable

#: Lines of a table of which there is not to be much; lines of one beside its rows.
_FEW = 4
_AROUND = 3

#: Characters of a column, so that a long name drives out no other one; those that may be longer.
_MOST_OF_COLUMN = 28
_LONG = ("What the log says", "File or server")

_BARS = " ▁▂▃▄▅▆▇█"


def screen(status: StatusDocument, height: int | None = None) -> RenderableType:
    """The status.

    :param status: the document.
    :param height: lines that there are; None for any number.
    :returns: what rich can print.
    """
    few = _FEW if height is not None else None
    top: list[RenderableType] = [_headline(status), *_problems(status), "", _figures(status)]
    sparklines = _sparklines(status)
    below = [
        ("Refusals", _refusals(status, few)),
        ("In plaintext", _plaintext(status, few)),
        ("Certificates and CRLs", _certificates(status, few)),
    ]
    most = len(status["sessions"])
    if height is not None:
        others = len(top) + sparklines.row_count + _AROUND + 1
        others += sum(table.row_count + _AROUND for _, table in below if table.row_count)
        most = max(_FEW, height - others)
    parts = [*top, sparklines]
    for title, table in (("Sessions", _sessions(status, most)), *below):
        if table.row_count:
            parts += ["", Text(title, style="bold"), table]
    return Padding(Group(*parts), (0, 1))


def _headline(status: StatusDocument) -> Text:
    state, style = "ready", "bold green"
    if status["state"] == "draining":
        state, style = "draining", "bold yellow"
    elif not status["ready"]:
        state, style = "not ready", "bold red"
    workers = status["workers"]
    facts = [f"up {wording.duration_text(status['time'] - status['started'])}"]
    if workers["wanted"] > 1:
        facts.append(f"{workers['ready']} of {workers['wanted']} workers")
    facts += [f"version {status['version']}", wording.moment_text(status["time"])]
    return Text.assemble(
        ("pgtls ", "bold"), (state, style), ("  " + printable(" · ".join(facts)), "dim")
    )


def _problems(status: StatusDocument) -> list[Text]:
    mistakes = [f"last reload: {mistake}" for mistake in status["reloads"]["mistakes"]]
    return [Text(printable(each), style="red") for each in (*status["problems"], *mistakes)]


def _figures(status: StatusDocument) -> Text:
    totals = status["totals"]
    figures = [
        ("open", wording.count_text(status["open_sessions"])),
        ("so far", wording.count_text(totals["connected"])),
        ("refused", wording.count_text(totals["refused"])),
        ("server refused", wording.count_text(totals["refused_by_server"])),
        ("plaintext", wording.count_text(totals["plaintext"])),
        ("to clients", wording.bytes_text(totals["bytes_to_client"])),
        ("from clients", wording.bytes_text(totals["bytes_from_client"])),
    ]
    line = Text()
    for name, value in figures:
        line.append(f"{name} ", "dim").append(value, "bold").append("   ")
    return line


def _sparklines(status: StatusDocument) -> Table:
    history = status["history"]
    table = Table.grid(padding=(0, 2))
    for name, values, shown in (
        ("open", history["open"], wording.count_text),
        ("new/s", history["connected"], wording.count_text),
        ("refused/s", history["refused"], wording.count_text),
        ("to clients", history["bytes_to_client"], lambda n: f"{wording.bytes_text(n)}/s"),
    ):
        if values:
            most = max(values)
            table.add_row(
                Text(name, "dim"),
                Text(sparkline(values[-60:]), "cyan"),
                Text(f"{shown(values[-1])}  at most {shown(most)}", "dim"),
            )
    return table


def sparkline(values: Sequence[float]) -> str:
    """Values as a line of bars.

    :param values: 0 or more each.
    :returns: a character for each.
    """
    most = max(values, default=0) or 1
    return "".join(_BARS[ceil(value / most * (len(_BARS) - 1))] for value in values)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        number = column.startswith(">")
        table.add_column(
            column.removeprefix(">"),
            justify="right" if number else "left",
            no_wrap=number,  # those of names give way where there is no room
            max_width=None if column in _LONG else _MOST_OF_COLUMN,
        )
    return table


def _row(table: Table, cells: Iterable[str | Text]) -> None:
    texts = [each if isinstance(each, Text) else Text(printable(each)) for each in cells]
    for text in texts:
        text.no_wrap, text.overflow = True, "ellipsis"
    table.add_row(*texts)


def _rest(table: Table, left: int) -> Table:
    if left > 0:
        table.add_row(Text(f"and {left:,} more", "dim"))
    return table


def _sessions(status: StatusDocument, most: int) -> Table:
    table = _table("Role", "Database", "From", "TLS", "Certificate", "Server", ">Since", ">Bytes")
    for each in status["sessions"][:most]:
        certificate = each["certificate"]
        tls = each["tls_version"]
        _row(
            table,
            (
                each["user"],
                each["database"],
                each["address"],
                Text("plaintext", "yellow") if tls is None else f"{tls} {each['group'] or ''}",
                certificate["subject"] if certificate is not None else "",
                f"{each['server']}{' route ' + each['route'] if each['route'] else ''}",
                wording.duration_text(status["time"] - each["since"]),
                wording.bytes_text(each["bytes_from_client"] + each["bytes_to_client"]),
            ),
        )
    return _rest(table, status["open_sessions"] - table.row_count)


def _refusals(status: StatusDocument, most: int | None) -> Table:
    table = _table("Reason", "SQLSTATE", ">Count", "Last", "From", "What the log says")
    for each in status["refusals"][:most]:
        seen = each["last_seen"]
        last = f"{wording.duration_text(status['time'] - seen)} ago" if seen is not None else ""
        cells = (each["reason"], each["sqlstate"], wording.count_text(each["count"]), last)
        _row(table, (*cells, each["address"], each["detail"]))
    return _rest(table, len(status["refusals"]) - table.row_count)


def _plaintext(status: StatusDocument, most: int | None) -> Table:
    table = _table("Address", "Role", "Database", ">Count", "Last seen")
    for each in status["plaintext"][:most]:
        last = f"{wording.duration_text(status['time'] - each['last_seen'])} ago"
        cells = (each["address"], each["user"], each["database"])
        _row(table, (*cells, wording.count_text(each["count"]), last))
    return _rest(table, len(status["plaintext"]) - table.row_count)


def _certificates(status: StatusDocument, most: int | None) -> Table:
    table = _table("Name", "What", "For", "File or server", ">Left")
    for each in status["certificates"][:most]:
        days = wording.days_left(each["expires"], status["time"])
        style = "red" if days < wording.URGENT else "yellow" if days < wording.SOON else "green"
        cells = (each["name"], each["kind"].replace("_", " "), each["gateway"])
        place = each["file"] or each["upstream"]
        _row(table, (*cells, place, Text(wording.left_text(days), style)))
    return _rest(table, len(status["certificates"]) - table.row_count)
