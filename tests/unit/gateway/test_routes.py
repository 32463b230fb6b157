"""Routes: the first that matches, whatever the number of routes."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.gateway.routes import UNDECIDED, Match, Route, RouteTable

NAMES = ["a.example.com", "b.example.com", "*.example.com", "x.a.example.com", "*.a.example.com"]


def first_match(
    routes: list[Route[int]], sni: str | None, database: bytes, user: bytes
) -> int | None:
    """What a walk through all of them finds."""

    def named(patterns: tuple[str, ...]) -> bool:
        if not patterns:
            return True
        name = (sni or "").lower()
        return any(
            name.partition(".")[::2] != ("", "") and pattern[2:] == name.partition(".")[2]
            if pattern.startswith("*.")
            else pattern == name
            for pattern in patterns
        )

    for route in routes:
        if (
            named(route.sni)
            and (not route.database or database in route.database)
            and (not route.user or user in route.user)
        ):
            return route.upstream
    return None


class RouteTests(SynchronousTestCase):
    """Tables."""

    def test_the_label_and_the_number(self) -> None:
        table = RouteTable(
            [
                Route(("db.Example.com",), (), (), "exact"),
                Route(("*.example.com",), (), (), "wildcard"),
                Route((), (b"app", b"web"), (b"alice",), "both"),
                Route((), (), (), "rest"),
            ]
        )
        for sni, database, user, number, label in (
            ("DB.example.com", b"x", b"y", 1, ""),
            ("Acme.example.com", b"x", b"y", 2, "acme"),
            ("a.b.example.com", b"x", b"y", 4, ""),
            ("example.com", b"x", b"y", 4, ""),
            (".example.com", b"x", b"y", 4, ""),
            (None, b"web", b"alice", 3, ""),
            (None, b"web", b"bob", 4, ""),
        ):
            found = table.find(sni, database, user)
            assert found is not None
            self.assertEqual((found.number, found.label), (number, label), sni)

    def test_none(self) -> None:
        table = RouteTable([Route(("a.example.com",), (b"app",), (), 1)])
        for sni, database in (("a.example.com", b"x"), ("b.example.com", b"app"), (None, b"app")):
            self.assertIsNone(table.find(sni, database, b"alice"))
        self.assertIsNone(RouteTable([]).find(None, b"app", b"alice"))

    def test_an_empty_name_of_a_database_is_a_name(self) -> None:
        table = RouteTable([Route((), (b"",), (), 1)])
        self.assertIsNone(table.find(None, b"app", b"alice"))
        self.assertIsNotNone(table.find(None, b"", b"alice"))

    def test_by_the_name_alone(self) -> None:
        table = RouteTable(
            [
                Route(("a.example.com",), (), (), 1),
                Route((), (b"app",), (), 2),
                Route(("*.example.com",), (), (), 3),
                Route(("*.example.org",), (), (b"alice",), 4),
            ]
        )
        found = table.find_by_name("A.example.com")
        assert isinstance(found, Match)
        self.assertEqual((found.number, found.label), (1, ""))
        for name in ("b.example.com", "b.example.org", "example.net", None):
            self.assertIs(table.find_by_name(name), UNDECIDED)  # the second may be for it
        table = RouteTable([Route(("*.example.com",), (), (), 1)])
        found = table.find_by_name("B.example.com")
        assert isinstance(found, Match)
        self.assertEqual((found.number, found.label), (1, "b"))
        self.assertIsNone(table.find_by_name("b.example.net"))

    def test_why_not(self) -> None:
        route = Route(("*.Example.com", "b"), (b"app",), (b"alice",), 1)
        for asked, field in (
            (("a.example.com", b"app", b"alice"), None),
            ((None, b"x", b"y"), "sni"),
            (("B", b"x", b"y"), "database"),
            (("b", b"app", b"y"), "user"),
        ):
            self.assertEqual(route.mismatch(*asked), field)

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # on a busy machine
    @given(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from(NAMES), max_size=2),
                st.lists(st.sampled_from([b"app", b"web"]), max_size=2),
                st.lists(st.sampled_from([b"alice", b"bob"]), max_size=2),
            ),
            max_size=8,
        ),
        st.sampled_from([None, "a.example.com", "B.example.com", "x.a.example.com", "example.com"]),
        st.sampled_from([b"app", b"web", b"other"]),
        st.sampled_from([b"alice", b"bob", b"carol"]),
    )
    def test_as_a_walk_through_all_of_them(
        self,
        tables: list[tuple[list[str], list[bytes], list[bytes]]],
        sni: str | None,
        database: bytes,
        user: bytes,
    ) -> None:
        routes = [
            Route(tuple(names), tuple(databases), tuple(users), number)
            for number, (names, databases, users) in enumerate(tables)
        ]
        found = RouteTable(routes).find(sni, database, user)
        self.assertEqual(
            found.route.upstream if found else None, first_match(routes, sni, database, user)
        )
        walked = [
            number
            for number, each in enumerate(routes)
            if each.mismatch(sni, database, user) is None
        ]
        self.assertEqual(found.number - 1 if found else None, walked[0] if walked else None)
        by_name = RouteTable(routes).find_by_name(sni)
        if by_name is not UNDECIDED:
            self.assertEqual(by_name, found)
