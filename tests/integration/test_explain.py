"""``pgtls explain``: what it says, and that the real libpq does so."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pgtls.commands.main import main
from pgtls.probe.explanation import Explanation, explain_conninfo
from tests.support import servers
from tests.support.certificates import Authority, Files, authority, days
from tests.support.command_line import PGTLS
from tests.support.processes import environment
from tests.support.servers import Server

REMOTE = "host=db.example.com"


class ExplainCase(SynchronousTestCase):
    """A home directory with ``~/.postgresql``."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.files = Files(self.home / ".postgresql")
        self.dot = self.home / ".postgresql"

    def explain(self, conninfo: str, **environ: str) -> Explanation:
        """The explanation."""
        return explain_conninfo(conninfo, {"HOME": str(self.home), **environ})

    def assert_says(self, sentences: list[str], words: str) -> None:
        """One of the sentences has these words."""
        self.assertTrue(any(words in each for each in sentences), (words, sentences))

    def assert_silent(self, sentences: list[str], words: str) -> None:
        """None has."""
        self.assertFalse(any(words in each for each in sentences), (words, sentences))

    def with_root(self) -> Authority:
        """root.crt is there."""
        self.files.write("root.crt", authority().pem())
        return authority()


class AttemptsTests(ExplainCase):
    """The attempts in their order."""

    def test_each_sslmode(self) -> None:
        for sslmode, words in (
            ("disable", "in plaintext. TLS is not asked for."),
            ("allow", "in plaintext. If the server refuses the session, a new connection"),
            ("prefer", "Answer S: TLS; N: on in plaintext."),
            ("require", "Answer S: TLS; anything else: no connection."),
            ("verify-full", "Answer S: TLS; anything else: no connection."),
        ):
            (attempt,) = self.explain(f"{REMOTE} sslmode={sslmode}").attempts
            self.assertTrue(attempt.startswith("TCP to db.example.com, port 5432, "), attempt)
            self.assertIn(words, attempt)

    def test_several_hosts(self) -> None:
        first, second = self.explain("host=a,b port=1,2").attempts
        self.assertIn("TCP to a, port 1", first)
        self.assertIn("If there is no answer: TCP to b, port 2", second)

    def test_random_order(self) -> None:
        found = self.explain("host=a,b load_balance_hosts=random")
        self.assertEqual(found.attempts[0], "The hosts are tried in random order.")

    def test_direct(self) -> None:
        (attempt,) = self.explain(f"{REMOTE} sslmode=require sslnegotiation=direct").attempts
        self.assertIn("a TLS handshake at once", attempt)

    def test_direct_needs_require(self) -> None:
        found = self.explain(f"{REMOTE} sslnegotiation=direct")
        self.assert_says(found.refused, 'weak sslmode "prefer" may not be used with')
        self.assertEqual(found.attempts, [])

    def test_a_Unix_socket_never_has_TLS(self) -> None:
        found = self.explain("host=/run/postgresql sslmode=verify-full")
        self.assertEqual(
            found.attempts, ['Unix socket "/run/postgresql/.s.PGSQL.5432", in plaintext.']
        )
        self.assert_says(found.traps, "sslmode=verify-full has no effect on a Unix socket")
        self.assert_says(found.not_protected, "requirepeer")
        self.assertEqual(found.fails, [])

    def test_requirepeer(self) -> None:
        found = self.explain("host=/run/postgresql requirepeer=postgres")
        self.assert_says(found.verified, 'must run as user "postgres"')
        self.assertEqual(found.not_protected, [])


class ParametersTests(ExplainCase):
    """Who has set what."""

    def test_their_origins(self) -> None:
        service = self.files.write("services", b"[site]\nsslmode=require\nport=6432\n")
        found = self.explain(
            "host=db service=site port=7", PGSERVICEFILE=service, PGUSER="alice", PGSSLMODE="allow"
        )
        origins = {each.keyword: (each.value, each.origin) for each in found.parameters}
        self.assertEqual(origins["host"], ("db", "the connection string"))
        self.assertEqual(origins["port"], ("7", "the connection string"))
        self.assertEqual(origins["sslmode"], ("require", 'service "site"'))
        self.assertEqual(origins["user"], ("alice", "$PGUSER"))
        self.assertEqual(origins["sslnegotiation"], ("postgres", "default"))

    def test_passwords_are_not_shown(self) -> None:
        found = self.explain(f"{REMOTE} password=tiger sslpassword=lion", PGPASSWORD="bear")
        for secret in ("tiger", "lion", "bear"):
            self.assertNotIn(secret, repr(found))

    def test_which_sessions_will_do(self) -> None:
        found = self.explain(f"{REMOTE} target_session_attrs=read-write")
        self.assert_says(found.attempts, "Only sessions that can write will do")
        self.assertEqual(len(self.explain(f"{REMOTE} target_session_attrs=x").refused), 1)

    def test_every_mistake_is_named(self) -> None:
        found = self.explain("sslmode=perhaps port=none")
        self.assertEqual(len(found.refused), 2)

    def test_a_service_that_is_not_there(self) -> None:
        found = self.explain("service=nowhere", PGSYSCONFDIR="/nonexistent")
        self.assert_says(found.refused, 'definition of service "nowhere" not found')


