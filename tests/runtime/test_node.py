"""Real nodes on loopback with LMDB on a real disk: birth, requests anywhere, loss and return of nodes."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from huton.errors import CompareFailed, ConfigError, InvalidRequest, NameTaken, NoLeader, NotAnInteger, OutcomeUnknown
from huton.runtime.bucket import Bucket
from huton.runtime.environment import real_env
from huton.runtime.node import open_node
from huton.storage.interface import Storage
from tests.runtime.cluster import DEADLINE_S, alone, caught_up, free_address, local_cluster, until

pytestmark = pytest.mark.anyio


# ------------------------------------------------------------------ one node


async def test_a_node_alone_serves(tmp_path: Path) -> None:
    """Issue 2, point 6: '`async with huton.open_node(Config(...)) as node`', and every call of a bucket."""
    with trio.fail_after(DEADLINE_S):
        async with open_node(alone(tmp_path)) as node:
            await node.wait_ready()
            users = node.bucket("users")

            first = await users.set(b"ada", b"1")
            assert await users.get(b"ada") == users.get_local(b"ada") == b"1"
            assert await users.get(b"nobody") is None
            second = await users.set(b"ada", b"", only_if="present")
            assert await users.get(b"ada") == b"", "an empty value is a value"
            entry = await users.get_entry(b"ada")
            assert entry is not None
            assert (entry.create_revision, entry.mod_revision, entry.version) == (first, second, 2)
            with pytest.raises(CompareFailed):
                await users.set(b"ada", b"2", only_if="absent")
            with pytest.raises(CompareFailed):
                await users.compare_and_set(b"ada", b"2", expected_revision=first)
            assert await users.compare_and_set(b"ada", b"2", expected_revision=second) > second
            assert await users.increment(b"ada", 40) == 42
            await users.set_many({b"bob": b"x", b"cleo": b"y"})
            with pytest.raises(NotAnInteger):
                await users.increment(b"bob")
            assert [entry.key for entry in await users.scan()] == [b"ada", b"bob", b"cleo"]
            assert [entry.key for entry in users.scan_local(start=b"b", limit=1, reverse=True)] == [b"cleo"]
            assert [entry and entry.value for entry in await users.get_many([b"bob", b"?"])] == [b"x", None]
            assert await users.delete(b"ada", b"bob", b"?") == 2
            assert await users.count() == users.count_local() == 1
            assert await node.bucket(b"others").count() == 0


async def test_limits_are_checked_before_anything_is_proposed(tmp_path: Path) -> None:
    """DESIGN.md §4: 'beyond that a typed error before anything is proposed'."""
    async with open_node(alone(tmp_path, max_value_bytes=10)) as node:
        await node.wait_ready()
        bucket = node.bucket("b")
        before = node.status().commit_index

        for refused in (
            bucket.set(b"", b"v"),
            bucket.set(b"k" * 401, b"v"),
            bucket.set(b"k", b"v" * 11),
            bucket.set_many({}),
            bucket.delete(),
            bucket.compare_and_set(b"k", b"v", expected_revision=-1),
            bucket.get(b""),
            bucket.scan(limit=-1),
        ):
            with pytest.raises(InvalidRequest):
                await refused
        with pytest.raises(InvalidRequest):
            node.bucket("")
        assert node.status().commit_index == before


async def test_a_node_that_belongs_to_no_cluster_says_so(tmp_path: Path) -> None:
    """Two of three are missing: no birth, no requests, and an honest status."""
    async with local_cluster(tmp_path, start=False, request_timeout=0.1) as cluster:
        await cluster.start("n1")
        node = cluster.node("n1")

        assert (node.status().role, node.status().cluster_id, node.members()) == ("unborn", None, ())
        with pytest.raises(NoLeader):
            await node.bucket("b").set(b"k", b"v")
        with pytest.raises(NoLeader):
            node.bucket("b").get_local(b"k")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"expect": None}, "expect: .* belongs to no cluster yet"),
        ({"expect": 65, "peers": "127.0.0.1:1"}, "expect: 65 members"),
        ({"bind": "0.0.0.0:0"}, "bind: 0.0.0.0:0 can be reached from other machines"),
        ({"bind": "0.0.0.0:0", "insecure": True}, "advertise: "),
    ],
)
async def test_a_configuration_without_sense(tmp_path: Path, settings: dict[str, object], complaint: str) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match=complaint):
        async with open_node(alone(tmp_path, **settings)):
            pass


async def test_an_address_that_is_in_use(tmp_path: Path) -> None:
    """It is the configuration that has to be mended; the data directory is free again at once."""
    async with open_node(alone(tmp_path / "1")) as node:
        for _ in range(2):
            with pytest.raises(ConfigError, match="bind: can't listen on"):
                async with open_node(alone(tmp_path / "2", bind=node.address)):
                    pass


async def test_the_block_of_an_embedding_program_keeps_its_own_errors(tmp_path: Path) -> None:
    """No group around what the program raises, not even around its own groups."""
    with pytest.raises(LookupError, match="mine"):
        async with open_node(alone(tmp_path)):
            raise LookupError("mine")
    with pytest.raises(ExceptionGroup, match="my group") as raised:
        async with open_node(alone(tmp_path)):
            raise ExceptionGroup("my group", [ValueError("one")])
    assert len(raised.value.exceptions) == 1


async def test_cancellation_leaves_no_half_open_node(tmp_path: Path) -> None:
    """DESIGN.md §6: 'cancellation leaves no half-open node', at whatever checkpoint it strikes."""
    for checkpoints in (0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 21, 34, 55, 89):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel_after(count: int, doomed: trio.CancelScope) -> None:
                    for _ in range(count):
                        await trio.lowlevel.checkpoint()
                    doomed.cancel()

                nursery.start_soon(cancel_after, checkpoints, scope)
                async with open_node(alone(tmp_path)) as node:
                    await node.wait_ready()
    async with open_node(alone(tmp_path)) as node:
        with trio.fail_after(DEADLINE_S):
            await node.wait_ready()


async def test_a_closed_node_serves_nobody(tmp_path: Path) -> None:
    """trio's ClosedResourceError: your code closed it; and who was waiting learns that the outcome is unknown."""
    outcomes: list[str] = []

    async def write(bucket: Bucket) -> None:
        try:
            await bucket.set(b"k", b"v")
        except OutcomeUnknown:
            outcomes.append("unknown")

    async with trio.open_nursery() as nursery, local_cluster(tmp_path, 2) as cluster:
        await cluster.ready()
        leader = await cluster.leader()
        bucket = cluster.node(leader).bucket("b")
        # Its only follower is gone: nothing can be committed.
        await cluster.stop(*(name for name in cluster.names if name != leader))
        nursery.start_soon(write, bucket)
        await trio.testing.wait_all_tasks_blocked()
    assert outcomes == ["unknown"]
    with pytest.raises(trio.ClosedResourceError):
        await bucket.get(b"k")
    with pytest.raises(trio.ClosedResourceError):
        await bucket.set(b"k", b"v")
    with pytest.raises(trio.ClosedResourceError):
        bucket.get_local(b"k")


