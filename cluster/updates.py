"""One update: which transitions the learner gets, and what the replay hears back."""

import numpy as np

from cluster.config import RunConfig
from learner.td3 import TD3Learner
from replay.interfaces import TransitionSource
from replay.sampling import EVERYTHING, SampleRule

_CALIBRATION_PERIOD = 100
_CALIBRATION_STEPS = 50
_CALIBRATION_NEWEST = 20_000


class Updates:
    """Draws batches by the configured rule and updates the learner with them.

    Args:
        config: of the run.
        learner: updated.
        source: of transitions.
        rng: of the draws; its state belongs to a checkpoint.
    """

    def __init__(
        self, config: RunConfig, learner: TD3Learner, source: TransitionSource, rng: np.random.Generator
    ) -> None:
        self._learner, self._source, self._rng = learner, source, rng
        self._batch_size = config.td3.batch_size
        gamma = config.td3.discount_factor
        self._rule = EVERYTHING
        if config.td3.n_step > 1:
            self._rule = SampleRule(n_step=config.td3.n_step, discount_factor=gamma)
        self._calibrates = config.critic.adapts_asymmetry
        # Returns of what the newest policies did, far-sighted enough to show what one-step targets pile up.
        self._calibration_rule = SampleRule(
            n_step=_CALIBRATION_STEPS, discount_factor=max(gamma, 1e-9), newest=_CALIBRATION_NEWEST
        )

    def make_one(self) -> bool:
        """One update if the samples-per-insert law allows it; returns whether it did.

        Where the asymmetry adapts, every hundredth batch goes into its calibration instead of an update; it counts
        as sampled like any other.
        """
        if not self._source.can_sample(self._batch_size):
            return False
        batch = self._source.sample(self._batch_size, self._rng, self._rule)
        self._learner.update(batch)
        if self._learner.td_errors is not None:
            self._source.update_priorities(batch.indices, self._learner.td_errors)
        is_due = self._calibrates and self._learner.update_step % _CALIBRATION_PERIOD == 0
        if is_due and self._source.can_sample(self._batch_size):
            self._learner.calibrate(self._source.sample(self._batch_size, self._rng, self._calibration_rule))
        return True
