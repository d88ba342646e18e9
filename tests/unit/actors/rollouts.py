"""Rollouts over fakes, for the tests of this package."""

import numpy as np
import torch

from actors.policy import ActingPolicy
from actors.rollout import Rollout, make_lanes
from learner.parameters import ParameterBoard, VersionedParameters
from tests.environments import PREFIX
from tests.unit.actors.fakes import COUNTING, POLICY, RecordingSampler, RecordingWriter, transition_spec


def make_policy(spec=COUNTING, block="pqc", sampler=None, seed=0, name="policy"):
    torch.manual_seed(seed)
    return ActingPolicy(spec, POLICY, block, sampler, np.random.default_rng(seed), name=name)


def make_rollout(
    *,
    env_id=f"{PREFIX}Counting-v0",
    spec=COUNTING,
    num_envs=1,
    num_lanes=1,
    block="pqc",
    seed=0,
    segment_length=4,
    noise_std=0.1,
    longest_noise_hold=1,
    noise_ratio=1.0,
    learning_starts=0,
    incarnation=1,
    board=None,
    writer=None,
    sampler=None,
):
    """A rollout, its writer and its sampler."""
    sampler = sampler or RecordingSampler()
    writer = writer or RecordingWriter(transition_spec(spec, has_circuit=block == "pqc"))
    policies = [make_policy(spec, block, sampler, seed=lane, name=f"lane{lane}") for lane in range(num_lanes)]
    rollout = Rollout(
        make_lanes(env_id, policies, [100 * seed + i for i in range(num_envs)], noise_ratio=noise_ratio),
        spec=spec,
        writer=writer,
        source=board or ParameterBoard(),
        rng=np.random.default_rng([seed, incarnation]),
        actor_id=5,
        incarnation=incarnation,
        segment_length=segment_length,
        noise_std=noise_std,
        longest_noise_hold=longest_noise_hold,
        learning_starts=learning_starts,
        discount_factor=0.5,
    )
    return rollout, writer, sampler


def advance(rollout, num_rounds):
    for _ in range(num_rounds):
        rollout.poll()
        for lane in rollout.lanes:
            rollout.step(lane)


def publish(board, writer, policy, version):
    """Put a policy's parameters on the board as ``version``, and let the replay announce them."""
    arrays = {name: value.detach().numpy().copy() for name, value in policy.network.named_parameters()}
    board.publish(VersionedParameters(version=version, arrays=arrays, env_step=0))
    writer.policy_version = version


def zero(policy):
    """Make a policy that always acts in the middle of the action range."""
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.zero_()
