"""The circuit's kernels against the circuit as torch operations; without a GPU Triton's interpreter runs them."""

import pytest
import torch

from learner.device_circuit import device_bit_means
from learner.gpu.circuit_kernel import circuit_bit_means, supports
from qpu_service.circuit import CircuitShape

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {"rtol": 0, "atol": 3e-6}
GRADIENT_TOLERANCE = {"rtol": 0, "atol": 3e-5}


def parameters(shape, *, rows=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    # Angles all over the circle, indices far outside of 0..N-1 too.
    numbers = 4 * torch.randn(rows, shape.num_parameters, generator=generator, dtype=dtype)
    pairs = numbers.view(rows, shape.num_layers, -1)[..., -2:]
    pairs *= 10
    pairs[0] = pairs[0].floor() + 0.5  # halves go to the even number
    pairs[:, ::3, 1] = pairs[:, ::3, 0]  # no gate
    return numbers.to(DEVICE)


def compare(shape, *, is_entangled, rows=2, dtype=torch.float32, **options):
    ours, theirs = (parameters(shape, rows=rows, dtype=dtype).requires_grad_() for _ in range(2))
    weights = torch.randn(rows, shape.num_qubits, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    means = circuit_bit_means(ours, shape, is_entangled=is_entangled, **options)
    expected = device_bit_means(theirs, shape, is_entangled=is_entangled)
    torch.testing.assert_close(means, expected, **TOLERANCE)
    (means * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, **GRADIENT_TOLERANCE)
    assert ours.grad.abs().max() > 0.01


@pytest.mark.parametrize(("is_entangled", "rows"), [(True, 2), (False, 1)])
def test_means_and_gradients_of_the_papers_circuit(is_entangled, rows):
    compare(CircuitShape(num_qubits=10, num_layers=10), is_entangled=is_entangled, rows=rows)


@pytest.mark.parametrize(("num_qubits", "num_layers"), [(8, 17), (9, 2)])
def test_other_sizes(num_qubits, num_layers):
    compare(CircuitShape(num_qubits=num_qubits, num_layers=num_layers), is_entangled=True, rows=1)


def test_products_on_tensor_cores_and_another_number_of_warps():
    compare(CircuitShape(num_qubits=10, num_layers=2), is_entangled=True, rows=1, precision="tf32x3", num_warps=8)


def test_other_types_are_computed_in_float32_and_given_back():
    compare(CircuitShape(num_qubits=8, num_layers=2), is_entangled=True, rows=1, dtype=torch.float64)


def test_gradients_of_a_sum_and_of_parameters_that_do_not_lie_side_by_side():
    shape = CircuitShape(num_qubits=8, num_layers=2)
    strided = parameters(shape).T.contiguous().T.requires_grad_()
    circuit_bit_means(strided, shape).sum().backward()
    theirs = parameters(shape).requires_grad_()
    device_bit_means(theirs, shape).sum().backward()
    torch.testing.assert_close(strided.grad, theirs.grad, **GRADIENT_TOLERANCE)


def test_numbers_that_are_not_finite():
    shape = CircuitShape(num_qubits=8, num_layers=2)
    broken = parameters(shape, rows=6)
    broken[1, 0] = float("nan")
    broken[2, -1] = float("inf")
    broken[3, -2] = float("nan")
    broken[4, -3] = float("inf")
    broken[5, -1] = 1e30
    broken.requires_grad_()
    means = circuit_bit_means(broken, shape)
    assert means[[1, 4]].isnan().all()
    assert means[[0, 2, 3, 5]].isfinite().all()
    means.sum().backward()
    assert broken.grad[[1, 4]].isnan().any(dim=1).all()
    assert broken.grad[[0, 2, 3, 5]].isfinite().all()


def test_sizes_it_does_not_take():
    for num_qubits, is_taken in [(1, False), (7, False), (8, True), (10, True), (11, False)]:
        shape = CircuitShape(num_qubits=num_qubits, num_layers=1)
        assert supports(shape) == is_taken
        if not is_taken:
            with pytest.raises(ValueError, match="device_bit_means"):
                circuit_bit_means(parameters(shape), shape)
    with pytest.raises(ValueError, match="shape"):
        circuit_bit_means(torch.zeros(2, 17), CircuitShape(num_qubits=8, num_layers=1))
