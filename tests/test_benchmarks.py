"""Each benchmark runs from end to end, on few and small photos; the times it then measures say nothing."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
MACHINE = {"cpu", "cores", "memory_gib", "system", "python", "versions", "date", "load_before"}


def run(name, *arguments, out, path=()):
    """The JSON of a run: what it printed is what it wrote."""
    command = [sys.executable, f"benchmarks/{name}.py", *arguments, "--image-size", "32", "--rounds", "2"]
    paths = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    command += ["--json", "--out", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)  # nothing else stands there
    assert found == json.loads(Path(out).read_text(encoding="utf-8"))
    assert found["benchmark"] == name and found["command"].startswith(f"python benchmarks/{name}.py --")
    assert set(found["machine"]) == MACHINE and "tensorflow" in found["machine"]["versions"]
    for bar in found["bars"]:
        reached = bar["value"] >= bar["at_least"] if bar["at_most"] is None else bar["value"] <= bar["at_most"]
        assert bar["met"] == reached
    return found


@pytest.fixture(scope="module")
def modules_of_benchmarks():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def test_extraction_names_the_peers_that_are_missing_and_all_others_agree(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('No module', name='onnxruntime')")
    out = str(tmp_path / "out.json")
    found = run("extraction", "--sets", "solar_cells", "--photos", "9", "--tune", "2", out=out, path=[tmp_path])
    assert "onnxruntime" in found["missing"]["ONNX Runtime"] and ".[bench]" in found["missing"]["ONNX Runtime"]
    assert ("OpenVINO" in found["missing"]) == (importlib.util.find_spec("openvino") is None)
    (one,) = found["results"]
    assert one["set"] == "solar_cells" and one["photos"] == 9
    everybody = {"tlhelpers", "Keras predict", "ONNX Runtime", "OpenVINO", "LiteRT"}
    assert set(one["contenders"]) | set(found["missing"]) == everybody
    assert not set(one["contenders"]) & set(found["missing"])
    for name, row in one["contenders"].items():
        assert len(row["seconds"]) == len(row["ratio"]["rounds"]) == 2 and row["building_seconds"] > 0
        assert row["difference"] < 1e-3, name
        ratios = [theirs / ours for theirs, ours in zip(row["seconds"], one["contenders"]["tlhelpers"]["seconds"])]
        assert row["ratio"]["rounds"] == ratios and row["ratio"]["median"] == pytest.approx(np.median(ratios))
    assert len(found["bars"]) == 3


def test_feature_extraction_against_the_usual_recipe_and_a_second_call(tmp_path):
    found = run(
        "feature_extraction", "--sets", "solar_cells", "--photos", "24", "--epochs", "2", "--recipes", "lean",
        "--second-photos", "6", out=str(tmp_path / "out.json"),
    )
    (one,) = found["results"]
    assert one["training_photos"] == 18 and one["test_photos"] == 6
    assert set(one["contenders"]) == {"tlhelpers", "lean"}
    for row in one["contenders"].values():
        low, high = row["accuracy_ci"]
        assert 0 <= low <= row["accuracy"] <= high <= 1 and row["accuracy"] == sorted(row["accuracies"])[1]
        assert len(row["runs"]) == len(row["ratio"]["rounds"]) == len(row["ratio_with_building"]["rounds"]) == 2
        assert all(whole > part for whole, part in zip(row["seconds_with_building"], row["seconds"]))
    assert found["second_call"]["photos"] == 6 and len(found["second_call"]["ratio"]["rounds"]) == 2
    assert [bar["at_least"] for bar in found["bars"][::2]] == [15, 50]


def test_cost_in_time_and_memory(tmp_path):
    found = run(
        "cost", "--photos", "4,8", "--image-sizes", "32,48", "--size-photos", "4", "--memory-photos", "20",
        out=str(tmp_path / "out.json"),
    )
    assert [row["photos"] for row in found["number_of_photos"]["rows"]] == [4, 8]
    assert [row["image_size"] for row in found["size_of_photos"]["rows"]] == [32, 48]
    for measured in (found["number_of_photos"], found["size_of_photos"]):
        (x0, y0), (x1, y1) = ((row.get("image_size", row.get("photos")), row["median"]) for row in measured["rows"])
        assert measured["slope"] == pytest.approx(np.log(y1 / y0) / np.log(x1 / x0))
    (row,) = found["memory"]["rows"]
    assert row["photos"] == 20 and row["left_out"] == 0 and row["features_bytes"] == 20 * 1280 * 4
    assert 50 * 2**20 < row["before_extracting_bytes"] <= row["peak_extracting_bytes"] <= row["peak_bytes"] < 4 * 2**30
    assert len(found["bars"]) == 1


def test_an_audit_and_what_it_found(tmp_path):
    found = run("audit", "--photos", "20", out=str(tmp_path / "out.json"))
    assert found["photos"] == {"train": 20, "test": 20} and len(found["seconds"]["audit"]) == 2
    ratios = [ours / theirs for ours, theirs in zip(found["seconds"]["audit"], found["seconds"]["Keras predict"])]
    assert found["passes_of_the_test_photos"]["rounds"] == ratios
    assert found["bars"][0]["at_most"] == 60 and found["bars"][0]["value"] == np.median(found["seconds"]["audit"])


def test_what_is_promised_of_cost(modules_of_benchmarks):
    import cost

    def row(photos, peak, features):
        return {"photos": photos, "peak_bytes": peak, "peak_extracting_bytes": peak, "features_bytes": features}

    rows = [row(500, 105, 5), row(5000, 170, 50), row(50_000, 2**31, 500)]
    growth, one, ten, large = cost.bars_of({"slope": 1.0}, {"rows": rows})
    assert growth["value"] == pytest.approx(10) and growth["met"]
    assert one["value"] == 1.2 and one["met"] and not ten["met"]
    assert large["value"] == 2 and large["met"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is counted from the start of the process")
def test_the_peak_of_memory_is_what_was_held_and_can_be_counted_anew():
    program = """
