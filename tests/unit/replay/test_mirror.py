import numpy as np
import pytest

from replay.errors import InvalidSegmentError, ReplayConfigError, ReplayError
from replay.mirror import Mirror
from replay.types import TransitionSpec
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment


def held_rewards(mirror: Mirror) -> list[float]:
    return mirror.gather(np.arange(len(mirror))).reward.tolist()


def test_transitions_come_back_whole():
    mirror = Mirror(SPEC, 100)
    first, second = make_segment(4), make_segment(3, sequence=1, first=50)
    mirror.append(first)
    mirror.append(second)
    batch = mirror.gather(np.arange(7))
    for name, column in (
        ("observation", [s.observations[:-1] for s in (first, second)]),
        ("next_observation", [s.observations[1:] for s in (first, second)]),
        ("action", [s.actions for s in (first, second)]),
        ("reward", [s.rewards for s in (first, second)]),
        ("discount", [s.discounts for s in (first, second)]),
        ("circuit_parameters", [s.circuit_parameters for s in (first, second)]),
        ("bits", [s.bits.astype(np.float32) for s in (first, second)]),
    ):
        got = getattr(batch, name)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, np.concatenate(column), err_msg=name)


def test_oldest_segments_fall_out_whole():
    mirror = Mirror(SPEC, 10)
    for sequence, first in enumerate((0, 4, 8)):
        mirror.append(make_segment(4, sequence=sequence, first=first))
    assert held_rewards(mirror) == [4, 5, 6, 7, 8, 9, 10, 11]
    mirror.append(make_segment(10, sequence=3, first=20))
    assert held_rewards(mirror) == list(range(20, 30))


def test_many_rounds_of_mixed_lengths_agree_with_a_list():
    rng = np.random.default_rng(5)
    mirror, model, first = Mirror(SPEC, 400), [], 0
    for sequence in range(1000):
        # Mostly one-step segments: more observation rows than the table starts with.
        steps = int(rng.choice([1, 1, 1, 2])) if sequence % 200 < 190 else 40
        segment = make_segment(steps, sequence=sequence, first=first)
        first += steps
        mirror.append(segment)
        model.append(segment)
        while sum(map(len, model)) > 400:
            model.pop(0)
        if sequence % 10:
            continue
        batch = mirror.gather(np.arange(len(mirror)))
        np.testing.assert_array_equal(batch.reward, np.concatenate([s.rewards for s in model]))
        np.testing.assert_array_equal(batch.observation, np.concatenate([s.observations[:-1] for s in model]))
        np.testing.assert_array_equal(batch.next_observation, np.concatenate([s.observations[1:] for s in model]))
        np.testing.assert_array_equal(batch.bits, np.concatenate([s.bits for s in model]))


def test_sampling_is_uniform_over_the_transitions_held():
    """Chi-square with 40 - 1 degrees of freedom; false-alarm rate 1e-6, and the seed is fixed."""
    mirror = Mirror(SPEC, 40)
    for sequence in range(30):
        mirror.append(make_segment(1 + sequence % 7, sequence=sequence, first=100 * sequence))
    draws = mirror.sample(40_000, np.random.default_rng(1)).reward
    values, counts = np.unique(draws, return_counts=True)
    held = held_rewards(mirror)
    assert values.tolist() == sorted(held)
    expected = 40_000 / len(held)
    assert ((counts - expected) ** 2 / expected).sum() < 101.0


def test_same_segments_and_generator_give_the_same_batches():
    one, other = Mirror(SPEC, 20), Mirror(SPEC, 20)
    segments = [make_segment(3, sequence=s, first=10 * s) for s in range(12)]
    for segment in segments:
        one.append(segment)
    # The other one starts late, as after a restart: its ring has another phase.
    for segment in segments[-6:]:
        other.append(segment)
    assert_same_batch(one.sample(64, np.random.default_rng(3)), other.sample(64, np.random.default_rng(3)))


def test_unused_capacity_costs_no_memory():
    def resident_bytes() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    before = resident_bytes()
    mirror = Mirror(TransitionSpec(observation_size=376, action_size=17, circuit_parameters_size=220), 1_000_000)
    assert resident_bytes() - before < 64e6
    assert len(mirror) == 0


def test_nbytes_counts_each_observation_once():
    mirror = Mirror(SPEC, 100)
    mirror.append(make_segment(4))
    assert mirror.nbytes == 5 * 12 + 4 * (30 + 4 * 6 + 2)


def test_a_policy_without_circuit_has_empty_columns():
    spec = TransitionSpec(observation_size=3, action_size=2)
    mirror = Mirror(spec, 10)
    mirror.append(make_segment(4, spec=spec))
    batch = mirror.sample(5, np.random.default_rng(0))
    assert batch.circuit_parameters.shape == (5, 0)
    assert batch.bits.shape == (5, 0)


def test_empty_replay_says_what_to_do():
    with pytest.raises(ReplayError, match="empty; ask can_sample"):
        Mirror(SPEC, 10).sample(1, np.random.default_rng(0))


def test_too_long_segment_is_refused():
    with pytest.raises(InvalidSegmentError, match="11 transitions does not fit a replay of 10"):
        Mirror(SPEC, 10).append(make_segment(11))


@pytest.mark.parametrize("capacity", [0, -1, 2**31])
def test_impossible_capacity_is_refused(capacity):
    with pytest.raises(ReplayConfigError, match=f"got {capacity}"):
        Mirror(SPEC, capacity)
