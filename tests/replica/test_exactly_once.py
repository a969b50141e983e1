"""A forwarded write is carried out at most once, whatever a network does to messages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from huton.errors import NoLeader, Overloaded
from huton.raft.types import NodeId
from huton.replica import Answer, Receive
from tests.replica.cluster import Cluster


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    double=st.sampled_from([0.0, 0.1, 0.4]),
    requests=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=25),
    cuts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=4),
)
def test_writes_are_carried_out_at_most_once_and_answers_are_true(
    seed: int, loss: float, double: float, requests: list[tuple[int, int]], cuts: list[tuple[int, int]]
) -> None:
    """A result means carried out once, "nothing was written" means never, and all agree on the order."""
    cluster = Cluster(3, seed=seed)
    submitted: list[tuple[NodeId, int, bytes]] = []
    old: list[tuple[NodeId, Receive]] = []
    for turn in range(160):
        for position, at in requests:
            if at == turn:
                name = cluster.names[position]
                id = len(submitted) + 1
                submitted.append((name, id, b"%s/%d" % (name.encode(), id)))
                cluster.submit(name, id, submitted[-1][2])
        isolated = {cluster.names[position] for at, position in cuts if at <= turn < at + 30}
        _shuffle_network(cluster, isolated, loss, double, old)
        cluster.tick(100)
    for _ in range(200):
        cluster.tick()
        cluster.deliver()

    longest = max((machine.applied for machine in cluster.machines.values()), key=len)
    for machine in cluster.machines.values():
        assert machine.applied == longest[: len(machine.applied)]
    for name, id, command in submitted:
        times = longest.count(command)
        result = cluster.result(name, id)
        assert times <= 1
        if isinstance(result, bytes):
            assert times == 1
        if isinstance(result, NoLeader | Overloaded):
            assert times == 0
    assert all(isinstance(cluster.answer(name, id), Answer) for name, id, _ in submitted)


def _shuffle_network(
    cluster: Cluster, isolated: set[NodeId], loss: float, double: float, old: list[tuple[NodeId, Receive]]
) -> None:
    """Deliver what is under way in a random order, losing and doubling, some of it much later."""
    for _ in range(40):
        if not cluster.queue:
            return
        to, event = cluster.queue.pop(cluster.random.randrange(len(cluster.queue)) if loss or double else 0)
        if not isinstance(event, Receive):
            # A disk does not reorder: find this node's oldest write.
            earlier = [item for item in cluster.queue if item[0] == to and type(item[1]) is type(event)]
            if earlier and earlier[0][1].seq < event.seq:  # type: ignore[union-attr]  # both are Persisted
                cluster.queue.remove(earlier[0])
                cluster.queue.insert(0, (to, event))
                to, event = earlier[0]
            cluster.step(to, event)
            continue
        if to in isolated or event.sender in isolated or cluster.random.random() < loss:
            continue
        if cluster.random.random() < double:
            old.append((to, event))
        cluster.step(to, event)
        if old and cluster.random.random() < double:
            cluster.queue.append(old.pop(cluster.random.randrange(len(old))))
