"""Aer: the fault that this project works around, and device noise. Takes about 5 s."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit_aer import AerSimulator

from qpu_service.backends.aer import AerBackend, available_processors, check_gpu
from qpu_service.backends.fake_device import cut_region, load_fake_device
from qpu_service.backends.merged_circuits import merged_circuits
from qpu_service.errors import BackendUnavailableError
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.conformance.circuits import random_circuits


def one_counts(circuit: QuantumCircuit, **run_options: object) -> dict[str, int]:
    return AerSimulator().run(circuit, shots=200, seed_simulator=1, **run_options).result().get_counts()


def test_aer_still_drops_values_bound_to_controlled_gates() -> None:
    # When this fails, Aer is repaired and the warnings in qpu_service may go. Until then it shows why they are there.
    angle = Parameter("angle")
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.x(1)
    circuit.cp(angle, 0, 1)
    circuit.h(0)
    circuit.measure_all()
    assert set(one_counts(circuit.assign_parameters([np.pi]))) == {"11"}
    assert set(one_counts(circuit, parameter_binds=[{angle: [np.pi]}])) == {"10"}


def test_nothing_sent_to_aer_has_a_parameter() -> None:
    for circuit in merged_circuits(random_circuits(20, 6, 8)):
        assert not circuit.parameters
        names = {instruction.operation.name for instruction in circuit.data}
        assert names <= {"u", "cz", "measure"}


def test_merging_leaves_at_most_one_gate_between_entanglers() -> None:
    for circuit in merged_circuits(random_circuits(20, 10, 10)):
        operations = circuit.count_ops()
        assert operations["u"] == 2 * operations.get("cz", 0) + 10
        assert operations.get("cz", 0) <= 9


def test_the_noise_of_a_device_shows() -> None:
    circuits = random_circuits(1, 3, 1, shots=2000)
    angles = np.zeros_like(circuits.angles)
    angles[..., 0] = np.pi
    asked = CircuitBatch(angles=angles, entangler_pairs=circuits.entangler_pairs, seeds=circuits.seeds, shots=2000)
    noisy = AerBackend(device="fake_manila")
    assert noisy.name == "aer:fake_manila"
    assert (AerBackend().run(asked).bits == 1).all()
    # Readout errors of this device are 2 to 4 %: no error in 6000 bits has a probability below 1e-50.
    assert 0.9 < noisy.run(asked).bits.mean() < 1.0


def test_entangled_circuits_run_on_a_devices_region() -> None:
    # fake_manila is a line of five qubits; errors of a few CZ shift a mean by less than 0.2 and noise by 0.02.
    circuits = random_circuits(4, 4, 4, shots=3000, seed=2)
    noisy, exact = AerBackend(device="fake_manila").run(circuits).bits, AerBackend().run(circuits).bits
    assert np.abs(noisy.mean(axis=1) - exact.mean(axis=1)).max() < 0.2


def test_a_region_is_connected_and_keeps_errors_and_times() -> None:
    device = load_fake_device("fake_torino")
    region = cut_region(device, 10)
    graph = region.target.build_coupling_map()
    assert region.target.num_qubits == 10
    assert graph.is_connected()
    for here, qubit in enumerate(region.physical_qubits):
        assert region.target["sx"][(here,)].error == device.target["sx"][(qubit,)].error
        assert region.target.qubit_properties[here].t1 == device.target.qubit_properties[qubit].t1
    for first, second in graph.get_edges():
        there = region.physical_qubits[first], region.physical_qubits[second]
        assert region.target["cz"][(first, second)].error == device.target["cz"][there].error


def test_an_unknown_device_lists_some() -> None:
    with pytest.raises(BackendUnavailableError, match=r"'fake_oslo2'.*among them: fake_"):
        AerBackend(device="fake_oslo2")


def test_circuits_larger_than_the_device_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="5 qubits and no connected region of 6"):
        AerBackend(device="fake_manila").run(random_circuits(1, 6, 1))


def test_seeds_in_another_order_give_other_bits() -> None:
    circuits = random_circuits(2, 8, 3, shots=100)
    same = CircuitBatch(
        angles=circuits.angles[[0, 0]],
        entangler_pairs=circuits.entangler_pairs[[0, 0]],
        seeds=circuit_seeds(1, 2),
        shots=100,
    )
    swapped = CircuitBatch(
        angles=same.angles, entangler_pairs=same.entangler_pairs, seeds=same.seeds[::-1].copy(), shots=100
    )
    backend = AerBackend()
    assert (backend.run(same).bits != backend.run(swapped).bits).any()


def test_zero_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        AerBackend(num_threads=0)


def test_a_gpu_is_never_replaced_by_a_processor_without_a_word() -> None:
    with pytest.raises(BackendUnavailableError, match=r"QPU_DEVICE=gpu needs .* has CPU; install qiskit-aer-gpu"):
        check_gpu(("CPU",))
    check_gpu(("CPU", "GPU"))


@pytest.mark.parametrize(("device", "name"), [("gpu", "aer:gpu"), ("gpu:fake_manila", "aer:gpu:fake_manila")])
def test_a_gpu_is_used_where_there_is_one_and_refused_where_not(device: str, name: str) -> None:
    if "GPU" not in available_processors():
        with pytest.raises(BackendUnavailableError, match="needs a build of Aer with a GPU"):
            AerBackend(device=device)
        return
    on_gpu = AerBackend(device=device)
    assert on_gpu.name == name
    assert on_gpu.run(random_circuits(2, 3, 3, shots=5)).bits.shape == (2, 5, 3)
