"""Puts a learner on the fastest path for its device; numbers stay the same to the round-off of its precision.

On the CPU the surrogate, the segmented critics and those of BatchNorm layers compute by compiled kernels
(learner/surrogate_kernel.py, learner/critic_kernel.py, learner/normed_critic_kernel.py), and so do the policy's Adam
and the soft updates (learner/step_kernel.py); the rest is plain torch, because neither ``torch.compile`` nor kernels of
its own made it faster (docs/learner-speed.md). On a GPU an update is one CUDA graph, in which the surrogate's fit, Adam
and the exact circuit are kernels of our own (learner/gpu).
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

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
        if find_spec("triton") is None:
            logger.info("surrogate, Adam and exact circuits run as plain torch: triton is not installed here")
        else:
            _use_gpu_kernels(learner)
        if learner.surrogate is not None and learner.surrogate_config.tolerance is not None:
            logger.info("updates are not captured as CUDA graphs: surrogate.tolerance decides how long each of them is")
        elif isinstance(learner.policy_optimizer, GeneratedWeights):
            logger.info("updates are not captured as CUDA graphs: the policy's weights are generated on the host")
        else:
            learner.execute = CapturedSteps(learner, CudaRecorder(learner.generator))


def _use_gpu_kernels(learner: TD3Learner) -> None:
    # Triton comes with torch for GPUs and is found nowhere else.
    from learner.gpu.adam_kernel import adam_step
    from learner.gpu.checks import adam_agrees, circuit_agrees, surrogate_agrees
    from learner.gpu.circuit_kernel import circuit_bit_means, supports
    from learner.gpu.surrogate_kernel import GpuSurrogateKernel

    if learner.device.index is not None:
        # Triton launches on the current device, whatever device the tensors are on.
        torch.cuda.set_device(learner.device)
    moved = [p for module in (learner.policy, learner.critic) for p in module.parameters() if p.requires_grad]
    if is_usable("Adam", partial(adam_agrees, moved)):
        learner.critic_step = partial(adam_step, learner.critic_optimizer)
        if isinstance(learner.policy_optimizer, torch.optim.Adam):
            learner.policy_step = partial(adam_step, learner.policy_optimizer)
    if (model := learner.circuit_model) is None:
        return
    trainer, is_entangled = model.trainer, learner.block != "unentangled_pqc"
    is_fitted = model.config.gradient == "surrogate" and model.config.tolerance is None
    if is_fitted and is_usable("the surrogate's fit", partial(surrogate_agrees, trainer.surrogate, trainer.config)):
        trainer.device_fit = GpuSurrogateKernel(trainer.surrogate.network).fit
    check = partial(circuit_agrees, model.shape, is_entangled=is_entangled, device=learner.device)
    if supports(model.shape) and is_usable("the exact circuit", check):
        model.exact.device_means = circuit_bit_means


def is_usable(name: str, agrees: Callable[[], bool]) -> bool:
    """Whether a kernel compiles here and gives the numbers of plain torch; if not, a log line says so."""
    try:
        if agrees():
            return True
        reason = "its kernel gives other numbers"
    except Exception as error:
        # Whatever a compiler or a driver has to say: plain torch goes on.
        reason = f"its kernel fails with {type(error).__name__}: {error}"
    logger.warning("on this GPU %s runs as plain torch: %s", name, reason)
    return False


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
            if critic.kernel is not None and not critic.kernel.has_bfloat16 and learner.config.precision == "auto":
                # In torch's mixed precision these critics are slower than in float32 by the kernels.
                learner.config = replace(learner.config, precision="float32")
    moved = [p for module in (learner.policy, learner.critic) for p in module.parameters()]
    if (steps := make_step_kernel(moved)) is not None:
        learner.blend = steps.blend
        if isinstance(learner.policy_optimizer, torch.optim.Adam):
            learner.policy_step = partial(steps.adam, learner.policy_optimizer)
