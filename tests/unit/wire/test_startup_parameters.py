"""The settings pgtls.* in a StartupMessage: nobody but the gateway gets to say them."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pgtls.errors import ProtocolViolation
from pgtls.wire.messages import MAX_PACKET_LENGTH, StartupMessage, split_packet
from pgtls.wire.startup_parameters import (
    with_database,
    with_tls_parameters,
    without_our_switches,
)

OURS = {"pgtls.version": "TLSv1.3", "pgtls.client_dn": "CN=alice"}

# getopt()'s string in process_postgres_switches(): letters that take an argument have a colon.
SWITCHES = "B:bC:c:D:d:EeFf:h:ijk:lN:nOPp:r:S:sTt:v:W:-:"


def split_opts(options: bytes) -> list[bytes]:
    """pg_split_opts(), byte by byte."""
    arguments: list[bytes] = []
    rest = list(options)
    while rest:
        while rest and rest[0] in b" \t\n\v\f\r":
            rest.pop(0)
        if not rest:
            break
        argument, escaped = bytearray(), False
        while rest:
            if rest[0] in b" \t\n\v\f\r" and not escaped:
                break
            if not escaped and rest[0] == ord("\\"):
                escaped = True
            else:
                escaped = False
                argument.append(rest[0])
            rest.pop(0)
        arguments.append(bytes(argument))
    return arguments


def server_settings(options: bytes) -> tuple[list[tuple[str, bytes]], bool]:
    """What PostgreSQL makes of ``options``: what each switch says, and whether it then refuses."""
    arguments = split_opts(options)
    found: list[tuple[str, bytes]] = []
    others = 0
    broken = False
    while arguments:
        argument = arguments.pop(0)
        if argument == b"--":
            others += len(arguments)
            break
        if not argument.startswith(b"-") or argument == b"-":
            others += 1  # glibc's getopt() goes on behind it
            continue
        letters = argument[1:].decode("latin-1")
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter == ":" or letter not in SWITCHES:
                broken = True
            elif SWITCHES[SWITCHES.index(letter) + 1 :].startswith(":"):
                if not letters and not arguments:
                    broken = True
                    break
                value = letters.encode("latin-1") if letters else arguments.pop(0)
                if letter in "c-":
                    name, equals, setting = value.partition(b"=")
                    broken = broken or not equals
                    found.append(("c", name.replace(b"-", b"_") + b"=" + setting))
                else:
                    found.append((letter, value))
                letters = ""
            else:
                found.append((letter, b""))
    return found, broken or others > 0


def is_ours(switch: tuple[str, bytes]) -> bool:
    return switch[0] == "c" and switch[1].lower().startswith(b"pgtls.")


# fmt: off
WORDS = st.sampled_from([
    b"-c", b"--", b"-", b" ", b"\t", b"\\", b"\\ ", b"=",
    b"-E", b"-B", b"-d", b"-s", b"-Ec", b"-E-",
    b"pgtls.x=y", b"PgTLS.client-dn=a", b"-cpgtls.z=1", b"--pgtls.q=\\ 2", b"pgtls.", b"p",
    b"a.b=c", b"work-mem=1", b"--x.y=z", b"\xa0", b"\xc3\xa0",
])
# fmt: on
OPTIONS = st.one_of(st.binary(max_size=40), st.lists(WORDS, max_size=10).map(b"".join)).map(
    lambda options: options.replace(b"\0", b"")
)


class OptionsTests(SynchronousTestCase):
    def test_forms_of_a_switch(self) -> None:
        for options in (
            b"-c pgtls.client_dn=x",
            b"-cpgtls.client_dn=x",
            b"--pgtls.client_dn=x",
            b"--pgtls.client-dn=x",
            b"--PGTLS.Client_DN=x",
            b"-c \\pg\\tls.client_dn=a\\ b",
            b"--pgtls.client_dn=a\\ b\\\\",
            b"  -c\tpgtls.client_dn=x\n",
        ):
            self.assertEqual(without_our_switches(options), b"", options)

    def test_others_stay_as_they_are(self) -> None:
        options = b"-c search_path=a\\ b -B 100 --geqo=off -E -cpgtlsx.y=1"
        self.assertEqual(without_our_switches(options), options)

    def test_among_others(self) -> None:
        options = b"-c geqo=off -c pgtls.x=1 --pgtls.y=2 -B 100"
        self.assertEqual(without_our_switches(options), b"-c geqo=off -B 100")

    def test_behind_other_letters(self) -> None:
        self.assertEqual(without_our_switches(b"-Ecpgtls.x=1 -E- pgtls.x=1 -s"), b"-E -E -s")

    def test_argument_of_another_switch_is_no_switch(self) -> None:
        options = b"-B -cpgtls.x=1"
        self.assertEqual(without_our_switches(options), options)

    def test_space_of_some_locales_is_escaped(self) -> None:
        options = without_our_switches(b"-c a.b=\xa0--pgtls.x=1")
        self.assertEqual(options, b"-c a.b=\\\xa0--pgtls.x=1")

    @given(OPTIONS)
    @example(b"-c \\")
    @example(b"-- -c pgtls.x=y")
    @example(b"pgtls.x=y -c pgtls.x=y")
    @settings(deadline=None, max_examples=500)
    def test_the_server_sees_none_of_ours_and_all_others(self, options: bytes) -> None:
        before, refused = server_settings(options)
        after, refused_after = server_settings(without_our_switches(options))
        self.assertEqual(after, [switch for switch in before if not is_ours(switch)])
        if not any(map(is_ours, before)):
            self.assertEqual(refused_after, refused)


class WithTLSParametersTests(SynchronousTestCase):
    def message(self, parameters: dict[bytes, bytes]) -> StartupMessage:
        return StartupMessage.build({b"user": b"alice", **parameters})

    def reread(self, message: StartupMessage) -> StartupMessage:
        """The message as the server reads it."""
        read = split_packet(message.raw)
        assert read is not None
        self.assertEqual(read[1], b"")
        return StartupMessage.parse(read[0])

    def test_ours_come_last(self) -> None:
        result = with_tls_parameters(self.message({b"database": b"db"}), OURS)
        self.assertEqual(
            result.parameters,
            (
                (b"user", b"alice"),
                (b"database", b"db"),
                (b"pgtls.version", b"TLSv1.3"),
                (b"pgtls.client_dn", b"CN=alice"),
            ),
        )

    def test_message_is_what_it_says(self) -> None:
        result = with_tls_parameters(self.message({}), OURS)
        self.assertEqual(self.reread(result), result)

    def test_version_stays(self) -> None:
        startup = StartupMessage.build({b"user": b"alice"}, 3, 2)
        self.assertEqual(with_tls_parameters(startup, OURS).minor, 2)

    def test_the_clients_own_are_removed(self) -> None:
        startup = self.message(
            {b"pgtls.client_dn": b"CN=root", b"PgTLS.other": b"x", b"options": b"-c pgtls.a=b"}
        )
        result = with_tls_parameters(startup, {})
        self.assertEqual(result.parameters, ((b"user", b"alice"),))

    def test_what_is_left_of_options_stays(self) -> None:
        startup = self.message({b"options": b"--pgtls.a=b -c geqo=off"})
        self.assertEqual(with_tls_parameters(startup, OURS).get(b"options"), b"-c geqo=off")

    def test_repeated_parameters_stay(self) -> None:
        pairs = ((b"user", b"a"), (b"x.y", b"1"), (b"x.y", b"2"))
        startup = StartupMessage(b"", 3, 0, pairs)
        self.assertEqual(self.reread(with_tls_parameters(startup, {})).parameters, pairs)

    def test_values_become_printable_ascii(self) -> None:
        result = with_tls_parameters(self.message({}), {"pgtls.client_dn": "a\0b\n\u00fc"})
        self.assertEqual(result.get(b"pgtls.client_dn"), rb"a\x00b\x0a\xc3\xbc")

    def test_the_longest_value_is_cut_and_marked(self) -> None:
        parameters = {"pgtls.version": "TLSv1.3", "pgtls.client_dn": "x" * MAX_PACKET_LENGTH}
        result = with_tls_parameters(self.message({}), parameters)
        self.assertEqual(len(self.reread(result).raw), MAX_PACKET_LENGTH)
        self.assertEqual(result.get(b"pgtls.version"), b"TLSv1.3")
        self.assertTrue((result.get(b"pgtls.client_dn") or b"").endswith(b"xx..."))

    def test_no_room(self) -> None:
        startup = self.message({b"application_name": b"x" * (MAX_PACKET_LENGTH - 60)})
        self.assertRaises(ProtocolViolation, with_tls_parameters, startup, OURS)

    @given(
        st.integers(min_value=0, max_value=MAX_PACKET_LENGTH - 40),
        st.lists(st.integers(min_value=0, max_value=MAX_PACKET_LENGTH), max_size=7),
    )
    @settings(deadline=None)
    def test_fits_or_is_refused(self, filler: int, lengths: list[int]) -> None:
        startup = self.message({b"a": b"x" * filler})
        parameters = {f"pgtls.p{n}": "v" * length for n, length in enumerate(lengths)}
        try:
            result = with_tls_parameters(startup, parameters)
        except ProtocolViolation:
            return
        self.assertEqual(self.reread(result).get(b"a"), b"x" * filler)
        whole = len(startup.raw) + sum(len(n) + len(v) + 2 for n, v in parameters.items())
        if whole <= MAX_PACKET_LENGTH:
            self.assertEqual(len(result.raw), whole)
        else:
            # Several values cut to the same length leave less than a byte for each.
            self.assertLessEqual(len(result.raw), MAX_PACKET_LENGTH)
            self.assertGreater(len(result.raw), MAX_PACKET_LENGTH - max(len(lengths), 1))


class DatabaseTests(SynchronousTestCase):
    """Another database in place of the client's."""

    def test_every_mention_of_it_is_replaced(self) -> None:
        pairs = ((b"database", b"a"), (b"user", b"alice"), (b"database", b"b"))
        sent = StartupMessage(b"", 3, 2, pairs)
        changed = with_database(sent, b"mine")
        self.assertEqual(changed.parameters, ((b"user", b"alice"), (b"database", b"mine")))
        self.assertEqual((changed.major, changed.minor), (3, 2))
        split = split_packet(changed.raw)
        assert split is not None
        self.assertEqual(StartupMessage.parse(split[0]), changed)

    def test_without_one(self) -> None:
        changed = with_database(StartupMessage.build({b"user": b"alice"}), b"mine")
        self.assertEqual(changed.database, b"mine")

    def test_no_room(self) -> None:
        room = MAX_PACKET_LENGTH - len(
            with_database(StartupMessage.build({b"user": b""}), b"x").raw
        )
        fits = StartupMessage.build({b"user": b"u" * room})
        self.assertEqual(len(with_database(fits, b"x").raw), MAX_PACKET_LENGTH)
        self.assertRaises(ProtocolViolation, with_database, fits, b"xy")
