"""Settings of the IBM backend. The token is not among them: it is read where the connection is made."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from qpu_service.budget import BudgetLimits
from qpu_service.errors import BackendUnavailableError

ExecutionMode = Literal["job", "batch", "session"]
SamplerGeneration = Literal["auto", "legacy", "executor"]

_SIMULATED_PREFIXES = ("fake_", "ideal_")


@dataclass(frozen=True, slots=True, kw_only=True)
class IBMConfig:
    """Which device, how, and for how much."""

    device: str | None = None
    """``ibm_…``: that device. ``fake_…``: an offline copy with its noise. ``ideal_…``: the same without noise.
    None: the least busy device of the account."""
    other_devices: tuple[str, ...] = ()
    """Devices of the run's other workers: a job that one of them has for the same circuits will do."""
    mode: ExecutionMode = "job"
    """Execution mode. A session is charged by the wall clock while it is active."""
    sampler: SamplerGeneration = "auto"
    """``legacy`` is SamplerV2, ``executor`` the client-side sampler that follows it; ``auto`` takes SamplerV2 while
    the installed package has it."""
    use_fractional_gates: bool = False
    """Ask for RX with any angle where the device has it: one pulse per rotation instead of two."""
    corrects_readout: bool = False
    """Correct the means of many shots by the readout errors that the device reports."""
    deadline_s: float = 3_600.0
    """Longest wall-clock time of one request, queue included; then its job is cancelled."""
    budget: BudgetLimits = field(default_factory=BudgetLimits)
    """What may be spent on real devices over all starts with the same journal."""
    journal_dir: Path | None = None
    """Where journal and budget of real devices are kept."""
    repetition_delay_s: float | None = None
    """Pause between executions; None is the device's default."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, choices in (("mode", get_args(ExecutionMode)), ("sampler", get_args(SamplerGeneration))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.deadline_s <= 0:
            raise ValueError(f"deadline_s must be positive, got {self.deadline_s}")
        if self.repetition_delay_s is not None and self.repetition_delay_s < 0:
            raise ValueError(f"repetition_delay_s must be 0 or more, got {self.repetition_delay_s}")

    @property
    def is_local(self) -> bool:
        """Whether the device is simulated on this machine."""
        return is_simulated(self.device)

    @property
    def accepted_devices(self) -> frozenset[str] | None:
        """Devices whose bits answer a request; None where any device will do."""
        return None if self.device is None else frozenset({self.device, *self.other_devices})

    @property
    def has_budget(self) -> bool:
        """Whether anything bounds what is spent."""
        return self.budget.seconds is not None or self.budget.jobs is not None


def is_simulated(device: str | None) -> bool:
    """Whether this is an offline copy of a device; None, the least busy one, is a real one."""
    return device is not None and device.startswith(_SIMULATED_PREFIXES)


def config_from_environment(device: str | None, environment: Mapping[str, str] = os.environ) -> IBMConfig:
    """Read QPU_… variables.

    Args:
        device: overrides QPU_DEVICE, and is one of its entries where it lists those of several workers.
        environment: where to read.

    Raises:
        BackendUnavailableError: naming the variable that has an impossible value.
    """
    text = {name: environment.get(name, "").strip() for name in environment if name.startswith("QPU_")}
    named = [name.strip() for name in text.get("QPU_DEVICE", "").split(",")]
    if device is None and len(named) == 1:
        device = named[0] or None
    try:
        return IBMConfig(
            device=device,
            other_devices=tuple(name for name in named if name not in ("", device)) if device in named else (),
            mode=text.get("QPU_MODE") or "job",  # type: ignore[arg-type]  # checked by IBMConfig
            sampler=text.get("QPU_SAMPLER") or "auto",  # type: ignore[arg-type]
            use_fractional_gates=_flag(text, "QPU_FRACTIONAL_GATES"),
            corrects_readout=_flag(text, "QPU_READOUT_MITIGATION"),
            deadline_s=_number(text, "QPU_DEADLINE_SECONDS", 3_600.0),
            budget=BudgetLimits(
                seconds=_optional(text, "QPU_BUDGET_SECONDS"),
                jobs=None if _optional(text, "QPU_BUDGET_JOBS") is None else int(_number(text, "QPU_BUDGET_JOBS", 0)),
            ),
            journal_dir=Path(text["QPU_JOURNAL_DIR"]) if text.get("QPU_JOURNAL_DIR") else None,
            repetition_delay_s=_optional(text, "QPU_REP_DELAY_SECONDS"),
        )
    except ValueError as error:
        raise BackendUnavailableError(
            f"the ibm backend cannot use its settings: {error}; check the QPU_… variables in the environment"
        ) from error


def default_journal_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Where journal and budget of real devices are kept if QPU_JOURNAL_DIR is not set."""
    state = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "hdqnn-rl" / "ibm"


def _flag(text: Mapping[str, str], name: str) -> bool:
    value = text.get(name, "").lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes"):
        raise ValueError(f"{name} must be 1 or 0, got {value!r}")
    return value in ("1", "true", "yes")


def _optional(text: Mapping[str, str], name: str) -> float | None:
    return _number(text, name, 0.0) if text.get(name) else None


def _number(text: Mapping[str, str], name: str, default: float) -> float:
    value = text.get(name)
    if not value:
        return default
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {value!r}") from None
