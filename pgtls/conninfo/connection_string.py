"""A connection string, read as libpq 18 reads it.

Source: PostgreSQL's documentation, "Database Connection Control Functions";
``src/interfaces/libpq/fe-connect.c`` and, for the startup parameters, ``build_startup_packet`` in
``fe-protocol3.c``.

What differs from libpq: every mistake is reported, not only the first one; hosts are all checked
before the first attempt; ``check_address`` is ours; GSSAPI encryption is refused.
"""

from __future__ import annotations

import locale
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from pgtls.conninfo.checks import (
    find_mistakes,
    newest_protocol,
    oldest_protocol,
    scram_key,
    tls_version,
)
from pgtls.conninfo.defaults import (
    add_defaults,
    home_directory,
    service_parameters,
    session_parameters,
)
from pgtls.conninfo.grammar import parse_text, require_c_string
from pgtls.conninfo.hosts import Host, parse_hosts, parse_integer
from pgtls.conninfo.keywords import OPTIONS, ChannelBinding, LoadBalanceHosts, Part, SSLCertMode
from pgtls.errors import ConfigurationError
from pgtls.wire.attempts import SSLMode, SSLNegotiation
from pgtls.wire.required_authentication import RequiredAuthentication
from pgtls.wire.session_attributes import TargetSessionAttrs

__all__ = ["ConnInfo", "Host"]


