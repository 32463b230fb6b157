"""``pgtls probe --all`` and ``--check``, each line against openssl, psql and the server itself."""

from __future__ import annotations

import os
import pty
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from functools import cache
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pgtls.probe.assessment import Status, assess, days_left
from pgtls.probe.connection_probe import ProbeResult
from pgtls.probe.monitoring import Outcome, State, plugin_line
from pgtls.probe.survey import Authentication, KeyExchange, Survey, Tried
from pgtls.tls.tls_info import certificate_facts
from tests.support import servers
from tests.support.certificates import Authority, Files, authority, days, localhost
from tests.support.command_line import PGTLS, pgtls, pgtls_json
from tests.support.gateway_daemon import GatewayCase, wait_until
from tests.support.processes import TIMEOUT, environment
from tests.support.servers import HOST, Server, free_port

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
VERSIONS = {"TLSv1": "-tls1", "TLSv1.1": "-tls1_1", "TLSv1.2": "-tls1_2", "TLSv1.3": "-tls1_3"}

HBA = f"""
local   all  all                    trust
hostssl all  md5user  {HOST}/32     md5
hostssl all  scramuser {HOST}/32    scram-sha-256
hostssl all  all      {HOST}/32     trust
"""


@cache
def tls_server() -> Server:
    """TLS with an RSA key and PostgreSQL's own ciphers, client certificates, no plaintext."""
    leaf = authority().issue(["localhost"], cn="localhost", key="rsa")
    server = Server(
        17,
        ssl=True,
        hba=HBA,
        conf={"ssl_ca_file": "root.crt"},
        files={
            "server.crt": leaf.chain(),
            "server.key": leaf.key.pem(),
            "root.crt": authority().pem(),
        },
    )
    server.psql("CREATE USER scramuser PASSWORD 'secret'")
    server.psql("SET password_encryption = md5; CREATE USER md5user PASSWORD 'secret'")
    return server


def conninfo_of(server: Server, **parameters: str | int | None) -> str:
    """By name, verified by the test authority."""
    return server.conninfo(**{"host": "localhost", "sslrootcert": server.root_crt, **parameters})


def survey_of(conninfo: str) -> Any:
    """The JSON of a survey."""
    found = pgtls_json("probe", "--all", conninfo)
    found["survey"]["by name"] = {each["name"]: each for each in found["survey"]["findings"]}
    return found


@cache
def tls_survey() -> Any:
    """Of :func:`tls_server`, once."""
    return survey_of(conninfo_of(tls_server()))


def s_client(port: int, *options: str) -> str | None:
    """What openssl says of a server; None where the handshake fails."""
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "postgres", "-connect", f"{HOST}:{port}", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return done.stdout if re.search(r"Cipher is (?!\(NONE\))", done.stdout) else None


def psql(server: Server, conninfo: str) -> str:
    """``ssl``, ``plain`` or ``fail``: what PostgreSQL's own client comes to."""
    query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    done = subprocess.run(
        [servers.psql(server.version), "-XAtq", "-d", conninfo, "-c", query],
        env=environment({"PGGSSENCMODE": "disable"}),
        capture_output=True,
        text=True,
        check=False,
    )
    return {"t\n": "ssl", "f\n": "plain"}.get(done.stdout, "fail")


def listener() -> socket.socket:
    """A port at which connections are taken, and nothing else happens."""
    return socket.create_server((HOST, 0), backlog=100)


