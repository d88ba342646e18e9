"""Each kernel against plain torch on the GPU at hand, once before it is used, at the sizes that it will be used at.

Compilers and cards differ, and a wrong number here would be a policy that learns a little worse. Must leave the
learner's own networks and random numbers as they are.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learner.config import SurrogateConfig
from learner.device_circuit import device_bit_means
from learner.gpu.adam_kernel import adam_step
from learner.gpu.circuit_kernel import circuit_bit_means
from learner.gpu.surrogate_kernel import GpuSurrogateKernel
from learner.networks import QuantumSurrogate
from learner.optimizers import adam_of
from learner.surrogate_training import SurrogateTrainer
from qpu_service.circuit import CircuitShape

_NUM_CIRCUITS = 8
_ROUND_OFF = 1e-5


def adam_agrees(parameters: Sequence[Tensor]) -> bool:
    """Whether steps of copies of these parameters are those of torch, to round-off."""
    generator = torch.Generator(parameters[0].device).manual_seed(0)
    fast, plain = ([nn.Parameter(parameter.detach().clone()) for parameter in parameters] for _ in range(2))
    ours, theirs = adam_of([(fast, 1e-2)]), adam_of([(plain, 1e-2)])
    for _ in range(3):
        for a, b in zip(fast, plain, strict=True):
            a.grad = torch.randn(a.shape, generator=generator, device=a.device)
            b.grad = a.grad.clone()
        adam_step(ours)
        theirs.step()
    return _are_close(fast, plain)


def surrogate_agrees(surrogate: QuantumSurrogate, config: SurrogateConfig) -> bool:
    """Whether a fit of a copy of this surrogate is that of torch, to round-off."""
    device = next(surrogate.parameters()).device
    fast, plain = copy.deepcopy(surrogate), copy.deepcopy(surrogate)
    # Each gets a generator that starts alike, so that their tiny-batches are the same rows.
    ours, theirs = (SurrogateTrainer(s, config, torch.Generator(device).manual_seed(0)) for s in (fast, plain))
    ours.device_fit = GpuSurrogateKernel(fast.network).fit
    generator = torch.Generator(device).manual_seed(1)
    shapes = [parameter.shape for parameter in fast.parameters()]
    rows, inputs, outputs = config.num_tiny_batches * config.tiny_batch_size, shapes[0][1], shapes[-1][0]
    for _ in range(2):
        parameters = torch.randn((rows, inputs), generator=generator, device=device)
        targets = torch.rand((rows, outputs), generator=generator, device=device)
        our_loss, their_loss = (trainer.fit(parameters, targets) for trainer in (ours, theirs))
        if not torch.allclose(our_loss, their_loss, rtol=1e-4, atol=_ROUND_OFF):
            return False
    return _are_close(list(fast.parameters()), list(plain.parameters()))


def circuit_agrees(shape: CircuitShape, *, is_entangled: bool, device: torch.device) -> bool:
    """Whether bit means and their gradients are those of torch, to round-off."""
    generator = torch.Generator(device).manual_seed(0)
    parameters = 4 * torch.randn((_NUM_CIRCUITS, shape.num_parameters), generator=generator, device=device)
    weights = torch.randn((_NUM_CIRCUITS, shape.num_qubits), generator=generator, device=device)
    found = []
    for bit_means in (circuit_bit_means, device_bit_means):
        leaf = parameters.clone().requires_grad_()
        means = bit_means(leaf, shape, is_entangled=is_entangled)
        found.append((means.detach(), torch.autograd.grad((means * weights).sum(), leaf)[0]))
    (means, gradients), (true_means, true_gradients) = found
    return torch.allclose(means, true_means, rtol=0, atol=_ROUND_OFF) and torch.allclose(
        gradients, true_gradients, rtol=0, atol=10 * _ROUND_OFF
    )


def _are_close(fast: Sequence[Tensor], plain: Sequence[Tensor]) -> bool:
    """On the mean: where a gradient is nearly zero Adam's direction is its sign, so a few parameters may differ."""
    gaps = [(a - b).abs().flatten() for a, b in zip(fast, plain, strict=True)]
    return float(torch.cat(gaps).mean().detach()) < 1e-6
