"""What a policy did in its test episodes, in one file of plain arrays: to see its gait, or to learn from it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class TrajectoryRecorder:
    """Collects the transitions of episodes that are stepped together."""

    def __init__(self) -> None:
        self._rows: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]] = []

    def __call__(
        self,
        episode: NDArray[np.int64],
        observation: NDArray[np.float32],
        action: NDArray[np.float32],
        reward: NDArray[np.float64],
    ) -> None:
        """Keep one step; the arrays are kept as they are and must not change afterwards.

        Args:
            episode: which episodes took it, (n,).
            observation: what they acted on, (n, observation size).
            action: what they did, (n, action size), in the environment's units.
            reward: what they got, (n,).
        """
        self._rows.append((episode, observation, action, reward))

    def write(self, path: Path) -> None:
        """One NumPy archive of the arrays ``episode``, ``observation``, ``action`` and ``reward``.

        A row is a step; an episode's rows follow each other in time, episode after episode.
        """
        episode, observation, action, reward = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        order = np.argsort(episode, kind="stable")
        # A file object, because NumPy adds .npz to a name that does not end with it.
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                episode=episode[order],
                observation=observation[order],
                action=action[order],
                reward=reward[order],
            )
