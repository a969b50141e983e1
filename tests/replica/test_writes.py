"""``Writes``: where each open write is, how often it was tried, and how it ends."""

from __future__ import annotations

from huton.errors import CommandFailed, NoLeader, OutcomeUnknown, Overloaded, SessionExpired, StorageFull
from huton.raft.types import NodeId, RaftConfig, RequestId, Term
from huton.replica import Answer, ReplicaConfig
from huton.replica.sessions import REGISTER, encode_command
from huton.replica.writes import Leadership, Writes
from huton.wire import Outcome, OutcomeStatus

ME, OTHER = NodeId("me"), NodeId("other")
FIRST, SECOND = (OTHER, Term(1)), (OTHER, Term(3))
TIMEOUT = 100


def make_writes(*, session: int | None = 7, requests_bytes_max: int = 1000, idle_ns: int = 4 * 10**12) -> Writes:
    """Return open writes of "me", which has opened *session* at time 0, if any."""
    writes = Writes(
        ReplicaConfig(
            raft=RaftConfig(id=ME),
            request_timeout_ns=TIMEOUT,
            requests_bytes_max=requests_bytes_max,
            session_idle_ns=idle_ns,
        )
    )
    if session is not None:
        add(writes, 0)
        ((ticket, _),) = writes.take(0, FIRST)
        writes.end_try(ticket, registered(session))
        ((ticket, _),) = writes.take(0, FIRST)
        writes.end_try(ticket, Outcome(OutcomeStatus.DONE))
        writes.answers.clear()
    return writes


def registered(session: int) -> Outcome:
    return Outcome(OutcomeStatus.DONE, session.to_bytes(8, "big"))


def add(writes: Writes, *ids: int, now: int = 0) -> None:
    writes.add(now, [(RequestId(id), b"%d" % id) for id in ids], None)


def take(writes: Writes, leader: Leadership, *, now: int = 0) -> list[RequestId]:
    """Return the tickets of what *leader* is given."""
    return [ticket for ticket, _ in writes.take(now, leader)]


def results(writes: Writes) -> dict[int, object]:
    assert all(isinstance(answer, Answer) for answer in writes.answers)
    return {answer.id: answer.result for answer in writes.answers}


def test_the_first_write_opens_a_session() -> None:
    """It waits for that, and then bears the session's id, its number, and what was answered."""
    writes = make_writes(session=None)
    add(writes, 1, 2)

    ((ticket, command),) = writes.take(0, FIRST)
    assert command == REGISTER
    assert writes.take(0, FIRST) == (), "one question is enough"
    writes.end_try(ticket, registered(7))
    (first, one), (second, two) = writes.take(0, FIRST)

    assert first < second
    assert (one, two) == (encode_command(7, 1, 1, b"1"), encode_command(7, 2, 1, b"2"))
    writes.end_try(first, Outcome(OutcomeStatus.DONE, b"done"))
    add(writes, 3)
    assert [command for _, command in writes.take(0, FIRST)] == [encode_command(7, 3, 2, b"3")]


def test_a_lost_question_for_a_session_is_asked_again() -> None:
    """After an election timeout, or of the next leader."""
    writes = make_writes(session=None)
    add(writes, 1)
    take(writes, FIRST)
    later = RaftConfig(id=ME).election_timeout_ns
    add(writes, 2, now=later)
    writes.expire(later)
    assert len(take(writes, FIRST, now=later)) == 1

    writes.lose_contact(SECOND)

    (ticket,) = take(writes, SECOND, now=later)
    writes.end_try(ticket, Outcome(OutcomeStatus.NOT_LEADER))
    assert take(writes, SECOND, now=later) == [], "it is not asked again at once"


def test_a_session_that_was_idle_is_not_used_again() -> None:
    """It may be over by cluster time; what is tried in a new one is in no doubt."""
    writes = make_writes(idle_ns=400)
    add(writes, 1, now=99)
    assert [command for _, command in writes.take(99, FIRST)] == [encode_command(7, 2, 2, b"1")]
    add(writes, 2, now=100)

    assert [command for _, command in writes.take(100, FIRST)] == [REGISTER]


