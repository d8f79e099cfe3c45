"""1,000 hostile files never end a run: each is used right or named in the report, and memory stays under 2 GiB."""

import json
import os
import pickle
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hostile import CLASSES, JUNK, make_hostile_folder, without_libtiff

from tlhelpers.images import shown

# A reader's session, in a process of its own: its standard error and its memory are its own.
SESSION = """
import os, pickle, resource, sys
from pathlib import Path
import numpy as np
import tlhelpers as tl

def peak():  # of this program; ru_maxrss would know of the larger one that started it
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

folder, answer = sys.argv[1:]
ours = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as it starts, TensorFlow says there what it finds
backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
os.dup2(ours, 2)
dataset = tl.load_dataset(folder)
peaks = {"load_dataset": peak()}
photos = {}
for row, path in enumerate(dataset.files):
    photo = dataset.image(row)
    step = 1 + photo.size // 1_000_000  # of a large one some pixels will do
    photos[path] = photo.shape, photo.dtype, photo[::step, ::step].copy()
del photo
peaks["image"] = peak()
features = tl.extract_features(dataset, backbone)
peaks["extract_features"] = peak()
print(repr(dataset))
for path, reason in dataset.left_out:
    print(tl.images.shown(path), "|", reason)
with open(answer, "wb") as file:
    pickle.dump({"photos": photos, "left_out": dataset.left_out, "labels": dataset.labels, "peaks": peaks,
                 "class_names": dataset.class_names, "features": features}, file)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return make_hostile_folder(tmp_path_factory.mktemp("hostile") / "photos", n=1000)


@pytest.fixture(scope="module")
def session(records, tmp_path_factory):
    folder = next(path for path in records[0].path.parents if path.name == "photos")
    answer = tmp_path_factory.mktemp("answer") / "answer"
    run = subprocess.run(
        [sys.executable, "-c", SESSION, folder, answer], capture_output=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=600,  # a guard against waiting for ever
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    answers = pickle.loads(answer.read_bytes())
    return SimpleNamespace(printed=run.stdout, complaints=run.stderr, folder=folder, **answers)


def listed(rows):
    """Texts one below the other, for a message."""
    return "\n" + "\n".join(rows)


def test_the_generator_gives_the_same_for_the_same_seed(tmp_path):
    seeds = {"a": 0, "b": 0, "c": 1}
    ours, same, other = (make_hostile_folder(tmp_path / name, 30, seed) for name, seed in seeds.items())
    contents = [[record.path.read_bytes() for record in records] for records in (ours, same, other)]
    assert contents[0] == contents[1] != contents[2]


def test_there_are_good_and_bad_files_in_each_class(records):
    for name in CLASSES:
        verdicts = [record.verdict for record in records if name in record.path.parts]
        assert min(verdicts.count(verdict) for verdict in ("good", "bad", "either")) >= 60


def test_nothing_is_said_on_standard_error(session):
    assert without_libtiff(session.complaints.decode()) == ""


def test_every_file_is_used_or_named_and_nothing_else_is(records, session):
    named = [path for path, _ in session.left_out]
    ours = {record.path for record in records}
    assert len(ours) == len(records) == 1000
    assert len(set(named)) == len(named) and not set(named) & set(session.photos)
    missing = ours - set(named) - set(session.photos)
    # A file below a hidden folder is named by the folder.
    assert not {path for path in missing if not any(parent in named for parent in path.parents)}
    more = {path.relative_to(session.folder).as_posix() for path in {*named, *session.photos} - ours}
    assert {path for path in more if not path.endswith("/.hidden")} == {"fourth"}  # a class without a photo
    assert not [path for path in more if Path(path).name in JUNK]


def test_good_photos_are_used_and_bad_files_are_named(records, session):
    reasons = dict(session.left_out)
    good = [record.path for record in records if record.verdict == "good" and record.path not in session.photos]
    good = [f"{shown(path)}: {reasons.get(path)}" for path in good]
    bad = [shown(record.path) for record in records if record.verdict == "bad" and record.path in session.photos]
    assert not good, "good photos are not used:" + listed(good)
    assert not bad, "bad files are used:" + listed(bad)


def test_every_used_photo_has_its_pixels(records, session):
    faults = []
    for record in records:
        if record.path not in session.photos:
            continue
        shape, dtype, pixels = session.photos[record.path]
        assert dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
        if record.expected is None:
            continue
        step = 1 + np.size(record.expected) // 1_000_000
        if shape != record.expected.shape:
            faults.append(f"{shown(record.path)}: shape {shape}, expected {record.expected.shape}")
        elif (off := np.abs(pixels - record.expected[::step, ::step].astype(float)).max()) > record.tolerance + 0.5:
            faults.append(f"{shown(record.path)}: {off:.0f} levels off, expected up to {record.tolerance}")
    assert not faults, listed(faults)


def test_every_reason_is_one_line_that_can_be_printed(session):
    for path, reason in session.left_out:
        assert reason and reason.isprintable() and len(reason) < 500, (path, reason)
        reason.encode("utf-8")
    assert b"left out" in session.printed and f"{len(session.left_out)} left out".encode() in session.printed
    assert b"\x1b" not in session.printed and session.printed.count(b"\n") == 1 + len(session.left_out)


def test_labels_are_the_folders_that_the_files_lie_in(session):
    assert session.class_names == tuple(sorted(unicodedata.normalize("NFC", name) for name in CLASSES))
    for path, label in zip(session.photos, session.labels):
        folder = path.relative_to(session.folder).parts[0]
        assert session.class_names[label] == unicodedata.normalize("NFC", folder)


def test_features_of_all_of_them_are_numbers(session):
    assert session.features.shape == (len(session.photos), 1280) and np.isfinite(session.features).all()


def test_memory_stays_under_2_gib(session):
    assert max(session.peaks.values()) < 2 * 2**30, session.peaks


def test_the_command_makes_a_classifier_of_what_can_be_used_and_names_the_rest(records, session, tmp_path):
    out = tmp_path / "model.keras"
    run = subprocess.run(
        [sys.executable, "-m", "tlhelpers.cli", "fit", session.folder, "--out", out, "--json"], capture_output=True,
        timeout=600,  # a guard against waiting for ever
    )
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    result = json.loads(run.stdout)
    assert result["n_train"] + result["n_test"] == len(session.photos)
    assert {row["file"] for row in result["left_out"]} == {shown(path) for path, _ in session.left_out}
    assert all(row["reason"] for row in result["left_out"]) and out.is_file()