class VerificationTests(ExplainCase):
    """What is verified against which file."""

    def test_without_a_root_nothing_is(self) -> None:
        found = self.explain(f"{REMOTE} sslmode=require")
        self.assert_says(found.not_protected, "No certificate is verified")
        self.assertEqual(found.protection, "Encrypted, but with any server that answers.")

    def test_verify_full_without_a_root_fails(self) -> None:
        found = self.explain(f"{REMOTE} sslmode=verify-full")
        self.assert_says(found.fails, f'root certificate file "{self.dot}/root.crt" does not exist')
        self.assertIn("No connection", found.protection)

    def test_a_root_that_is_there_makes_require_verify(self) -> None:
        self.with_root()
        found = self.explain(f"{REMOTE} sslmode=require")
        self.assert_says(found.verified, f'The server\'s chain, by "{self.dot}/root.crt"')
        self.assert_says(found.verified, "CN=pgtls test root")
        self.assert_says(found.traps, "sslmode=require verifies the chain too")
        self.assert_says(found.not_protected, "The server's name is not verified")

    def test_verify_full(self) -> None:
        self.with_root()
        found = self.explain(f"{REMOTE} sslmode=verify-full gssencmode=disable")
        self.assert_says(found.verified, 'for the name "db.example.com"')
        self.assertEqual(found.traps, [])
        self.assertEqual(
            found.not_protected, ["A revoked certificate is accepted: there is no CRL."]
        )
        self.assertTrue(found.protection.startswith("Protected:"))

    def test_a_named_root_that_is_not_there_is_no_error_under_require(self) -> None:
        found = self.explain(f"{REMOTE} sslmode=require sslrootcert=~/root.crt")
        self.assert_says(found.traps, "that is no error: nothing is verified")
        self.assert_says(found.traps, 'libpq does not take "~" for your home directory')

    def test_an_expired_root(self) -> None:
        root = Authority("old", not_before=days(-9), not_after=days(-1))
        self.files.write("root.crt", root.pem())
        self.assert_says(self.explain(REMOTE).traps, "CN=old expired on")

    def test_prefer_falls_back(self) -> None:
        self.with_root()
        found = self.explain(REMOTE)
        self.assert_says(found.traps, "sslmode=prefer falls back to plaintext silently")
        self.assertTrue(found.protection.startswith("Not protected"))

    def test_names_and_SNI(self) -> None:
        self.with_root()
        found = self.explain("host=192.0.2.1 sslmode=verify-full")
        self.assert_says(found.verified, 'for the address "192.0.2.1"')
        self.assert_says(found.verified, "No SNI is sent (host is no name).")
        found = self.explain(f"{REMOTE} hostaddr=192.0.2.1 sslmode=verify-full sslsni=0")
        self.assert_says(found.verified, 'for the name "db.example.com"')
        self.assert_says(found.verified, "No SNI is sent (sslsni=0).")
        found = self.explain("hostaddr=192.0.2.1 sslmode=verify-full")
        self.assert_says(found.fails, "needs host")

    def test_passwords_asked_for_in_the_clear(self) -> None:
        words = "ask for the password in the clear"
        self.assert_says(self.explain(REMOTE).not_protected, words)
        found = self.explain(f"{REMOTE} require_auth=scram-sha-256")
        self.assert_silent(found.not_protected, words)
        self.assert_says(found.verified, '"scram-sha-256" (require_auth)')
        found = self.explain(f"{REMOTE} channel_binding=require")
        self.assert_silent(found.not_protected, words)
        self.assert_says(found.verified, "(channel_binding=require)")
        for still in ("!md5", "password,scram-sha-256"):
            found = self.explain(f"{REMOTE} require_auth={still}")
            self.assert_says(found.not_protected, words)

    def test_channel_binding_without_TLS(self) -> None:
        words = "channel_binding=require cannot be met without TLS"
        found = self.explain(f"{REMOTE} sslmode=disable channel_binding=require")
        self.assert_says(found.traps, words)
        self.assert_says(self.explain("host=/tmp channel_binding=require").traps, words)
        self.assert_silent(self.explain(f"{REMOTE} channel_binding=require").traps, words)

    def test_GSSAPI_comes_before_TLS(self) -> None:
        words = "tries GSSAPI encryption first"
        self.assert_says(self.explain(REMOTE).traps, words)
        self.assert_silent(self.explain(REMOTE, PGGSSENCMODE="disable").traps, words)

    def test_old_versions_and_key_logs(self) -> None:
        found = self.explain(f"{REMOTE} ssl_min_protocol_version=TLSv1 sslkeylogfile=log")
        self.assert_says(found.traps, "TLSv1 allows broken versions")
        self.assert_says(found.traps, 'go into "log"')


