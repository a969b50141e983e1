"""A network that loses, doubles, delays and reorders, and lets nothing through where it is cut (D5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from huton.sim.draws import RANGE, Draws
from huton.sim.schedule import NS
from huton.wire import PeerMessage, decode_message, encode_message

__all__ = ["Network", "NetworkOptions"]

US: Final = 1000


@attrs.frozen(kw_only=True)
class NetworkOptions:
    """What a network does all the time; a ``flaky`` fault adds to it.

    Attributes:
        loss: share of messages that are lost.
        double: share of messages that arrive twice, the second one up to ``late_ns`` later.
        delay_ns: the usual longest delay; each message draws its own, so they overtake each other.
        straggle: share of messages that are delayed up to ``late_ns``.
        late_ns: how late the latest may be; more than an election, and than a restart.
        ordered: whether messages of one link arrive in the order in which they were sent, as on a TCP
            connection. Doubles and stragglers do not.
        encoded: whether messages travel as bytes, through the codec that ships.
    """

    loss: float = 0.0
    double: float = 0.0
    delay_ns: int = 2_000 * US
    straggle: float = 0.0
    late_ns: int = 3 * NS
    ordered: bool = False
    encoded: bool = False


class Network:
    """Delivers messages between names.

    What happens to a message is drawn under the message's own name: its link and its number there.

    Args:
        options: what it does all the time.
        draws: chance.
        clock: returns the time.
        schedule: calls a function after so many nanoseconds.
        deliver: takes a message: (from, to, message).
    """

    def __init__(
        self,
        options: NetworkOptions,
        draws: Draws,
        clock: Callable[[], int],
        schedule: Callable[[int, Callable[[], None]], None],
        deliver: Callable[[str, str, PeerMessage], None],
    ) -> None:
        self._options = options
        self._draws = draws
        self._clock = clock
        self._schedule = schedule
        self._deliver = deliver
        self._sent: dict[tuple[str, str], int] = {}
        self._next_at: dict[tuple[str, str], int] = {}
        self._cuts: dict[str, tuple[tuple[str, str], ...]] = {}
        self._cut_links: dict[tuple[str, str], int] = {}
        self._flaky: dict[str, float] = {}
        self._era = 0
        self.delivered = 0
        self.lost = 0

    def send(self, source: str, target: str, message: PeerMessage) -> None:
        """Send *message*; it arrives never, once or twice."""
        link = (source, target)
        number = self._sent[link] = self._sent.get(link, 0) + 1
        if link in self._cut_links:
            self.lost += 1
            return
        options = self._options
        flaky = RANGE * sum(self._flaky.values())
        loss, double, double_delay, straggle, delay, *_ = self._draws.numbers("message", source, target, number)
        if loss < RANGE * options.loss + flaky:
            self.lost += 1
            return
        data = encode_message(message) if options.encoded else None
        era = self._era

        def arrive() -> None:
            if era == self._era:
                self._arrive(link, message, data)

        if straggle < RANGE * options.straggle + flaky:
            self._schedule(options.late_ns * delay // RANGE, arrive)
        else:
            self._schedule(self._usual_delay(link, delay / RANGE), arrive)
        if double < RANGE * options.double + flaky:
            self._schedule(options.late_ns * double_delay // RANGE, arrive)

    def passes(self, one: str, other: str) -> bool:
        """Return whether a stream between the two would work: nothing is cut, in either direction."""
        return (one, other) not in self._cut_links and (other, one) not in self._cut_links

    def _usual_delay(self, link: tuple[str, str], fraction: float) -> int:
        # Most are quick and some are slow, as on a real network: the square of a uniform draw.
        delay = 50 * US + int(self._options.delay_ns * fraction**2)
        if self._options.ordered:
            now = self._clock()
            self._next_at[link] = max(now + delay, self._next_at.get(link, 0) + 1)
            delay = self._next_at[link] - now
        return delay

    def _arrive(self, link: tuple[str, str], message: PeerMessage, data: bytes | None) -> None:
        if link in self._cut_links:
            self.lost += 1
            return
        self.delivered += 1
        self._deliver(*link, message if data is None else decode_message(data))

    # ------------------------------------------------------------------ faults

    def cut(self, fault: str, links: Iterable[tuple[str, str]]) -> None:
        """Let nothing pass on *links*, and nothing that is on its way there, until ``mend``."""
        self.mend(fault)
        self._cuts[fault] = tuple(links)
        for link in self._cuts[fault]:
            self._cut_links[link] = self._cut_links.get(link, 0) + 1

    def make_flaky(self, fault: str, amount: float) -> None:
        """Lose, double and delay *amount* more of all messages until ``mend``."""
        self._flaky[fault] = amount

    def mend(self, fault: str) -> None:
        """End what *fault* did; nothing if it has ended."""
        self._flaky.pop(fault, None)
        for link in self._cuts.pop(fault, ()):
            self._cut_links[link] -= 1
            if not self._cut_links[link]:
                del self._cut_links[link]

    def mend_all(self) -> None:
        """End every fault; from now on be like TCP between machines that are well.

        All links begin anew: what is still on its way, perhaps for seconds more, is lost.
        """
        self._era += 1
        self._options = attrs.evolve(self._options, loss=0.0, double=0.0, straggle=0.0, ordered=True)
        self._flaky.clear()
        self._cuts.clear()
        self._cut_links.clear()


def links_between(groups: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Return every link from a name in one of *groups* to one in another."""
    return [
        (source, target)
        for position, group in enumerate(groups)
        for other_position, other in enumerate(groups)
        if position != other_position
        for source in group
        for target in other
    ]
