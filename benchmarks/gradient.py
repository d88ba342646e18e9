"""What a policy update's gradient through the circuit takes, by each way there is, and how good it is.

The claim is that of arXiv:2503.09119, Sections 1 and 2: through measured gradients an update is out of reach, through
the surrogate it is not. One batch, one policy, one vector v that backpropagation hands to the circuit's output; every
method estimates the same vector-Jacobian product in the angles. The policy stands still, which favours the surrogate:
while training it moves.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from learner.config import AgentSpec, PolicyConfig, SurrogateConfig
from learner.exact_circuit import ExactCircuit
from learner.networks import PolicyNetwork, QuantumSurrogate
from learner.surrogate_quality import angles_alone, pull_back
from learner.surrogate_training import SurrogateTrainer
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.circuit import CircuitShape, decode_parameters
from qpu_service.shift_rules import GradientEstimate, parameter_shift_gradient, spsa_gradient
from qpu_service.types import CircuitBatch, circuit_seeds

_Result = TypeVar("_Result")
_PAPER_SHOT_S = 5e-7
"""Seconds of one shot of one circuit, from the paper's own 281.6 s for 220 · 10 · 1,000 · 256 of them."""
_HUMANOID = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One policy update's question: the gradient in the circuit parameters of one batch."""

    policy: PolicyNetwork
    shape: CircuitShape
    parameters: Tensor
    """q_i, attached to PreDNN."""
    weights: Tensor
    """v, what the loss hands to the circuit's output at its exact means."""
    gradient: Tensor
    """The exact answer, qubit indices left out."""

    @property
    def circuits(self) -> CircuitBatch:
        """The batch's circuits; one shot."""
        angles, pairs = decode_parameters(self.parameters.detach().numpy(), self.shape)
        return CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(0, len(angles)))

    def cosines(self, found: Tensor) -> dict[str, float]:
        """Of the batch's rows, and of the update of PreDNN's weights that all rows make together."""
        weights = list(self.policy.pre.parameters())
        update, exact = (pull_back(self.parameters, weights, one) for one in (found, self.gradient))
        return {
            "gradient_cosine": float(functional.cosine_similarity(found, self.gradient, dim=1).mean()),
            "update_cosine": float(functional.cosine_similarity(update, exact, dim=0)),
        }


