"""Settings of the rollouts and of the evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorConfig:
    """How experience is collected."""

    num_actors: int = 1
    """Actor processes; on a cluster one CPU core each."""
    envs_per_actor: int = 8
    """Environments in one actor; one half steps while the other half waits for its bits."""
    segment_length: int = 32
    """Steps of one environment that are inserted at once (an episode's end cuts shorter)."""
    exploration_noise_std: float = 0.1
    """Std of Gaussian exploration noise, fraction of the action half-range. Source: TD3 (arXiv:1802.09477)."""
    exploration_noise_ratio: float = 1.0
    """Largest over smallest std among an actor's environments, spaced evenly by ratio around
    ``exploration_noise_std``: careful and wild experience side by side, so training returns fall behind those of
    test rounds. 1: all alike. Source: mixed exploration of PQL (arXiv:2307.12983)."""
    longest_noise_hold: int = 1
    """Most steps that one draw of the noise is held; how long is drawn too, n with probability proportional to 1/n².
    Source: FlashSAC (16); 1 draws anew at every step, as TD3 does."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_actors", "envs_per_actor", "segment_length", "longest_noise_hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.exploration_noise_std < 0:
            raise ValueError(f"exploration_noise_std must be 0 or more, got {self.exploration_noise_std}")
        if self.exploration_noise_ratio < 1:
            raise ValueError(f"exploration_noise_ratio must be 1 or more, got {self.exploration_noise_ratio}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Test rounds: the real circuit, no exploration noise, seeds apart from training's."""

    period_steps: int = 2_000
    """Environment steps between rounds; over processes, rounds that cannot keep up with this are left out."""
    num_episodes: int = 10
    """Episodes in a round. Source: arXiv:2503.09119, Fig. 4."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("period_steps", "num_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