class AgainstOpenSSLTests(SynchronousTestCase):
    """What openssl s_client finds at the same server."""

    def test_the_versions(self) -> None:
        for version, option in VERSIONS.items():
            theirs = s_client(tls_server().port, option, "-cipher", "ALL:@SECLEVEL=0")
            ours = tls_survey()["survey"]["tls_versions"][version]["accepted"]
            self.assertEqual(ours, theirs is not None, version)
        self.assertEqual(list(tls_survey()["survey"]["tls_versions"]), list(VERSIONS))

    def test_old_versions_of_a_server_that_may_have_them(self) -> None:
        leaf = authority().issue(["localhost"], key="rsa")
        server = Server(
            15 if servers.available(15) else 17,
            ssl=True,
            conf={"ssl_min_protocol_version": "TLSv1", "ssl_ciphers": "HIGH:@SECLEVEL=0"},
            files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()},
        )
        found = survey_of(conninfo_of(server))["survey"]
        for version, option in VERSIONS.items():
            theirs = s_client(server.port, option, "-cipher", "ALL:@SECLEVEL=0")
            ours = found["tls_versions"][version]["accepted"]
            self.assertEqual(ours, theirs is not None, version)

    def test_the_certificates(self) -> None:
        shown = s_client(tls_server().port, "-showcerts") or ""
        theirs = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.S)
        fingerprints = [self.fingerprint(each) for each in theirs]
        ours = [each["sha256"] for each in tls_survey()["survey"]["chain"]]
        self.assertEqual(ours, fingerprints)
        # The server sends its root, because ssl_ca_file has it.
        self.assertIs(tls_survey()["survey"]["root_sent"], True)

    def fingerprint(self, pem: str) -> str:
        """By openssl."""
        said = subprocess.run(
            ["openssl", "x509", "-noout", "-fingerprint", "-sha256"],
            input=pem,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return said.strip().partition("=")[2].replace(":", "").lower()

    def test_the_authorities_of_client_certificates(self) -> None:
        shown = s_client(tls_server().port) or ""
        named = shown.partition("Acceptable client certificate CA names\n")[2].splitlines()[0]
        self.assertEqual(named.replace(" ", ""), "CN=pgtlstestroot")
        self.assertEqual(
            tls_survey()["survey"]["client_certificate"],
            {"requested": True, "authorities": ["CN=pgtls test root"]},
        )

    def test_no_client_certificate_asked_for(self) -> None:
        server = servers.postgres(17, ssl=True)
        self.assertIn("No client certificate CA names sent", s_client(server.port) or "")
        asked = survey_of(conninfo_of(server))["survey"]["client_certificate"]
        self.assertEqual(asked, {"requested": False, "authorities": []})

    def test_RSA_key_exchange(self) -> None:
        server = tls_server()
        self.assertIsNotNone(s_client(server.port, "-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"))
        self.assertIs(tls_survey()["survey"]["static_rsa"], True)
        self.assertEqual(tls_survey()["survey"]["by name"]["forward secrecy"]["status"], "weak")

    def test_the_next_step_against_RSA_key_exchange_helps(self) -> None:
        leaf = authority().issue(["localhost"], key="rsa")
        step = tls_survey()["survey"]["by name"]["forward secrecy"]["next"]
        ciphers = re.search("ssl_ciphers = '(.+?)'", step)
        assert ciphers
        server = Server(
            17,
            ssl=True,
            conf={"ssl_ciphers": ciphers[1]},
            files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()},
        )
        found = survey_of(conninfo_of(server))["survey"]
        self.assertIs(found["static_rsa"], False)
        self.assertIs(found["tls_versions"]["TLSv1.2"]["accepted"], True)

    def test_no_RSA_key_exchange(self) -> None:
        server = servers.postgres(17, ssl=True)  # its key is for ECDSA
        self.assertIsNone(s_client(server.port, "-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"))
        self.assertIs(survey_of(conninfo_of(server))["survey"]["static_rsa"], False)

    def test_the_group(self) -> None:
        shown = s_client(tls_server().port, "-groups", "X25519:P-256") or ""
        self.assertIn("ECDH, prime256v1", shown.replace("P-256", "prime256v1"))
        keys = tls_survey()["survey"]["key_exchange"]
        self.assertEqual((keys["group"], keys["post_quantum"]), ("secp256r1", False))