def test_what_a_lost_leader_was_given_goes_to_the_next() -> None:
    """Under the same name, in the order of the callers, before younger writes."""
    writes = make_writes()
    add(writes, 1, 2)
    tickets = take(writes, FIRST)
    add(writes, 3)

    writes.lose_contact(SECOND)
    again = writes.take(0, SECOND)

    assert [command for _, command in again] == [encode_command(7, id + 1, 2, b"%d" % id) for id in (1, 2, 3)]
    assert min(ticket for ticket, _ in again) > max(tickets)


def test_any_try_may_bring_the_answer() -> None:
    """The first was late, not lost."""
    writes = make_writes()
    add(writes, 1)
    (first,) = take(writes, FIRST)
    writes.lose_contact(None)
    (second,) = take(writes, FIRST)

    writes.end_try(first, Outcome(OutcomeStatus.DONE, b"done"))
    writes.end_try(second, Outcome(OutcomeStatus.DONE, b"done"))

    assert writes.answers == [Answer(RequestId(1), b"done")]


def test_a_doubled_refusal_does_not_take_a_write_back_from_the_next_leader() -> None:
    """Each try has a ticket of its own; the next leader may have appended the write."""
    writes = make_writes()
    add(writes, 1)
    (first,) = take(writes, FIRST)
    refused = Outcome(OutcomeStatus.NOT_LEADER)
    writes.end_try(first, refused)
    assert take(writes, FIRST) == [], "it is not offered again to whoever refused it"
    assert len(take(writes, SECOND)) == 1

    writes.end_try(first, refused)

    assert take(writes, (OTHER, Term(4))) == []
    writes.expire(TIMEOUT)
    assert isinstance(results(writes)[1], OutcomeUnknown)


def test_what_this_nodes_own_core_was_given_ends_there() -> None:
    """A committed write waits to be applied while leadership goes elsewhere: its answer still comes."""
    writes = make_writes()
    add(writes, 1)
    (ticket,) = take(writes, (ME, Term(1)))

    writes.lose_contact((OTHER, Term(2)))

    assert take(writes, (OTHER, Term(2))) == []
    writes.end_try(ticket, Outcome(OutcomeStatus.DONE, b"done"))
    assert writes.answers == [Answer(RequestId(1), b"done")]


def test_refused_writes_go_out_again_before_younger_ones() -> None:
    """Writes that succeed take effect in the order in which their caller made them."""
    writes = make_writes()
    add(writes, 1, 2)
    first, second = take(writes, FIRST)
    add(writes, 3)
    writes.end_try(second, Outcome(OutcomeStatus.NOT_LEADER))
    writes.end_try(first, Outcome(OutcomeStatus.UNKNOWN))

    assert [command[-1:] for _, command in writes.take(0, (ME, Term(2)))] == [b"1", b"2", b"3"]


def test_nothing_was_written_is_said_only_when_it_is_certain() -> None:
    """Every try was refused for good; one that ended in doubt may still take effect."""
    writes = make_writes()
    add(writes, 1, 2, 3)
    certain, doubtful, _ = take(writes, FIRST)
    writes.end_try(certain, Outcome(OutcomeStatus.NOT_LEADER))
    writes.end_try(doubtful, Outcome(OutcomeStatus.UNKNOWN))
    add(writes, 4, now=50)

    writes.expire(TIMEOUT)

    assert {id: type(result) for id, result in results(writes).items()} == {
        1: NoLeader,
        2: OutcomeUnknown,
        3: OutcomeUnknown,
    }


def test_a_leader_that_has_too_much_to_do_refuses_for_good() -> None:
    """Nothing was written, unless an earlier try is in doubt."""
    writes = make_writes()
    add(writes, 1, 2)
    (first, _) = take(writes, FIRST)
    full = Outcome(OutcomeStatus.OVERLOADED)
    writes.end_try(first, full)
    writes.lose_contact(SECOND)
    (again,) = take(writes, SECOND)
    writes.end_try(again, full)

    assert {id: type(result) for id, result in results(writes).items()} == {1: Overloaded, 2: OutcomeUnknown}


