"""The simulator's command line: what it prints, what it writes, and what its exit code says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import huton
from huton.sim.__main__ import graver, main
from huton.sim.options import draw_plan, plan_of
from huton.sim.schedule import NS, read_schedule
from huton.sim.world import simulate

PACKAGE = Path(huton.__file__).parent
PATCH = Path(__file__).parents[1] / "mutants" / "R3-acknowledge-before-durable.patch"

SMALL = ("-n", "3", "--time", "3s")

HEAD = '{"v": 1, "seed": 5, "nodes": 3, "time": "3s"}\n'


def call(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def call_copy(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line of the package that lies in *directory*, as a shell would."""
    command = [sys.executable, "-m", "huton.sim", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(directory)}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


Break = Callable[[str, str, str], Path]


@pytest.fixture
def broken(tmp_path: Path) -> Break:
    """Return what copies the package and replaces one text in one of its files."""

    def replace(file: str, good: str, bad: str) -> Path:
        shutil.copytree(PACKAGE, tmp_path / "copy" / "huton", ignore=shutil.ignore_patterns("__pycache__"))
        path = tmp_path / "copy" / "huton" / file
        source = path.read_text()
        assert source.count(good) == 1, "the line that is to be broken has moved"
        path.write_text(source.replace(good, bad))
        return tmp_path / "copy"

    return replace


@pytest.fixture(scope="module")
def unsafe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a package lies that acknowledges entries before they are durable."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git applies the patch")
    directory = tmp_path_factory.mktemp("unsafe")
    shutil.copytree(PACKAGE, directory / "huton", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([git, "apply", str(PATCH)], cwd=directory, check=True)
    return directory


# ------------------------------------------------------------------ run


def test_a_run_tells_what_it_was_and_what_came_of_it() -> None:
    """What the seed has drawn, what happened, the digest, and a verdict at the end."""
    result = call("run", "--seed", "5", *SMALL)
    report = simulate(draw_plan(5, nodes=3, duration_ns=3 * NS))
    lines = result.output.splitlines()

    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"seed 5: 3 nodes, \d+ faults", lines[0])
    assert [line.split()[0] for line in lines[1:5]] == ["network", "disk", "workload", "cluster"]
    assert "duration_ns 3s" in lines[4]
    assert f"{report.events:,} events, {report.operations:,} operations ({report.unknown} unknown)" in result.output
    assert f"became_leader {report.happened['became_leader']}" in result.output
    assert lines[-2:] == [f"trace {report.digest}", "ok"]


def test_the_module_can_be_run() -> None:
    """``python -m huton.sim``: the same run in a process of its own, and its exit code."""
    done = call_copy(PACKAGE.parent, "run", "--seed", "5", *SMALL)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == call("run", "--seed", "5", *SMALL).output


def test_a_saved_run_can_be_replayed(tmp_path: Path) -> None:
    """The schedule is all that it takes: step by step the same, and the same verdict."""
    schedule, first, second = (tmp_path / name for name in ("5.jsonl", "first.txt", "second.txt"))

    assert call("run", "--seed", "5", *SMALL, "--save", schedule, "--trace", first).exit_code == 0
    result = call("replay", schedule, "--trace", second)

    assert result.exit_code == 0
    assert result.output.splitlines() == ["5.jsonl: ok", "1 replayed"]
    assert first.read_text() == second.read_text()
    assert plan_of(read_schedule(schedule.read_text())) == draw_plan(5, nodes=3, duration_ns=3 * NS)


def test_a_trace_can_be_read(tmp_path: Path) -> None:
    """One line for each thing that happened, in the order of time: elections, faults and the end of them."""
    schedule, trace = tmp_path / "hand.jsonl", tmp_path / "run.txt"
    schedule.write_text(HEAD + '{"id": "f1", "do": "crash", "at": "1s", "node": "n2", "for": "100ms"}\n')

    assert call("replay", schedule, "--trace", trace).exit_code == 0

    lines = trace.read_text().splitlines()
    times = [re.match(r"(\d+\.\d{6})s \S", line) for line in lines]
    assert len(lines) > 100
    assert all(times)
    assert [float(time[1]) for time in times if time] == sorted(float(time[1]) for time in times if time)
    assert "1.000000s fault f1: crash n2 for 100ms" in lines
    assert "1.000000s n2 crashed" in lines
    assert "1.100000s n2 restarted" in lines
    assert any("all faults end" in line for line in lines)
    assert any("now leader" in line for line in lines)
    down = [line for line in lines if 1.0001 < float(line.split("s")[0]) < 1.0999]
    assert down
    assert all(line.split()[1] != "n2" for line in down)


# ------------------------------------------------------------------ replay


