"""What a rollout inserts: whole episodes, true last observations, every step once; and how it explores."""

import numpy as np
import pytest

from actors.errors import InvalidEnvironmentError
from learner.config import AgentSpec
from learner.normalisation import ReturnMoments
from learner.parameters import ParameterBoard
from replay.types import Segment
from tests.environments import PREFIX
from tests.unit.actors.fakes import RecordingSampler
from tests.unit.actors.rollouts import advance, make_policy, make_rollout, publish, zero
from tests.unit.replay.segments import assert_same_segment


def test_segments_are_cut_at_their_length_and_never_cross_an_episode():
    rollout, writer, _ = make_rollout(segment_length=2)
    advance(rollout, 8)  # episode 0 terminates at step 3, episode 1 is truncated at step 5
    observations = [segment.observations.tolist() for segment in writer.segments]
    assert observations == [
        [[0, 0], [0, 1], [0, 2]],
        [[0, 2], [0, 3]],
        [[1, 0], [1, 1], [1, 2]],
        [[1, 2], [1, 3], [1, 4]],
        [[1, 4], [1, 5]],
    ]
    assert [segment.rewards.tolist() for segment in writer.segments] == [[1, 2], [3], [101, 102], [103, 104], [105]]


def test_only_termination_makes_the_discount_zero():
    rollout, writer, _ = make_rollout(segment_length=2)
    advance(rollout, 8)
    assert [segment.discounts.tolist() for segment in writer.segments] == [[1, 1], [0], [1, 1], [1, 1], [1]]


def test_every_step_of_every_environment_is_inserted_exactly_once_and_in_order():
    rollout, writer, _ = make_rollout(num_envs=3, num_lanes=2, segment_length=4)
    advance(rollout, 3 + 5 + 3 + 5)
    transitions = [
        (tuple(segment.observations[t]), tuple(segment.observations[t + 1]), segment.rewards[t])
        for segment in writer.segments
        for t in range(len(segment))
    ]
    lengths = {0: 3, 1: 5, 2: 3, 3: 5}
    expected = [
        ((episode, t), (episode, t + 1), 100 * episode + t + 1) for episode in lengths for t in range(lengths[episode])
    ]
    assert sorted(transitions) == sorted(expected * 3)
    assert [segment.sequence for segment in writer.segments] == list(range(len(writer.segments)))
    assert {(segment.actor_id, segment.incarnation) for segment in writer.segments} == {(5, 1)}


def test_segments_hold_the_circuits_that_acted_and_their_bits():
    rollout, writer, sampler = make_rollout(num_envs=2, segment_length=1, noise_std=0.0)
    policy = make_policy(sampler=RecordingSampler(), name="lane0")
    for step in range(3):
        observation = rollout.lanes[0].environments.observation.copy()
        advance(rollout, 1)
        expected = policy.finish(policy.begin(observation))
        for row, segment in enumerate(writer.segments[2 * step :]):
            np.testing.assert_array_equal(segment.circuit_parameters[0], expected.circuit_parameters[row])
            np.testing.assert_array_equal(segment.bits[0], expected.bits[row])
            np.testing.assert_array_equal(segment.actions[0], expected.action[row])
            assert segment.backend_name == "recorded"
    request_ids = [request.request_id for request in sampler.requests]
    assert request_ids == ["lane0-1", "lane0-2", "lane0-3"]


@pytest.mark.parametrize("block", ["linear", "random_bits", "zeros"])
def test_blocks_without_a_circuit_ask_nobody_and_store_no_circuit_columns(block):
    rollout, writer, sampler = make_rollout(block=block)
    advance(rollout, 8)
    assert sampler.requests == []
    assert {segment.circuit_parameters.shape[1] for segment in writer.segments} == {0}
    assert {segment.bits.shape[1] for segment in writer.segments} == {0}


def test_parameters_are_taken_as_soon_as_the_replay_announces_them_and_steps_record_their_version():
    board = ParameterBoard()
    rollout, writer, _ = make_rollout(board=board, segment_length=3)
    advance(rollout, 1)
    newer = make_policy(seed=9)
    publish(board, writer, newer, version=4)
    advance(rollout, 2)
    assert writer.segments[0].policy_versions.tolist() == [0, 4, 4]
    for own, published in zip(rollout.lanes[0].policy.network.parameters(), newer.network.parameters(), strict=True):
        np.testing.assert_array_equal(own.detach(), published.detach())


