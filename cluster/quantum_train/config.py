"""Configuration of a run of Quantum-Train agents."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cluster.config import CheckpointConfig, build, write_yaml
from cluster.errors import ConfigError
from learner.quantum_train.config import GeneratorConfig, GradientConfig, LearningConfig, Parametrisation

METHOD: Literal["quantum_train"] = "quantum_train"
Sharing = Literal["gradients", "parameters", "federated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestConfig:
    """Test rounds: seeds apart from training's."""

    period_rounds: int = 10
    """Rounds of training between two of them."""
    num_episodes: int = 20
    """Episodes in one."""
    explore: bool = False
    """Draw actions from the policy, as in training; else the most probable one is taken."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.period_rounds < 1 or self.num_episodes < 1:
            raise ValueError(f"period_rounds and num_episodes must be at least 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantumTrainRunConfig:
    """Everything that decides a run of K agents; centralised training is K = 1."""

    method: Literal["quantum_train"] = METHOD
    """Tells this configuration from that of an hDQNN run."""
    env_id: str = "CartPole-v1"
    """Gymnasium id; discrete or continuous actions."""
    num_actions: int | None = None
    """Keep only the first so many discrete actions. Source: 3 in MiniGrid."""
    observation_scale: float = 1.0
    """Factor on observations."""
    hidden_sizes: tuple[int, ...] = (128,)
    """Hidden layers of the policy network. Source: 128 for CartPole, 32 for MiniGrid."""
    parametrisation: Parametrisation = "quantum_train"
    """quantum_train, or classical: the same network with its weights trained directly, as control."""
    num_agents: int = 1
    """Agents K, each with its own environments, process and QPU."""
    episodes_per_round: int = 8
    """Episodes (and environments) of one agent in one round."""
    sharing: Sharing = "gradients"
    """gradients: averaged at every step. parameters: every agent steps on its own, all are averaged every
    sync_period_rounds. federated: the same, with every agent's mapping model kept its own."""
    sync_period_rounds: int = 1
    """Rounds between two averages of parameters. In between no agent waits for another: each goes on to the next
    average, and rounds that are under way when a run is stopped are lost and made again."""
    agent_timeout_s: float = 300.0
    """An agent that answers nothing for this long is left out of the round and replaced."""
    backend: str | None = None
    """QPU backend; default: QPU_BACKEND from the environment, else statevector."""
    total_steps: int = 300_000
    """Environment steps of the whole run, over all agents."""
    total_rounds: int | None = None
    """Also end after so many rounds; None for no such end. A policy that has collapsed makes very short ones."""
    stop_return: float | None = None
    """Stop once two test rounds in a row reach this mean return; a preset's holds for its own env_id alone."""
    seed: int = 1
    """Every other seed derives from it."""
    run_dir: Path | None = None
    """Where the run is kept; default: runs/<preset>-<time>-s<seed>. It must not exist yet."""
    synchronous: bool = False
    """One process, bit-reproducible, without Ray."""
    prometheus_port: int | None = None
    """Serve the newest row of metrics to Prometheus on this port of 127.0.0.1; 0 takes a free one."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    """Circuit and mapping model."""
    gradient: GradientConfig = field(default_factory=GradientConfig)
    """Probabilities and gradients of the circuit."""
    learning: LearningConfig = field(default_factory=LearningConfig)
    """Learning rule."""
    tests: TestConfig = field(default_factory=TestConfig)
    """Test rounds."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    @property
    def label(self) -> str:
        """What tells this kind of run from others in a table."""
        depth = f" L={self.generator.depth}" if self.parametrisation == "quantum_train" else ""
        return f"{self.parametrisation}{depth} K={self.num_agents}"

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_agents", "episodes_per_round", "sync_period_rounds", "total_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.total_rounds is not None and self.total_rounds < 1:
            raise ValueError(f"total_rounds must be at least 1, or None, got {self.total_rounds}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        for name in ("observation_scale", "agent_timeout_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"every size in hidden_sizes must be at least 1, got {self.hidden_sizes}")
        if self.sharing == "federated" and self.parametrisation == "classical":
            raise ValueError("sharing federated keeps mapping models local; a classical policy has none")


def write_config(config: QuantumTrainRunConfig, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    plain: dict[str, Any] = dataclasses.asdict(config)
    plain["run_dir"] = None if config.run_dir is None else str(config.run_dir)
    write_yaml(plain, path)


def read_config(path: Path) -> QuantumTrainRunConfig:
    """Read what ``write_config`` wrote.

    Raises:
        ConfigError: if the file is missing, is not YAML, or has unknown fields or values of the wrong type.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the run's configuration {path}: {reason}; bring back what it was") from error
    config: QuantumTrainRunConfig = build(QuantumTrainRunConfig, plain, "config")
    return config


def is_quantum_train(path: Path) -> bool:
    """Whether the run in a directory is one of Quantum-Train agents."""
    try:
        plain = yaml.safe_load((path / "config.yaml").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(plain, dict) and plain.get("method") == METHOD
