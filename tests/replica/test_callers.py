"""``Callers``: where each open request is."""

from __future__ import annotations

from huton.errors import OutcomeUnknown, Overloaded
from huton.raft.types import Index, NodeId, RaftConfig, RequestId, Term
from huton.replica import Answer, ReplicaConfig, ViewReady
from huton.replica.callers import Callers

ME, OTHER = NodeId("me"), NodeId("other")


def make_callers() -> Callers:
    return Callers(ReplicaConfig(raft=RaftConfig(id=ME), request_timeout_ns=100))


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
