"""The presets: the paper's numbers, and that every one of them can run at any width."""

import dataclasses

import pytest
import torch

from actors.environment import agent_spec
from cluster.build import learner_device, make_learner, num_updates
from cluster.build_replay import make_limiter, transition_spec
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.presets import DESCRIPTIONS, PRESETS, get_preset
from learner.config import AgentSpec
from replay.types import ReplayCounts

HUMANOID = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)


def linear_sizes(module):
    """[inputs, hidden, outputs] of a perceptron."""
    layers = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def test_humanoid_is_table_2_of_the_paper():
    """arXiv:2503.09119, Table 2, row by row; the numbers are written out here, not computed."""
    config = get_preset("humanoid")
    learner = make_learner(dataclasses.replace(config, device="cpu"), HUMANOID)
    # PreDNN [376, 256, 230], Leaky ReLU, 10 classical links, learning rate 3e-4, soft target rate 5e-3
    assert linear_sizes(learner.policy.pre) == [376, 256, 230]
    assert isinstance(learner.policy.pre[1], torch.nn.LeakyReLU)
    assert config.policy.num_links == 10
    assert config.td3.policy_learning_rate == 3e-4
    assert config.td3.polyak_coefficient == 5e-3
    # qtDNN [220, 2048, 10], Leaky ReLU, learning rate 3e-4
    assert linear_sizes(learner.surrogate.network) == [220, 2048, 10]
    assert isinstance(learner.surrogate.network[1], torch.nn.LeakyReLU)
    assert config.surrogate.learning_rate == 3e-4
    # PQC: N, M = 10, 10
    assert (config.policy.circuit.num_qubits, config.policy.circuit.num_layers) == (10, 10)
    # PostDNN [20, 256, 17], Leaky ReLU
    assert linear_sizes(learner.policy.post) == [20, 256, 17]
    assert isinstance(learner.policy.post[1], torch.nn.LeakyReLU)
    # Critic [[376, 256], [273, 256, 1]], learning rate 3e-4, discount 0.99; two of them, as TD3 has
    shapes = [
        tuple(layer.weight.shape)
        for layer in (learner.critic.observation_layer, learner.critic.joint_layer, learner.critic.value_layer)
    ]
    assert shapes == [(2, 376, 256), (2, 273, 256), (2, 256, 1)]
    assert config.td3.critic_learning_rate == 3e-4
    assert config.td3.discount_factor == 0.99
    # Rates as the optimisers have them
    rates = {o.param_groups[0]["lr"] for o in (learner.policy_optimizer, learner.critic_optimizer)}
    assert rates | {learner.surrogate_trainer.optimizer.param_groups[0]["lr"]} == {3e-4}
    # The rest: batch 256 (Section 1), 10 test episodes a round (Fig. 4), noises of the TD3 run that the note names
    assert config.td3.batch_size == 256
    assert config.evaluation.num_episodes == 10
    assert (config.actors.exploration_noise_std, config.td3.target_noise_std, config.td3.target_noise_clip) == (
        0.1,
        0.2,
        0.5,
    )
    assert (config.td3.policy_delay, config.td3.updates_per_step) == (2, 1.0)
    assert (config.env_id, config.block) == ("Humanoid-v4", "pqc")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_described_and_its_environment_fits_the_agent(name):
    assert DESCRIPTIONS[name]
    assert agent_spec(PRESETS[name].env_id).action_size >= 1


@pytest.mark.parametrize("num_actors", [1, 2, 64])
@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_stops_actors_and_learner_for_ever_at_any_width(name, num_actors):
    config = PRESETS[name]
    config = dataclasses.replace(config, actors=dataclasses.replace(config.actors, num_actors=num_actors))
    limiter = make_limiter(config)
    batch_size, longest = config.td3.batch_size, config.actors.segment_length
    inserted = sampled = 0
    for _ in range(3_000):
        counts = ReplayCounts(inserted=inserted, sampled=sampled)
        can_insert = limiter.can_insert(counts, longest)
        can_sample = limiter.can_sample(counts, batch_size)
        assert can_insert or can_sample, f"both sides wait at {counts}"
        # Whoever may go on does so in the largest steps there are: every environment of every actor cuts at once.
        if can_insert:
            inserted += num_actors * config.actors.envs_per_actor * longest
        elif can_sample:
            sampled += batch_size
    assert sampled > 0


@pytest.mark.parametrize("preset", ["pendulum", "hopper-strong"])
def test_schedules_end_with_the_runs_last_update(preset):
    config = dataclasses.replace(PRESETS[preset], total_steps=7_001)
    limiter, batch_size, made = make_limiter(config), config.td3.batch_size, 0
    while limiter.can_sample(ReplayCounts(inserted=config.total_steps, sampled=made * batch_size), batch_size):
        made += 1
    assert made > 400
    assert num_updates(config) - made in (0, 1)
    too_short = dataclasses.replace(config, total_steps=config.td3.learning_starts - 1)
    assert num_updates(too_short) == 1


def test_too_little_slack_is_refused_with_the_slack_that_works():
    config = PRESETS["smoke"]
    config = dataclasses.replace(config, replay=dataclasses.replace(config.replay, slack_steps=5))
    with pytest.raises(ValueError, match=r"allow a slack of \d+ environment steps") as raised:
        make_limiter(config)
    needed = int(str(raised.value).split("slack of ")[1].split()[0])
    make_limiter(dataclasses.replace(config, replay=dataclasses.replace(config.replay, slack_steps=needed)))


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as raised:
        get_preset("humanoids")
    for part in ("'humanoids'", *PRESETS):
        assert part in str(raised.value)


@pytest.mark.parametrize(("block", "sizes"), [("pqc", (220, 10)), ("linear", (0, 0)), ("zeros", (0, 0))])
def test_circuits_are_stored_only_where_a_surrogate_learns_from_them(block, sizes):
    spec = transition_spec(RunConfig(block=block), HUMANOID)
    assert (spec.circuit_parameters_size, spec.num_bits) == sizes
    assert (spec.observation_size, spec.action_size) == (376, 17)


def test_a_device_that_is_not_there_is_refused():
    assert learner_device("cpu") == "cpu"
    assert learner_device("auto") in ("cpu", "cuda")
    for name in ("cuda:99", "nonsense"):
        with pytest.raises(ConfigError, match=f"device '{name}' cannot be used.*Expected auto, cpu"):
            learner_device(name)
