"""The sum tree against plain numpy, and LAP's rule."""

import numpy as np
import pytest

from replay.errors import ReplayConfigError, ReplayError
from replay.priorities import LossAdjustedPriorities, SumTree


@pytest.mark.parametrize("num_slots", [1, 15, 16, 17, 256, 257, 5000])
def test_sums_agree_with_numpy_after_many_changes(num_slots):
    rng = np.random.default_rng(num_slots)
    tree, model = SumTree(num_slots), np.zeros(num_slots)
    for _ in range(50):
        slots = rng.integers(0, num_slots, 20)
        slots = np.unique(slots)
        weights = rng.random(len(slots)) * (rng.random(len(slots)) < 0.7)
        tree.set(slots, weights)
        model[slots] = weights
        assert tree.total == pytest.approx(model.sum(), rel=1e-12)
    np.testing.assert_array_equal(tree.get(np.arange(num_slots)), model)


def test_draws_follow_the_weights():
    """Chi-square with 299 degrees of freedom; false-alarm rate 1e-6, and the seed is fixed."""
    rng = np.random.default_rng(3)
    weights = rng.random(300) + 0.1
    weights[rng.random(300) < 0.3] = 0.0
    tree = SumTree(300)
    tree.set(np.arange(300), weights)
    counts = np.bincount(tree.draw(200_000, rng), minlength=300)
    assert (counts[weights == 0.0] == 0).all()
    expected = 200_000 * weights[weights > 0] / weights.sum()
    assert ((counts[weights > 0] - expected) ** 2 / expected).sum() < 426.0


def test_a_draw_at_the_very_end_never_takes_an_empty_slot():
    class AlmostOne:
        def random(self, count):
            return np.full(count, 1.0 - 2.0**-53)

    rng = np.random.default_rng(0)
    for size in (3, 40, 700):
        tree = SumTree(size)
        weights = rng.random(size) / 3
        weights[-2:] = 0.0
        tree.set(np.arange(size), weights)
        assert (tree.get(tree.draw(5, AlmostOne())) > 0.0).all()


def test_one_heavy_slot_among_a_million():
    tree = SumTree(1_000_000)
    tree.set(np.array([777_777]), np.array([1e-3]))
    assert (tree.draw(100, np.random.default_rng(0)) == 777_777).all()


def test_nothing_to_draw_says_so():
    with pytest.raises(ReplayError, match="every weight is 0"):
        SumTree(10).draw(1, np.random.default_rng(0))


def test_without_slots_there_is_no_tree():
    with pytest.raises(ReplayConfigError, match="at least one slot, got 0"):
        SumTree(0)


def test_weights_are_those_of_lap():
    priorities = LossAdjustedPriorities(8, exponent=0.4)
    slots = np.arange(4)
    priorities.add(slots)
    assert priorities.tree.get(slots).tolist() == [1.0] * 4
    priorities.update(slots, np.array([0.0, -0.5, -32.0, 2.0], np.float32))
    expected = np.float32([1.0, 1.0, 4.0, 2.0**0.4])
    np.testing.assert_array_equal(priorities.tree.get(slots), expected.astype(np.float64))
    priorities.add(np.array([4]))
    assert priorities.tree.get(np.array([4])) == 4.0, "new transitions weigh as much as the heaviest ever"
    priorities.remove(np.array([2]))
    assert priorities.tree.get(np.array([2])) == 0.0


def test_state_and_restore_draw_the_same():
    rng = np.random.default_rng(1)
    one, other = LossAdjustedPriorities(100), LossAdjustedPriorities(100)
    slots = np.arange(90)
    one.add(slots)
    one.update(slots[:50], (10 * rng.standard_normal(50)).astype(np.float32))
    other.restore(slots, one.state(slots))
    assert (one.tree.draw(500, np.random.default_rng(5)) == other.tree.draw(500, np.random.default_rng(5))).all()
    one.add(np.array([95]))
    other.add(np.array([95]))
    assert one.tree.get(np.array([95])) == other.tree.get(np.array([95])) > 1.0


def test_a_state_of_another_size_is_refused():
    priorities = LossAdjustedPriorities(10)
    with pytest.raises(ReplayError, match="priorities of 3 transitions, the replay holds 2"):
        priorities.restore(np.arange(2), priorities.state(np.arange(3)))


def test_errors_that_are_not_finite_are_refused():
    with pytest.raises(ReplayError, match=r"td_errors\[1\] is nan, expected finite"):
        LossAdjustedPriorities(4).update(np.arange(2), np.array([1.0, np.nan], np.float32))


@pytest.mark.parametrize("exponent", [-0.1, 1.1, float("nan")])
def test_impossible_exponent_is_refused(exponent):
    with pytest.raises(ReplayConfigError, match=r"exponent of priorities must be within 0..1"):
        LossAdjustedPriorities(4, exponent)
