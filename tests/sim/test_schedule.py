"""Schedules: faults as data that a person can read, edit and replay."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.sim.options import draw_plan, plan_of
from huton.sim.schedule import (
    NS,
    Fault,
    Schedule,
    ScheduleError,
    duration,
    read_schedule,
    show_duration,
    write_schedule,
)

HEAD = '{"v": 1, "seed": 5, "nodes": 3, "time": "20s"}\n'


@given(st.integers(0, 10**13))
def test_a_duration_reads_as_it_was_written(ns: int) -> None:
    """Whole numbers of the largest unit that fits, and back."""
    assert duration(show_duration(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"), [("40ms", 40_000_000), ("2.15s", 2_150_000_000), ("1m", 60 * NS), ("7us", 7000)]
)
def test_durations_are_written_as_people_write_them(text: str, ns: int) -> None:
    """A number and its unit."""
    assert duration(text) == ns


@given(st.integers(0, 10_000), st.sampled_from([None, 1, 3, 5]))
def test_what_a_seed_draws_survives_being_written_down(seed: int, nodes: int | None) -> None:
    """The generator only writes a schedule; reading it back gives the same plan."""
    plan = draw_plan(seed, nodes=nodes, duration_ns=20 * NS)
    schedule = Schedule(seed=seed, nodes=nodes, duration_ns=20 * NS, found="", faults=plan.faults)

    again = read_schedule(write_schedule(schedule))

    assert again == schedule
    assert plan_of(again) == plan


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "f1", "do": "explode", "at": "1s"}', "unknown fault 'explode'"),
        ('{"id": "f1", "do": "crash", "node": "n1"}', "either `at` or `when`"),
        ('{"id": "f1", "do": "crash", "at": "1s"}', "needs a `node`"),
        ('{"id": "f1", "do": "crash", "at": "1s", "node": "$node"}', "there is no `when`"),
        ('{"id": "f1", "do": "partition", "at": "1s", "groups": [["n1"]]}', "needs `groups`"),
        ('{"id": "f1", "do": "one_way", "at": "1s", "groups": [["$node"], ["$rest"]]}', "there is no `when`"),
        ('{"id": "f1", "do": "crash", "at": "soon", "node": "n1"}', "'soon' is no duration"),
        ('{"id": "f1", "do": "crash", "when": {"event": "dawn"}, "node": "n1"}', "unknown event 'dawn'"),
        ('{"id": "f1", "do": "flaky", "at": "1s", "colour": 1}', "unknown key 'colour'"),
        ('{"do": "flaky", "at": "1s"}', "no 'id'"),
        ("[]", "list"),
        ("{", "Expecting"),
    ],
)
def test_a_line_that_is_no_fault_is_named(line: str, complaint: str) -> None:
    """Bad input gets a clear error that says what was wrong, and on which line."""
    with pytest.raises(ScheduleError, match="line 2: .*" + complaint.replace("$", r"\$")):
        read_schedule(HEAD + line)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('{"id": "f1", "do": "crash", "at": "1s", "node": "n4"}', "n4"),
        ('{"id": "f1", "do": "crash", "at": "1s", "node": "$rest"}', "$rest"),
        ('{"id": "f1", "do": "partition", "at": "1s", "groups": [["n1"], ["n9", "n2"]]}', "n9"),
        ('{"id": "f1", "do": "partition", "at": "1s", "groups": [["*"], ["n2"]]}', "*"),
    ],
)
def test_a_member_that_the_run_does_not_have_is_named(line: str, name: str) -> None:
    """A fault that strikes nobody would be a run that proves nothing."""
    with pytest.raises(ScheduleError, match=f"fault 'f1': '{re.escape(name)}' is none of the 3 members"):
        plan_of(read_schedule(HEAD + line))


def test_an_id_comes_once() -> None:
    """What a fault draws is drawn under its id."""
    line = '{"id": "f1", "do": "flaky", "at": "1s", "amount": 0.1, "for": "1s"}\n'
    with pytest.raises(ScheduleError, match="second fault with id 'f1'"):
        read_schedule(HEAD + line + line)
    (fault,) = read_schedule(HEAD + line).faults
    assert fault == Fault(id="f1", do="flaky", at=NS, amount=0.1, for_ns=NS)


def test_another_version_is_refused() -> None:
    """A schedule of a later simulator may mean something else."""
    with pytest.raises(ScheduleError, match="version 2"):
        read_schedule(HEAD.replace('"v": 1', '"v": 2'))
