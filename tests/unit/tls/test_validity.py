"""Which certificates and CRLs are over, have not begun, or end soon, and what is said of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.tls.der import encoded
from pgtls.tls.server_context import ServerTLSSettings, server_context
from pgtls.tls.sources import pem_of
from pgtls.tls.validity import Validity, listener_validities, upstream_validities, warnings
from tests.support.certificates import Authority, Files, days
from tests.support.odd_certificates import Signer, sequence

NOW = datetime(2030, 6, 15, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


class WarningTests(SynchronousTestCase):
    """The sentence."""

    def of(self, begins: timedelta, ends: timedelta, soon: timedelta = timedelta(0)) -> str | None:
        return Validity("it", "f", NOW + begins, NOW + ends, "nothing works").warning(soon, NOW)

    def test_none_while_it_is_valid(self) -> None:
        self.assertIsNone(self.of(-DAY, DAY))
        self.assertIsNone(self.of(timedelta(0), timedelta(0)))
        self.assertIsNone(self.of(-DAY, 8 * DAY, soon=7 * DAY))

    def test_over(self) -> None:
        self.assertEqual(
            self.of(-2 * DAY, -DAY),
            'it has expired at 2030-06-14 12:00:00 UTC (in "f"): nothing works',
        )

    def test_not_begun(self) -> None:
        self.assertEqual(
            self.of(DAY, 2 * DAY),
            'it is not valid before 2030-06-16 12:00:00 UTC (in "f"): nothing works',
        )

    def test_soon(self) -> None:
        self.assertEqual(
            self.of(-DAY, 6 * DAY, soon=7 * DAY),
            'it expires at 2030-06-21 12:00:00 UTC (in "f"): nothing works',
        )

    def test_dates_that_it_does_not_have(self) -> None:
        self.assertIsNone(Validity("it", None, None, None, "x").warning(DAY, NOW))


class FilesTestCase(SynchronousTestCase):
    """Certificates and CRLs in files."""

    def setUp(self) -> None:
        self.files = Files(Path(self.mktemp()).absolute())
        self.root = Authority("root")

    def said(self, *what: list[str]) -> list[str]:
        certificates, roots, crls = (*what, [], [], [])[:3]
        return warnings(listener_validities(certificates, roots, crls), timedelta(days=7))


class ListenerTests(FilesTestCase):
    """What a listener reads."""

    def test_nothing_where_all_is_well(self) -> None:
        crt, _ = self.files.pair("server", self.root.issue(["db"]))
        root = self.files.write("root.crt", self.root.pem())
        self.assertEqual(self.said([crt], [root], [self.files.write("r.crl", self.root.crl())]), [])

    def test_its_own_certificate(self) -> None:
        crt, _ = self.files.pair(
            "server", self.root.issue(cn="db", not_before=days(-9), not_after=days(-1))
        )
        (warning,) = self.said([crt])
        self.assertRegex(
            warning,
            r'^certificate "CN=db" has expired at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC '
            rf'\(in "{crt}"\): '
            "clients that verify it refuse to connect$",
        )

    def test_one_without_a_subject(self) -> None:
        leaf = self.root.issue(["db"], not_before=days(-9), not_after=days(-1))
        crt, _ = self.files.pair("server", leaf)
        (warning,) = self.said([crt])
        self.assertIn(f"certificate {leaf.shown.serial_hex} of CN=root has expired", warning)

    def test_one_that_has_not_begun(self) -> None:
        issued = self.root.issue(cn="db", not_before=days(1), not_after=days(60))
        (warning,) = self.said([self.files.pair("server", issued)[0]])
        self.assertIn("is not valid before", warning)

    def test_an_intermediate(self) -> None:
        below = self.root.intermediate("below", not_after=days(3))
        (warning,) = self.said([self.files.pair("server", below.issue(cn="db"))[0]])
        self.assertIn('"CN=below"', warning)
        self.assertIn("expires at", warning)

    def test_an_authority_among_others(self) -> None:
        over = Authority("over", not_before=days(-9), not_after=days(-1))
        path = self.files.write("roots.crt", self.root.pem(), over.pem())
        (warning,) = self.said([], [path])
        self.assertRegex(warning, rf'^certificate "CN=over" has expired at .* \(in "{path}"\)')
        self.assertIn("no client certificate that leads to it is accepted", warning)

    def test_a_crl(self) -> None:
        path = self.files.write("root.crl", self.root.crl(expired=True))
        (warning,) = self.said([], [], [path])
        self.assertRegex(warning, rf'^the CRL of CN=root has expired at .* \(in "{path}"\)')
        self.assertIn("no client certificate of this issuer is accepted", warning)

    def test_a_crl_of_which_a_newer_one_is_loaded(self) -> None:
        old = self.files.write("old.crl", self.root.crl(expired=True))
        new = self.files.write("new.crl", self.root.crl())
        self.assertEqual(self.said([], [], [old, new]), [])
        self.assertEqual(self.said([], [], [new, old]), [])

    def test_another_key_of_the_same_name_is_another_issuer(self) -> None:
        old = self.files.write("old.crl", Authority("root").crl(expired=True))
        new = self.files.write("new.crl", self.root.crl())
        self.assertEqual(len(self.said([], [], [old, new])), 1)

    def test_a_directory_of_crls(self) -> None:
        path = self.files.crl_dir("crls", [(self.root, self.root.crl(expired=True))])
        (warning,) = self.said([], [], [path])
        self.assertIn(str(Path(path) / self.root.hashed(".r0")), warning)

    def test_dates_that_cannot_be_read_are_no_matter_of_this(self) -> None:
        signer = Signer(self.root)
        odd = signer.sign({4: sequence(encoded(0x17, b"soon"), encoded(0x17, b"later"))})
        self.assertEqual(self.said([self.files.write("odd.crt", pem_of(odd.der))]), [])

    def test_a_context_says_it(self) -> None:
        """And is made all the same, as PostgreSQL starts all the same."""
        over = Authority("over", not_before=days(-9), not_after=days(-1))
        crt, key = self.files.pair(
            "server", over.issue(cn="db", not_before=days(-9), not_after=days(-2))
        )
        made = server_context(
            ServerTLSSettings(
                ssl_cert_file=crt,
                ssl_key_file=key,
                ssl_ca_file=self.files.write("root.crt", over.pem()),
                ssl_crl_file=self.files.write("root.crl", over.crl(expired=True)),
            )
        )
        said = warnings(made.validities)
        self.assertEqual(len(said), 3)
        self.assertEqual([" has expired at " in warning for warning in said], [True] * 3)


class UpstreamTests(FilesTestCase):
    """What a connection string names."""

    def of(self, **parameters: str) -> list[str]:
        words = " ".join(f"{name}={value}" for name, value in parameters.items())
        conninfo = ConnInfo.parse(f"host=db {words}", {"HOME": str(self.files.directory)})
        return warnings(upstream_validities(conninfo))

    def test_files_that_it_names(self) -> None:
        over = Authority("over", not_before=days(-9), not_after=days(-1))
        crt, key = self.files.pair(
            "own", over.issue(cn="me", client=True, not_before=days(-9), not_after=days(-2))
        )
        root = self.files.write("some.crt", over.pem())
        crl = self.files.write("some.crl", over.crl(expired=True))
        own, authority, revocations = self.of(
            sslcert=crt, sslkey=key, sslrootcert=root, sslcrl=crl, sslmode="verify-full"
        )
        self.assertIn("servers that verify it refuse the connection", own)
        self.assertIn("no server certificate that leads to it is accepted", authority)
        self.assertIn("no server certificate of this issuer is accepted", revocations)

    def test_the_files_of_the_home_directory(self) -> None:
        home = Files(self.files.directory / ".postgresql")
        over = Authority("over", not_before=days(-9), not_after=days(-1))
        home.write("root.crt", over.pem())
        home.write("root.crl", over.crl(expired=True))
        self.assertEqual(len(self.of()), 2)
        self.assertEqual(self.of(sslrootcert="system", sslmode="verify-full"), [])

    def test_files_that_are_not_there(self) -> None:
        self.assertEqual(self.of(sslcert="/nonexistent/crt", sslrootcert="/nonexistent/root"), [])