async def test_a_failed_sync_ends_the_node(tmp_path: Path) -> None:
    """Rule D6: 'any *sync* error is PersistFailed and ends this run of the process: no retry'; callers are answered."""
    config = alone(tmp_path)
    env = real_env(config)
    broken = False

    class Failing:
        """The real storage until the disk breaks."""

        def __init__(self, storage: Storage) -> None:
            self._storage = storage

        def __getattr__(self, name: str) -> object:
            if name == "persist" and broken:
                raise OSError(5, "Input/output error")
            return getattr(self._storage, name)

    def open_storage(path: Path, name: str, incarnation: bytes) -> Storage:
        return Failing(env.open_storage(path, name, incarnation))  # type: ignore[return-value]  # by __getattr__

    outcomes: list[str] = []
    with pytest.raises(Exception, match="the disk failed") as raised, trio.fail_after(DEADLINE_S):
        async with open_node(config, env=attrs.evolve(env, open_storage=open_storage)) as node:
            await node.wait_ready()
            await node.bucket("b").set(b"k", b"before")
            broken = True
            try:
                await node.bucket("b").set(b"k", b"after")
            except OutcomeUnknown:
                outcomes.append("unknown")
            await trio.sleep_forever()
    assert type(raised.value).__name__ == "StorageError"
    assert outcomes == ["unknown"]
    broken = False
    async with open_node(config) as node:
        await node.wait_ready()
        assert await node.bucket("b").get(b"k") == b"before"


