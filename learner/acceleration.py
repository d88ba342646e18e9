"""Puts a learner on the fastest path for its device; numbers stay the same to round-off.

On the CPU the surrogate, the segmented critics and those of BatchNorm layers compute by compiled kernels
(learner/surrogate_kernel.py, learner/critic_kernel.py, learner/normed_critic_kernel.py), and so do the policy's Adam
and the soft updates (learner/step_kernel.py); the rest is plain torch, because neither ``torch.compile`` nor kernels of
its own made it faster (docs/learner-speed.md). On a GPU an update is one CUDA graph.
"""

import logging
from functools import partial

import torch

from learner.captured_steps import CapturedSteps, CudaRecorder
from learner.critic_kernel import make_critic_kernel
from learner.native_memory import Scratch
from learner.networks import TwinCritic
from learner.normed_critic_kernel import make_normed_critic_kernel
from learner.quantum_train.generated_weights import GeneratedWeights
from learner.step_kernel import make_step_kernel
from learner.surrogate_kernel import make_surrogate_kernel
from learner.td3 import TD3Learner

logger = logging.getLogger(__name__)


def accelerate(learner: TD3Learner) -> None:
    """Make a freshly built learner fast; does nothing where this machine has nothing faster, after one log line."""
    if learner.device.type == "cpu":
        _use_kernels(learner)
    elif learner.device.type == "cuda":
        if learner.surrogate is not None and learner.surrogate_config.tolerance is not None:
            logger.info("updates are not captured as CUDA graphs: surrogate.tolerance decides how long each of them is")
        elif isinstance(learner.policy_optimizer, GeneratedWeights):
            logger.info("updates are not captured as CUDA graphs: the policy's weights are generated on the host")
        else:
            learner.execute = CapturedSteps(learner, CudaRecorder(learner.generator))


def _use_kernels(learner: TD3Learner) -> None:
    if learner.surrogate is not None:
        learner.surrogate.kernel = make_surrogate_kernel(learner.surrogate.network)
    # One memory for all: what a target's values need is of no use after the call.
    scratch = Scratch()
    for critic in (learner.critic, learner.target_critic):
        if isinstance(critic, TwinCritic):
            critic.kernel = make_critic_kernel(list(critic.parameters()), scratch)
        elif critic is not None:
            has_unit_rows = learner.critic_config.unit_rows
            critic.kernel = make_normed_critic_kernel(critic.networks, has_unit_rows=has_unit_rows, scratch=scratch)
    moved = [p for module in (learner.policy, learner.critic) for p in module.parameters()]
    if (steps := make_step_kernel(moved)) is not None:
        learner.blend = steps.blend
        if isinstance(learner.policy_optimizer, torch.optim.Adam):
            learner.policy_step = partial(steps.adam, learner.policy_optimizer)