def test_parameters_do_not_change_between_begin_and_finish():
    board = ParameterBoard()
    rollout, writer, _ = make_rollout(board=board, segment_length=1)
    lane = rollout.lanes[0]
    rollout.begin(lane)
    publish(board, writer, make_policy(seed=9), version=1)
    rollout.poll()
    rollout.finish(lane)
    rollout.step(lane)
    assert [segment.policy_versions.tolist() for segment in writer.segments] == [[0], [1]]


def test_lanes_overlap_waiting_and_stepping():
    rollout, _, sampler = make_rollout(num_envs=4, num_lanes=2)
    for lane in rollout.lanes:
        rollout.begin(lane)
    for _ in range(3):
        for lane in rollout.lanes:
            rollout.finish(lane)
            rollout.begin(lane)
    waiting = 0
    for what, _ in sampler.events:
        if what == "result":
            assert waiting == 2, "a lane's bits were awaited while no other lane's circuits were on their way"
        waiting += 1 if what == "submit" else -1
    assert sampler.events[:4] == [
        ("submit", "lane0-1"),
        ("submit", "lane1-1"),
        ("result", "lane0-1"),
        ("submit", "lane0-2"),
    ]


def test_environments_are_dealt_out_evenly_to_lanes():
    rollout, _, _ = make_rollout(num_envs=5, num_lanes=2)
    assert [len(lane.environments) for lane in rollout.lanes] == [3, 2]
    rollout, _, _ = make_rollout(num_envs=1, num_lanes=2)
    assert [len(lane.environments) for lane in rollout.lanes] == [1]


def test_episodes_are_reported_once_with_return_and_length():
    rollout, _, _ = make_rollout()
    advance(rollout, 8)
    first, second = rollout.take_episodes()
    assert (first.episode_return, first.episode_length) == (1 + 2 + 3, 3)
    assert (second.episode_return, second.episode_length) == (500 + 1 + 2 + 3 + 4 + 5, 5)
    assert rollout.take_episodes() == []


def moments(running):
    return ReturnMoments(len(running), sum(running), sum(g * g for g in running), max(map(abs, running)))


def test_running_discounted_returns_of_every_step_are_counted_once_and_before_their_episode_ends():
    rollout, _, _ = make_rollout()
    advance(rollout, 2)
    assert rollout.take_episodes() == []
    assert rollout.take_returns() == moments([1.0, 2 + 0.5 * 1])
    advance(rollout, 3)
    # A new episode, of rewards from 101 on, starts from nothing.
    assert rollout.take_returns() == moments([3 + 0.5 * 2.5, 101.0, 152.5])
    assert rollout.take_returns() == ReturnMoments()


def test_returns_of_all_environments_and_lanes_come_together():
    rollout, _, _ = make_rollout(num_envs=3, num_lanes=2)
    advance(rollout, 2)
    assert rollout.take_returns() == moments([1.0, 1.0, 1.0, 2.5, 2.5, 2.5])


def actions_of(writer):
    return np.concatenate([segment.actions for segment in writer.segments])


def test_actions_are_uniform_until_learning_starts():
    # 8,000 numbers. Bounds are five standard errors: false-alarm rate 2e-6, and the seed is fixed.
    rollout, writer, _ = make_rollout(learning_starts=10**9, segment_length=1)
    zero(rollout.lanes[0].policy)
    advance(rollout, 4000)
    actions = actions_of(writer)
    assert abs(actions.mean()) < 5 * 2 / np.sqrt(3 * actions.size)
    assert abs(actions.std() - 2 / np.sqrt(3)) < 5 * 0.52 / np.sqrt(actions.size)
    assert actions.min() < -1.99
    assert actions.max() > 1.99


def test_actions_are_gaussian_around_the_policy_once_learning_has_started():
    # 8,000 numbers. Bounds are five standard errors: false-alarm rate 2e-6, and the seed is fixed.
    rollout, writer, _ = make_rollout(noise_std=0.1, segment_length=1)
    zero(rollout.lanes[0].policy)
    advance(rollout, 4000)
    actions = actions_of(writer)
    sigma = 0.1 * 2.0  # a fraction of the half-range, which is 2
    assert abs(actions.mean()) < 5 * sigma / np.sqrt(actions.size)
    assert abs(actions.std() - sigma) < 5 * sigma / np.sqrt(2 * actions.size)
    assert abs((np.abs(actions) < sigma).mean() - 0.6827) < 5 * 0.466 / np.sqrt(actions.size)