import mmap
import cost

cost.forget_peak()
before = cost.peak_bytes()
with mmap.mmap(-1, 2**27) as held:  # 128 MiB, given back for certain: an allocator may keep what an array had
    for _ in range(2**15):
        held.write(bytes(2**12))
print(before, cost.peak_bytes())
cost.forget_peak()
print(cost.peak_bytes())
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert not ended.returncode, ended.stderr
    before, peak, anew = map(int, ended.stdout.split())
    assert before + 2**26 < peak < before + 2**28
    assert anew < before + 2**26


def test_reading_ahead_changes_neither_photos_nor_their_order(modules_of_benchmarks, faces):
    import common
    import extraction

    some = faces.subset(slice(7))
    wanted = some.images(32).astype(np.float32)
    assert np.array_equal(np.concatenate(list(common.batches(some, 3, 32)))[:7], wanted)
    for extract in (extraction.all_cores(np.copy, 3, 32), extraction.one_core_each([np.copy, np.copy], 2, 32)):
        assert np.array_equal(extract(some), wanted)


def test_each_round_begins_with_another_contender(modules_of_benchmarks):
    import common

    called = []
    names = ("a", "b", "c")
    seconds, values = common.paired_rounds({name: lambda name=name: called.append(name) or name for name in names}, 4)
    assert "".join(called) == "abcbcacababc"
    assert all(len(seconds[name]) == 4 and values[name] == [name] * 4 for name in names)
    assert common.ratio([6, 2, 9], [2, 2, 1]) == {"median": 3, "min": 1, "max": 9, "rounds": [3, 1, 9]}


def test_photos_made_for_the_cost_are_all_different_and_always_the_same(modules_of_benchmarks, faces, tmp_path):
    import common

    def written(folder):
        common.write_variants(faces.subset(slice(3)), 0, 12, folder)
        return {path.name: path.read_bytes() for path in folder.glob("*/*.jpg")}

    one = written(tmp_path / "one")
    assert len(set(one.values())) == 12 and one == written(tmp_path / "other")


def test_peers_are_nothing_that_the_book_installs():
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not [name for name in ("onnxruntime", "openvino", "tf2onnx") if f"\n{name}==" in pinned]