def test_a_directory_is_replayed_in_order(tmp_path: Path) -> None:
    """Its *.jsonl files, by name; other files are none of its business."""
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text(HEAD)
    (tmp_path / "notes.txt").write_text("no schedule")

    result = call("replay", tmp_path)

    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == ["a.jsonl: ok", "b.jsonl: ok", "2 replayed"]


# ------------------------------------------------------------------ campaign


def test_several_runs_share_a_trace_under_their_names(tmp_path: Path) -> None:
    """And a directory without a single schedule is a mistake, not a success."""
    trace = tmp_path / "runs.txt"
    empty = call("replay", tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(HEAD)

    assert call("replay", tmp_path, "--trace", trace).exit_code == 0

    assert [line for line in trace.read_text().splitlines() if line.endswith(".jsonl")] == ["a.jsonl", "b.jsonl"]
    assert empty.exit_code == 2
    assert f"no *.jsonl in {tmp_path}" in empty.output


@pytest.mark.parametrize("option", ["--trace", "--save"])
def test_2_a_file_that_can_not_be_written_is_named(option: str, tmp_path: Path) -> None:
    """Before the run, and not as a violation of safety."""
    result = call("run", "--seed", "1", option, tmp_path / "missing" / "file")

    assert result.exit_code == 2
    assert "missing/file" in result.output


def test_the_gravest_failure_decides_the_code() -> None:
    """Safety before liveness before a search without an end; and all of them before none."""
    assert [graver(one, other) for one, other in [(0, 0), (0, 6), (3, 0), (6, 3), (3, 1)]] == [0, 6, 3, 3, 1]


def test_a_campaign_adds_up() -> None:
    """One line of numbers, and ok."""
    result = call("campaign", "--seeds", "5..8", "--jobs", "1", *SMALL)

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "ok"
    assert re.match(r"4 runs  0\.0 simulated hours  [\d,]+ events  [\d,]+ operations .* 0 failed", result.stdout)


@pytest.mark.parametrize(("seeds", "runs"), [("3", 3), ("7..7", 1), ("0..2", 3)])
def test_seeds_are_a_number_or_a_range(seeds: str, runs: int) -> None:
    """N of them from 0 on, or A to B, both included."""
    result = call("campaign", "--seeds", seeds, "--jobs", "1", "-n", "1", "--time", "100ms")

    assert result.stdout.startswith(f"{runs} runs ")


# ------------------------------------------------------------------ exit codes


def test_1_safety_is_violated(unsafe: Path) -> None:
    """The check and what it saw, and when."""
    done = call_copy(unsafe, "run", "--seed", "2", *SMALL)

    assert done.returncode == 1, done.stdout + done.stderr
    verdict = r"FAILED at \d\.\d{6}s \(safety\): ack-durable: n\d acknowledges \d+, which is not on its disk \(R3\)"
    assert re.fullmatch(verdict, done.stdout.splitlines()[-1])


def test_a_campaign_keeps_what_failed(unsafe: Path, tmp_path: Path) -> None:
    """As a schedule that fails again when it is replayed, and no more once the code is right."""
    keep = tmp_path / "keep"
    done = call_copy(unsafe, "campaign", "--seeds", "2..4", "--jobs", "1", *SMALL, "--keep", keep)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "python -m huton.sim run --seed 2 -n 3 --time 3s" in done.stdout
    path = keep / "2-ack-durable.jsonl"
    assert f"its schedule: {path}" in done.stdout
    assert read_schedule(path.read_text()).found == "ack-durable"

    again = call_copy(unsafe, "replay", path)
    assert again.returncode == 1
    verdict = next(line for line in done.stdout.splitlines() if line.startswith("seed 2 ")).removeprefix("seed 2 ")
    assert again.stdout.splitlines()[0] == f"2-ack-durable.jsonl: {verdict}"

    assert call("replay", keep).exit_code == 0


def test_fail_fast_stops_at_the_first(unsafe: Path) -> None:
    """Without it all seeds are run, and all failures told."""
    fast = call_copy(unsafe, "campaign", "--seeds", "2..5", "--jobs", "1", *SMALL, "--fail-fast")
    whole = call_copy(unsafe, "campaign", "--seeds", "2..5", "--jobs", "1", *SMALL)

    assert (fast.returncode, whole.returncode) == (1, 1)
    assert fast.stdout.count("FAILED") == 1
    assert fast.stdout.splitlines()[-1].startswith("1 runs ")
    assert whole.stdout.count("FAILED") > 1
    assert whole.stdout.splitlines()[-1].startswith("4 runs ")


def test_3_no_progress_after_the_faults_healed(broken: Break) -> None:
    """A cluster in which nobody is ever granted a pre-vote breaks no rule, and serves nobody."""
    copy = broken("raft/election.py", "        message.term > state.current_term\n", "        message.term == -1\n")
    done = call_copy(copy, "run", "--seed", "5", *SMALL)

    assert done.returncode == 3, done.stdout + done.stderr
    assert "(liveness): serves-after-healing: " in done.stdout.splitlines()[-1]
    assert "term 0" in done.stdout.splitlines()[-1]


def test_5_something_never_happened() -> None:
    """Two hundred runs of one member alone are enough to miss the others' answers."""
    result = call("campaign", "--seeds", "200", "--jobs", "1", "-n", "1", "--time", "100ms")

    assert result.exit_code == 5, result.output
    missed = result.stdout.splitlines()[-1]
    assert missed.startswith("never happened, although it should have: ")
    assert "append_acked" in missed
    assert "became_leader" not in missed


def test_6_the_checker_ran_out_of_its_budget(broken: Break) -> None:
    """Neither right nor wrong: nobody knows, and that is said."""
    copy = broken("sim/linearizability.py", "STEPS_MAX: Final = 4_000_000", "STEPS_MAX: Final = 0")
    done = call_copy(copy, "run", "--seed", "5", *SMALL)

    assert done.returncode == 6, done.stdout + done.stderr
    assert "(inconclusive): linearizability-unknown: " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("campaign", "--seeds", "9..5"), "'9..5' is neither a number nor a range A..B"),
        (("campaign", "--seeds", "many"), "'many' is neither a number nor a range A..B"),
        (("campaign", "--seeds", "-3"), "'-3' is neither a number nor a range A..B"),
        (("campaign",), "Missing option '--seeds'"),
        (("campaign", "--seeds", "3", "--jobs", "0"), "0 is not in the range"),
        (("run", "--seed", "5", "--time", "3 hours"), "'3 hours' is no duration"),
        (("run", "--seed", "-1"), "-1 is not in the range"),
        (("run", "--seed", "5", "-n", "10"), "10 is not in the range"),
        (("run",), "Missing option '--seed'"),
        (("replay", "nowhere.jsonl"), "'nowhere.jsonl' does not exist"),
        (("replay",), "Missing argument"),
        (("simulate",), "No such command 'simulate'"),
    ],
)
def test_2_usage_errors_say_what_was_wrong(arguments: tuple[str, ...], complaint: str) -> None:
    """And nothing is run."""
    result = call(*arguments)

    assert result.exit_code == 2
    assert complaint in result.output
    assert "trace " not in result.output


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"id": "f1", "do": "crash", "at": "1s", "node": "n4"}', "fault 'f1': 'n4' is none of the 3 members"),
        ('{"id": "f1", "do": "explode", "at": "1s"}', "line 2: unknown fault 'explode'"),
        (
            '{"id": "f1", "do": "crash", "when": {"event": "committed", "node": "n4"}, "node": "n1"}',
            "fault 'f1': 'n4' is none of the 3 members",
        ),
        (
            '{"id": "f1", "do": "crash", "when": {"event": "committed", "nth": 0}, "node": "n1"}',
            "line 2: the 0th time never comes",
        ),
        ('{"id": "f1", "do": "crash", "at": "1s", "node": "n1", "amount": 2}', "line 2: no share: 2"),
        ("{", "line 2: "),
    ],
)
def test_2_a_bad_schedule_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    """The file, the line, and what is wrong there."""
    (tmp_path / "a.jsonl").write_text(HEAD)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(HEAD + line + "\n")

    result = call("replay", tmp_path)

    assert result.exit_code == 2
    assert f"{bad}: {complaint}" in result.output


def test_2_a_cluster_of_nobody_is_none(tmp_path: Path) -> None:
    """A schedule's first line says to which run it belongs, and is checked as the others are."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(HEAD.replace('"nodes": 3', '"nodes": 0'))

    result = call("replay", bad)

    assert result.exit_code == 2
    assert f"{bad}: line 1: 0 nodes are no cluster" in result.output


@pytest.mark.parametrize("command", [(), ("run",), ("replay",), ("campaign",)])
def test_help_teaches(command: tuple[str, ...]) -> None:
    """What it does, every option, and what each exit code means."""
    result = call(*command, "--help")
    text = " ".join(result.output.split())

    assert result.exit_code == 0
    codes = re.search(r"Exit codes: (.*)", text)
    assert codes is not None
    assert re.findall(r"(\d) [a-z]", codes[1]) == ["0", "1", "2", "3", "4", "5", "6"]
    params = [param for name in command for param in main.commands[name].params]
    assert all(param.opts[0] in text for param in params if param.param_type_name == "option")
