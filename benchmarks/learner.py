"""Claim: one update B1 to B4 runs near the speed of the matrix products it is made of.

Rounds of our learner, of a large matrix product and of other TD3 learners alternate in one run with the same number
of threads, so that a machine whose speed drifts favours none of them. A timed update is a batch drawn from the replay
mirror and one ``TD3Learner.update``; the peers draw from their own buffers. Weights and data are random.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.learner_flops import flops_per_update
from cluster.config import RunConfig
from cluster.presets import get_preset
from learner.acceleration import accelerate
from learner.config import AgentSpec
from learner.td3 import TD3Learner
from replay.mirror import Mirror
from replay.types import Segment, TransitionSpec

_PARTS = {"B1": "_update_surrogate", "B2": "_update_critic", "B3": "_update_policy", "B4": "_update_targets"}
_PRODUCT_SIZE = 2048
_PEERS = Path(__file__).with_name("learner_peers.py")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench learner``; their names are the arguments of ``run``."""
    parser.add_argument("--block", choices=["pqc", "linear"], default="pqc", help="what the policy has inside")
    parser.add_argument("--num-threads", type=int, help="threads of everything measured (default: cores)")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu counts the seconds in which a process ran: for a busy machine, with --num-threads 1",
    )
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds of each; medians are reported")
    parser.add_argument("--round-s", type=float, default=1.0, help="length of a round")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="measure the plain path")
    parser.add_argument("--peer-python", help="Python with stable-baselines3, for ratio_sb3")


def run(
    *,
    block: str = "pqc",
    num_threads: int | None = None,
    rounds: int = 7,
    round_s: float = 1.0,
    peer_python: str | None = None,
    compile: bool = True,
    clock: str = "wall",
) -> dict[str, Any]:
    """Measure the learner of the humanoid preset.

    Args:
        block: ``pqc``, or ``linear`` for a comparison with classical learners.
        num_threads: of our learner, the product and the peers; None takes the cores of this process.
        rounds: alternating rounds.
        round_s: length of a round, seconds.
        peer_python: a Python that has stable-baselines3; None leaves it out.
        compile: the fastest path that this machine has; False measures plain torch.
        clock: ``wall``, or ``cpu`` for the processor time of each process, which other work on the machine disturbs
            less; it needs one thread, because threads that wait for each other use the processor too.

    Returns:
        Rates, counted operations, peak of the machine, their ratio, milliseconds per part (B3 and B4 per update in
        which they happen) and the ratios to the peers, every one a median over the rounds.

    Raises:
        ValueError: if the processor's clock is asked for with several threads.
    """
    threads = num_threads or len(os.sched_getaffinity(0))
    if clock == "cpu" and threads > 1:
        raise ValueError(f"--clock cpu needs --num-threads 1, got {threads} threads")
    now = {"wall": time.monotonic, "cpu": time.process_time}[clock]
    torch.set_num_threads(threads)
    config = get_preset("humanoid")
    spec = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)
    learner = _learner(config, spec, block, compile=compile)
    mirror = filled_mirror(config, spec, block)
    rng = np.random.default_rng(1)
    counted = flops_per_update(
        spec,
        config.policy,
        config.surrogate,
        config.td3,
        critic_width=config.critic.hidden_size,
        block=block,
    )

    def update(count: int) -> None:
        for _ in range(count):
            learner.update(mirror.sample(config.td3.batch_size, rng))

    with ExitStack() as stack:
        peers = {"cleanrl": _Peer(stack, [sys.executable, "cleanrl"], spec, config.td3.batch_size, threads, clock)}
        if peer_python is not None:
            peers["sb3"] = _Peer(stack, [peer_python, "sb3"], spec, config.td3.batch_size, threads, clock)
        update(20)
        tasks: dict[str, Callable[[int], float]] = {
            "updates": lambda count: _seconds(update, count, now),
            "peak": lambda count: _product_seconds(count, now),
            **{name: peer.seconds for name, peer in peers.items()},
        }
        counts = {name: max(2, int(round_s / (task(4) / 4))) for name, task in tasks.items()}
        rates: dict[str, list[float]] = {name: [] for name in tasks}
        for _ in range(rounds):
            for name, task in tasks.items():
                rates[name].append(counts[name] / task(counts[name]))
    peak = [rate * 2 * _PRODUCT_SIZE**3 for rate in rates["peak"]]
    return {
        "preset": "humanoid",
        "block": block,
        "compile": compile,
        "num_threads": threads,
        "clock": clock,
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "rounds": rounds,
        "updates_per_s": statistics.median(rates["updates"]),
        "flops_per_update": counted["total"],
        "flops_per_part": {name: value for name, value in counted.items() if name != "total"},
        "peak_flops_per_s": statistics.median(peak),
        "utilisation": statistics.median(
            rate * counted["total"] / best for rate, best in zip(rates["updates"], peak, strict=True)
        ),
        "part_ms": _part_ms(learner, mirror, rng, config.td3.batch_size, max(20, counts["updates"]), now),
        **{f"{name}_updates_per_s": statistics.median(rates[name]) for name in peers},
        **{
            f"ratio_{name}": statistics.median(
                ours / theirs for ours, theirs in zip(rates["updates"], rates[name], strict=True)
            )
            for name in peers
        },
    }


