"""Sizes of the paper's Table 2, bounds of actions, and that the batched twin critic is two critics."""

import numpy as np
import pytest
import torch

from learner.config import AgentSpec, PolicyConfig
from learner.networks import PolicyNetwork, QuantumSurrogate, TwinCritic
from qpu_service.circuit import CircuitShape, decode_parameters

HUMANOID = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)


def linear_sizes(network: torch.nn.Sequential) -> list[int]:
    layers = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    return [layers[0].in_features, *(layer.out_features for layer in layers)]


def test_sizes_on_humanoid_are_those_of_table_2():
    policy = PolicyNetwork(HUMANOID, PolicyConfig(), "pqc")
    assert linear_sizes(policy.pre) == [376, 256, 230]
    assert linear_sizes(policy.post) == [20, 256, 17]
    assert policy.num_parameters == 220
    assert linear_sizes(QuantumSurrogate(220, 10).network) == [220, 2048, 10]
    critic = TwinCritic(HUMANOID, 256)
    assert tuple(critic.observation_layer.weight.shape) == (2, 376, 256)
    assert tuple(critic.joint_layer.weight.shape) == (2, 273, 256)
    assert tuple(critic.value_layer.weight.shape) == (2, 256, 1)


def test_actions_stay_inside_unequal_bounds():
    spec = AgentSpec(observation_size=2, action_low=(-1.0, 3.0), action_high=(5.0, 4.0))
    policy = PolicyNetwork(spec, PolicyConfig(circuit=CircuitShape(num_qubits=2, num_layers=1)), "zeros")
    with torch.no_grad():
        action = policy.decode(100 * torch.randn(500, 2), 100 * torch.randn(500, 10))
    assert action.min(dim=0).values.tolist() == pytest.approx([-1.0, 3.0])
    assert action.max(dim=0).values.tolist() == pytest.approx([5.0, 4.0])


def test_twin_critic_is_two_independent_critics():
    torch.manual_seed(0)
    critic = TwinCritic(HUMANOID, 32)
    observation, action = torch.randn(5, 376), torch.randn(5, 17)
    both = critic(observation, action)
    for index in range(2):
        hidden = torch.nn.functional.leaky_relu(
            observation @ critic.observation_layer.weight[index] + critic.observation_layer.bias[index]
        )
        joint = torch.cat([hidden, action], dim=1) @ critic.joint_layer.weight[index] + critic.joint_layer.bias[index]
        value = (
            torch.nn.functional.leaky_relu(joint) @ critic.value_layer.weight[index] + critic.value_layer.bias[index]
        )
        torch.testing.assert_close(both[index], value.squeeze(1))
    torch.testing.assert_close(critic.first(observation, action), both[0])
    assert not torch.allclose(both[0], both[1])


def test_the_linear_block_is_trained_with_the_policy_and_others_have_none():
    assert PolicyNetwork(HUMANOID, PolicyConfig(), "linear").linear_block is not None
    for block in ("pqc", "random_bits", "zeros"):
        assert PolicyNetwork(HUMANOID, PolicyConfig(), block).linear_block is None


def test_limited_angles_stay_inside_and_qubit_indices_are_left_alone():
    circuit = CircuitShape(num_qubits=3, num_layers=2)
    spec = AgentSpec(observation_size=4, action_low=(-1.0,), action_high=(1.0,))
    torch.manual_seed(0)
    free = PolicyNetwork(spec, PolicyConfig(circuit=circuit), "pqc")
    limited = PolicyNetwork(spec, PolicyConfig(circuit=circuit, angle_limit_rad=0.3), "pqc")
    limited.load_state_dict(free.state_dict())
    observation = 20 * torch.randn(50, 4)
    before, links = free.encode(observation)
    after, same_links = limited.encode(observation)
    angles, pairs = decode_parameters(before.detach().numpy(), circuit)
    limited_angles, limited_pairs = decode_parameters(after.detach().numpy(), circuit)
    np.testing.assert_allclose(limited_angles, 0.3 * np.tanh(angles / 0.3), rtol=1e-5)
    np.testing.assert_array_equal(limited_pairs, pairs)
    assert np.abs(angles).max() > 1
    torch.testing.assert_close(links, same_links)
