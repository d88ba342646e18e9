"""The circuit as torch operations against the compiled simulator: values and gradients."""

import pytest
import torch

from learner.device_circuit import device_bit_means
from learner.exact_circuit import ExactCircuit
from qpu_service.circuit import CircuitShape


def parameters(shape, *, seed=0, rows=7):
    generator = torch.Generator().manual_seed(seed)
    # Angles all over the circle, indices far outside of 0..N-1 too.
    return 4 * torch.randn(rows, shape.num_parameters, generator=generator)


@pytest.mark.parametrize("block", ["pqc", "unentangled_pqc"])
@pytest.mark.parametrize(("num_qubits", "num_layers"), [(1, 3), (2, 1), (5, 4), (6, 3), (10, 10), (11, 2)])
def test_means_and_gradients_are_those_of_the_simulator(block, num_qubits, num_layers):
    shape = CircuitShape(num_qubits=num_qubits, num_layers=num_layers)
    exact = ExactCircuit(block, shape)
    ours, theirs = parameters(shape).requires_grad_(), parameters(shape).requires_grad_()
    weights = torch.randn(7, num_qubits, generator=torch.Generator().manual_seed(1))
    means, expected = device_bit_means(ours, shape, is_entangled=block == "pqc"), exact.bit_means(theirs)
    torch.testing.assert_close(means, expected, rtol=0, atol=3e-6)
    (means * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=3e-5)
    assert ours.grad.abs().max() > 0.01


def test_entangling_matters_here():
    shape = CircuitShape(num_qubits=4, num_layers=4)
    both = [device_bit_means(parameters(shape), shape, is_entangled=flag) for flag in (True, False)]
    assert (both[0] - both[1]).abs().max() > 0.05


def test_numbers_that_are_not_finite_give_means_that_are_not_and_no_index_outside_the_table():
    shape = CircuitShape(num_qubits=3, num_layers=2)
    broken = parameters(shape)
    broken[1, 0] = float("nan")
    broken[2, -1] = float("inf")
    broken[3, -2] = float("nan")
    means = device_bit_means(broken, shape)
    assert means[1].isnan().any()
    assert means[[0, 4, 5, 6]].isfinite().all()
