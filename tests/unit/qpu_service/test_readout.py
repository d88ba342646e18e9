"""Shots to one vector, and readout errors taken out of means."""

import numpy as np
import pytest

from qpu_service.backends.fake_device import load_fake_device
from qpu_service.errors import InvalidCircuitError
from qpu_service.readout import ReadoutErrors, correct_bits, mitigate_means, read_errors, reduce_shots
from qpu_service.types import circuit_seeds

SHOTS = np.array([[[0, 1], [1, 1], [0, 0], [1, 1]], [[1, 0], [0, 1], [0, 1], [1, 0]]], np.uint8)


def test_sample_is_the_first_shot() -> None:
    assert reduce_shots(SHOTS, "sample").tolist() == [[0, 1], [1, 0]]


def test_most_probable_is_the_commonest_bitstring_and_the_earliest_of_equals() -> None:
    reduced = reduce_shots(SHOTS, "most_probable")
    assert reduced.tolist() == [[1, 1], [1, 0]]
    assert reduced.dtype == np.uint8


def test_the_most_probable_bitstring_is_not_the_majority_of_each_bit() -> None:
    shots = np.array([[[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]]], np.uint8)
    assert reduce_shots(shots, "most_probable").tolist() == [[1, 1, 1]]
    assert (reduce_shots(shots, "mean") > 0.5).tolist() == [[True, True, False]]


def test_mean_is_of_each_bit() -> None:
    assert reduce_shots(SHOTS, "mean").tolist() == [[0.5, 0.75], [0.5, 0.5]]


@pytest.mark.parametrize("how", ["sample", "most_probable", "mean"])
def test_one_shot_and_no_circuits_are_fine(how: str) -> None:
    assert reduce_shots(SHOTS[:, :1], how).tolist() == [[0, 1], [1, 0]]  # type: ignore[arg-type]
    assert reduce_shots(SHOTS[:0], how).shape == (0, 2)  # type: ignore[arg-type]


def test_no_shots_and_unknown_reductions_are_refused() -> None:
    with pytest.raises(InvalidCircuitError, match=r"at least one shot, got \(2, 0, 2\)"):
        reduce_shots(SHOTS[:, :0], "mean")
    with pytest.raises(InvalidCircuitError, match="got 'majority'"):
        reduce_shots(SHOTS, "majority")  # type: ignore[arg-type]


def test_means_are_what_a_perfect_readout_would_have_shown() -> None:
    errors = ReadoutErrors(np.array([0.02, 0.1, 0.0]), np.array([0.05, 0.2, 0.3]))
    true = np.array([[0.0, 0.5, 1.0], [1.0, 0.25, 0.3]])
    seen = true * (1 - errors.zero_given_one) + (1 - true) * errors.one_given_zero
    assert mitigate_means(seen, errors) == pytest.approx(true)
    assert np.abs(seen - true).max() > 0.02


def test_corrected_means_stay_between_0_and_1() -> None:
    errors = ReadoutErrors(np.array([0.1]), np.array([0.1]))
    assert mitigate_means(np.array([[0.05], [0.99]]), errors).tolist() == [[0.0], [1.0]]


def test_correcting_widens_the_spread_by_the_stated_factor() -> None:
    # 4,000 estimates of 400 shots: the ratio's standard error is about 1.1 %, 6 of them are 7 %.
    rng = np.random.default_rng(0)
    errors = ReadoutErrors(np.array([0.1]), np.array([0.2]))
    seen = rng.binomial(400, 0.5 * 0.8 + 0.5 * 0.1, size=(4000, 1)) / 400
    assert mitigate_means(seen, errors).std() / seen.std() == pytest.approx(1 / 0.7, rel=0.07)


def test_an_uninformative_readout_cannot_be_corrected() -> None:
    with pytest.raises(InvalidCircuitError, match="qubit 1 is wrong as often as right"):
        mitigate_means(np.zeros((1, 2)), ReadoutErrors(np.array([0.0, 0.5]), np.array([0.0, 0.5])))


