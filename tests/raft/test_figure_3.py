"""Figure 3 of the Raft paper in random runs: Election Safety, Leader Append-Only, Log Matching, Leader
Completeness and State Machine Safety; and the promises of the core that no single test can hold.

The mini cluster checks them after every step, whatever messages, syncs, crashes and timeouts a seed draws.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from huton.raft.effects import Committed, ReadReady, Rejected, Undecided
from huton.raft.types import Role
from tests.raft.random_runs import heal, random_run

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([1, 2, 3, 3, 4, 5])


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, size=SIZES, steps=st.integers(200, 3000))
def test_figure_3_holds_whatever_happens(seed: int, size: int, steps: int) -> None:
    """§5.6: 'safety must not depend on timing'; Figure 3: 'Raft guarantees that each of these properties is true
    at all times.'
    """
    random_run(seed, size, steps)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, size=SIZES, steps=st.integers(200, 2000))
def test_the_cluster_works_again_once_nothing_fails(seed: int, size: int, steps: int) -> None:
    """§5.6: 'Raft will be able to elect and maintain a steady leader as long as the system satisfies the ...
    timing requirement'; §5.3: all followers 'eventually store all log entries'.
    """
    cluster = random_run(seed, size, steps)

    leader = heal(cluster)

    assert leader.role is Role.LEADER
    for server in cluster.servers.values():
        assert server.machine == leader.machine
        assert server.disk == leader.disk
    assert all(cluster.committed[index] == entry for index, entry in enumerate(leader.machine, start=1))


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, size=SIZES, steps=st.integers(200, 2000))
def test_every_request_ends_in_exactly_one_answer(seed: int, size: int, steps: int) -> None:
    """Propose: 'Each request ends in exactly one Committed, Rejected or Undecided'; ReadIndex: 'in exactly one
    ReadReady or Rejected'. Only a crash takes answers with it. And each answer is true.
    """
    cluster = random_run(seed, size, steps)
    leader = heal(cluster)

    written = Counter(entry.data for entry in leader.machine)
    for request, answers in cluster.answers.items():
        if request in cluster.lost:
            continue
        [answer] = answers
        command = cluster.commands.get(request)
        if command is None:
            assert isinstance(answer, ReadReady | Rejected)
        elif isinstance(answer, Committed):
            assert leader.machine[answer.index - 1].data == command
            assert written[command] == 1
        elif isinstance(answer, Rejected):
            assert written[command] == 0
        else:
            assert isinstance(answer, Undecided)
            assert written[command] <= 1
