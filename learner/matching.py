"""Sizes of the ``mlp`` control: a policy with a classical block and as many trainable parameters as the quantum one.

The circuit itself has no trainable parameters (PreDNN makes its angles), so a block with weights of its own
is paid for by narrower PreDNN and PostDNN: what is compared is then the block, not the size of the policy.
"""

from dataclasses import dataclass

from learner.config import AgentSpec, PolicyConfig

_BLOCK_SHARE = 4
"""Hidden units of PreDNN per hidden unit of the block: a quarter keeps both parts from being a bottleneck."""


@dataclass(frozen=True, slots=True)
class MatchedSizes:
    """Hidden units of the ``mlp`` control."""

    policy: int
    """Of PreDNN and of PostDNN."""
    block: int
    """Of the block, P → block → N."""


def matched_sizes(spec: AgentSpec, config: PolicyConfig, num_outputs: int) -> MatchedSizes:
    """The sizes whose total is closest to the quantum policy's.

    With H hidden units, PreDNN and PostDNN have u·H + const parameters, u = (O + 1) + (P + c) + (N + c + 1) + R for R
    outputs of PostDNN, and 4 more with LayerNorm's gains and offsets; a block of h units has v·h + N, v = P + 1 + N.
    Taking d units away from H frees u·d of them for the block: d is chosen for h ≈ H/4, then h for d, so the totals
    differ by at most v/2.

    Args:
        spec: environment sizes.
        config: the quantum policy's sizes.
        num_outputs: of PostDNN, what the policy's family takes.
    """
    num_parameters, num_bits = config.circuit.num_parameters, config.circuit.num_qubits
    num_links = config.num_links
    per_hidden = (spec.observation_size + 1) + (num_parameters + num_links) + (num_bits + num_links + 1) + num_outputs
    per_hidden += 4 if config.hidden_normalisation == "layer" else 0
    per_block_hidden = num_parameters + 1 + num_bits
    wanted = config.hidden_size / _BLOCK_SHARE * per_block_hidden + num_bits
    removed = min(max(1, round(wanted / per_hidden)), config.hidden_size - 1)
    block = max(1, round((removed * per_hidden - num_bits) / per_block_hidden))
    return MatchedSizes(policy=config.hidden_size - removed, block=block)
