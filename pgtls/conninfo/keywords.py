"""The parameters of a connection string: libpq 18's keywords, environment variables and defaults.

Source: PostgreSQL's documentation, "Parameter Key Words" and "Environment Variables";
``PQconninfoOptions`` in ``src/interfaces/libpq/fe-connect.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from pgtls.wire.attempts import SSLMode, SSLNegotiation
from pgtls.wire.session_attributes import TargetSessionAttrs


class SSLCertMode(StrEnum):
    """libpq's ``sslcertmode``: whether a client certificate is sent."""

    DISABLE = "disable"
    ALLOW = "allow"
    REQUIRE = "require"


class ChannelBinding(StrEnum):
    """libpq's ``channel_binding``: whether SCRAM must, may or must not bind the channel."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


class LoadBalanceHosts(StrEnum):
    """libpq's ``load_balance_hosts``: in which order the hosts are tried."""

    DISABLE = "disable"
    RANDOM = "random"


#: Versions of the frontend/backend protocol by the names that min_protocol_version and
#: max_protocol_version take.
PROTOCOL_VERSIONS = {"3.0": (3, 0), "3.2": (3, 2), "latest": (3, 2)}

#: TLS versions, the oldest first. Upper and lower case are the same in a connection string.
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")


class Part(Enum):
    """What a parameter is about, and so which program carries it out."""

    CONNECTION = auto()  # pgtls itself, everywhere
    SESSION = auto()  # the StartupMessage: a gateway's client has one of its own
    LOGIN = auto()  # the answer to the server's authentication request
    NOTHING = auto()  # ignored, as in libpq


@dataclass(frozen=True, slots=True)
class Option:
    """One parameter of a connection string.

    :ivar envvar: the environment variable that stands in for it.
    :ivar default: its value where none is given.
    :ivar secret: whether the value must never be shown.
    :ivar part: what it is about.
    """

    keyword: str
    envvar: str | None = None
    default: str | None = None
    secret: bool = False
    part: Part = Part.CONNECTION


_ALL = (
    Option("service", "PGSERVICE"),
    # A keyword of libpq 19; up to 18 only the environment variable is there.
    Option("servicefile", "PGSERVICEFILE"),
    Option("user", "PGUSER", part=Part.SESSION),
    Option("password", "PGPASSWORD", secret=True, part=Part.LOGIN),
    Option("passfile", "PGPASSFILE", part=Part.LOGIN),
    Option("channel_binding", "PGCHANNELBINDING", ChannelBinding.PREFER),
    Option("connect_timeout", "PGCONNECT_TIMEOUT"),
    Option("dbname", "PGDATABASE", part=Part.SESSION),
    Option("host", "PGHOST"),
    Option("hostaddr", "PGHOSTADDR"),
    Option("port", "PGPORT", "5432"),
    Option("client_encoding", "PGCLIENTENCODING", part=Part.SESSION),
    Option("options", "PGOPTIONS", part=Part.SESSION),
    Option("application_name", "PGAPPNAME", part=Part.SESSION),
    Option("fallback_application_name", part=Part.SESSION),
    Option("keepalives", default="1"),
    Option("keepalives_idle"),
    Option("keepalives_interval"),
    Option("keepalives_count"),
    Option("tcp_user_timeout"),
    Option("sslmode", "PGSSLMODE", SSLMode.PREFER),
    Option("sslnegotiation", "PGSSLNEGOTIATION", SSLNegotiation.POSTGRES),
    # Accepted and ignored, as in libpq since 14.
    Option("sslcompression", "PGSSLCOMPRESSION", part=Part.NOTHING),
    Option("sslcert", "PGSSLCERT"),
    Option("sslkey", "PGSSLKEY"),
    Option("sslcertmode", "PGSSLCERTMODE", SSLCertMode.ALLOW),
    Option("sslpassword", secret=True),
    Option("sslrootcert", "PGSSLROOTCERT"),
    Option("sslcrl", "PGSSLCRL"),
    Option("sslcrldir", "PGSSLCRLDIR"),
    Option("sslsni", "PGSSLSNI", "1"),
    Option("requirepeer", "PGREQUIREPEER"),
    Option("require_auth", "PGREQUIREAUTH"),
    Option("min_protocol_version", "PGMINPROTOCOLVERSION"),
    Option("max_protocol_version", "PGMAXPROTOCOLVERSION", part=Part.SESSION),
    Option("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", "TLSv1.2"),
    Option("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    Option("gssencmode", "PGGSSENCMODE", "disable"),
    Option("krbsrvname", "PGKRBSRVNAME", part=Part.LOGIN),
    Option("gsslib", "PGGSSLIB", part=Part.LOGIN),
    Option("gssdelegation", "PGGSSDELEGATION", part=Part.LOGIN),
    Option("replication", part=Part.SESSION),
    Option("target_session_attrs", "PGTARGETSESSIONATTRS", TargetSessionAttrs.ANY),
    Option("load_balance_hosts", "PGLOADBALANCEHOSTS", LoadBalanceHosts.DISABLE),
    Option("scram_client_key", secret=True, part=Part.LOGIN),
    Option("scram_server_key", secret=True, part=Part.LOGIN),
    Option("oauth_issuer", part=Part.LOGIN),
    Option("oauth_client_id", part=Part.LOGIN),
    Option("oauth_client_secret", secret=True, part=Part.LOGIN),
    Option("oauth_scope", part=Part.LOGIN),
    Option("sslkeylogfile"),
    # Ours: whether the server's name must resolve to the address that was connected to.
    Option("check_address", default="0"),
)

#: Every parameter by its keyword.
OPTIONS = {option.keyword: option for option in _ALL}

#: Parameters of a login by password.
OF_PASSWORDS = ("password", "passfile", "scram_client_key", "scram_server_key")

#: The keyword that each environment variable stands in for.
ENVIRONMENT = {option.envvar: option.keyword for option in _ALL if option.envvar is not None}

#: Environment variables that set a parameter of the session and have no keyword.
SESSION_VARIABLES = {"PGDATESTYLE": "datestyle", "PGTZ": "timezone", "PGGEQO": "geqo"}

#: The values of those parameters that take one of a few.
CHOICES: dict[str, tuple[str, ...]] = {
    "channel_binding": tuple(ChannelBinding),
    "sslmode": tuple(SSLMode),
    "sslnegotiation": tuple(SSLNegotiation),
    "sslcertmode": tuple(SSLCertMode),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": tuple(TargetSessionAttrs),
    "load_balance_hosts": tuple(LoadBalanceHosts),
    "min_protocol_version": tuple(PROTOCOL_VERSIONS),
    "max_protocol_version": tuple(PROTOCOL_VERSIONS),
    "check_address": ("0", "1"),
}

#: Parameters whose value is an integer.
INTEGERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
