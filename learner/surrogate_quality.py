"""How good the surrogate is where it is used, against the exact circuit: value, and gradient.

Axis legend: R rows measured, P circuit parameters, N bits.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learner.exact_circuit import ExactCircuit
from learner.networks import QuantumSurrogate
from qpu_service.circuit import CircuitShape

_AMPLITUDES = 1 << 16
"""Work of one measurement: 64 circuits of 10 qubits, fewer of more."""


def num_measured_rows(num_qubits: int) -> int:
    """Rows of a batch that are enough for a measurement, and cheap: 64 up to 10 qubits, then half as many for each."""
    return max(1, min(64, _AMPLITUDES >> num_qubits))


def bit_entropy(means: Float[Tensor, "R N"]) -> Float[Tensor, "R"]:
    """Mean entropy of each row's bits in nats per bit: the least BCE that any surrogate of them can reach."""
    # A mean that is 1 but for round-off of the amplitudes may be above it, where a logarithm has no value.
    means = means.clamp(0, 1)
    return functional.binary_cross_entropy(means, means, reduction="none").mean(dim=1)


def fit_quality(
    surrogate: QuantumSurrogate, exact: ExactCircuit, circuit_parameters: Float[Tensor, "R P"]
) -> dict[str, Tensor]:
    """How far the surrogate's bits are from the circuit's, without sampling noise.

    Returns:
        ``surrogate_entropy_floor``: entropy of the exact bits, nats per bit. ``surrogate_excess_loss``: expected BCE
        minus that floor, which is the mean KL divergence, 0 for a perfect surrogate. ``surrogate_mean_error``: mean
        |surrogate − exact| of the bit means.
    """
    with torch.no_grad():
        means = exact.bit_means(circuit_parameters)
        logits = surrogate.logits(circuit_parameters).float()
        floor = bit_entropy(means).mean()
        expected = functional.binary_cross_entropy_with_logits(logits, means)
        error = (torch.sigmoid(logits) - means).abs().mean()
    return {
        "surrogate_entropy_floor": floor,
        "surrogate_excess_loss": expected - floor,
        "surrogate_mean_error": error,
    }


def gradient_quality(
    surrogate: QuantumSurrogate,
    exact: ExactCircuit,
    circuit_parameters: Float[Tensor, "R P"],
    *,
    loss: Callable[[Float[Tensor, "R N"]], Float[Tensor, ""]],
    shape: CircuitShape,
    weights: Sequence[Tensor],
) -> dict[str, Tensor]:
    """Direction of the policy's gradient through the surrogate, against the exact one, both at the same policy.

    The real-valued qubit indices have no exact gradient and are left out of both; what goes around the circuit
    (links) is left out too.

    Args:
        surrogate: trained as far as it is.
        exact: the circuit.
        circuit_parameters: q_i of the policy as it is, attached to the weights that make them.
        loss: of the block's output; each chain is evaluated at its own output, as in step B3.
        shape: of the circuit.
        weights: what makes the circuit parameters, PreDNN's; empty where they are frozen.

    Returns:
        ``surrogate_gradient_cosine``: mean over the rows of the cosine of dL/dq_i. ``surrogate_update_cosine``: cosine
        of dL/dweights, over all rows together: noise that differs from row to row averages out in it.
    """
    outputs = surrogate(circuit_parameters), exact.bit_means(circuit_parameters)
    gradients = [
        angles_alone(torch.autograd.grad(loss(output), circuit_parameters, retain_graph=True)[0], shape)
        for output in outputs
    ]
    found = {"surrogate_gradient_cosine": functional.cosine_similarity(gradients[0], gradients[1], dim=1).mean()}
    if weights:
        updates = [pull_back(circuit_parameters, weights, gradient) for gradient in gradients]
        found["surrogate_update_cosine"] = functional.cosine_similarity(updates[0], updates[1], dim=0)
    return found


def angles_alone(gradient: Float[Tensor, "R P"], shape: CircuitShape) -> Float[Tensor, "R P"]:
    """A gradient in the circuit parameters with zeros for the qubit indices p and k."""
    layers = gradient.reshape(len(gradient), shape.num_layers, -1).clone()
    layers[:, :, 2 * shape.num_qubits :] = 0
    return layers.flatten(1)


def pull_back(
    circuit_parameters: Float[Tensor, "R P"], weights: Sequence[Tensor], gradient: Float[Tensor, "R P"]
) -> Float[Tensor, "W"]:
    """A gradient in the circuit parameters, carried back to the weights that make them; all of them in one vector."""
    parts = torch.autograd.grad(circuit_parameters, weights, gradient, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])
