"""Random runs of a mini cluster: everything that may happen to cores happens, in an order drawn from a seed.

The mini cluster checks every step; ``heal`` then demands that the cluster works again once nothing fails.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from random import Random
from typing import cast

from huton.raft.effects import Persist, PersistSnapshot
from huton.raft.events import PeerUnreachable, RoomChanged
from huton.raft.types import EntryKind, NodeId, Role
from tests.harness import ELECTION, Settings
from tests.raft.minicluster import Cluster, Server

__all__ = ["TIGHT", "digest", "heal", "random_run"]

TIGHT = Settings(
    append_bytes_max=20,
    inflight_bytes_max=60,
    inflight_messages_max=3,
    uncommitted_bytes_max=200,
    window_bytes_max=30,
    log_entries_kept=3,
    log_bytes_kept=60,
    compact_entries=2,
)
"""Bounds so small that every one of them is hit in a short run."""


def random_run(seed: int, size: int, steps: int) -> Cluster:
    """Return a cluster of *size* to which *steps* random things have happened."""
    random = Random(seed)
    cluster = Cluster(size, timeouts=lambda: ELECTION + random.randrange(ELECTION), **TIGHT)
    # Some runs lose much and crash often; in others the cluster gets far.
    weights = [
        (deliver_oldest, 120),
        (deliver_any, random.choice([0, 10, 40])),
        (lose, random.choice([0, 2, 15])),
        (double, random.choice([0, 2, 15])),
        (sync, random.choice([10, 30, 60])),
        (apply, 30),
        (answer_read, 20),
        (time_passes, random.choice([2, 5, 20])),
        (timeout, random.choice([0, 1, 5])),
        (propose, 12),
        (read, 6),
        (unreachable, 1),
        (checkpoint, random.choice([0, 3, 15])),
        (defer, random.choice([0, 0, 2, 10])),
        (find_room, random.choice([1, 10])),
        (transfer, 10),
        (tell_end, 10),
        (crash, random.choice([0, 1, 4])),
        (restart, 6),
    ]
    actions = random.choices([action for action, _ in weights], [weight for _, weight in weights], k=steps)
    for action in actions:
        action(cluster, random)
    return cluster


def heal(cluster: Cluster) -> Server:
    """Restart whoever is down, lose no more messages, and return the leader once a new proposal is applied by all.

    Raises:
        AssertionError: it takes too long.
    """
    for server in cluster.servers.values():
        if server.raft is None:
            cluster.restart(server.id, len(server.machine))
        cluster.step(server.id, RoomChanged(enough=True))
    for _ in range(200):
        cluster.settle()
        for server in cluster.servers.values():
            if server.role is Role.LEADER and not cluster.open_requests():
                [request] = cluster.propose(server.id)
                cluster.settle()
                cluster.timeout(server.id)
                cluster.settle()
                if all(
                    each.machine and each.machine[-1].data == cluster.commands[request]
                    for each in cluster.servers.values()
                ):
                    return server
        cluster.timeout(min(cluster.servers, key=lambda each: deadline(cluster, each)))
    raise AssertionError("the cluster does not work again")


def digest(seed: int) -> str:
    """Return a digest of all that a run of *seed* did, to compare with that of another process."""
    cluster = random_run(seed, 3, 2000)
    logs = [(server.log, server.machine, server.status) for server in cluster.servers.values()]
    text = repr((cluster.network, cluster.answers, cluster.committed, logs, cluster.now))
    return hashlib.sha256(text.encode()).hexdigest()


def deadline(cluster: Cluster, id: NodeId) -> int:
    raft = cluster.servers[id].raft
    assert raft is not None
    due = raft.deadline()
    assert due is not None
    return due


Action = Callable[[Cluster, Random], None]


def some(cluster: Cluster, random: Random, wanted: Callable[[Server], bool]) -> NodeId | None:
    servers = [server.id for server in cluster.servers.values() if wanted(server)]
    return random.choice(servers) if servers else None


def up(server: Server) -> bool:
    return server.raft is not None


def deliver_oldest(cluster: Cluster, random: Random) -> None:
    if cluster.network:
        cluster.deliver()


def deliver_any(cluster: Cluster, random: Random) -> None:
    if cluster.network:
        cluster.deliver(random.randrange(len(cluster.network)))


def lose(cluster: Cluster, random: Random) -> None:
    if cluster.network:
        del cluster.network[random.randrange(len(cluster.network))]


def double(cluster: Cluster, random: Random) -> None:
    if cluster.network:
        cluster.network.append(random.choice(cluster.network))


def sync(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: bool(server.syncing))
    if id is not None:
        cluster.sync(id, random.choice([1, 1, 2, 10]))


def apply(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: bool(server.applying))
    if id is not None:
        cluster.apply(id)


def answer_read(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: bool(server.reading))
    if id is not None:
        cluster.answer_read(id)


def time_passes(cluster: Cluster, random: Random) -> None:
    """The next deadline comes, in the order of time."""
    running = [server.id for server in cluster.servers.values() if up(server)]
    if running:
        cluster.timeout(min(running, key=lambda each: deadline(cluster, each)))


def timeout(cluster: Cluster, random: Random) -> None:
    """One server's time passes, and the others have slept meanwhile."""
    id = some(cluster, random, up)
    if id is not None:
        cluster.timeout(id)


def propose(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: server.role is Role.LEADER) or some(cluster, random, up)
    if id is not None:
        cluster.propose(id, random.choice([1, 1, 3]), padding=random.choice([0, 5, 30]))


def read(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: server.role is Role.LEADER) or some(cluster, random, up)
    if id is not None:
        cluster.read(id, random.choice([1, 2]))


def unreachable(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, up)
    if id is not None:
        cluster.step(id, PeerUnreachable(random.choice(list(cluster.servers))))


def checkpoint(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: up(server) and len(server.machine) > server.checkpoint)
    if id is not None:
        cluster.checkpoint(id)


def defer(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, may_be_deferred)
    if id is not None:
        cluster.defer(id)


def may_be_deferred(server: Server) -> bool:
    """There is room in reserve for what holds no commands, and a snapshot makes room."""
    writes = list(server.syncing)
    if not writes or any(isinstance(write, PersistSnapshot) for write in writes):
        return False
    return any(entry.kind is EntryKind.COMMAND for entry in cast("Persist", writes[0]).entries)


def find_room(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, up)
    if id is not None:
        cluster.step(id, RoomChanged(enough=random.random() < 0.8))


def transfer(cluster: Cluster, random: Random) -> None:
    if cluster.transfers:
        cluster.transfer(random.randrange(len(cluster.transfers)), breaks=random.random() < 0.2)


def tell_end(cluster: Cluster, random: Random) -> None:
    if cluster.ended:
        cluster.tell_end(random.randrange(len(cluster.ended)))


def crash(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, up)
    if id is not None:
        cluster.crash(id)


def restart(cluster: Cluster, random: Random) -> None:
    id = some(cluster, random, lambda server: server.raft is None)
    if id is not None:
        cluster.restart(id, random.randint(0, len(cluster.servers[id].machine)))


if __name__ == "__main__":
    print(digest(int(sys.argv[1])))
