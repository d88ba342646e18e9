"""Step B1 on a GPU: N_qt tiny-batches of the surrogate in N_qt + 1 kernels, where torch takes twenty for each.

Every program owns a few hidden units: their weights, moments and activations. One kernel ends one tiny-batch and begins
the next: it adds up what all programs contributed to the logits of the last tiny-batch, makes the gradients of its own
units, moves them by Adam, and contributes to the logits of the next. Sums are taken in one order whatever the timing,
so results repeat bit for bit.

Same mathematics as ``SurrogateTrainer.fit`` in float32, to round-off. Moments stay in the optimiser's state.

Axis legend: B batch, R rows of a tiny-batch, P circuit parameters, H hidden units, N bits, G programs.
Source: arXiv:2503.09119, Algorithm 1 (Table 1), step B1.
"""

from typing import cast

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int64
from torch import Tensor, nn

from learner.gpu.adam_kernel import adam_moved, adam_settings, pace, rate_of
from learner.native_memory import adam_state

_UNITS = 16
"""Hidden units of one program: the paper's 2048 make 128 programs for the 132 processors of an H100."""
_NUM_WARPS = 8
_SMALLEST_SIDE = 16  # of a matrix product in Triton


class GpuSurrogateKernel:
    """Fits [P, H, N] with LeakyReLU by Adam.

    Args:
        network: Linear, LeakyReLU, Linear in float32 on a GPU.
    """

    def __init__(self, network: nn.Sequential) -> None:
        first, activation, last = cast(tuple[nn.Linear, nn.LeakyReLU, nn.Linear], tuple(network))
        self._layers = first.weight, first.bias, last.weight, last.bias
        self._slope = activation.negative_slope

    def fit(
        self,
        optimizer: torch.optim.Adam,
        circuit_parameters: Float[Tensor, "B P"],
        targets: Float[Tensor, "B N"],
        order: Int64[Tensor, "steps*R"],
        num_steps: int,
    ) -> Float[Tensor, ""]:
        """One Adam step per tiny-batch on its mean binary cross entropy; nothing waits for the device.

        Args:
            optimizer: whose rates and moments are used; its state is made where it is still empty.
            circuit_parameters: angles in rad and real-valued qubit indices.
            targets: bits, or their means, in 0..1.
            order: rows of the tiny-batches, one after the other.
            num_steps: tiny-batches.

        Returns:
            Loss of the last tiny-batch before its step, nats per bit.
        """
        (hidden, inputs), outputs = self._layers[0].shape, len(self._layers[3])
        states = [adam_state(optimizer, layer) for layer in self._layers]
        group = optimizer.param_groups[0]
        num_rows, programs = len(order) // num_steps, triton.cdiv(hidden, _UNITS)
        device = circuit_parameters.device
        rows, bits = _padded(num_rows), _padded(outputs)
        # What the programs contribute to the logits: one kernel reads one half and writes the other.
        parts = torch.empty(2, programs, rows, bits, device=device)
        activations = torch.empty(rows, programs * _UNITS, device=device)
        loss = torch.empty((), device=device)
        circuit_parameters, targets = circuit_parameters.contiguous(), targets.contiguous()
        for step in range(num_steps + 1):
            _end_one_begin_next[(programs,)](
                circuit_parameters,
                targets,
                order,
                *self._layers,
                *(state["exp_avg"] for state in states),
                *(state["exp_avg_sq"] for state in states),
                states[0]["step"],
                rate_of(group, device),
                parts,
                activations,
                loss,
                step,
                hidden,
                PROGRAMS=programs,
                IS_FIRST=step == 0,
                IS_LAST=step == num_steps,
                NUM_ROWS=num_rows,
                INPUTS=inputs,
                OUTPUTS=outputs,
                ROWS=rows,
                INPUT_SIDE=_padded(inputs),
                BITS=bits,
                UNITS=_UNITS,
                PARTS=min(32, triton.next_power_of_2(programs)),
                SLOPE=self._slope,
                ADAM=adam_settings(group),
                num_warps=_NUM_WARPS,
            )
        torch._foreach_add_([state["step"] for state in states], num_steps)
        return loss


def _padded(size: int) -> int:
    return max(_SMALLEST_SIDE, int(triton.next_power_of_2(size)))


