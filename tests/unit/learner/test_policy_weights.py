"""The policy of the main agent with weights that a circuit generates: gradient, sizes, targets, state."""

import json
import logging

import numpy as np
import pytest
import torch

from learner.acceleration import accelerate
from learner.config import BLOCKS, PolicyConfig, SurrogateConfig, TD3Config, uses_circuit
from learner.critic_config import CriticConfig
from learner.errors import StateMismatchError
from learner.networks import PolicyNetwork
from learner.parameter_loading import load_parameters
from learner.parameters import VersionedParameters
from learner.policy_weights import describe
from learner.quantum_train.config import GeneratorConfig
from learner.quantum_train.generated_weights import GeneratedWeights
from learner.state import learner_state, load_learner_state
from learner.td3 import TD3Learner
from tests.unit.learner.test_td3 import CIRCUIT, SPEC, make_batch

SIZES = {"hidden_size": 16, "num_links": 2, "circuit": CIRCUIT}


def policy_config(weights="generated", **fields):
    generator = GeneratorConfig(depth=2, max_qubits=6, mapping_hidden=(4,))
    return PolicyConfig(weights=weights, generator=generator, **SIZES, **fields)


def make_learner(block="pqc", policy=None, decay_updates=None, **td3):
    return TD3Learner(
        SPEC,
        block=block,
        policy_config=policy or policy_config(),
        surrogate_config=SurrogateConfig(hidden_size=32, num_tiny_batches=2, tiny_batch_size=16),
        config=TD3Config(**td3),
        critic_config=CriticConfig(hidden_size=16),
        decay_updates=decay_updates,
        seed=3,
    )


