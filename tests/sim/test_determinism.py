"""The same seed is the same run: in any process, under any hash seed, wherever its objects lie."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import huton
from huton.sim.options import draw_plan
from huton.sim.schedule import NS
from huton.sim.world import simulate

PACKAGE = Path(huton.__file__).parent

PLANTED = {
    # What is planted, where, and what it replaces: each depends on something that no seed decides,
    # and so strongly that two processes never agree by chance.
    "a set's order": (
        "sim/workload.py",
        "choice(list(world.members)",
        "choice(list(set(world.members))",
    ),
    "an address": (
        "sim/workload.py",
        'pause = world.draws.between(0, world.options.workload.think_ns, "think", self._name, self._count)',
        "pause = id(self) % 1_000_003",
    ),
    "a string's hash": (
        "sim/workload.py",
        'pause = world.draws.between(0, world.options.workload.think_ns, "think", self._name, self._count)',
        "pause = hash(self._name) % 1_000_000",
    ),
}


def twice(directory: Path, seed: int) -> subprocess.CompletedProcess[str]:
    """Run ``--twice`` with the package that lies in *directory*."""
    # Not measured: what it covers is a copy, and it would take twice as long.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(directory)
    command = [sys.executable, "-m", "huton.sim", "run", "--seed", str(seed), "--time", "5s", "--twice"]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def test_a_seed_gives_one_run_in_every_process() -> None:
    """Three processes with other hash seeds and other addresses print the same trace, and so does this one."""
    done = twice(PACKAGE.parent, seed=11)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "three runs in three processes: the same trace" in done.stdout
    trace = re.search(r"^trace ([0-9a-f]{32})$", done.stdout, re.MULTILINE)
    assert trace is not None
    assert simulate(draw_plan(11, duration_ns=5 * NS)).digest == trace[1]


def test_seeds_give_different_runs() -> None:
    """A digest that is always the same would prove nothing."""
    digests = {simulate(draw_plan(seed, duration_ns=2 * NS)).digest for seed in range(10)}

    assert len(digests) == 10


@pytest.mark.parametrize("planted", PLANTED)
def test_what_no_seed_decides_is_noticed(planted: str, tmp_path: Path) -> None:
    """Running a seed again in the same process would miss all of these."""
    file, good, bad = PLANTED[planted]
    shutil.copytree(PACKAGE, tmp_path / "huton", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "huton" / file
    source = path.read_text()
    assert source.count(good) == 1
    path.write_text(source.replace(good, bad))

    done = twice(tmp_path, seed=11)

    assert done.returncode == 4, done.stdout + done.stderr
    assert "NOT DETERMINISTIC" in done.stdout
