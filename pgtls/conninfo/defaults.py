"""Where a connection string's other parameters come from: service file, environment, defaults.

Source: PostgreSQL's documentation, "Environment Variables" and "The Connection Service File";
``conninfo_add_defaults``, ``parseServiceInfo`` and ``parseServiceFile`` in
``src/interfaces/libpq/fe-connect.c``.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from pgtls.conninfo.grammar import require_c_string
from pgtls.conninfo.keywords import ENVIRONMENT, OPTIONS, SESSION_VARIABLES
from pgtls.errors import ConfigurationError
from pgtls.reading import NotRegular, exists, read_file
from pgtls.wire.attempts import SSLMode

#: Bytes of a line, without its end, that are too many for libpq's buffer.
_LINE_TOO_LONG = 1022


def add_defaults(
    given: Mapping[str, str], environ: Mapping[str, str], home: Path | None
) -> dict[str, str]:
    """All parameters that have a value: given, from the service file, environment or default.

    :param given: the parameters of the connection string.
    :param environ: the environment.
    :param home: the home directory, None where there is none.
    :returns: values by keyword.
    :raises ConfigurationError: the service cannot be read.
    """
    from_environment = {}
    for variable, keyword in ENVIRONMENT.items():
        if variable in environ:
            require_c_string(variable, environ[variable])
            from_environment[keyword] = environ[variable]
    values = {**from_environment, **service_parameters(given, environ, home), **given}
    values.setdefault("sslmode", _default_sslmode(values, environ))
    for option in OPTIONS.values():
        if option.default is not None:
            values.setdefault(option.keyword, option.default)
    return values


def home_directory(environ: Mapping[str, str]) -> Path | None:
    """The user's home directory as libpq finds it: ``HOME``, else the user database.

    :param environ: the environment.
    :returns: the directory; None where there is none.
    """
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None


def session_parameters(environ: Mapping[str, str]) -> dict[str, str]:
    """Parameters of the session that only an environment variable sets.

    :param environ: the environment.
    :returns: values by parameter, such as ``datestyle`` for PGDATESTYLE.
    """
    parameters = {}
    for variable, name in SESSION_VARIABLES.items():
        value = environ.get(variable)
        if value is not None and value.lower() != "default":
            require_c_string(variable, value)
            parameters[name] = value
    return parameters


def _default_sslmode(values: Mapping[str, str], environ: Mapping[str, str]) -> SSLMode:
    if environ.get("PGREQUIRESSL", "").startswith("1"):
        return SSLMode.REQUIRE
    return SSLMode.VERIFY_FULL if values.get("sslrootcert") == "system" else SSLMode.PREFER


def service_parameters(
    given: Mapping[str, str], environ: Mapping[str, str], home: Path | None
) -> dict[str, str]:
    """The parameters of the service that is asked for.

    :param given: the parameters of the connection string.
    :param environ: the environment.
    :param home: the home directory, None where there is none.
    :returns: values by keyword; empty where no service is named.
    :raises ConfigurationError: the service cannot be read.
    """
    service = given.get("service", environ.get("PGSERVICE"))
    if service is None:
        return {}
    for path in _service_files(given, environ, home):
        section = _read_section(path, service)
        if section is not None:
            return section
    raise ConfigurationError(f'definition of service "{service}" not found')


def _service_files(
    given: Mapping[str, str], environ: Mapping[str, str], home: Path | None
) -> list[Path]:
    """The user's service file and the system's. One that is named need not exist: an error then."""
    files = []
    named = given.get("servicefile", environ.get("PGSERVICEFILE"))
    if named is not None:
        files.append(Path(named))
    elif home is not None and exists(home / ".pg_service.conf"):
        files.append(home / ".pg_service.conf")
    system = Path(environ.get("PGSYSCONFDIR", _system_directory()), "pg_service.conf")
    if exists(system):
        files.append(system)
    return files


def _system_directory() -> str:
    """libpq's SYSCONFDIR: Debian's where it exists, else that of PostgreSQL built from source."""
    debian = "/etc/postgresql-common"
    return debian if os.path.isdir(debian) else "/usr/local/pgsql/etc"


def _read_section(path: Path, service: str) -> dict[str, str] | None:
    """The parameters of one section, None where the file has no such section."""
    try:
        lines = read_file(path).split(b"\n")
    except NotRegular as error:
        raise ConfigurationError(f'service file "{path}": {error.strerror}') from None
    except (OSError, ValueError):
        raise ConfigurationError(f'service file "{path}" not found') from None
    header = b"[" + service.encode("utf-8", "surrogateescape") + b"]"
    section: dict[str, str] | None = None
    for number, raw in enumerate(lines, 1):
        if len(raw) >= _LINE_TOO_LONG:
            raise ConfigurationError(f'line {number} too long in service file "{path}"')
        line = raw.strip()
        if line.startswith(b"["):
            if section is not None:
                break
            section = {} if line.startswith(header) else None
        elif section is not None and line and not line.startswith(b"#"):
            keyword, value = _service_setting(line, f'service file "{path}", line {number}')
            section.setdefault(keyword, value)
    return section


def _service_setting(line: bytes, where: str) -> tuple[str, str]:
    keyword, equals, value = line.decode("utf-8", "surrogateescape").partition("=")
    if keyword in ("service", "servicefile") and equals:
        raise ConfigurationError(f"nested service specifications not supported in {where}")
    # A NUL ends the string for libpq, in the middle of what was meant.
    if not equals or keyword not in OPTIONS or b"\0" in line:
        raise ConfigurationError(f"syntax error in {where}")
    return keyword, value
