"""An update of the learner as one captured graph on a GPU: the host launches it and goes on.

A step of hundreds of small kernels costs the host far more than the GPU; replaying it as a CUDA graph costs one launch.
There are two graphs, for updates that move the policy and for those that do not, over one batch whose addresses stay.
The first updates run as they are: they allocate the optimisers' state and tell which metrics there are.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from learner.running_means import RunningMeans
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
        self._values: dict[bool, dict[str, Tensor]] = {True: {}, False: {}}
        self._errors: Tensor | None = None
        self._warm_steps = {True: 0, False: 0}
        self._replays: dict[bool, Callable[[], None]] = {}

    def __call__(self, batch: TensorBatch, moves_policy: bool) -> None:
        """One step on a batch, whose shapes must be those of the first one."""
        if self._batch is None:
            self._batch = TensorBatch(*(column.clone() for column in batch.columns()))
        copy_into(self._batch, batch)
        if moves_policy in self._replays:
            self._replays[moves_policy]()
        elif self._warm_steps[moves_policy] < _WARM_UP_STEPS:
            self._warm_steps[moves_policy] += 1
            self._recorder.warm_up(lambda: self._work(moves_policy))
        else:
            self._replays[moves_policy] = self._recorder.record(lambda: self._work(moves_policy))
            self._replays[moves_policy]()
        self._learner.errors = self._errors
        for name, value in self._values[moves_policy].items():
            # The next replay overwrites it.
            self._learner.means.add(name, value.clone())

    def _work(self, moves_policy: bool) -> None:
        """What is captured: a step, whose metrics go to tensors that stay."""
        if self._batch is None:
            return
        learner, values = self._learner, self._values[moves_policy]
        kept, learner.means = learner.means, RunningMeans(learner.device)
        try:
            learner.run_step(self._batch, moves_policy)
            recorded = learner.means.sums
        finally:
            learner.means = kept
        for name, value in recorded.items():
            if name in values:
                values[name].copy_(value)
            else:
                values[name] = value.clone()
        if learner.errors is not None:
            if self._errors is None:
                self._errors = learner.errors.clone()
            else:
                self._errors.copy_(learner.errors)
