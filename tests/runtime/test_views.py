"""Views: one moment of a node's copy, for a while, and not for longer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from huton import Config, InvalidRequest, NoLeader, Overloaded, ViewExpired, open_node
from huton.runtime.views import VIEWS_MAX
from tests.runtime.cluster import DEADLINE_S, alone, caught_up, copy_of, free_address, local_cluster, until, write

pytestmark = pytest.mark.anyio

AGES: dict[str, Any] = {"view_age_max": 600.0}
"""Nothing here takes as long."""


async def test_a_view_is_one_moment(tmp_path: Path) -> None:
    """Whatever is written, and however it is read."""
    async with open_node(alone(tmp_path, **AGES)) as node:
        await node.wait_ready()
        bucket = node.bucket("b")
        await bucket.set_many({b"k1": b"old", b"k2": b"old"})
        revision = await bucket.set(b"k3", b"old")
        with node.view() as view:
            await bucket.set(b"k1", b"new")
            await bucket.delete(b"k2")
            await bucket.set(b"k4", b"new")
            await node.bucket("c").set(b"k", b"new")

            shown = view.bucket("b")
            assert shown.name == b"b"
            assert view.revision == revision
            assert view.buckets() == [b"b"]
            assert (shown.get(b"k1"), shown.get(b"k4"), shown.count()) == (b"old", None, 3)
            assert [entry.key for entry in shown.scan()] == [b"k1", b"k2", b"k3"]
            assert [entry.key for entry in shown.scan(b"k", limit=2, reverse=True)] == [b"k3", b"k2"]
            assert [entry and entry.value for entry in shown.get_many([b"k4", b"k1"])] == [None, b"old"]
            entry = shown.get_entry(b"k3")
            assert entry is not None
            assert entry.mod_revision == revision
            assert view.bucket("c").count() == 0
        assert bucket.get_local(b"k1") == b"new"


async def test_a_view_stays_through_checkpoints(tmp_path: Path) -> None:
    """What it shows is in memory when it is opened; in the end the disk holds something else."""
    async with open_node(alone(tmp_path, checkpoint_bytes=50_000, **AGES)) as node:
        await node.wait_ready()
        views = []
        for begin in range(0, 2000, 400):
            await write(node, 400, begin=begin)
            views.append(node.view())
        await write(node, 2000)

        for number, view in enumerate(views, 1):
            assert [entry.key for entry in view.bucket("b").scan()] == [b"%05d" % key for key in range(400 * number)]
            view.close()


async def test_a_view_of_a_state_that_a_snapshot_replaced(tmp_path: Path) -> None:
    """It goes on, and the state that it shows is deleted once it is closed."""
    tiny: dict[str, Any] = {"checkpoint_bytes": 50_000, "log_entries_kept": 10, "log_bytes_kept": 0}
    async with local_cluster(tmp_path, **tiny, **AGES) as cluster:
        await cluster.ready()
        await write(cluster.node("n1"), 100)
        await caught_up(cluster)
        await cluster.stop("n3")
        await write(cluster.node("n1"), 2000)
        await cluster.start("n3")
        view = cluster.node("n3").view()
        shown = copy_of(cluster.node("n3"))
        await caught_up(cluster)

        replaced = tmp_path / "n3" / "state.0"
        assert [(entry.key, entry.value) for entry in view.bucket("b").scan()] == shown
        assert len(shown) < 2000
        assert len(copy_of(cluster.node("n3"))) == 2000
        assert replaced.exists()
        view.close()
        await until(lambda: not replaced.exists(), "the old state is deleted")


# ------------------------------------------------------------------ not for ever


async def test_a_view_ends_in_time(tmp_path: Path) -> None:
    """Closed or forgotten: the map's pages are free again, and it says so."""
    async with open_node(alone(tmp_path, view_age_max=0.05)) as node:
        await node.wait_ready()
        await node.bucket("b").set(b"k", b"v")
        view = node.view()
        bucket = view.bucket("b")
        assert bucket.get(b"k") == b"v"

        with trio.fail_after(DEADLINE_S), pytest.raises(ViewExpired, match=r"open for 0\.05 seconds"):
            while True:
                bucket.get(b"k")
                await trio.sleep(0.01)
        with pytest.raises(ViewExpired):
            view.buckets()
        view.close()


async def test_a_view_ends_with_its_block_and_its_node(tmp_path: Path) -> None:
    """And with nothing else."""
    async with open_node(alone(tmp_path, **AGES)) as node:
        await node.wait_ready()
        with node.view() as closed:
            pass
        left = node.view()
        for view in (closed, closed):
            with pytest.raises(trio.ClosedResourceError, match="this view is closed"):
                view.bucket("b").count()
            view.close()
        assert left.bucket("b").count() == 0
    with pytest.raises(trio.ClosedResourceError, match="this node is closed"):
        left.bucket("b").count()
    with pytest.raises(trio.ClosedResourceError, match="this node is closed"):
        node.view()


async def test_views_are_bounded(tmp_path: Path) -> None:
    """One too many is refused with a word about it, and there is room again after one is closed."""
    async with open_node(alone(tmp_path, **AGES)) as node:
        await node.wait_ready()
        views = [node.view() for _ in range(VIEWS_MAX)]
        with pytest.raises(Overloaded, match="64 views are open"):
            node.view()
        views[7].close()
        node.view().close()


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """As everywhere."""
    async with open_node(alone(tmp_path)) as node:
        await node.wait_ready()
        with node.view() as view:
            with pytest.raises(InvalidRequest):
                view.bucket("")
            with pytest.raises(InvalidRequest):
                view.bucket("b").get(b"")


async def test_a_node_without_a_cluster_has_nothing_to_view(tmp_path: Path) -> None:
    """It says so, as local reads do."""
    config = Config(name="n1", data_dir=tmp_path / "n1", bind="127.0.0.1:0", peers=str(free_address()), expect=2)
    async with open_node(config) as node:
        with pytest.raises(NoLeader, match="belongs to no cluster yet"):
            node.view()
