"""Three real agents, real disks, real redis clients, and kill -9."""

from __future__ import annotations

import itertools
import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from huton.demo.children import Child, make_children, no_child_left, wait_for
from huton.demo.tour import find_leader
from huton.sim.history import Operation
from huton.sim.linearizability import Kind, check

KILLS: Final = 10
CLIENTS: Final = 6
KEYS_OF_A_ROUND: Final = 3
PATIENCE: Final = 30.0
SEED: Final = 2


class Client(threading.Thread):
    """Sets and gets over redis-py, at first on its own node, and records all it asked and was told.

    Attributes:
        operations: its history: reads that were answered, and writes that were, or may have been, carried out.
        keys: what it writes and reads at random.
        once: what was acknowledged under keys that are written a single time.
        error: what ended it before its time.
    """

    def __init__(self, number: int, children: Sequence[Child]) -> None:
        super().__init__(name=f"client-{number}")
        self.operations: list[Operation] = []
        self.once: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.keys = keys_of(0)
        self.stop = threading.Event()
        self._number = number
        self._children = itertools.cycle([*children[number % 3 :], *children[: number % 3]])
        self._random = random.Random(f"{SEED}/{number}")
        self._sequence = itertools.count(1)

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                with connect(next(self._children)) as server:
                    while not self.stop.wait(0.005) and self._act(server):
                        pass
                self.stop.wait(0.05)
        except Exception as error:
            self.error = error

    def _act(self, server: redis.Redis) -> bool:
        """Do one thing; return False if this node is better left alone for now."""
        try:
            connection = server.connection_pool.get_connection()
        except (redis.ConnectionError, redis.TimeoutError):
            return False  # nothing was sent
        server.connection_pool.release(connection)
        sequence = next(self._sequence)
        value = f"{self._number}/{sequence}".encode()
        choice = self._random.randrange(5)
        key = f"once/{self._number}/{sequence}" if choice == 0 else self._random.choice(self.keys)
        write = choice < 3
        output: bytes | None = None
        called = time.monotonic_ns()
        try:
            if write:
                assert server.set(key, value)
            else:
                output = read_value(server, key)
        except redis.RedisError as error:
            if may_have_happened(error) and write:
                self.operations.append(operation(self.name, key, value, called=called, returned=None))
            return False
        returned = time.monotonic_ns()
        written = value if write else None
        self.operations.append(operation(self.name, key, written, called=called, returned=returned, output=output))
        if choice == 0:
            self.once[key] = value
        return True


def connect(child: Child) -> redis.Redis:
    """Return a client that sends each command at most once: redis-py's own retry would be a second write."""
    return redis.Redis(child.resp.host, child.resp.port, socket_timeout=15, retry=Retry(NoBackoff(), 0))


def read_value(server: redis.Redis, key: str) -> bytes | None:
    """Get *key*."""
    value = server.get(key)
    assert value is None or isinstance(value, bytes)
    return value


def operation(
    client: str, key: str, written: bytes | None, *, called: int, returned: int | None, output: bytes | None = None
) -> Operation:
    """Return the record of a set, or of a get if nothing was written."""
    return Operation(
        client=client,
        kind="get" if written is None else "set",
        key=key.encode(),
        value=written,
        expected=None,
        call=called,
        returned=returned,
        output=output,
    )


def may_have_happened(error: redis.RedisError) -> bool:
    """Tell whether a write that got *error* for an answer may have happened.

    Raises:
        RedisError: *error* is none that a healthy cluster gives under kill -9.
    """
    if isinstance(error, redis.ResponseError):
        if str(error).startswith("OUTCOMEUNKNOWN"):
            return True
        if str(error).startswith(("NOLEADER", "OVERLOADED")):
            return False
        raise error
    return True  # the connection broke after the command was sent


