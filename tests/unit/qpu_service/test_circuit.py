"""How a real vector becomes a circuit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qpu_service.circuit import CircuitShape, decode_parameters
from qpu_service.types import circuit_seeds

FINITE = st.floats(-1e6, 1e6, width=32)


def test_paper_size_has_220_parameters() -> None:
    assert CircuitShape().num_parameters == 220


@pytest.mark.parametrize("size", [{"num_qubits": 0}, {"num_qubits": 21}, {"num_layers": 0}])
def test_impossible_sizes_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(size))):
        CircuitShape(**size)


def test_each_layer_is_rotations_then_a_pair() -> None:
    shape = CircuitShape(num_qubits=2, num_layers=2)
    angles, pairs = decode_parameters(np.array([[1, 2, 3, 4, 0, 1, 5, 6, 7, 8, 1, 1]], np.float32), shape)
    assert angles.tolist() == [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]
    assert pairs.tolist() == [[[0, 1], [1, 1]]]


@pytest.mark.parametrize(
    ("value", "qubit"),
    [(0.4, 0), (0.5, 0), (0.51, 1), (1.5, 2), (2.5, 2), (2.6, 0), (3.0, 0), (-0.4, 0), (-1.0, 2), (-4.0, 2), (7.2, 1)],
)
def test_an_index_is_the_rounded_number_modulo_n(value: float, qubit: int) -> None:
    parameters = np.zeros((1, 8), np.float32)
    parameters[0, 6:] = value
    _, pairs = decode_parameters(parameters, CircuitShape(num_qubits=3, num_layers=1))
    assert pairs[0, 0].tolist() == [qubit, qubit]


@settings(deadline=None)
@given(data=st.data(), num_qubits=st.integers(1, 20), num_layers=st.integers(1, 4), count=st.integers(0, 3))
def test_every_finite_vector_is_a_legal_circuit(
    data: st.DataObject, num_qubits: int, num_layers: int, count: int
) -> None:
    shape = CircuitShape(num_qubits=num_qubits, num_layers=num_layers)
    parameters = data.draw(hnp.arrays(np.float32, (count, shape.num_parameters), elements=FINITE))
    angles, pairs = decode_parameters(parameters, shape)
    assert angles.shape == (count, num_layers, num_qubits, 2)
    assert angles.dtype == np.float32
    assert pairs.shape == (count, num_layers, 2)
    assert pairs.dtype == np.int16
    assert ((pairs >= 0) & (pairs < num_qubits)).all()
    layers = parameters.reshape(count, num_layers, 2 * num_qubits + 2)
    assert (angles.reshape(count, num_layers, 2 * num_qubits) == layers[..., :-2]).all()


@settings(deadline=None)
@given(turns=st.integers(-1000, 1000), index=st.integers(0, 9), offset=st.floats(-0.45, 0.45))
def test_pairs_are_periodic_with_the_number_of_qubits(turns: int, index: int, offset: float) -> None:
    parameters = np.zeros((1, 22), np.float32)
    parameters[0, 20:] = index + 10 * turns + offset
    _, pairs = decode_parameters(parameters, CircuitShape(num_qubits=10, num_layers=1))
    assert pairs[0, 0].tolist() == [index, index]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_policy_is_named_by_row(bad: float) -> None:
    parameters = np.zeros((3, 220), np.float32)
    parameters[2, 17] = bad
    with pytest.raises(ValueError, match="circuit 2 are not finite"):
        decode_parameters(parameters, CircuitShape())


@pytest.mark.parametrize("wrong", [(3, 219), (220,), (1, 2, 220)])
def test_wrong_shapes_are_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must have shape \(B, 220\)"):
        decode_parameters(np.zeros(wrong, np.float32), CircuitShape())


@given(seed=st.integers(0, 2**64 - 1), count=st.integers(0, 50), fewer=st.integers(0, 50))
def test_circuit_seeds_of_a_prefix_are_a_prefix(seed: int, count: int, fewer: int) -> None:
    seeds = circuit_seeds(seed, count)
    assert seeds.dtype == np.uint64
    assert len(np.unique(seeds)) == count
    assert (circuit_seeds(seed, min(count, fewer)) == seeds[:fewer]).all()
