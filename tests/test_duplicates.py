"""duplicates.py: copies are found whatever was done to them, and photos that are merely alike are not."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

import tlhelpers as tl
from tlhelpers.datasets import Card
from tlhelpers.duplicates import Duplicate, duplicate_groups, find_duplicates

COLOUR = ("astronaut", "chelsea", "coffee", "rocket")
CARD = Card("photos of a test", "made here", "none", "none", {"one": "a class"})


def dataset_of(files, labels=None, **metadata):
    labels = np.zeros(len(files), np.int64) if labels is None else np.asarray(labels)
    names = tuple(f"class {label}" for label in range(max(labels, default=0) + 1))
    return tl.Dataset("copies", tuple(files), labels, names, CARD, metadata)


def pairs_of(*datasets):
    return [(pair.row, pair.other_row) for pair in find_duplicates(*datasets)]


def saved(folder, image, name, **how):
    folder.mkdir(exist_ok=True)
    image.save(folder / name, **how)
    return folder / name


@pytest.fixture(scope="module")
def photos(solar, faces, textiles):
    """Nine photos of all kinds, large and small, in colour and grey."""
    images = [tl.load_photo(name) for name in COLOUR]
    images += [faces.image(row) for row in (0, 100, 200)] + [solar.image(1000), textiles.image(0)]
    return [Image.fromarray(image) for image in images]


@pytest.fixture(scope="module")
def originals(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return dataset_of([saved(folder, photo, f"{row}.png") for row, photo in enumerate(photos)])


# --- what is alike and no copy ------------------------------------------------------------------------------------


def test_of_the_faces_seven_pairs_are_one_photo_in_two_frames(faces):
    """Looked at: the same photo, cut out anew. All other pairs, of one person or of two, are photos of their own."""
    names = [f"{file.parent.name}/{file.stem}" for file in faces.files]
    pairs = find_duplicates(faces)
    assert {(names[pair.row], names[pair.other_row]) for pair in pairs} == {
        ("s16/3", "s16/10"), ("s17/1", "s17/5"), ("s17/2", "s17/5"), ("s19/3", "s19/10"), ("s24/9", "s24/10"),
        ("s27/3", "s27/10"), ("s27/4", "s27/8"),
    }
    assert all(pair.kind == "near" and 0 < pair.difference < 0.001 and pair.row < pair.other_row for pair in pairs)


def test_no_solar_cell_is_a_copy_of_another_however_much_alike(solar):
    # 1190 to 1340: monocrystalline cells, neighbours in one module; 2350 to 2375: wafers cut from one block of silicon
    rows = np.r_[0:80, 1190:1340, 1500:1600, 1975:2035, 2350:2375]
    assert find_duplicates(solar.subset(rows)) == []


def test_no_fabric_is_a_copy_of_another(textiles):
    assert find_duplicates(textiles.sample(per_class=130, seed=0)) == []


@pytest.mark.filterwarnings("error")
def test_frames_that_show_nothing_are_no_copies(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (4, 200, 200, 3)).astype(np.uint8)
    frames = [*noise, np.zeros((200, 200, 3), np.uint8), np.full((200, 200, 3), 90, np.uint8)]
    files = [saved(tmp_path, Image.fromarray(frame), f"{row}.png") for row, frame in enumerate(frames)]
    assert find_duplicates(dataset_of(files)) == []


# --- copies -------------------------------------------------------------------------------------------------------


def resized(factor):
    return lambda photo: photo.resize([max(1, round(side * factor)) for side in photo.size])


def cropped(left, top, right, bottom):
    def crop(photo):
        width, height = photo.size
        return photo.crop((left * width, top * height, width * (1 - right), height * (1 - bottom)))

    return crop


def mapped(curve):
    return lambda photo: photo.point([round(255 * min(max(curve(value / 255), 0), 1)) for value in range(256)] * 3)


def with_logo(photo):
    photo = photo.copy()
    width, height = photo.size
    ImageDraw.Draw(photo).rectangle((0.83 * width, 0.03 * height, 0.97 * width, 0.12 * height), fill=(220, 30, 30))
    return photo


def with_date(photo):
    photo = photo.copy()
    width, height = photo.size
    ImageDraw.Draw(photo).text((0.55 * width, 0.9 * height), "2024-05-17", fill=(255, 160, 0), font_size=height // 16)
    return photo


def unchanged(photo):
    return photo


CHANGES = {
    "JPEG 95": (unchanged, "jpg", {"quality": 95}),
    "JPEG 40": (unchanged, "jpg", {"quality": 40}),
    "WebP": (unchanged, "webp", {"quality": 60}),
    "a quarter of the size": (resized(0.25), "png", {}),
    "twice the size": (resized(2), "jpg", {"quality": 85}),
    "squeezed into a square": (lambda photo: photo.resize((160, 160)), "png", {}),
    "darker": (mapped(lambda value: 0.85 * value), "png", {}),
    "less contrast": (mapped(lambda value: 0.5 + 0.8 * (value - 0.5)), "png", {}),
    "gamma": (mapped(lambda value: value**0.8), "jpg", {"quality": 90}),
    "grey": (lambda photo: photo.convert("L"), "png", {}),
    "date": (with_date, "png", {}),
    "half the size, as JPEG": (resized(0.5), "jpg", {}),
    **{turn.name: (lambda photo, turn=turn: photo.transpose(turn), "jpg", {}) for turn in Image.Transpose},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(tmp_path, photos, originals, change):
    do, suffix, how = CHANGES[change]
    copies = dataset_of([saved(tmp_path, do(photo), f"{row}.{suffix}", **how) for row, photo in enumerate(photos)])
    pairs = find_duplicates(originals, copies)
    assert [(pair.row, pair.other_row) for pair in pairs] == [(row, row) for row in range(len(photos))]
    # A grey photo made grey has the pixels that it had.
    kinds = {pair.row: pair.kind for pair in pairs}
    exact = {row for row in kinds if change == "grey" and row >= len(COLOUR)}
    assert {row for row in kinds if kinds[row] == "exact"} == exact


@pytest.mark.parametrize("crop", [(0.03,) * 4, (0.05,) * 4, (0.05, 0.02, 0.01, 0.04), (0.05, 0, 0, 0)])
def test_a_cropped_copy_is_found_both_ways(tmp_path, photos, originals, crop):
    """Of colour photos. A solar cell or a fabric that is cropped may be missed: its lines fit others as well."""
    files = [saved(tmp_path, cropped(*crop)(photo), f"{row}.jpg") for row, photo in enumerate(photos[: len(COLOUR)])]
    copies = dataset_of(files)
    expected = [(row, row) for row in range(len(files))]
    assert pairs_of(originals, copies) == expected
    assert pairs_of(copies, originals) == expected


def test_a_copy_under_a_logo_is_found(tmp_path, photos, originals):
    chosen = [row for row in range(len(photos)) if row != 7]  # the logo hides a solar cell from the hash
    copies = dataset_of([saved(tmp_path, with_logo(photos[row]), f"{row}.jpg") for row in chosen])
    assert pairs_of(originals, copies) == [(row, place) for place, row in enumerate(chosen)]


def test_the_same_pixels_in_another_file_are_exact(tmp_path, photos, originals):
    photos[0].save(tmp_path / "again.png", compress_level=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    photos[1].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    copies = dataset_of([tmp_path / "again.png", tmp_path / "turned.png", originals.files[2]])
    assert find_duplicates(originals, copies) == [Duplicate(row, row, "exact", 0.0) for row in range(3)]


def test_of_frames_that_show_nothing_those_of_equal_pixels_are_exact(tmp_path):
    frames = [Image.new("RGB", (60, 40)), Image.new("RGB", (40, 60)), Image.new("RGB", (60, 40), (1, 1, 1))]
    files = [saved(tmp_path, frame, f"{row}.png") for row, frame in enumerate(frames)]
    files.append(saved(tmp_path, frames[0], "other bytes.png", compress_level=0))
    assert files[0].read_bytes() != files[3].read_bytes()
    assert find_duplicates(dataset_of(files)) == [Duplicate(0, 3, "exact", 0.0)]


def test_a_large_jpeg_and_its_pixels_as_png_are_copies_though_the_jpeg_is_decoded_small(tmp_path, photos):
    first = saved(tmp_path, photos[0].resize((1400, 1000)), "large.jpg", quality=90)
    second = saved(tmp_path, Image.fromarray(tl.read_image(first)), "same.png")
    third = saved(tmp_path, photos[0].resize((1400, 1000)), "other.jpg", quality=60)
    assert [(pair.row, pair.other_row, pair.kind) for pair in find_duplicates(dataset_of([first, second, third]))] == [
        (0, 1, "near"), (0, 2, "near"), (1, 2, "near"),
    ]


def test_a_thousand_equal_files_are_read_once_and_paired_with_the_first(tmp_path, photos):
    black = saved(tmp_path, Image.new("RGB", (64, 48)), "black.png")
    data = black.read_bytes()
    files = [black]
    for row in range(1, 1000):
        files.append(tmp_path / f"black {row}.png")
        files[-1].write_bytes(data)
    files.insert(500, saved(tmp_path, photos[0], "photo.png"))
    dataset = dataset_of(files)
    assert pairs_of(dataset) == [(0, row) for row in range(1, 1001) if row != 500]
    assert duplicate_groups(dataset).tolist() == [int(row == 500) for row in range(1001)]
    # All of them in a test set have their copy among the training photos, whichever that is.
    assert pairs_of(dataset_of(files[:3]), dataset) == [(0, row) for row in range(1001) if row != 500]


def test_what_the_data_set_knows_of_its_bytes_is_believed(tmp_path, photos):
    files = [saved(tmp_path, photo, f"{row}.png") for row, photo in enumerate(photos[:3])]
    assert pairs_of(dataset_of(files, sha256=np.array(["aa", "bb", "aa"]))) == [(0, 2)]
    assert pairs_of(dataset_of(files, sha256=np.array(["", "", ""]))) == []


# --- edges --------------------------------------------------------------------------------------------------------


def test_none_or_one_photo_has_no_copies(originals):
    none, one = originals.subset([]), originals.subset([0])
    for pair in ([none], [one], [none, none], [none, one], [one, none]):
        assert find_duplicates(*pair) == []
    assert duplicate_groups(none).shape == (0,) and duplicate_groups(none).dtype == np.int64
    assert duplicate_groups(one).tolist() == [0]
    assert find_duplicates(one, one) == [Duplicate(0, 0, "exact", 0.0)]


def test_a_photo_that_cannot_be_read_is_skipped(tmp_path, originals):
    (tmp_path / "cut.png").write_bytes(originals.files[0].read_bytes()[:5000])
    (tmp_path / "text.jpg").write_text("no photo")
    broken = [tmp_path / "cut.png", tmp_path / "text.jpg", tmp_path / "gone.png"]
    dataset = dataset_of([broken[0], originals.files[0], broken[1], originals.files[0], broken[2]])
    assert pairs_of(dataset) == [(1, 3)]
    assert duplicate_groups(dataset).tolist() == [0, 1, 2, 1, 3]


def test_copies_of_copies_are_one_group(tmp_path, photos):
    """Cropped once more and once more, a photo is too far from the first, but not from the one between."""
    files = [saved(tmp_path, cropped(*(cut,) * 4)(photos[0]), f"{cut}.jpg") for cut in (0, 0.1, 0.05)]
    files.insert(1, saved(tmp_path, photos[1], "other.png"))
    dataset = dataset_of(files)
    assert pairs_of(dataset) == [(0, 3), (2, 3)]
    assert duplicate_groups(dataset).tolist() == [0, 1, 0, 0]


def test_groups_keep_copies_on_one_side_of_a_split(tmp_path, faces):
    chosen = faces.subset(slice(0, 40))  # four people, of whom no photo is there twice
    files, labels = [], []
    for row in range(len(chosen)):
        photo = Image.fromarray(chosen.image(row))
        files += [chosen.files[row], saved(tmp_path, photo.resize((150, 180)), f"{row}.jpg")]
        labels += [chosen.labels[row]] * 2
    dataset = dataset_of(files, labels)
    groups = duplicate_groups(dataset)
    assert (groups[::2] == groups[1::2]).all() and len(set(groups)) == len(chosen)
    train, test = dataset.split(groups=groups, seed=0)
    assert len(train) + len(test) == len(dataset) and find_duplicates(train, test) == []
    assert find_duplicates(*dataset.split(seed=0)) != []  # without groups they leak


def test_importing_it_imports_nothing_heavy():
    code = "import sys, tlhelpers.duplicates; print({'scipy', 'imagehash', 'sklearn', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
