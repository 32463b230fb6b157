"""``hba_file`` at work: what is remembered of a client, and what is not."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from pgtls.protocols import hba_policy
from pgtls.protocols.hba_policy import HbaPolicy
from pgtls.protocols.server_settings import ListenerSettings
from pgtls.protocols.stages import Admit, Client
from pgtls.wire.messages import StartupMessage
from pgtls.wire.server_negotiation import SSL


class RememberedTests(SynchronousTestCase):
    """A client that comes again."""

    def policy(self, text: str) -> HbaPolicy:
        path = self.mktemp()  # type: ignore[no-untyped-call]
        with open(path, "w") as file:
            file.write(text)
        settings = ListenerSettings(ssl=SSL.OFF, hba_file=path)
        return HbaPolicy(settings, cast(Any, reactor))

    def admits(
        self,
        policy: HbaPolicy,
        user: bytes,
        host: str = "10.1.2.3",
        tls: Any = None,
        **parameters: bytes,
    ) -> bool:
        startup = StartupMessage.build(
            {b"user": user, **{name.encode(): value for name, value in parameters.items()}}
        )
        client = Client(startup, IPv4Address("TCP", host, 50000), tls)
        return isinstance(policy.decide(client), Admit)

    def test_the_same_line_decides(self) -> None:
        policy = self.policy("host all alice 10.0.0.0/8 trust\nhost all all all reject\n")
        for _ in range(2):
            self.assertTrue(self.admits(policy, b"alice"))
            self.assertFalse(self.admits(policy, b"bob"))
            self.assertFalse(self.admits(policy, b"alice", "11.1.2.3"))

    def test_another_line_for_all_else_that_a_line_may_ask_for(self) -> None:
        policy = self.policy("hostnossl app,replication alice all trust\nhost all all all reject\n")
        for _ in range(2):
            self.assertTrue(self.admits(policy, b"alice", database=b"app"))
            self.assertFalse(self.admits(policy, b"alice", database=b"other"))
            self.assertFalse(self.admits(policy, b"alice", database=b"app", tls=object()))
            self.assertTrue(self.admits(policy, b"alice", replication=b"true"))
            self.assertFalse(self.admits(policy, b"alice", replication=b"false"))

    def test_another_line_when_this_machines_addresses_have_changed(self) -> None:
        addresses = [ip_interface("10.1.2.3/16")]
        self.patch(hba_policy, "interfaces", lambda: addresses)
        for keyword in ("samehost", "samenet"):
            addresses[:] = [ip_interface("10.1.2.3/16")]
            policy = self.policy(f"host all all {keyword} trust\n")
            self.assertTrue(self.admits(policy, b"alice"))
            addresses[:] = [ip_interface("10.9.9.9/16")]
            self.assertFalse(self.admits(policy, b"alice"))
