"""The circuit's gates and products on tiles of one circuit's state: functions for Triton kernels.

A pair of names x, x_i is a complex number. The first half of the qubits are the rows of the state, the others its
columns.

Axis legend: M layers, N qubits, D = 2^N amplitudes, G = 2^(qubits of a half).
"""

import triton
import triton.language as tl

SLOTS = tl.constexpr(8)
"""Places for the qubits of a half: a power of two, as the lengths of tiles must be."""

_ANGLES_AT_ONCE = tl.constexpr(128)
"""One for each thread of four warps."""


@triton.jit
def turn(  # type: ignore[no-untyped-def]
    tile,  # (2, D), read and written
    waves,
    pair,
    QUBITS: tl.constexpr,
    ROTATIONS: tl.constexpr,
    IS_ENTANGLED: tl.constexpr,
    IS_INVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A layer's rotations, or their inverse, and then the CZ of a pair: of the same layer, or of the one before.

    The state lies in memory, which for a program is its processor's own cache. As a tile carried from layer to layer
    the compiler would hold it in the layouts of all its uses at once, and spill kilobytes a thread.
    """
    BELOW: tl.constexpr = QUBITS // 2
    ABOVE: tl.constexpr = QUBITS - BELOW
    row, column = tl.arange(0, 2**ABOVE), tl.arange(0, 2**BELOW)
    index = row[:, None] * 2**BELOW + column[None, :]
    tl.debug_barrier()
    state, state_i = load_pair(tile, index, 2**QUBITS)
    above, above_i = rotations(waves, row[:, None], row[None, :], ABOVE, ROTATIONS, IS_INVERSE)
    state, state_i = product(above, above_i, state, state_i, PRECISION)
    # Rows and columns changed places: the transpose.
    below, below_i = rotations(waves + ABOVE, column[None, :], column[:, None], BELOW, ROTATIONS, IS_INVERSE)
    state, state_i = product(state, state_i, below, below_i, PRECISION)
    if IS_ENTANGLED:
        signs = pair_signs(pair, index, QUBITS)
        state, state_i = state * signs, state_i * signs
    tl.debug_barrier()
    store_pair(tile, index, state, state_i, 2**QUBITS)


@triton.jit
def store_waves(parameters, waves, QUBITS: tl.constexpr, ROTATIONS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sines and cosines of all rotations, each taken once: every thread of a program needs all of them."""
    for start in range(0, ROTATIONS, _ANGLES_AT_ONCE):
        rotation = start + tl.arange(0, _ANGLES_AT_ONCE)
        is_one = rotation < ROTATIONS
        # Two numbers a rotation, and p and k after each layer.
        angle = parameters + 2 * rotation + rotation // QUBITS * 2
        half = 0.5 * tl.load(angle, mask=is_one, other=0.0)
        phase = tl.load(angle + 1, mask=is_one, other=0.0)
        tl.store(waves + rotation, tl.cos(half), mask=is_one)
        tl.store(waves + ROTATIONS + rotation, tl.sin(half), mask=is_one)
        tl.store(waves + 2 * ROTATIONS + rotation, tl.cos(phase), mask=is_one)
        tl.store(waves + 3 * ROTATIONS + rotation, tl.sin(phase), mask=is_one)


@triton.jit
def rotations(  # type: ignore[no-untyped-def]
    waves, rows, columns, COUNT: tl.constexpr, ROTATIONS: tl.constexpr, IS_INVERSE: tl.constexpr
):
    """Elements [rows, columns] of R(θ, φ) ⊗ … ⊗ R(θ, φ) over a half's qubits, or of its inverse.

    The first qubit is the leftmost bit of an index.
    R(θ, φ) = exp(−iθ/2 · (cos φ · X + sin φ · Y)), Qiskit's ``RGate``.
    """
    for qubit in tl.static_range(COUNT):
        cosine, sine = tl.load(waves + qubit), tl.load(waves + ROTATIONS + qubit)
        if IS_INVERSE:  # −θ
            sine = -sine
        real = sine * tl.load(waves + 3 * ROTATIONS + qubit)
        imaginary = sine * tl.load(waves + 2 * ROTATIONS + qubit)
        row_bits = (rows >> (COUNT - 1 - qubit)) & 1
        is_on = row_bits == (columns >> (COUNT - 1 - qubit)) & 1
        gate = tl.where(is_on, cosine, tl.where(row_bits == 1, real, -real))
        gate_i = tl.where(is_on, 0.0, -imaginary)
        if qubit == 0:
            element, element_i = gate, gate_i
        else:
            element, element_i = element * gate - element_i * gate_i, element * gate_i + element_i * gate
    return element, element_i


@triton.jit
def pair_signs(pair, index, QUBITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """CZ: −1 where both qubits of the pair are 1; a pair of equal qubits is no gate."""
    one, other = _pair_index(tl.load(pair), QUBITS), _pair_index(tl.load(pair + 1), QUBITS)
    both = (index >> (QUBITS - 1 - one)) & (index >> (QUBITS - 1 - other)) & 1
    return tl.where((both == 1) & (one != other), -1.0, 1.0)


@triton.jit
def _pair_index(number, QUBITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """round(x) mod N, halves to the even number, as ``decode_parameters`` does; 0 beyond ±2^62 or if not finite."""
    number = tl.where(tl.abs(number) < 4.0e18, number, 0.0)
    floor = tl.floor(number)
    rest = number - floor
    is_odd = floor - 2.0 * tl.floor(0.5 * floor) == 1.0
    floor = tl.where((rest > 0.5) | ((rest == 0.5) & is_odd), floor + 1.0, floor)
    # The remainder has the sign of the number.
    return ((floor.to(tl.int64) % QUBITS + QUBITS) % QUBITS).to(tl.int32)


@triton.jit
def product(left, left_i, right, right_i, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """Complex matrix product."""
    real = tl.dot(left, right, input_precision=PRECISION) - tl.dot(left_i, right_i, input_precision=PRECISION)
    imaginary = tl.dot(left, right_i, input_precision=PRECISION)
    imaginary = tl.dot(left_i, right, imaginary, input_precision=PRECISION)
    return real, imaginary


@triton.jit
def bits(index, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """(G, slots): bit of each qubit of a half in each index; slots beyond the last qubit repeat it."""
    return ((index[:, None] >> tl.maximum(COUNT - 1 - tl.arange(0, SLOTS), 0)[None, :]) & 1).to(tl.float32)


@triton.jit
def load_pair(tile, index, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Real and imaginary part of a tile (2, D) at the places of an index."""
    return tl.load(tile + index), tl.load(tile + SIZE + index)


@triton.jit
def store_pair(tile, index, real, imaginary, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """The reverse of ``load_pair``."""
    tl.store(tile + index, real)
    tl.store(tile + SIZE + index, imaginary)
