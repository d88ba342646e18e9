"""The swappable block T of the policy: circuit parameters q_i → N numbers q_o.

Source: arXiv:2503.09119, Fig. 2b: PQC, fully connected linear map (FC), uniform random binary
generator (RBG), constant zeros (0L). While training, ``pqc`` is its surrogate; the others are themselves.

Three more controls, not in the paper, each taking one thing away from ``pqc``:

- ``mlp``: P → h → N with LeakyReLU and a sigmoid, trained with the policy. h and the hidden units of PreDNN and
  PostDNN are such that the whole policy has as many trainable parameters as the quantum one (learner/matching.py).
  What differs is that the block is classical, deterministic, and has exact gradients.
- ``frozen_pqc``: the circuit is driven by a frozen copy of the initial PreDNN. Its bits depend on the observation
  and are never trained; links and PostDNN are. What is taken away is learning through the circuit.
- ``unentangled_pqc``: every pair (p, k) is taken as p = k, so no CZ acts and the state stays a product of N qubits.
  What is taken away is entanglement; angles are trained through a surrogate as in ``pqc``.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int16
from torch import Tensor

from learner.config import BLOCKS, BlockName, uses_circuit
from learner.networks import PolicyNetwork
from qpu_service.circuit import CircuitShape, decode_parameters


def decode_circuits(
    block: BlockName, circuit_parameters: Float32[np.ndarray, "B P"], shape: CircuitShape
) -> tuple[Float32[np.ndarray, "B M N 2"], Int16[np.ndarray, "B M 2"]]:
    """Angles (rad) and CZ pairs that the block runs; see ``decode_parameters``, whose errors it raises."""
    angles, pairs = decode_parameters(circuit_parameters, shape)
    return angles, np.zeros_like(pairs) if block == "unentangled_pqc" else pairs


def differentiable_output(
    block: BlockName,
    policy: PolicyNetwork,
    surrogate: Callable[[Tensor], Tensor] | None,
    circuit_parameters: Float[Tensor, "B P"],
    generator: torch.Generator,
) -> Float[Tensor, "B N"]:
    """Block output inside an update: gradients flow where the block has any.

    Args:
        block: which block the policy has.
        policy: owner of the classical blocks' weights and of the number of qubits.
        surrogate: stands in for the circuit, as a learner/circuit_model.py does; needed by the blocks that have one.
        circuit_parameters: q_i from the PreDNN.
        generator: of the random bits.

    Raises:
        ValueError: if a block with a circuit comes without a surrogate.
    """
    if uses_circuit(block):
        if surrogate is None:
            raise ValueError(f"the {block} block learns through a surrogate, got None")
        return surrogate(circuit_parameters)
    return classical_output(block, policy, circuit_parameters, generator)


def classical_output(
    block: BlockName, policy: PolicyNetwork, circuit_parameters: Float[Tensor, "B P"], generator: torch.Generator
) -> Float[Tensor, "B N"]:
    """Output of a block that needs no circuit.

    Raises:
        ValueError: if the block has a circuit or is unknown.
    """
    if block == "linear" and policy.linear_block is not None:
        output: Tensor = policy.linear_block(circuit_parameters)
        return output
    if block == "mlp" and policy.mlp_block is not None:
        return torch.sigmoid(policy.mlp_block(circuit_parameters))
    shape = (len(circuit_parameters), policy.num_bits)
    if block == "random_bits":
        bits = torch.randint(0, 2, shape, generator=generator, device=circuit_parameters.device)
        return bits.to(circuit_parameters.dtype)
    if block == "zeros":
        return circuit_parameters.new_zeros(shape)
    raise ValueError(f"block {block!r} has no classical output; the known blocks are {', '.join(BLOCKS)}")
