"""experiments/scale.py: what is stored comes out again, and the scale between the two is what it says."""

import csv
import itertools

import numpy as np
import pytest

from experiments import scale


def test_stored_lines_come_out_again(monkeypatch):
    with scale.RESULTS.open(encoding="utf-8") as file:
        stored = {(row["dataset"], row["photos"], row["seed"], row["scale"]): row for row in csv.DictReader(file)}
    assert len(stored) == 564 and {row["scale"] for row in stored.values()} == {"each", "one", "between"}
    monkeypatch.setattr(scale, "PHOTOS", (3,))
    again = list(itertools.islice(scale.lines("faces", None), 6))
    assert [row["seed"] for row in again] == [0, 0, 0, 1, 1, 1]
    for row in again:
        there = stored["faces", "3", str(row["seed"]), row["scale"]]
        assert (str(row["n_train"]), str(row["n_judged"])) == (there["n_train"], there["n_judged"])
        assert row["accuracy"] == pytest.approx(float(there["accuracy"]), abs=0.03)
        assert np.log(row["loss"]) == pytest.approx(np.log(float(there["loss"])), abs=0.1)


def test_between_is_each_with_many_photos_and_one_with_few():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 40)) * rng.uniform(0.3, 10, 40)
    each, one = features.std(axis=0), np.sqrt(features.var(axis=0).mean())
    assert np.allclose(scale.between(np.tile(features, (100_000, 1)), 1), each, rtol=0.05)
    assert np.allclose(scale.between(features, 10**6), one, rtol=1e-3)
    assert np.allclose(scale.between(features, 1) ** 2, (6 * each**2 + 8 * one**2) / 14)