# ------------------------------------------------------------------ three nodes


async def test_three_nodes_form_a_cluster_and_any_of_them_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue 2, point 6: 'Followers forward writes and linearizable reads.'"""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
        leader = await cluster.leader()

        for name, node in cluster.nodes.items():
            await node.bucket("b").set(name.encode(), b"from " + name.encode())
        for node in cluster.nodes.values():
            entries = await node.bucket("b").scan()
            assert [entry.value for entry in entries] == [b"from n1", b"from n2", b"from n3"]
        with pytest.raises(CompareFailed):
            await cluster.node("n2").bucket("b").set(b"n1", b"again", only_if="absent")
        statuses = [node.status() for node in cluster.nodes.values()]
        assert len({status.cluster_id for status in statuses}) == 1
        assert sorted(status.role for status in statuses) == ["follower", "follower", "leader"]
        for status in statuses:
            assert [(member.name, member.leader) for member in status.members] == [
                (name, name == leader) for name in cluster.names
            ]


async def test_one_seed_is_enough(tmp_path: Path) -> None:
    """Nodes that know of one other only hear of the rest from it."""
    seed = free_address()
    async with local_cluster(tmp_path, peers=(seed,), start=False) as cluster:
        cluster.configs["n2"] = attrs.evolve(cluster.configs["n2"], bind=seed)
        await cluster.start()

        await cluster.ready()


async def test_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    """Its links come back, and Raft repairs the rest."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        leader = await cluster.leader()
        away = next(name for name in cluster.names if name != leader)
        await cluster.stop(away)

        bucket = cluster.node(leader).bucket("b")
        for number in range(200):
            await bucket.set(b"%d" % number, b"v" * 1000)
        await cluster.start(away)
        await cluster.ready()

        assert cluster.node(away).bucket("b").count_local() == 200


async def test_losing_the_leader(tmp_path: Path) -> None:
    """The other two elect a new one, and nothing that was acknowledged is lost."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        for round_ in range(3):
            leader = await cluster.leader()
            await cluster.node(leader).bucket("b").set(b"%d" % round_, b"v")
            await cluster.stop(leader)
            await cluster.ready()
            assert await cluster.leader() != leader
            for node in cluster.nodes.values():
                assert await node.bucket("b").count() == round_ + 1
            await cluster.start(leader)
            await cluster.ready()


async def test_without_a_majority_nothing_is_written(tmp_path: Path) -> None:
    """Two of three are gone: a write ends in time, and says whether it may have happened."""
    async with local_cluster(tmp_path, request_timeout=1.0) as cluster:
        await cluster.ready()
        leader = await cluster.leader()
        followers = [name for name in cluster.names if name != leader]
        await cluster.stop(*followers)

        with trio.fail_after(DEADLINE_S), pytest.raises((OutcomeUnknown, NoLeader)):
            await cluster.node(leader).bucket("b").set(b"k", b"v")
        with trio.fail_after(DEADLINE_S), pytest.raises(NoLeader):
            await cluster.node(leader).bucket("b").get(b"k")
        await cluster.start(*followers)
        await cluster.ready()


async def test_a_deadline_that_comes_nearer_is_kept(tmp_path: Path) -> None:
    """A request that gives up in 0.2 s does not wait for the election timeout that the node sleeps towards."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        await cluster.stop()
        patient = attrs.evolve(cluster.configs["n1"], election_timeout=60.0, request_timeout=0.2)
        async with open_node(patient) as node:
            await trio.testing.wait_all_tasks_blocked()

            with trio.fail_after(DEADLINE_S), pytest.raises(NoLeader):
                await node.bucket("b").get(b"k")


