"""Batches and parameters between host and device in one piece each; page-locked memory and events by stand-ins."""

import numpy as np
import pytest
import torch

from learner import tensor_batch
from learner.tensor_batch import TensorBatch, copy_into, host_copies

SHAPES = [(3, 4), (3, 2), (3,), (3,), (3, 4), (3, 0), (3, 0)]  # a block without a circuit has empty columns


class Event:
    """A CUDA event that says what happened to it."""

    def __init__(self):
        self.calls = []

    def synchronize(self):
        self.calls.append("synchronize")

    def record(self):
        self.calls.append("record")


@pytest.fixture
def stage(monkeypatch):
    locked = []
    empty = torch.empty

    def make(size, *, pin_memory):
        locked.append(pin_memory)
        return empty(size)

    monkeypatch.setattr(torch, "empty", make)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    stage = tensor_batch._Stage(SHAPES)
    assert locked == [True]
    return stage


def columns(seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def test_a_batch_travels_in_one_piece_after_the_last_one_has_left(stage):
    for seed in range(2):
        sent = columns(seed)
        batch = stage.send(sent, torch.device("cpu"))
        for ours, theirs in zip(batch.columns(), sent, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs)
    assert len({column.untyped_storage().data_ptr() for column in batch.columns()}) == 1
    assert stage._left.calls == ["synchronize", "record"] * 2


def test_a_batch_is_overwritten_where_it_is():
    target = TensorBatch(*(torch.zeros(shape) for shape in SHAPES))
    addresses = [column.data_ptr() for column in target.columns()]
    sent = columns(0)
    copy_into(target, TensorBatch(*map(torch.from_numpy, sent)))
    assert [column.data_ptr() for column in target.columns()] == addresses
    for ours, theirs in zip(target.columns(), sent, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_copies_on_the_host_keep_names_order_shapes_and_types_and_are_copies():
    tensors = {
        "weight": torch.arange(6.0).reshape(2, 3).t(),
        "count": torch.tensor(7),
        "bias": torch.tensor([1.5]),
        "scale": torch.tensor(2.0, dtype=torch.float64),
    }
    copies = host_copies(tensors)
    assert list(copies) == list(tensors)
    for name, tensor in tensors.items():
        assert copies[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(copies[name], tensor.numpy())
    copies["bias"][0] = 0
    assert tensors["bias"][0] == 1.5
