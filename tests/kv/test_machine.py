"""What each command does to the state, and what readers see of it."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from huton.errors import CommandFailed, CompareFailed, InvalidRequest, NotAnInteger
from huton.kv.commands import (
    BAD_COMMAND,
    INTEGER_MAX,
    INTEGER_MIN,
    Answer,
    Command,
    CompareAndSet,
    Delete,
    Deleted,
    Increment,
    Incremented,
    OnlyIf,
    Revised,
    Set,
    SetMany,
    decode_answer,
    encode_command,
)
from huton.kv.machine import KeyValue, KeyValueMachine, buckets, count, get_entry, get_value, scan
from huton.kv.statemachine import ApplyContext
from huton.storage.overlay import Overlay
from tests.storage.plain import DictState


class Untouchable:
    """A StateWriter that may be read, and fails the test when a command writes to it."""

    def __init__(self, state: Overlay) -> None:
        self.get = state.get
        self.scan = state.scan

    def put(self, key: bytes, value: bytes) -> None:
        raise AssertionError(f"a failing command wrote {key!r}")

    def delete(self, key: bytes) -> None:
        raise AssertionError(f"a failing command deleted {key!r}")


class World:
    """One machine over its state, which applies commands at ascending indexes."""

    def __init__(self) -> None:
        self.state = Overlay(DictState())
        self.machine = KeyValueMachine()
        self.index = 0

    def apply(self, command: Command) -> Answer:
        return decode_answer(self.apply_bytes(encode_command(command)))

    def apply_bytes(self, command: bytes) -> bytes:
        self.index += 1
        context = ApplyContext(self.index, stamp=self.index)
        transaction = self.state.begin()
        try:
            answer = self.machine.apply(context, command, transaction)
        except CommandFailed:
            with pytest.raises(CommandFailed):
                self.machine.apply(context, command, Untouchable(self.state))
            raise
        transaction.commit()
        return answer

    def contents(self) -> list[tuple[bytes, bytes]]:
        return list(self.state.scan(b"", None))


@pytest.fixture
def world() -> World:
    return World()


def test_set_creates_then_changes(world: World) -> None:
    """DESIGN section 4: every key has create_revision, mod_revision (the log index of its last change) and version."""
    assert world.apply(Set(b"b", b"k", b"one")) == Revised(1)
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"one", create_revision=1, mod_revision=1, version=1)

    assert world.apply(Set(b"b", b"k", b"")) == Revised(2)
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"", create_revision=1, mod_revision=2, version=2)


def test_empty_value_is_a_value(world: World) -> None:
    """A key with an empty value exists; None means that there is no such key."""
    world.apply(Set(b"b", b"k", b""))

    assert get_value(world.state, b"b", b"k") == b""
    assert get_value(world.state, b"b", b"other") is None
    assert get_entry(world.state, b"b", b"other") is None
    assert count(world.state, b"b") == 1


def test_deleted_key_starts_again_at_version_1(world: World) -> None:
    """A key that is created again is a new key, at a higher revision: a fencing token still grows."""
    world.apply(SetMany(b"b", ((b"k", b"1"),)))
    world.apply(Set(b"b", b"k", b"2"))

    assert world.apply(Delete(b"b", (b"k",))) == Deleted(1)
    assert get_entry(world.state, b"b", b"k") is None

    world.apply(Set(b"b", b"k", b"3"))
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"3", create_revision=4, mod_revision=4, version=1)


def test_bucket_exists_while_it_holds_a_key(world: World) -> None:
    """A bucket is made by its first key and goes with its last one."""
    assert buckets(world.state) == []

    world.apply(SetMany(b"two", ((b"x", b""), (b"y", b""))))
    world.apply(Set(b"one", b"x", b""))
    assert buckets(world.state) == [b"one", b"two"]
    assert (count(world.state, b"one"), count(world.state, b"two"), count(world.state, b"three")) == (1, 2, 0)

    world.apply(Delete(b"two", (b"x", b"y")))
    assert buckets(world.state) == [b"one"]
    world.apply(Delete(b"one", (b"x",)))
    assert world.contents() == []


def test_buckets_with_alike_names_do_not_meet(world: World) -> None:
    """b"a" + b"bc" and b"ab" + b"c" are two keys, and no scan of one bucket shows the other's."""
    world.apply(Set(b"a", b"bc", b"1"))
    world.apply(Set(b"ab", b"c", b"2"))
    world.apply(Set(b"\xff", b"\xff", b"3"))

    assert [(entry.key, entry.value) for entry in scan(world.state, b"a")] == [(b"bc", b"1")]
    assert [(entry.key, entry.value) for entry in scan(world.state, b"ab")] == [(b"c", b"2")]
    assert [(entry.key, entry.value) for entry in scan(world.state, b"\xff")] == [(b"\xff", b"3")]
    assert get_value(world.state, b"a", b"c") is None


