"""Clusters of three on loopback, with the settings that they come with: everything they acknowledge is synced."""

from __future__ import annotations

import http.client
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from huton.config import Address
from huton.demo.children import free_addresses, make_children, no_child_left, wait_for
from huton.errors import HutonError

__all__ = ["BenchError", "Cluster", "etcd_cluster", "huton_cluster"]

NAMES = ("a", "b", "c")
START_S = 30.0


class BenchError(HutonError):
    """A benchmark could not be run, or measured something else than it was to."""


@attrs.frozen
class Cluster:
    """What is measured.

    Attributes:
        kind: what the load generator calls it: ``resp`` or ``etcd``.
        endpoints: where its nodes serve clients.
    """

    kind: str
    endpoints: tuple[str, ...]


@contextmanager
def huton_cluster(directory: Path) -> Iterator[Cluster]:
    """Run three agents under *directory* during the block."""
    children = make_children(NAMES, directory)
    with no_child_left(children):
        for child in children:
            child.start()
        for child in children:
            child.wait_ready(START_S)
        yield Cluster("resp", tuple(str(child.resp) for child in children))


def _is_healthy(client: Address) -> bool:
    """Return whether an etcd serves there."""
    connection = http.client.HTTPConnection(client.host, client.port, timeout=2)
    try:
        connection.request("GET", "/health")
        return b"true" in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def etcd_cluster(directory: Path) -> Iterator[Cluster]:
    """Run three etcd servers under *directory* during the block.

    Raises:
        BenchError: there is no etcd, or it does not start.
    """
    etcd = shutil.which("etcd")
    if etcd is None:
        raise BenchError("etcd is not installed: apt-get install etcd-server")
    addresses = free_addresses(2 * len(NAMES))
    peers, clients = addresses[: len(NAMES)], addresses[len(NAMES) :]
    together = ",".join(f"{name}=http://{peer}" for name, peer in zip(NAMES, peers, strict=True))
    processes = []
    try:
        for name, peer, client in zip(NAMES, peers, clients, strict=True):
            command = [etcd, "--name", name, "--data-dir", str(directory / name), "--log-level", "error"]
            command += ["--initial-cluster", together, "--initial-advertise-peer-urls", f"http://{peer}"]
            command += ["--listen-peer-urls", f"http://{peer}", "--listen-client-urls", f"http://{client}"]
            command += ["--advertise-client-urls", f"http://{client}"]
            log = (directory / f"{name}.log").open("wb")
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))  # noqa: S603  # etcd, as found in the path
            log.close()
        if not wait_for(lambda: all(_is_healthy(client) for client in clients), START_S):
            raise BenchError(f"etcd does not serve: {(directory / f'{NAMES[0]}.log').read_text()[-500:]}")
        yield Cluster("etcd", tuple(map(str, clients)))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
