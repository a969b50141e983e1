"""The memory of unfinished SCANs is bounded, and forgets what is least missed."""

from __future__ import annotations

from itertools import count

import attrs

from huton.frontends.resp_session import CURSORS_MAX, Cursors, Place


def counting_cursors() -> Cursors:
    numbers = count(2, 2)
    return Cursors(lambda bits: next(numbers))


def test_a_cursor_leads_to_its_place() -> None:
    """Also a second time, for a client that has lost the answer; never to a place that wasn't given out."""
    cursors = counting_cursors()
    cursor = cursors.remember("users", b"ada", previous=0)

    assert cursor > 0
    assert cursors.find(cursor) == cursors.find(cursor) == Place("users", b"ada", 0)
    assert cursors.find(cursor + 2) is None


def test_a_long_scan_remembers_two_places() -> None:
    """Where it is, and where it was: one client's long scan doesn't push out everybody else's."""
    cursors = counting_cursors()
    others = cursors.remember("users", b"ada", previous=0)
    cursor = 0
    for step in range(2 * CURSORS_MAX):
        cursor = cursors.remember("users", b"%d" % step, previous=cursor)

    assert len(cursors) == 3
    assert attrs.asdict(cursors.find(others) or Place("", b"", 0))["after"] == b"ada"


def test_the_place_unused_for_longest_is_forgotten() -> None:
    """Scans that nobody goes on with end there."""
    cursors = counting_cursors()
    first, second = (cursors.remember("users", key, previous=0) for key in (b"1", b"2"))
    assert cursors.find(first)
    for _ in range(CURSORS_MAX - 1):
        cursors.remember("users", b"3", previous=0)

    assert len(cursors) == CURSORS_MAX
    assert cursors.find(second) is None
    assert cursors.find(first)
