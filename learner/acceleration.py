"""Puts a learner on the fastest path that was measured for its device; numbers stay the same to round-off.

On the CPU the surrogate computes by compiled kernels (learner/surrogate_kernel.py); the rest is plain torch, because
``torch.compile`` made it slower (docs/learner-speed.md).
"""

from learner.surrogate_kernel import make_surrogate_kernel
from learner.td3 import TD3Learner


def accelerate(learner: TD3Learner) -> None:
    """Make a freshly built learner fast; does nothing where this machine has nothing faster, after one log line."""
    if learner.device.type == "cpu" and learner.surrogate is not None:
        learner.surrogate.kernel = make_surrogate_kernel(learner.surrogate.network)
