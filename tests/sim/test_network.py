"""The network: what is cut, lost, doubled, late or in order, message by message."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from huton.raft.messages import AppendEntries, PreVote
from huton.raft.types import Entry, EntryKind, Index, RequestId, Term
from huton.sim.draws import Draws
from huton.sim.network import Network, NetworkOptions, links_between
from huton.sim.schedule import NS
from huton.wire import ForwardWrites, PeerMessage, ReadAnswers

MANY = 4000

LINK = ("n1", "n2")


def numbered(number: int) -> PreVote:
    """Return a message that says which one it is."""
    return PreVote(term=Term(number), last_log_index=Index(0), last_log_term=Term(0))


class Bench:
    """A network alone, with a clock that turns only when a test says so."""

    def __init__(self, seed: int = 1, **options: Any) -> None:
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        # What arrived, in order: (link, number of the message, when it was sent, when it came).
        self.arrivals: list[tuple[tuple[str, str], int, int, int]] = []
        self.received: list[PeerMessage] = []
        self._sent_at: dict[tuple[tuple[str, str], int], int] = {}
        self.network = Network(
            NetworkOptions(**options),
            Draws(seed),
            lambda: self.now,
            self._after,
            self._deliver,
        )

    def _after(self, delay_ns: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_ns, self._count, action))

    def _deliver(self, source: str, target: str, message: PeerMessage) -> None:
        self.received.append(message)
        if isinstance(message, PreVote):
            key = ((source, target), int(message.term))
            self.arrivals.append((*key, self._sent_at.get(key, 0), self.now))

    def send(self, number: int, link: tuple[str, str] = LINK) -> None:
        self._sent_at[link, number] = self.now
        self.network.send(*link, numbered(number))

    def send_many(self, count: int = MANY, *, links: tuple[tuple[str, str], ...] = (LINK,), every_ns: int = 0) -> None:
        """Send *count* messages on each of *links*, then let all of them arrive."""
        for number in range(1, count + 1):
            for link in links:
                self.send(number, link)
            self.pass_time(every_ns)
        self.drain()

    def pass_time(self, ns: int) -> None:
        until = self.now + ns
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def drain(self) -> None:
        while self._queue:
            self.pass_time(self._queue[0][0] - self.now)

    def got(self, link: tuple[str, str] = LINK) -> list[int]:
        """Return the numbers of what arrived on *link*, in order."""
        return [number for at, number, _, _ in self.arrivals if at == link]

    def delays(self) -> list[int]:
        return [came - sent for _, _, sent, came in self.arrivals]


# ------------------------------------------------------------------ cuts


def test_a_cut_link_delivers_nothing_and_only_in_that_direction() -> None:
    """One way is cut; the way back and every other link stay as they are."""
    bench = Bench()
    links = (LINK, ("n2", "n1"), ("n1", "n3"), ("n3", "n2"))
    bench.network.cut("f1", [LINK])

    bench.send_many(20, links=links)

    assert [sorted(bench.got(link)) for link in links] == [[], *[list(range(1, 21))] * 3]
    assert (bench.network.delivered, bench.network.lost) == (60, 20)


def test_what_is_on_its_way_when_a_link_is_cut_is_lost() -> None:
    """A cable that is pulled out keeps nothing for later."""
    bench = Bench()
    bench.send(1)
    bench.network.cut("f1", [LINK])
    bench.drain()
    bench.network.mend("f1")
    bench.send(2)
    bench.drain()

    assert bench.got() == [2]


def test_cuts_of_one_link_end_one_without_the_other() -> None:
    """A link is open again when the last fault that cut it has ended, in whatever order they end."""
    bench = Bench()
    bench.network.cut("f1", [LINK, ("n2", "n1")])
    bench.network.cut("f2", [LINK])
    bench.network.mend("f1")
    bench.network.mend("f1")
    bench.network.mend("unknown")
    bench.send_many(1, links=(LINK, ("n2", "n1")))

    assert (bench.got(), bench.got(("n2", "n1"))) == ([], [1])
    bench.network.mend("f2")
    bench.send(2)
    bench.drain()
    assert bench.got() == [2]


def test_a_cut_that_comes_again_is_one_cut() -> None:
    """A fault that strikes twice replaces its first cut: one mend ends it."""
    bench = Bench()
    bench.network.cut("f1", [LINK, ("n1", "n3")])
    bench.network.cut("f1", [LINK])
    bench.send_many(1, links=(LINK, ("n1", "n3")))

    assert (bench.got(), bench.got(("n1", "n3"))) == ([], [1])
    bench.network.mend("f1")
    bench.send(2)
    bench.drain()
    assert bench.got() == [2]


def test_links_between_groups() -> None:
    """Both ways between any two groups, and none within one."""
    assert sorted(links_between((("n1",), ("n2", "n3")))) == [("n1", "n2"), ("n1", "n3"), ("n2", "n1"), ("n3", "n1")]
    assert len(links_between((("n1",), ("n2",), ("n3",)))) == 6
    assert links_between((("n1", "n2", "n3"), ())) == []


# ------------------------------------------------------------------ loss, doubles, stragglers


def test_a_plain_network_delivers_everything_once_and_soon() -> None:
    """Each within its usual delay, and most much sooner: the median is a quarter of the longest."""
    bench = Bench(delay_ns=2_000_000)
    bench.send_many()
    delays = sorted(bench.delays())

    assert sorted(bench.got()) == list(range(1, MANY + 1))
    assert 50_000 <= delays[0] < 60_000
    assert 1_900_000 < delays[-1] <= 2_050_000
    assert 500_000 < delays[MANY // 2] < 600_000


def test_loss_loses_its_share() -> None:
    """A quarter, and what is lost is counted."""
    bench = Bench(loss=0.25)
    bench.send_many()

    assert 0.22 * MANY < bench.network.lost < 0.28 * MANY
    assert bench.network.lost + bench.network.delivered == MANY
    assert len(set(bench.got())) == len(bench.got()) == bench.network.delivered


def test_doubles_arrive_twice_and_the_second_may_be_late() -> None:
    """Nothing is lost; its share comes once more, anywhere up to ``late_ns`` after it was sent."""
    bench = Bench(double=0.25, late_ns=NS, delay_ns=1_000_000)
    bench.send_many()
    counts = sorted(Counter(bench.got()).values())
    late = [delay for delay in bench.delays() if delay > 1_050_000]

    assert (len(counts), counts[0], counts[-1]) == (MANY, 1, 2)
    assert 0.22 * MANY < counts.count(2) < 0.28 * MANY
    assert len(late) > 0.9 * counts.count(2)
    assert 0.9 * NS < max(late) <= NS


def test_stragglers_come_late_and_once() -> None:
    """Its share takes up to ``late_ns``; all others keep to the usual delay."""
    bench = Bench(straggle=0.25, late_ns=NS, delay_ns=1_000_000)
    bench.send_many()
    late = [delay for delay in bench.delays() if delay > 1_050_000]

    assert sorted(bench.got()) == list(range(1, MANY + 1))
    assert 0.22 * MANY < len(late) < 0.28 * MANY
    assert 0.9 * NS < max(late) <= NS


def test_one_fate_says_nothing_about_another() -> None:
    """Who straggles is doubled as often as anybody else, and its double comes at a time of its own."""
    bench = Bench(double=0.5, straggle=0.5, late_ns=NS, delay_ns=1_000_000)
    bench.send_many()
    came: dict[int, list[int]] = {}
    for _, number, sent, at in bench.arrivals:
        came.setdefault(number, []).append(at - sent)
    once = [delays[0] for delays in came.values() if len(delays) == 1]
    twice = [delays for delays in came.values() if len(delays) == 2]

    assert 0.45 * len(once) < sum(delay > 1_050_000 for delay in once) < 0.55 * len(once)
    assert 0.45 * len(twice) < sum(delays[0] > 1_050_000 for delays in twice) < 0.55 * len(twice)
    assert all(first != second for first, second in twice)


def test_flaky_adds_to_loss_doubles_and_stragglers_until_it_is_mended() -> None:
    """Two faults add up, on every link, and end one without the other."""
    bench = Bench(late_ns=NS, delay_ns=1_000_000)
    bench.network.make_flaky("f1", 0.1)
    bench.network.make_flaky("f2", 0.15)
    bench.send_many(links=(LINK, ("n3", "n1")))
    arrived = len(set(bench.got()))
    doubled = len(bench.got()) - arrived

    assert 0.72 * MANY < arrived < 0.78 * MANY
    assert 0.72 * MANY < len(set(bench.got(("n3", "n1")))) < 0.78 * MANY
    assert 0.22 * arrived < doubled < 0.28 * arrived
    assert 0.3 * MANY < sum(delay > 1_050_000 for delay in bench.delays()) / 2 < 0.45 * MANY

    bench.network.mend("f2")
    lost = bench.network.lost
    bench.send_many()
    assert 0.08 * MANY < bench.network.lost - lost < 0.12 * MANY

    bench.network.mend("f1")
    lost = bench.network.lost
    bench.send_many()
    assert bench.network.lost == lost


# ------------------------------------------------------------------ order


def test_ordered_keeps_the_order_of_each_link() -> None:
    """As a TCP connection does; the links go on independently of each other."""
    bench = Bench(ordered=True, delay_ns=20_000_000)
    links = (LINK, ("n2", "n1"), ("n1", "n3"))
    bench.send_many(500, links=links, every_ns=100_000)

    assert [bench.got(link) for link in links] == [list(range(1, 501))] * 3
    assert [link for link, *_ in bench.arrivals] != list(links) * 500


def test_unordered_messages_overtake_each_other() -> None:
    """All of them come, and many of them after one that was sent later."""
    bench = Bench(delay_ns=20_000_000)
    bench.send_many(500, every_ns=100_000)
    got = bench.got()

    assert sorted(got) == list(range(1, 501))
    assert sum(number > later for number, later in pairwise(got)) > 100


def test_stragglers_and_doubles_overtake_even_on_an_ordered_network() -> None:
    """They stand for what an earlier connection had sent; everything else waits for nothing of them."""
    bench = Bench(ordered=True, straggle=0.1, late_ns=NS, delay_ns=1_000_000)
    bench.send_many(500, every_ns=5_000_000)
    usual = [number for _, number, sent, came in bench.arrivals if came - sent <= 1_050_000]

    assert usual == sorted(usual)
    assert len(usual) > 400
    assert bench.got() != sorted(bench.got())


# ------------------------------------------------------------------ chance belongs to a message


ROUGH: dict[str, Any] = {"loss": 0.1, "double": 0.1, "straggle": 0.1}


def test_the_same_draws_give_the_same_fates() -> None:
    """And another seed gives others."""
    runs = [Bench(seed, **ROUGH) for seed in (7, 7, 8)]
    for bench in runs:
        bench.send_many(300, links=(LINK, ("n2", "n1")))

    assert runs[0].arrivals == runs[1].arrivals
    assert runs[0].arrivals != runs[2].arrivals
    assert [fate for fate in runs[0].arrivals if fate[0] == LINK] != [
        (LINK, *fate[1:]) for fate in runs[0].arrivals if fate[0] != LINK
    ]


def test_a_message_that_is_not_sent_changes_no_fate_on_other_links() -> None:
    """What happens to a message is drawn under its link and its number there, not from one stream."""
    other = ("n2", "n1")
    runs = [Bench(**ROUGH) for _ in range(2)]
    for bench, silent in zip(runs, (None, 17), strict=True):
        for number in range(1, 301):
            bench.send(number, other)
            if number != silent:
                bench.send(number)
        bench.drain()

    fates, without = ([fate for fate in bench.arrivals if fate[0] == other] for bench in runs)
    assert fates == without
    assert runs[0].got() != runs[1].got()


def test_a_message_that_a_cut_took_changes_no_other_fate() -> None:
    """A link goes on where it would have been: the lost ones have had their numbers."""
    runs = [Bench(**ROUGH) for _ in range(2)]
    for bench, cut in zip(runs, (False, True), strict=True):
        for number in range(1, 301):
            if cut and number == 100:
                bench.network.cut("f1", [LINK])
            bench.send(number)
            if cut and number == 102:
                bench.network.mend("f1")
        bench.drain()

    whole, cut_out = (sorted(bench.arrivals) for bench in runs)
    assert cut_out == [fate for fate in whole if fate[1] not in (100, 101, 102)]
    assert whole != cut_out


# ------------------------------------------------------------------ healing, and bytes


def test_mend_all_leaves_a_network_that_is_well() -> None:
    """No cut, no flakiness, no loss, no doubles, no stragglers, and order: like TCP between healthy machines."""
    bench = Bench(loss=0.5, double=0.5, straggle=0.5, late_ns=60 * NS, delay_ns=1_000_000)
    bench.network.cut("f1", [LINK])
    bench.network.make_flaky("f2", 0.5)
    bench.network.mend_all()
    bench.network.mend("f1")

    bench.send_many(1000, every_ns=10_000)

    assert bench.got() == list(range(1, 1001))
    # In order each may have to wait for the one before it, and no longer.
    assert max(bench.delays()) <= 1_050_000


def test_what_was_on_its_way_is_lost_with_the_old_links() -> None:
    """A heartbeat from before the heal that comes seconds after it would keep followers loyal to nobody."""
    bench = Bench(straggle=1.0, late_ns=3 * NS)
    for number in range(1, 101):
        bench.send(number)
    bench.network.mend_all()
    bench.send(101)
    bench.drain()

    assert bench.got() == [101]


TRAVELLERS: tuple[PeerMessage, ...] = (
    numbered(3),
    AppendEntries(
        term=Term(4),
        prev_log_index=Index(2),
        prev_log_term=Term(3),
        leader_commit=Index(1),
        round=9,
        entries=(Entry(Term(4), EntryKind.COMMAND, 77, b"\x00\xff"),),
    ),
    ForwardWrites(term=Term(4), epoch=2, requests=((RequestId(1), b"one"), (RequestId(2), b""))),
    ReadAnswers(epoch=2, answers=((RequestId(1), None), (RequestId(2), Index(8)))),
)


@pytest.mark.parametrize("message", TRAVELLERS)
def test_messages_travel_as_bytes_if_asked(message: PeerMessage) -> None:
    """Through the codec that ships: the same value, and another object."""
    plain, encoded = Bench(encoded=False), Bench(encoded=True)
    for bench in (plain, encoded):
        bench.network.send(*LINK, message)
        bench.drain()

    assert plain.received == encoded.received == [message]
    assert plain.received[0] is message
    assert encoded.received[0] is not message


def test_encoding_changes_no_fate() -> None:
    """Bytes or not, the same messages are lost, doubled and late."""
    runs = [Bench(encoded=encoded, **ROUGH) for encoded in (False, True)]
    for bench in runs:
        bench.send_many(300)

    assert runs[0].arrivals == runs[1].arrivals
