"""The demo shows what it says it shows, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from huton.demo.children import wait_for

PATIENCE: Final = 90.0


def start_demo(directory: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo with its temporary files below *directory*."""
    return subprocess.Popen(
        [sys.executable, "-m", "huton", "demo", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory), "PYTHONIOENCODING": "utf-8"},
    )


def agents(directory: Path) -> list[str]:
    """Return the command lines of the agents whose data is below *directory*."""
    table = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in table.splitlines() if str(directory) in line and " agent " in line]


def test_the_tour_is_given_and_checked_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """Issue "The first cluster", 2: 'writes, reads, kills the leader with SIGKILL, shows the failover and that
    nothing is lost, prints how to reach it with redis-cli and curl; `--once` ends after the tour.'
    """
    with start_demo(tmp_path, "--once") as demo:
        text, _ = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0, text
    assert re.search(r"✓ three processes are one cluster after \d+\.\d s; (alpha|beta|gamma) leads", text)
    assert re.search(r"✓ (\w+) leads now; the longest pause between two writes was \d+\.\d\d s", text)
    assert re.search(r"✓ [\d,]+ writes were acknowledged, and \w+ and \w+ have all of them", text)
    assert re.search(r"✓ \w+ is back after \d+\.\d s and has all [\d,]+ writes", text)
    assert len(re.findall(r"^ +redis-cli -p \d+ ", text, re.MULTILINE)) == 3
    assert len(re.findall(r"^ +curl http://", text, re.MULTILINE)) >= 3
    assert "\x1b" not in text, "no colour where there is no terminal"
    assert agents(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_agent_outlives_the_demo_however_it_ends(number: signal.Signals, tmp_path: Path) -> None:
    """Whoever closes a window or kills the demo finds no process of it later."""
    with start_demo(tmp_path) as demo:
        try:
            assert wait_for(lambda: len(agents(tmp_path)) == 3, PATIENCE)
        finally:
            demo.send_signal(number)
            demo.communicate(timeout=PATIENCE)

        assert wait_for(lambda: agents(tmp_path) == [], PATIENCE)
    if number is signal.SIGTERM:
        assert demo.returncode == 130
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_demo_stays_up_until_control_c(tmp_path: Path) -> None:
    """After the tour the three nodes serve whoever wants to try them; Ctrl-C is the normal end, exit code 0."""
    with start_demo(tmp_path) as demo:
        assert demo.stdout is not None
        try:
            tour = []
            for line in demo.stdout:
                tour.append(line)
                if "Ctrl-C" in line:
                    break
            commands = re.findall(r"^ +(curl http://.*)$", "".join(tour), re.MULTILINE)
            answers = [subprocess.run(command.split(), capture_output=True, check=True).stdout for command in commands]
        finally:
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=PATIENCE)

    assert answers[:3] == [b"hello"] * 3
    assert demo.returncode == 0
    assert agents(tmp_path) == []
