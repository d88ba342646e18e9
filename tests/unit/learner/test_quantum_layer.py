"""The quantum layer as a torch module: real bits forward, the surrogate's gradient backward."""

import numpy as np
import pytest
import torch

from learner.quantum_layer import QuantumLayer
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.circuit import CircuitShape
from qpu_service.sampler import LocalSampler

SHAPE = CircuitShape(num_qubits=2, num_layers=1)


def make_layer(**kwargs):
    torch.manual_seed(0)
    return QuantumLayer(SHAPE, LocalSampler(StatevectorBackend()), seed=5, **kwargs)


def test_forward_is_the_circuit():
    layer = make_layer()
    parameters = torch.zeros(4, SHAPE.num_parameters)
    parameters[2:, 0] = np.pi  # θ of qubit 0 flips it
    assert layer(parameters).tolist() == [[0, 0], [0, 0], [1, 0], [1, 0]]


def test_backward_is_the_surrogate_as_it_is_at_that_moment():
    layer = make_layer()
    parameters = torch.randn(8, SHAPE.num_parameters, requires_grad=True)
    weights = torch.tensor([1.0, -2.0])
    loss = (layer(parameters) @ weights).sum()
    layer.fit_surrogate(torch.optim.Adam(layer.surrogate.parameters(), lr=1e-2))
    loss.backward()
    (expected,) = torch.autograd.grad((layer.surrogate(parameters) @ weights).sum(), parameters)
    torch.testing.assert_close(parameters.grad, expected)


def test_many_shots_give_bit_means():
    layer = make_layer(shots=2000)
    parameters = torch.zeros(1, SHAPE.num_parameters)
    parameters[0, 0] = np.pi / 2
    # Standard error 0.011: six of them fail by chance once in 10⁹.
    assert float(layer(parameters)[0, 0]) == pytest.approx(0.5, abs=0.067)


def test_a_model_around_the_layer_learns():
    torch.manual_seed(1)
    layer = make_layer(surrogate_hidden_size=64)
    encoder = torch.nn.Linear(1, SHAPE.num_parameters)
    surrogate_optimizer = torch.optim.Adam(layer.surrogate.parameters(), lr=1e-2)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-2)
    inputs = torch.tensor([[-1.0], [1.0]]).repeat(32, 1)
    target = (inputs[:, 0] > 0).float()
    losses = []
    for _ in range(200):
        loss = (layer(encoder(inputs))[:, 0] - target).square().mean()
        layer.fit_surrogate(surrogate_optimizer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.1 < np.mean(losses[:5])


def test_fit_before_forward_is_refused():
    layer = make_layer()
    with pytest.raises(ValueError, match="run a forward pass first"):
        layer.fit_surrogate(torch.optim.Adam(layer.surrogate.parameters()))
