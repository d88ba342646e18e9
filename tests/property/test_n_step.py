"""Returns over several steps against following each episode by hand."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.mirror import Mirror
from replay.sampling import SampleRule
from tests.unit.replay.segments import SPEC, make_segment

GAMMA = 0.9
CAPACITY = 60


@dataclass
class Known:
    """One transition that the mirror may hold, and what follows it in its episode."""

    reward: float
    discount: float
    final: np.ndarray
    follower: int | None = None


def brute_force(known, held, index, n_step):
    total, factor = known[index].reward, known[index].discount
    for _ in range(n_step - 1):
        follower = known[index].follower
        if factor == 0.0 or follower is None or follower not in held:
            break
        index = follower
        total += factor * GAMMA * known[index].reward
        factor *= GAMMA * known[index].discount
    return total, factor, known[index].final


LANES = st.lists(
    st.tuples(
        st.integers(0, 3),  # lane
        st.integers(1, 5),  # steps of the segment
        st.sampled_from(["goes on", "goes on", "goes on", "terminated", "truncated", "lost", "restarted"]),
    ),
    min_size=1,
    max_size=40,
)


@given(LANES, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_returns_stop_exactly_where_an_episode_does(script, n_step):
    """Lanes interleave, actors restart, segments get lost, old ones fall out. About 2 s."""
    rng = np.random.default_rng(len(script))
    mirror = Mirror(SPEC, CAPACITY)
    known: list[Known] = []
    lengths: list[int] = []
    sequences, incarnations = [0, 0], [1, 1]
    # Of each lane: sequence that its next segment continues, and the index of that segment's last transition.
    previous: list[tuple[int, int | None] | None] = [None] * 4
    for lane, steps, event in script:
        actor = lane % 2
        if event == "restarted":
            incarnations[actor] += 1
            sequences[actor] = 0
            for other in range(actor, 4, 2):
                previous[other] = None
        discounts = np.ones(steps, np.float32)
        discounts[-1] = event != "terminated"
        segment = make_segment(
            steps,
            actor_id=actor,
            incarnation=incarnations[actor],
            sequence=sequences[actor],
            rewards=rng.standard_normal(steps).astype(np.float32),
            discounts=discounts,
            observations=rng.standard_normal((steps + 1, 3)).astype(np.float32),
            previous_sequence=None if previous[lane] is None else previous[lane][0],
        )
        last = None
        if event != "lost":
            mirror.append(segment)
            first = len(known)
            last = first + steps - 1
            for t in range(steps):
                known.append(
                    Known(
                        float(segment.rewards[t]),
                        float(discounts[t]),
                        segment.observations[t + 1],
                        None if first + t == last else first + t + 1,
                    )
                )
            if previous[lane] is not None and previous[lane][1] is not None:
                known[previous[lane][1]].follower = first
            lengths.append(steps)
        is_over = event in ("terminated", "truncated")
        previous[lane] = None if is_over else (sequences[actor], last)
        sequences[actor] += 1
    oldest = 0
    while len(known) - oldest > CAPACITY:
        oldest += lengths.pop(0)
    held = range(oldest, len(known))
    assert len(mirror) == len(held)
    batch = mirror.gather(np.arange(len(mirror)), SampleRule(n_step=n_step, discount_factor=GAMMA))
    for row, index in enumerate(held):
        total, factor, final = brute_force(known, held, index, n_step)
        assert batch.reward[row] == pytest.approx(total, rel=1e-5, abs=1e-5)
        assert batch.discount[row] == pytest.approx(factor, rel=1e-6)
        np.testing.assert_array_equal(batch.next_observation[row], final)


def three_segments(**last):
    """Steps 1 to 6 of one episode with reward 1 each, then whatever ``last`` says; observations count the steps."""
    mirror = Mirror(SPEC, 100)
    for number in range(3):
        segment = make_segment(
            2,
            sequence=number,
            observations=np.repeat(np.arange(2 * number, 2 * number + 3, dtype=np.float32)[:, None], 3, axis=1),
            rewards=np.ones(2, np.float32),
            discounts=np.ones(2, np.float32),
            previous_sequence=number - 1 if number else None,
        )
        mirror.append(replace(segment, **last) if number == 2 else segment)
    return mirror.gather(np.arange(6), SampleRule(n_step=4, discount_factor=0.5))


def test_the_learner_needs_only_its_own_gamma():
    """y = reward + γ · discount · V(next_observation) is the four-step target where four steps follow."""
    batch = three_segments()
    assert batch.reward.tolist() == [1.875, 1.875, 1.875, 1.75, 1.5, 1.0]
    assert (0.5 * batch.discount).tolist() == [0.5**4, 0.5**4, 0.5**4, 0.5**3, 0.5**2, 0.5]
    assert batch.next_observation[:, 0].tolist() == [4, 5, 6, 6, 6, 6]


def test_termination_ends_the_return_without_a_bootstrap():
    batch = three_segments(discounts=np.array([1, 0], np.float32))
    assert batch.discount.tolist() == [0.125, 0.125, 0.0, 0.0, 0.0, 0.0]
    assert batch.reward.tolist() == [1.875, 1.875, 1.875, 1.75, 1.5, 1.0]


@pytest.mark.parametrize(
    "stranger",
    [{"previous_sequence": None}, {"incarnation": 2}, {"actor_id": 1}, {"previous_sequence": 0}],
    ids=["new episode", "restarted actor", "other actor", "gap"],
)
def test_a_segment_that_does_not_belong_is_not_followed(stranger):
    batch = three_segments(**stranger)
    assert batch.next_observation[:, 0].tolist() == [4, 4, 4, 4, 6, 6]
    assert batch.discount.tolist() == [0.125, 0.25, 0.5, 1.0, 0.5, 1.0]
