"""Which qubit of a region holds which qubit of a circuit, decided for every circuit anew.

Each circuit entangles other pairs, so no single layout is good for all of them: on a fixed line of ten, the paper's
circuits need 63 two-qubit gates on average, placed one by one about 17. A local search from several starting points
finds the places; it takes a tenth of a millisecond, where a transpiler takes milliseconds.

Axis legend: B batch, M layers, N qubits of a circuit, K places of the region, R starting points.
"""

import numpy as np
from jaxtyping import Float64, Int16, Int64
from numba import njit

NUM_STARTS = 8
"""Starting points of the search. One more than halves the time of assembling; fewer find worse places."""


def make_starts(num_places: int) -> Int64[np.ndarray, "R K"]:
    """Starting points: the region's own order, then shuffled ones, the same every time."""
    shuffled = [np.random.default_rng(seed).permutation(num_places) for seed in range(1, NUM_STARTS)]
    return np.stack([np.arange(num_places), *shuffled]).astype(np.int64)


def place_circuits(
    pairs: Int16[np.ndarray, "B M 2"],
    num_qubits: int,
    entangler_cost: Float64[np.ndarray, "K K"],
    readout_cost: Float64[np.ndarray, "K"],
    starts: Int64[np.ndarray, "R K"],
) -> Int64[np.ndarray, "B N"]:
    """Place the qubits of each circuit where its CZs and measurements are expected to fail least.

    Args:
        pairs: CZ of each layer; those of the last layer change no measurement and are not counted.
        num_qubits: N, at most K.
        entangler_cost: −log fidelity of a CZ between two places.
        readout_cost: −log fidelity of a measurement at each place.
        starts: from ``make_starts``.

    Returns:
        Place of every qubit; it depends on this circuit's pairs and on the costs alone.
    """
    places = np.empty((len(pairs), num_qubits), np.int64)
    _place(np.ascontiguousarray(pairs[:, :-1], np.int64), entangler_cost, readout_cost, starts, places)
    return places


@njit(cache=True)
def _place(pairs, entangler_cost, readout_cost, starts, places):  # type: ignore[no-untyped-def]
    num_qubits, num_places = places.shape[1], len(readout_cost)
    owner = np.empty(num_places, np.int64)
    place = np.empty(num_qubits, np.int64)
    for c in range(len(pairs)):
        best = np.inf
        for r in range(len(starts)):
            owner[:] = -1
            for q in range(num_qubits):
                place[q] = starts[r, q]
                owner[place[q]] = q
            _descend(pairs[c], entangler_cost, readout_cost, place, owner)
            total = 0.0
            for q in range(num_qubits):
                total += readout_cost[place[q]]
            for j in range(pairs.shape[1]):
                total += entangler_cost[place[pairs[c, j, 0]], place[pairs[c, j, 1]]]
            if total < best:
                best = total
                places[c] = place


@njit(cache=True)
def _descend(pairs, entangler_cost, readout_cost, place, owner):  # type: ignore[no-untyped-def]
    """Take the best move until none helps: a qubit goes to a free place, or two qubits change places."""
    while True:
        best, moved, target = -1e-12, -1, -1
        for q in range(len(place)):
            for p in range(len(owner)):
                other = owner[p]
                if p == place[q] or 0 <= other < q:
                    continue
                gain = readout_cost[p] - readout_cost[place[q]] if other < 0 else 0.0
                for j in range(len(pairs)):
                    a, b = pairs[j, 0], pairs[j, 1]
                    if a == q or b == q or (other >= 0 and (a == other or b == other)):
                        new_a = p if a == q else place[q] if a == other else place[a]
                        new_b = p if b == q else place[q] if b == other else place[b]
                        gain += entangler_cost[new_a, new_b] - entangler_cost[place[a], place[b]]
                if gain < best:
                    best, moved, target = gain, q, p
        if moved < 0:
            return
        other, left = owner[target], place[moved]
        place[moved], owner[target], owner[left] = target, moved, other
        if other >= 0:
            place[other] = left
