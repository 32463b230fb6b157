"""Every parameter of libpq's: honoured, somebody else's to carry out, or refused by name.

The list is libpq's own, by psycopg.
"""

from __future__ import annotations

from pathlib import Path

from psycopg.pq import Conninfo
from twisted.trial.unittest import SynchronousTestCase

import pgtls
from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.keywords import OPTIONS, Part
from pgtls.errors import ConfigurationError

THEIRS = {option.keyword.decode(): option for option in Conninfo.get_defaults()}

#: Honoured: for each parameter a value, none of them the default, that makes a difference.
HONOURED = {
    "user": "alice",
    "channel_binding": "require",
    "connect_timeout": "7",
    "dbname": "sales",
    "host": "db.example.com",
    "hostaddr": "192.0.2.1",
    "port": "6432",
    "client_encoding": "UTF8",
    "options": "-c geqo=off",
    "application_name": "report",
    "fallback_application_name": "report",
    "keepalives": "0",
    "keepalives_idle": "7",
    "keepalives_interval": "7",
    "keepalives_count": "7",
    "tcp_user_timeout": "7",
    "sslmode": "require",
    "sslnegotiation": "direct",
    "sslcert": "/a",
    "sslkey": "/a",
    "sslcertmode": "disable",
    "sslpassword": "secret",
    "sslrootcert": "/a",
    "sslcrl": "/a",
    "sslcrldir": "/a",
    "sslsni": "0",
    "requirepeer": "postgres",
    "require_auth": "scram-sha-256",
    "min_protocol_version": "3.2",
    "max_protocol_version": "3.2",
    "ssl_min_protocol_version": "TLSv1.3",
    "ssl_max_protocol_version": "TLSv1.2",
    "replication": "database",
    "target_session_attrs": "standby",
    "load_balance_hosts": "random",
    "sslkeylogfile": "/a",
}

#: The answer to the server's authentication request, which is mostly an application's or a
#: gateway's client's to give.
LOGIN = {
    "password": "secret",
    "passfile": "/a",
    "krbsrvname": "pg",
    "gsslib": "gssapi",
    "gssdelegation": "1",
    "scram_client_key": "A" * 43 + "=",
    "scram_server_key": "A" * 43 + "=",
    "oauth_issuer": "https://example.com",
    "oauth_client_id": "pg",
    "oauth_client_secret": "secret",
    "oauth_scope": "pg",
}

#: Has no effect in libpq either.
NOTHING = {"sslcompression": "1"}

#: Refused, with the value and the reason.
REFUSED = {
    "service": ("nowhere", 'definition of service "nowhere" not found'),
    "gssencmode": (
        "require",
        'gssencmode value "require" invalid when GSSAPI support is not compiled in',
    ),
}


def parsed(**parameters: str) -> ConnInfo:
    """As in an environment without anything."""
    return ConnInfo.from_parameters(parameters, {"HOME": "/nonexistent"})


class EveryParameterTests(SynchronousTestCase):
    """libpq's list, from first to last."""

    def test_each_is_in_one_of_the_tables(self) -> None:
        tables = [*HONOURED, *LOGIN, *NOTHING, *REFUSED]
        self.assertEqual(sorted(tables), sorted(THEIRS))

    def test_names_and_environment_variables_are_libpqs(self) -> None:
        for keyword, theirs in THEIRS.items():
            envvar = theirs.envvar.decode() if theirs.envvar else None
            self.assertEqual(OPTIONS[keyword].envvar, envvar, keyword)
        self.assertEqual(set(OPTIONS) - set(THEIRS), {"servicefile", "check_address"})

    def test_defaults_are_libpqs(self) -> None:
        for keyword, theirs in THEIRS.items():
            ours = OPTIONS[keyword].default
            if ours is not None and theirs.compiled:
                self.assertEqual(ours, theirs.compiled.decode(), keyword)

    def test_honoured(self) -> None:
        for keyword, value in HONOURED.items():
            base = {"sslmode": "verify-ca"} if keyword == "sslnegotiation" else {}
            self.assertNotEqual(parsed(**base, **{keyword: value}), parsed(**base), keyword)
            self.assertIn(OPTIONS[keyword].part, (Part.CONNECTION, Part.SESSION), keyword)

    def test_what_is_somebody_elses_to_carry_out(self) -> None:
        for part, table in ((Part.LOGIN, LOGIN), (Part.NOTHING, NOTHING)):
            for keyword, value in table.items():
                self.assertIs(OPTIONS[keyword].part, part, keyword)
                self.assertEqual(parsed(**{keyword: value}).given_of(part), [keyword])
            every = {option.keyword for option in OPTIONS.values() if option.part is part}
            self.assertEqual(every, set(table))

    def test_refused_by_name(self) -> None:
        for keyword, (value, reason) in REFUSED.items():
            error = self.assertRaises(ConfigurationError, parsed, **{keyword: value})
            self.assertEqual(error.mistakes, (reason,))

    def test_the_documentation_names_each(self) -> None:
        page = Path(pgtls.__file__).parent.parent / "docs" / "settings.rst"
        text = page.read_text("utf-8")
        missing = [keyword for keyword in OPTIONS if f"``{keyword}``" not in text]
        self.assertEqual(missing, [])
