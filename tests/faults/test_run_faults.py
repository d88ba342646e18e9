"""The faults that a whole run is put through, once each; about 3 min."""

import pytest

from benchmarks.faults import run
from benchmarks.faults.bench import fault_names

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = [name for name in fault_names() if name.startswith("run-")]


@pytest.fixture(scope="module")
def results():
    return run(only=NAMES, repeats=1)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_or_doubled_and_the_run_goes_on(results, name):
    result = results[name]
    assert result["acknowledged"] > 10
    assert result["lost"] == result["duplicated"] == 0
    assert result["recovery_p95_s"] < 120