def test_errors_of_other_qubits_are_refused() -> None:
    with pytest.raises(InvalidCircuitError, match=r"readout errors of shape \(3,\)"):
        mitigate_means(np.zeros((1, 2)), ReadoutErrors(np.zeros(3), np.zeros(3)))


def test_corrected_shots_have_the_corrected_means_and_flip_no_more_than_that() -> None:
    rng = np.random.default_rng(3)
    shots = (rng.random((5, 200, 4)) < rng.random((5, 1, 4))).astype(np.uint8)
    errors = ReadoutErrors(rng.uniform(0, 0.2, (5, 4)), rng.uniform(0, 0.2, (5, 4)))
    seeds = circuit_seeds(1, 5)
    corrected = correct_bits(shots, errors, seeds)
    wanted = mitigate_means(shots.mean(axis=1), errors)
    assert np.abs(corrected.mean(axis=1) - wanted).max() <= 0.5 / 200 + 1e-12
    moved = np.abs(corrected.mean(axis=1) - shots.mean(axis=1))
    assert (corrected != shots).mean(axis=1) == pytest.approx(moved), "a one became a zero while a zero became a one"
    assert moved.max() > 0.05
    assert (corrected == correct_bits(shots, errors, seeds)).all()
    assert (corrected != correct_bits(shots, errors, circuit_seeds(2, 5))).any()
    # Circuits do not depend on those beside them.
    part = ReadoutErrors(errors.one_given_zero[3:], errors.zero_given_one[3:])
    assert (correct_bits(shots[3:], part, seeds[3:]) == corrected[3:]).all()


def test_correcting_takes_every_shot_as_often() -> None:
    # The first of 10 shots is flipped in a tenth of 4,000 circuits: standard error 0.5 %, 6 of them are 3 %.
    shots = np.ones((4_000, 10, 1), np.uint8)
    shots[:, :5] = 0
    errors = ReadoutErrors(np.array([0.0]), np.array([1 / 6]))  # 0.5 was 0.6
    flipped = correct_bits(shots, errors, circuit_seeds(5, 4_000)) != shots
    assert flipped.sum(axis=1).tolist() == [[1]] * 4_000
    assert flipped[:, :5].mean(axis=0)[:, 0] == pytest.approx(np.full(5, 0.2), abs=0.04)
    assert not flipped[:, 5:].any()


def test_a_single_shot_and_no_circuits_are_left_as_they_are() -> None:
    errors = ReadoutErrors(np.full(2, 0.1), np.full(2, 0.1))
    assert correct_bits(SHOTS[:, :1], errors, circuit_seeds(0, 2)).tolist() == SHOTS[:, :1].tolist()
    assert correct_bits(SHOTS[:0], errors, circuit_seeds(0, 0)).shape == (0, 4, 2)


def test_errors_are_read_from_the_device_in_the_circuits_order() -> None:
    target = load_fake_device("fake_manila").target
    errors = read_errors(target, np.array([3, 0]))
    assert errors.one_given_zero.tolist() == [target["measure"][(3,)].error, target["measure"][(0,)].error]
    assert (errors.one_given_zero > 0).all()


def test_circuits_on_different_qubits_have_their_own_errors() -> None:
    target = load_fake_device("fake_manila").target
    errors = read_errors(target, np.array([[0, 1], [2, 3], [1, 0]]))
    assert errors.zero_given_one.shape == (3, 2)
    assert errors.zero_given_one[2].tolist() == errors.zero_given_one[0, ::-1].tolist()
    means = np.full((3, 2), 0.5)
    assert mitigate_means(means, errors) == pytest.approx(means)  # symmetric errors leave a fair coin fair
    assert mitigate_means(means + 0.1, errors)[0] != pytest.approx(mitigate_means(means + 0.1, errors)[1], abs=1e-4)
