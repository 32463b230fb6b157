"""``pgtls check``: what a start or a reload with a configuration would say."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtls.commands.reporting import json_option, report
from pgtls.daemon.configuration_check import Checked, check_configuration
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.gateway.route_upstream import places
from pgtls.text import printable
from pgtls.tls.validity import Kind
from pgtls.transport.reactor import IReactor

#: Columns of the table where it goes to no terminal.
_WIDE = 200


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@json_option
def check(config: Path, as_json: bool) -> None:
    """Say what a start or a reload with CONFIG would say.

    CONFIG is the daemon's configuration, pgtls.toml. Everything that is wrong is named, in every
    gateway: values, and the files that they name, which are read as the daemon reads them (names of
    files count from here). So run it as the daemon's user, in its directory. Passphrase commands
    are run. No port is opened, nothing is connected to, and nothing is made: not in the state
    directory either.

    Exit status: 0 if the daemon would start, 1 if not.

    \b
    Examples:
        pgtls check pgtls.toml
        pgtls check --json pgtls.toml
        pgtls check pgtls.toml && systemctl reload pgtls
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    checked = check_configuration(cast(IReactor, reactor), config)
    if as_json:
        report(
            {
                "file": str(config),
                "ok": not checked.mistakes,
                "mistakes": checked.mistakes,
                "gateways": [_facts(gateway) for gateway in checked.gateways],
            },
            [],
            warnings=checked.warnings,
            as_json=True,
        )
    else:
        _print(config, checked)
    sys.exit(1 if checked.mistakes else 0)


def _print(config: Path, checked: Checked) -> None:
    errors = Console(stderr=True, soft_wrap=True)
    for mistake in checked.mistakes:
        _line(errors, "error: ", "bold red", mistake)
    for warning in checked.warnings:
        _line(errors, "warning: ", "yellow", warning)
    if checked.mistakes:
        count = len(checked.mistakes)
        _line(errors, "", "", f"{config}: {count} mistake{'s' * (count > 1)}")
        return
    width = None if sys.stdout.isatty() else _WIDE
    console = Console(soft_wrap=True, width=width)
    console.print(_table(checked.gateways))
    _line(console, "", "green", f"{config}: no mistakes")


def _line(console: Console, before: str, style: str, text: str) -> None:
    # As Text: to rich, "[red]" in it would be markup.
    line = Text(before, style=style)
    line.append(printable(text, None), style=style if not before else "")
    console.print(line)


def _table(gateways: Sequence[LoadedGateway]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("gateway", "listen", "ssl", "certificate until", "upstream"):
        table.add_column(heading, overflow="fold")
    for gateway in gateways:
        facts = _facts(gateway)
        routes = f"{facts['routes']} routes" if facts["routes"] else ""
        upstream = ", ".join(filter(None, [str(facts["upstream"] or ""), routes]))
        if facts["upstream_via"]:
            upstream += f" through {facts['upstream_via']}"
        row = [
            facts["gateway"],
            facts["listen"],
            facts["ssl"],
            facts["certificate_until"],
            upstream,
        ]
        table.add_row(*(Text(printable(str(each or "-"))) for each in row))
    return table


def _facts(gateway: LoadedGateway) -> dict[str, object]:
    configuration = gateway.configuration
    settings, upstream = configuration.settings, configuration.upstream
    ends = [
        each.not_after
        for each in gateway.validities
        if each.kind is Kind.CERTIFICATE and each.not_after is not None
    ]
    return {
        "gateway": configuration.number,
        "listen": settings.listen,
        "ssl": str(settings.listener.ssl),
        "certificate_until": f"{min(ends):%Y-%m-%d %H:%M:%S} UTC" if ends else None,
        "upstream": places(upstream.hosts) if upstream is not None else None,
        "upstream_via": settings.ssh.upstream_via or None,
        "routes": len(configuration.routes),
        "max_connections": settings.listener.max_connections,
    }
