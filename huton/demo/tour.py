"""The tour of ``huton demo``. It says nothing that it has not checked just before."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from huton.demo.children import Child, make_children, no_child_left, wait_for
from huton.demo.load import Load
from huton.demo.page import Page
from huton.demo.redis import redis_command
from huton.errors import HutonError

__all__ = ["run_demo"]

NAMES: Final = ("alpha", "beta", "gamma")
BUCKET: Final = "0"
"""What redis calls database 0."""

SLICE: Final = 0.1
"""Seconds that one mark of the strip stands for."""

PATIENCE: Final = 30.0
"""Seconds that the tour waits for anything; far longer than anything takes."""


class TourFailed(HutonError):
    """Something that the tour wanted to show did not hold."""


def run_demo(*, once: bool) -> int:
    """Start three nodes, give the tour, and stay until Ctrl-C; return the exit code of the command.

    Args:
        once: end after the tour.

    Returns:
        0 if everything that was claimed was checked, 1 if something did not hold, 130 if it was interrupted.
    """
    page = Page()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="huton-demo-") as directory:
        children = make_children(NAMES, Path(directory))
        try:
            with no_child_left(children):
                give_tour(page, children)
                if not once:
                    stay(page, children)
        except KeyboardInterrupt:
            page.title("Interrupted; the three nodes are stopped.")
            return 130
        except (HutonError, OSError) as error:
            page.title(f"The demo failed: {error}")
            for child in children:
                page.line(f"the log of {child.name} ends:")
                page.text(child.log_tail(), newline=True)
            return 1
    page.title("The three nodes are stopped, and their data is removed.")
    return 0


def give_tour(page: Page, children: Sequence[Child]) -> None:
    """Give the whole tour.

    Raises:
        TourFailed, ChildFailed: something did not hold.
    """
    page.text("huton demo: three nodes on this machine, each with a full copy of the data", newline=True)
    start(page, children)
    write_and_read(page, children)
    victim, load = kill_the_leader(page, children)
    bring_back(page, victim, children, load)
    show_the_doors(page, children)


def start(page: Page, children: Sequence[Child]) -> None:
    """Chapter 1: a cluster is born."""
    page.title("1  A cluster is born")
    began = time.monotonic()
    for child in children:
        child.start()
        page.line(f"{child.name:<6} pid {child.pid:<8} redis {child.resp!s:<16} HTTP {child.http}")
    for child in children:
        child.wait_ready(PATIENCE)
    took = time.monotonic() - began
    leader = find_leader(children)
    page.done(f"three processes are one cluster after {took:.1f} s; {leader.name} leads")
    page.aside(f"data and logs are in {children[0].directory} until the demo ends")


def write_and_read(page: Page, children: Sequence[Child]) -> None:
    """Chapter 2: any node takes writes, every node answers for them."""
    page.title("2  Write on any node, read on every node")
    first, second, third = children
    began = time.monotonic()
    first.client.set(BUCKET, b"greeting", b"hello")
    page.line(f"{first.name:<6} HTTP   greeting = hello   {1e3 * (time.monotonic() - began):6.1f} ms")
    began = time.monotonic()
    expect(redis_command(second.resp, b"SET", b"colour", b"blue") == b"OK", f"{second.name} did not take a SET")
    page.line(f"{second.name:<6} redis  colour = blue      {1e3 * (time.monotonic() - began):6.1f} ms")
    for child in children:
        expect(child.client.get(BUCKET, b"colour") == b"blue", f"{child.name} does not know the colour")
        expect(redis_command(child.resp, b"GET", b"greeting") == b"hello", f"{child.name} does not know the greeting")
    page.done(f"{first.name}, {second.name} and {third.name} all answer hello and blue")
    page.aside("each read is linearizable: it can't miss a write that was acknowledged before it began")


def kill_the_leader(page: Page, children: Sequence[Child]) -> tuple[Child, Load]:
    """Chapter 3: the leader dies under load, another takes over, and nothing is lost."""
    page.title("3  Kill the leader")
    victim = find_leader(children)
    survivors = [child for child in children if child is not victim]
    page.line(f"{victim.name} leads. Three clients write, one on each node, and {victim.name} gets a kill -9.")
    page.line(f"Each mark is {SLICE:g} s, and full if a write was acknowledged in it:")
    page.line()
    page.text("  ")
    load = Load([child.client for child in children], bucket=BUCKET, prefix="load/")
    load.start()
    for _ in range(10):
        draw(page, load)
    victim.kill()
    killed = time.monotonic()
    page.text(" kill -9 ")
    while not load.written_since(killed + 0.5):
        expect(time.monotonic() < killed + PATIENCE, f"no write was acknowledged for {PATIENCE:g} s")
        draw(page, load)
    for _ in range(10):
        draw(page, load)
    load.stop()
    page.text("\n\n")
    leader = find_leader(survivors)
    expect(leader is not victim, f"{leader.name} can't lead, it is dead")
    page.done(f"{leader.name} leads now; the longest pause between two writes was {load.longest_pause(killed):.2f} s")
    for child in survivors:
        check_nothing_is_lost(child, load)
    both = " and ".join(child.name for child in survivors)
    page.done(f"{len(load.acknowledged):,} writes were acknowledged, and {both} have all of them")
    if load.unknown:
        page.aside(f"{load.unknown} more were under way; their clients were told that the outcome is unknown")
    return victim, load


def bring_back(page: Page, victim: Child, children: Sequence[Child], load: Load) -> None:
    """Chapter 4: the killed node comes back and catches up."""
    page.title(f"4  Start {victim.name} again")
    leader = find_leader([child for child in children if child is not victim])
    committed = int(leader.client.status()["commit_index"])
    began = time.monotonic()
    victim.start()
    victim.wait_ready(PATIENCE)
    caught_up = wait_for(lambda: int(victim.client.status()["applied_index"]) >= committed, PATIENCE)
    took = time.monotonic() - began
    expect(caught_up, f"{victim.name} did not catch up")
    check_nothing_is_lost(victim, load)
    page.done(f"{victim.name} is back after {took:.1f} s and has all {len(load.acknowledged):,} writes in its own copy")


def show_the_doors(page: Page, children: Sequence[Child]) -> None:
    """Chapter 5: what to type."""
    page.title("5  Your turn")
    page.line("any node takes any of these, in another terminal:")
    for child in children:
        page.command(f"redis-cli -p {child.resp.port} get greeting")
    for child in children:
        page.command(f"curl http://{child.http}/v1/buckets/{BUCKET}/keys/greeting")
    page.command(f"curl -X PUT --data-binary hi http://{children[0].http}/v1/buckets/{BUCKET}/keys/greeting")
    page.command(f"curl http://{children[0].http}/v1/status")


def stay(page: Page, children: Sequence[Child]) -> None:
    """Start again whatever dies, until Ctrl-C."""
    page.line()
    page.line("Kill a node if you like; it is started again after three seconds.")
    page.line("Ctrl-C ends the demo.")
    try:
        while True:
            for child in children:
                if child.exit_code is not None:
                    page.line(f"{child.name} ended (exit code {child.exit_code})")
                    time.sleep(3.0)
                    child.start()
                    page.line(f"{child.name} runs again, as pid {child.pid}")
            time.sleep(0.2)
    except KeyboardInterrupt:
        return


def find_leader(children: Sequence[Child]) -> Child:
    """Return the child that says it leads, once one of *children* does.

    Raises:
        TourFailed: none does within ``PATIENCE``.
    """
    leaders: list[Child] = []

    def found() -> bool:
        leaders[:] = [child for child in children if status_or_nothing(child).get("role") == "leader"]
        return bool(leaders)

    expect(wait_for(found, PATIENCE), "nobody leads")
    return leaders[0]


def status_or_nothing(child: Child) -> dict[str, Any]:
    """Return what *child* says of itself; empty if it doesn't answer."""
    try:
        return child.client.status()
    except HutonError:
        return {}


def check_nothing_is_lost(child: Child, load: Load) -> None:
    """Compare what *child* has with what was acknowledged.

    Raises:
        TourFailed: a write is missing, or another value stands there.
    """
    found = {pair.key: pair.value for pair in child.client.scan(BUCKET, b"load/")}
    missing = [key for key, value in load.acknowledged.items() if found.get(key) != value]
    expect(not missing, f"{child.name} lost {len(missing)} acknowledged writes: {missing[:3]}")


def draw(page: Page, load: Load) -> None:
    """Wait for one slice of time and draw its mark."""
    before = time.monotonic()
    time.sleep(SLICE)
    page.mark(full=load.written_since(before))


def expect(holds: bool, otherwise: str) -> None:
    """Fail the tour unless *holds*.

    Raises:
        TourFailed: *otherwise* says what was found instead.
    """
    if not holds:
        raise TourFailed(otherwise)
