"""The look that a gateway takes at its upstream when it starts."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from tests.support.certificates import Authority, Files, localhost
from tests.support.gateway_daemon import Gateway, GatewayCase
from tests.support.processes import TIMEOUT
from tests.support.servers import HOST, free_port, postgres


class UpstreamCheck(GatewayCase):
    """What the log says, before any client has come."""

    def started(self, upstream: str) -> Gateway:
        return self.gateway("--upstream", upstream)

    def test_reached_in_plaintext(self) -> None:
        upstream = postgres(18).conninfo(user=None, dbname=None)
        self.started(upstream).wait_for_log(r"info\] upstream: reached, in plaintext")

    def test_reached_with_tls(self) -> None:
        server = postgres(17, ssl=True)
        upstream = f"host=localhost hostaddr={HOST} port={server.port} sslmode=require"
        shown = localhost().shown.fingerprint
        pattern = rf"info\] upstream: reached, SSL=TLSv1\.3 cipher=\w+ .*certificate={shown}"
        self.started(upstream).wait_for_log(pattern)

    def test_the_end_of_the_certificate_that_it_shows(self) -> None:
        server = postgres(17, ssl=True)
        other = postgres(18)
        upstream = (
            f"host=plain,localhost hostaddr={HOST},{HOST} port={other.port},{server.port} "
            "sslmode=prefer"
        )
        gateway = self.gateway("--upstream", upstream, "--expiry-warning", "36500")
        gateway.wait_for_log(
            rf'warn\] upstream localhost:{server.port}: certificate "CN=localhost" expires at .* '
            r"UTC \(shown by the server\): connections that verify it fail"
        )
        gateway.wait_for_log(r'warn\] certificate ".*" expires at .*state/server.crt"\): clients')

    def test_not_verified(self) -> None:
        root = Files(Path(self.mktemp()).absolute()).write("root.crt", Authority("others").pem())
        server = postgres(17, ssl=True)
        upstream = (
            f"host=localhost hostaddr={HOST} port={server.port} sslmode=verify-full "
            f"sslrootcert={root}"
        )
        self.started(upstream).wait_for_log(
            r"warn\] upstream: .*certificate verify failed.*; until .* clients are refused"
        )

    def test_parameters_that_have_no_effect_are_named_and_their_values_are_not(self) -> None:
        upstream = postgres(18).conninfo(user="alice", dbname=None, password="opensesame")
        gateway = self.started(upstream)
        gateway.wait_for_log(r'warn\] upstream: "user" has no effect: each client says that in its')
        gateway.wait_for_log(r'warn\] upstream: "password" has no effect: each client answers the')
        self.assertNotIn("opensesame", gateway.log())

    def test_not_there(self) -> None:
        self.started(f"host={HOST} port={free_port()}").wait_for_log(
            r"warn\] upstream: .*Connection refused.*; until that changes clients are refused"
        )

    def test_one_that_never_answers_holds_up_neither_start_nor_stop(self) -> None:
        with contextlib.closing(socket.create_server((HOST, 0))) as silent:
            silent.settimeout(TIMEOUT)
            upstream = f"host={HOST} port={silent.getsockname()[1]} sslmode=require"
            gateway = self.started(upstream)
            asking, _ = silent.accept()
            began = time.monotonic()
            gateway.stop()
            self.assertLess(time.monotonic() - began, TIMEOUT / 2)
            asking.close()

    def test_the_server_does_not_notice(self) -> None:
        server = postgres(18)
        before = len(server.log())
        gateway = self.started(server.conninfo(user=None, dbname=None))
        gateway.wait_for_log("upstream: reached")
        self.assertNotRegex(server.log()[before:], "FATAL|incomplete|could not|authorized")