class _Peer:
    """A process of benchmarks/learner_peers.py."""

    def __init__(
        self, stack: ExitStack, run: list[str], spec: AgentSpec, batch_size: int, threads: int, clock: str
    ) -> None:
        python, name = run
        self._clock = clock
        command = [python, str(_PEERS), name, "--threads", str(threads), "--batch-size", str(batch_size)]
        command += ["--observation-size", str(spec.observation_size), "--action-size", str(spec.action_size)]
        self._command = shlex.join(command)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.enter_context(self._process)
        self._answer()

    def seconds(self, count: int) -> float:
        """Time of ``count`` updates."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        return float(self._answer()[self._clock])

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"{self._command} ended without an answer; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _learner(config: RunConfig, spec: AgentSpec, block: Any, *, compile: bool) -> TD3Learner:
    learner = TD3Learner(
        spec,
        block=block,
        policy_config=config.policy,
        surrogate_config=config.surrogate,
        config=config.td3,
        seed=0,
    )
    if compile:
        accelerate(learner)
    return learner


def filled_mirror(config: RunConfig, spec: AgentSpec, block: str, *, segments: int = 200, steps: int = 100) -> Mirror:
    """A mirror of random transitions of a preset's sizes; without circuit columns for a classical block."""
    circuit = config.policy.circuit
    parameters, num_bits = (circuit.num_parameters, circuit.num_qubits) if block == "pqc" else (0, 0)
    rng = np.random.default_rng(0)
    mirror = Mirror(
        TransitionSpec(
            observation_size=spec.observation_size,
            action_size=spec.action_size,
            circuit_parameters_size=parameters,
            num_bits=num_bits,
        ),
        segments * steps,
    )
    for sequence in range(segments):
        circuit_parameters = rng.standard_normal((steps, parameters), np.float32)
        mirror.append(
            Segment(
                actor_id=0,
                incarnation=0,
                sequence=sequence,
                observations=rng.standard_normal((steps + 1, spec.observation_size), np.float32),
                actions=rng.uniform(spec.action_low, spec.action_high, (steps, spec.action_size)).astype(np.float32),
                rewards=rng.standard_normal(steps, np.float32),
                discounts=np.ones(steps, np.float32),
                circuit_parameters=circuit_parameters,
                bits=(circuit_parameters[:, :num_bits] > 0).astype(np.uint8),
                policy_versions=np.zeros(steps, np.uint32),
            )
        )
    return mirror


def _part_ms(
    learner: TD3Learner,
    mirror: Mirror,
    rng: np.random.Generator,
    batch_size: int,
    count: int,
    now: Callable[[], float],
) -> dict[str, float]:
    """Median milliseconds of each part where it happens, and of drawing the batch."""
    times: dict[str, list[float]] = {name: [] for name in ("sample", *_PARTS)}
    originals = {name: getattr(learner, method) for name, method in _PARTS.items()}

    def timed(name: str) -> Callable[..., None]:
        def work(*arguments: Any) -> None:
            started_s = now()
            originals[name](*arguments)
            times[name].append(now() - started_s)

        return work

    for name, method in _PARTS.items():
        setattr(learner, method, timed(name))
    for _ in range(count):
        started_s = now()
        batch = mirror.sample(batch_size, rng)
        times["sample"].append(now() - started_s)
        learner.update(batch)
    for name, method in _PARTS.items():
        setattr(learner, method, originals[name])
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def _product_seconds(count: int, now: Callable[[], float]) -> float:
    # Random numbers: a processor multiplies constants at a clock that no learner gets (5 % above, on an EPYC).
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(_PRODUCT_SIZE, _PRODUCT_SIZE, generator=generator) for _ in range(2))
    out = torch.empty_like(left)
    torch.mm(left, right, out=out)
    return _seconds(lambda number: [torch.mm(left, right, out=out) for _ in range(number)], count, now)


def _seconds(work: Callable[[int], Any], count: int, now: Callable[[], float]) -> float:
    started_s = now()
    work(count)
    return now() - started_s