class AgainstPostgreSQLTests(SynchronousTestCase):
    """What PostgreSQL, its client and its log say."""

    def test_every_sslmode_as_psql_has_it(self) -> None:
        for server, more in (
            (tls_server(), {}),
            (tls_server(), {"sslrootcert": "/nonexistent"}),
            (servers.postgres(17), {}),
        ):
            found = survey_of(conninfo_of(server, **more))["survey"]["sslmodes"]
            self.assertEqual(tuple(found), SSLMODES)
            for sslmode in SSLMODES:
                theirs = psql(server, conninfo_of(server, **more, sslmode=sslmode))
                self.assertEqual(found[sslmode]["outcome"], theirs, (sslmode, more))

    def test_SSLRequest_as_SHOW_ssl_has_it(self) -> None:
        for server, answer in ((tls_server(), "S"), (servers.postgres(17), "N")):
            self.assertEqual(server.psql("SHOW ssl"), {"S": "on", "N": "off"}[answer])
            found = survey_of(conninfo_of(server))["survey"]
            self.assertEqual(found["ssl_request"], answer)
            if answer == "N":
                self.assertEqual(found["by name"]["SSLRequest"]["status"], "broken")
                self.assertEqual(found["tls_versions"], {})

    def test_GSSENCRequest(self) -> None:
        for server in (tls_server(), servers.postgres(18)):
            with socket.create_connection((HOST, server.port)) as sock:
                sock.sendall(bytes.fromhex("00000008 04d21630"))
                answer = sock.recv(1).decode()
            found = survey_of(conninfo_of(server))["survey"]
            self.assertEqual(found["gssenc_request"], answer)
            self.assertEqual(found["by name"]["GSSENCRequest"]["status"], "ok")

    def test_direct_TLS_as_psql_has_it(self) -> None:
        server = tls_server()
        direct = conninfo_of(server, sslmode="require", sslnegotiation="direct")
        self.assertEqual(psql(server, direct), "ssl")
        self.assertIs(tls_survey()["survey"]["direct_tls"]["accepted"], True)

    def test_what_is_met_is_what_pg_stat_ssl_shows(self) -> None:
        server = tls_server()
        shown = server.psql(
            "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            host="localhost",
            sslmode="require",
        )
        keys = tls_survey()["survey"]["key_exchange"]
        self.assertEqual(f"{keys['version']}|{keys['cipher']}", shown)

    def test_what_a_user_is_asked_for(self) -> None:
        for user, method, mechanisms, status in (
            ("postgres", "trust", [], "weak"),
            ("md5user", "md5", [], "weak"),
            ("scramuser", "sasl", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], "ok"),
        ):
            found = survey_of(conninfo_of(tls_server(), user=user))["survey"]
            asked = found["authentication"]
            self.assertEqual((asked["method"], asked["mechanisms"]), (method, mechanisms))
            self.assertEqual(found["by name"]["authentication"]["status"], status)

    def test_without_a_user_no_session_is_tried(self) -> None:
        found = survey_of(conninfo_of(tls_server(), user=None))["survey"]
        self.assertIsNone(found["authentication"])
        self.assertEqual(found["by name"]["authentication"]["status"], "note")
        self.assertEqual(found["by name"]["sslmode=disable"]["status"], "note")

    def test_the_version_of_the_protocol(self) -> None:
        for version, newest in ((17, "3.0"), (18, "3.2")):
            server = servers.postgres(version)
            found = survey_of(server.conninfo())["survey"]
            self.assertEqual(found["protocol"], newest)

    def test_plaintext_refused(self) -> None:
        found = tls_survey()["survey"]["by name"]["sslmode=disable"]
        self.assertEqual(found["status"], "ok")
        self.assertIn("no pg_hba.conf entry", found["found"])

    def test_a_Unix_socket(self) -> None:
        server = tls_server()
        found = survey_of(server.conninfo(host=server.socket_dir))["survey"]
        self.assertIs(found["unix_socket"], True)
        self.assertEqual(found["by name"]["SSLRequest"]["status"], "ok")
        self.assertEqual(found["by name"]["sslmode=verify-full"]["status"], "ok")

    def test_the_older_server_of_the_distribution(self) -> None:
        version = 15 if servers.available(15) else 17
        server = servers.postgres(version, ssl=True)
        found = survey_of(conninfo_of(server))["survey"]
        self.assertEqual(found["direct_tls"]["accepted"], version >= 17)
        self.assertEqual(found["sslmodes"]["verify-full"]["outcome"], "ssl")

    def test_the_result_is_that_of_the_connection_string(self) -> None:
        found = survey_of(conninfo_of(tls_server(), sslmode="verify-full"))
        alone = pgtls_json("probe", conninfo_of(tls_server(), sslmode="verify-full"))
        self.assertEqual({key: found[key] for key in alone}, alone)

    def test_connections_are_few(self) -> None:
        server = servers.postgres(17, ssl=True)
        before = server.log().count("connection received")
        survey_of(conninfo_of(server))
        self.assertLessEqual(server.log().count("connection received") - before, 22)