class RevocationTests(ExplainCase):
    """CRLs."""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.with_root()

    def explain_crl(self, parameters: str) -> Explanation:
        """Under verify-full."""
        return self.explain(f"{REMOTE} sslmode=verify-full {parameters}")

    def test_one_that_is_read(self) -> None:
        crl = self.files.write("root.crl", self.root.crl())
        self.assert_says(self.explain_crl("").verified, f'revoked, by "{crl}"')

    def test_one_that_is_not_there(self) -> None:
        found = self.explain_crl("sslcrl=/nonexistent/root.crl")
        self.assert_says(found.traps, "is not there: libpq goes on without it and says nothing")
        self.assert_says(found.not_protected, "no CRL can be read")

    def test_one_that_has_expired(self) -> None:
        self.files.write("root.crl", self.root.crl(expired=True))
        self.assert_says(self.explain_crl("").traps, "the CRL of CN=pgtls test root expired on")

    def test_the_system_s_roots_know_none(self) -> None:
        crl = self.files.write("root.crl", self.root.crl())
        found = self.explain(f"{REMOTE} sslrootcert=system sslcrl={crl}")
        self.assert_says(found.traps, "sslrootcert=system: libpq ignores CRLs")
        self.assert_says(found.verified, "the system's collection")


class ClientCertificateTests(ExplainCase):
    """What the client shows."""

    def setUp(self) -> None:
        super().setUp()
        self.alice = authority().issue(cn="alice", client=True)

    def test_none(self) -> None:
        self.assert_says(self.explain(REMOTE).verified, "No client certificate is there")

    def test_one(self) -> None:
        self.files.pair("postgresql", self.alice)
        found = self.explain(REMOTE)
        self.assert_says(found.verified, f'"{self.dot}/postgresql.crt" (CN=alice)')
        self.assert_says(found.traps, "shown to any server that asks")
        self.assertEqual(found.fails, [])

    def test_a_key_that_others_may_read(self) -> None:
        _, key = self.files.pair("postgresql", self.alice)
        os.chmod(key, 0o644)
        found = self.explain(f"{REMOTE} sslmode=require")
        self.assert_says(found.fails, "has group or world access")
        self.assertIn("No connection", found.protection)
        self.assert_says(self.explain(REMOTE).traps, "so it will be plaintext")

    def test_a_certificate_without_its_key(self) -> None:
        self.files.write("postgresql.crt", self.alice.pem())
        self.assert_says(self.explain(REMOTE).fails, "but not private key file")

    def test_another_key(self) -> None:
        self.files.pair("postgresql", self.alice)
        self.files.write("postgresql.key", authority().issue(cn="bob").key.pem())
        self.assert_says(self.explain(REMOTE).fails, "does not match")

    def test_an_expired_one(self) -> None:
        old = authority().issue(cn="al", client=True, not_before=days(-3), not_after=days(-1))
        self.files.pair("postgresql", old)
        self.assert_says(self.explain(REMOTE).traps, "servers refuse it")

    def test_sslcertmode_disable(self) -> None:
        self.files.pair("postgresql", self.alice)
        found = self.explain(f"{REMOTE} sslcertmode=disable")
        self.assert_says(found.verified, "No client certificate is sent")


