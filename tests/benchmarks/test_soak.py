"""The soak finds growth where there is some, and none where memory only rose at the start."""

import csv


def test_growth_is_that_of_the_later_time(load_benchmark, tmp_path):
    soak = load_benchmark("soak")
    samples = [
        {
            "seconds": 3.0 * index,
            "process 0": 500.0 if index < 20 else 800.0,  # the start: buffers, libraries
            "process 1": 500.0 + index,  # a MB every three seconds
            "workers of 0": 100.0,
            "workers of 1": 100.0,
        }
        for index in range(100)
    ]
    flat, leaking = soak.summarise(samples)
    assert flat == ["process 0", "500 MB", "800 MB", "+0 MB", "800 MB"]
    assert leaking[3] == "+1,200 MB" and leaking[4] == "599 MB"
    soak.write(samples, tmp_path)
    with open(tmp_path / "memory.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 100
    assert (tmp_path / "memory.png").stat().st_size > 5000
