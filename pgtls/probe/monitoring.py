"""Checks for monitoring: a survey against what is wanted, in the form of a Nagios plugin.

Source: the Monitoring Plugins Development Guidelines, "Plugin Output" and "Threshold and Ranges".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import IntEnum

import attrs

from pgtls.probe.assessment import days_left
from pgtls.probe.pacing import Question
from pgtls.probe.survey import Survey
from pgtls.probe.survey_questions import SurveyQuestions
from pgtls.wire.attempts import SSLMode


class State(IntEnum):
    """A plugin's exit status."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


#: Which states matter more, the worst last.
_SEVERITY = (State.OK, State.UNKNOWN, State.WARNING, State.CRITICAL)


@attrs.frozen
class Outcome:
    """What became of one check.

    :ivar text: a few words.
    :ivar perfdata: ``name=value;warn;crit``; empty where there is no number.
    """

    state: State
    text: str
    perfdata: str = ""


@attrs.frozen
class Check:
    """One thing to look at.

    :ivar ask: what has to be asked for it.
    :ivar judge: looks at the answers.
    """

    name: str
    ask: Callable[[SurveyQuestions], list[Question]]
    judge: Callable[[Survey], Outcome]


#: What there is to check, as the help shows it.
NAMES = "expiry=DAYSd, pfs, pq, tls1.2, tls1.3, direct, require, verify-ca, verify-full"


def parse_checks(text: str) -> tuple[Check, ...]:
    """Read a list of checks.

    :param text: such as ``expiry=14d,pfs,tls1.3,verify-full``.
    :returns: the checks.
    :raises ValueError: there is no such check.
    """
    return tuple(_check(name.strip()) for name in text.split(","))


def _check(name: str) -> Check:
    """:raises ValueError: there is no such check."""
    if found := re.fullmatch(r"expiry=(\d{1,4})d", name):
        days = int(found[1])
        return Check(name, lambda ask: [ask.key_exchange], lambda survey: _expiry(survey, days))
    if name in ("tls1.2", "tls1.3"):
        version = f"TLSv{name[3:]}"
        return Check(
            name,
            lambda ask: [lambda: ask.tls_version(version)],
            lambda survey: _wanted(name, survey.tls_versions[version].reason),
        )
    if name in ("require", "verify-ca", "verify-full"):
        sslmode = SSLMode(name)
        return Check(
            name,
            lambda ask: [lambda: ask.verdict(sslmode)],
            lambda survey: _wanted(name, survey.sslmodes[sslmode].error),
        )
    simple: dict[str, Check] = {
        "pfs": Check("pfs", lambda ask: [ask.key_exchange, ask.forward_secrecy], _pfs),
        "pq": Check("pq", lambda ask: [ask.key_exchange], _pq),
        "direct": Check("direct", lambda ask: [ask.direct], _direct),
    }
    if name not in simple:
        raise ValueError(f'there is no check "{name}"; there are {NAMES}')
    return simple[name]


async def run_checks(questions: SurveyQuestions, checks: Sequence[Check]) -> list[Outcome]:
    """Ask what the checks need, each question once.

    :param questions: asks the server.
    :param checks: what to check.
    :returns: the outcome of each check.
    :raises PgTLSError: the server cannot be reached.
    """
    await questions.first_look()
    if questions.survey.ssl_request != "S":
        return [Outcome(State.CRITICAL, _no_tls(questions.survey))]
    needed = {question: None for check in checks for question in check.ask(questions)}
    await questions.ask(list(needed))
    return [check.judge(questions.survey) for check in checks]


def plugin_line(outcomes: Sequence[Outcome], seconds: float) -> tuple[State, str]:
    """The state of all checks, and the line that Nagios shows, the worst one first.

    :param outcomes: of the checks.
    :param seconds: how long they took.
    :returns: state and line.
    """
    ordered = sorted(outcomes, key=lambda each: -_SEVERITY.index(each.state))
    worst = ordered[0].state
    # A vertical bar would begin the performance data.
    text = ", ".join(each.text.replace("|", "/") for each in ordered)
    numbers = [each.perfdata for each in outcomes if each.perfdata]
    perfdata = " ".join([*numbers, f"time={seconds:.3f}s;;;0"])
    return worst, f"PGTLS {worst.name} - {text} | {perfdata}"


def _no_tls(survey: Survey) -> str:
    answer = survey.ssl_request
    return f"no TLS (the answer to SSLRequest is {answer})" if answer else "no TLS"


def _wanted(name: str, refused: str | None) -> Outcome:
    if refused is None:
        return Outcome(State.OK, name)
    return Outcome(State.CRITICAL, f"{name}: {refused}")


def _expiry(survey: Survey, days: int) -> Outcome:
    left = days_left(survey)
    if left is None:
        return Outcome(State.UNKNOWN, "expiry: no certificate was seen")
    ends = min(each["not_after"] for each in survey.chain)[:10]
    perfdata = f"expiry_days={left};{days}:;0:"
    if left < 0:
        return Outcome(State.CRITICAL, f"a certificate expired on {ends}", perfdata)
    state = State.WARNING if left < days else State.OK
    return Outcome(state, f"a certificate expires in {left} days, on {ends}", perfdata)


def _pfs(survey: Survey) -> Outcome:
    keys = survey.key_exchange
    if keys is None:
        return Outcome(State.UNKNOWN, "pfs: no handshake succeeded")
    if not keys.forward_secret:
        return Outcome(State.CRITICAL, f"no forward secrecy ({keys.cipher})")
    if survey.static_rsa:
        return Outcome(State.WARNING, "no forward secrecy for clients that ask for RSA")
    return Outcome(State.OK, f"pfs ({keys.group or keys.cipher})")


def _pq(survey: Survey) -> Outcome:
    keys = survey.key_exchange
    if keys is None:
        return Outcome(State.UNKNOWN, "pq: no handshake succeeded")
    if keys.post_quantum:
        return Outcome(State.OK, f"pq ({keys.group})")
    return Outcome(State.WARNING, f"not post-quantum ({keys.group or keys.cipher})")


def _direct(survey: Survey) -> Outcome:
    return _wanted("direct", survey.direct_tls.reason if survey.direct_tls else "not tried")