def test_set_only_if_absent_or_present(world: World) -> None:
    """A condition that does not hold is CompareFailed, and changes nothing."""
    with pytest.raises(CompareFailed, match="does not exist"):
        world.apply(Set(b"b", b"k", b"1", "present"))
    assert world.apply(Set(b"b", b"k", b"1", "absent")) == Revised(2)
    with pytest.raises(CompareFailed, match="exists already"):
        world.apply(Set(b"b", b"k", b"2", "absent"))
    assert world.apply(Set(b"b", b"k", b"2", "present")) == Revised(4)
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"2", 2, 4, 2)


def test_compare_and_set_takes_the_revision_it_read_and_no_other(world: World) -> None:
    """0 stands for a key that does not exist; else it is the mod_revision."""
    with pytest.raises(CompareFailed, match=re.escape("the key is absent, expected at revision 1")):
        world.apply(CompareAndSet(b"b", b"k", b"1", 1))
    assert world.apply(CompareAndSet(b"b", b"k", b"1", 0)) == Revised(2)
    with pytest.raises(CompareFailed, match=re.escape("the key is at revision 2, expected absent")):
        world.apply(CompareAndSet(b"b", b"k", b"2", 0))
    world.apply(Set(b"b", b"k", b"2"))
    with pytest.raises(CompareFailed):
        world.apply(CompareAndSet(b"b", b"k", b"3", 2))
    assert world.apply(CompareAndSet(b"b", b"k", b"3", 4)) == Revised(6)
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"3", 2, 6, 3)


def test_increment_counts_from_nothing(world: World) -> None:
    """A missing key counts as 0; the value stays readable as a decimal."""
    assert world.apply(Increment(b"b", b"k")) == Incremented(1)
    assert world.apply(Increment(b"b", b"k", -43)) == Incremented(-42)
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"-42", 1, 2, 2)
    assert world.apply(Increment(b"b", b"zero", 0)) == Incremented(0)
    assert count(world.state, b"b") == 2


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b" 1",
        b"1 ",
        b"1\n",
        b"+1",
        b"-0",
        b"00",
        b"01",
        b"1.0",
        b"1_0",
        "\N{ARABIC-INDIC DIGIT ONE}".encode(),
        b"9223372036854775808",
        b"-9223372036854775809",
        b"1" * 5_000,
    ],
)
def test_increment_refuses_what_is_no_integer(world: World, value: bytes) -> None:
    """As in redis: one spelling for each integer of 64 bits, and nothing else."""
    world.apply(Set(b"b", b"k", value))

    for amount in (1, -1):
        with pytest.raises(NotAnInteger):
            world.apply(Increment(b"b", b"k", amount))
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", value, 1, 1, 1)


@pytest.mark.parametrize(("start", "step"), [(INTEGER_MAX, 1), (INTEGER_MIN, -1), (INTEGER_MIN, INTEGER_MIN)])
def test_increment_does_not_overflow(world: World, start: int, step: int) -> None:
    """A sum that needs more than 64 bits is refused, not wrapped around; the ends themselves are reached."""
    assert world.apply(Increment(b"b", b"k", start)) == Incremented(start)

    with pytest.raises(NotAnInteger):
        world.apply(Increment(b"b", b"k", step))
    assert get_value(world.state, b"b", b"k") == b"%d" % start


def test_key_given_twice_in_one_command_changes_once(world: World) -> None:
    """All of a command happens at one revision: the last value counts, one version, one in the count."""
    world.apply(SetMany(b"b", ((b"k", b"1"), (b"l", b"2"), (b"k", b"3"))))
    assert get_entry(world.state, b"b", b"k") == KeyValue(b"k", b"3", 1, 1, 1)
    assert count(world.state, b"b") == 2

    assert world.apply(Delete(b"b", (b"k", b"k", b"missing"))) == Deleted(1)
    assert count(world.state, b"b") == 1