async def test_a_restart_of_all_keeps_everything(tmp_path: Path) -> None:
    """DESIGN.md §6: 'a data directory that belongs to a cluster ignores `--expect`', and everything is there."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        bucket = cluster.node("n1").bucket("b")
        revisions = [await bucket.set(b"%d" % number, b"v") for number in range(20)]
        before = cluster.node("n1").status()
        await cluster.stop()
        for name, config in cluster.configs.items():
            # Without expect; and with another address, which only the seeds know of.
            cluster.configs[name] = attrs.evolve(config, expect=None, bind=free_address())
        seeds = tuple(config.bind for config in cluster.configs.values())
        for name, config in cluster.configs.items():
            cluster.configs[name] = attrs.evolve(config, peers=seeds)

        await cluster.start()
        await cluster.ready()
        await caught_up(cluster)

        for node in cluster.nodes.values():
            after = node.status()
            assert (after.cluster_id, after.members and after.members[0].name) == (before.cluster_id, "n1")
            found = {entry.key: entry.mod_revision for entry in node.bucket("b").scan_local()}
            assert found == {b"%d" % number: revision for number, revision in enumerate(revisions)}


async def test_many_writers_at_once(tmp_path: Path) -> None:
    """Requests of one moment share messages and syncs; each gets its own answer."""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        sums: list[int] = []

        async def add(name: str) -> None:
            for _ in range(20):
                sums.append(await cluster.node(name).bucket("b").increment(b"sum"))

        async with trio.open_nursery() as nursery:
            for name in cluster.names * 8:
                nursery.start_soon(add, name)

        assert sorted(sums) == list(range(1, 481))


async def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    """DESIGN.md §6: 'a second node with a taken name is refused with an error that says so.'"""
    async with local_cluster(tmp_path) as cluster:
        await cluster.ready()
        second = attrs.evolve(cluster.configs["n2"], data_dir=tmp_path / "second", bind=free_address())

        with trio.fail_after(DEADLINE_S), pytest.raises(NameTaken, match="the name 'n2' is taken"):
            async with open_node(second):
                await trio.sleep_forever()

        await cluster.ready()


async def test_a_taken_name_is_refused_before_any_birth(tmp_path: Path) -> None:
    """Whoever was there first stays."""
    async with local_cluster(tmp_path, start=False) as cluster:
        await cluster.start("n1")
        second = attrs.evolve(cluster.configs["n1"], data_dir=tmp_path / "second", bind=free_address())

        with trio.fail_after(DEADLINE_S), pytest.raises(NameTaken, match="the name 'n1' is taken"):
            async with open_node(second):
                await trio.sleep_forever()

        await cluster.start("n2", "n3")
        await cluster.ready()


async def test_a_node_that_was_born_elsewhere_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DESIGN.md §6: 'Two births of disjoint sets can't be prevented; their members refuse each other.'"""
    async with local_cluster(tmp_path, 1) as cluster:
        await cluster.ready()
        other = alone(tmp_path / "other", name="other", peers=(cluster.configs["n1"].bind,))

        async with open_node(other) as node:
            await node.wait_ready()
            await until(lambda: "belongs to cluster" in caplog.text, "a refusal in the log")

            assert len(node.members()) == 1
        await cluster.node("n1").bucket("b").set(b"k", b"v")
