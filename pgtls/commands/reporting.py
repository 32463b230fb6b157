"""What the commands for certificates have in common: options, errors in one line, reports."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import click

from pgtls.certs.keys import KeyType
from pgtls.conninfo.grammar import format_text
from pgtls.errors import ConfigurationError, PgTLSError
from pgtls.text import printable
from pgtls.tls.key_file import read_key_file

#: A command that an option is for.
F = TypeVar("F", bound=Callable[..., object])


class CertificateCommand(click.Command):
    """A command whose failures are one line each on standard error, and exit status 1."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses, which all commands have in common, below the help.

        :param ctx: click's context.
        :param formatter: what the help is written to.
        """
        formatter.write_paragraph()
        formatter.write_text("Exit status: 0 done, 1 refused or failed, 2 wrong usage.")

    def invoke(self, ctx: click.Context) -> object:
        """Run the command.

        :param ctx: click's context.
        :returns: what the command returns.
        """
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            mistakes: Sequence[str] = error.mistakes
        except PgTLSError as error:
            mistakes = [str(error)]
        except OSError as error:
            if isinstance(
                error, BrokenPipeError
            ):  # the reader of our output has exited: click deals with it
                raise
            name = f'"{error.filename}": ' if error.filename else ""
            mistakes = [f"{name}{error.strerror or error}"]
        for mistake in mistakes:
            say(f"pgtls {self.name}: {' '.join(mistake.split())}", err=True)
        return ctx.exit(1)


class SubjectField(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``."""

    name = "NAME=VALUE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split ``NAME=VALUE``.

        :param value: the word of the command line.
        :param param: click's parameter, for the error.
        :param ctx: click's context, for the error.
        :returns: name and value.
        """
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f'"{printable(str(value))}" is not NAME=VALUE', param, ctx)
        return name.strip(), text.strip()


def _absolute(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    # Messages and postgresql.conf need a path that means the same everywhere.
    return value and value.expanduser().absolute()


authority_option = click.option(
    "-D",
    "--directory",
    "directory",
    type=click.Path(path_type=Path),
    required=True,
    callback=_absolute,
    help="The authority's directory.",
)
user_option = click.option(
    "-D",
    "--directory",
    "directory",
    type=click.Path(path_type=Path),
    callback=_absolute,
    help="Where libpq looks for keys and certificates, if not in ~/.postgresql.",
)
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=_absolute,
    help="The file to write.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Report in JSON.")
force_option = click.option("--force", is_flag=True, help="Replace what is there.")
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="A private file with the passphrase of the key; without one, an encrypted key's "
    "passphrase is asked for.",
)


def key_type_option(default: KeyType | None, help_text: str) -> Callable[[F], F]:
    """The option ``--key-type``.

    :param default: the kind without it.
    :param help_text: its help.
    :returns: a decorator for a command.
    """
    return click.option(
        "--key-type",
        type=click.Choice(KeyType, case_sensitive=False),
        default=default,
        help=help_text,
    )


def days_option(default: int, help_text: str) -> Callable[[F], F]:
    """The option ``--days``.

    :param default: the number without it.
    :param help_text: its help.
    :returns: a decorator for a command.
    """
    return click.option(
        "--days",
        type=click.IntRange(1, 3650),
        default=default,
        show_default=True,
        help=help_text,
    )


def passphrase_of(path: Path, file: Path | None) -> Callable[[], bytes]:
    """The passphrase of an existing key, asked for only if the key turns out to be encrypted.

    :param path: the key file, for the prompt.
    :param file: the file named by ``--passphrase-file``; None to ask at the terminal.
    :returns: a function that returns the passphrase, and asks once.
    """

    @cache
    def ask() -> bytes:
        if file is not None:
            return _first_line(file)
        return _typed(f"Passphrase of {path}", confirm=False)

    return ask


def new_passphrase(path: Path, file: Path | None) -> bytes:
    """The passphrase for a new key.

    :param path: the key file, for the prompt.
    :param file: the file named by ``--passphrase-file``; None to ask at the terminal, twice.
    :returns: the passphrase.
    """
    if file is not None:
        return _first_line(file)
    return _typed(f"New passphrase for {path}", confirm=True)


def _typed(prompt: str, *, confirm: bool) -> bytes:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{prompt}: there is no terminal to ask at; give it with --passphrase-file"
        )
    typed: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return typed.encode()


def _first_line(file: Path) -> bytes:
    line = read_key_file(file).partition(b"\n")[0].rstrip(b"\r")
    if not line:
        raise ConfigurationError(f'passphrase file "{file}" has nothing in its first line')
    return line


def psql_line(**parameters: str) -> str:
    """A psql command for a shell.

    :param parameters: of the connection string; whatever is in them, they are nothing else.
    :returns: the line.
    """
    return shlex.join(["psql", format_text(parameters)])


def postgresql_conf_value(path: Path) -> str:
    """A path as a value in postgresql.conf.

    :param path: the path.
    :returns: it in quotes.
    """
    return "'" + str(path).replace("\\", "\\\\").replace("'", "''") + "'"


def say(line: str, *, err: bool = False) -> None:
    """Print one line, with everything escaped that could steer a terminal.

    :param line: what to print.
    :param err: on standard error.
    """
    click.echo(printable(line, None), err=err)


def report(
    facts: Mapping[str, object],
    lines: Iterable[str],
    *,
    as_json: bool,
    next_steps: Sequence[str] = (),
    warnings: Iterable[str] = (),
    mark: str = "",
) -> None:
    """Say what was done, and what to do next.

    :param facts: for JSON, as they are; ``next`` and ``warnings`` are added.
    :param lines: for people.
    :param as_json: print ``facts`` in place of ``lines``.
    :param next_steps: what to do next.
    :param warnings: what to look at; on standard error for people.
    :param mark: what each line for people begins with.
    """
    said = list(warnings)
    if as_json:
        whole = {**facts, "warnings": said, "next": list(next_steps)}
        click.echo(json.dumps(whole, default=str))
        return
    for line in lines:
        say(line)
    for number, step in enumerate(next_steps):
        say(f"{mark}{'      ' if number else 'Next: '}{step}")
    for warning in said:
        say(f"warning: {warning}", err=True)
