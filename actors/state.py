"""Everything that a lockstep rollout must keep to go on bit for bit."""

from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from actors.rollout import EpisodeRecord, Lane, Rollout
from learner.normalisation import ReturnMoments


def rollout_state(rollout: Rollout) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Environments (episode numbers and actions), unfinished segments, acting parameters, random states.

    Call it between steps, when no lane waits for bits.

    Raises:
        ValueError: if a lane waits for bits.
    """
    tensors: dict[str, torch.Tensor] = {}
    lanes = []
    for number, lane in enumerate(rollout.lanes):
        if lane.pending is not None:
            raise ValueError(f"lane {number} waits for bits; save a rollout between steps")
        episodes, actions = lane.environments.state()
        arrays = {f"actions.{row}": array for row, array in enumerate(actions)}
        for row, builder in enumerate(lane.builders):
            arrays.update({f"segment.{row}.{name}": column for name, column in builder.state().items()})
        arrays["episode_return"], arrays["episode_length"] = lane.episode_return, lane.episode_length
        arrays["discounted_return"] = lane.discounted_return
        arrays["noise_steps_left"] = lane.noise_steps_left
        if lane.noise is not None:
            arrays["noise"] = lane.noise
        tensors.update({f"{number}.{name}": _tensor(array) for name, array in arrays.items()})
        parameters = lane.policy.network.state_dict()
        tensors.update({f"{number}.policy.{name}": value.clone() for name, value in parameters.items()})
        lanes.append(
            {
                "episodes": episodes,
                "version": lane.policy.version,
                "policy": lane.policy.random_state(),
                "previous_sequences": list(lane.previous_sequences),
            }
        )
    return tensors, {
        "lanes": lanes,
        "rng": rollout.rng.bit_generator.state,
        "sequence": rollout.sequence,
        "finished": [astuple(episode) for episode in rollout.episodes],
        "returns": astuple(rollout.returns),
    }


def restore_rollout(rollout: Rollout, tensors: dict[str, torch.Tensor], scalars: dict[str, Any]) -> None:
    """Put a saved state into a freshly built rollout of the same configuration."""
    for number, (lane, saved) in enumerate(zip(rollout.lanes, scalars["lanes"], strict=True)):
        prefix = f"{number}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        _restore_lane(lane, own, saved)
    rollout.rng.bit_generator.state = scalars["rng"]
    rollout.sequence = int(scalars["sequence"])
    rollout.episodes = [EpisodeRecord(*saved) for saved in scalars["finished"]]
    rollout.returns = ReturnMoments(*scalars["returns"])
    rollout.poll()


def _restore_lane(lane: Lane, tensors: dict[str, torch.Tensor], saved: dict[str, Any]) -> None:
    actions = [tensors[f"actions.{row}"].numpy() for row in range(len(lane.environments))]
    lane.environments.restore(saved["episodes"], actions)
    for row, builder in enumerate(lane.builders):
        prefix = f"segment.{row}."
        columns = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        arrays = {name: value.numpy() for name, value in columns.items()}
        if arrays:
            arrays["policy_versions"] = arrays["policy_versions"].astype(np.uint32)
        builder.restore(arrays)
    lane.episode_return = tensors["episode_return"].numpy().copy()
    lane.episode_length = tensors["episode_length"].numpy().copy()
    lane.discounted_return = tensors["discounted_return"].numpy().copy()
    lane.noise_steps_left = tensors["noise_steps_left"].numpy().copy()
    lane.noise = tensors["noise"].numpy().copy() if "noise" in tensors else None
    lane.previous_sequences = list(saved["previous_sequences"])
    lane.policy.version = int(saved["version"])
    lane.policy.restore_random_state(saved["policy"])
    with torch.no_grad():
        for name, parameter in lane.policy.network.state_dict().items():
            parameter.copy_(tensors[f"policy.{name}"])


def _tensor(array: np.ndarray) -> torch.Tensor:
    # safetensors has no uint32 in torch; versions fit int64.
    return torch.from_numpy(array.astype(np.int64) if array.dtype == np.uint32 else np.ascontiguousarray(array)).clone()