def test_a_cluster_under_load_survives_kill_nine_of_every_leader_and_of_all_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue "The first cluster": 'kills the leader with SIGKILL under load ten times, kills all three at once,
    restarts: every acknowledged write is there and the history is linearizable; the gaps are printed.'
    """
    children = make_children(["a", "b", "c"], tmp_path)
    clients = [Client(number, children) for number in range(CLIENTS)]
    gaps: list[float] = []
    with no_child_left(children), running(clients):
        for child in children:
            child.start()
        for child in children:
            child.wait_ready(PATIENCE)
        for round_number in range(1, KILLS + 1):
            begin_round(clients, round_number)
            victim = find_leader(children)
            victim.kill()
            killed = time.monotonic_ns()
            gaps.append((wait_for_write(clients, killed) - killed) / 1e9)
            victim.start()
            victim.wait_ready(PATIENCE)
        begin_round(clients, KILLS + 1)
        for child in children:
            child.signal(signal.SIGKILL)
        for child in children:
            child.wait()
        for child in children:
            child.start()
        for child in children:
            child.wait_ready(PATIENCE)
        wait_for_write(clients, time.monotonic_ns())
        stop(clients)

        once = {key: value for client in clients for key, value in client.once.items()}
        for child in children:
            with connect(child) as server:
                found = dict(zip(once, server.mget(list(once)), strict=True))
            assert {key: value for key, value in once.items() if found[key] != value} == {}, f"lost on {child.name}"
        history = [done for client in clients for done in client.operations]
        history += last_reads(children, sorted({op.key.decode() for op in history if op.key.startswith(b"round")}))

    with capsys.disabled():
        unknown = sum(done.returned is None for done in history)
        print(
            f"\n{KILLS} leaders killed: median gap {statistics.median(gaps):.2f} s, longest {max(gaps):.2f} s"
            f" ({', '.join(f'{gap:.2f}' for gap in gaps)}); {len(history):,} operations, {unknown} of unknown outcome"
        )
    verdict = check(history)
    assert verdict.kind is Kind.LINEARIZABLE, verdict.evidence
    assert statistics.median(gaps) < 10


def keys_of(round_number: int) -> list[str]:
    """Return the keys that clients fight for until the next kill.

    New ones each time: the writes of unknown outcome to one key stay few, and the search short.
    """
    return [f"round{round_number}/{n}" for n in range(KEYS_OF_A_ROUND)]


def begin_round(clients: Sequence[Client], round_number: int) -> None:
    """Give *clients* new keys and wait until all is under load again."""
    for client in clients:
        client.keys = keys_of(round_number)
    for _ in range(20):
        wait_for_write(clients, time.monotonic_ns())


@contextmanager
def running(clients: Sequence[Client]) -> Iterator[None]:
    """Run *clients* within the block, or until ``stop``."""
    for client in clients:
        client.start()
    try:
        yield
    finally:
        stop(clients)


def stop(clients: Sequence[Client]) -> None:
    """Stop *clients* after their last answers, and raise what went wrong in them."""
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join()
    errors = [client.error for client in clients if client.error is not None]
    if errors:
        raise ExceptionGroup("clients failed", errors)


def wait_for_write(clients: Sequence[Client], moment: int) -> int:
    """Wait for a write that was called after *moment*; return when it was acknowledged, both in nanoseconds."""
    found: list[int] = []

    def acknowledged() -> bool:
        for client in clients:
            for done in reversed(client.operations):
                if done.call <= moment:
                    break
                if done.kind == "set" and done.returned is not None:
                    found.append(done.returned)
        return bool(found)

    assert wait_for(acknowledged, PATIENCE), f"no write was acknowledged for {PATIENCE:g} s"
    return min(found)


def last_reads(children: Sequence[Child], keys: Sequence[str]) -> list[Operation]:
    """Read every key on every node, once the clients have stopped."""
    reads: list[Operation] = []
    for child in children:
        with connect(child) as server:
            for key in keys:
                called = time.monotonic_ns()
                value = read_value(server, key)
                returned = time.monotonic_ns()
                reads.append(
                    operation(f"reader of {child.name}", key, None, called=called, returned=returned, output=value)
                )
    return reads