def learn(learner, updates, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(updates):
        learner.update(make_batch(rng, has_circuit=uses_circuit(learner.block)))


def weights_of(learner):
    return torch.cat([p.detach().reshape(-1) for p in learner.policy.parameters() if p.requires_grad])


@pytest.mark.parametrize("block", ["pqc", "linear"])
def test_a_step_is_adams_on_the_gradient_of_angles_and_mapping(block):
    learner, twin = make_learner(block), make_learner(block)
    batch = learner._to_device(make_batch(np.random.default_rng(0), has_circuit=block == "pqc"))
    generated = twin.policy_optimizer
    # The twin's policy as one function of angles and mapping, whole in autograd.
    values, parts = generated._generate(), {}
    names = [name for name, p in twin.policy.named_parameters() if p.requires_grad]
    for name, part in zip(names, torch.split(values, generated._sizes), strict=True):
        parts[name] = part.view(twin.policy.get_parameter(name).shape)
    noise_free = torch.func.functional_call(_Action(twin), {f"policy.{n}": p for n, p in parts.items()}, batch)
    loss = -twin._climbed_value(batch.observation, noise_free)
    trained = list(generated.generator.parameters())
    # The mapping's biases cancel, so their gradient is zero or absent.
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    learner._update_policy(batch)
    for parameter, expected in zip(learner.policy_optimizer.generator.parameters(), gradients, strict=True):
        found = parameter.grad
        if expected is None:
            assert found is None
        else:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


class _Action(torch.nn.Module):
    def __init__(self, learner):
        super().__init__()
        self.policy = learner.policy
        self._learner = learner

    def forward(self, batch):
        return self._learner._surrogate_sample(self.policy, batch.observation)[0]


@pytest.mark.parametrize("block", list(BLOCKS))
def test_every_block_learns_with_generated_weights(block):
    learner = make_learner(block)
    generated = learner.policy_optimizer
    assert isinstance(generated, GeneratedWeights)
    assert generated.num_weights == sum(p.numel() for p in learner.policy.parameters() if p.requires_grad)
    before = weights_of(learner)
    learn(learner, 4)
    assert not torch.equal(before, weights_of(learner))
    assert torch.equal(weights_of(learner), generated._generate().detach())
    assert learner.metrics()["trained_numbers"] == generated.num_trained


def test_policy_and_target_start_as_one_and_the_target_follows_softly():
    learner = make_learner("linear", policy_delay=1, polyak_coefficient=0.25)
    start = [p.detach().clone() for p in learner.policy.parameters()]
    for target, value in zip(learner.target_policy.parameters(), start, strict=True):
        assert torch.equal(target, value)
    learn(learner, 1)
    for target, value, now in zip(learner.target_policy.parameters(), start, learner.policy.parameters(), strict=True):
        torch.testing.assert_close(target, value + 0.25 * (now - value))


def test_the_frozen_copy_is_that_of_the_generated_start():
    learner = make_learner("frozen_pqc")
    for ours, frozen in zip(learner.policy.pre.parameters(), learner.policy.frozen_pre.parameters(), strict=True):
        assert torch.equal(ours, frozen)


def test_nothing_else_starts_otherwise():
    trained, generated = make_learner(policy=policy_config("trained")), make_learner()
    for name in ("critic", "surrogate"):
        pairs = zip(getattr(trained, name).parameters(), getattr(generated, name).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_gains_of_a_normalisation_are_trained_directly():
    learner = make_learner("linear", policy_config(hidden_normalisation="layer", normalise_parameters=True))
    gain = learner.policy.pre[1].weight
    assert torch.equal(gain, torch.ones(16))
    angles, mapping, direct = learner.policy_optimizer.param_groups
    assert any(parameter is gain for parameter in direct["params"])
    assert (angles["lr"], mapping["lr"], direct["lr"]) == (3e-4, 1e-4, 3e-4)
    learn(learner, 2)
    assert not torch.equal(gain, torch.ones(16))


def test_both_learning_rates_decay():
    learner = make_learner("linear", decay_updates=4, final_learning_rate_share=0.5)
    learn(learner, 4)
    assert [group["lr"] for group in learner.policy_optimizer.param_groups] == pytest.approx([1.5e-4, 5e-5])
    assert learner.critic_optimizer.param_groups[0]["lr"] == pytest.approx(1.5e-4)


@pytest.mark.parametrize("fields", [{}, {"hidden_normalisation": "layer", "normalise_observations": True}])
def test_a_resumed_learner_is_bit_identical(fields):
    make = lambda: make_learner("linear", policy_config(**fields))  # noqa: E731
    straight, first, second = make(), make(), make()
    learn(straight, 4)
    learn(straight, 4, seed=1)
    learn(first, 4)
    tensors, scalars = learner_state(first)
    load_learner_state(second, tensors, json.loads(json.dumps(scalars)))
    stored = torch.cat([tensors[f"policy.{n}"].reshape(-1) for n, p in first.policy.named_parameters()])
    assert torch.equal(weights_of(second), stored), "generated and stored weights have drifted apart"
    learn(second, 4, seed=1)
    expected, found = learner_state(straight)[0], learner_state(second)[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_state_without_a_generator_is_refused():
    tensors, scalars = learner_state(make_learner(policy=policy_config("trained")))
    with pytest.raises(StateMismatchError, match=r"weight_generator\.angles has shape None"):
        load_learner_state(make_learner(), tensors, scalars)


def test_actors_get_plain_weights():
    learner = make_learner("linear")
    learn(learner, 2)
    arrays = learner.policy_parameters()
    assert arrays.keys() == PolicyNetwork(SPEC, policy_config("trained"), "linear").state_dict().keys()
    acting = PolicyNetwork(SPEC, policy_config("trained"), "linear")
    load_parameters(acting, VersionedParameters(version=1, arrays=arrays, env_step=0))
    assert all(torch.equal(a, b) for a, b in zip(acting.parameters(), learner.policy.parameters(), strict=True))


def test_the_fast_path_of_a_cpu_takes_it_too():
    plain, fast = make_learner(), make_learner()
    accelerate(fast)
    learn(plain, 3)
    learn(fast, 3)
    torch.testing.assert_close(weights_of(fast), weights_of(plain), rtol=1e-3, atol=1e-5)


def test_updates_on_a_gpu_are_not_captured_and_that_is_said(caplog):
    learner = make_learner("linear")
    learner.device = torch.device("cuda")
    execute = learner.execute
    with caplog.at_level(logging.INFO):
        accelerate(learner)
    assert learner.execute == execute
    assert "not captured as CUDA graphs: the policy's weights are generated on the host" in caplog.text


def test_the_line_at_the_start_counts_both():
    assert describe(make_learner(policy=policy_config("trained")).policy_optimizer) is None
    line = describe(make_learner().policy_optimizer)
    # Weights: 4·16 + 16 + 16·18 + 18 and 5·16 + 16 + 16 + 1; angles: 8 circuits of 6·6·2; mapping: 10·4 + 4 + 4 + 1.
    assert line.startswith("499 policy weights from 625 trained numbers (8 circuits u3_cu3, 6 qubits, depth 2")
