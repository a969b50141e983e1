"""The same events give the same effects: no clock, no chance, no hash order."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import huton.raft
from huton.raft.events import Timeout
from tests.harness import BOOTED, ELECTION, NOW, make_raft
from tests.raft.random_runs import digest

ROOM = Path(huton.raft.__file__).parent
HOUSE = Path(__file__).parents[2]
ALLOWED = {"__future__", "attrs", "bisect", "collections", "enum", "huton", "typing"}
"""What the core may import. Nothing among it knows the time, draws lots or talks to the world."""


@pytest.mark.parametrize("module", sorted(ROOM.glob("*.py")), ids=lambda path: path.stem)
def test_the_core_imports_nothing_that_knows_time_or_chance(module: Path) -> None:
    """The first line of core.py: 'Pure and deterministic: no clock, no chance, no I/O.'"""
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            assert name.split(".")[0] in ALLOWED
            assert not name.startswith("huton") or name == "huton.errors" or name.startswith("huton.raft")


def test_the_same_events_give_the_same_effects() -> None:
    """A seed reproduces a run."""
    assert digest(11) == digest(11)
    assert digest(11) != digest(12)


def test_the_order_of_hashes_does_not_matter() -> None:
    """Sets of strings iterate in another order under another PYTHONHASHSEED; no effect may follow them."""
    digests = {
        subprocess.run(
            [sys.executable, "-m", "tests.raft.random_runs", "11"],
            cwd=HOUSE,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(HOUSE), *sys.path])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {digest(11)}


def test_election_timeouts_come_from_the_injected_chance() -> None:
    """Raft: 'timeouts: ... the only source of chance'; it is asked once per wait, and obeyed to the nanosecond."""
    asked: list[int] = []

    def timeouts() -> int:
        asked.append(ELECTION + 1000 * len(asked))
        return asked[-1]

    raft = make_raft(timeouts=timeouts)
    raft.step(BOOTED, Timeout())
    assert (len(asked), raft.deadline()) == (1, BOOTED + ELECTION)
    raft.step(NOW, Timeout())

    assert (len(asked), raft.deadline()) == (2, NOW + ELECTION + 1000)
