"""A whole run: what ends it, and what it finds at its end."""

from __future__ import annotations

import io

import attrs
import pytest

from huton.errors import SafetyViolation
from huton.sim.invariants import Violation
from huton.sim.options import Plan, draw_plan
from huton.sim.schedule import NS
from huton.sim.trace import Trace
from huton.sim.world import World, simulate
from tests.sim.worlds import calm_plan

HEAL = 4 * NS


def plan_that_heals_at(heal_at: int = HEAL) -> Plan:
    """A calm run of 8 seconds, in which no operation may fail from 6 s on."""
    return calm_plan(duration_ns=8 * NS, heal_at=heal_at, grace_ns=2 * NS)


def test_a_calm_run_serves() -> None:
    """All operations get their answers, and everybody knows all of them."""
    report = simulate(plan_that_heals_at())

    assert report.failure is None
    assert report.operations > 100
    assert report.unknown == 0
    assert report.happened["became_leader"] == 1
    assert report.happened["write_answered"] > 0 < report.happened["read_served"]


def test_a_trace_changes_nothing() -> None:
    """Watching a run must not be what makes it pass."""
    plan = draw_plan(5, duration_ns=5 * NS)
    out = io.StringIO()

    assert simulate(plan, trace=Trace(out)) == simulate(plan)
    assert out.getvalue().count("\n") > 1000


# ------------------------------------------------------------------ safety, at the end


def test_states_that_differ_are_found() -> None:
    """State Machine Safety also covers what the checks do not see happen: members' states are compared whole."""
    world = World(plan_that_heals_at(), Trace(None))

    def tamper() -> None:
        world.members["n2"].storage._state.change([(b"planted", b"by nobody")])

    world.after(7 * NS, tamper)
    with pytest.raises(Violation, match=r"^equal-states: "):
        world.run()


def test_logs_that_do_not_match_are_found() -> None:
    """If two logs agree in the term at an index, they are identical up to it. (Figure 3, Log Matching)"""
    world = World(plan_that_heals_at(), Trace(None))

    def tamper() -> None:
        entries = world.members["n2"].storage._written.entries
        entries[3] = attrs.evolve(entries[3], data=b"another command")

    world.after(2 * NS, tamper)
    with pytest.raises(Violation, match=r"^log-matching: .* differ below it"):
        world.run()


@pytest.mark.parametrize("check", ["witness", "linearizability"])
def test_a_wrong_answer_is_found(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a client was told has to fit what everybody else was told."""
    world = World(plan_that_heals_at(), Trace(None))

    def tamper() -> None:
        for client in world.clients:
            for position, entry in enumerate(client.history):
                if entry.command is None and entry.operation.output is not None:
                    lie = attrs.evolve(entry.operation, output=b"what nobody wrote")
                    client.history[position] = attrs.evolve(entry, operation=lie)
                    return

    if check == "linearizability":
        monkeypatch.setattr("huton.sim.witness.check", lambda history: None)
    world.after(7 * NS, tamper)
    with pytest.raises(Violation, match=f"^{check}: "):
        world.run()


# ------------------------------------------------------------------ liveness, at the end


def kill_for_good(world: World, name: str) -> None:
    """Let *name* die once all faults have ended."""
    world.after(5 * NS, world.members[name].crash)


def test_a_cluster_without_a_majority_fails_its_clients() -> None:
    """From ``heal_at + grace_ns`` on nothing may be refused: an election that never ends is found."""
    world = World(plan_that_heals_at(), Trace(None))
    kill_for_good(world, "n1")
    kill_for_good(world, "n2")

    with pytest.raises(Violation, match=r"^serves-after-healing: c[0-9] got [A-Za-z]+ at .* is down"):
        world.run()


def test_a_member_that_is_left_behind_is_found() -> None:
    """The others serve, and nobody complains; but one copy is missing."""
    world = World(plan_that_heals_at(), Trace(None))
    kill_for_good(world, "n2")

    with pytest.raises(Violation, match=r"^converges-after-healing: .* is down"):
        world.run()


def test_an_operation_that_never_ends_is_found() -> None:
    """Whoever asks gets an answer, in bounded time."""
    world = World(plan_that_heals_at(), Trace(None))

    def forget() -> None:
        for member in world.members.values():
            member._clients = {id: lambda end: None for id in member._clients}

    for at in range(int(6.5 * NS), 7 * NS, NS // 1000):
        world.after(at, forget)
    with pytest.raises(Violation, match=r"^answers: [0-9]+ operations never ended"):
        world.run()


def test_a_loop_that_goes_nowhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that stands still would make a run go on for ever."""
    monkeypatch.setattr("huton.sim.world.EVENTS_MAX", 125)
    world = World(plan_that_heals_at(), Trace(None))

    def again() -> None:
        world.after(0, again)

    world.after(0, again)
    with pytest.raises(Violation, match=r"^progress: 1000 events"):
        world.run()
    assert world.now < 8 * NS


# ------------------------------------------------------------------ what a report says


@pytest.mark.parametrize(
    ("error", "check", "failure"),
    [
        (Violation("election-safety", "two"), "election-safety", "safety"),
        (Violation("answers", "none"), "answers", "liveness"),
        (Violation("linearizability-unknown", "who knows"), "linearizability-unknown", "inconclusive"),
        (SafetyViolation("the core saw it"), "core-assertion", "safety"),
        (KeyError("a defect"), "unhandled-error", "safety"),
    ],
)
def test_whatever_goes_wrong_is_a_failure_of_its_kind(
    error: Exception, check: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A campaign goes on after it, and exits with the code of its kind."""

    def fail(world: World) -> None:
        raise error

    monkeypatch.setattr(World, "_heal", fail)
    report = simulate(plan_that_heals_at())

    assert (report.check, report.failure) == (check, failure)
    assert report.at == HEAL
    assert report.evidence in str(error) or str(error) in report.evidence
