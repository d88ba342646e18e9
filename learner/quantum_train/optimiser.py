"""Adam over one flat vector: a state that any process can take over, because it is three arrays and a number."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Everything that training changes. Axis legend: P trainable parameters."""

    vector: Float32[np.ndarray, "P"]
    """Angles, mapping model (or weights of a classical policy), log_std, value network."""
    first_moment: Float32[np.ndarray, "P"]
    second_moment: Float32[np.ndarray, "P"]
    num_steps: int = 0
    """Steps of Adam so far."""


def initial_state(vector: Float32[np.ndarray, "P"]) -> TrainingState:
    """State before the first step."""
    zeros = np.zeros_like(vector)
    return TrainingState(vector=vector, first_moment=zeros, second_moment=zeros)


def adam_step(
    state: TrainingState, gradient: Float32[np.ndarray, "P"], learning_rates: Float32[np.ndarray, "P"]
) -> TrainingState:
    """One step of Adam downhill. Source: arXiv:1412.6980, Algorithm 1, with its β₁, β₂, ε."""
    count = state.num_steps + 1
    first = _BETA_1 * state.first_moment + (1 - _BETA_1) * gradient
    second = _BETA_2 * state.second_moment + (1 - _BETA_2) * gradient**2
    step = (first / (1 - _BETA_1**count)) / (np.sqrt(second / (1 - _BETA_2**count)) + _EPSILON)
    return TrainingState(
        vector=(state.vector - learning_rates * step).astype(np.float32),
        first_moment=first.astype(np.float32),
        second_moment=second.astype(np.float32),
        num_steps=count,
    )


def average_states(states: list[TrainingState], is_shared: np.ndarray) -> list[TrainingState]:
    """Every state with the shared parameters, and their moments, replaced by the mean over all.

    Args:
        states: of the agents that answered.
        is_shared: bool (P,); the others stay each agent's own, as a federated mapping model does.
    """
    vector, first, second = (
        np.mean([getattr(state, name) for state in states], axis=0, dtype=np.float64).astype(np.float32)
        for name in ("vector", "first_moment", "second_moment")
    )
    return [
        TrainingState(
            vector=np.where(is_shared, vector, state.vector),
            first_moment=np.where(is_shared, first, state.first_moment),
            second_moment=np.where(is_shared, second, state.second_moment),
            num_steps=state.num_steps,
        )
        for state in states
    ]
