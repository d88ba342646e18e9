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
                ADAM=adam_settings(group),
                BLOCK=_BLOCK,
                num_warps=_NUM_WARPS,
            )
        if states:
            torch._foreach_add_([state["step"] for state in states], 1)


def rate_of(group: dict[str, Any], device: torch.device) -> Tensor:
    """A group's learning rate as a tensor; on a GPU it is one already, which a captured graph reads anew."""
    return torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def adam_settings(group: dict[str, Any]) -> tuple[float, float, float, float, float]:
    """β₁, β₂, log β₁, log β₂ and ε of a group, which are compiled into a kernel."""
    beta1, beta2 = group["betas"]
    return beta1, beta2, math.log(beta1), math.log(beta2), group["eps"]


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
    ADAM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    block = tl.program_id(0)
    rate = tl.load(learning_rate)
    block = _adam_of_one(block, p0, g0, m0, v0, t0, n0, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p1, g1, m1, v1, t1, n1, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p2, g2, m2, v2, t2, n2, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p3, g3, m3, v3, t3, n3, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p4, g4, m4, v4, t4, n4, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p5, g5, m5, v5, t5, n5, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p6, g6, m6, v6, t6, n6, rate, ADAM, BLOCK)
    block = _adam_of_one(block, p7, g7, m7, v7, t7, n7, rate, ADAM, BLOCK)

# fmt: on


@triton.jit
def _adam_of_one(  # type: ignore[no-untyped-def]
    block, parameter, gradient, mean, square, steps_made, size, rate, ADAM: tl.constexpr, BLOCK: tl.constexpr
):
    """Move the block of this tensor if it is one of its own; the number of the block in the tensors that follow."""
    if (block >= 0) & (block * BLOCK < size):
        at = block * BLOCK + tl.arange(0, BLOCK)
        is_held = at < size
        step_size, correction = pace(rate, tl.load(steps_made), 1, ADAM)
        before = tl.load(parameter + at, mask=is_held, other=0.0)
        change = tl.load(gradient + at, mask=is_held, other=0.0)
        moved = adam_moved(before, change, mean + at, square + at, is_held, step_size, correction, ADAM)
        tl.store(parameter + at, moved, mask=is_held)
    return block - tl.cdiv(size, BLOCK)


@triton.jit
def pace(rate, steps_made, more, ADAM: tl.constexpr):  # type: ignore[no-untyped-def]
    """α / (1 − β₁ᵗ) and √(1 − β₂ᵗ) after so many more steps; in float64, because β₂ᵗ begins next to 1."""
    count = (steps_made + more).to(tl.float64)
    first = 1.0 - tl.exp(count * ADAM[2])
    second = 1.0 - tl.exp(count * ADAM[3])
    return rate / first.to(tl.float32), tl.sqrt(second).to(tl.float32)


@triton.jit
def adam_moved(  # type: ignore[no-untyped-def]
    parameter, gradient, mean_at, square_at, mask, step_size, correction, ADAM: tl.constexpr
):
    """The parameter after its step; its moments are moved in memory."""
    mean = ADAM[0] * tl.load(mean_at, mask=mask, other=0.0) + (1.0 - ADAM[0]) * gradient
    square = ADAM[1] * tl.load(square_at, mask=mask, other=0.0) + (1.0 - ADAM[1]) * gradient * gradient
    tl.store(mean_at, mean, mask=mask)
    tl.store(square_at, square, mask=mask)
    return parameter - step_size * mean / (tl.sqrt_rn(square) / correction + ADAM[4])
