"""Agents as child processes: started, killed, started again, and never left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from huton.client import Client
from huton.config import Address
from huton.errors import HutonError

__all__ = ["Child", "ChildFailed", "free_addresses", "make_children", "no_child_left", "wait_for"]

PORTS: Final = range(20_000, 32_000, 10)
"""Below the range that systems give to outgoing connections: there, an agent that dials a port nobody
listens on may get that very port for its own end, and then keep the listener out."""

STOP_GRACE: Final = 10.0
"""Seconds a child has to stop after SIGTERM, before SIGKILL."""


class ChildFailed(HutonError):
    """A child ended, or didn't do in time what was expected; the message holds the end of its log."""


def free_addresses(count: int) -> list[Address]:
    """Return *count* loopback addresses with neighbouring ports that nobody listens on right now."""
    for first in random.sample(PORTS, k=len(PORTS)):
        ports = range(first, first + count)
        if all(_is_free(port) for port in ports):
            return [Address("127.0.0.1", port) for port in ports]
    raise ChildFailed(f"no {count} neighbouring free ports between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the agents do it: what is left of a connection that has ended doesn't keep a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@attrs.define
class Child:
    """One agent of a cluster on this machine.

    Attributes:
        name: the member's name.
        peer, resp, http: where it listens; the same after each start.
        seeds: where it looks for its peers.
        expect: how many members the cluster is born with.
        directory: holds its data (``NAME/``) and its log (``NAME.log``).
    """

    name: str
    peer: Address
    resp: Address
    http: Address
    seeds: tuple[Address, ...]
    expect: int
    directory: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> Client:
        return Client(self.http)

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """The process id of its last start."""
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the last run ended: None while it runs, -9 after SIGKILL."""
        return None if self._process is None else self._process.poll()

    def arguments(self) -> list[str]:
        """Return the arguments of ``huton`` that start this agent."""
        # fmt: off
        return [
            "agent",
            "--name", self.name,
            "--bind", str(self.peer),
            "--peers", ",".join(map(str, self.seeds)),
            "--expect", str(self.expect),
            "--data-dir", str(self.directory / self.name),
            "--resp", str(self.resp),
            "--http", str(self.http),
        ]
        # fmt: on

    def start(self) -> None:
        """Start it; returns at once."""
        assert not self.running, f"{self.name} runs already"
        if self._process is not None:
            self.wait()  # closes what is left of the last run
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HUTON_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "huton.demo", *self.arguments()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                # Ctrl-C in the terminal is for the parent, which stops its children one by one.
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and don't wait for what comes of it."""
        assert self._process is not None, "never started"
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a warning: SIGKILL."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Stop it cleanly and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, at most ``STOP_GRACE`` seconds before SIGKILL, and return its exit code."""
        assert self._process is not None, "never started"
        try:
            self._process.wait(STOP_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return self._process.returncode

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until it answers a linearizable read: it is born, knows a leader and has caught up.

        Raises:
            ChildFailed: it ended, or *timeout* seconds were not enough.
        """

        def answers() -> bool:
            if not self.running:
                raise ChildFailed(
                    f"{self.name} ended with exit code {self.exit_code}; its log ends:\n{self.log_tail()}"
                )
            try:
                self.client.get("0", b"ready?")
            except HutonError:
                return False
            return True

        if not wait_for(answers, timeout):
            raise ChildFailed(f"{self.name} was not ready after {timeout:g} s; its log ends:\n{self.log_tail()}")

    def log_tail(self, lines: int = 12) -> str:
        """Return the last *lines* of its log, indented."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def make_children(names: Sequence[str], directory: Path) -> list[Child]:
    """Return the agents of one cluster with free ports and data under *directory*; none is started."""
    addresses = free_addresses(3 * len(names))
    peers = tuple(addresses[: len(names)])
    return [
        Child(
            name,
            peers[n],
            addresses[len(names) + 2 * n],
            addresses[len(names) + 2 * n + 1],
            peers,
            len(names),
            directory,
        )
        for n, name in enumerate(names)
    ]


@contextmanager
def no_child_left(children: Sequence[Child]) -> Iterator[None]:
    """Within the block, *children* may run; at its end, however it is left, none does."""
    try:
        yield
    finally:
        running = [child for child in children if child.running]
        for child in running:
            child.signal(signal.SIGTERM)
        for child in running:
            child.wait()


def wait_for(condition: Callable[[], bool], timeout: float, *, pause: float = 0.02) -> bool:
    """Ask *condition* every *pause* seconds until it is true; return False after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