def test_bytes_that_are_no_command_fail_and_change_nothing(world: World) -> None:
    """The machine stands whatever the log holds, and the next command works."""
    world.apply(Set(b"b", b"k", b"v"))
    before = world.contents()

    for data in (b"", b"\x00", b"\xff" * 9, encode_command(Set(b"b", b"k" * 400, b""))[:-5]):
        with pytest.raises(CommandFailed) as caught:
            world.apply_bytes(data)
        assert caught.value.code == BAD_COMMAND

    assert world.contents() == before
    world.apply(Set(b"b", b"k", b"w"))


@pytest.mark.parametrize("error", [MemoryError(), OSError("the disk is gone")], ids=["memory", "disk"])
def test_trouble_of_this_node_is_no_outcome(error: Exception) -> None:
    """DESIGN section 4: "MemoryError and I/O errors are no outcomes: they stop the node"."""

    class Broken(Untouchable):
        def put(self, key: bytes, value: bytes) -> None:
            raise error

    with pytest.raises(type(error)):
        KeyValueMachine().apply(ApplyContext(1, 1), encode_command(Set(b"b", b"k", b"v")), Broken(Overlay(DictState())))


def test_longest_names_make_a_legal_state_key(world: World) -> None:
    """kv/statemachine.py, StateReader: "Keys are 1 to 500 bytes"."""
    world.apply(Set(b"b" * 64, b"k" * 400, b"v"))

    assert max(len(key) for key, _ in world.contents()) == 466
    assert get_value(world.state, b"b" * 64, b"k" * 400) == b"v"


def test_scan_refuses_bounds_that_no_key_can_have(world: World) -> None:
    """A longer one would be too long for the disk; an empty one means no bound."""
    with pytest.raises(InvalidRequest, match="a prefix of 402 bytes"):
        scan(world.state, b"b", b"p" * 402)
    with pytest.raises(InvalidRequest, match="limit is -1"):
        scan(world.state, b"b", limit=-1)


def test_scan_goes_on_page_by_page_behind_the_longest_key(world: World) -> None:
    """The next page starts at the last key and a zero byte, which is one byte longer than a key can be."""
    longest = [b"k" * 399 + bytes((last,)) for last in (1, 2, 3)]
    world.apply(SetMany(b"b", tuple((key, b"") for key in longest)))

    found: list[bytes] = []
    start = b""
    while page := scan(world.state, b"b", start=start, limit=1):
        found += [entry.key for entry in page]
        start = page[-1].key + b"\0"

    assert found == longest


# Few and close keys, so that commands meet; 0xff because nothing comes after it.
names = st.sampled_from((b"a", b"ab", b"b", b"\xff"))
keys = st.text("ab\xff", min_size=1, max_size=3).map(lambda text: text.encode("latin-1"))
bounds = st.text("ab\xff", max_size=3).map(lambda text: text.encode("latin-1"))
values = st.sampled_from((b"", b"x", b"0", b"-7", b"9223372036854775807"))


@attrs.define
class Known:
    """What the model holds of one key."""

    value: bytes
    create_revision: int
    mod_revision: int
    version: int


