"""Settings of the critics beyond the paper's: architecture, normalisation, value head, ensemble.

The defaults are the paper's twin segmented critics (arXiv:2503.09119, Table 2, footnote 9). "Thesis", here and in the
other files of this package: D. Y.-T. Hui, Stabilizing Q-Learning for Continuous Control, MSc thesis, Université de
Montréal, 2022.
"""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["segmented", "mlp", "residual"]
Normalisation = Literal["none", "layer", "group", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    """Critic networks and what they are trained on."""

    architecture: Architecture = "segmented"
    """segmented: the paper's two segments; mlp: (s, a) through ``num_layers`` hidden layers; residual: an input
    layer, then ``num_layers`` blocks x + W₂ f(W₁ x). Source of the blocks: thesis, Fig. 2.1."""
    hidden_size: int = 256
    """Units of the segments, of each MLP layer, or of the residual stream. Source: paper."""
    num_layers: int = 2
    """Hidden layers (mlp) or blocks (residual; thesis: 1 to 5)."""
    expansion: int = 2
    """Units inside a residual block over those of its stream. Thesis: 2048 over 1024; FlashSAC: 4."""
    normalisation: Normalisation = "none"
    """Before each activation: LayerNorm or GroupNorm (thesis, 3.2 and Fig. 3.3), or BatchNorm over (s, a) and
    (s', a') together, input included (CrossQ, arXiv:1902.05605)."""
    num_groups: int = 16
    """Groups of GroupNorm. Source: thesis, 3.3: the square root of 256."""
    num_critics: int = 2
    """Independent critics: 1 DDPG, 2 TD2 and TD3, more REDQ (arXiv:2101.05982) and DroQ."""
    num_target_critics: int | None = None
    """Critics drawn for each target's minimum; default: all. REDQ: 2 of 10."""
    climbs: Literal["first", "mean", "min"] = "first"
    """What the policy climbs: the first critic (TD3), the mean of all (REDQ, TD7) or their minimum (SAC)."""
    head: Literal["scalar", "categorical"] = "scalar"
    """Value as one number, or as a distribution over ``num_bins`` bins (C51, arXiv:1707.06887)."""
    num_bins: int = 101
    """Bins of the categorical head."""
    max_value: float = 5.0
    """The bins reach from minus to plus this, in scaled reward units."""
    has_target: bool = True
    """Targets from a soft copy, or from the critics themselves (thesis, 3.1.2: enough once normalised)."""
    target_rule: Literal["min", "iterated"] = "min"
    """min: every critic is fitted to the smallest target (TD3); iterated: critics form a chain, each fitted to the
    one before it (i-QN, arXiv:2403.02107)."""
    asymmetry: float = 0.5
    """α of the asymmetric squared loss: weight of overestimation; 0.5 is symmetric. Source: thesis, 3.4."""
    final_asymmetry: float | None = None
    """α at the run's last update, linear in between. Annealed Q-learning (arXiv:2506.05968): 0.1 to 0.5."""
    adapts_asymmetry: bool = False
    """Find α during training by holding values against far-sighted returns (learner/asymmetry.py)."""
    adaptation_rate: float = 0.05
    """Step of α's logit per calibration, which is every hundredth update."""
    dropout: float = 0.0
    """Dropout before each normalisation. Source: DroQ (arXiv:2110.02034): 0.01."""
    orthogonal: bool = False
    """Orthogonal initialisation, gain √2, last layer 1. Source: thesis, 3.2."""
    unit_rows: bool = False
    """Hidden layers' rows are put back to length 1 after each step; the normalisation that follows makes their
    length meaningless but for the effective learning rate, which so stays constant."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        for name in ("hidden_size", "num_layers", "expansion", "num_groups", "num_critics"):
            if getattr(self, name) < 1:
                raise ValueError(f"critic.{name} must be at least 1, got {getattr(self, name)}")
        num_targets = self.num_target_critics
        if num_targets is not None and not 1 <= num_targets <= self.num_critics:
            raise ValueError(f"critic.num_target_critics must be in 1..{self.num_critics}, got {num_targets}")
        if self.num_bins < 2 or self.max_value <= 0:
            raise ValueError(f"critic needs num_bins >= 2 and max_value > 0, got {self.num_bins} and {self.max_value}")
        for name in ("asymmetry", "final_asymmetry"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"critic.{name} must be in (0, 1), got {value}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"critic.dropout must be in [0, 1), got {self.dropout}")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.head == "categorical" and self.is_asymmetric:
            raise ValueError("critic.asymmetry weighs squared errors; the categorical head has none: leave it at 0.5")
        if self.head == "categorical" and self.target_rule == "iterated":
            raise ValueError("critic.target_rule iterated is for the scalar head; choose --critic.head scalar")
        if self.target_rule == "iterated" and self.num_target_critics is not None:
            raise ValueError(
                "critic.target_rule iterated fits each critic to the one before it, which leaves none to draw; leave "
                "num_target_critics out"
            )
        if self.adapts_asymmetry and self.final_asymmetry is not None:
            raise ValueError("critic.asymmetry is either annealed to final_asymmetry or adapted; choose one")
        # A group of one unit has mean itself and variance 0.
        num_groups = self.num_groups
        if self.normalisation == "group" and (self.hidden_size % num_groups or self.hidden_size < 2 * num_groups):
            raise ValueError(
                f"critic.hidden_size ({self.hidden_size}) must be a multiple of num_groups ({num_groups}), and at "
                "least twice num_groups"
            )
        if self.unit_rows and self.normalisation == "none":
            raise ValueError("critic.unit_rows needs a normalisation after each layer; choose layer, group or batch")
        if self.architecture == "segmented":
            self._check_segmented()

    @property
    def is_asymmetric(self) -> bool:
        """Whether the loss weighs errors by their sign."""
        return self.adapts_asymmetry or self.final_asymmetry is not None or self.asymmetry != 0.5

    def _check_segmented(self) -> None:
        """The paper's critic is kept as the paper has it."""
        own = {"normalisation": "none", "num_critics": 2, "head": "scalar", "dropout": 0.0, "orthogonal": False}
        other = [f"{name}={getattr(self, name)}" for name, value in own.items() if getattr(self, name) != value]
        if other:
            raise ValueError(
                f"the segmented critic is the paper's and has no {', '.join(other)}; "
                "choose --critic.architecture mlp or residual"
            )
