"""Adam on a GPU: up to eight tensors by one kernel whose programs share them out evenly.

``torch.optim.Adam(fused=True)`` gives every processor 65,536 numbers, so the half million of the paper's networks keep
eight of 132 busy. Same mathematics in float32; moments, steps and rate stay in the optimiser.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from learner.native_memory import adam_state

_AT_ONCE = 8
_BLOCK = 1024
_NUM_WARPS = 4


def adam_step(optimizer: torch.optim.Adam) -> None:
    """One step of every parameter that has a gradient, as ``optimizer.step()`` would make it."""
    for group in optimizer.param_groups:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        states = [adam_state(optimizer, parameter) for parameter in moved]
        pairs = list(zip(moved, states, strict=True))
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            filled = [*some, *[some[-1]] * (_AT_ONCE - len(some))]
            sizes = [p.numel() for p, _ in some] + [0] * (_AT_ONCE - len(some))
            blocks = [triton.cdiv(size, _BLOCK) for size in sizes]
            _adam[(sum(blocks),)](
                *(p for p, _ in filled),
                *(p.grad.contiguous() for p, _ in filled),
                *(state["exp_avg"] for _, state in filled),
                *(state["exp_avg_sq"] for _, state in filled),
                *(state["step"] for _, state in filled),
                *sizes,
                rate_of(group, moved[0].device),
                LOG_BETA1=math.log(group["betas"][0]),
                LOG_BETA2=math.log(group["betas"][1]),
                BETA1=group["betas"][0],
                BETA2=group["betas"][1],
                EPSILON=group["eps"],
                BLOCK=_BLOCK,
                num_warps=_NUM_WARPS,
            )
        if states:
            torch._foreach_add_([state["step"] for state in states], 1)


def rate_of(group: dict[str, Any], device: torch.device) -> Tensor:
    """A group's learning rate as a tensor; on a GPU it is one already, which a captured graph reads anew."""
    return torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


# Any sizes by one compilation: they would otherwise be told apart by whether sixteen divides them.
# fmt: off
@triton.jit(do_not_specialize=["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"])
def _adam(  # type: ignore[no-untyped-def]
    # Of eight tensors: parameters, gradients, both moments, steps made, and numbers held; the last few may hold none.
    p0, p1, p2, p3, p4, p5, p6, p7,
    g0, g1, g2, g3, g4, g5, g6, g7,
    m0, m1, m2, m3, m4, m5, m6, m7,
    v0, v1, v2, v3, v4, v5, v6, v7,
    t0, t1, t2, t3, t4, t5, t6, t7,
    n0, n1, n2, n3, n4, n5, n6, n7,
    learning_rate,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0)
    rate = tl.load(learning_rate)
    settings: tl.constexpr = (LOG_BETA1, LOG_BETA2, BETA1, BETA2, EPSILON, BLOCK)
    block = _adam_of_one(block, p0, g0, m0, v0, t0, n0, rate, settings)
    block = _adam_of_one(block, p1, g1, m1, v1, t1, n1, rate, settings)
    block = _adam_of_one(block, p2, g2, m2, v2, t2, n2, rate, settings)
    block = _adam_of_one(block, p3, g3, m3, v3, t3, n3, rate, settings)
    block = _adam_of_one(block, p4, g4, m4, v4, t4, n4, rate, settings)
    block = _adam_of_one(block, p5, g5, m5, v5, t5, n5, rate, settings)
    block = _adam_of_one(block, p6, g6, m6, v6, t6, n6, rate, settings)
    block = _adam_of_one(block, p7, g7, m7, v7, t7, n7, rate, settings)

# fmt: on


@triton.jit
def _adam_of_one(block, parameter, gradient, mean, square, steps_made, size, rate, settings: tl.constexpr):  # type: ignore[no-untyped-def]
    """Move the block of this tensor if it is one of its own; the number of the block in the tensors that follow."""
    if (block >= 0) & (block * settings[5] < size):
        at = block * settings[5] + tl.arange(0, settings[5])
        is_held = at < size
        correction1, correction2 = bias_corrections(tl.load(steps_made), 1, settings[0], settings[1])
        moved = adam_moved(
            tl.load(parameter + at, mask=is_held, other=0.0),
            tl.load(gradient + at, mask=is_held, other=0.0),
            mean + at,
            square + at,
            is_held,
            rate,
            correction1,
            correction2,
            settings[2],
            settings[3],
            settings[4],
        )
        tl.store(parameter + at, moved, mask=is_held)
    return block - tl.cdiv(size, settings[5])


@triton.jit
def bias_corrections(steps_made, more, LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr):  # type: ignore[no-untyped-def]
    """1 − β₁ᵗ and √(1 − β₂ᵗ) after so many more steps; in float64, because β₂ᵗ begins next to 1."""
    count = (steps_made + more).to(tl.float64)
    first = 1.0 - tl.exp(count * LOG_BETA1)
    second = 1.0 - tl.exp(count * LOG_BETA2)
    return first.to(tl.float32), tl.sqrt(second).to(tl.float32)


@triton.jit
def adam_moved(  # type: ignore[no-untyped-def]
    parameter,
    gradient,
    mean_at,
    square_at,
    mask,
    rate,
    correction1,
    correction2,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """The parameter after its step; its moments are moved in memory."""
    mean = BETA1 * tl.load(mean_at, mask=mask, other=0.0) + (1.0 - BETA1) * gradient
    square = BETA2 * tl.load(square_at, mask=mask, other=0.0) + (1.0 - BETA2) * gradient * gradient
    tl.store(mean_at, mean, mask=mask)
    tl.store(square_at, square, mask=mask)
    return parameter - (rate / correction1) * mean / (tl.sqrt_rn(square) / correction2 + EPSILON)