class GatewayTests(GatewayCase):
    """Our own."""

    def test_it_is_as_good_as_can_be(self) -> None:
        found = survey_of(self.shared().conninfo())["survey"]
        keys = found["key_exchange"]
        self.assertEqual(keys["group"], "X25519MLKEM768")
        self.assertIs(found["static_rsa"], False)
        self.assertIs(found["direct_tls"]["accepted"], True)
        for name in ("post-quantum", "forward secrecy", "TLSv1", "TLSv1.1", "TLSv1.3"):
            self.assertEqual(found["by name"][name]["status"], "ok", name)
        self.assertEqual(found["sslmodes"]["disable"]["outcome"], "fail")
        self.assertEqual(found["sslmodes"]["verify-full"]["outcome"], "ssl")

    def test_all_checks(self) -> None:
        wanted = "expiry=14d,pfs,pq,tls1.2,tls1.3,direct,require,verify-ca,verify-full"
        done = pgtls("probe", "--check", wanted, self.shared().conninfo())
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)


class OtherProxiesTests(SynchronousTestCase):
    """stunnel and pgbouncer, where they are installed: what only they do."""

    def start(self, program: str, *arguments: str, port: int) -> None:
        """Run it until the test ends."""
        child = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.terminate)

        def answers() -> bool:
            try:
                socket.create_connection((HOST, port)).close()
            except OSError:
                return False
            return True

        wait_until(answers, lambda: f"{program} does not start")

    def files(self) -> tuple[Files, str, str]:
        """A directory that the program's own user can read."""
        top = servers._base() / f"proxy-{free_port()}"
        files = Files(top)
        certificate, key = files.pair("server", localhost())
        os.chmod(key, 0o644)
        return files, certificate, key

    if shutil.which("stunnel"):

        def test_stunnel(self) -> None:
            files, certificate, key = self.files()
            port = free_port()
            upstream = servers.postgres(17).port
            conf = files.write(
                "stunnel.conf",
                f"foreground=yes\npid=\n[postgresql]\naccept={HOST}:{port}\nprotocol=pgsql\n"
                f"connect={HOST}:{upstream}\ncert={certificate}\nkey={key}\n".encode(),
            )
            self.start("stunnel", conf, port=port)
            found = survey_of(f"host=localhost port={port} user=postgres")["survey"]
            self.assertEqual((found["ssl_request"], found["gssenc_request"]), ("S", "E"))
            self.assertIs(found["direct_tls"]["accepted"], False)
            self.assertEqual(found["by name"]["GSSENCRequest"]["status"], "weak")
            self.assertEqual(found["sslmodes"]["require"]["outcome"], "ssl")
            self.assertEqual(found["sslmodes"]["disable"]["outcome"], "fail")

    if shutil.which("pgbouncer"):

        def test_pgbouncer(self) -> None:
            files, certificate, key = self.files()
            port = free_port()
            users = files.write("users.txt", b'"postgres" ""\n')
            ini = files.write(
                "pgbouncer.ini",
                f"[databases]\n* = host={HOST} port={servers.postgres(17).port}\n[pgbouncer]\n"
                f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
                f"auth_type = trust\nauth_file = {users}\nclient_tls_sslmode = allow\n"
                f"client_tls_cert_file = {certificate}\nclient_tls_key_file = {key}\n".encode(),
            )
            user = () if os.geteuid() else ("-u", "nobody")
            self.start("pgbouncer", *user, ini, port=port)
            conninfo = f"host=localhost port={port} user=postgres dbname=postgres"
            found = survey_of(conninfo)["survey"]
            self.assertEqual((found["ssl_request"], found["gssenc_request"]), ("S", "N"))
            self.assertEqual(found["sslmodes"]["require"]["outcome"], "ssl")
            self.assertEqual(found["sslmodes"]["disable"]["outcome"], "plain")
            self.assertEqual(found["authentication"]["method"], "trust")


class LimitsTests(SynchronousTestCase):
    """Servers that cannot be surveyed."""

    def test_nobody_there(self) -> None:
        done = pgtls("probe", "--all", f"host={HOST} port={free_port()}")
        self.assertEqual(done.returncode, 1)
        self.assertIn('"survey": null', done.stdout)
        self.assertRegex(done.stderr, "^pgtls probe: connection to server .*Connection refused")

    def test_a_silent_server_takes_no_longer_than_its_time(self) -> None:
        with listener() as sock:
            port = sock.getsockname()[1]
            found = survey_of(f"host={HOST} port={port} user=me connect_timeout=1")
        self.assertEqual(found["survey"]["ssl_request"], "")
        self.assertEqual(found["survey"]["by name"]["SSLRequest"]["status"], "broken")
        self.assertEqual(found["outcome"], "fail")

    def test_an_unusable_connection_string(self) -> None:
        done = pgtls("probe", "--all", "sslmode=perhaps")
        self.assertEqual(done.returncode, 2, done)
        self.assertIn('invalid sslmode value: "perhaps"', done.stderr)

    def test_of_several_hosts_the_first_that_answers(self) -> None:
        server = tls_server()
        ports = f"{free_port()},{server.port}"
        found = survey_of(f"host={HOST},localhost port={ports} user=postgres")["survey"]
        self.assertEqual((found["host"], found["port"]), ("localhost", server.port))


