"""Updates with critics beyond the paper's: who is asked, on which rows, and what a checkpoint keeps."""

import numpy as np
import pytest
import torch

from learner.config import PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from learner.normalisation import ReturnMoments
from learner.state import learner_state, load_learner_state
from learner.td3 import TD3Learner
from tests.unit.learner.test_td3 import CIRCUIT, SPEC, changed, make_batch, snapshot

STRONG = {"architecture": "residual", "hidden_size": 32, "normalisation": "batch", "head": "categorical"}


def make_learner(critic=None, policy=None, decay_updates=None, **td3):
    return TD3Learner(
        SPEC,
        block="pqc",
        policy_config=PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT, **(policy or {})),
        surrogate_config=SurrogateConfig(hidden_size=32, num_tiny_batches=2, tiny_batch_size=16),
        config=TD3Config(**td3),
        critic_config=CriticConfig(**(critic or STRONG)),
        decay_updates=decay_updates,
        seed=3,
    )


def run(learner, num_updates=4, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(num_updates):
        learner.update(make_batch(rng))
    return learner


def test_everything_at_once_updates_and_stays_finite():
    learner = make_learner(
        {**STRONG, "unit_rows": True, "climbs": "mean"},
        {"normalise_observations": True, "hidden_normalisation": "layer", "normalise_parameters": True},
        scale_rewards=True,
        precision="bfloat16",
        n_step=3,
    )
    learner.observe_returns(ReturnMoments(10, 100.0, 2000.0, 50.0))
    run(learner)
    assert all(np.isfinite(value) for value in learner.metrics().values())
    assert all(torch.isfinite(p).all() for p in learner.critic.parameters())


def test_both_pairs_pass_a_batch_normalised_critic_together():
    learner = make_learner()
    rows = []
    learner.critic.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    learner.target_critic.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    learner._update_critic(learner._to_device(make_batch(np.random.default_rng(0), 64)))
    assert rows == [128, 128]


def test_the_policy_climbs_running_statistics_and_leaves_them_alone():
    learner = run(make_learner())
    before = {name: value.clone() for name, value in learner.critic.named_buffers()}
    parameters = snapshot(learner.critic)
    learner._update_policy(learner._to_device(make_batch(np.random.default_rng(1))))
    assert all(torch.equal(before[name], value) for name, value in learner.critic.named_buffers())
    assert not changed(parameters, learner.critic)
    assert learner.critic.training


def test_without_a_target_network_the_critics_are_their_own_targets():
    learner = run(make_learner({**STRONG, "has_target": False}))
    assert learner.target_critic is None
    assert not any(name.startswith("target_critic") for name in learner_state(learner)[0])


@pytest.mark.parametrize("architecture", ["mlp", "residual"])
def test_own_targets_carry_no_gradient(architecture):
    critic = {"architecture": architecture, "hidden_size": 32, "normalisation": "layer", "has_target": False}
    learner = make_learner(critic)
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    _, next_outputs = learner._critic_outputs(batch, batch.action)
    assert not next_outputs.requires_grad


def test_targets_take_the_minimum_over_a_random_pair_of_many_critics():
    learner = make_learner({"architecture": "mlp", "hidden_size": 32, "num_critics": 5, "num_target_critics": 2})
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    everybody = learner.target_critic(batch.next_observation, batch.action)
    drawn = set()
    for _ in range(40):
        _, outputs = learner._critic_outputs(batch, batch.action)
        matches = [[torch.equal(row, one) for one in everybody].index(True) for row in outputs]
        assert len(set(matches)) == 2
        drawn.update(matches)
    # 40 fair draws of 2 of 5 miss one with probability (3/5)^40 < 1e-8.
    assert drawn == {0, 1, 2, 3, 4}


def test_rewards_are_divided_by_the_scale_of_returns():
    learner = make_learner({"architecture": "mlp", "hidden_size": 32}, scale_rewards=True)
    other = make_learner({"architecture": "mlp", "hidden_size": 32})
    learner.observe_returns(ReturnMoments(4, 0.0, 4 * 25.0, 5.0))
    assert learner.return_scale.scale == pytest.approx(5.0)
    batch = make_batch(np.random.default_rng(0))
    scaled = type(batch)(**{**{n: getattr(batch, n) for n in batch.__slots__}, "reward": batch.reward / np.float32(5)})
    learner.update(batch)
    other.update(scaled)
    for ours, theirs in zip(learner.critic.parameters(), other.critic.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_learning_rates_fall_linearly_to_their_final_share():
    learner = make_learner(decay_updates=10, final_learning_rate_share=0.5, critic_learning_rate=1e-3)
    run(learner, 5)
    assert learner.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.75e-3)
    run(learner, 8)
    assert learner.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)


