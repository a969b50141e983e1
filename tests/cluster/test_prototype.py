"""What was fatal to the prototype that huton descends from, one test each; with processes: test_departures.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from huton.errors import CompareFailed, NoLeader, NotAnInteger
from tests.runtime.cluster import DEADLINE_S, LocalCluster, caught_up, copy_of, local_cluster, until, write

pytestmark = pytest.mark.anyio


async def restart(cluster: LocalCluster) -> None:
    """Stop every node, start every node, and wait until all serve and are equal."""
    await cluster.stop()
    await cluster.start()
    await cluster.ready()
    await caught_up(cluster)


async def test_more_than_one_snapshot_interval_of_writes_then_a_restart_of_all(tmp_path: Path) -> None:
    """The prototype lost its data here: several checkpoints, a log that was cut, and every node at once."""
    async with local_cluster(tmp_path, checkpoint_bytes=50_000, log_entries_kept=10, log_bytes_kept=0) as cluster:
        await cluster.ready()
        await write(cluster.node("n1"), 2000)
        await restart(cluster)

        node = cluster.node("n2")
        assert await node.bucket("b").count() == 2000
        await write(node, 100, begin=2000)
        await caught_up(cluster)
        assert all(len(copy_of(node)) == 2100 for node in cluster.nodes.values())


async def test_a_write_with_no_leader(tmp_path: Path) -> None:
    """It ends in time with an error that says that nothing was written; with a leader the next one works."""
    async with local_cluster(tmp_path, request_timeout=0.5) as cluster:
        await cluster.ready()
        await cluster.node("n1").bucket("b").set(b"before", b"v")
        await cluster.stop()
        await cluster.start("n1")
        bucket = cluster.node("n1").bucket("b")

        for _ in range(3):
            with trio.fail_after(0.5 + 1.0), pytest.raises(NoLeader):
                await bucket.set(b"meanwhile", b"v")
        await cluster.start("n2", "n3")
        await cluster.ready()

        await bucket.set(b"after", b"v")
        assert [entry.key for entry in await bucket.scan()] == [b"after", b"before"]


async def fail_on_every_node(cluster: LocalCluster) -> None:
    """Let commands fail, each followed by one that works."""
    for name, node in cluster.nodes.items():
        bucket = node.bucket("b")
        with pytest.raises(NotAnInteger):
            await bucket.increment(b"word")
        await bucket.increment(b"sum")
        with pytest.raises(CompareFailed):
            await bucket.set(b"word", name.encode(), only_if="absent")
        with pytest.raises(CompareFailed):
            await bucket.compare_and_set(b"word", name.encode(), expected_revision=1 << 40)
        await bucket.increment(b"sum")


async def test_a_failing_command(tmp_path: Path) -> None:
    """DESIGN.md §4: it 'yields a typed error to its caller, changes nothing, is counted as applied on every replica
    alike, and the next command works'; and so it is when the log is applied again after a restart.
    """
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        revision = await cluster.node("n1").bucket("b").set(b"word", b"no number")

        for rounds in (1, 2):
            await fail_on_every_node(cluster)
            await restart(cluster)
            for node in cluster.nodes.values():
                assert copy_of(node) == [(b"sum", b"%d" % (6 * rounds)), (b"word", b"no number")]
                entry = await node.bucket("b").get_entry(b"word")
                assert entry is not None
                assert (entry.mod_revision, entry.version) == (revision, 1)
                assert node.status().leader is not None


# ------------------------------------------------------------------ half a configuration


async def nothing_is_born(cluster: LocalCluster) -> None:
    """Every running node says that it belongs to no cluster, and refuses writes for that reason."""
    for node in cluster.nodes.values():
        with trio.fail_after(DEADLINE_S), pytest.raises(NoLeader, match="belongs to no cluster yet"):
            await node.bucket("b").set(b"k", b"v")
        assert (node.status().role, node.status().cluster_id) == ("unborn", None)


async def one_is_born(cluster: LocalCluster, *names: str) -> None:
    """The nodes *names* are one cluster, which works."""
    with trio.fail_after(DEADLINE_S):
        for name in names:
            await cluster.node(name).wait_ready()
            await cluster.node(name).bucket("b").set(name.encode(), b"v")
    statuses = [cluster.node(name).status() for name in names]
    assert len({status.cluster_id for status in statuses}) == 1
    assert all(tuple(member.name for member in status.members) == names for status in statuses)


async def restart_with(cluster: LocalCluster, name: str, **settings: Any) -> None:
    """Give *name* other settings, which it sees when it is started again."""
    await cluster.stop(name)
    cluster.configs[name] = attrs.evolve(cluster.configs[name], **settings)
    await cluster.start(name)


async def test_nodes_that_expect_different_numbers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is born, both sides say why, and the right number mends it."""
    async with local_cluster(tmp_path, start=False, request_timeout=0.5) as cluster:
        cluster.configs["n2"] = attrs.evolve(cluster.configs["n2"], expect=2)
        await cluster.start()
        complaints = ("expects 2 members, this node 3", "expects 3 members, this node 2")
        await until(lambda: all(complaint in caplog.text for complaint in complaints), "complaints in the log")
        await nothing_is_born(cluster)

        await restart_with(cluster, "n2", expect=3)
        await one_is_born(cluster, "n1", "n2", "n3")


async def test_nodes_that_know_only_some_of_their_peers(tmp_path: Path) -> None:
    """Two of three have met and wait for the third, which knows nobody; its seeds mend it."""
    async with local_cluster(tmp_path, start=False, request_timeout=0.5) as cluster:
        seeds = cluster.configs["n1"].peers
        for name, known in (("n1", seeds[:2]), ("n2", seeds[:2]), ("n3", seeds[2:])):
            cluster.configs[name] = attrs.evolve(cluster.configs[name], peers=known)
        await cluster.start()
        await nothing_is_born(cluster)

        await restart_with(cluster, "n3", peers=seeds)
        await one_is_born(cluster, "n1", "n2", "n3")


async def test_a_node_that_expects_more_than_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The others are born without it, once. It is told so, whatever it expects, and it begins no second cluster."""
    async with local_cluster(tmp_path, start=False, request_timeout=0.5, expect=2) as cluster:
        cluster.configs["n3"] = attrs.evolve(cluster.configs["n3"], expect=3)
        await cluster.start()
        await one_is_born(cluster, "n1", "n2")

        for expect in (3, 2):
            caplog.clear()
            await restart_with(cluster, "n3", expect=expect)
            await until(lambda: "which was born without this node" in caplog.text, "a refusal in the log")
            with pytest.raises(NoLeader, match="belongs to no cluster yet"):
                await cluster.node("n3").bucket("b").set(b"k", b"v")
            assert cluster.node("n3").status().cluster_id is None
        await one_is_born(cluster, "n1", "n2")
