"""Segments with recognisable content: every number of a segment tells whose transition it is."""

import numpy as np

from replay.types import Segment, TransitionSpec

SPEC = TransitionSpec(observation_size=3, action_size=2, circuit_parameters_size=4, num_bits=10)
HUMANOID = TransitionSpec(observation_size=376, action_size=17, circuit_parameters_size=220, num_bits=10)


def make_segment(
    steps: int = 4,
    *,
    spec: TransitionSpec = SPEC,
    actor_id: int = 0,
    incarnation: int = 1,
    sequence: int = 0,
    first: int = 0,
    **overrides,
) -> Segment:
    """Transition t has reward ``first + t``; its observation row holds 1000 times the sequence plus t."""
    t = np.arange(steps)
    columns = {
        "observations": np.repeat(
            (1000 * (sequence % 2**16) + np.arange(steps + 1))[:, None], spec.observation_size, axis=1
        ),
        "actions": np.repeat((first + t)[:, None] + 0.5, spec.action_size, axis=1),
        "rewards": first + t,
        "discounts": (t + 1 < steps).astype(np.float32),
        "circuit_parameters": np.repeat((first + t)[:, None] + 0.25, spec.circuit_parameters_size, axis=1),
    }
    floats = {name: column.astype(np.float32) for name, column in columns.items()}
    bits = ((first + t)[:, None] >> np.arange(spec.num_bits)) & 1
    fields = {
        "actor_id": actor_id,
        "incarnation": incarnation,
        "sequence": sequence,
        **floats,
        "bits": bits.astype(np.uint8),
        "policy_versions": (t + 7).astype(np.uint32),
        "backend_name": "statevector",
    }
    return Segment(**{**fields, **overrides})


def assert_same_segment(got: Segment, expected: Segment) -> None:
    for field in Segment.__dataclass_fields__:
        a, b = getattr(got, field), getattr(expected, field)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field
            np.testing.assert_array_equal(a, b, err_msg=field)
        else:
            assert a == b, field


def assert_same_batch(got, expected) -> None:
    """The same transitions; their indices may differ where one replay started later than the other."""
    for field in set(type(expected).__dataclass_fields__) - {"indices"}:
        a, b = getattr(got, field), getattr(expected, field)
        assert a.dtype == b.dtype, field
        np.testing.assert_array_equal(a, b, err_msg=field)