def test_learning_rates_may_have_fallen_before_the_run_ends():
    learner = make_learner(
        decay_updates=40, final_learning_rate_share=0.5, learning_rate_decay_share=0.25, critic_learning_rate=1e-3
    )
    run(learner, 5)
    assert learner.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.75e-3)
    run(learner, 8)
    assert learner.critic_optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)


def test_prioritised_updates_tell_their_errors():
    assert run(make_learner()).td_errors is None
    errors = run(make_learner(prioritised=True)).td_errors
    assert errors.shape == (64,)
    assert (errors >= 0).all()


def test_a_checkpoint_goes_on_bit_for_bit():
    policy = {"normalise_observations": True}
    first = run(make_learner(policy=policy, scale_rewards=True))
    first.observe_returns(ReturnMoments(4, 1.0, 9.0, 2.0))
    tensors, scalars = learner_state(first)
    second = make_learner(policy=policy, scale_rewards=True)
    load_learner_state(second, tensors, scalars)
    for learner in (first, second):
        run(learner, 3, seed=5)
    ours, theirs = learner_state(first)[0], learner_state(second)[0]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", ["gaussian", "variational"])
@pytest.mark.parametrize("critic_entropy", [False, True])
def test_stochastic_families_learn_and_tune_their_entropy(family, critic_entropy):
    learner = make_learner({}, {"family": family, "latent_size": 4}, critic_entropy=critic_entropy)
    before = snapshot(learner.policy)
    run(learner, 4)
    assert changed(before, learner.policy)
    metrics = learner.metrics()
    assert np.isfinite(metrics["entropy"])
    assert metrics["entropy_coefficient"] != pytest.approx(0.1, abs=1e-7)
    assert "entropy_optimizer.0.step" in learner_state(learner)[0]


def test_the_entropy_bonus_enters_the_target_with_the_discount():
    learner = make_learner({}, {"family": "gaussian"}, critic_entropy=True)
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    state = learner.generator.get_state()
    _, bonus = learner._next_action(batch)
    learner.generator.set_state(state)
    _, log_prob = learner._surrogate_sample(learner.policy, batch.next_observation)
    torch.testing.assert_close(bonus, -0.1 * log_prob)


def test_calibration_moves_the_asymmetry_and_nothing_else():
    learner = run(make_learner({"num_critics": 1, "architecture": "mlp", "adapts_asymmetry": True}))
    policy, critic = snapshot(learner.policy), snapshot(learner.critic)
    before = learner.asymmetry.state()
    learner.calibrate(make_batch(np.random.default_rng(2)))
    assert learner.asymmetry.state() != before
    assert not changed(policy, learner.policy)
    assert not changed(critic, learner.critic)
    assert {"value_gap", "asymmetry"} <= learner.metrics().keys()


def test_a_single_critic_is_ddpgs_and_a_chain_is_iterated():
    for critic in ({"num_critics": 1}, {"num_critics": 4, "target_rule": "iterated", "climbs": "mean"}):
        learner = run(make_learner({"architecture": "mlp", "hidden_size": 16, **critic}))
        assert np.isfinite(learner.metrics()["critic_loss"])
