"""Many runs, on many processes, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import attrs

from huton.sim.options import draw_plan
from huton.sim.schedule import EVENTS, NS
from huton.sim.world import Report, simulate

__all__ = ["Tally", "run_seeds"]

CHUNK = 8
"""Seeds that a worker runs before it reports."""

RARE = 200
"""Every named event must have happened in a campaign of at least so many runs."""


@attrs.define
class Tally:
    """What a campaign has seen so far.

    Attributes:
        runs: how many runs have ended.
        failures: the reports of those that failed, in the order in which they came.
        events, simulated_ns, operations, unknown: sums over all runs.
        happened: how often each named event happened.
    """

    runs: int = 0
    failures: list[Report] = attrs.Factory(list)
    events: int = 0
    simulated_ns: int = 0
    operations: int = 0
    unknown: int = 0
    happened: dict[str, int] = attrs.Factory(lambda: dict.fromkeys(EVENTS, 0))

    def add(self, report: Report) -> None:
        """Count *report* in."""
        self.runs += 1
        self.events += report.events
        self.simulated_ns += report.simulated_ns
        self.operations += report.operations
        self.unknown += report.unknown
        for event, count in report.happened.items():
            self.happened[event] += count
        if report.failure is not None:
            self.failures.append(report)

    def missed(self) -> list[str]:
        """Return the events that never happened, if there were runs enough to expect all of them.

        A campaign that never saw a checkpoint, say, has proved nothing about checkpoints.
        """
        return [event for event, count in self.happened.items() if not count] if self.runs >= RARE else []

    def summary(self) -> str:
        """Return the numbers as one line."""
        hours = self.simulated_ns / NS / 3600
        return (
            f"{self.runs:,} runs  {hours:,.1f} simulated hours  {self.events:,} events  "
            f"{self.operations:,} operations ({self.unknown:,} unknown)  {len(self.failures)} failed"
        )


def run_seeds(
    seeds: Sequence[int], *, jobs: int, nodes: int | None = None, duration_ns: int = 60 * NS
) -> Iterator[Report]:
    """Run every seed and yield the reports as they come; of one job, in order.

    Args:
        seeds: which runs.
        jobs: how many processes; 1 runs them in this one.
        nodes: how many members; None lets each seed choose.
        duration_ns: how long each run is, in virtual time.
    """
    if jobs == 1:
        for seed in seeds:
            yield simulate(draw_plan(seed, nodes=nodes, duration_ns=duration_ns))
        return
    # Spawned, not forked: a worker starts from nothing, as a run on another machine would.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        chunks = [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]
        futures: list[Future[list[Report]]] = [pool.submit(_run_chunk, chunk, nodes, duration_ns) for chunk in chunks]
        try:
            for future in as_completed(futures):
                yield from future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _run_chunk(seeds: Sequence[int], nodes: int | None, duration_ns: int) -> list[Report]:
    return list(run_seeds(seeds, jobs=1, nodes=nodes, duration_ns=duration_ns))
