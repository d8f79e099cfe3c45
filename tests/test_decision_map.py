"""experiments/decision_map.py: its table, its draws, its distance, and that a line comes out again."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

import tlhelpers as tl
from experiments import decision_map, solar_cells

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(monkeypatch):
    """Photos of 32 pixels, few steps."""
    monkeypatch.setattr(decision_map, "DATA", {name: (32, views) for name, (_, views) in decision_map.DATA.items()})
    monkeypatch.setattr(decision_map, "SEEN", 20)
    monkeypatch.setattr(decision_map, "EPOCHS", 2)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_cells_are_those_that_the_data_have():
    assert decision_map.cells("faces") == ["2", "5", "all"]
    assert decision_map.cells("solar_cells") == ["2", "5", "10", "25", "50", "100", "all"]
    assert decision_map.cells("textiles") == ["2", "5", "10", "25", "50", "100", "all"]


@pytest.mark.parametrize("name", ["faces", "solar_cells", "textiles"])
def test_no_photo_is_drawn_that_tests_and_no_copy_stands_on_both_sides(name):
    pool, test = decision_map.photos_of(name)
    assert not set(map(str, pool.files)) & set(map(str, test.files))
    assert len(test) <= decision_map.MOST_JUDGED
    if name in decision_map.COPIES:
        groups = tl.duplicate_groups(tl.Dataset(name, pool.files + test.files, [*pool.labels, *test.labels], pool.class_names, pool.card))
        assert len(set(groups)) == len(groups)
    few = decision_map.draw(pool, "5", 1)
    assert np.bincount(few.labels).tolist() == [5] * len(pool.class_names)
    assert set(map(str, few.files)) <= set(map(str, pool.files))
    assert few.files == decision_map.draw(pool, "5", 1).files != decision_map.draw(pool, "5", 2).files


def test_the_same_number_of_photos_is_seen_whatever_their_number_until_epochs_decide():
    assert [decision_map.epochs_of(n, "all_layers") for n in (4, 10, 160, 161, 2000)] == [160, 64, 4, 4, 4]
    assert decision_map.epochs_of(4, "scratch") == 320 and decision_map.epochs_of(2000, "scratch", 8) == 32


def test_seeds_are_five_where_lines_are_cheap_and_three_where_they_are_dear():
    found = {
        (method, photos): len(decision_map.seeds_of(method, photos)) for method in decision_map.METHODS for photos in decision_map.PHOTOS
    }
    assert found.pop(("feature_extraction", "all")) == 1
    assert set(found.values()) == {3, 5}
    assert found["feature_extraction", "2"] == found["last_stage", "100"] == 5 and found["all_layers", "2"] == found["last_stage", "all"] == 3


def test_parts_together_are_the_whole_map_and_no_line_twice(monkeypatch):
    numbers = {name: list(decision_map.PHOTOS) for name in decision_map.DATA}
    monkeypatch.setattr(decision_map, "cells", lambda name, flowers=None: numbers[name])
    lines = [line for part in decision_map.PARTS for line in decision_map.lines_of(part)]
    wanted = {
        (name, method, photos, seed)
        for name in decision_map.DATA for method in decision_map.METHODS for photos in decision_map.PHOTOS
        for seed in decision_map.seeds_of(method, photos)
    }  # fmt: skip
    assert len(lines) == len(set(lines)) and set(lines) == wanted


def test_each_part_takes_less_than_an_hour_of_one_core(monkeypatch):
    """Trainings as they were measured, judging by its estimate."""
    seconds = {
        decision_map.identity(row): float(row["seconds"]) + decision_map.judging_seconds(row["dataset"], row["method"], int(row["n_train"]))
        for row in decision_map.known()
    }
    numbers = {name: [photos for photos in decision_map.PHOTOS if (name, "scratch", photos, 0) in seconds] for name in decision_map.DATA}
    monkeypatch.setattr(decision_map, "cells", lambda name, flowers=None: numbers[name])
    for part in decision_map.PARTS:
        assert 0 < sum(seconds[this] for this in decision_map.lines_of(part)) <= 3600, part


def test_distance_is_zero_for_the_statistics_themselves_and_a_shift_of_one_deviation_is_one(small):
    """One BatchNorm layer; the expected value from its definition, on numbers."""
    import keras

    inputs = keras.Input((8, 8, 3))
    norm = keras.layers.BatchNormalization(epsilon=0)
    model = keras.Model(inputs, norm(inputs))
    photos = tl.load_dataset("faces").subset(range(12))
    values = photos.images(8).astype(np.float64)
    mean, deviation = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    for shift, times, expected in ((0, 1, 0), (1, 1, 1), (0, 2, 0.5), (3, 1, 3)):
        norm.moving_mean.assign(mean + shift * times * deviation)
        norm.moving_variance.assign((times * deviation) ** 2)
        assert decision_map.distance(model, photos) == pytest.approx((expected, expected), abs=2e-3)


def test_the_interval_adds_what_draws_and_what_test_photos_leave_open():
    draws = np.diff(t.interval(0.95, 2, 0.8, 0.1 / 3**0.5))[0] / 2
    assert decision_map.interval([0.7, 0.8, 0.9], 10**9) == pytest.approx(draws, rel=1e-4)
    photos = 1.96 * (322 / 404 * (1 - 322 / 404) / 404) ** 0.5
    assert decision_map.interval([0.8], 400) == pytest.approx(photos)
    assert decision_map.interval([0.8] * 3, 400) == pytest.approx(photos)
    assert decision_map.interval([0.7, 0.8, 0.9], 400) == pytest.approx((draws**2 + photos**2) ** 0.5)
    assert 0 < decision_map.interval([1.0, 1.0], 100) < 0.05


def test_choose_takes_the_lowest_mean_loss():
    rows = [
        {"method": method, "learning_rate": f"{rate:g}", "times": "2", "loss": str(loss)}
        for method, rates in decision_map.RATES_TRIED.items() for rate, losses in zip(rates, ((1, 3), (2.5, 1))) for loss in losses
    ]  # fmt: skip
    assert decision_map.chosen(rows) == {method: (rates[1], 2) for method, rates in decision_map.RATES_TRIED.items()}
    rows += [row | {"times": "4", "loss": "1.7"} for row in rows]
    assert decision_map.chosen(rows)["scratch"] == (1e-3, 4)  # the first of two that are level


@pytest.mark.parametrize("method", (*decision_map.METHODS, *decision_map.WHY_METHODS))
def test_a_line_comes_out_again_and_says_what_the_classifier_does(small, method):
    first = decision_map.line("faces", method, "2", 0, limit=40)
    assert list(first) == list(decision_map.COLUMNS)
    if method not in ("scratch", "all_layers", "lp_ft", "all_longer"):  # sums of several threads: not to the last bit
        second = decision_map.line("faces", method, "2", 0, limit=40)
        same = [column for column in decision_map.COLUMNS if column not in ("seconds", "mib")]
        assert {column: first[column] for column in same} == {column: second[column] for column in same}
    assert (first["n_train"], first["n_test"]) == (80, 40) and first["seconds"] > 0 and first["mib"] >= 0
    parameters = {"feature_extraction": 51240, "last_stage": 1068840, "scratch": 3422248, "all_layers": 3422248, "lp_ft": 3422248}
    parameters |= {"feature_views": 51240, "head_gradient": 51240, "all_longer": 3422248}
    assert first["trained_parameters"] == parameters[method]
    assert first["epochs"] == {"all_layers": 2, "lp_ft": 2, "scratch": 4, "last_stage": 8, "head_gradient": 8, "all_longer": 8}.get(method, 0)


def test_what_was_judged_is_accuracy_and_mean_log_loss():
    faces = tl.load_dataset("faces").subset([0, 10, 20])
    chance = np.zeros((3, 40))
    chance[0, faces.labels[0]], chance[1, faces.labels[1]], chance[2, 0], chance[2, faces.labels[2]] = 1, 0.5, 0.75, 0.25
    chance[1, 39] = 0.4
    accuracy, loss, right = decision_map.measures(chance, faces)
    assert decision_map.bits(right, 3).tolist() == [True, True, False]
    assert accuracy == pytest.approx(2 / 3, abs=1e-5) and loss == pytest.approx(np.log(8) / 3, abs=1e-4)


def test_a_curve_has_a_line_for_each_epoch_and_its_clock_does_not_run_backwards(small):
    rows = decision_map.curve("faces", "scratch", "2", 0, limit=20)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert np.all(np.diff([row["seconds"] for row in rows]) > 0) and np.all(np.diff([row["wall"] for row in rows]) > 0)
    assert [row["epoch"] for row in decision_map.curve("faces", "feature_extraction", "2", 0, limit=20)] == [0]


def test_the_cache_folder_is_as_before_after_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    with pytest.raises(ZeroDivisionError), decision_map._Empty():
        assert os.environ["TLHELPERS_CACHE"] != str(tmp_path)
        raise ZeroDivisionError
    assert os.environ["TLHELPERS_CACHE"] == str(tmp_path)


def test_lines_are_kept_in_their_order_and_a_run_goes_on(small, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(decision_map, "RESULTS", tmp_path / "map.csv")
    monkeypatch.setattr(decision_map, "PARTS", {"features": (("faces",), ("feature_extraction",), ("2", "5"))})
    monkeypatch.setattr(decision_map, "seeds_of", lambda method, photos: range({"2": 2, "5": 1}[photos]))
    decision_map.run("features", None, ("faces", "feature_extraction", "5"))
    first = rows_of(tmp_path / "map.csv")
    assert [decision_map.identity(row) for row in first] == [("faces", "feature_extraction", "5", 0)]
    decision_map.run("features", None)
    rows = rows_of(tmp_path / "map.csv")
    assert [(row["photos"], row["seed"]) for row in rows] == [("2", "0"), ("2", "1"), ("5", "0")] and rows[2:] == first
    capsys.readouterr()
    decision_map.run("features", None)  # nothing is left
    assert capsys.readouterr().out == "" and rows_of(tmp_path / "map.csv") == rows
    assert decision_map.again(("faces", "feature_extraction", "5"), None) and "inside" in capsys.readouterr().out
    for row in rows:  # a stored result that is wrong is found
        row["accuracy"] = "0.1"
    decision_map.write(tmp_path / "map.csv", decision_map.COLUMNS, rows)
    assert not decision_map.again(("faces", "feature_extraction", "5"), None) and "OUTSIDE" in capsys.readouterr().out


def test_bad_calls_get_a_sentence():
    def call(*arguments):
        command = [sys.executable, "-m", "experiments.decision_map", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = call("--part", "features", "--cell", "faces/feature_extraction/3")
    assert done.returncode == 2 and "faces/feature_extraction/3 is no cell of part features" in done.stderr
    done = call("--part", "features", "--again", "--flowers", str(ROOT))
    assert done.returncode == 2 and "--again takes --cell" in done.stderr


def test_from_scratch_learns_with_batch_statistics_that_move():
    faces = tl.load_dataset("faces")
    two = faces.subset(np.flatnonzero(np.asarray(faces.labels) < 2))
    two = tl.Dataset("two", two.files, two.labels, faces.class_names[:2], two.card)
    seen = []
    targets = np.eye(2, dtype=np.float32)[two.labels]
    classifier, parameters, loss = solar_cells.from_scratch(
        two, 0, 3, 1e-3, lambda said: None, targets=targets, image_size=32, batch_size=10, variants=(0, 4),
        watch=lambda epoch, classifier: seen.append(epoch),
    )  # fmt: skip
    assert seen == [1, 2, 3] and np.isfinite(loss) and parameters == sum(int(np.prod(w.shape)) for w in classifier.trainable_weights)
    norm = next(layer for layer in classifier.layers if layer.name.endswith("stem_bn") or "bn" in layer.name)
    assert not np.array_equal(norm.moving_mean.numpy(), np.zeros_like(norm.moving_mean.numpy()))


# --- what is stored -------------------------------------------------------------------------------------------------------

stored = pytest.mark.skipif(not decision_map.RESULTS.exists(), reason="no results yet")


@pytest.mark.skipif(not decision_map.WHY.exists(), reason="no results yet")
def test_controls_learned_from_the_draws_of_the_map():
    rows, those = rows_of(decision_map.WHY), {(row["dataset"], row["photos"]): row for row in rows_of(decision_map.RESULTS)}
    assert list(rows[0]) == list(decision_map.COLUMNS) and len({decision_map.identity(row) for row in rows}) == len(rows)
    for row in rows:
        assert row["method"] in decision_map.WHY_METHODS and int(row["seed"]) < 3
        other = those[row["dataset"], row["photos"]]
        assert (row["n_train"], row["n_test"]) == (other["n_train"], other["n_test"])
        right = decision_map.bits(row["right"], int(row["n_test"]))
        assert right.mean() == pytest.approx(float(row["accuracy"]), abs=1e-5)


@stored
def test_stored_lines_are_lines_of_the_map_and_hold_what_they_must():
    rows = rows_of(decision_map.RESULTS)
    assert list(rows[0]) == list(decision_map.COLUMNS)
    assert len({decision_map.identity(row) for row in rows}) == len(rows)
    for row in rows:
        assert row["method"] in decision_map.METHODS and int(row["seed"]) in decision_map.seeds_of(row["method"], row["photos"])
        assert 0 <= float(row["accuracy"]) <= 1 and 0 <= float(row["train_accuracy"]) <= 1 and float(row["seconds"]) > 0
        right = decision_map.bits(row["right"], int(row["n_test"]))
        assert len(right) == int(row["n_test"]) and right.mean() == pytest.approx(float(row["accuracy"]), abs=1e-5)
        assert int(row["epochs"]) == (0 if row["method"] == "feature_extraction" else decision_map.epochs_of(int(row["n_train"]), row["method"]))
    conditions = json.loads(decision_map.RESULTS.with_suffix(".json").read_text(encoding="utf-8"))
    assert (conditions["learning_rates"], conditions["times_as_many"]) == (decision_map.RATES, decision_map.TIMES)
    assert conditions["batch_size"] == decision_map.BATCH


WANTED = len(decision_map.CHOOSE_CELLS) * sum(
    len(rates) * len(decision_map.TIMES_TRIED[method]) for method, rates in decision_map.RATES_TRIED.items()
)


@pytest.mark.skipif(len(decision_map.known(decision_map.TRIED)) < WANTED, reason="part choose has not ended")
def test_learning_rates_and_epochs_are_those_that_choose_found():
    rows = rows_of(decision_map.TRIED)
    assert len(rows) == WANTED
    assert decision_map.chosen(rows) == {method: (rate, decision_map.TIMES[method]) for method, rate in decision_map.RATES.items()}
