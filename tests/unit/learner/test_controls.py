"""The controls mlp, frozen_pqc and unentangled_pqc: each takes away exactly what it says."""

import numpy as np
import pytest
import torch

from learner.blocks import classical_output, decode_circuits
from learner.config import BLOCKS, AgentSpec, PolicyConfig, SurrogateConfig, TD3Config, uses_circuit
from learner.networks import PolicyNetwork
from learner.parameter_loading import load_parameters
from learner.parameters import VersionedParameters
from learner.td3 import TD3Learner
from qpu_service.circuit import CircuitShape, decode_parameters
from tests.unit.learner.test_state import assert_resumes_bit_for_bit
from tests.unit.learner.test_td3 import CIRCUIT, SPEC, changed, make_batch, make_learner, snapshot

TWO_ACTIONS = AgentSpec(observation_size=3, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
CONTROLS = ("mlp", "frozen_pqc", "unentangled_pqc")
ENVIRONMENTS = {"Pendulum": (3, 1), "HalfCheetah": (17, 6), "Hopper": (11, 3), "Humanoid": (376, 17)}


def make_policy(block, spec=SPEC, config=None, seed=0):
    torch.manual_seed(seed)
    return PolicyNetwork(spec, config or PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT), block)


def num_trained(policy):
    return sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("sizes", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_mlp_policy_has_as_many_trained_parameters_as_pqc(sizes):
    num_observations, num_actions = sizes
    spec = AgentSpec(
        observation_size=num_observations, action_low=(-1.0,) * num_actions, action_high=(1.0,) * num_actions
    )
    quantum, classical = (num_trained(make_policy(block, spec, PolicyConfig())) for block in ("pqc", "mlp"))
    assert classical == pytest.approx(quantum, rel=2e-3)


def test_mlp_sizes_on_humanoid_are_those_of_the_documentation():
    spec = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)
    policy = make_policy("mlp", spec, PolicyConfig())
    assert tuple(policy.pre[0].weight.shape) == (233, 376)
    assert tuple(policy.mlp_block[0].weight.shape) == (64, 220)
    assert tuple(policy.mlp_block[2].weight.shape) == (10, 64)


@pytest.mark.parametrize("hidden_size", [2, 5, 16, 64, 300])
@pytest.mark.parametrize("circuit", [(1, 1), (3, 2), (10, 10)])
@pytest.mark.parametrize(
    "choices",
    [{}, {"hidden_normalisation": "layer"}, {"family": "gaussian"}, {"family": "flow"}, {"family": "variational"}],
    ids=lambda choices: next(iter(choices.values()), "paper"),
)
def test_matched_totals_differ_by_at_most_half_a_unit_of_the_block(hidden_size, circuit, choices):
    shape = CircuitShape(num_qubits=circuit[0], num_layers=circuit[1])
    config = PolicyConfig(hidden_size=hidden_size, num_links=3, circuit=shape, **choices)
    quantum, classical = (num_trained(make_policy(block, TWO_ACTIONS, config)) for block in ("pqc", "mlp"))
    half_a_unit = (shape.num_parameters + 1 + shape.num_qubits) / 2
    # Where one unit of a narrow PreDNN costs less than one unit of the block, the block's first one decides.
    assert abs(classical - quantum) <= (half_a_unit if hidden_size >= 16 else 3 * half_a_unit)


def test_mlp_block_is_a_hidden_layer_and_a_sigmoid_and_is_trained():
    learner = make_learner("mlp")
    block = learner.policy.mlp_block
    first, last = block[0], block[2]
    inputs = torch.randn(5, CIRCUIT.num_parameters)
    hidden = inputs @ first.weight.T + first.bias
    logits = torch.maximum(hidden, 0.01 * hidden) @ last.weight.T + last.bias
    output = classical_output("mlp", learner.policy, inputs, torch.Generator())
    torch.testing.assert_close(output, 1 / (1 + torch.exp(-logits)))
    before = snapshot(block)
    for _ in range(2):
        learner.update(make_batch(np.random.default_rng(0), has_circuit=False))
    assert changed(before, block)
    assert learner.surrogate is None


