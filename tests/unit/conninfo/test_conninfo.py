"""Connection strings: what libpq 18 makes of them, and what pgtls makes of them."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import OperationalError, pq
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.grammar import format_text, parse_text
from pgtls.conninfo.hosts import Host, default_host
from pgtls.conninfo.keywords import OPTIONS, LoadBalanceHosts, SSLCertMode
from pgtls.errors import ConfigurationError
from pgtls.wire.attempts import SSLMode, SSLNegotiation

#: A home directory in which there is nothing.
NOWHERE = Path("/nonexistent")


def parse(text: str, **environ: str) -> ConnInfo:
    """Read a connection string with these environment variables and no files."""
    return ConnInfo.parse(text, {"PGSYSCONFDIR": "/nonexistent", **environ}, NOWHERE)


def libpq_parse(text: str) -> dict[str, str] | str:
    """What PQconninfoParse() makes of a text: the options, or the error."""
    try:
        options = pq.Conninfo.parse(text.encode("utf-8", "surrogateescape"))
    except OperationalError as error:
        return str(error).rstrip("\n")
    return {
        option.keyword.decode(): option.val.decode("utf-8", "surrogateescape")
        for option in options
        if option.val is not None
    }


def libpq_connect_error(text: str) -> str:
    """What PQconnectdb() says of a text; its values are checked before anything is sent."""
    connection = pq.PGconn.connect(f"hostaddr=127.0.0.1 port=1 {text}".encode())
    message = connection.error_message.decode().rstrip("\n")
    connection.finish()
    return message.removeprefix('connection to server at "127.0.0.1", port 1 failed: ')


def parsed_or_error(text: str) -> dict[str, str] | str:
    try:
        return parse_text(text)
    except ConfigurationError as error:
        return str(error)


class ConnInfoTestCase(SynchronousTestCase):
    def mistakes(self, text: str, **environ: str) -> tuple[str, ...]:
        return self.assertRaises(ConfigurationError, parse, text, **environ).mistakes

    def write(self, directory: str, name: str, content: str) -> Path:
        os.makedirs(directory, exist_ok=True)
        path = Path(directory, name)
        path.write_text(content)
        return path


GRAMMAR = [
    "",
    " \t\n\v\f\r",
    "host",
    "host = a",
    "host= a user =b",
    "=x",
    "host=a\\ b",
    "host=a\\ b c",
    "host=a\\",
    "host='a''b'",
    "host='a'user=b",
    "host='it\\'s' user='back\\\\slash'",
    "host='a",
    "host='a\\",
    "host='a\\'",
    "host=a=b",
    "host=a user ",
    "host=",
    "host='' user=x",
    "host=a host=b",
    "Host=a",
    "bad=x",
    "host\xa0=a",
    "host=a\x0buser=b",
    "host=a\x1cuser=b",
    "user=Zoë",
    "requiressl=1",
    "requiressl=0",
    "requiressl=",
    "ssl=true",
    "postgresql://",
    "postgres://",
    "Postgresql://a",
    "  postgresql://h",
    "postgresql://h",
    "postgresql://h:5433/d",
    "postgresql://u@h",
    "postgresql://u:p@h/d",
    "postgresql://u:p%40%3A%2F@h/d",
    "postgresql://:p@h",
    "postgresql://@h",
    "postgresql://u:@h",
    "postgresql://h1:1,h2,h3:3/d",
    "postgresql://h,,:5/",
    "postgresql://,",
    "postgresql://[::1]",
    "postgresql://[::1]:5433/d",
    "postgresql://[::1],[fe80::1]:2,h?user=u",
    "postgresql://[]",
    "postgresql://[::1",
    "postgresql://[::1]x",
    "postgresql:///d",
    "postgresql:///d?host=/tmp",
    "postgresql://%2Fvar%2Frun%2Fpostgresql:5433/d",
    "postgresql://h/d/e",
    "postgresql://h/%20",
    "postgresql://h/%E9",
    "postgresql://h:/d",
    "postgresql://h\n",
    "postgresql:// h ",
    "postgresql:// u v:x@h",
    "postgresql:// :x@h",
    "postgresql://%zz",
    "postgresql://%",
    "postgresql://%0",
    "postgresql://%00",
    "postgresql://é[",
    "postgresql://h?",
    "postgresql://h?a",
    "postgresql://h?=1",
    "postgresql://h?bad=1",
    "postgresql://h?user=",
    "postgresql://h?host=a=b",
    "postgresql://h?&host=x",
    "postgresql://h?host=x&",
    "postgresql://h?host=x&&port=3",
    "postgresql://h? host = a b",
    "postgresql://h?ssl=true",
    "postgresql://h?ssl=false",
    "postgresql://h?requiressl=1",
    "postgresql://h?x%3D1=2",
    "postgresql://h?sslmode=%72equire&us%65r=a%26b",
    "postgresql://u@h?user=z",
]

_PIECES = st.sampled_from(
    [
        *("postgresql://", "postgres://", "ssl=true", "[::1]", "%41", "%2F", "%00", "%", "%4"),
        *("host", "user", "password", "sslmode", "requiressl", "port", "bad", "x", "1", "5432"),
        *(" = ", " ", "\t", "\n", "\v", "'", "''", '"', "\\", "#"),
        *"=@:/?&,[]",
    ]
)


class GrammarTests(ConnInfoTestCase):
    """The text of a connection string, against libpq itself."""

    def assertAsLibpq(self, text: str) -> None:
        ours, libpqs = parsed_or_error(text), libpq_parse(text)
        if isinstance(ours, str) and isinstance(libpqs, str):
            # Passwords are hidden, and URIs not repeated; libpq does both.
            self.assertEqual(ours.split("***")[0], libpqs[: len(ours.split("***")[0])], text)
        else:
            self.assertEqual(ours, libpqs, text)

    def test_table(self) -> None:
        for text in GRAMMAR:
            self.assertAsLibpq(text)

    @settings(deadline=None, max_examples=400)
    @given(st.lists(_PIECES, max_size=12).map("".join))
    def test_any_pieces(self, text: str) -> None:
        self.assertAsLibpq(text)

    def test_words_of_the_errors(self) -> None:
        for text, message in [
            ("host", 'missing "=" after "host" in connection info string'),
            ("host='a", "unterminated quoted string in connection info string"),
            ("frobnicate=1", 'invalid connection option "frobnicate"'),
            ("password=p frobnicate=1", 'invalid connection option "frobnicate"'),
            ("postgresql://h?frobnicate=1", 'invalid URI query parameter: "frobnicate"'),
            ("postgresql://h%4", 'invalid percent-encoded token: "h%4"'),
            ("postgresql://h%00", 'forbidden value %00 in percent-encoded value: "h%00"'),
            ("postgresql://[]", "IPv6 host address may not be empty in URI"),
            (
                "postgresql://[::1]x",
                'unexpected character "x" at position 19 in URI (expected ":" or "/")',
            ),
        ]:
            self.assertEqual(self.mistakes(text), (message,))

    def test_bare_word_is_no_connection_string(self) -> None:
        self.assertEqual(
            self.mistakes("mydb"), ('missing "=" after "mydb" in connection info string',)
        )

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(sorted(OPTIONS)),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        )
    )
    def test_what_is_written_reads_back(self, options: dict[str, str]) -> None:
        text = format_text(options)
        self.assertEqual(parse_text(text), options)
        known_to_18 = {k: v for k, v in options.items() if k not in NOT_IN_LIBPQ_18}
        self.assertEqual(libpq_parse(format_text(known_to_18)), known_to_18)

    @settings(deadline=None)
    @given(st.text() | st.text().map("postgresql://{}".format))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            info = parse(text)
        except ConfigurationError as error:
            self.assertTrue(str(error))
        else:
            self.assertTrue(info.hosts)

    def test_nul_is_refused(self) -> None:
        self.assertEqual(
            self.mistakes("host=a\0b"),
            ("connection info string must not contain a NUL character",),
        )

    def test_bytes_that_are_not_utf8_are_kept(self) -> None:
        self.assertEqual(os.fsencode(parse("postgresql://h/%E9").dbname or ""), b"\xe9")


class SecretsTests(ConnInfoTestCase):
    """No error and no repr shows a password, or a piece of one."""

    def test_pieces_of_a_password(self) -> None:
        for text in [
            "password=my hunter2",
            "password=my hunter2=1",
            "password='my' 'hunter2'",
            "sslpassword=my hunter2",
            "oauth_client_secret=my hunter2",
            "postgresql://u:hunter2%zz@h/d",
            "postgresql://u:hunter2%00@h/d",
            "postgresql://u:hunter2 x@h/d",
            "postgresql://u:hunter2@[/d",
            "postgresql://u:hunter2@[]/d",
            "postgresql://u:hunter2@[::1]x/d",
            "postgresql://u:hunter2/x@h/d",
            "postgresql://u:x/hunter2%zz@h/d",
            "postgresql://u:hunter2%zz/x@h/d",
            "postgresql://u:x/y?hunter2@h",
            "postgresql://u:x@hunter2@h/d",
            "postgresql://u:x@hunter2%zz@h/d",
            "postgresql://u:x@y:hunter2@h/d",
            "postgresql://h?password=hunter2%zz",
            "postgresql://h?password=x&hunter2",
            "postgresql://h?password=x&hunter2=1",
            "postgresql://h?password=x=hunter2",
            "mysql://u:hunter2@h/d",
            "scram_client_key=hunter2",
            "password=hunter2 sslmode=bad",
        ]:
            error = self.assertRaises(ConfigurationError, parse, text)
            self.assertNotIn("hunter2", str(error), text)

    def test_repr(self) -> None:
        info = parse("password=hunter2 sslpassword=hunter3 scram_client_key=" + "A" * 43 + "=")
        self.assertEqual((info.password, info.sslpassword), ("hunter2", "hunter3"))
        self.assertNotIn("hunter", repr(info))
        self.assertNotIn("AAAA", repr(info))


NOT_IN_LIBPQ_18 = {"servicefile", "check_address"}


class OptionsTests(ConnInfoTestCase):
    """The table of parameters, against libpq's own."""

    def test_keywords_and_variables(self) -> None:
        libpqs = {
            option.keyword.decode(): option.envvar and option.envvar.decode()
            for option in pq.Conninfo.get_defaults()
        }
        ours = {
            keyword: option.envvar
            for keyword, option in OPTIONS.items()
            if keyword not in NOT_IN_LIBPQ_18
        }
        self.assertEqual(ours, libpqs)

    def test_defaults(self) -> None:
        for option in pq.Conninfo.get_defaults():
            ours = OPTIONS[option.keyword.decode()].default
            # Of gssencmode, libpq's depends on the build.
            if option.compiled and ours and option.keyword != b"gssencmode":
                self.assertEqual(ours, option.compiled.decode(), option.keyword)


