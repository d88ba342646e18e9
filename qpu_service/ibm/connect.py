"""Builds the IBM backend from the environment: device, credentials, journal, budget."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qpu_service.budget import Budget, BudgetLimits
from qpu_service.errors import BackendUnavailableError
from qpu_service.ibm.backend import IBMBackend
from qpu_service.ibm.config import IBMConfig, config_from_environment, default_journal_dir
from qpu_service.ibm.local import LocalRuntime
from qpu_service.ibm.redaction import is_clean, protect, redact
from qpu_service.ibm.remote import RemoteRuntime, bounded
from qpu_service.ibm.trouble import Timing
from qpu_service.job_journal import JobJournal
from qpu_service.retry import diagnose, symptom_of

_CONNECT_TIMEOUT_S = 120.0


def make_ibm_backend(
    device: str | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    make_service: Callable[..., Any] | None = None,
    timing: Timing | None = None,
) -> IBMBackend:
    """Connect, or prepare a simulation of a device.

    Args:
        device: overrides QPU_DEVICE; None there too means the least busy real device.
        environment: settings and credentials.
        make_service: makes the client of the service; default: QiskitRuntimeService.
        timing: clock, sleep and random numbers.

    Raises:
        BackendUnavailableError: if a setting is wrong, credentials or a budget are missing, or the service refuses.
    """
    config = config_from_environment(device, environment)
    if config.is_local:
        return _local_backend(config, timing)
    token = environment.get("QISKIT_IBM_TOKEN", "").strip()
    if not token:
        raise BackendUnavailableError(
            "running on IBM hardware needs an API key in QISKIT_IBM_TOKEN, which is not set; set it, or use "
            "QPU_DEVICE=fake_torino for an offline copy of a device"
        )
    if not config.has_budget:
        raise BackendUnavailableError(
            "running on IBM hardware costs QPU time and no budget is set; set QPU_BUDGET_SECONDS or QPU_BUDGET_JOBS "
            "(`hdqnn qpu estimate` says how much a run needs)"
        )
    protect(token)
    directory = config.journal_dir or default_journal_dir(environment)
    journal = JobJournal(directory)
    try:
        connect = make_service or _client_service()
        service = bounded(
            lambda: connect(
                channel=environment.get("QISKIT_IBM_CHANNEL") or "ibm_quantum_platform",
                token=token,
                url=environment.get("QISKIT_IBM_URL") or None,
                instance=environment.get("QISKIT_IBM_INSTANCE") or None,
            ),
            _CONNECT_TIMEOUT_S,
            "sign in",
        )
        runtime = RemoteRuntime(service, config, resume_session=_newest_session(journal))
    except BackendUnavailableError:
        raise
    except Exception as error:
        rule = diagnose(symptom_of(error))
        raise BackendUnavailableError(
            redact(
                f"cannot use the IBM Quantum device {config.device or '(least busy)'}: {error} ({rule.name}); check "
                "QPU_DEVICE, and that QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE give access to it"
            )
        ) from (error if is_clean(error) else None)
    return IBMBackend(runtime, journal, Budget(directory, config.budget), config, timing)


def _local_backend(config: IBMConfig, timing: Timing | None) -> IBMBackend:
    runtime = LocalRuntime(config)
    # Nothing is paid for a simulation, so nothing has to outlive it, or may count as if it had been paid.
    temporary = tempfile.TemporaryDirectory(prefix="hdqnn-ibm-")
    journal, budget = JobJournal(Path(temporary.name)), Budget(Path(temporary.name), BudgetLimits())
    return IBMBackend(runtime, journal, budget, config, timing, clean_up=temporary.cleanup)


def _newest_session(journal: JobJournal) -> str | None:
    return next((job.session_id for job in reversed(journal.jobs) if job.session_id is not None), None)


def _client_service() -> Any:
    try:
        from qiskit_ibm_runtime import QiskitRuntimeService
    except ImportError as error:
        raise BackendUnavailableError(
            "running on IBM hardware needs the package qiskit-ibm-runtime; install it"
        ) from error
    return QiskitRuntimeService
