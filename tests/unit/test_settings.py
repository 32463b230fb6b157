"""Settings: what a value may look like."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from pgtls import settings
from pgtls.errors import ConfigurationError
from pgtls.protocols.server_settings import ListenerSettings


def read(**values: object) -> ListenerSettings:
    return settings.read(ListenerSettings, values)


class DurationTests(SynchronousTestCase):
    """Times, as postgresql.conf has them."""

    def test_a_number_is_in_the_settings_own_unit(self) -> None:
        self.assertEqual(read(tcp_keepalives_idle=60).tcp_keepalives_idle, 60)
        self.assertEqual(read(tcp_keepalives_idle="60").tcp_keepalives_idle, 60)
        self.assertEqual(read(tcp_user_timeout=1500).tcp_user_timeout, 1500)

    def test_units(self) -> None:
        for text, seconds in {
            "90s": 90,
            "2min": 120,
            " 1.5 min ": 90,
            "1h": 3600,
            "1600ms": 2,
            "0.1d": 8640,
        }.items():
            self.assertEqual(read(tcp_keepalives_idle=text).tcp_keepalives_idle, seconds, text)
        self.assertEqual(read(tcp_user_timeout="1.5s").tcp_user_timeout, 1500)

    def test_what_is_no_time(self) -> None:
        for value in ("", "x", "-1", -1, "1 fortnight", "1MIN", True, "1s1s"):
            error = self.assertRaises(ConfigurationError, read, tcp_keepalives_idle=value)
            self.assertEqual(
                str(error),
                'tcp_keepalives_idle must be a time such as 60 (in s), "60s" or "1min", '
                f"not {value!r}",
            )

    def test_too_much(self) -> None:
        error = self.assertRaises(ConfigurationError, read, tcp_user_timeout="1000d")
        self.assertIn("must be a time from 0 to 2147483647 ms", str(error))


class TCPOptionTests(SynchronousTestCase):
    """The kernel has a word in it."""

    def test_what_the_system_refuses_is_a_mistake(self) -> None:
        error = self.assertRaises(
            ConfigurationError, read, tcp_keepalives_idle=100000, tcp_keepalives_count=1000
        )
        self.assertEqual(
            error.mistakes,
            (
                "tcp_keepalives_idle must be a value that this system takes "
                "(setsockopt(TCP_KEEPIDLE): Invalid argument), not 100000",
                "tcp_keepalives_count must be a value that this system takes "
                "(setsockopt(TCP_KEEPCNT): Invalid argument), not 1000",
            ),
        )

    def test_where_the_system_has_no_such_option(self) -> None:
        name = "TCP_USER_TIMEOUT"
        value = getattr(socket, name)
        delattr(socket, name)
        self.addCleanup(setattr, socket, name, value)
        self.assertEqual(read(tcp_user_timeout=0).tcp_options, ())
        error = self.assertRaises(ConfigurationError, read, tcp_user_timeout=1)
        self.assertEqual(
            str(error),
            "tcp_user_timeout must be 0 on this system, which has no TCP_USER_TIMEOUT, not 1",
        )