class PrecedenceTests(ConnInfoTestCase):
    """String, service, environment, default: the first that has a value wins."""

    def test_defaults(self) -> None:
        info = parse("")
        self.assertEqual(info.hosts, (Host(default_host(), "", 5432),))
        self.assertEqual(info.sslmode, SSLMode.PREFER)
        self.assertEqual(info.sslnegotiation, SSLNegotiation.POSTGRES)
        self.assertEqual(info.sslcertmode, SSLCertMode.ALLOW)
        self.assertEqual(info.load_balance_hosts, LoadBalanceHosts.DISABLE)
        self.assertEqual(
            (info.ssl_min_protocol_version, info.ssl_max_protocol_version), ("TLSv1.2", None)
        )
        self.assertEqual((info.min_protocol_version, info.max_protocol_version), ((3, 0), (3, 0)))
        self.assertTrue(info.sslsni)
        self.assertTrue(info.keepalives)
        self.assertFalse(info.check_address)
        self.assertIsNone(info.connect_timeout)
        self.assertEqual((info.user, info.dbname, info.password), (None, None, None))
        self.assertEqual((info.sslrootcert, info.sslcert, info.sslkey), (None, None, None))
        self.assertEqual(dict(info.startup_parameters), {})

    def test_environment(self) -> None:
        info = parse(
            "user=u",
            PGUSER="nobody",
            PGHOST="a,b",
            PGPORT="1,2",
            PGDATABASE="d",
            PGSSLMODE="require",
            PGSSLNEGOTIATION="direct",
            PGSSLROOTCERT="root",
            PGSSLCRL="crl",
            PGSSLCRLDIR="crldir",
            PGSSLCERT="cert",
            PGSSLKEY="key",
            PGSSLCERTMODE="require",
            PGSSLSNI="0",
            PGREQUIREPEER="postgres",
            PGSSLMINPROTOCOLVERSION="TLSv1.3",
            PGSSLMAXPROTOCOLVERSION="tlsv1.3",
            PGMAXPROTOCOLVERSION="3.2",
            PGCONNECT_TIMEOUT="3",
            PGLOADBALANCEHOSTS="random",
        )
        self.assertEqual((info.user, info.dbname), ("u", "d"))
        self.assertEqual(info.hosts, (Host("a", "", 1), Host("b", "", 2)))
        self.assertEqual(info.sslmode, SSLMode.REQUIRE)
        self.assertEqual(info.sslnegotiation, SSLNegotiation.DIRECT)
        self.assertEqual((info.sslrootcert, info.sslcert, info.sslkey), ("root", "cert", "key"))
        self.assertEqual((info.sslcrl, info.sslcrldir), ("crl", "crldir"))
        self.assertEqual((info.sslcertmode, info.sslsni), (SSLCertMode.REQUIRE, False))
        self.assertEqual(info.requirepeer, "postgres")
        self.assertEqual(
            (info.ssl_min_protocol_version, info.ssl_max_protocol_version), ("TLSv1.3", "TLSv1.3")
        )
        self.assertEqual(info.max_protocol_version, (3, 2))
        self.assertEqual(info.connect_timeout, 3.0)
        self.assertEqual(info.load_balance_hosts, LoadBalanceHosts.RANDOM)

    def test_pgrequiressl(self) -> None:
        self.assertEqual(parse("", PGREQUIRESSL="1").sslmode, SSLMode.REQUIRE)
        self.assertEqual(parse("", PGREQUIRESSL="0").sslmode, SSLMode.PREFER)
        self.assertEqual(parse("", PGREQUIRESSL="1", PGSSLMODE="allow").sslmode, SSLMode.ALLOW)

    def test_empty_variable_counts(self) -> None:
        self.assertEqual(self.mistakes("", PGSSLMODE=""), ('invalid sslmode value: ""',))

    def test_system_roots_make_verify_full_the_default(self) -> None:
        self.assertEqual(parse("sslrootcert=system").sslmode, SSLMode.VERIFY_FULL)
        self.assertEqual(parse("", PGSSLROOTCERT="system").sslmode, SSLMode.VERIFY_FULL)
        self.assertEqual(
            parse("sslrootcert=system sslnegotiation=direct").sslnegotiation, SSLNegotiation.DIRECT
        )

    def test_system_roots_refuse_a_weaker_sslmode(self) -> None:
        message = (
            'weak sslmode "verify-ca" may not be used with sslrootcert=system (use "verify-full")'
        )
        self.assertEqual(self.mistakes("sslrootcert=system sslmode=verify-ca"), (message,))
        self.assertEqual(self.mistakes("sslrootcert=system", PGSSLMODE="verify-ca"), (message,))
        self.assertEqual(len(self.mistakes("sslrootcert=system", PGREQUIRESSL="1")), 1)

    def test_home_directory(self) -> None:
        self.assertEqual(
            ConnInfo.parse("", {"HOME": "/home/u"}).default_directory, Path("/home/u/.postgresql")
        )
        self.assertEqual(parse("", HOME="/home/u").default_directory, NOWHERE / ".postgresql")
        self.assertIsNotNone(ConnInfo.parse("", {}).home)

    def test_parameters_by_name(self) -> None:
        info = ConnInfo.from_parameters(
            {"host": "h o", "user": "", "sslmode": "require"}, {"PGUSER": "u"}, NOWHERE
        )
        self.assertEqual(info, parse("host='h o' sslmode=require user=u"))

    def test_unknown_parameters_by_name(self) -> None:
        error = self.assertRaises(
            ConfigurationError, ConnInfo.from_parameters, {"frob": "1", "nicate": ""}, {}, NOWHERE
        )
        self.assertEqual(
            error.mistakes,
            ('invalid connection option "frob"', 'invalid connection option "nicate"'),
        )