@dataclass(frozen=True, slots=True)
class ConnInfo:
    """Where to connect to and how, all checked.

    The names are libpq's keywords. A file, directory or text that is not given is None.

    :ivar hosts: the places to try, as written; load_balance_hosts says in which order.
    :ivar user: None where neither string, service nor PGUSER names one; libpq would take the
        operating system's name of the user.
    :ivar passfile: the password file; the default one need not exist.
    :ivar scram_client_key, scram_server_key: keys in place of the password, 32 bytes each.
    :ivar dbname: None where none is named; the server then takes the user's name.
    :ivar connect_timeout: seconds for each host, None for no limit.
    :ivar keepalives_idle, keepalives_interval, keepalives_count: 0 leaves it to the system.
    :ivar tcp_user_timeout: milliseconds, 0 leaves it to the system.
    :ivar min_protocol_version, max_protocol_version: major and minor number.
    :ivar check_address: whether the verified name of the server must also resolve to the address
        that was connected to, looked up anew: verify-full and a host name only. A name whose
        addresses change from one answer to the next, for load balancing, is not for it.
    :ivar startup_parameters: what goes into the StartupMessage besides user and database.
    :ivar home: the user's home directory, None where there is none.
    :ivar given: the keywords that the string, or the service that it names, has.
    :ivar required_authentication: what ``require_auth`` and ``channel_binding`` allow a server;
        None: anything.
    """

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    passfile: str | None
    scram_client_key: bytes | None = field(repr=False)
    scram_server_key: bytes | None = field(repr=False)
    dbname: str | None
    sslmode: SSLMode
    sslnegotiation: SSLNegotiation
    sslrootcert: str | None
    sslcrl: str | None
    sslcrldir: str | None
    sslcert: str | None
    sslkey: str | None
    sslpassword: str | None = field(repr=False)
    sslcertmode: SSLCertMode
    sslsni: bool
    ssl_min_protocol_version: str | None
    ssl_max_protocol_version: str | None
    sslkeylogfile: str | None
    requirepeer: str | None
    require_auth: str | None
    channel_binding: ChannelBinding
    check_address: bool
    connect_timeout: float | None
    load_balance_hosts: LoadBalanceHosts
    target_session_attrs: TargetSessionAttrs
    keepalives: bool
    keepalives_idle: int
    keepalives_interval: int
    keepalives_count: int
    tcp_user_timeout: int
    min_protocol_version: tuple[int, int]
    max_protocol_version: tuple[int, int]
    startup_parameters: Mapping[str, str] = field(hash=False)
    home: Path | None
    given: frozenset[str] = field(compare=False)
    required_authentication: RequiredAuthentication | None = field(
        init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        required = RequiredAuthentication.read(
            self.require_auth or "",
            channel_binding=self.channel_binding is ChannelBinding.REQUIRE,
        )
        object.__setattr__(self, "required_authentication", required)

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str], home: Path | None = None) -> ConnInfo:
        """Read a connection string in either form.

        :param text: the connection string: keywords and values, or a URI.
        :param environ: the environment, for the PG* variables and HOME.
        :param home: a home directory in place of the user's.
        :returns: what it means, with defaults.
        :raises ConfigurationError: with every mistake; of the grammar only the first one.
        """
        return cls._complete(parse_text(text), environ, home)

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, str], environ: Mapping[str, str], home: Path | None = None
    ) -> ConnInfo:
        """Take parameters by name, as PQconnectdbParams() does: an empty one counts as not given.

        :param parameters: values by keyword.
        :param environ: the environment, for the PG* variables and HOME.
        :param home: a home directory in place of the user's.
        :returns: what they mean, with defaults.
        :raises ConfigurationError: with every mistake; where a name is unknown, only the names.
        """
        unknown = [keyword for keyword in parameters if keyword not in OPTIONS]
        if unknown:
            raise ConfigurationError(*(f'invalid connection option "{name}"' for name in unknown))
        given = {keyword: value for keyword, value in parameters.items() if value}
        for keyword, value in given.items():
            require_c_string(keyword, value)
        return cls._complete(given, environ, home)

    @property
    def default_directory(self) -> Path | None:
        """Where root.crt, root.crl, postgresql.crt and postgresql.key are looked for."""
        return None if self.home is None else self.home / ".postgresql"

    def given_of(self, *parts: Part) -> list[str]:
        """Look for what has no effect where something else carries it out.

        :param parts: what the parameters are about.
        :returns: the keywords of that kind that were given, environment and defaults apart, in
            libpq's order.
        """
        return [
            option.keyword
            for option in OPTIONS.values()
            if option.part in parts and option.keyword in self.given
        ]

    @classmethod
    def _complete(
        cls, given: Mapping[str, str], environ: Mapping[str, str], home: Path | None
    ) -> ConnInfo:
        home = home or home_directory(environ)
        values = add_defaults(given, environ, home)
        mistakes: list[str] = []
        hosts: tuple[Host, ...] = ()
        try:
            hosts = parse_hosts(values)
        except ConfigurationError as error:
            mistakes.extend(error.mistakes)
        mistakes.extend(find_mistakes(values, hosts))
        if mistakes:
            raise ConfigurationError(*mistakes)
        startup_parameters = _startup_parameters(values) | session_parameters(environ)
        named = {*given, *service_parameters(given, environ, home)}
        return cls._from_values(values, hosts, startup_parameters, home, frozenset(named))

    @classmethod
    def _from_values(
        cls,
        values: Mapping[str, str],
        hosts: tuple[Host, ...],
        startup_parameters: Mapping[str, str],
        home: Path | None,
        given: frozenset[str],
    ) -> ConnInfo:
        """Give checked values their types."""
        return cls(
            hosts=hosts,
            user=values.get("user") or None,
            password=values.get("password") or None,
            passfile=values.get("passfile") or (str(home / ".pgpass") if home else None),
            scram_client_key=scram_key(values, "scram_client_key"),
            scram_server_key=scram_key(values, "scram_server_key"),
            dbname=values.get("dbname") or None,
            sslmode=SSLMode(values["sslmode"]),
            sslnegotiation=SSLNegotiation(values["sslnegotiation"]),
            sslrootcert=values.get("sslrootcert") or None,
            sslcrl=values.get("sslcrl") or None,
            sslcrldir=values.get("sslcrldir") or None,
            sslcert=values.get("sslcert") or None,
            sslkey=values.get("sslkey") or None,
            sslpassword=values.get("sslpassword") or None,
            sslcertmode=SSLCertMode(values["sslcertmode"]),
            sslsni=values["sslsni"].startswith("1"),  # libpq looks at no more of it
            ssl_min_protocol_version=tls_version(values["ssl_min_protocol_version"]),
            ssl_max_protocol_version=tls_version(values.get("ssl_max_protocol_version", "")),
            sslkeylogfile=values.get("sslkeylogfile") or None,
            requirepeer=values.get("requirepeer") or None,
            require_auth=values.get("require_auth") or None,
            channel_binding=ChannelBinding(values["channel_binding"]),
            check_address=values["check_address"] == "1",
            connect_timeout=float(_natural(values, "connect_timeout")) or None,
            load_balance_hosts=LoadBalanceHosts(values["load_balance_hosts"]),
            target_session_attrs=TargetSessionAttrs(values["target_session_attrs"]),
            keepalives=parse_integer(values["keepalives"]) != 0,
            keepalives_idle=_natural(values, "keepalives_idle"),
            keepalives_interval=_natural(values, "keepalives_interval"),
            keepalives_count=_natural(values, "keepalives_count"),
            tcp_user_timeout=_natural(values, "tcp_user_timeout"),
            min_protocol_version=oldest_protocol(values),
            max_protocol_version=newest_protocol(values),
            startup_parameters=MappingProxyType(dict(startup_parameters)),
            home=home,
            given=given,
        )


def _natural(values: Mapping[str, str], keyword: str) -> int:
    """An integer; a negative one counts as 0, as does none."""
    return max(parse_integer(values.get(keyword, "0")) or 0, 0)


def _startup_parameters(values: Mapping[str, str]) -> dict[str, str]:
    """In the order of libpq's StartupMessage; an empty one is not sent."""
    parameters = {
        "replication": values.get("replication"),
        "options": values.get("options"),
        "application_name": values.get("application_name", values.get("fallback_application_name")),
        "client_encoding": values.get("client_encoding"),
    }
    if parameters["client_encoding"] == "auto":
        parameters["client_encoding"] = _locale_encoding()
    return {name: value for name, value in parameters.items() if value}


def _locale_encoding() -> str:
    """The locale's encoding by a name that PostgreSQL takes: it knows most, but not ASCII's."""
    codeset = locale.nl_langinfo(locale.CODESET)
    return "SQL_ASCII" if codeset == "ANSI_X3.4-1968" else codeset