def test_the_answers_of_the_log() -> None:
    """Applied and failed, or overtaken by younger writes of this node."""
    writes = make_writes()
    add(writes, 1, 2)
    first, second = take(writes, FIRST)

    writes.end_try(first, Outcome(OutcomeStatus.OVERTAKEN))
    writes.end_try(second, Outcome(OutcomeStatus.FAILED, code="no", message="as asked"))

    assert isinstance(results(writes)[1], Overloaded)
    assert isinstance(results(writes)[2], CommandFailed)


def test_a_session_that_is_over_is_replaced_where_nothing_is_in_doubt() -> None:
    """The only try had no effect: the write is tried in a new session, and nobody is told."""
    writes = make_writes()
    add(writes, 1)
    (ticket,) = take(writes, FIRST)
    writes.end_try(ticket, Outcome(OutcomeStatus.SESSION_EXPIRED))

    ((ticket, command),) = writes.take(0, FIRST)
    assert command == REGISTER
    writes.end_try(ticket, registered(9))
    ((ticket, command),) = writes.take(0, FIRST)

    assert command == encode_command(9, 1, 1, b"1")


def test_a_session_that_is_over_leaves_a_lost_try_in_doubt() -> None:
    """The lost try may have been applied before the session ended; nobody knows any more."""
    writes = make_writes()
    add(writes, 1)
    take(writes, FIRST)
    writes.lose_contact(SECOND)
    (again,) = take(writes, SECOND)

    writes.end_try(again, Outcome(OutcomeStatus.SESSION_EXPIRED))

    assert isinstance(results(writes)[1], SessionExpired)


def test_two_tries_that_came_too_late_are_in_no_doubt() -> None:
    """Both were applied without effect; whichever is heard of last lets the write begin anew."""
    writes = make_writes()
    add(writes, 1)
    (first,) = take(writes, FIRST)
    writes.lose_contact(SECOND)
    (second,) = take(writes, SECOND)
    over = Outcome(OutcomeStatus.SESSION_EXPIRED)

    writes.end_try(first, over)
    assert writes.answers == []
    writes.end_try(second, over)

    assert [command for _, command in writes.take(0, SECOND)] == [REGISTER]


def test_without_room_for_a_session_nothing_is_written() -> None:
    """The leader refuses the registration: the writes that wait for it are refused, too."""
    writes = make_writes(session=None)
    add(writes, 1)
    (ticket,) = take(writes, FIRST)

    writes.end_try(ticket, Outcome(OutcomeStatus.STORAGE_FULL))

    assert isinstance(results(writes)[1], StorageFull)
    add(writes, 2)
    assert len(take(writes, FIRST)) == 1, "there may be room by now"


def test_open_writes_are_bounded_in_bytes() -> None:
    """Every queue has a bound that is named: requests_bytes_max. One write alone is always taken."""
    writes = make_writes(requests_bytes_max=10)
    writes.add(0, [(RequestId(1), b"x" * 20), (RequestId(2), b"y")], None)
    assert {id: type(result) for id, result in results(writes).items()} == {2: Overloaded}

    (ticket,) = take(writes, FIRST)
    writes.end_try(ticket, Outcome(OutcomeStatus.DONE))
    writes.add(0, [(RequestId(3), b"x" * 6), (RequestId(4), b"y" * 4), (RequestId(5), b"z")], None)

    assert [answer.id for answer in writes.answers] == [2, 1, 5]


def test_nothing_is_left_to_wait_for_once_all_is_answered() -> None:
    """``deadline()`` is None without open requests, so that an idle node sleeps."""
    writes = make_writes()
    assert writes.deadline() is None
    add(writes, 1)
    assert writes.deadline() == TIMEOUT
    writes.expire(TIMEOUT)
    assert writes.deadline() is None


def test_what_is_over_is_not_waited_with() -> None:
    """Without a leader for a long time, callers come and go; nothing of them stays."""
    writes = make_writes()
    for now in range(0, 50 * TIMEOUT, TIMEOUT):
        add(writes, now + 1, now=now)
        writes.expire(now + TIMEOUT)
    assert len(writes.answers) == 50

    assert writes._waiting == []
