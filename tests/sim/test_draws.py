"""``Draws``: chance by name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from huton.sim.draws import Draws

KEYS = st.lists(st.one_of(st.integers(-5, 5), st.text(max_size=3)), min_size=1, max_size=3)


@given(st.integers(0, 2**64), KEYS)
def test_a_draw_depends_on_its_seed_and_key_alone(seed: int, key: list[int | str]) -> None:
    """So removing one fault or message shifts nothing else."""
    fresh, used = Draws(seed), Draws(seed)
    used.bits("something else")

    assert fresh.bits(*key) == used.bits(*key)


def test_draws_are_the_same_for_ever() -> None:
    """A kept seed must mean the same run next year: the very numbers are part of the format."""
    draws = Draws(7)

    assert draws.bits("loss", "n1", "n2", 3) == 0x553553A03607C0FC
    assert draws.numbers("message", "n1", "n2", 3)[:2] == (0xA42D6AA32870BA4A, 0xD575F1863024DC9A)


@given(st.integers(0, 1000), st.integers(-10, 10), st.integers(0, 10))
def test_between_covers_both_ends_and_nothing_else(seed: int, low: int, width: int) -> None:
    """Integers from low to high, both included."""
    draws = Draws(seed)
    seen = {draws.between(low, low + width, number) for number in range(400)}

    assert min(seen) == low
    assert max(seen) == low + width


def test_chances_come_as_often_as_they_say() -> None:
    """Ten thousand draws at 30 % are near three thousand; 0 is never and 1 is always."""
    draws = Draws(1)

    assert 2800 < sum(draws.chance(0.3, number) for number in range(10_000)) < 3200
    assert not any(draws.chance(0.0, number) for number in range(1000))
    assert all(draws.chance(1.0, number) for number in range(1000))


def test_shuffled_loses_nothing() -> None:
    """Every item, once, in an order that the key decides."""
    draws = Draws(3)
    items = list(range(20))

    assert sorted(draws.shuffled(items, "a")) == items
    assert draws.shuffled(items, "a") != draws.shuffled(items, "b")
    assert {draws.choice("abc", number) for number in range(100)} == set("abc")
