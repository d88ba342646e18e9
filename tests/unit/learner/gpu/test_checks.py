"""Kernels are used where they agree with plain torch, and nowhere else."""

import logging
from functools import partial

import pytest
import torch

from learner.acceleration import is_usable
from learner.config import SurrogateConfig
from learner.gpu import checks
from learner.gpu.adam_kernel import adam_step
from learner.networks import QuantumSurrogate
from qpu_service.circuit import CircuitShape

SHAPE = CircuitShape(num_qubits=8, num_layers=2)


def check(name, device):
    torch.manual_seed(0)
    surrogate = QuantumSurrogate(12, 3, 20).to(device)
    config = SurrogateConfig(num_tiny_batches=2, tiny_batch_size=5)
    return {
        "adam": partial(checks.adam_agrees, list(surrogate.parameters())),
        "surrogate": partial(checks.surrogate_agrees, surrogate, config),
        "circuit": partial(checks.circuit_agrees, SHAPE, is_entangled=True, device=torch.device(device)),
    }[name]


@pytest.mark.parametrize("name", ["adam", "surrogate", "circuit"])
def test_good_kernels_pass_and_leave_random_numbers_alone(name, device):
    agrees = check(name, device)
    before = torch.random.get_rng_state()
    assert agrees()
    assert torch.equal(torch.random.get_rng_state(), before)


def slow_adam(optimizer):
    """A rate one hundredth off."""
    for group in optimizer.param_groups:
        group["lr"] = torch.as_tensor(group["lr"]) * 1.01
    adam_step(optimizer)


class LazySurrogate(checks.GpuSurrogateKernel):
    """Leaves out the last tiny-batch."""

    def fit(self, optimizer, circuit_parameters, targets, order, num_steps):
        rows = len(order) // num_steps
        return super().fit(optimizer, circuit_parameters, targets, order[:-rows], num_steps - 1)


def blind_circuit(circuit_parameters, shape, *, is_entangled=True):
    """Right without the entangling gates alone."""
    return checks.device_bit_means(circuit_parameters, shape, is_entangled=False)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("adam", "adam_step"), ("surrogate", "GpuSurrogateKernel"), ("circuit", "circuit_bit_means")],
)
def test_wrong_kernels_are_found_out(name, broken, device, monkeypatch):
    wrong = {"adam_step": slow_adam, "GpuSurrogateKernel": LazySurrogate, "circuit_bit_means": blind_circuit}
    monkeypatch.setattr(checks, broken, wrong[broken])
    assert not check(name, device)()


def test_a_kernel_that_cannot_be_used_is_named_in_the_log(caplog):
    def fails():
        raise RuntimeError("no ptxas")

    with caplog.at_level(logging.WARNING):
        assert is_usable("Adam", lambda: True)
        assert not caplog.records
        assert not is_usable("the exact circuit", lambda: False)
        assert not is_usable("the surrogate's fit", fails)
    assert "the exact circuit runs as plain torch: its kernel gives other numbers" in caplog.text
    assert "the surrogate's fit runs as plain torch: its kernel fails with RuntimeError: no ptxas" in caplog.text
