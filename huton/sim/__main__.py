"""``python -m huton.sim``: run the simulator from a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Final, TextIO

import attrs
import click

from huton.sim.campaign import Tally, run_seeds
from huton.sim.options import Plan, draw_plan, plan_of
from huton.sim.schedule import NS, Schedule, ScheduleError, duration, read_schedule, show_duration, write_schedule
from huton.sim.trace import Trace
from huton.sim.world import Report, simulate

FINE: Final = 0
SAFETY: Final = 1
LIVENESS: Final = 3
NONDETERMINISM: Final = 4
MISSED: Final = 5
INCONCLUSIVE: Final = 6

SCRAMBLED: Final = """\
import random, sys
junk = [bytearray(random.randrange(2000)) for _ in range(50_000)]
random.shuffle(junk)
del junk[::2]
from huton.sim.__main__ import main
main(sys.argv[1:], prog_name="python -m huton.sim")
"""
"""A process whose objects lie at addresses that no other run has: what depends on them differs."""

CODES: Final = {None: FINE, "safety": SAFETY, "liveness": LIVENESS, "inconclusive": INCONCLUSIVE}

EPILOG: Final = """\b
Exit codes: 0 all is well, 1 safety violated, 2 usage, 3 no progress after the
faults healed, 4 two runs of one seed differ, 5 something that must happen in a
campaign never did, 6 the checker ran out of its budget.
"""


class Duration(click.ParamType[Any]):
    """A number and ns, us, ms, s or m."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return duration(str(value))
        except ScheduleError as error:
            self.fail(str(error), param, ctx)


class Seeds(click.ParamType[Any]):
    """N for the seeds 0 to N-1, or A..B for A to B, both included."""

    name = "N|A..B"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> range:
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", str(value))
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            self.fail(f"{value!r} is neither a number nor a range A..B", param, ctx)
        return range(int(match[1])) if match[2] is None else range(int(match[1]), int(match[2]) + 1)


nodes_option = click.option(
    "-n", "--nodes", type=click.IntRange(1, 9), default=None, help="How many members. [default: the seed chooses]"
)
time_option = click.option(
    "--time", "duration_ns", type=Duration(), default="60s", show_default=True, help="Virtual time of one run."
)


@click.group(epilog=EPILOG)
def main() -> None:
    """Simulate a huton cluster on virtual time, under faults that a seed decides.

    The program that is simulated is the one that ships: the same replicas, over a disk that loses what was not
    synced and a network that loses, doubles, delays and reorders. After the faults have ended the cluster must
    serve, and what clients were told must be linearizable.

    \b
        python -m huton.sim run --seed 42
        python -m huton.sim run --seed 42 --trace run.txt
        python -m huton.sim campaign --seeds 1000 --jobs 2
    """


@main.command(epilog=EPILOG)
@click.option("--seed", type=click.IntRange(0), required=True, help="Which run.")
@nodes_option
@time_option
@click.option("--trace", type=click.File("w", lazy=False), help="Write the run as text to this file.")
@click.option("--save", type=click.File("w", lazy=False), help="Write the run's schedule to this file.")
@click.option(
    "--twice",
    is_flag=True,
    help="Run it again in two processes with other hash seeds and addresses; all three must be the same.",
)
def run(
    *, seed: int, nodes: int | None, duration_ns: int, trace: TextIO | None, save: TextIO | None, twice: bool
) -> None:
    """Run one seed, and say what came of it."""
    plan = draw_plan(seed, nodes=nodes, duration_ns=duration_ns)
    _print_plan(plan)
    report = simulate(plan, trace=Trace(trace))
    _print_report(report)
    if save is not None:
        save.write(write_schedule(_schedule(report, plan, nodes, duration_ns)))
    if twice:
        _compare(report, nodes, duration_ns)
    sys.exit(CODES[report.failure])


