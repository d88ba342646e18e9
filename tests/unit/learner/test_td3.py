"""What one update may and may not touch, and that the surrogate learns the circuit."""

import numpy as np
import pytest
import torch

from learner.config import AgentSpec, PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from learner.errors import LearnerDivergedError
from learner.td3 import TD3Learner
from qpu_service.circuit import CircuitShape
from replay.types import TransitionBatch

SPEC = AgentSpec(observation_size=4, action_low=(-1.0,), action_high=(1.0,))
CIRCUIT = CircuitShape(num_qubits=3, num_layers=2)


def make_learner(block="pqc", critic=None, **td3):
    return TD3Learner(
        SPEC,
        block=block,
        policy_config=PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT),
        surrogate_config=SurrogateConfig(hidden_size=32, num_tiny_batches=4, tiny_batch_size=16),
        config=TD3Config(**td3),
        critic_config=critic or CriticConfig(hidden_size=16),
        seed=3,
    )


def make_batch(rng, size=64, *, has_circuit=True):
    parameters = CIRCUIT.num_parameters if has_circuit else 0

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    circuit_parameters = normal(size, parameters)
    bits = (circuit_parameters[:, :3] > 0).astype(np.float32) if has_circuit else normal(size, 0)
    return TransitionBatch(
        observation=normal(size, 4),
        action=np.clip(normal(size, 1), -1, 1),
        reward=normal(size),
        discount=np.ones(size, np.float32),
        next_observation=normal(size, 4),
        circuit_parameters=circuit_parameters,
        bits=bits,
    )


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(before, module):
    return any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_policy_and_targets_move_only_on_every_second_update():
    learner = make_learner()
    rng = np.random.default_rng(0)
    for update in range(1, 5):
        before = {name: snapshot(getattr(learner, name)) for name in ("policy", "target_policy", "target_critic")}
        critic, surrogate = snapshot(learner.critic), snapshot(learner.surrogate)
        learner.update(make_batch(rng))
        assert changed(critic, learner.critic)
        assert changed(surrogate, learner.surrogate)
        for name, values in before.items():
            assert changed(values, getattr(learner, name)) == (update % 2 == 0), (update, name)


def test_policy_update_leaves_critic_and_surrogate_without_gradients_of_it():
    learner = make_learner()
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    critic, surrogate = snapshot(learner.critic), snapshot(learner.surrogate)
    learner._update_policy(batch)
    assert not changed(critic, learner.critic)
    assert not changed(surrogate, learner.surrogate)
    assert all(parameter.grad is None for parameter in learner.critic.parameters())


def test_policy_gradient_is_the_chain_through_the_surrogate():
    learner = make_learner()
    batch = learner._to_device(make_batch(np.random.default_rng(0)))
    q_i, links = learner.policy.encode(batch.observation)
    action = learner.policy.decode(torch.sigmoid(learner.surrogate.network(q_i)), links)
    loss = -learner.critic(batch.observation, action)[0].mean()
    expected = torch.autograd.grad(loss, list(learner.policy.parameters()))
    learner._update_policy(batch)
    for parameter, gradient in zip(learner.policy.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_surrogate_learns_the_bits_of_the_replay():
    learner = make_learner()
    rng = np.random.default_rng(1)
    for _ in range(300):
        learner._update_surrogate(learner._to_device(make_batch(rng)))
    batch = learner._to_device(make_batch(rng))
    agreement = ((learner.surrogate(batch.circuit_parameters) > 0.5) == (batch.bits > 0.5)).float().mean()
    assert agreement > 0.9


@pytest.mark.parametrize("block", ["linear", "random_bits", "zeros"])
def test_blocks_without_a_circuit_learn_without_a_surrogate(block):
    learner = make_learner(block)
    before = snapshot(learner.policy)
    for _ in range(2):
        learner.update(make_batch(np.random.default_rng(0), has_circuit=False))
    assert learner.surrogate is None
    assert changed(before, learner.policy)
    assert "surrogate_loss" not in learner.metrics()


def test_divergence_is_named_and_never_published():
    learner = make_learner()
    batch = make_batch(np.random.default_rng(0))
    batch.reward[3] = np.nan
    learner.update(batch)
    learner.update(batch)
    with pytest.raises(LearnerDivergedError, match=r"diverged at update 2: .*critic_loss=nan.*expected finite"):
        learner.metrics()
    with pytest.raises(LearnerDivergedError, match="not finite"):
        learner.policy_parameters()


def test_terminated_transitions_do_not_bootstrap():
    learner = make_learner()
    batch = make_batch(np.random.default_rng(0))
    batch.discount[:] = 0
    with torch.no_grad():
        for parameter in learner.target_critic.parameters():
            parameter.fill_(1e6)
    learner.update(batch)
    assert learner.metrics()["critic_loss"] < 100