@cache
def server() -> Server:
    """With TLS."""
    return Server(17, ssl=True)


class AgainstPsqlTests(ExplainCase):
    """The traps that are said of libpq, with psql of PostgreSQL 17."""

    def psql(self, **parameters: str) -> str:
        """``t`` or ``f`` for TLS or plaintext; else what it complains of."""
        conninfo = server().conninfo(host="localhost", gssencmode="disable", **parameters)
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        done = subprocess.run(
            [servers.psql(17), "-XAtq", "-d", conninfo, "-c", query],
            env=environment({"HOME": str(self.home)}),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() or done.stderr

    def test_a_missing_CRL_is_passed_over(self) -> None:
        self.with_root()
        self.assertEqual(self.psql(sslmode="verify-full", sslcrl="/nonexistent"), "t")

    def test_a_missing_root_is_no_error_under_require(self) -> None:
        self.assertEqual(self.psql(sslmode="require", sslrootcert="/nonexistent"), "t")

    def test_a_root_makes_require_verify_and_prefer_fall_back(self) -> None:
        self.files.write("root.crt", Authority("another").pem())
        self.assertIn("certificate verify failed", self.psql(sslmode="require"))
        self.assertEqual(self.psql(sslmode="prefer"), "f")

    def test_a_key_that_others_may_read_ends_prefer_in_plaintext(self) -> None:
        _, key = self.files.pair("postgresql", authority().issue(cn="alice", client=True))
        os.chmod(key, 0o644)
        self.assertIn("group or world access", self.psql(sslmode="require"))
        self.assertEqual(self.psql(sslmode="prefer"), "f")

    def test_an_expired_CRL_refuses_everybody(self) -> None:
        self.with_root()
        self.files.write("root.crl", authority().crl(expired=True))
        self.assertIn("certificate verify failed", self.psql(sslmode="verify-ca"))
        self.files.write("root.crl", authority().crl())
        self.assertEqual(self.psql(sslmode="verify-ca"), "t")


class CommandTests(ExplainCase):
    """The command line."""

    def run_explain(self, *arguments: str, env: Mapping[str, str] = {}) -> tuple[int, str]:
        """Exit status and what is printed."""
        environ = {"HOME": str(self.home), "PGSYSCONFDIR": "/nonexistent", **env}
        result = CliRunner().invoke(main, ["explain", *arguments], env=environ)
        return result.exit_code, result.output

    def test_it_is_read_from_above(self) -> None:
        status, text = self.run_explain(f"{REMOTE} sslmode=require")
        self.assertEqual(status, 0)
        opening = "Encrypted, but with any server that answers.\n\nWhat counts:\n"
        self.assertTrue(text.startswith(opening))
        for heading in ("Attempts, in this order:", "Not protected:", "Traps:"):
            self.assertIn(f"\n{heading}\n  * ", text)

    def test_its_exit_status(self) -> None:
        self.assertEqual(self.run_explain(f"{REMOTE} sslmode=verify-full")[0], 1)
        self.assertEqual(self.run_explain("sslmode=perhaps")[0], 2)

    def test_JSON(self) -> None:
        status, text = self.run_explain("--json", REMOTE)
        self.assertEqual(status, 0)
        keys = "refused protection parameters attempts verified not_protected traps fails"
        self.assertEqual(list(json.loads(text)), keys.split())

    def test_nothing_steers_the_terminal(self) -> None:
        _, text = self.run_explain("host='a\x1b[31m'")
        self.assertNotIn("\x1b", text)


class CompletionTests(SynchronousTestCase):
    """The shell completion that ``pgtls --help`` shows."""

    def test_bash(self) -> None:
        self.assertIn('eval "$(_PGTLS_COMPLETE=bash_source pgtls)"', self.pgtls("--help"))
        self.assertIn("complete -o nosort -F", self.pgtls(_PGTLS_COMPLETE="bash_source"))

    def test_what_is_proposed(self) -> None:
        proposed = self.pgtls(
            _PGTLS_COMPLETE="bash_complete", COMP_WORDS="pgtls probe --", COMP_CWORD="2"
        )
        self.assertLessEqual({"plain,--all", "plain,--check", "plain,--json"}, {*proposed.split()})

    def pgtls(self, *arguments: str, **environ: str) -> str:
        """What it prints."""
        return subprocess.run(
            [*PGTLS, *arguments],
            env=environment(environ),
            capture_output=True,
            text=True,
            check=False,
        ).stdout
