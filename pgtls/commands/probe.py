"""``pgtls probe``: what a client would meet, and what a server does."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

import attrs
import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgtls.commands.reporting import say
from pgtls.commands.running import run
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.errors import ConfigurationError, PgTLSError
from pgtls.probe.assessment import assess
from pgtls.probe.connection_probe import ProbeResult, run_probe, without_empty_warnings
from pgtls.probe.monitoring import (
    NAMES,
    Check,
    Outcome,
    State,
    parse_checks,
    plugin_line,
    run_checks,
)
from pgtls.probe.survey import Survey
from pgtls.probe.survey_questions import SurveyQuestions
from pgtls.probe.survey_report import as_json as survey_json
from pgtls.probe.survey_report import show as show_survey
from pgtls.text import printable
from pgtls.transport.reactor import IReactor
from pgtls.wire.session_attributes import TargetSessionAttrs

__all__ = ["ProbeResult", "probe", "run_probe"]


class _Checks(click.ParamType[tuple[Check, ...]]):
    name = "CHECK,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Check, ...]:
        """Split the list of checks.

        :param value: the word of the command line, such as ``expiry=14d,pfs``.
        :param param: click's parameter, for the error.
        :param ctx: click's context, for the error.
        :returns: the checks.
        """
        if isinstance(value, tuple):
            return value
        try:
            return parse_checks(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("conninfo", default="")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, also at a terminal; elsewhere always."
)
@click.option(
    "--all", "everything", is_flag=True, help="Survey the server: some 20 short connections."
)
@click.option(
    "--check", "checks", type=_Checks(), metavar="CHECK,...", help=f"For monitoring: {NAMES}."
)
def probe(conninfo: str, as_json: bool, everything: bool, checks: tuple[Check, ...] | None) -> None:
    """Connect as a client would, and say what happened.

    CONNINFO is a libpq connection string, "host=db.example.com sslmode=verify-full" or a
    postgresql:// URI; PG* environment variables and ~/.postgresql count, as for psql. Where it
    names a user, a StartupMessage is sent too; a password is never asked for, and is sent only
    where target_session_attrs needs a login: from PGPASSWORD, CONNINFO or the password file.

    With --all it asks the server from all sides: SSLRequest, GSSENCRequest and direct TLS, each
    version of TLS, key exchange, certificates, what a user must show, protocol 3.2, and every
    sslmode. Each answer is ok, weak or broken, with the next step; a note is neither. Of several
    hosts the first one that answers is surveyed. Without a user in CONNINFO no session is tried.
    At most 4 connections are open at a time, each for connect_timeout seconds, 5 if none is set;
    a server that takes fewer is asked one question at a time, and a line says so.

    With --check it is a plugin for Nagios and others: one line with performance data, and exit
    status 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. Only what the checks need is asked:

    \b
        expiry=DAYSd  WARNING when a certificate ends sooner, CRITICAL when one has ended
        pfs           forward secrecy; WARNING where a client may do without
        pq            post-quantum key exchange, else WARNING
        tls1.2 tls1.3 that version can be had
        direct        TLS without SSLRequest (sslnegotiation=direct)
        require verify-ca verify-full
                      a client with CONNINFO and this sslmode gets a connection

    Exit status else: 0 for a usable connection, 1 for none (the reason on standard error), 2 for
    a connection string that cannot be used. --all changes nothing in that.

    \b
    Examples:
        pgtls probe "host=db.example.com sslmode=verify-full"
        pgtls probe --all "host=db.example.com user=alice"
        pgtls probe --check expiry=14d,pfs,tls1.3,verify-full host=db.example.com
    """
    if checks is not None:
        if everything:
            raise click.UsageError("--all and --check exclude each other")
        _check(conninfo, checks, as_json)
    survey = None
    try:
        parsed = ConnInfo.parse(conninfo, os.environ)
    except ConfigurationError as error:
        result, status = ProbeResult(), 2
        result.failed(error)
    else:
        result, survey = _run(parsed, everything)
        status = 0 if result.error is None else 1
    found = assess(survey) if survey else []
    if as_json or not sys.stdout.isatty():
        facts = attrs.asdict(result, filter=without_empty_warnings)
        if everything:
            facts["survey"] = survey_json(survey, found) if survey else None
        click.echo(json.dumps(facts))
    elif survey:
        show_survey(survey, found)
    else:
        _show(result)
    if result.error is not None:
        say(f"pgtls probe: {result.error}", err=True)
    for warning in result.warnings:
        say(f"pgtls probe: warning: {warning}", err=True)
    sys.exit(status)


def _run(conninfo: ConnInfo, everything: bool) -> tuple[ProbeResult, Survey | None]:
    async def main(reactor: IReactor) -> tuple[ProbeResult, Survey | None]:
        if not everything:
            return await run_probe(reactor, conninfo), None
        try:
            survey = await SurveyQuestions(reactor, conninfo).everything()
        except PgTLSError as error:
            result = ProbeResult()
            result.failed(error)
            return result, None
        if conninfo.target_session_attrs is not TargetSessionAttrs.ANY:
            return await run_probe(reactor, conninfo), survey
        return survey.sslmodes[conninfo.sslmode], survey

    return run(main)


def _check(conninfo: str, checks: Sequence[Check], as_json: bool) -> None:
    """Run the checks, say how they came out, and exit."""
    start = time.monotonic()
    try:
        parsed = ConnInfo.parse(conninfo, os.environ)
    except ConfigurationError as error:
        outcomes = [Outcome(State.UNKNOWN, printable(str(error), None))]
    else:
        outcomes = _outcomes(parsed, checks)
    state, line = plugin_line(outcomes, time.monotonic() - start)
    if as_json:
        named = [{**attrs.asdict(each), "state": each.state.name} for each in outcomes]
        click.echo(json.dumps({"state": state.name, "line": line, "checks": named}))
    else:
        say(line)
    sys.exit(state)


def _outcomes(conninfo: ConnInfo, checks: Sequence[Check]) -> list[Outcome]:
    async def main(reactor: IReactor) -> list[Outcome]:
        try:
            return await run_checks(SurveyQuestions(reactor, conninfo), checks)
        except PgTLSError as error:
            return [Outcome(State.CRITICAL, str(error))]

    return run(main)


def _show(result: ProbeResult) -> None:
    """The result as a table."""
    table = Table(show_header=False, box=None)
    table.add_row("events", " → ".join(result.events) or "none")
    table.add_row("outcome", f"[{'green' if result.error is None else 'red'}]{result.outcome}")
    for heading, facts in (("TLS", result.tls), ("certificate", result.certificate)):
        for name, value in (facts or {}).items():
            shown = ", ".join(value) if isinstance(value, list) else str(value)
            # As Text: to rich, a certificate's "[red]" would be markup.
            table.add_row(f"{heading} {name.replace('_', ' ')}", Text(printable(shown, None)))
    Console().print(table)
