"""``Callers``: where each open request is."""

from __future__ import annotations

from huton.errors import NoLeader, OutcomeUnknown, Overloaded
from huton.raft.types import Index, NodeId, RaftConfig, RequestId, Term
from huton.replica import Answer, ReplicaConfig, ViewReady
from huton.replica.callers import Callers

ME, OTHER = NodeId("me"), NodeId("other")


def make_callers(request_timeout_ns: int = 100) -> Callers:
    return Callers(ReplicaConfig(raft=RaftConfig(id=ME), request_timeout_ns=request_timeout_ns))


def test_a_doubled_refusal_does_not_take_a_write_back_from_the_next_leader() -> None:
    """The refusal names the term of the try it belongs to; the next leader may have appended the write."""
    callers = make_callers()
    callers.add_writes(0, [(RequestId(1), b"x")], None)
    first, second = (OTHER, Term(1)), (OTHER, Term(3))
    assert callers.writes_for(first) == ((1, b"x"),)
    callers.refuse_write(RequestId(1), first)
    assert callers.writes_for(first) == (), "it is not offered again to whoever refused it"
    assert callers.writes_for(second) == ((1, b"x"),)

    callers.refuse_write(RequestId(1), first)

    assert callers.writes_for((OTHER, Term(4))) == ()
    callers.expire(100)
    (answer,) = callers.answers
    assert isinstance(answer, Answer)
    assert isinstance(answer.result, OutcomeUnknown)


def test_what_this_nodes_own_core_was_given_ends_there() -> None:
    """A committed write waits to be applied while leadership goes elsewhere: its answer still comes."""
    callers = make_callers()
    callers.add_writes(0, [(RequestId(1), b"x")], None)
    callers.writes_for((ME, Term(1)))

    callers.lose_contact((OTHER, Term(2)))

    assert callers.answers == []
    callers.answer_write(RequestId(1), b"done")
    assert callers.answers == [Answer(RequestId(1), b"done")]


def test_refused_writes_go_out_again_before_younger_ones() -> None:
    """Writes that succeed take effect in the order in which their caller made them."""
    callers = make_callers()
    callers.add_writes(0, [(RequestId(1), b"a"), (RequestId(2), b"b")], None)
    callers.writes_for((OTHER, Term(1)))
    callers.add_writes(0, [(RequestId(3), b"c")], None)
    callers.refuse_write(RequestId(2), (OTHER, Term(1)))
    callers.refuse_write(RequestId(1), (OTHER, Term(1)))

    assert [id for id, _ in callers.writes_for((ME, Term(2)))] == [1, 2, 3]


def test_views_open_in_the_order_of_their_indexes() -> None:
    """A read is served once its index is applied, not before."""
    callers = make_callers()
    callers.add_reads(0, [RequestId(1), RequestId(2)])
    callers.reads_for(0, (OTHER, Term(1)))
    callers.read_index(RequestId(1), Index(5))
    callers.read_index(RequestId(2), Index(3))

    callers.applied(Index(4))
    assert callers.answers == [ViewReady(RequestId(2), Index(4))]
    callers.applied(Index(5))
    assert callers.answers[1:] == [ViewReady(RequestId(1), Index(5))]


def test_open_writes_are_bounded_in_bytes() -> None:
    """Every queue has a bound that is named: requests_bytes_max. One write alone is always taken."""
    config = ReplicaConfig(raft=RaftConfig(id=ME), request_timeout_ns=100, requests_bytes_max=10)
    callers = Callers(config)
    callers.add_writes(0, [(RequestId(1), b"x" * 20), (RequestId(2), b"y")], None)
    (answer,) = callers.answers
    assert isinstance(answer, Answer)
    assert answer.id == 2
    assert isinstance(answer.result, Overloaded)

    callers.answer_write(RequestId(1), b"done")
    callers.add_writes(0, [(RequestId(3), b"x" * 6), (RequestId(4), b"y" * 4), (RequestId(5), b"z")], None)

    assert [answer.id for answer in callers.answers] == [2, 1, 5]


def test_nothing_is_left_to_wait_for_once_all_is_answered() -> None:
    """``deadline()`` is None without open requests, so that an idle node sleeps."""
    callers = make_callers()
    assert callers.deadline() is None
    callers.add_writes(0, [(RequestId(1), b"x")], None)
    assert callers.deadline() == 100
    callers.expire(100)
    assert callers.deadline() is None


def test_a_refused_read_waits_for_the_next_leader() -> None:
    """A leader that restarted leads no more, and its followers learn it later: they must not ask in circles."""
    callers = make_callers()
    callers.add_reads(0, [RequestId(1)])
    assert callers.reads_for(0, (OTHER, Term(1))) == (1,)

    callers.read_index(RequestId(1), None)
    callers.read_index(RequestId(1), None)
    assert callers.reads_for(0, (OTHER, Term(1))) == ()

    callers.lose_contact((ME, Term(2)))
    assert callers.reads_for(0, (ME, Term(2))) == (1,)
    assert callers.reads_for(0, (ME, Term(2))) == ()


def test_a_refused_read_is_asked_again_after_an_election_timeout() -> None:
    """Perhaps the refusal came late, from a time before this leader led."""
    callers = make_callers(request_timeout_ns=10_000_000_000)
    callers.add_reads(0, [RequestId(1)])
    callers.reads_for(0, (OTHER, Term(1)))
    callers.read_index(RequestId(1), None)
    again = callers.deadline()
    assert again is not None

    callers.expire(again)

    assert callers.reads_for(again, (OTHER, Term(1))) == (1,)


def test_a_read_that_waits_for_its_index_ends_at_its_deadline_too() -> None:
    """A follower that hears nothing more would let its caller hang."""
    callers = make_callers()
    callers.add_reads(0, [RequestId(1), RequestId(2), RequestId(3)])
    callers.reads_for(0, (OTHER, Term(1)))
    for number, index in ((1, 9), (2, 7), (3, 8)):
        callers.read_index(RequestId(number), Index(index))
    callers.applied(Index(7))
    assert callers.answers == [ViewReady(RequestId(2), Index(7))]
    assert callers.deadline() == 100

    callers.expire(100)

    late = callers.answers[1:]
    assert [answer.id for answer in late] == [1, 3]
    assert all(isinstance(answer, Answer) and isinstance(answer.result, NoLeader) for answer in late)
    callers.applied(Index(9))
    assert len(callers.answers) == 3
    assert callers.deadline() is None


def test_an_answered_read_is_not_asked_about_again() -> None:
    """It only waits to be applied, whoever leads."""
    callers = make_callers(request_timeout_ns=10_000_000_000)
    callers.add_reads(0, [RequestId(1)])
    callers.reads_for(0, (OTHER, Term(1)))
    callers.read_index(RequestId(1), Index(9))

    callers.lose_contact((OTHER, Term(2)))
    callers.read_index(RequestId(1), Index(5))
    callers.expire(5_000_000_000)

    assert callers.reads_for(5_000_000_000, (OTHER, Term(2))) == ()
    callers.applied(Index(8))
    assert callers.answers == []
    callers.applied(Index(9))
    assert callers.answers == [ViewReady(RequestId(1), Index(9))]
