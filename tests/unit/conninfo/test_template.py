r"""Connection strings with ``\1``."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.connection_string import ConnInfo
from pgtls.conninfo.template import ConnInfoTemplate
from pgtls.errors import ConfigurationError


class TemplateTests(SynchronousTestCase):
    r"""``\1`` and what it stands for."""

    def parse(self, text: str) -> ConnInfoTemplate:
        return ConnInfoTemplate.parse(text, {})

    def test_both_forms(self) -> None:
        for text in (
            r"host=\1.db.internal port=6000 dbname=app_\1 sslmode=require",
            r"host='\1.db.internal' port=6000 dbname='app_\1' sslmode='require'",
            r"postgresql://\1.db.internal:6000/app_\1?sslmode=require",
            r"host=\\1.db.internal port=6000 dbname=app_\\1 sslmode=require",
        ):
            conninfo = self.parse(text).fill("acme")
            self.assertEqual(conninfo.hosts[0].host, "acme.db.internal")
            self.assertEqual((conninfo.hosts[0].port, conninfo.dbname), (6000, "app_acme"))

    def test_an_address(self) -> None:
        conninfo = self.parse(r"host=db hostaddr=10.0.0.\1").fill("7")
        self.assertEqual(conninfo.hosts[0].hostaddr, "10.0.0.7")
        self.assertRaises(ConfigurationError, self.parse(r"hostaddr=10.0.0.\1").fill, "seven")

    def test_without_a_place(self) -> None:
        template = self.parse("host=db.internal")
        self.assertFalse(template.takes_label)
        self.assertEqual(template.fill("acme"), ConnInfo.parse("host=db.internal", {}))

    def test_only_where_it_may_stand(self) -> None:
        error = self.assertRaises(
            ConfigurationError, self.parse, r"host=db user=\1 sslcert=/certs/\1.crt"
        )
        self.assertEqual(
            error.mistakes,
            (
                r'"\1" can stand in host, hostaddr and dbname, not in user',
                r'"\1" can stand in host, hostaddr and dbname, not in sslcert',
            ),
        )

    def test_other_mistakes_are_found_at_once(self) -> None:
        self.assertRaises(ConfigurationError, self.parse, r"host=\1 port=x")

    def test_names_that_would_break_out(self) -> None:
        template = self.parse(r"host=\1.db.internal dbname=\1")
        for label in (
            "",
            "a,b",
            "/tmp",
            "@abstract",
            "a b",
            "a host=evil",
            "a=b",
            "..",
            "a.b",
            "a\0b",
            "a\n",
            "\u00e9",
            "\u0661",
            "a" * 64,
            r"\1",
            "'",
        ):
            self.assertRaises(ConfigurationError, template.fill, label)

    def test_no_label_is_an_address_by_itself(self) -> None:
        for text in (r"host=\1", r"host=db,\1 port=1,2"):
            template = self.parse(text)
            self.assertEqual(template.fill("acme").hosts[-1].host, "acme")
            for label in ("2130706433", "0x7f000001", "0177", "1"):
                self.assertRaises(ConfigurationError, template.fill, label)
        self.assertRaises(ConfigurationError, self.parse, r"hostaddr=\1")
        self.assertEqual(self.parse(r"host=10.0.0.\1").fill("7").hosts[0].host, "10.0.0.7")
        self.assertEqual(self.parse(r"host=\1 hostaddr=10.0.0.\1").fill("7").hosts[0].host, "7")

    @given(st.text(max_size=20))
    def test_no_name_changes_anything_else(self, label: str) -> None:
        template = self.parse(r"host=\1.db.internal dbname=\1 sslmode=verify-full")
        expected = template.fill("acme")
        try:
            conninfo = template.fill(label)
        except ConfigurationError:
            return
        (host,) = conninfo.hosts
        self.assertEqual(host.host, f"{label}.db.internal")
        self.assertIsNone(host.unix_path)
        self.assertEqual(conninfo.dbname, label)
        self.assertEqual(
            (conninfo.sslmode, conninfo.user, host.port),
            (expected.sslmode, expected.user, expected.hosts[0].port),
        )
