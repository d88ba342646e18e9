"""Every step of every test episode is in the file, once, in order, as the environment saw it."""

import gymnasium
import numpy as np

from actors.evaluator import evaluate
from actors.trajectories import TrajectoryRecorder
from tests.environments import PREFIX
from tests.unit.actors.rollouts import make_policy
from tests.unit.actors.test_evaluator import SEEDED


def test_a_recorded_round_can_be_played_again_step_by_step(tmp_path):
    recorder = TrajectoryRecorder()
    policy = make_policy(SEEDED, "zeros")
    returns = evaluate(policy, f"{PREFIX}Seeded-v0", num_episodes=3, seed=5, recorder=recorder)
    recorder.write(tmp_path / "steps")
    with np.load(tmp_path / "steps", allow_pickle=False) as file:
        steps = dict(file)
    assert steps["episode"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert {name: steps[name].shape for name in ("observation", "action", "reward")} == {
        "observation": (12, 1),
        "action": (12, 1),
        "reward": (12,),
    }
    for episode, seed in enumerate(np.random.SeedSequence(5).generate_state(3)):
        environment = gymnasium.make(f"{PREFIX}Seeded-v0")
        observation, _ = environment.reset(seed=int(seed))
        for row in np.flatnonzero(steps["episode"] == episode):
            np.testing.assert_array_equal(steps["observation"][row], np.asarray(observation, np.float32))
            observation, reward, *_ = environment.step(steps["action"][row])
            assert steps["reward"][row] == reward
        assert returns[episode] == sum(steps["reward"][steps["episode"] == episode].tolist())


def test_episodes_of_different_lengths_are_kept_apart(tmp_path):
    recorder = TrajectoryRecorder()
    one = np.ones((1, 1), np.float32)
    recorder(
        np.array([0, 1]), np.array([[1.0], [10.0]], np.float32), np.zeros((2, 1), np.float32), np.array([1.0, 2.0])
    )
    recorder(np.array([1]), 20 * one, one, np.array([3.0]))
    recorder.write(tmp_path / "steps.npz")
    with np.load(tmp_path / "steps.npz", allow_pickle=False) as steps:
        assert steps["episode"].tolist() == [0, 1, 1]
        assert steps["observation"].ravel().tolist() == [1.0, 10.0, 20.0]
        assert steps["action"].ravel().tolist() == [0.0, 0.0, 1.0]
        assert steps["reward"].tolist() == [1.0, 2.0, 3.0]
