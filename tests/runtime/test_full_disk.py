"""A disk or a quota that is full: writes are refused, reads go on, and it is over when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from huton.config import Address, Config
from huton.errors import OutcomeUnknown, StorageFull
from huton.runtime.node import Node, open_node
from tests.runtime.cluster import DEADLINE_S, local_cluster, until

pytestmark = pytest.mark.anyio

MIB = 1 << 20
VALUE = bytes(range(256)) * 40
QUOTA: dict[str, Any] = {"checkpoint_bytes": 200_000, "log_entries_kept": 10, "log_bytes_kept": 0}


def alone(directory: Path, **settings: Any) -> Config:
    config = Config(name="n1", data_dir=directory, bind=Address("127.0.0.1", 0), expect=1, **(QUOTA | settings))
    return attrs.evolve(config, election_timeout=0.1, heartbeat_interval=0.02)


async def fill(node: Node) -> int:
    """Write values of 10 KiB until the disk is full; return how many there are."""
    bucket = node.bucket("b")
    with trio.fail_after(DEADLINE_S):
        for number in range(10_000):
            try:
                await bucket.set(b"%06d" % number, VALUE)
            except StorageFull:
                return number
    raise AssertionError("it is never full")


async def still_reads(node: Node, count: int) -> None:
    assert await node.bucket("b").count() == count
    assert node.bucket("b").get_local(b"%06d" % (count - 1)) == VALUE


async def test_a_full_quota_refuses_writes_and_reads_go_on(tmp_path: Path) -> None:
    """The map is the quota; with a larger one everything is still there, and writes work."""
    async with open_node(alone(tmp_path, map_size_bytes=4 * MIB)) as node:
        await node.wait_ready()
        count = await fill(node)
        assert count > 50
        for _ in range(3):
            with pytest.raises(StorageFull):
                await node.bucket("b").set(b"one more", VALUE)
            await still_reads(node, count)
    async with open_node(alone(tmp_path, map_size_bytes=4 * MIB)) as node:
        await node.wait_ready()
        await still_reads(node, count)
    async with open_node(alone(tmp_path, map_size_bytes=64 * MIB)) as node:
        await node.wait_ready()
        await still_reads(node, count)
        await node.bucket("b").set(b"one more", VALUE)


async def test_a_leader_whose_quota_is_full_makes_way_for_a_healthy_one(tmp_path: Path) -> None:
    """Two of three have room: the cluster goes on, also for those who ask the full one."""
    async with local_cluster(tmp_path, start=False, **QUOTA) as cluster:
        await cluster.start()
        await cluster.ready()
        small = await cluster.leader()
        await cluster.stop()
        cluster.configs[small] = attrs.evolve(cluster.configs[small], map_size_bytes=3 * MIB, election_timeout=0.2)
        await cluster.start()
        await cluster.ready()
        bucket = cluster.node(small).bucket("b")
        number = 0
        with trio.fail_after(2 * DEADLINE_S):
            while number < 400:
                try:
                    await bucket.set(b"%06d" % number, VALUE)
                    number += 1
                except StorageFull:
                    await trio.sleep(0.05)

        leader = await cluster.leader()
        assert leader != small
        healthy = cluster.node(leader)
        await still_reads(healthy, 400)
        assert cluster.node(small).status().applied_index < healthy.status().applied_index
        await cluster.stop(small)
        cluster.configs[small] = attrs.evolve(cluster.configs[small], map_size_bytes=64 * MIB)
        await cluster.start(small)
        await until(lambda: cluster.node(small).bucket("b").count_local() == 400, "an equal copy")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a file system can't be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_disk_that_others_fill_is_over_when_they_make_room(small_disk: Path) -> None:
    """Nobody has to restart anything."""
    config = alone(small_disk / "n1", map_size_bytes=1 << 30, disk_reserve_bytes=8 * MIB)
    async with open_node(config) as node:
        await node.wait_ready()
        bucket = node.bucket("b")
        await bucket.set(b"k", b"v")
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 4 * MIB))

        # What the leader has appended when it finds out may be on other disks: it can't tell.
        with trio.fail_after(DEADLINE_S), pytest.raises((StorageFull, OutcomeUnknown)):
            while True:
                await bucket.set(b"k", VALUE)
        assert await bucket.get(b"k") in (b"v", VALUE)
        with pytest.raises(StorageFull):
            await bucket.set(b"k", b"more")

        ballast.unlink()
        with trio.fail_after(DEADLINE_S):
            while await bucket.get(b"k") != b"written":
                try:
                    await bucket.set(b"k", b"written")
                except StorageFull:
                    await trio.sleep(0.05)
