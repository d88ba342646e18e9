"""Sums that a captured step may add to: they stay where they are, whatever is asked of them."""

import math

import pytest
import torch

from learner.running_means import RunningMeans


def test_means_are_of_the_values_since_the_last_call():
    means = RunningMeans(torch.device("cpu"))
    for value in (1.0, 2.0, 6.0):
        means.add("loss", torch.tensor(value))
    means.add("entropy", torch.tensor(0.5))
    assert means.take() == ({"loss": 3.0, "entropy": 0.5}, [])
    means.add("loss", torch.tensor(4.0))
    assert means.take() == ({"loss": 4.0}, [])
    assert means.take() == ({}, [])


def test_a_sum_stays_the_same_tensor_and_is_not_the_value_it_began_with():
    means = RunningMeans(torch.device("cpu"))
    first = torch.tensor(1.0)
    means.add("loss", first)
    kept = means.sums["loss"]
    for work in (
        lambda: means.add("loss", torch.tensor(2.0)),
        means.take,
        lambda: means.restore({"loss": [5.0, 2]}),
        lambda: means.add("loss", torch.tensor(1.0)),
    ):
        work()
        assert means.sums["loss"] is kept
    assert first == 1.0
    assert means.take()[0] == {"loss": 2.0}


def test_values_that_the_device_adds_are_counted_by_the_host():
    means = RunningMeans(torch.device("cpu"))
    inner = RunningMeans(torch.device("cpu"), means.sums)
    inner.add("loss", torch.tensor(3.0))
    assert means.take() == ({}, []), "nobody counted it here"
    means.sums["loss"].fill_(8.0)
    means.count(["loss"])
    means.count(["loss"])
    assert means.take()[0] == {"loss": 4.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_named_and_gone_afterwards(bad):
    means = RunningMeans(torch.device("cpu"))
    means.add("loss", torch.tensor(bad))
    assert means.take()[1] == [f"loss={bad}"]
    means.add("loss", torch.tensor(1.0))
    assert means.take() == ({"loss": 1.0}, [])


def test_the_state_is_the_sums_and_counts():
    means = RunningMeans(torch.device("cpu"))
    means.add("loss", torch.tensor(1.5))
    means.add("loss", torch.tensor(2.5))
    again = RunningMeans(torch.device("cpu"))
    again.add("other", torch.tensor(9.0))
    again.restore(means.state())
    assert again.take() == ({"loss": 2.0}, [])