@triton.jit(do_not_specialize=["step"])
def _end_one_begin_next(  # type: ignore[no-untyped-def]
    circuit_parameters,
    targets,
    order,
    weight1,
    bias1,
    weight2,
    bias2,
    mean_w1,
    mean_b1,
    mean_w2,
    mean_b2,
    square_w1,
    square_b1,
    square_w2,
    square_b2,
    steps_made,
    learning_rate,
    parts,
    activations,
    loss,
    step,
    hidden,
    PROGRAMS: tl.constexpr,
    IS_FIRST: tl.constexpr,
    IS_LAST: tl.constexpr,
    NUM_ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    INPUT_SIDE: tl.constexpr,
    BITS: tl.constexpr,
    UNITS: tl.constexpr,
    PARTS: tl.constexpr,
    SLOPE: tl.constexpr,
    ADAM: tl.constexpr,
):
    program = tl.program_id(0)
    row, bit, column = tl.arange(0, ROWS), tl.arange(0, BITS), tl.arange(0, INPUT_SIDE)
    unit = program * UNITS + tl.arange(0, UNITS)
    is_unit, is_bit, is_row = unit < hidden, bit < OUTPUTS, row < NUM_ROWS
    at1 = unit[:, None] * INPUTS + column[None, :]
    is1 = is_unit[:, None] & (column < INPUTS)[None, :]
    at2 = bit[:, None] * hidden + unit[None, :]
    is2 = is_bit[:, None] & is_unit[None, :]
    w1 = tl.load(weight1 + at1, mask=is1, other=0.0)
    b1 = tl.load(bias1 + unit, mask=is_unit, other=0.0)
    w2 = tl.load(weight2 + at2, mask=is2, other=0.0)
    b2 = tl.load(bias2 + bit, mask=is_bit, other=0.0)
    width = PROGRAMS * UNITS
    # Zero beyond the last unit, so that their activations never count.
    at_activation = row[:, None] * width + unit[None, :]
    half = PROGRAMS * ROWS * BITS
    if not IS_FIRST:
        # Logits of the tiny-batch that the kernel before began.
        flat = tl.arange(0, ROWS * BITS)
        total = tl.zeros((ROWS * BITS,), tl.float32)
        source = parts + ((step - 1) % 2) * half
        for start in range(0, PROGRAMS, PARTS):
            part = start + tl.arange(0, PARTS)
            at = part[:, None] * (ROWS * BITS) + flat[None, :]
            total += tl.sum(tl.load(source + at, mask=(part < PROGRAMS)[:, None], other=0.0), axis=0)
        logits = tl.reshape(total, (ROWS, BITS))
        chosen = tl.load(order + (step - 1) * NUM_ROWS + row, mask=is_row, other=0)
        is_target = is_row[:, None] & is_bit[None, :]
        target = tl.load(targets + chosen[:, None] * OUTPUTS + bit[None, :], mask=is_target, other=0.0)
        share: tl.constexpr = 1.0 / (NUM_ROWS * OUTPUTS)
        if IS_LAST and program == 0:
            # log(1 + exp(-|x|)) has nothing to lose here to rounding: the loss is only looked at.
            entropy = tl.maximum(logits, 0.0) - logits * target + tl.log(1.0 + tl.exp(-tl.abs(logits)))
            tl.store(loss, tl.sum(tl.where(is_target, entropy, 0.0)) * share)
        slope_of_loss = tl.where(is_target, (tl.sigmoid(logits) - target) * share, 0.0)
        inputs = tl.load(
            circuit_parameters + chosen[:, None] * INPUTS + column[None, :],
            mask=is_row[:, None] & (column < INPUTS)[None, :],
            other=0.0,
        )
        activation = tl.load(activations + at_activation)
        gradient_w2 = tl.dot(tl.trans(slope_of_loss), activation, input_precision="ieee")
        back = tl.dot(slope_of_loss, w2, input_precision="ieee")
        back = back * tl.where(activation > 0, 1.0, SLOPE)
        gradient_w1 = tl.dot(tl.trans(back), inputs, input_precision="ieee")
        size, correction = pace(tl.load(learning_rate), tl.load(steps_made), step, ADAM)
        w1 = adam_moved(w1, gradient_w1, mean_w1 + at1, square_w1 + at1, is1, size, correction, ADAM)
        w2 = adam_moved(w2, gradient_w2, mean_w2 + at2, square_w2 + at2, is2, size, correction, ADAM)
        b1 = adam_moved(b1, tl.sum(back, axis=0), mean_b1 + unit, square_b1 + unit, is_unit, size, correction, ADAM)
        # The bias of the logits belongs to the first program alone.
        is_mine = bit + program * BITS < OUTPUTS
        gradient_b2 = tl.sum(slope_of_loss, axis=0)
        b2 = adam_moved(b2, gradient_b2, mean_b2 + bit, square_b2 + bit, is_mine, size, correction, ADAM)
        tl.store(weight1 + at1, w1, mask=is1)
        tl.store(bias1 + unit, b1, mask=is_unit)
        tl.store(weight2 + at2, w2, mask=is2)
        tl.store(bias2 + bit, b2, mask=is_mine)
    if not IS_LAST:
        chosen = tl.load(order + step * NUM_ROWS + row, mask=is_row, other=0)
        inputs = tl.load(
            circuit_parameters + chosen[:, None] * INPUTS + column[None, :],
            mask=is_row[:, None] & (column < INPUTS)[None, :],
            other=0.0,
        )
        activation = tl.dot(inputs, tl.trans(w1), input_precision="ieee") + b1[None, :]
        activation = tl.where(activation > 0, activation, SLOPE * activation)
        tl.store(activations + at_activation, activation)
        contribution = tl.dot(activation, tl.trans(w2), input_precision="ieee")
        if program == 0:
            contribution += b2[None, :]
        place = parts + (step % 2) * half + program * (ROWS * BITS)
        tl.store(place + row[:, None] * BITS + bit[None, :], contribution)
