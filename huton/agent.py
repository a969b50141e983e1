"""One node as a process of its own: what ``huton agent`` runs.

Opens a node, opens doors for redis and HTTP clients, and stays until SIGINT or SIGTERM. Stopping is not
leaving: the node stays a member, and goes on where it was when it is started again.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
from functools import partial
from typing import Final

import attrs
import trio

from huton.config import Address, Config
from huton.errors import ConfigError, HutonError, SafetyViolation
from huton.frontends.http import serve_http
from huton.frontends.resp import serve_resp
from huton.runtime.environment import real_env
from huton.runtime.node import Node, open_node

__all__ = ["Doors", "run_agent"]

log = logging.getLogger("huton.agent")

REMIND_SECONDS: Final = 10.0
"""How often a node that can't serve yet says so."""


@attrs.frozen
class Doors:
    """Where an agent serves clients; None for a door that stays shut.

    Attributes:
        tls: what clients are spoken to through, if anything.
        password: what redis clients have to give with AUTH, if anything.
        token: what HTTP clients have to show, if anything.
        insecure: open the doors where other machines reach them, without that.

    Raises:
        ConfigError: other machines could reach a door that is not locked.
    """

    resp: Address | None
    http: Address | None
    tls: ssl.SSLContext | None = None
    password: str | None = None
    token: str | None = None
    insecure: bool = False

    def __attrs_post_init__(self) -> None:
        if self.insecure:
            return
        locks = (("resp", self.resp, "password", self.password), ("http", self.http, "token", self.token))
        for option, address, secret, given in locks:
            if address is None or address.is_loopback:
                continue
            missing = " and ".join(name for name, has in (("tls", self.tls), (f"a {secret}", given)) if has is None)
            if missing:
                raise ConfigError(
                    f"{option}: {address} can be reached from other machines, and whoever reaches it could read and "
                    f"change everything: give {missing}, or say insecure if everybody there is trusted"
                )


def run_agent(config: Config, doors: Doors) -> None:
    """Run one node and its doors until the process is told to stop; return after a clean stop.

    Raises:
        ConfigError: what the node was told makes no sense.
        StorageError: its data directory can't be used as asked.
        RemoteError: its cluster refuses it.
        OSError: an address can't be bound, or the disk failed.
        SafetyViolation: a guarantee is broken, with the whole trace of it.
    """
    try:
        trio.run(_run_until_stopped, config, doors)
    except BaseExceptionGroup as group:
        error = _only_cause(group)
        if error is None:
            raise
        raise error from group


def _only_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the one expected error that *group* stands for, or None if there is more to be told."""
    # A node that has ended refuses its callers with ClosedResourceError: that is no cause.
    _, causes = group.split(trio.ClosedResourceError)
    first: BaseException | None = causes
    while isinstance(first, BaseExceptionGroup) and len(first.exceptions) == 1:
        first = first.exceptions[0]
    # A broken guarantee has to be reported with all there is, and so has whatever nobody expected.
    return first if isinstance(first, HutonError | OSError) and not isinstance(first, SafetyViolation) else None


async def _run_until_stopped(config: Config, doors: Doors) -> None:
    async with trio.open_nursery() as nursery:
        running = trio.CancelScope()
        await nursery.start(_stop_on_signal, running)
        with running:
            await _serve(config, doors)
        nursery.cancel_scope.cancel()
    log.info("%s is stopped", config.name)


async def _stop_on_signal(
    running: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Cancel *running* at the first SIGINT or SIGTERM; end the process at the second."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if running.cancel_called:
                log.warning("%s again: ending at once", name)
                os._exit(128 + number)
            log.info("%s: stopping; a second signal ends this process at once", name)
            running.cancel()


async def _serve(config: Config, doors: Doors) -> None:
    env = real_env(config)
    async with open_node(config, env=env) as node, trio.open_nursery() as nursery:
        log.info("%s is at %s for its peers and keeps its data in %s", node.name, node.address, config.data_dir)
        for option, serve, address in (
            ("resp", partial(serve_resp, tls=doors.tls, password=doors.password), doors.resp),
            ("http", partial(serve_http, tls=doors.tls, token=doors.token), doors.http),
        ):
            if address is not None:
                try:
                    bound = await nursery.start(serve, node, env, address)
                except OSError as error:
                    raise ConfigError(f"{option}: can't listen on {address}: {error}") from error
                log.info("%s clients are served at %s", option.upper(), bound)
        if config.insecure:
            log.warning("insecure: whoever reaches this node's ports may be able to read and change everything")
        await _report_ready(node)
        await trio.sleep_forever()


async def _report_ready(node: Node) -> None:
    """Say when the node can serve, and every ``REMIND_SECONDS`` that it can't yet, and why."""
    while True:
        with trio.move_on_after(REMIND_SECONDS) as patience:
            await node.wait_ready()
        status = node.status()
        if not patience.cancelled_caught:
            break
        if status.cluster_id is None:
            log.warning("still waiting for the other members that the cluster is to be born with")
        else:
            log.warning("still waiting for a leader: a majority of the members has to be up and reachable")
    log.info("ready: one of %d in cluster %s, led by %s", len(status.members), status.cluster_id, status.leader)
