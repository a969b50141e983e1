"""Campaigns: many runs add up, on one process or several, and none depends on those before it."""

from __future__ import annotations

import attrs

from huton.sim.campaign import CHUNK, RARE, Tally, run_seeds
from huton.sim.options import draw_plan
from huton.sim.schedule import EVENTS, NS
from huton.sim.world import Report, simulate

SHORT = 2 * NS

FINE = Report(
    seed=1,
    failure=None,
    check=None,
    evidence="",
    at=SHORT,
    digest="0" * 32,
    events=1000,
    simulated_ns=3600 * NS,
    operations=50,
    unknown=2,
    happened=dict.fromkeys(EVENTS, 1),
)


def test_jobs_change_nothing() -> None:
    """Two processes that start from nothing report what this one does, every seed once; of one job in order."""
    seeds = range(5, 5 + CHUNK + 3)
    alone = list(run_seeds(seeds, jobs=1, nodes=3, duration_ns=SHORT))
    shared = list(run_seeds(seeds, jobs=2, nodes=3, duration_ns=SHORT))

    assert [report.seed for report in alone] == list(seeds)
    assert sorted(shared, key=lambda report: report.seed) == alone
    assert len({report.digest for report in alone}) == len(alone)


def test_a_run_does_not_depend_on_those_before_it() -> None:
    """Backwards, or alone: the same reports. Otherwise no failure of a campaign could be run again."""
    forwards = list(run_seeds(range(20, 26), jobs=1, duration_ns=SHORT))
    backwards = list(run_seeds(range(25, 19, -1), jobs=1, duration_ns=SHORT))

    assert forwards == backwards[::-1]
    assert forwards[3] == simulate(draw_plan(23, duration_ns=SHORT))


def test_what_is_asked_for_reaches_every_run() -> None:
    """The number of members and the time, also in another process."""
    plans = [draw_plan(seed, nodes=5, duration_ns=NS) for seed in (1, 2)]

    assert list(run_seeds([1, 2], jobs=2, nodes=5, duration_ns=NS)) == [simulate(plan) for plan in plans]


def test_reports_come_one_after_another() -> None:
    """Whoever stops at the first failure has not run all the others."""
    reports = run_seeds(range(1_000_000_000), jobs=1, duration_ns=NS)

    assert next(reports).seed == 0
    assert next(reports).seed == 1


def test_a_tally_adds_up() -> None:
    """Sums of everything, and the failures in the order in which they came."""
    tally = Tally()
    failures = [attrs.evolve(FINE, seed=seed, failure="safety", check="witness") for seed in (9, 4)]
    for report in (FINE, failures[0], FINE, failures[1]):
        tally.add(report)

    assert (tally.runs, tally.events, tally.operations, tally.unknown) == (4, 4000, 200, 8)
    assert tally.simulated_ns == 4 * 3600 * NS
    assert tally.happened == dict.fromkeys(EVENTS, 4)
    assert tally.failures == failures
    assert tally.summary() == "4 runs  4.0 simulated hours  4,000 events  200 operations (8 unknown)  2 failed"


def test_an_event_that_never_happened_is_missed_after_enough_runs() -> None:
    """A campaign that never saw a checkpoint has proved nothing about checkpoints; a short one may not see all."""
    tally = Tally()
    assert tally.missed() == []
    for _ in range(RARE - 1):
        tally.add(attrs.evolve(FINE, happened={**FINE.happened, "checkpoint_done": 0, "truncated": 0}))

    assert tally.missed() == []
    tally.add(attrs.evolve(FINE, happened={**FINE.happened, "checkpoint_done": 0}))
    assert tally.missed() == ["checkpoint_done"]
    tally.add(FINE)
    assert tally.missed() == []