class ServiceTests(ConnInfoTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.system = self.mktemp()
        self.service_file = self.write(
            str(self.home),
            ".pg_service.conf",
            "# comment\n[other]\nhost=no\n\n [mine] \n  host=h1,h2\nport=1\nuser=s \nuser=t\n"
            "[mine]\ndbname=late\n",
        )

    def parse(self, text: str, **environ: str) -> ConnInfo:
        return ConnInfo.parse(text, {"PGSYSCONFDIR": self.system, **environ}, self.home)

    def refusal(self, text: str, **environ: str) -> str:
        return str(self.assertRaises(ConfigurationError, self.parse, text, **environ))

    def test_between_string_and_environment(self) -> None:
        info = self.parse("service=mine port=2", PGUSER="e", PGDATABASE="e", PGPORT="3")
        self.assertEqual(info.hosts, (Host("h1", "", 2), Host("h2", "", 2)))
        self.assertEqual((info.user, info.dbname), ("s", "e"))

    def test_pgservice(self) -> None:
        self.assertEqual(self.parse("", PGSERVICE="mine").user, "s")
        self.assertEqual(self.parse("service=mine", PGSERVICE="other").user, "s")

    def test_named_files(self) -> None:
        named = str(self.write(self.mktemp(), "services", "[mine]\nuser=named\n"))
        self.assertEqual(self.parse("service=mine", PGSERVICEFILE=named).user, "named")
        info = self.parse(f"service=mine servicefile={named}", PGSERVICEFILE="/nonexistent")
        self.assertEqual(info.user, "named")

    def test_system_wide_file_has_what_the_users_has_not(self) -> None:
        self.write(self.system, "pg_service.conf", "[mine]\nuser=x\n[wide]\nuser=w\n")
        self.assertEqual(self.parse("service=wide").user, "w")
        self.assertEqual(self.parse("service=mine").user, "s")

    def test_not_found(self) -> None:
        self.assertEqual(self.refusal("service=x"), 'definition of service "x" not found')
        self.assertEqual(
            self.refusal("service=mine", PGSERVICEFILE="/nonexistent/f"),
            'service file "/nonexistent/f" not found',
        )

    def test_mistakes_in_the_file(self) -> None:
        for line, words in [
            ("host", "syntax error in"),
            ("frob=1", "syntax error in"),
            ("host =x", "syntax error in"),
            ("service=other", "nested service specifications not supported in"),
        ]:
            self.service_file.write_text(f"[mine]\n{line}\n")
            self.assertEqual(
                self.refusal("service=mine"), f'{words} service file "{self.service_file}", line 2'
            )

    def test_line_too_long(self) -> None:
        self.service_file.write_text("[mine]\nhost=" + "x" * 1017)
        self.assertEqual(
            self.refusal("service=mine"), f'line 2 too long in service file "{self.service_file}"'
        )

    def test_password_in_it_is_not_shown(self) -> None:
        self.service_file.write_text("[mine]\npassword=hunter2\nhunter2\n")
        self.assertNotIn("hunter2", self.refusal("service=mine"))


class HostsTests(ConnInfoTestCase):
    def test_lists(self) -> None:
        info = parse("host=a,b,c port=1,,3")
        self.assertEqual([(h.host, h.port) for h in info.hosts], [("a", 1), ("b", 5432), ("c", 3)])

    def test_one_port_for_all(self) -> None:
        self.assertEqual([h.port for h in parse("host=a,b port=9").hosts], [9, 9])

    def test_hostaddr_is_connected_to_and_host_is_verified(self) -> None:
        host, other = parse("host=a, hostaddr=127.0.0.1,::1").hosts
        self.assertEqual((host.address, host.name, host.unix_path), ("127.0.0.1", "a", None))
        self.assertEqual((other.address, other.name), ("::1", "::1"))

    def test_unix_sockets(self) -> None:
        for text, path in [
            ("host=/run/pg port=1", "/run/pg/.s.PGSQL.1"),
            ("postgresql://%2Frun%2Fpg:1/d", "/run/pg/.s.PGSQL.1"),
            ("host=@abstract", "@abstract/.s.PGSQL.5432"),
            ("", f"{default_host()}/.s.PGSQL.5432"),
            ("host=h", None),
            ("host=/run/pg hostaddr=::1", None),
        ]:
            self.assertEqual(parse(text).hosts[0].unix_path, path, text)

    def test_empty_place_is_the_local_server(self) -> None:
        self.assertEqual(
            [host.host for host in parse("postgresql://a,,b").hosts], ["a", default_host(), "b"]
        )

    def test_counts(self) -> None:
        for text, message in [
            ("host=a,b port=1,2,3", "could not match 3 port numbers to 2 hosts"),
            ("port=1,2", "could not match 2 port numbers to 1 hosts"),
            ("host=a hostaddr=::1,::1", "could not match 1 host names to 2 hostaddr values"),
        ]:
            self.assertEqual(self.mistakes(text), (message,))

    def test_ports(self) -> None:
        for port, message in [
            ("x", 'invalid integer value "x" for connection option "port"'),
            ("1 2", 'invalid integer value "1 2" for connection option "port"'),
            ("0", 'invalid port number: "0"'),
            ("65536", 'invalid port number: "65536"'),
            ("-1", 'invalid port number: "-1"'),
            ("9" * 9999, 'invalid integer value "' + "9" * 9999 + '" for connection option "port"'),
        ]:
            self.assertEqual(self.mistakes(f"host=h port='{port}'"), (message,))
        self.assertEqual(parse("host=h port=' +7 '").hosts[0].port, 7)

    def test_every_host_is_checked(self) -> None:
        self.assertEqual(len(self.mistakes("host=a,b port=0,x")), 2)

    def test_hostaddr(self) -> None:
        (message,) = self.mistakes("hostaddr=nope")
        self.assertIn('could not parse network address "nope": ', message)

    def test_path_too_long(self) -> None:
        (message,) = self.mistakes("host=/" + "x" * 100)
        self.assertIn("is too long (maximum 107 bytes)", message)


#: Values that libpq refuses; each is a mistake on its own.
REFUSED = [
    "sslmode=x",
    "sslmode=''",
    "sslmode=Require",
    "sslnegotiation=x",
    "sslnegotiation=direct",
    "sslnegotiation=direct sslmode=disable",
    "sslcertmode=x",
    "sslcertmode=''",
    "sslrootcert=system sslmode=require",
    "ssl_min_protocol_version=x",
    "ssl_max_protocol_version=TLSv1.4",
    "ssl_max_protocol_version=TLSv1.1",
    "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
    "min_protocol_version=x",
    "max_protocol_version=''",
    "max_protocol_version=3.1",
    "min_protocol_version=3.2 max_protocol_version=3.0",
    "connect_timeout=x",
    "connect_timeout=''",
    "connect_timeout=0x5",
    "connect_timeout=5.5",
    "connect_timeout=1_0",
    "connect_timeout=99999999999",
    "keepalives=x",
    "keepalives=''",
    "keepalives_idle=x",
    "keepalives_interval=x",
    "keepalives_count=x",
    "tcp_user_timeout=x",
    "channel_binding=x",
    "gssencmode=x",
    "target_session_attrs=x",
    "load_balance_hosts=x",
    "require_auth=x",
    "require_auth=md5,",
    "require_auth=md5,md5",
    "require_auth=!md5,password",
    "require_auth=password,!md5",
    "scram_client_key=x",
    "scram_client_key=aaaa",
    "scram_server_key=''",
]

#: Values that libpq takes.
ACCEPTED = [
    "ssl_min_protocol_version=''",
    "ssl_min_protocol_version=tlsv1.3",
    "ssl_max_protocol_version=TLSv1.1 ssl_min_protocol_version=''",
    "min_protocol_version=3.2",
    "min_protocol_version=latest max_protocol_version=latest",
    "connect_timeout=-3",
    "connect_timeout=' +5 '",
    "keepalives=2",
    "require_auth=''",
    "require_auth=scram-sha-256,oauth,none",
    "require_auth=!password,!none",
    "sslsni=x",
    "sslcompression=x",
    "gssdelegation=1 gsslib=x krbsrvname=x",
    "gssencmode=disable",
    "channel_binding=disable",
    "oauth_client_id=x oauth_client_secret=y oauth_scope=z",
    "passfile=/nonexistent",
    "sslnegotiation=direct sslmode=verify-ca",
]


class ValuesTests(ConnInfoTestCase):
    """The values of the parameters, against libpq itself."""

    def setUp(self) -> None:
        """libpq reads the environment of the process: nothing of PostgreSQL's may be in it."""
        for variable in [name for name in os.environ if name.startswith("PG")]:
            self.addCleanup(os.environ.__setitem__, variable, os.environ.pop(variable))

    def test_refused_in_libpqs_words(self) -> None:
        for text in REFUSED:
            self.assertEqual(self.mistakes(text), (libpq_connect_error(text),), text)

    def test_accepted(self) -> None:
        for text in ACCEPTED:
            self.assertIn("Connection refused", libpq_connect_error(text), text)
            parse(text)

    def test_all_mistakes_at_once(self) -> None:
        self.assertEqual(
            self.mistakes("host=a port=0 sslmode=x sslcertmode=y"),
            (
                'invalid port number: "0"',
                'invalid sslmode value: "x"',
                'invalid sslcertmode value: "y"',
            ),
        )

    def test_gssapi_encryption_is_not_there(self) -> None:
        self.assertEqual(
            self.mistakes("gssencmode=require"),
            ('gssencmode value "require" invalid when GSSAPI support is not compiled in',),
        )
        parse("gssencmode=prefer")

    def test_check_address(self) -> None:
        good = "check_address=1 sslmode=verify-full"
        for hosts in ("host=db", "host=db hostaddr=192.0.2.1", "host=db,/tmp", "host=a,b"):
            self.assertTrue(parse(f"{good} {hosts}").check_address, hosts)
        self.assertEqual(self.mistakes("check_address=on"), ('invalid check_address value: "on"',))

    def test_check_address_looks_up_a_verified_name(self) -> None:
        for sslmode in ("disable", "allow", "prefer", "require", "verify-ca"):
            (message,) = self.mistakes(f"check_address=1 host=db sslmode={sslmode}")
            self.assertIn("check_address=1 needs sslmode=verify-full", message)
            self.assertIn(f'"{sslmode}"', message)
        for hosts in ("host=127.1", "host=::1", "hostaddr=127.0.0.1", "host=db,192.0.2.1"):
            (message,) = self.mistakes(f"check_address=1 sslmode=verify-full {hosts}")
            self.assertIn("check_address=1 needs a host name to look up", message, hosts)

    def test_connect_timeout(self) -> None:
        for text, seconds in [("1", 1.0), ("10", 10.0), ("0", None), ("-1", None)]:
            self.assertEqual(parse(f"connect_timeout={text}").connect_timeout, seconds)

    def test_protocol_versions(self) -> None:
        info = parse("min_protocol_version=3.2")
        self.assertEqual((info.min_protocol_version, info.max_protocol_version), ((3, 2), (3, 2)))
        self.assertEqual(parse("max_protocol_version=latest").max_protocol_version, (3, 2))

    def test_empty_file_names_are_not_given(self) -> None:
        info = parse("sslrootcert='' sslcrl='' sslcrldir='' sslcert='' sslkey='' sslkeylogfile=''")
        self.assertEqual(info, parse(""))

    def test_keepalives(self) -> None:
        info = parse("keepalives=0 keepalives_idle=9 keepalives_count=-1 tcp_user_timeout=500")
        self.assertFalse(info.keepalives)
        self.assertEqual((info.keepalives_idle, info.keepalives_count), (9, 0))
        self.assertEqual(info.tcp_user_timeout, 500)


class StartupParametersTests(ConnInfoTestCase):
    def parameters(self, text: str, **environ: str) -> Mapping[str, str]:
        return dict(parse(text, **environ).startup_parameters)

    def test_from_the_string(self) -> None:
        self.assertEqual(
            self.parameters(
                "user=u dbname=d replication=database options='-c geqo=off' application_name=a "
                "fallback_application_name=f client_encoding=LATIN1"
            ),
            {
                "replication": "database",
                "options": "-c geqo=off",
                "application_name": "a",
                "client_encoding": "LATIN1",
            },
        )

    def test_fallback_application_name(self) -> None:
        self.assertEqual(self.parameters("fallback_application_name=f"), {"application_name": "f"})
        self.assertEqual(
            self.parameters("fallback_application_name=f", PGAPPNAME="e"), {"application_name": "e"}
        )

    def test_from_the_environment(self) -> None:
        self.assertEqual(
            self.parameters(
                "",
                PGOPTIONS="-c x=1",
                PGCLIENTENCODING="UTF8",
                PGDATESTYLE="ISO",
                PGTZ="UTC",
                PGGEQO="DEFAULT",
            ),
            {
                "options": "-c x=1",
                "client_encoding": "UTF8",
                "datestyle": "ISO",
                "timezone": "UTC",
            },
        )

    def test_encoding_of_the_locale(self) -> None:
        self.assertNotIn(self.parameters("client_encoding=auto")["client_encoding"], ("auto", ""))

    def test_cannot_be_changed(self) -> None:
        parameters = parse("application_name=a").startup_parameters
        self.assertRaises(TypeError, operator.setitem, parameters, "application_name", "b")

    def test_connection_infos_can_be_keys(self) -> None:
        self.assertEqual(len({parse("options=a"), parse("options=a"), parse("options=b")}), 2)