def test_frozen_policy_starts_as_the_quantum_one_with_the_same_seed():
    frozen, quantum = make_policy("frozen_pqc"), make_policy("pqc")
    observation = torch.randn(7, SPEC.observation_size)
    for mine, theirs in zip(frozen.encode(observation), quantum.encode(observation), strict=True):
        assert torch.equal(mine, theirs)
    assert num_trained(frozen) == num_trained(quantum)


def test_frozen_circuit_inputs_depend_on_the_observation_and_never_move_while_the_rest_learns():
    learner = make_learner("frozen_pqc")
    observation = torch.randn(7, SPEC.observation_size)
    circuit_parameters, links = learner.policy.encode(observation)
    assert not torch.equal(circuit_parameters[0], circuit_parameters[1])
    before = {name: parameter.detach().clone() for name, parameter in learner.policy.named_parameters()}
    for _ in range(4):
        learner.update(make_batch(np.random.default_rng(0)))
    after = dict(learner.policy.named_parameters())
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in before if not name.startswith("frozen_pre.")}
    again, new_links = learner.policy.encode(observation)
    assert torch.equal(circuit_parameters, again)
    assert not torch.equal(links, new_links)
    target, _ = learner.target_policy.encode(observation)
    assert torch.equal(circuit_parameters, target)


def test_gains_on_frozen_circuit_inputs_are_frozen_too():
    config = PolicyConfig(hidden_size=16, num_links=2, circuit=CIRCUIT, normalise_parameters=True)
    learner = TD3Learner(
        SPEC,
        block="frozen_pqc",
        policy_config=config,
        surrogate_config=SurrogateConfig(hidden_size=32, quality_period_updates=1),
        config=TD3Config(),
        seed=3,
    )
    observation = torch.randn(7, SPEC.observation_size)
    before, _ = learner.policy.encode(observation)
    for _ in range(4):
        learner.update(make_batch(np.random.default_rng(0)))
    assert torch.equal(before, learner.policy.encode(observation)[0])


def test_frozen_policy_learns_through_its_surrogate_all_the_same():
    learner = make_learner("frozen_pqc")
    before = snapshot(learner.surrogate)
    learner.update(make_batch(np.random.default_rng(0)))
    assert changed(before, learner.surrogate)


def test_unentangled_circuits_have_the_angles_of_pqc_and_no_entangler():
    parameters = 5 * np.random.default_rng(0).standard_normal((50, CIRCUIT.num_parameters)).astype(np.float32)
    angles, pairs = decode_parameters(parameters, CIRCUIT)
    assert (pairs[..., 0] != pairs[..., 1]).any()
    unentangled_angles, unentangled_pairs = decode_circuits("unentangled_pqc", parameters, CIRCUIT)
    np.testing.assert_array_equal(unentangled_angles, angles)
    assert unentangled_pairs.dtype == pairs.dtype
    np.testing.assert_array_equal(unentangled_pairs, np.zeros_like(pairs))
    for block in ("pqc", "frozen_pqc"):
        np.testing.assert_array_equal(decode_circuits(block, parameters, CIRCUIT)[1], pairs)


def test_blocks_with_a_circuit():
    assert [block for block in BLOCKS if uses_circuit(block)] == ["pqc", "frozen_pqc", "unentangled_pqc"]


@pytest.mark.parametrize("block", CONTROLS)
def test_resumed_control_is_bit_identical(block):
    def learn(learner, seed):
        rng = np.random.default_rng(seed)
        for _ in range(3):
            learner.update(make_batch(rng, has_circuit=uses_circuit(block)))

    assert_resumes_bit_for_bit(lambda: make_learner(block), learn)


@pytest.mark.parametrize("block", CONTROLS)
def test_an_actor_gets_everything_that_it_acts_with(block):
    learner = make_learner(block)
    network = make_policy(block, seed=99)
    load_parameters(network, VersionedParameters(version=1, arrays=learner.policy_parameters(), env_step=0))
    observation = torch.randn(4, SPEC.observation_size)
    for mine, theirs in zip(network.encode(observation), learner.policy.encode(observation), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(network.parameters(), learner.policy.parameters(), strict=True):
        assert torch.equal(mine, theirs)
