"""Overlay and Transaction against one plain dict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from huton.storage.interface import PinnedState
from huton.storage.overlay import ENTRY_OVERHEAD_BYTES, INSERT_MAX, Overlay, Transaction
from tests.storage.plain import DictState, scan_dict

KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(1 + byte % 5 for byte in key))
VALUES = st.binary(max_size=3)
BOUNDS = st.one_of(st.just(b""), KEYS)


def apply_changes(items: dict[bytes, bytes], changes: tuple[tuple[bytes, bytes | None], ...]) -> None:
    for key, value in changes:
        if value is None:
            items.pop(key, None)
        else:
            items[key] = value


def commit(overlay: Overlay, *changes: tuple[bytes, bytes | None]) -> None:
    transaction = overlay.begin()
    for key, value in changes:
        if value is None:
            transaction.delete(key)
        else:
            transaction.put(key, value)
    transaction.commit()


class OverlayMachine(RuleBasedStateMachine):
    """Whatever is committed, sealed, checkpointed or dropped: readers see what one dict would show."""

    def __init__(self) -> None:
        super().__init__()
        self.base: dict[bytes, bytes] = {b"\x02": b"base", b"\x03\x01": b"base"}
        self.visible = dict(self.base)
        self.overlay = Overlay(DictState(self.base))
        self.transaction = self.overlay.begin()
        self.inside = dict(self.visible)
        self.sealed: tuple[tuple[bytes, bytes | None], ...] | None = None

    written = Bundle("written")
    pinned = Bundle("pinned")

    @rule(target=written, key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> bytes:
        self.transaction.put(key, value)
        self.inside[key] = value
        return key

    @rule(key=st.one_of(KEYS, written))
    def delete(self, key: bytes) -> None:
        self.transaction.delete(key)
        self.inside.pop(key, None)

    @rule(size=st.integers(0, 3 * INSERT_MAX))
    def put_many(self, size: int) -> None:
        for number in range(size):
            self.put(key=bytes([1 + number * 7 % 5, number]), value=b"many")

    @rule()
    def commit(self) -> None:
        self.transaction.commit()
        self.visible = dict(self.inside)
        self.transaction = self.overlay.begin()

    @rule()
    def drop(self) -> None:
        self.transaction = self.overlay.begin()
        self.inside = dict(self.visible)

    @precondition(lambda self: self.sealed is None)
    @rule()
    def seal(self) -> None:
        self.sealed = self.overlay.seal()
        assert list(self.sealed) == sorted(self.sealed, key=lambda change: change[0])
        assert self.overlay.bytes_active == 0

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def checkpoint(self) -> None:
        assert self.sealed is not None
        apply_changes(self.base, self.sealed)

    @precondition(lambda self: self.sealed is not None)
    @rule()
    def drop_sealed(self) -> None:
        self.checkpoint()
        self.overlay.drop_sealed()
        self.sealed = None

    @rule(target=pinned)
    def pin(self) -> tuple[PinnedState, dict[bytes, bytes]]:
        return self.overlay.pin(), dict(self.visible)

    @rule(pinned=consumes(pinned))
    def close(self, pinned: tuple[PinnedState, dict[bytes, bytes]]) -> None:
        pinned[0].close()

    @rule(pinned=pinned, start=BOUNDS, stop=st.one_of(st.none(), BOUNDS), reverse=st.booleans())
    def read_pinned(
        self, pinned: tuple[PinnedState, dict[bytes, bytes]], start: bytes, stop: bytes | None, reverse: bool
    ) -> None:
        state, items = pinned
        assert state.get(start) == items.get(start)
        assert list(state.scan(start, stop, reverse=reverse)) == scan_dict(items, start, stop, reverse)

    @rule(start=BOUNDS, stop=st.one_of(st.none(), BOUNDS), reverse=st.booleans())
    def scan(self, start: bytes, stop: bytes | None, reverse: bool) -> None:
        expected = scan_dict(self.visible, start, stop, reverse)
        assert list(self.overlay.scan(start, stop, reverse=reverse)) == expected
        expected = scan_dict(self.inside, start, stop, reverse)
        assert list(self.transaction.scan(start, stop, reverse=reverse)) == expected

    @rule(key=st.one_of(KEYS, written))
    def get(self, key: bytes) -> None:
        assert self.overlay.get(key) == self.visible.get(key)
        assert self.transaction.get(key) == self.inside.get(key)

    @invariant()
    def bytes_add_up(self) -> None:
        sealed = sum(ENTRY_OVERHEAD_BYTES + len(key) + len(value or b"") for key, value in self.sealed or ())
        assert self.overlay.bytes_total == self.overlay.bytes_active + sealed


TestOverlayMachine = OverlayMachine.TestCase


@given(st.lists(st.tuples(KEYS, st.one_of(st.none(), VALUES)), max_size=20))
def test_bytes_active_is_the_sum_of_the_newest_changes(changes: list[tuple[bytes, bytes | None]]) -> None:
    """An overwritten change is not counted any more; a deletion counts its key."""
    overlay = Overlay(DictState())

    for change in changes:
        commit(overlay, change)

    newest = dict(changes)
    expected = sum(ENTRY_OVERHEAD_BYTES + len(key) + len(value or b"") for key, value in newest.items())
    assert overlay.bytes_active == expected
    assert overlay.bytes_total == expected


def test_a_deletion_hides_what_lies_below_through_both_generations() -> None:
    """Later generations shadow earlier ones, and a deletion is a change like any other."""
    overlay = Overlay(DictState({b"a": b"base", b"b": b"base", b"c": b"base"}))
    commit(overlay, (b"a", None), (b"b", b"sealed"))
    overlay.seal()
    commit(overlay, (b"a", b"back"), (b"b", None))

    assert list(overlay.scan(b"", None)) == [(b"a", b"back"), (b"c", b"base")]
    assert list(overlay.scan(b"", None, reverse=True)) == [(b"c", b"base"), (b"a", b"back")]
    assert overlay.get(b"b") is None


def test_an_empty_value_is_a_value() -> None:
    """StateReader.get: 'an empty value is a value.'"""
    overlay = Overlay(DictState({b"k": b"base"}))
    commit(overlay, (b"k", b""))

    assert overlay.get(b"k") == b""
    assert list(overlay.scan(b"", None)) == [(b"k", b"")]


def test_only_one_generation_is_sealed_at_a_time() -> None:
    """Its checkpoint must be durable before the next one is sealed."""
    overlay = Overlay(DictState())
    commit(overlay, (b"k", b"v"))

    assert overlay.seal() == ((b"k", b"v"),)
    with pytest.raises(RuntimeError, match="sealed already"):
        overlay.seal()
    overlay.drop_sealed()
    with pytest.raises(RuntimeError, match="no generation"):
        overlay.drop_sealed()
    assert overlay.seal() == ()


def test_a_transaction_may_write_while_it_scans() -> None:
    """A machine that deletes a range walks it and deletes as it goes."""
    overlay = Overlay(DictState({bytes([byte]): b"base" for byte in range(1, 10)}))
    commit(overlay, *((bytes([byte]), b"active") for byte in range(5, 15)))
    transaction = overlay.begin()

    seen = []
    for key, _ in transaction.scan(b"\x02", None):
        seen.append(key)
        transaction.delete(key)
        transaction.put(key + b"x", b"")
    transaction.commit()

    assert seen == [bytes([byte]) for byte in range(2, 15)]
    expected = [b"\x01"] + [bytes([byte]) + b"x" for byte in range(2, 15)]
    assert [key for key, _ in overlay.scan(b"", None)] == expected


def test_a_scan_does_not_outlive_a_commit() -> None:
    """Going on after a commit would show a part of a command; it raises instead."""
    overlay = Overlay(DictState())
    commit(overlay, (b"a", b"1"), (b"b", b"1"))
    scan = overlay.scan(b"", None)
    assert next(scan) == (b"a", b"1")

    commit(overlay, (b"b", b"2"))

    with pytest.raises(RuntimeError, match="changed during a scan"):
        next(scan)


def test_a_scan_outlives_seal_checkpoint_and_drop() -> None:
    """None of the three changes what the state says."""
    base: dict[bytes, bytes] = {b"b": b"base"}
    overlay = Overlay(DictState(base))
    commit(overlay, (b"a", b"1"), (b"c", b"1"))
    scan = overlay.scan(b"", None)
    assert next(scan) == (b"a", b"1")

    apply_changes(base, overlay.seal())
    overlay.drop_sealed()

    assert list(scan) == [(b"b", b"base"), (b"c", b"1")]


@pytest.mark.parametrize("again", [True, False], ids=["itself", "another"])
def test_a_transaction_is_over_after_a_commit(again: bool) -> None:
    """Two commands never interleave: what one read is still so when it commits."""
    overlay = Overlay(DictState())
    first: Transaction = overlay.begin()
    second = first if again else overlay.begin()
    first.put(b"k", b"1")
    first.commit()

    with pytest.raises(RuntimeError, match="another transaction"):
        second.commit()


@pytest.mark.parametrize("key", [b"", b"\0", b"\0s", b"k" * 501])
def test_keys_that_no_state_machine_may_use(key: bytes) -> None:
    """Refused where they are written: such a command fails, and a checkpoint never meets them."""
    transaction = Overlay(DictState()).begin()

    with pytest.raises(ValueError, match="a key"):
        transaction.put(key, b"")
    with pytest.raises(ValueError, match="a key"):
        transaction.delete(key)


@pytest.mark.parametrize("reverse", [False, True])
def test_huton_s_own_records_are_not_shown(reverse: bool) -> None:
    """They stand in the same checkpoint, and are no business of a state machine."""
    overlay = Overlay(DictState({b"\0s": b"a session", b"a": b"1"}))

    assert list(overlay.scan(b"", None, reverse=reverse)) == [(b"a", b"1")]


# ------------------------------------------------------------------ what is pinned


def test_a_scan_of_what_is_pinned_goes_on_while_keys_come_and_go() -> None:
    """Neither direction skips a key, shows one twice, or shows one that came after the pin."""
    expected = [(b"key%02d" % number, b"old") for number in range(0, 60, 2)]
    for reverse in (False, True):
        overlay = Overlay(DictState())
        commit(overlay, *expected)
        pinned = overlay.pin()

        found = []
        for number, item in enumerate(pinned.scan(b"", None, reverse=reverse)):
            found.append(item)
            commit(overlay, (b"key%02d" % (2 * number + 1), b"new"), (b"key%02d" % (58 - 2 * number), b"new"))
            assert list(overlay.scan(b"", None, reverse=reverse))  # It sorts the new keys.

        assert found == sorted(expected, reverse=reverse)


def test_what_is_pinned_stays_through_seal_checkpoint_and_restore() -> None:
    """Generations that the overlay has forgotten stay with who has pinned them."""
    base = {b"a": b"base", b"b": b"base"}
    overlay = Overlay(DictState(base))
    commit(overlay, (b"a", b"sealed"))
    changes = overlay.seal()
    commit(overlay, (b"c", b"active"))
    pinned = overlay.pin()

    apply_changes(base, changes)
    overlay.drop_sealed()
    commit(overlay, (b"b", None), (b"c", b"newer"))
    overlay.restore(DictState({b"z": b"restored"}))

    assert list(pinned.scan(b"", None)) == [(b"a", b"sealed"), (b"b", b"base"), (b"c", b"active")]
    assert list(overlay.scan(b"", None)) == [(b"z", b"restored")]


def test_nothing_is_kept_for_who_has_closed() -> None:
    """Changes cost what they cost before."""
    overlay = Overlay(DictState())
    pins = [overlay.pin() for _ in range(3)]
    for pinned in pins:
        pinned.close()
        pinned.close()

    assert overlay._active.pasts == []
