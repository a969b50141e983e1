"""``Reads``: whom each open read asks, and what it waits for."""

from __future__ import annotations

from huton.errors import NoLeader
from huton.raft.types import Index, NodeId, RaftConfig, RequestId, Term
from huton.replica import Answer, ReplicaConfig, ViewReady
from huton.replica.reads import Reads

ME, OTHER = NodeId("me"), NodeId("other")


def make_reads(request_timeout_ns: int = 100) -> Reads:
    return Reads(ReplicaConfig(raft=RaftConfig(id=ME), request_timeout_ns=request_timeout_ns))


def test_views_open_in_the_order_of_their_indexes() -> None:
    """A read is served once its index is applied, not before."""
    reads = make_reads()
    reads.add(0, [RequestId(1), RequestId(2)])
    reads.take(0, (OTHER, Term(1)))
    reads.indexed(RequestId(1), Index(5))
    reads.indexed(RequestId(2), Index(3))

    reads.applied(Index(4))
    assert reads.answers == [ViewReady(RequestId(2), Index(4))]
    reads.applied(Index(5))
    assert reads.answers[1:] == [ViewReady(RequestId(1), Index(5))]


def test_a_refused_read_waits_for_the_next_leader() -> None:
    """A leader that restarted leads no more, and its followers learn it later: they must not ask in circles."""
    reads = make_reads()
    reads.add(0, [RequestId(1)])
    assert reads.take(0, (OTHER, Term(1))) == (1,)

    reads.indexed(RequestId(1), None)
    reads.indexed(RequestId(1), None)
    assert reads.take(0, (OTHER, Term(1))) == ()

    reads.lose_contact((ME, Term(2)))
    assert reads.take(0, (ME, Term(2))) == (1,)
    assert reads.take(0, (ME, Term(2))) == ()


def test_a_refused_read_is_asked_again_after_an_election_timeout() -> None:
    """Perhaps the refusal came late, from a time before this leader led."""
    reads = make_reads(request_timeout_ns=10_000_000_000)
    reads.add(0, [RequestId(1)])
    reads.take(0, (OTHER, Term(1)))
    reads.indexed(RequestId(1), None)
    again = reads.deadline()
    assert again is not None

    reads.expire(again)

    assert reads.take(again, (OTHER, Term(1))) == (1,)


def test_a_read_that_waits_for_its_index_ends_at_its_deadline_too() -> None:
    """A follower that hears nothing more would let its caller hang."""
    reads = make_reads()
    reads.add(0, [RequestId(1), RequestId(2), RequestId(3)])
    reads.take(0, (OTHER, Term(1)))
    for number, index in ((1, 9), (2, 7), (3, 8)):
        reads.indexed(RequestId(number), Index(index))
    reads.applied(Index(7))
    assert reads.answers == [ViewReady(RequestId(2), Index(7))]
    assert reads.deadline() == 100

    reads.expire(100)

    late = reads.answers[1:]
    assert [answer.id for answer in late] == [1, 3]
    assert all(isinstance(answer, Answer) and isinstance(answer.result, NoLeader) for answer in late)
    reads.applied(Index(9))
    assert len(reads.answers) == 3
    assert reads.deadline() is None


def test_an_answered_read_is_not_asked_about_again() -> None:
    """It only waits to be applied, whoever leads."""
    reads = make_reads(request_timeout_ns=10_000_000_000)
    reads.add(0, [RequestId(1)])
    reads.take(0, (OTHER, Term(1)))
    reads.indexed(RequestId(1), Index(9))

    reads.lose_contact((OTHER, Term(2)))
    reads.indexed(RequestId(1), Index(5))
    reads.expire(5_000_000_000)

    assert reads.take(5_000_000_000, (OTHER, Term(2))) == ()
    reads.applied(Index(8))
    assert reads.answers == []
    reads.applied(Index(9))
    assert reads.answers == [ViewReady(RequestId(1), Index(9))]