@main.command(epilog=EPILOG)
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--trace", type=click.File("w", lazy=False), help="Write the runs as text to this file.")
def replay(paths: tuple[Path, ...], trace: TextIO | None) -> None:
    """Run kept schedules again: files, or directories of *.jsonl files."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    if not files:
        raise click.UsageError(f"no *.jsonl in {', '.join(map(str, paths))}")
    code = FINE
    for file in files:
        try:
            plan = plan_of(read_schedule(file.read_text()))
        except ScheduleError as error:
            raise click.UsageError(f"{file}: {error}") from None
        if trace is not None and len(files) > 1:
            trace.write(f"{file.name}\n")
        report = simulate(plan, trace=Trace(trace))
        click.echo(f"{file.name}: {_verdict(report)}")
        code = graver(code, CODES[report.failure])
    click.echo(f"{len(files)} replayed")
    sys.exit(code)


def graver(one: int, other: int) -> int:
    """Return the code of the graver failure: the lower, but for 0."""
    return min(one, other) or max(one, other)


def _schedule(report: Report, plan: Plan, nodes: int | None, duration_ns: int) -> Schedule:
    return Schedule(seed=plan.seed, nodes=nodes, duration_ns=duration_ns, found=report.check or "", faults=plan.faults)


def _verdict(report: Report) -> str:
    if report.failure is None:
        return "ok"
    return f"FAILED at {report.at / NS:.6f}s ({report.failure}): {report.check}: {report.evidence}"


def _print_plan(plan: Plan) -> None:
    """Print what the seed has drawn: a run should never have to be guessed at."""
    options = attrs.asdict(plan.options)
    click.echo(f"seed {plan.seed}: {options['nodes']} nodes, {len(plan.faults)} faults")
    for section in ("network", "disk", "workload"):
        shown = ", ".join(f"{name} {_show(name, value)}" for name, value in options.pop(section).items())
        click.echo(f"  {section:<9} {shown}")
    rest = ", ".join(f"{name} {_show(name, value)}" for name, value in options.items() if name != "nodes")
    click.echo(f"  {'cluster':<9} {rest}")


def _show(name: str, value: object) -> str:
    if isinstance(value, int) and (name.endswith("_ns") or name == "heal_at"):
        return show_duration(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _print_report(report: Report) -> None:
    click.echo(
        f"{report.simulated_ns / NS:.1f}s simulated, {report.events:,} events, {report.operations:,} operations "
        f"({report.unknown} unknown)"
    )
    click.echo("  " + ", ".join(f"{event} {count}" for event, count in report.happened.items() if count))
    click.echo(f"trace {report.digest}")
    click.echo(_verdict(report))


def _compare(report: Report, nodes: int | None, duration_ns: int) -> None:
    """Run the same in two fresh processes, with other hash seeds and other addresses; exit if anything differs."""
    arguments = ["run", "--seed", str(report.seed), "--time", show_duration(duration_ns)]
    if nodes is not None:
        arguments += ["--nodes", str(nodes)]
    for hash_seed in ("1", "2718"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SCRAMBLED, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if f"trace {report.digest}" not in done.stdout.splitlines():
            click.echo(f"NOT DETERMINISTIC: with PYTHONHASHSEED={hash_seed}\n{done.stdout}{done.stderr}")
            sys.exit(NONDETERMINISM)
    click.echo("three runs in three processes: the same trace")


@main.command(epilog=EPILOG)
@click.option("--seeds", type=Seeds(), required=True, help="Which runs: N of them from 0 on, or A..B.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default="all cores")
@nodes_option
@time_option
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the schedule of each failing run to this directory.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")
def campaign(
    *, seeds: range, jobs: int, nodes: int | None, duration_ns: int, keep: Path | None, fail_fast: bool
) -> None:
    """Run many seeds, and add them up."""
    tally = Tally()
    for report in _shown(run_seeds(seeds, jobs=jobs, nodes=nodes, duration_ns=duration_ns), len(seeds), tally):
        if report.failure is not None:
            _print_failure(report, nodes, duration_ns, keep)
            if fail_fast:
                break
    click.echo(tally.summary())
    if tally.failures:
        sys.exit(reduce(graver, (CODES[report.failure] for report in tally.failures)))
    missed = tally.missed()
    if missed:
        click.echo(f"never happened, although it should have: {', '.join(missed)}")
        sys.exit(MISSED)
    click.echo("ok")


def _shown(reports: Iterator[Report], total: int, tally: Tally) -> Iterator[Report]:
    """Yield *reports* and show how far they are: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(reports, length=total, label="runs", show_pos=True, file=sys.stderr) as shown:
            for report in shown:
                tally.add(report)
                yield report
        return
    for report in reports:
        tally.add(report)
        if tally.runs % 100 == 0:
            click.echo(f"{tally.runs}/{total} runs, {len(tally.failures)} failed", err=True)
        yield report


def _print_failure(report: Report, nodes: int | None, duration_ns: int, keep: Path | None) -> None:
    size = "" if nodes is None else f" -n {nodes}"
    click.echo(
        f"seed {report.seed} {_verdict(report)}\n"
        f"  again: python -m huton.sim run --seed {report.seed}{size} --time {show_duration(duration_ns)}"
    )
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        path = keep / f"{report.seed}-{report.check}.jsonl"
        plan = draw_plan(report.seed, nodes=nodes, duration_ns=duration_ns)
        path.write_text(write_schedule(_schedule(report, plan, nodes, duration_ns)))
        click.echo(f"  its schedule: {path}")


if __name__ == "__main__":
    main(prog_name="python -m huton.sim")