class MachineAgainstModel(RuleBasedStateMachine):
    """The machine beside plain dicts, which any reader can check by eye."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model: dict[bytes, dict[bytes, Known]] = {}

    def known(self, bucket: bytes, key: bytes) -> Known | None:
        return self.model.get(bucket, {}).get(key)

    def expect_set(self, bucket: bytes, key: bytes, value: bytes) -> None:
        revision = self.world.index
        old = self.known(bucket, key)
        if old is None:
            self.model.setdefault(bucket, {})[key] = Known(value, revision, revision, 1)
        else:
            old.value, old.mod_revision, old.version = value, revision, old.version + 1

    def expect_failure(self, command: Command, error: type[CommandFailed]) -> None:
        before = self.world.contents()
        with pytest.raises(error):
            self.world.apply(command)
        assert self.world.contents() == before

    @rule(bucket=names, key=keys, value=values, only_if=st.sampled_from(("absent", "present", None)))
    def set(self, bucket: bytes, key: bytes, value: bytes, only_if: OnlyIf | None) -> None:
        command = Set(bucket, key, value, only_if)
        exists = self.known(bucket, key) is not None
        if (only_if == "absent" and exists) or (only_if == "present" and not exists):
            self.expect_failure(command, CompareFailed)
        else:
            assert self.world.apply(command) == Revised(self.world.index)
            self.expect_set(bucket, key, value)

    @rule(bucket=names, items=st.lists(st.tuples(keys, values), min_size=1, max_size=5))
    def set_many(self, bucket: bytes, items: list[tuple[bytes, bytes]]) -> None:
        assert self.world.apply(SetMany(bucket, tuple(items))) == Revised(self.world.index)
        for key, value in dict(items).items():
            self.expect_set(bucket, key, value)

    @rule(bucket=names, wanted=st.lists(keys, min_size=1, max_size=5))
    def delete(self, bucket: bytes, wanted: list[bytes]) -> None:
        existing = self.model.get(bucket, {})
        deleted = [key for key in dict.fromkeys(wanted) if key in existing]
        assert self.world.apply(Delete(bucket, tuple(wanted))) == Deleted(len(deleted))
        for key in deleted:
            del existing[key]
        if not existing:
            self.model.pop(bucket, None)

    @rule(bucket=names, key=keys, value=values, guess=st.integers(0, 3) | st.none())
    def compare_and_set(self, bucket: bytes, key: bytes, value: bytes, guess: int | None) -> None:
        old = self.known(bucket, key)
        current = 0 if old is None else old.mod_revision
        expected = current if guess is None else guess
        command = CompareAndSet(bucket, key, value, expected)
        if expected == current:
            assert self.world.apply(command) == Revised(self.world.index)
            self.expect_set(bucket, key, value)
        else:
            self.expect_failure(command, CompareFailed)

    @rule(bucket=names, key=keys, amount=st.integers(-3, 3) | st.sampled_from((INTEGER_MIN, INTEGER_MAX)))
    def increment(self, bucket: bytes, key: bytes, amount: int) -> None:
        command = Increment(bucket, key, amount)
        old = self.known(bucket, key)
        try:
            total = amount + (0 if old is None else int(old.value))
        except ValueError:
            self.expect_failure(command, NotAnInteger)
            return
        if INTEGER_MIN <= total <= INTEGER_MAX:
            assert self.world.apply(command) == Incremented(total)
            self.expect_set(bucket, key, str(total).encode())
        else:
            self.expect_failure(command, NotAnInteger)

    @rule(
        bucket=names,
        prefix=bounds,
        start=bounds | st.none(),
        stop=bounds | st.none(),
        limit=st.integers(0, 4) | st.none(),
        reverse=st.booleans(),
    )
    def scan(
        self, bucket: bytes, prefix: bytes, start: bytes | None, stop: bytes | None, limit: int | None, reverse: bool
    ) -> None:
        expected = sorted(
            (
                key
                for key in self.model.get(bucket, {})
                if key.startswith(prefix) and (start is None or key >= start) and (stop is None or key < stop)
            ),
            reverse=reverse,
        )[:limit]
        found = scan(self.world.state, bucket, prefix, start=start, stop=stop, limit=limit, reverse=reverse)
        assert [entry.key for entry in found] == expected

    @invariant()
    def agrees_in_everything(self) -> None:
        state = self.world.state
        assert buckets(state) == sorted(self.model)
        for bucket, existing in self.model.items():
            assert count(state, bucket) == len(existing) > 0
            assert scan(state, bucket) == [
                KeyValue(key, known.value, known.create_revision, known.mod_revision, known.version)
                for key, known in sorted(existing.items())
            ]
            for key, known in existing.items():
                assert get_value(state, bucket, key) == known.value
                entry = get_entry(state, bucket, key)
                assert entry is not None
                assert (entry.create_revision, entry.mod_revision) == (known.create_revision, known.mod_revision)


TestMachineAgainstModel = MachineAgainstModel.TestCase

commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Set, names, keys, values, st.sampled_from(("absent", "present", None))),
    st.builds(SetMany, names, st.lists(st.tuples(keys, values), min_size=1, max_size=4).map(tuple)),
    st.builds(Delete, names, st.lists(keys, min_size=1, max_size=4).map(tuple)),
    st.builds(CompareAndSet, names, keys, values, st.integers(0, 9)),
    st.builds(Increment, names, keys, st.integers(-3, 3)),
)


@given(st.lists(commands.map(encode_command) | st.binary(max_size=5), max_size=30))
def test_two_machines_agree_to_the_byte(log: list[bytes]) -> None:
    """StateMachine: "the same commands in the same order give the same state and answers"."""
    outcomes = []
    worlds = (World(), World())
    for world in worlds:
        answers: list[bytes | tuple[str, str]] = []
        for command in log:
            try:
                answers.append(world.apply_bytes(command))
            except CommandFailed as error:
                answers.append((error.code, str(error)))
        outcomes.append(answers)

    assert outcomes[0] == outcomes[1]
    assert worlds[0].contents() == worlds[1].contents()
