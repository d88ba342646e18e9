"""Published parameters into an acting policy."""

import torch

from learner.errors import StateMismatchError
from learner.networks import PolicyNetwork
from learner.parameters import VersionedParameters


def load_parameters(policy: PolicyNetwork, parameters: VersionedParameters) -> None:
    """Copy published arrays into an acting policy.

    Raises:
        StateMismatchError: if names or shapes differ.
    """
    own = policy.state_dict()
    if own.keys() != parameters.arrays.keys():
        raise StateMismatchError(
            f"published parameters are {sorted(parameters.arrays)}, the policy has {sorted(own)}; "
            "learner and actor must be built from the same configuration"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            array = parameters.arrays[name]
            if array.shape != tuple(tensor.shape):
                raise StateMismatchError(
                    f"published {name} has shape {array.shape}, expected {tuple(tensor.shape)}; "
                    "were they made for another environment or configuration?"
                )
            # torch.tensor copies: arrays that came through shared memory are read-only.
            tensor.copy_(torch.tensor(array))