class TerminalTests(SynchronousTestCase):
    """The table."""

    def test_it_has_every_finding_and_the_next_step(self) -> None:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*PGTLS, "probe", "--all", conninfo_of(tls_server())],
            env=environment({"COLUMNS": "200", "TERM": "xterm"}),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.STDOUT,
        ) as child:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    more = os.read(ours, 65536)
                except OSError:  # EIO: the other end is closed
                    break
                if not more:
                    break
                shown += more
            self.assertEqual(child.wait(TIMEOUT), 0)
        os.close(ours)
        text = shown.decode()
        for each in tls_survey()["survey"]["findings"]:
            self.assertIn(each["name"], text)
        for status in ("ok", "weak", "note"):
            self.assertIn(status, text)
        self.assertIn("takes RSA key exchange out", text)


class CheckTests(SynchronousTestCase):
    """``--check``, as Nagios runs it."""

    LINE = r"^PGTLS (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+ \| ([a-z_]+=[^ ]+ ?)+\n$"

    def check(self, checks: str, conninfo: str) -> tuple[int, str]:
        """Exit status and line."""
        done = pgtls("probe", "--check", checks, conninfo)
        self.assertRegex(done.stdout, self.LINE)
        state = done.stdout.split()[1]
        self.assertEqual(State[state], done.returncode)
        return done.returncode, done.stdout

    def test_OK(self) -> None:
        server = servers.postgres(17, ssl=True)
        status, line = self.check("expiry=14d,pfs,tls1.3,verify-full", conninfo_of(server))
        self.assertEqual(status, 0, line)
        self.assertRegex(line, r"\| expiry_days=36[345];14:;0: time=\d+\.\d{3}s;;;0$")

    def test_WARNING(self) -> None:
        conninfo = conninfo_of(tls_server())
        for checks, words in (
            ("expiry=9999d", "expires in 36"),
            ("pfs", "no forward secrecy for clients that ask for RSA"),
            ("pq,tls1.2", "not post-quantum"),
        ):
            status, line = self.check(checks, conninfo)
            self.assertEqual(status, 1, line)
            self.assertIn(words, line)

    def test_CRITICAL(self) -> None:
        server = tls_server()
        for checks, conninfo, words in (
            ("verify-full", conninfo_of(server, sslrootcert="/nonexistent"), "does not exist"),
            ("pq,verify-full", conninfo_of(server, host=HOST), "verify-full: .*does not match"),
            ("pfs", servers.postgres(17).conninfo(), "no TLS"),
            ("pfs", f"host={HOST} port={free_port()}", "Connection refused"),
        ):
            status, line = self.check(checks, conninfo)
            self.assertEqual(status, 2, line)
            self.assertRegex(line, f"^PGTLS CRITICAL - .*{words}")

    def test_UNKNOWN(self) -> None:
        status, line = self.check("pfs", "sslmode=perhaps")
        self.assertEqual(status, 3, line)

    def test_an_expired_certificate(self) -> None:
        leaf = authority().issue(["localhost"], not_before=days(-9), not_after=days(-1.5))
        server = Server(
            17, ssl=True, files={"server.crt": leaf.chain(), "server.key": leaf.key.pem()}
        )
        status, line = self.check("expiry=14d", server.conninfo())
        self.assertEqual(status, 2, line)
        self.assertIn("expiry_days=-2;14:;0:", line)

    def test_unknown_checks_are_usage_errors(self) -> None:
        for checks in ("pfs,nonsense", "expiry", "expiry=soon", "", "sslmode=require"):
            done = pgtls("probe", "--check", checks, f"host={HOST} port=1")
            self.assertEqual(done.returncode, 2, done)
            self.assertIn("there is no check", done.stderr)

    def test_only_what_is_needed_is_asked(self) -> None:
        server = servers.postgres(17, ssl=True)
        before = server.log().count("connection received")
        self.check("tls1.3", conninfo_of(server))
        self.assertEqual(server.log().count("connection received") - before, 2)

    def test_JSON(self) -> None:
        found = pgtls_json("probe", "--check", "pq,tls1.3", conninfo_of(tls_server()))
        self.assertEqual(found["state"], "WARNING")
        self.assertEqual([each["state"] for each in found["checks"]], ["WARNING", "OK"])

    def test_the_worst_comes_first_and_no_text_ends_the_line_early(self) -> None:
        outcomes = [
            Outcome(State.OK, "fine", "a=1"),
            Outcome(State.WARNING, "not so fine"),
            Outcome(State.CRITICAL, "a | b"),
        ]
        state, line = plugin_line(outcomes, 0.5)
        self.assertIs(state, State.CRITICAL)
        self.assertEqual(line, "PGTLS CRITICAL - a / b, not so fine, fine | a=1 time=0.500s;;;0")


