"""Durability seen from outside: what three agents ask of the system before they acknowledge a write.

kill -9 proves little about disks, because what a process has written stays in the page cache. So strace watches the
system calls of all three, and ``tests/cluster/syscalls.py`` judges them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from huton.demo.children import Child, make_children, no_child_left, wait_for
from tests.cluster.syscalls import TRACED, judge, read_calls
from tests.cluster.test_kill_nine import connect

WRITES: Final = 150
PATIENCE: Final = 30.0
SLOW: Final = "inject=fdatasync:delay_enter=20000:when=1+2"
"""For strace: every other sync of a thread begins 20 ms late. So it is now the leader's disk that lags, and now that of
a follower, and nobody is right by luck."""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_majority_has_synced_a_write_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Issue "Safe by default": 'under strace, a completed fdatasync of the log on a majority precedes each
    acknowledgement', whichever node is asked.
    """
    children = make_children(["a", "b", "c"], tmp_path / "cluster")
    (tmp_path / "cluster").mkdir()
    trace = tmp_path / "trace.txt"
    markers = [f"marker-{number:04}-" for number in range(WRITES)]
    with no_child_left(children):
        for child in children:
            child.start()
        for child in children:
            child.wait_ready(PATIENCE)
        logs = {child.name: log_of(child) for child in children}
        synchronous = {descriptor for child in children for descriptor in synchronous_descriptors(child)}
        with traced(children, trace):
            write_to_all(children, markers)

    with trace.open() as lines:
        calls = read_calls(lines)
    assert judge(calls, logs, synchronous, markers) == []


def write_to_all(children: Sequence[Child], markers: Sequence[str]) -> None:
    """Write values that hold the *markers*, one after the other on each node, on all nodes at the same time."""

    def write_some(number: int) -> None:
        with connect(children[number]) as server:
            for marker in markers[number :: len(children)]:
                assert server.set(f"key/{number}", marker)

    with ThreadPoolExecutor() as threads:
        list(threads.map(write_some, range(len(children))))


def log_of(child: Child) -> str:
    return str((child.directory / child.name / "log" / "data.mdb").resolve())


def synchronous_descriptors(child: Child) -> Iterator[str]:
    """Find the descriptors of the log that were opened with O_DSYNC, as strace shows them."""
    for link in Path(f"/proc/{child.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a connection that was closed meanwhile
            if str(link.readlink()) == log_of(child):
                information = Path(f"/proc/{child.pid}/fdinfo/{link.name}").read_text()
                if int(information.split("flags:")[1].split()[0], 8) & os.O_DSYNC:
                    yield f"{link.name}<{log_of(child)}>"


@contextmanager
def traced(children: Sequence[Child], output: Path) -> Iterator[None]:
    """Have one strace watch all *children* during the block; skip the test where that is not allowed."""
    command = ["strace", "-f", "-y", "-s", "1000000", "-e", "trace=" + ",".join(TRACED), "-o", str(output), "-e", SLOW]
    for child in children:
        command += ["-p", str(child.pid)]
    said = output.with_suffix(".stderr")
    with said.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)

    def attached() -> bool:
        return process.poll() is not None or said.read_text().count(" attached") >= len(children)

    try:
        assert wait_for(attached, PATIENCE), said.read_text()
        if process.poll() is not None:
            if "Operation not permitted" in said.read_text():
                pytest.skip(f"strace may not trace here: {said.read_text().strip()}")
            raise AssertionError(said.read_text())
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
