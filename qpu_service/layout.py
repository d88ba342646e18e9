"""Which qubits of a device hold the circuits: a connected region whose reported errors are small.

The circuits entangle any two qubits, so a region is judged by what a CZ between two random members costs along the
cheapest path inside it, and by its readout, not by its best edge. Must never import Qiskit: a target is only read.

Axis legend: K places of the region.
"""

import math
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64

from qpu_service.errors import BackendUnavailableError

_UNKNOWN_ERROR = 0.01
"""Assumed for a gate whose error the device does not report."""


@dataclass(frozen=True, slots=True)
class Region:
    """A connected set of physical qubits; its places are numbered from 0."""

    qubits: tuple[int, ...]
    """Physical qubit at each place."""
    paths: dict[tuple[int, int], tuple[int, ...]]
    """Physical qubits from place a to b for every a < b, ends included; neighbours are coupled."""
    entangler_cost: Float64[np.ndarray, "K K"]
    """−log fidelity of a CZ between two places; 0 on the diagonal."""
    readout_cost: Float64[np.ndarray, "K"]
    """−log fidelity of a measurement at each place."""


def path_cost(edge_costs: list[float]) -> float:
    """−log fidelity of one CZ between the ends of a path: one gate if they are coupled, else 4·(d - 1) for d edges."""
    length = len(edge_costs)
    return edge_costs[0] if length == 1 else 4 * (length - 1) / length * sum(edge_costs)


def choose_region(target: Any, num_qubits: int, spare: int = 0) -> Region:
    """Choose the region with the smallest expected error of a circuit with one CZ and one readout per qubit.

    Regions are grown from every qubit of the device by the neighbour that adds least, then compared.

    Args:
        target: Qiskit's Target of the device.
        num_qubits: qubits of a circuit.
        spare: places beyond that, as far as the device has them.

    Raises:
        BackendUnavailableError: if the device has not so many working qubits that are connected.
    """
    readout = _readout_costs(target)
    edges = _edge_costs(target)
    for size in range(num_qubits + spare, num_qubits - 1, -1):
        grown = [_grow(start, readout, edges, size) for start in sorted(readout)]
        regions = [region for region in grown if region is not None]
        if regions:
            return _describe(min(regions, key=lambda region: _score(region, readout, edges)), readout, edges)
    raise BackendUnavailableError(
        f"the device has {target.num_qubits} qubits and no connected region of {num_qubits} working ones; "
        "choose a larger device or smaller circuits"
    )


def _grow(start: int, readout: dict[int, float], edges: dict[int, dict[int, float]], size: int) -> list[int] | None:
    region = [start]
    distance: dict[int, dict[int, float]] = {start: {start: 0.0}}
    while len(region) < size:
        border = sorted({q for member in region for q in edges.get(member, {}) if q in readout and q not in distance})
        if not border:
            return None
        added = {q: _distances(distance, edges[q]) for q in border}
        chosen = min(border, key=lambda q: readout[q] + 4 * sum(added[q].values()) / len(region))
        for member, length in added[chosen].items():
            distance[member][chosen] = length
        distance[chosen] = {**added[chosen], chosen: 0.0}
        region.append(chosen)
    return region


def _distances(distance: dict[int, dict[int, float]], neighbours: dict[int, float]) -> dict[int, float]:
    inside = [(cost, distance[q]) for q, cost in neighbours.items() if q in distance]
    return {member: min(cost + known[member] for cost, known in inside) for member in distance}


def _describe(region: list[int], readout: dict[int, float], edges: dict[int, dict[int, float]]) -> Region:
    paths = _paths(region, edges)
    costs = np.zeros((len(region), len(region)))
    for (a, b), path in paths.items():
        costs[a, b] = costs[b, a] = path_cost([edges[x][y] for x, y in pairwise(path)])
    return Region(
        qubits=tuple(region),
        paths=paths,
        entangler_cost=costs,
        readout_cost=np.array([readout[qubit] for qubit in region]),
    )


def _score(region: list[int], readout: dict[int, float], edges: dict[int, dict[int, float]]) -> float:
    paths = _paths(region, edges)
    costs = [path_cost([edges[a][b] for a, b in pairwise(path)]) for path in paths.values()]
    return len(region) * (sum(costs) / len(costs) if costs else 0.0) + sum(readout[q] for q in region)


def _paths(region: list[int], edges: dict[int, dict[int, float]]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Cheapest paths inside the region (Floyd and Warshall)."""
    infinite = math.inf
    best = {(a, b): edges.get(a, {}).get(b, infinite) for a in region for b in region if a != b}
    first_step = {(a, b): b for (a, b), cost in best.items() if cost < infinite}
    for via in region:
        for a in region:
            for b in region:
                if len({a, b, via}) == 3 and best[a, via] + best[via, b] < best[a, b]:
                    best[a, b] = best[a, via] + best[via, b]
                    first_step[a, b] = first_step[a, via]
    paths = {}
    for p, k in combinations(range(len(region)), 2):
        path = [region[p]]
        while path[-1] != region[k]:
            path.append(first_step[path[-1], region[k]])
        paths[p, k] = tuple(path)
    return paths


def _edge_costs(target: Any) -> dict[int, dict[int, float]]:
    """−log(1 - error) of the best two-qubit gate on each coupled pair, both directions; broken gates are left out."""
    costs: dict[int, dict[int, float]] = {}
    for name in target.operation_names:
        for qubits, reported in (target[name] or {}).items():
            if qubits is None or len(qubits) != 2:
                continue
            cost = _cost(reported)
            for a, b in (qubits, qubits[::-1]):
                costs.setdefault(a, {})[b] = min(cost, costs.get(a, {}).get(b, math.inf))
    return {a: {b: cost for b, cost in row.items() if cost < math.inf} for a, row in costs.items()}


def _readout_costs(target: Any) -> dict[int, float]:
    """−log(1 - error) of each qubit's measurement; qubits whose gates or measurement do not work are left out."""
    costs = {qubits[0]: _cost(reported) for qubits, reported in target["measure"].items()}
    for name in ("sx", "rx"):
        if name in target.operation_names:
            for qubits, reported in target[name].items():
                if _cost(reported) == math.inf:
                    costs.pop(qubits[0], None)
    return {qubit: cost for qubit, cost in costs.items() if cost < math.inf}


def _cost(reported: Any | None) -> float:
    error = None if reported is None else reported.error
    if error is None:
        error = _UNKNOWN_ERROR
    # A readout that is right half the time says nothing; a gate that fails half the time is out of calibration.
    return math.inf if error >= 0.5 else -math.log1p(-error)