class FindingsTests(SynchronousTestCase):
    """Answers that the servers here do not give."""

    def judged(self, name: str, change: Callable[[Survey], object]) -> tuple[str, str]:
        """Status and next step of one finding."""
        survey = Survey("db", 5432, "192.0.2.1", False, ssl_request="S")
        change(survey)
        found = {each.name: each for each in assess(survey)}[name]
        return found.status, found.next

    def test_old_versions(self) -> None:
        def accept(survey: Survey) -> None:
            survey.tls_versions["TLSv1"] = Tried(True, None)

        status, step = self.judged("TLSv1", accept)
        self.assertEqual(status, "weak")
        self.assertIn("ssl_min_protocol_version", step)

    def test_no_version_at_all(self) -> None:
        def refuse(survey: Survey) -> None:
            survey.tls_versions.update(dict.fromkeys(VERSIONS, Tried(False, "no")))

        self.assertEqual(self.judged("TLS", refuse)[0], "broken")

    def test_no_forward_secrecy(self) -> None:
        def exchange(survey: Survey) -> None:
            survey.key_exchange = KeyExchange("TLSv1.2", "AES256-SHA", None, False, False)

        self.assertEqual(self.judged("forward secrecy", exchange)[0], "broken")

    def test_a_password_in_the_clear(self) -> None:
        def ask(survey: Survey) -> None:
            survey.authentication = Authentication(False, "password")

        status, step = self.judged("authentication", ask)
        self.assertEqual(status, "weak")
        self.assertIn("scram-sha-256", step)

    def test_the_end_of_the_first_certificate_to_end_counts(self) -> None:
        survey = Survey("db", 5432, "", False)
        soon = authority().issue(["db"], not_after=days(10.5)).shown
        late = Authority("late", not_after=days(400)).issued.shown
        survey.chain = [dict(certificate_facts(each)) for each in (late, soon)]
        self.assertEqual(days_left(survey), 10)
        found = {each.name: each for each in assess(survey)}["expiry"]
        self.assertEqual(found.status, Status.WEAK)

    def test_other_answers_to_SSLRequest(self) -> None:
        for answer in ("E", "H", ""):

            def change(survey: Survey, answer: str = answer) -> None:
                survey.ssl_request = answer

            self.assertEqual(self.judged("SSLRequest", change)[0], "broken")

    def test_the_next_step_for_what_fails(self) -> None:
        for error, step in (
            ('root certificate file "root.crt" does not exist', "pgtls trust db:5432"),
            ("certificate verify failed: certificate has expired", "renew"),
            ('server certificate for "a" does not match host name "b"', "pgtls mkcert"),
            ("SSL error: tlsv13 alert certificate required", "sslcert"),
            ("self-signed certificate in certificate chain", "pgtls trust"),
        ):

            def change(survey: Survey, error: str = error) -> None:
                survey.root_sent = True
                survey.sslmodes["verify-full"] = ProbeResult(error=error)

            status, said = self.judged("sslmode=verify-full", change)
            self.assertEqual(status, "broken")
            self.assertIn(step, said)


class PlaceTests(SynchronousTestCase):
    """The errors of the sslmodes."""

    def test_where_it_failed_is_said_once(self) -> None:
        found = survey_of(servers.postgres(17).conninfo())["survey"]["by name"]
        self.assertEqual(
            found["sslmode=require"]["found"], "server does not support SSL, but SSL was required"
        )
