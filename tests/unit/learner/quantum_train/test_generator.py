"""Sizes of the source, the generator's formula, batched generation, gradients through everything."""

import numpy as np
import pytest
import torch

from learner.quantum_train.config import GeneratorConfig, PolicyShape
from learner.quantum_train.generator import WeightGenerator, generator_shape
from learner.quantum_train.policy import Policy, num_weights

CARTPOLE = PolicyShape(observation_size=4, num_outputs=2, is_discrete=True, hidden_sizes=(128,))
MINIGRID = PolicyShape(observation_size=147, num_outputs=3, is_discrete=True, hidden_sizes=(32,))


@pytest.mark.parametrize(
    ("shape", "config", "weights", "qubits", "trained"),
    [
        (CARTPOLE, GeneratorConfig(depth=5), 898, 10, 651),
        (MINIGRID, GeneratorConfig(depth=13, mapping_hidden=(10, 64, 10)), 4_835, 13, 2_529),
    ],
    ids=["cartpole", "minigrid"],
)
def test_sizes_are_those_of_the_released_notebooks(shape, config, weights, qubits, trained):
    policy = Policy(shape, config, "quantum_train", seed=0)
    assert num_weights(policy.network) == weights
    assert policy.weights.shape.num_qubits == qubits
    assert sum(parameter.numel() for parameter in policy.parameters()) == policy.weights.num_trainable == trained


def test_weights_follow_the_formula():
    config = GeneratorConfig(depth=1, mapping_hidden=(3,), probability_gain=0.2, probability_scale=0.8)
    generator = WeightGenerator(11, config, seed=4)
    p = generator.source.probabilities(generator.angles.detach().numpy().astype(np.float64))[0].astype(np.float64)
    x = 0.8 * np.tanh(0.2 * 2**3 * p[:11])
    x -= x.mean()
    (w1, b1), (w2, b2) = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in generator.mapping]
    rows = []
    for i in range(11):
        code = [1.0 if i >> digit & 1 else -1.0 for digit in range(4)]
        rows.append((w2 @ (w1 @ np.array([*code, x[i]]) + b1) + b2)[0])
    expected = np.array(rows) - np.mean(rows)
    np.testing.assert_allclose(generator().detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["none", "relu", "tanh"])
@pytest.mark.parametrize("max_qubits", [None, 3])
def test_gradient_reaches_angles_and_mapping(activation, max_qubits):
    config = GeneratorConfig(depth=2, mapping_hidden=(5,), activation=activation, max_qubits=max_qubits)
    generator = WeightGenerator(21, config, seed=1)
    direction = torch.linspace(-1, 1, 21)
    (generator() * direction).sum().backward()
    for parameter in generator.parameters():
        # Without activations biases shift every weight alike and drop out with the mean.
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for index in [0, parameter.numel() - 1]:
            assert own.view(-1)[index] == pytest.approx(
                slope(generator, parameter, index, direction), abs=2e-3, rel=2e-2
            )


def slope(generator, parameter, index, direction, step=2e-2):
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.view(-1)[index] += sign * step
            values.append(float((generator().double() * direction).sum()))
            parameter.view(-1)[index] -= sign * step
    return (values[0] - values[1]) / (2 * step)


def test_a_large_network_is_generated_in_batches():
    shape, count = generator_shape(100, GeneratorConfig(max_qubits=5))
    assert (shape.num_qubits, count) == (5, 4)
    generator = WeightGenerator(100, GeneratorConfig(max_qubits=5, depth=1), seed=0)
    assert generator().shape == (100,)
    assert generator.angles.shape == (4, 30)
    # weights of different circuits have different codes: the digits are those of the weight's own number
    assert len({tuple(row) for row in generator.digits.tolist()}) == 100


def test_same_seed_same_weights():
    first, second, other = (WeightGenerator(9, GeneratorConfig(), seed=seed)() for seed in (1, 1, 2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_exported_network_is_a_plain_one():
    policy = Policy(CARTPOLE, GeneratorConfig(), "quantum_train", seed=0)
    policy.fill()
    plain = torch.nn.Sequential(torch.nn.Linear(4, 128), torch.nn.ReLU(), torch.nn.Linear(128, 2))
    plain.load_state_dict(policy.export())
    observation = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plain(observation), policy.outputs(policy.generate(), observation))


def test_acting_asks_the_source_once_per_version():
    class Counting:
        calls = 0

        def probabilities(self, angles):
            self.calls += 1
            return np.full((1, 1024), 1 / 1024, np.float32)

        def gradient(self, angles, weights):
            raise AssertionError("acting needs no gradient")

        def seek(self, seed):
            pass

    source = Counting()
    policy = Policy(CARTPOLE, GeneratorConfig(), "quantum_train", seed=0, source=source)
    policy.fill()
    for _ in range(5):
        policy.network(torch.zeros(2, 4))
    assert source.calls == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"max_qubits": 1}, "max_qubits must be at least 2"),
        ({"mapping_hidden": (3, 0)}, "mapping_hidden must be at least 1"),
        ({"probability_gain": 0.0}, "probability_gain must be positive"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**fields)
