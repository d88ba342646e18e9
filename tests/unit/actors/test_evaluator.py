"""Test rounds: right sums, fixed start states, no noise, no trace in training."""

import numpy as np
import pytest

from actors.environment import agent_spec
from actors.errors import InvalidEnvironmentError
from actors.evaluator import evaluate
from actors.policy import ActingPolicy
from learner.config import AgentSpec
from tests.environments import PREFIX
from tests.unit.actors.fakes import COUNTING, POLICY, RecordingSampler
from tests.unit.actors.rollouts import advance, make_policy, make_rollout
from tests.unit.replay.segments import assert_same_segment

SEEDED = AgentSpec(observation_size=1, action_low=(-1.0,), action_high=(1.0,))


def test_returns_are_the_sums_of_each_episode():
    returns = evaluate(make_policy(COUNTING, "zeros"), f"{PREFIX}Counting-v0", num_episodes=3, seed=1)
    assert returns == [1 + 2 + 3] * 3


def test_returns_equal_a_sum_over_a_single_environment_by_hand():
    policy = make_policy(SEEDED, "zeros")
    returns = evaluate(policy, f"{PREFIX}Seeded-v0", num_episodes=4, seed=5)
    by_hand = []
    for seed in np.random.SeedSequence(5).generate_state(4):
        # The environment adds the action to its value and pays action + 1, for 4 steps.
        value, total = np.random.Generator(np.random.PCG64(int(seed))).uniform(-1, 1), 0.0
        for _ in range(4):
            action = policy.finish(policy.begin(np.array([[value]], np.float32))).action[0, 0]
            value += float(action)
            total += float(action) + 1.0
        by_hand.append(total)
    assert returns == pytest.approx(by_hand, rel=1e-6)
    assert len(set(returns)) == 4


def test_the_same_root_gives_the_same_episodes_and_another_root_others():
    def round_with(seed):
        return evaluate(make_policy(SEEDED, "zeros"), f"{PREFIX}Seeded-v0", num_episodes=3, seed=seed)

    assert round_with(1) == round_with(1)
    assert round_with(1) != round_with(2)


def test_finished_episodes_ask_for_no_more_circuits():
    sampler = RecordingSampler()
    policy = make_policy(SEEDED, sampler=sampler)
    evaluate(policy, f"{PREFIX}Seeded-v0", num_episodes=3, seed=1)
    assert [len(request) for request in sampler.requests] == [3, 3, 3, 3]


def test_a_test_round_leaves_no_trace_in_training():
    def segments(*, with_test_rounds):
        rollout, writer, sampler = make_rollout(num_envs=2, segment_length=3)
        for _ in range(4):
            advance(rollout, 2)
            if with_test_rounds:
                tester = ActingPolicy(COUNTING, POLICY, "pqc", sampler, np.random.default_rng(7))
                evaluate(tester, f"{PREFIX}Counting-v0", num_episodes=2, seed=3)
        return writer.segments

    for plain, tested in zip(segments(with_test_rounds=False), segments(with_test_rounds=True), strict=True):
        assert_same_segment(plain, tested)


@pytest.mark.parametrize("name", ["NaNAtReset", "NaNSoon", "InfinitySoon"])
def test_bad_numbers_end_the_round_with_the_environments_name(name):
    spec = AgentSpec(observation_size=3, action_low=(-1.0,), action_high=(1.0,))
    with pytest.raises(InvalidEnvironmentError, match=f"{name}-v0 returned the"):
        evaluate(make_policy(spec, sampler=RecordingSampler()), f"{PREFIX}{name}-v0", num_episodes=2, seed=1)


def test_an_episode_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr("actors.evaluator._MAX_STEPS", 3)
    with pytest.raises(InvalidEnvironmentError, match=r"ended 0 of 2 test episodes within 3 steps.*time limit"):
        evaluate(make_policy(SEEDED, "zeros"), f"{PREFIX}Seeded-v0", num_episodes=2, seed=1)


def test_pendulum_returns_are_finite_and_negative():
    policy = make_policy(agent_spec("Pendulum-v1"), sampler=RecordingSampler())
    returns = evaluate(policy, "Pendulum-v1", num_episodes=2, seed=1)
    assert all(-2000 < value < 0 for value in returns)
