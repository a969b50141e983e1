"""The simulator's own exam: huton with one wrong line must be caught, by the check that is there for it.

Each file of ``tests/mutants`` is a patch that puts in a mistake that real systems have made. A patch that no
longer applies fails its test: the line that it breaks has moved, and so must the patch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import huton
from huton.sim.options import draw_plan
from huton.sim.schedule import NS
from huton.sim.world import simulate

MUTANTS = Path(__file__).parents[1] / "mutants"
PACKAGE = Path(huton.__file__).parent

TRIES = 60
"""How many seeds there are to catch one. Mostly the first does; after a change of the core it may be a later one."""

EXIT_CODES = {"safety": 1, "liveness": 3}


@attrs.frozen
class Exam:
    """The first seed that is tried, and the checks of which one must fire."""

    seed: int
    checks: tuple[str, ...]


EXAMS = {
    "K1-snapshot-without-sessions": Exam(5, ("state-machine-safety", "exactly-once", "equal-states")),
    "K1b-checkpoint-without-sessions": Exam(4, ("state-machine-safety", "exactly-once", "equal-states")),
    "K2-expiry-by-the-own-clock": Exam(3, ("equal-states", "state-machine-safety")),
    "K3-doubled-forward-taken-twice": Exam(4, ("exactly-once",)),
    "K3b-retry-with-a-new-number": Exam(3, ("exactly-once",)),
    "K3c-only-the-last-command-is-remembered": Exam(3, ("exactly-once",)),
    "K3d-lost-try-goes-to-a-new-session": Exam(6, ("exactly-once",)),
    "K3e-checkpoint-without-answers": Exam(4, ("equal-states",)),
    "K3f-expired-session-revived": Exam(6, ("exactly-once",)),
    "K5-cas-compares-the-create-revision": Exam(3, ("witness",)),
    "K6-cas-on-an-absent-key-always-writes": Exam(3, ("witness",)),
    "K8-read-served-before-its-index-is-applied": Exam(3, ("witness", "linearizability")),
    "K9-lost-try-counts-as-not-written": Exam(3, ("witness",)),
    "M01-vote-before-durable": Exam(2, ("term-durable", "vote-durable")),
    "M02-campaign-before-durable": Exam(2, ("term-durable", "vote-durable")),
    "M03-vote-cleared-on-step-down": Exam(3, ("vote-once",)),
    "M07-votes-of-a-former-campaign": Exam(37, ("elected",)),
    "M12-commits-an-old-term-by-counting": Exam(3, ("commits-own-term",)),
    "M13-quorum-of-even-sizes": Exam(14, ("commit-durable",)),
    "M14-read-quorum-too-small": Exam(265, ("witness", "linearizability")),
    "M16-commit-up-to-last-index": Exam(100, ("commit-durable", "state-machine-safety")),
    "M21-no-snapshot-for-who-lags": Exam(5, ("serves-after-healing", "converges-after-healing")),
    "M25-late-sync-covers-replaced-entries": Exam(55, ("ack-durable",)),
    "M34-read-before-own-commit": Exam(9, ("witness", "linearizability")),
    "M35-old-answers-confirm-reads": Exam(36, ("witness", "linearizability")),
    "M35b-round-of-a-former-term": Exam(3, ("round-echo",)),
    "R3-acknowledge-before-durable": Exam(2, ("ack-durable",)),
    "R12-acknowledges-beyond-the-match": Exam(12, ("ack-matches",)),
    "R8-snapshot-acknowledged-before-durable": Exam(11, ("ack-durable",)),
    "R8b-broken-transfer-counts-as-taken": Exam(119, ("match-durable",)),
    "R11-compacted-beyond-the-checkpoint": Exam(1, ("core-assertion",)),
    "R11b-base-of-the-current-term": Exam(17, ("unhandled-error", "log-matching")),
    "S4-applied-index-ahead-of-the-state": Exam(139, ("state-machine-safety", "equal-states")),
    "S7-overlay-kept-over-a-snapshot": Exam(11, ("state-machine-safety", "equal-states", "snapshot-equals-replay")),
    "S8-checkpoint-says-more-than-it-holds": Exam(3, ("unhandled-error", "state-machine-safety")),
    "S10-overlay-dropped-too-early": Exam(3, ("state-machine-safety", "witness")),
    "S11-checkpoint-forgets-deletions": Exam(3, ("state-machine-safety", "snapshot-equals-replay", "witness")),
    "S12-replay-skips-an-entry": Exam(13, ("state-machine-safety", "snapshot-equals-replay", "equal-states")),
}


def test_every_mutant_sits_its_exam() -> None:
    """A patch that nothing runs proves nothing."""
    assert sorted(EXAMS) == sorted(path.stem for path in MUTANTS.glob("*.patch"))


@pytest.mark.parametrize("mutant", EXAMS)
def test_a_mutant_is_caught(mutant: str, tmp_path: Path) -> None:
    """The campaign fails, the right check says why, and the seed fails again when it is run alone."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git applies the patches")
    exam = EXAMS[mutant]
    shutil.copytree(PACKAGE, tmp_path / "huton", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([git, "apply", str(MUTANTS / f"{mutant}.patch")], cwd=tmp_path, check=True)

    caught = simulator(tmp_path, "campaign", "--seeds", f"{exam.seed}..{exam.seed + TRIES - 1}", "--fail-fast")

    failure = re.search(r"^seed (\d+) FAILED at \S+ \((safety|liveness)\): ([a-z-]+):", caught.stdout, re.MULTILINE)
    assert failure is not None, caught.stdout + caught.stderr
    assert failure[3] in exam.checks
    assert caught.returncode == EXIT_CODES[failure[2]]
    again = simulator(tmp_path, "run", "--seed", failure[1])
    assert again.returncode == caught.returncode
    assert failure[0].split(" ", 2)[2] in again.stdout


def simulator(directory: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the simulator of the package that lies in *directory*, in this one process."""
    jobs = ("--jobs", "1") if command == "campaign" else ()
    line = [sys.executable, "-m", "huton.sim", command, *arguments, *jobs, "--time", "20s"]
    # Not measured: what it covers is a copy, and it would take twice as long.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(directory)
    return subprocess.run(line, cwd=directory, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("seed", sorted({exam.seed for exam in EXAMS.values()}))
def test_without_the_mutant_the_same_seed_is_fine(seed: int) -> None:
    """So it is the mutant that was caught."""
    report = simulate(draw_plan(seed, duration_ns=20 * NS))

    assert report.failure is None, report.evidence
    assert report.operations > 0
