"""The benchmark runs and reports what it promises; its figures are not judged here."""

from benchmarks.qpu import run


def test_every_size_has_a_speed_and_a_ratio() -> None:
    report = run(num_threads=1, num_qubits=4, num_layers=3, batches=(1, 8), shots=(1, 5), measure_s=0.01)
    assert [(row["batch"], row["shots"]) for row in report["results"]] == [(1, 1), (8, 1), (1, 5), (8, 5)]
    for row in report["results"]:
        speed = row["circuits_per_s"]
        assert {"statevector", "aer"} <= set(speed)
        assert row["ratio"]["aer"] == speed["statevector"] / speed["aer"]
    assert report["floor"]["sine_cosines"] == 24
    assert 0 < report["floor"]["fraction_of_floor"] < 1
    assert all("not installed" in reason for reason in report["skipped"].values())
