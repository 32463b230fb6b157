"""What the groups of a regular expression capture: a match, taken apart as PostgreSQL does it.

Source: ``cdissect()`` and what it calls in ``src/backend/regex/regexec.c`` of PostgreSQL 17.
"""

from __future__ import annotations

from pgtls.policy.regex_automaton import Work
from pgtls.policy.regex_parts import Kind, Part, Trait


class Dissection:
    """Takes a match apart.

    :param text: bytes, and END_OF_TEXT.
    :param ignore_case: for back references.
    :param work: counts the steps.
    :ivar captured: beginning and end of what each group has captured.
    """

    def __init__(self, text: list[int], ignore_case: bool, work: Work) -> None:
        self._text = text
        self._ignore_case = ignore_case
        self._work = work
        self.captured: dict[int, tuple[int, int]] = {}

    def take_apart(self, part: Part, begin: int, end: int) -> bool:
        """Find what the groups of a part capture of the text from ``begin`` to ``end``.

        :param part: matches it, as far as its automaton can tell.
        :param begin: where the match begins.
        :param end: where it ends.
        :returns: whether it matches, back references included.
        :raises TooMuchWork: it takes too many steps.
        """
        self._work.spend(10)
        if part.kind is Kind.WHOLE:
            matches = True
        elif part.kind is Kind.REFERENCE:
            matches = self._reference(part, begin, end)
        elif part.kind is Kind.ALTERNATIVES:
            matches = any(
                branch.automaton.longest(self._text, begin, end, self._work) == end
                and self.take_apart(branch, begin, end)
                for branch in part.children
            )
        elif part.kind is Kind.REPEAT:
            matches = self._repeat(part, begin, end)
        elif len(part.children) == 1:
            matches = self.take_apart(part.children[0], begin, end)
        else:
            matches = self._sequence(part, begin, end)
        if matches and part.capture:
            self.captured[part.capture] = begin, end
        return matches

    def _sequence(self, part: Part, begin: int, end: int) -> bool:
        first, second = part.children
        shorter = bool(first.traits & Trait.SHORTER)
        middle = self._first_end(first, begin, end)
        while middle is not None:
            if second.automaton.longest(self._text, middle, end, self._work) == end:
                if self.take_apart(first, begin, middle) and self.take_apart(second, middle, end):
                    return True
                self._forget(first)
                self._forget(second)
            if middle == (end if shorter else begin):
                return False
            middle = self._next_end(first, begin, middle, end)
        return False

    def _first_end(self, part: Part, begin: int, end: int) -> int | None:
        if part.traits & Trait.SHORTER:
            return part.automaton.shortest(self._text, begin, begin, end, self._work)
        return part.automaton.longest(self._text, begin, end, self._work)

    def _next_end(self, part: Part, begin: int, last: int, end: int) -> int | None:
        if part.traits & Trait.SHORTER:
            return part.automaton.shortest(self._text, begin, last + 1, end, self._work)
        return part.automaton.longest(self._text, begin, last - 1, self._work)

    def _repeat(self, part: Part, begin: int, end: int) -> bool:
        """Cut the text into matches of what is repeated, which its automaton allows, and try them.

        Matches of nothing are looked for only where there are too few others.
        """
        (inner,) = part.children
        shorter = bool(inner.traits & Trait.SHORTER)
        if shorter and part.least == 0 and begin == end:
            return True
        least = max(part.least, 1)
        most = max(end - begin if part.most is None else min(end - begin, part.most), least)
        ends = [begin]  # and then the end of each
        limit: int | None = begin if shorter else end
        verified = 0
        while limit is not None:
            number = len(ends)
            scarce = number < least and least - number >= end - ends[-1]
            if shorter:
                stop = self._short_end(inner, ends, limit, end, scarce, number >= most)
            else:
                stop = inner.automaton.longest(self._text, ends[-1], limit, self._work)
            verified = min(verified, number - 1)
            if stop is not None and (stop == end or number < most):
                is_empty = stop == ends[-1]
                ends.append(stop)
                if stop != end and (shorter or not is_empty or scarce):
                    limit = stop if shorter else end
                    continue
                if stop == end and number >= least:
                    verified = self._verify(inner, ends, verified)
                    if verified == number:
                        return True
                    del ends[verified + 2 :]
            limit = _retreat(ends, end, least, shorter)
        return part.least == 0 and begin == end

    def _short_end(
        self, inner: Part, ends: list[int], limit: int, end: int, scarce: bool, is_last: bool
    ) -> int | None:
        """The end of one more repetition, as early as may be."""
        if is_last:
            limit = end
        elif limit == ends[-1] and limit != end and not scarce:
            limit += 1
        return inner.automaton.shortest(self._text, ends[-1], limit, end, self._work)

    def _verify(self, inner: Part, ends: list[int], verified: int) -> int:
        """:returns: how many repetitions, from the first, really match."""
        while verified < len(ends) - 1:
            self._forget(inner)
            if not self.take_apart(inner, ends[verified], ends[verified + 1]):
                break
            verified += 1
        return verified

    def _reference(self, part: Part, begin: int, end: int) -> bool:
        if part.refers_to not in self.captured:
            return False
        start, stop = self.captured[part.refers_to]
        length, wanted = stop - start, end - begin
        if not wanted:
            return not length or part.least == 0
        if not length or wanted % length:
            return False
        times = wanted // length
        if times < part.least or (part.most is not None and times > part.most):
            return False
        self._work.spend(wanted)
        return self._bytes(begin, end) == self._bytes(start, stop) * times

    def _bytes(self, begin: int, end: int) -> bytes:
        octets = bytes(self._text[begin:end])
        return octets.lower() if self._ignore_case else octets

    def _forget(self, part: Part) -> None:
        """Drop what the groups in a part have captured."""
        self._work.spend(1)
        if not part.traits & Trait.CAPTURES:
            return
        self.captured.pop(part.capture, None)
        for child in part.children:
            self._forget(child)


def _retreat(ends: list[int], end: int, least: int, shorter: bool) -> int | None:
    """Take back repetitions until one can have another end.

    :returns: the limit for that; None where there is none.
    """
    while len(ends) > 1:
        number, last = len(ends) - 1, ends.pop()
        before = ends[-1]
        if shorter:
            if last < end:
                return last + 1
        elif last > before:
            scarce = number < least and least - number >= end - before
            if last - 1 > before or scarce:
                return last - 1
    return None
