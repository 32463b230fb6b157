"""A survey and its findings, as a table for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtls.probe.assessment import Finding, Status
from pgtls.probe.connection_probe import without_empty_warnings
from pgtls.probe.survey import Survey
from pgtls.text import printable

_STYLES = {
    Status.OK: "green",
    Status.WEAK: "yellow",
    Status.BROKEN: "bold red",
    Status.NOTE: "dim",
}


def as_json(survey: Survey, found: Iterable[Finding]) -> dict[str, object]:
    """The survey for ``--json``.

    :param survey: the survey.
    :param found: its findings.
    :returns: the survey's fields, and ``findings``.
    """
    fields = attrs.asdict(survey, filter=without_empty_warnings)
    return {**fields, "findings": [attrs.asdict(each) for each in found]}


def show(survey: Survey, found: Iterable[Finding]) -> None:
    """Print the survey as a table.

    :param survey: the survey.
    :param found: its findings.
    """
    where = survey.host if survey.address in ("", survey.host) else survey.address
    named = survey.host if where == survey.host else f"{survey.host} ({where})"
    title = Text(printable(f"{named}, port {survey.port}", None))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("asked", no_wrap=True)
    table.add_column("")
    table.add_column("found", overflow="fold")
    table.add_column("next step", overflow="fold")
    for each in found:
        # As Text: to rich, a certificate's "[red]" would be markup.
        table.add_row(
            each.name,
            Text(each.status, _STYLES[each.status]),
            Text(printable(each.found, None)),
            Text(printable(each.next, None)),
        )
    Console().print(table)
