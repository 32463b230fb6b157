"""The router of a gateway with routes: its answers, what it keeps, what it costs."""

from __future__ import annotations

import sys
from typing import cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from pgtls.conninfo.template import ConnInfoTemplate
from pgtls.gateway.route_upstream import RouteUpstream
from pgtls.gateway.routed_upstreams import LABEL_SECONDS, MAX_LABELS, RoutedUpstreams
from pgtls.gateway.routes import Route
from pgtls.protocols.endpoint import PgTLSClientEndpoint
from pgtls.protocols.stages import Client, Refuse, Upstream
from pgtls.transport.reactor import IReactor
from pgtls.wire.messages import StartupMessage


def client(sni: str | None, database: bytes = b"app", user: bytes = b"alice") -> Client:
    return Client(StartupMessage.build({b"user": user, b"database": database}), sni=sni)


class RouterTests(SynchronousTestCase):
    """Clients and where they go."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reactor = cast(IReactor, self.clock)

    def route(self, sni: str, upstream: str) -> Route[RouteUpstream]:
        template = ConnInfoTemplate.parse(f"{upstream} sslmode=disable", {})
        return Route((sni,) if sni else (), (), (), RouteUpstream(self.reactor, template))

    def router(self, *routes: tuple[str, str], own: str = "") -> RoutedUpstreams:
        endpoint = PgTLSClientEndpoint(self.reactor, own) if own else None
        return RoutedUpstreams(
            self.clock, [self.route(name, upstream) for name, upstream in routes], endpoint
        )

    def sent(self, router: RoutedUpstreams, name: str) -> Upstream:
        found = router.upstream(client(name))
        assert isinstance(found, Upstream)
        return found

    def test_the_label(self) -> None:
        router = self.router(("*.example.com", r"host=\1.internal dbname=\1"))
        found = self.sent(router, "ACME.example.com")
        self.assertEqual(found.endpoint.conninfo.hosts[0].host, "acme.internal")
        self.assertEqual((found.route, found.database), ("1", b"acme"))

    def test_the_client_s_database_stays_where_none_is_named(self) -> None:
        found = self.sent(self.router(("a.example.com", "host=db")), "a.example.com")
        self.assertIsNone(found.database)

    def test_a_refusal_names_what_was_asked_for(self) -> None:
        router = self.router(("*.example.com", r"host=\1"))
        for name, text in (("a\n.b.c", "a\\x0a.b.c"), ("7.example.com", "7.example.com")):
            refused = router.upstream(client(name))
            assert isinstance(refused, Refuse)
            self.assertEqual(refused.response.sqlstate, "08004")
            self.assertEqual(
                refused.response.message,
                f'no route for host name "{text}", database "app", user "alice"',
            )

    def test_endpoints_of_labels_are_kept_for_a_while(self) -> None:
        router = self.router(("*.example.com", r"host=\1.internal"))
        first = self.sent(router, "a.example.com")
        self.clock.advance(LABEL_SECONDS)
        self.assertIs(self.sent(router, "A.example.com"), first)
        self.clock.advance(LABEL_SECONDS)
        self.sent(router, "b.example.com")
        self.assertIs(self.sent(router, "a.example.com"), first)
        self.clock.advance(LABEL_SECONDS + 1)
        self.sent(router, "b.example.com")
        self.assertIsNot(self.sent(router, "a.example.com"), first)

    def test_no_more_of_them_than_there_may_be(self) -> None:
        router = self.router(("*.example.com", r"host=\1.internal"))
        first = self.sent(router, "0.example.com")
        for number in range(1, MAX_LABELS):
            self.sent(router, f"{number}.example.com")
        self.assertIs(self.sent(router, "0.example.com"), first)
        self.sent(router, "one-more.example.com")
        self.assertIs(self.sent(router, "0.example.com"), first)  # asked for lately
        for number in range(MAX_LABELS):
            self.sent(router, f"x{number}.example.com")
        self.assertIsNot(self.sent(router, "0.example.com"), first)

    def test_a_thousand_routes_cost_what_ten_cost(self) -> None:
        def calls(count: int) -> int:
            """Calls, of functions of C too, for the last of so many routes, and for none."""
            routes = [(f"{number}.example.com", f"host=db{number}") for number in range(count)]
            router = self.router(*routes)
            asked = [client(f"{count - 1}.example.com"), client("other.example.org")]
            counted = 0

            def count_call(frame: object, event: str, argument: object) -> None:
                nonlocal counted
                counted += event in ("call", "c_call")

            sys.setprofile(count_call)
            try:
                for each in asked:
                    router.upstream(each)
            finally:
                sys.setprofile(None)
            return counted

        self.assertEqual(calls(1000), calls(10))
        self.assertGreater(calls(10), 0)

    def test_what_was_read_anew_is_used_for_cancel_requests(self) -> None:
        old = self.router(("*.example.com", r"host=\1.internal"), ("", "host=db"))
        label, fixed = self.sent(old, "a.example.com"), self.sent(old, "b.example.org")
        new = self.router(("*.example.com", r"host=\1.internal"))
        for each in (label, fixed):
            renewed = new.renewed(each.endpoint)
            self.assertIsNot(renewed, each.endpoint)
            host = each.endpoint.conninfo.hosts[0]
            self.assertEqual(renewed.for_session(host).conninfo.hosts, (host,))
        other = PgTLSClientEndpoint(self.reactor, "host=db sslmode=require")
        self.assertIs(new.renewed(other), other)
