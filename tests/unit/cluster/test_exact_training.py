"""Training that asks for exact means is refused where the circuits that act have none."""

import dataclasses

import pytest

from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.preflight import _check_exact_training
from learner.config import SurrogateConfig
from qpu_service.config import QPUConfig
from qpu_service.places import WorkerPlace

EXACT = RunConfig(surrogate=SurrogateConfig(gradient="exact"))


@pytest.mark.parametrize(
    ("place", "where"),
    [
        (WorkerPlace("ibm", None), "got backend ibm;"),
        (WorkerPlace("ibm", "ibm_fez"), "got backend ibm with device ibm_fez;"),
        (WorkerPlace("aer", "fake_torino"), "got backend aer with device fake_torino;"),
    ],
)
@pytest.mark.parametrize("fields", [{"gradient": "exact"}, {"targets": "bit_means"}, {"tolerance": 0.1}])
def test_devices_and_noise_have_no_exact_means(place, where, fields):
    config = RunConfig(surrogate=SurrogateConfig(**fields))
    expected = rf"only simulators without noise have, {where} set surrogate.gradient=surrogate, targets=bits"
    with pytest.raises(ConfigError, match=expected):
        _check_exact_training(config, [WorkerPlace("statevector", None), place])


def test_the_most_probable_bitstring_is_not_a_mean():
    config = dataclasses.replace(EXACT, qpu=QPUConfig(shots=10, readout="most_probable"))
    with pytest.raises(ConfigError, match=r"the policy sees the most probable bitstring; set qpu.readout to sample or"):
        _check_exact_training(config, [WorkerPlace("statevector", None)])


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (EXACT, WorkerPlace("statevector", None)),
        (EXACT, WorkerPlace("aer", None)),
        (RunConfig(), WorkerPlace("ibm", "ibm_fez")),
        (dataclasses.replace(EXACT, block="linear"), WorkerPlace("ibm", None)),
    ],
)
def test_what_can_be_trained_passes(config, place):
    _check_exact_training(config, [place])
