"""One face for the two generations of the runtime client's sampler.

``SamplerV2`` prepares and reads jobs on the server and is deprecated since client 0.50; the client-side ``Sampler``
follows it. Both take the same circuits and the options set here under the same names, and both return one BitArray per
circuit.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from qpu_service.errors import BackendUnavailableError, JobFailedError
from qpu_service.ibm.config import SamplerGeneration
from qpu_service.isa import MEASURED_REGISTER


def sampler_class(generation: SamplerGeneration) -> Any:
    """Class of a generation; ``auto`` is SamplerV2 while the installed client has it.

    Raises:
        BackendUnavailableError: if the client is missing or does not have it.
    """
    try:
        if generation != "executor":
            try:
                from qiskit_ibm_runtime import SamplerV2
            except ImportError:
                if generation == "legacy":
                    raise
            else:
                return SamplerV2
        from qiskit_ibm_runtime.executor_sampler import Sampler
    except ImportError as error:
        raise BackendUnavailableError(
            f"the installed qiskit-ibm-runtime has no {generation} sampler ({error}); install qiskit-ibm-runtime>=0.50 "
            "or set QPU_SAMPLER to the other generation"
        ) from error
    return Sampler


def make_sampler(kind: Any, mode: Any) -> Any:
    """Sampler in an execution mode; without the warning that it will be replaced one day, which we know."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return kind(mode=mode)


def read_bits(result: Any, shots: int) -> list[UInt8[np.ndarray, "S N"]]:
    """Bits of every circuit of a result.

    Raises:
        JobFailedError: if the result has another form than the circuits that were sent.
    """
    bits = []
    for index in range(len(result)):
        data = result[index].data
        if MEASURED_REGISTER not in data:
            raise JobFailedError(
                f"circuit {index} came back without its register {MEASURED_REGISTER!r}, got {list(data)}; "
                "check the version of qiskit-ibm-runtime"
            )
        ordered = data[MEASURED_REGISTER].to_bool_array(order="little")
        if ordered.ndim != 2 or len(ordered) != shots:
            raise JobFailedError(
                f"circuit {index} came back with bits of shape {ordered.shape}, expected {shots} shots"
            )
        bits.append(ordered.astype(np.uint8))
    return bits


def as_pubs(circuits: Sequence[Any]) -> list[tuple[Any]]:
    """One primitive unified bloc per circuit, nothing left to bind."""
    return [(circuit,) for circuit in circuits]
