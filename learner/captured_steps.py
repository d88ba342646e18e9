"""An update of the learner as one captured graph on a GPU: the host launches it and goes on.

A step of hundreds of small kernels costs the host far more than the GPU; replaying it as a CUDA graph costs one launch.
There is a graph for each kind of update (those that move the policy or not, that measure the surrogate or not), all
over one batch whose addresses stay. The first updates of a kind run as they are: they allocate the optimisers' state
and tell which metrics there are.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.running_means import RunningMeans
from learner.step_kind import StepKind
from learner.td3 import TD3Learner
from learner.tensor_batch import TensorBatch, copy_into

_WARM_UP_STEPS = 3


class Recorder(Protocol):
    """Turns work into something that can be replayed."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work once, as a device wants it before a capture."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Capture the work without doing it; calling the result does it, on the same tensors."""
        ...


class CudaRecorder:
    """CUDA graphs of one memory pool; random numbers go on from replay to replay."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._pool: Any = None  # torch has no public name for its type
        self._stream = torch.cuda.Stream(generator.device)  # type: ignore[no-untyped-call]

    def warm_up(self, work: Callable[[], None]) -> None:
        """See Recorder; a capture needs work that ran on a stream of its own before."""
        current = torch.cuda.current_stream(self._generator.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Recorder."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        # Other threads of the process (Ray's, the replay's) may call CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        self._pool = graph.pool()
        return graph.replay


class CapturedSteps:
    """Stands in for ``TD3Learner.run_step``; its results and metrics are the same.

    Args:
        learner: whose steps are captured; its modules and optimisers must stay the same objects from here on.
        recorder: of the learner's device.
    """

    def __init__(self, learner: TD3Learner, recorder: Recorder) -> None:
        self._learner = learner
        self._recorder = recorder
        self._batch: TensorBatch | None = None
        self._names: dict[StepKind, list[str]] = {}
        self._errors: Tensor | None = None
        self._warm_steps: dict[StepKind, int] = {}
        self._replays: dict[StepKind, Callable[[], None]] = {}

    def __call__(self, batch: TensorBatch, kind: StepKind) -> None:
        """One step on a batch, whose shapes must be those of the first one."""
        if self._batch is None:
            self._batch = TensorBatch(*(column.clone() for column in batch.columns()))
        copy_into(self._batch, batch)
        if kind in self._replays:
            self._replays[kind]()
        elif self._warm_steps.get(kind, 0) < _WARM_UP_STEPS:
            self._warm_steps[kind] = self._warm_steps.get(kind, 0) + 1
            self._recorder.warm_up(lambda: self._work(kind))
        else:
            self._replays[kind] = self._recorder.record(lambda: self._work(kind))
            self._replays[kind]()
        self._learner.errors = self._errors
        self._learner.means.count(self._names[kind])

    def _work(self, kind: StepKind) -> None:
        """What is captured: a step, whose metrics are added to sums that stay; counted they are by the host."""
        if self._batch is None:
            return
        learner = self._learner
        kept, learner.means = learner.means, RunningMeans(learner.device, learner.means.sums)
        try:
            learner.run_step(self._batch, kind)
            self._names[kind] = list(learner.means.counts)
        finally:
            learner.means = kept
        if learner.errors is not None:
            if self._errors is None:
                self._errors = learner.errors.clone()
            else:
                self._errors.copy_(learner.errors)