def test_held_noise_keeps_its_spread_and_its_lengths_follow_the_inverse_square():
    # About 2,500 draws in 4,000 steps. Bounds are five standard errors: false-alarm rate 2e-6, and the seed is fixed.
    rollout, writer, _ = make_rollout(noise_std=0.1, longest_noise_hold=3, segment_length=1)
    zero(rollout.lanes[0].policy)
    advance(rollout, 4000)
    actions = actions_of(writer)[:, 0]
    starts = np.flatnonzero(np.diff(actions, prepend=np.inf))
    lengths = np.diff(starts)
    assert set(lengths) == {1, 2, 3}
    expected = np.array([1, 1 / 4, 1 / 9]) / (1 + 1 / 4 + 1 / 9)
    for length, share in zip((1, 2, 3), expected, strict=True):
        assert abs((lengths == length).mean() - share) < 5 * np.sqrt(share * (1 - share) / len(lengths))
    assert abs(actions[starts].std() - 0.2) < 5 * 0.2 / np.sqrt(2 * len(starts))


def test_environments_differ_in_noise_by_the_asked_ratio():
    # 4,000 numbers of each environment. Bounds are five standard errors, and the seed is fixed.
    rollout, writer, _ = make_rollout(num_envs=3, num_lanes=2, noise_std=0.1, noise_ratio=16.0, segment_length=1)
    for lane in rollout.lanes:
        zero(lane.policy)
    advance(rollout, 4000)
    # Two in the first lane, one in the second, whose segments follow.
    actions = actions_of(writer)[:, 0].reshape(4000, 3)
    for column, std in zip(actions.T, (0.05, 0.2, 0.8), strict=True):  # a fraction of the half-range, which is 2
        assert abs(column.std() - std) < 5 * std / np.sqrt(2 * len(column))


def test_a_single_environment_has_the_noise_of_the_run():
    rollout, _, _ = make_rollout(num_envs=1, noise_ratio=16.0)
    assert rollout.lanes[0].noise_share.tolist() == [[1.0]]


def test_the_switch_comes_with_the_transition_that_learning_starts_at():
    rollout, writer, _ = make_rollout(learning_starts=10, segment_length=1, noise_std=0.0)
    zero(rollout.lanes[0].policy)
    advance(rollout, 20)
    is_random = [bool(np.any(segment.actions)) for segment in writer.segments]
    assert is_random == [True] * 10 + [False] * 10


def test_actions_stay_inside_their_bounds_however_large_the_noise():
    rollout, writer, _ = make_rollout(noise_std=10.0, segment_length=1)
    advance(rollout, 200)
    actions = actions_of(writer)
    assert np.abs(actions).max() == 2.0
    assert (np.abs(actions) == 2.0).mean() > 0.5


def run(seed=0, incarnation=1) -> list[Segment]:
    spec = AgentSpec(observation_size=1, action_low=(-1.0,), action_high=(1.0,))
    rollout, writer, _ = make_rollout(
        env_id=f"{PREFIX}Seeded-v0", spec=spec, num_envs=3, num_lanes=2, seed=seed, incarnation=incarnation
    )
    advance(rollout, 8)
    return writer.segments


def test_the_same_seed_gives_the_same_segments():
    for first, second in zip(run(), run(), strict=True):
        assert_same_segment(first, second)


@pytest.mark.parametrize("change", [{"seed": 1}, {"incarnation": 2}], ids=["other seed", "other incarnation"])
def test_another_seed_or_incarnation_explores_differently(change):
    for first, second in zip(run(), run(**change), strict=True):
        assert not np.array_equal(first.actions, second.actions)


def test_nothing_of_a_step_with_bad_numbers_is_inserted():
    spec = AgentSpec(observation_size=3, action_low=(-1.0,), action_high=(1.0,))
    rollout, writer, _ = make_rollout(env_id=f"{PREFIX}NaNLater-v0", spec=spec, segment_length=10)
    advance(rollout, 149)
    with pytest.raises(InvalidEnvironmentError, match="reward nan"):
        advance(rollout, 1)
    assert writer.inserted == 140
    assert all(np.isfinite(segment.rewards).all() for segment in writer.segments)
