"""Statistics of runs over seeds: interquartile means, stratified bootstrap intervals, probability of improvement.

The estimates are those of Agarwal et al. 2021 (arXiv:2108.13264), computed with scipy; docs/adr/0008 says why not with
that paper's own package. Every interval is a percentile interval of 95 %; tasks are the strata: each task's runs are
resampled on their own.

Axis legend: R runs (seeds), T tasks (environments), K points of a curve, V thresholds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

_CONFIDENCE = 0.95
_TRIMMED_SHARE = 0.25
"""Cut from each end by the interquartile mean."""
_BATCH = 1_000
"""Resamples at a time: a curve of 1,000 points over 10 runs takes 80 MB then."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One group on one environment, in units of return."""

    iqm: Interval
    """Mean of the middle half of the runs."""
    mean: Interval
    median: Interval


@dataclass(frozen=True, slots=True)
class Band:
    """An estimate per point with its pointwise 95 % interval."""

    value: Float64[np.ndarray, "K"]
    low: Float64[np.ndarray, "K"]
    high: Float64[np.ndarray, "K"]


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made; the same scores always give the same numbers."""

    resamples: int
    seed: int = 0

    def summary(self, scores: Float64[np.ndarray, "R"]) -> Summary:
        """Interquartile mean, mean and median over the runs."""
        return Summary(*(_single(self._band([scores], one)) for one in (interquartile_mean, np.mean, np.median)))

    def curve(self, scores: Float64[np.ndarray, "R K"]) -> Band:
        """Interquartile mean over the runs at each point."""
        return self._band([scores.T], interquartile_mean)

    def optimality_gap(self, scores: Float64[np.ndarray, "R"], goal: float) -> Interval:
        """How far the runs are below the goal on average; what is above it does not make up for the others."""

        def gap(values: Float64[np.ndarray, "... R"], axis: int) -> Float64[np.ndarray, "..."]:
            return np.asarray(goal - np.minimum(values, goal).mean(axis=axis))

        return _single(self._band([scores], gap))

    def improvement(
        self, scores: Sequence[Float64[np.ndarray, "R"]], baseline: Sequence[Float64[np.ndarray, "R2"]]
    ) -> Interval:
        """Probability that a run is better than one of the baseline, ties counted half, averaged over tasks.

        Args:
            scores: of each task; the numbers of runs may differ.
            baseline: of the same tasks.
        """
        num_tasks = len(scores)

        def probability(*values: Float64[np.ndarray, "... R"], axis: int) -> Float64[np.ndarray, "..."]:
            del axis  # the last one, as scipy hands samples over
            pairs = zip(values[:num_tasks], values[num_tasks:], strict=True)
            return np.asarray(np.mean([probability_of_improvement(ours, theirs) for ours, theirs in pairs], axis=0))

        return _single(self._band([*scores, *baseline], probability))

    def profile(self, scores: Float64[np.ndarray, "R"], thresholds: Float64[np.ndarray, "V"]) -> Band:
        """Share of the runs above each threshold: the performance profile."""
        return self._band([(scores > thresholds[:, None]).astype(np.float64)], np.mean)

    def _band(
        self, samples: Sequence[Float64[np.ndarray, "... R"]], estimate: Callable[..., Float64[np.ndarray, "..."]]
    ) -> Band:
        value = np.asarray(estimate(*samples, axis=-1), np.float64)
        if min(sample.shape[-1] for sample in samples) < 2:
            return Band(value, value, value)  # one run says nothing about others
        interval = stats.bootstrap(
            tuple(samples),
            estimate,
            n_resamples=self.resamples,
            batch=_BATCH,
            vectorized=True,
            axis=-1,
            confidence_level=_CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(self.seed),
        ).confidence_interval
        return Band(value, np.asarray(interval.low), np.asarray(interval.high))


def interquartile_mean(values: Float64[np.ndarray, "... R"], axis: int = -1) -> Float64[np.ndarray, "..."]:
    """Mean without the lowest and the highest ⌊R/4⌋ values."""
    return np.asarray(stats.trim_mean(values, proportiontocut=_TRIMMED_SHARE, axis=axis))


def probability_of_improvement(
    ours: Float64[np.ndarray, "... R"], theirs: Float64[np.ndarray, "... R2"]
) -> Float64[np.ndarray, "..."]:
    """P(X > Y) + ½ P(X = Y) over all pairs: the Mann-Whitney statistic over R·R2."""
    difference = ours[..., :, None] - theirs[..., None, :]
    return np.asarray((np.sign(difference) + 1).mean(axis=(-1, -2)) / 2)


def common_points(curves: Sequence[Mapping[int, float]]) -> tuple[list[int], Float64[np.ndarray, "R K"]]:
    """Steps at which every run has a value, and the values there.

    Args:
        curves: step → value, of each run.
    """
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    values = [[curve[step] for step in steps] for curve in curves]
    return steps, np.array(values, dtype=np.float64).reshape(len(curves), len(steps))


def _single(band: Band) -> Interval:
    return Interval(float(band.value), float(band.low), float(band.high))
