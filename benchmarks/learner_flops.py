"""Multiply-adds that one update cannot do without, counted from the sizes of the networks.

A product of (B, I) and (I, J) is 2·B·I·J operations. Counted are the products of B1 to B4 alone: activations, biases,
losses, optimisers and the gathering of the batch are left out, and so is every gradient that nothing needs (of the
first layers' inputs; of critic and surrogate weights in B3; of the observation features behind the critic in B3).
What the code computes beyond that counts as time, not as work, so it lowers the utilisation.

Source of the sizes: arXiv:2503.09119, Table 2.
"""

from learner.config import AgentSpec, PolicyConfig, SurrogateConfig, TD3Config


def flops_per_update(
    spec: AgentSpec, policy: PolicyConfig, surrogate: SurrogateConfig, td3: TD3Config, *, critic_width: int, block: str
) -> dict[str, float]:
    """Floating point operations of the parts of one update.

    Args:
        spec: environment sizes.
        policy: sizes of PreDNN, PostDNN and the circuit.
        surrogate: its width and its tiny-batches.
        td3: batch size, policy delay.
        critic_width: units of both critic segments.
        block: ``pqc`` or ``linear``.

    Returns:
        ``B1``, ``B2``, ``B3`` and their sum ``total``; B3 as a mean over updates, that is divided by the policy delay.

    Raises:
        ValueError: if the block is another one.
    """
    if block not in ("pqc", "linear"):
        raise ValueError(f"operations are counted for the blocks pqc and linear, got {block!r}")
    rows, width = td3.batch_size, critic_width
    inputs, outputs = policy.circuit.num_parameters, policy.circuit.num_qubits
    hidden = surrogate.hidden_size or 2 ** (outputs + 1)
    # Multiply-adds of one row through one layer.
    pre_in, pre_out = spec.observation_size * policy.hidden_size, policy.hidden_size * (inputs + policy.num_links)
    post_in, post_out = (outputs + policy.num_links) * policy.hidden_size, policy.hidden_size * spec.action_size
    block_in, block_out = (inputs * hidden, hidden * outputs) if block == "pqc" else (inputs * outputs, 0)
    act = pre_in + pre_out + block_in + block_out + post_in + post_out
    observed, joint, value = spec.observation_size * width, (width + spec.action_size) * width, width
    critic = observed + joint + value

    fitted_rows = surrogate.num_tiny_batches * surrogate.tiny_batch_size if block == "pqc" else 0
    # Forward, weight gradients, and the gradient of the hidden layer.
    fit = fitted_rows * (2 * (block_in + block_out) + block_out)
    # Targets forward; both critics forward and weight gradients; gradients of the two upper layers' features.
    targets = rows * (act + 2 * critic)
    critics = rows * 2 * (2 * critic + width * width + value)
    # Forward; action gradient through one critic; gradients through PostDNN, block and PreDNN, and of the weights.
    back_to_action = value + spec.action_size * width
    back_to_parameters = post_out + outputs * policy.hidden_size + block_in + block_out + pre_out
    back_to_links = policy.num_links * policy.hidden_size
    trained = pre_in + pre_out + post_in + post_out + (block_in if block == "linear" else 0)
    climb = rows * (act + critic + back_to_action + back_to_parameters + back_to_links + trained) / td3.policy_delay
    parts = {"B1": 2.0 * fit, "B2": 2.0 * (targets + critics), "B3": 2.0 * climb}
    return {**parts, "total": sum(parts.values())}