def run(
    *,
    batch: int = 256,
    num_qubits: int = 10,
    num_layers: int = 10,
    angle_rms_rad: tuple[float, ...] = (0.3, 1.5),
    surrogate_batches: int = 400,
    shots: tuple[int, ...] = (1, 10, 100),
    spsa_directions: tuple[int, ...] = (1, 100),
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every method.

    Args:
        batch: transitions of a policy update.
        num_qubits: N.
        num_layers: M.
        angle_rms_rad: sizes of the circuit parameters; Pendulum's trained policies have 1.7 to 2.3.
        surrogate_batches: batches of B1 that the surrogate has behind it, each with new observations.
        shots: of parameter-shift and SPSA.
        spsa_directions: directions of SPSA.
        seed: of everything.

    Returns:
        ``angles``, for each size: ``methods``, rows of circuits and shots per policy update, ``seconds`` here on one
        thread, ``device_s`` at the paper's 0.5 µs per shot, and cosines with the exact gradient. ``paper_device_s``:
        the paper's figure.
    """
    torch.set_num_threads(1)
    shape = CircuitShape(num_qubits=num_qubits, num_layers=num_layers)
    return {
        "batch": batch,
        "num_qubits": num_qubits,
        "num_layers": num_layers,
        "surrogate_batches": surrogate_batches,
        "paper_device_s": shape.num_parameters * num_qubits * 1_000 * batch * _PAPER_SHOT_S,
        "angles": [
            {
                "angle_rms_rad": rms,
                "methods": _methods(batch, shape, rms, surrogate_batches, shots, spsa_directions, seed),
            }
            for rms in angle_rms_rad
        ],
    }


def _methods(
    batch: int,
    shape: CircuitShape,
    angle_rms_rad: float,
    surrogate_batches: int,
    shots: tuple[int, ...],
    spsa_directions: tuple[int, ...],
    seed: int,
) -> list[dict[str, Any]]:
    torch.manual_seed(seed)
    problem = _make_problem(batch, shape, angle_rms_rad)
    backend = StatevectorBackend()
    rows = [_adjoint(problem, backend)]
    for name, config in {
        "surrogate, replay bits (paper)": SurrogateConfig(),
        "surrogate, exact means": SurrogateConfig(targets="bit_means"),
        "surrogate, exact means, jitter 0.3": SurrogateConfig(targets="bit_means", fit_on="policy", jitter_rad=0.3),
    }.items():
        rows.append(_surrogate(name, problem, config, surrogate_batches, seed))
    for count in shots:
        rows.append(_measured(f"parameter-shift, {count} shots", problem, count, backend, _shift(seed)))
        for directions in spsa_directions:
            name = f"SPSA, {directions} directions, {count} shots"
            rows.append(_measured(name, problem, count, backend, _spsa(directions, seed)))
    return rows


def _make_problem(batch: int, shape: CircuitShape, angle_rms_rad: float) -> Problem:
    policy = PolicyNetwork(_HUMANOID, PolicyConfig(circuit=shape), "pqc")
    observation = torch.randn(batch, _HUMANOID.observation_size)
    with torch.no_grad():
        rms = policy.encode(observation)[0].square().mean().sqrt()
        for parameter in policy.pre[2].parameters():
            parameter.mul_(angle_rms_rad / rms)
    parameters, links = policy.encode(observation)
    value = torch.randn(_HUMANOID.action_size)
    means = ExactCircuit("pqc", shape).bit_means(parameters)
    loss = -(policy.decode(means, links.detach()) @ value).mean()
    weights, gradient = torch.autograd.grad(loss, [means, parameters], retain_graph=True)
    return Problem(policy, shape, parameters, weights, gradient)


def _adjoint(problem: Problem, backend: StatevectorBackend) -> dict[str, Any]:
    seconds, (_, gradient) = _timed(lambda: backend.bit_mean_gradients(problem.circuits, problem.weights.numpy()))
    return _row("adjoint (simulator)", 0, 0, seconds, problem.cosines(_as_parameters(gradient)))


def _surrogate(name: str, problem: Problem, config: SurrogateConfig, batches: int, seed: int) -> dict[str, Any]:
    """A surrogate that has seen ``batches`` batches of this very policy, the last being the problem's own."""
    shape = problem.shape
    surrogate = QuantumSurrogate(shape.num_parameters, shape.num_qubits)
    trainer = SurrogateTrainer(surrogate, config, torch.Generator().manual_seed(seed))
    exact, backend = ExactCircuit("pqc", shape), StatevectorBackend()
    size = len(problem.parameters)
    fit_s = 0.0
    for index in range(batches):
        with torch.no_grad():
            fresh = problem.policy.encode(torch.randn(size, _HUMANOID.observation_size))[0]
            parameters = problem.parameters.detach() if index == batches - 1 else fresh
            parameters = parameters + config.jitter_rad * torch.randn_like(parameters)
        angles, pairs = decode_parameters(parameters.numpy(), shape)
        circuits = CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(seed + index, size))
        bits = torch.from_numpy(backend.run(circuits).bits[:, 0].astype(np.float32))
        started_s = time.perf_counter()
        targets = bits if config.targets == "bits" else exact.bit_means(parameters)
        trainer.fit(parameters, targets)
        fit_s += time.perf_counter() - started_s

    def gradient() -> Tensor:
        inputs = problem.parameters.detach().requires_grad_()
        return torch.autograd.grad(surrogate(inputs), inputs, problem.weights)[0]

    seconds, found = _timed(gradient)
    # TD3 updates the policy at every second update, and every update fits the surrogate.
    seconds += 2 * fit_s / batches
    return _row(name, 0, 0, seconds, problem.cosines(angles_alone(found, shape)))


def _measured(
    name: str,
    problem: Problem,
    shots: int,
    backend: StatevectorBackend,
    estimate: Callable[[Callable[[CircuitBatch], Any], CircuitBatch, Any], GradientEstimate],
) -> dict[str, Any]:
    circuits = dataclasses.replace(problem.circuits, shots=shots)

    def bit_means(some: CircuitBatch) -> Any:
        return backend.run(some).bits.mean(axis=1, dtype=np.float32)

    seconds, found = _timed(lambda: estimate(bit_means, circuits, problem.weights.numpy()), repeats=1)
    return _row(name, found.num_circuits, shots, seconds, problem.cosines(_as_parameters(found.gradient)))


def _shift(seed: int) -> Callable[..., GradientEstimate]:
    return lambda means, circuits, weights: parameter_shift_gradient(means, circuits, weights, seed=seed)


def _spsa(directions: int, seed: int) -> Callable[..., GradientEstimate]:
    return lambda means, circuits, weights: spsa_gradient(
        means, circuits, weights, num_directions=directions, step_rad=0.2, seed=seed
    )


def _as_parameters(gradient: Any) -> Tensor:
    """(B, M, N, 2) in the layout of the circuit parameters, with zeros for the qubit indices."""
    layers = torch.from_numpy(gradient).flatten(2)
    return functional.pad(layers, (0, 2)).flatten(1)


def _row(name: str, circuits: int, shots: int, seconds: float, cosines: dict[str, float]) -> dict[str, Any]:
    device_s = circuits * shots * _PAPER_SHOT_S
    return {"method": name, "circuits": circuits, "shots": shots, "seconds": seconds, "device_s": device_s, **cosines}


def _timed(work: Callable[[], _Result], repeats: int = 5) -> tuple[float, _Result]:
    best_s = float("inf")
    for _ in range(repeats):
        started_s = time.perf_counter()
        result = work()
        best_s = min(best_s, time.perf_counter() - started_s)
    return best_s, result
