"""The swappable block T of the policy: circuit parameters q_i → N numbers q_o.

Source: arXiv:2503.09119, Fig. 2b: PQC, fully connected linear map (FC), uniform random binary
generator (RBG), constant zeros (0L). While training, ``pqc`` is its surrogate; the others are themselves.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from learner.config import BlockName
from learner.networks import PolicyNetwork, QuantumSurrogate

BLOCKS: dict[BlockName, str] = {
    "pqc": "parameterised quantum circuit, trained through its surrogate (paper: hDQNN)",
    "linear": "fully connected linear map, trained by backpropagation (paper: FC)",
    "random_bits": "uniform random bits, whatever the input (paper: RBG)",
    "zeros": "constant zeros (paper: 0L)",
}


def uses_circuit(block: BlockName) -> bool:
    """Whether acting needs the QPU service and learning needs a surrogate."""
    return block == "pqc"


def differentiable_output(
    block: BlockName,
    policy: PolicyNetwork,
    surrogate: QuantumSurrogate | None,
    circuit_parameters: Float[Tensor, "B P"],
    generator: torch.Generator,
) -> Float[Tensor, "B N"]:
    """Block output inside an update: gradients flow where the block has any.

    Args:
        block: which block the policy has.
        policy: owner of the linear block's weights and of the number of qubits.
        surrogate: stands in for the circuit; needed by ``pqc`` alone.
        circuit_parameters: q_i from the PreDNN.
        generator: of the random bits.

    Raises:
        ValueError: if ``pqc`` comes without a surrogate.
    """
    if block == "pqc":
        if surrogate is None:
            raise ValueError("the pqc block learns through a surrogate, got None")
        expected: Tensor = surrogate(circuit_parameters)
        return expected
    return classical_output(block, policy, circuit_parameters, generator)


def classical_output(
    block: BlockName, policy: PolicyNetwork, circuit_parameters: Float[Tensor, "B P"], generator: torch.Generator
) -> Float[Tensor, "B N"]:
    """Output of a block that needs no circuit.

    Raises:
        ValueError: if the block is ``pqc`` or unknown.
    """
    if block == "linear" and policy.linear_block is not None:
        output: Tensor = policy.linear_block(circuit_parameters)
        return output
    shape = (len(circuit_parameters), policy.num_bits)
    if block == "random_bits":
        bits = torch.randint(0, 2, shape, generator=generator, device=circuit_parameters.device)
        return bits.to(circuit_parameters.dtype)
    if block == "zeros":
        return circuit_parameters.new_zeros(shape)
    raise ValueError(f"block {block!r} has no classical output; the known blocks are {', '.join(BLOCKS)}")
