"""A folder of one's own photos: which files are used, what is said of the others, and which folders are refused."""

import os
import re
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hostile import JUNK, deadline, others, picture, saved, tiff
from PIL import Image

import tlhelpers as tl
from tlhelpers.images import shown

COLOURS = np.random.default_rng(0)


def put(path, kind="PNG", **options):
    """Write one more photo, unlike all others, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(picture(COLOURS), kind, **options))
    return path


def fill(folder, *names):
    """Photos by their paths below a folder."""
    for name in names:
        put(folder / name)
    return folder


@pytest.fixture
def pets(tmp_path):
    """Two classes of two photos each, as every folder should be."""
    return fill(tmp_path / "pets", "cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png")


def left_out(dataset):
    """Path below the folder → reason."""
    assert all(isinstance(path, Path) and isinstance(reason, str) and reason for path, reason in dataset.left_out)
    paths = [path for path, _ in dataset.left_out]
    assert len(set(paths)) == len(paths)
    return {path.as_posix().split("/pets/")[1]: reason for path, reason in dataset.left_out}


# --- which files are used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_subfolders_are_classes(pets, kind):
    dataset = tl.load_dataset(kind(pets))
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.files == tuple(pets / name for name in ("cats/1.png", "cats/2.png", "dogs/1.png", "dogs/2.png"))
    assert dataset.labels.tolist() == [0, 0, 1, 1] and dataset.labels.dtype == np.int64
    assert list(dataset.metadata["class"]) == ["cats", "cats", "dogs", "dogs"]
    assert dataset.left_out == ()
    assert np.array_equal(dataset.image(2), np.asarray(Image.open(pets / "dogs/1.png")))


def test_a_relative_path_and_one_with_a_slash_at_its_end_will_do(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    for name in ("pets", "./pets/", Path("pets")):
        assert [path.resolve() for path in tl.load_dataset(name).files] == list(tl.load_dataset(pets).files)


def test_a_folder_called_like_a_data_set_of_the_book_is_given_as_a_path(pets, monkeypatch):
    pets.rename(pets.parent / "faces")
    monkeypatch.chdir(pets.parent)
    assert len(tl.load_dataset("faces")) == 400
    assert len(tl.load_dataset("./faces")) == len(tl.load_dataset(Path("faces"))) == 4


def test_folders_below_a_class_belong_to_it_and_are_its_subfolders(tmp_path):
    fill(tmp_path, "cats/tom/1.png", "cats/tom/2.png", "cats/3.png", "dogs/a/b/c/1.png", "dogs/a/b/2.png")
    dataset = tl.load_dataset(tmp_path)
    assert dataset.class_names == ("cats", "dogs")
    names = [path.relative_to(tmp_path).as_posix() for path in dataset.files]
    assert dict(zip(names, dataset.metadata["subfolder"])) == {
        "cats/tom/1.png": "cats/tom", "cats/tom/2.png": "cats/tom", "cats/3.png": "cats/3.png",
        "dogs/a/b/c/1.png": "dogs/a/b/c", "dogs/a/b/2.png": "dogs/a/b",
    }
    assert [dataset.class_names[label] for label in dataset.labels] == [name.split("/")[0] for name in names]


def test_photos_of_one_subfolder_stay_together_in_a_split(tmp_path):
    names = [f"{kind}/{animal}/{n}.png" for kind in ("cats", "dogs") for animal in "abcdefgh" for n in range(3)]
    train, test = tl.load_dataset(fill(tmp_path, *names)).split(groups="subfolder")
    assert len(train) + len(test) == 48
    assert not set(train.metadata["subfolder"]) & set(test.metadata["subfolder"])


def test_deep_folders_and_long_names_are_no_difficulty(pets):
    put(pets / "cats" / "/".join(["deep"] * 150) / "p.png")
    put(pets / "dogs" / ("x" * 246 + ".png"))
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 6 and dataset.left_out == ()


@pytest.mark.parametrize(("kind", "suffixes"), [
    ("JPEG", ("jpg", "jpeg", "jpe", "jfif", "JPG", "Jpeg")), ("TIFF", ("tif", "tiff", "TIF")),
    ("PPM", ("pgm", "ppm", "pnm", "pbm")), ("PNG", ("png", "PNG")),
    ("GIF", ("gif",)), ("BMP", ("bmp",)), ("WEBP", ("webp",)),
])  # fmt: skip
def test_every_kind_of_photo_is_used_under_each_of_its_names(pets, kind, suffixes):
    for number, suffix in enumerate(suffixes):
        put(pets / "cats" / f"photo {number}.{suffix}", kind)
    put(pets / "dogs" / "no suffix", kind)
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 5 + len(suffixes) and dataset.left_out == ()


def test_a_phones_photo_of_two_pictures_is_a_jpeg(pets):
    second = {"save_all": True, "append_images": [Image.new("RGB", (36, 24))]}
    put(pets / "cats" / "two.jpg", "MPO", **second)
    assert len(tl.load_dataset(pets)) == 5


def test_a_link_to_a_photo_is_used(pets, tmp_path):
    (pets / "cats" / "3.png").symlink_to(put(tmp_path / "elsewhere" / "3.png"))
    dataset = tl.load_dataset(pets)
    assert pets / "cats" / "3.png" in dataset.files and dataset.left_out == ()


def test_links_to_folders_are_followed_once(pets, tmp_path):
    fill(tmp_path / "elsewhere", "3.png", "deeper/4.png")
    (pets / "cats" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "deeper" / "back").symlink_to(tmp_path / "elsewhere")
    (pets / "dogs" / "up").symlink_to("..")
    (pets / "dogs" / "here").symlink_to(".")
    with deadline(20):
        dataset = tl.load_dataset(pets)
    assert len(dataset) == 6
    named = left_out(dataset)
    assert set(named) == {"cats/more/deeper/back", "dogs/up", "dogs/here"}
    assert all("link" in reason for reason in named.values())


def test_a_class_may_be_a_link(pets, tmp_path):
    fill(tmp_path / "elsewhere", "1.png", "2.png")
    (pets / "birds").symlink_to(tmp_path / "elsewhere")
    assert tl.load_dataset(pets).class_names == ("birds", "cats", "dogs")


def test_two_classes_that_are_one_folder_are_not_two_classes(pets):
    (pets / "kittens").symlink_to("cats")
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 4 and len(set(map(os.path.realpath, dataset.files))) == 4
    assert len(dataset.class_names) == 2 and [path.name for path, _ in dataset.left_out] in (["kittens"], ["cats"])


# --- what is said of the others -------------------------------------------------------------------------------------

WHOLE = saved(picture(np.random.default_rng(1)), "PNG")
OTHERS = others(np.random.default_rng(1), picture(np.random.default_rng(1)))


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("empty.jpg", b"", "empty"),
    ("half.png", WHOLE[: len(WHOLE) // 2], "truncated|cut off|breaks off|broken"),
    ("mislabelled.jpg", WHOLE, "PNG"),
    ("mislabelled.JPEG", WHOLE, "PNG"),
    ("mislabelled.png", saved(np.zeros((9, 9, 3), np.uint8), "JPEG"), "JPEG"),
    ("page.jpg", OTHERS["html"], "web page"),
    ("page.png", b"\n <HTML><body>404</body></HTML>", "web page"),
    ("phone.heic", OTHERS["heic"], "HEIC.*JPEG"),
    ("phone.jpg", OTHERS["heic"], "HEIC.*JPEG"),
    ("drawing.svg", OTHERS["svg"], "SVG|no photo|not a photo"),
    ("notes.txt", OTHERS["txt"], "no photo|not a photo"),
    ("labels.csv", OTHERS["csv"], "no photo|not a photo"),
    ("zeros.bmp", bytes(1000), "no photo|not a photo"),
    ("deep.tif", tiff(np.zeros((9, 9, 1), np.uint32)), "32-bit.*range"),
    ("float.tif", saved(np.zeros((9, 9), np.float32), "TIFF"), "32-bit.*range"),
    ("bomb.pgm", b"P5 60000 60000 255\n", "60,000|pixels|bomb"),
    (".hidden.png", WHOLE, "hidden"),
    (".hidden/1.png", WHOLE, "hidden"),
])  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_reason(pets, name, content, reason):
    path = pets / "cats" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 4
    ((named, why),) = left_out(dataset).items()
    assert f"cats/{name}" == named or f"cats/{name}".startswith(named + "/")
    assert re.search(reason, why), why


def test_links_that_lead_nowhere_pipes_and_sockets_are_named_and_never_opened(pets):
    cats, names = pets / "cats", ("nowhere.png", "itself.png", "device.png", "pipe.png", "socket.jpg")
    (cats / "nowhere.png").symlink_to("nowhere")
    (cats / "itself.png").symlink_to("itself.png")
    (cats / "device.png").symlink_to("/dev/zero")
    os.mkfifo(cats / "pipe.png")
    os.mknod(cats / "socket.jpg", stat.S_IFSOCK | 0o600)
    pipe = os.open(cats / "pipe.png", os.O_RDWR | os.O_NONBLOCK)  # with both ends open, reading would not wait …
    try:
        os.write(pipe, WHOLE)
        with deadline(20):
            dataset = tl.load_dataset(pets)
        assert os.read(pipe, 100_000) == WHOLE  # … but take the photo out
    finally:
        os.close(pipe)
    assert len(dataset) == 4
    assert set(left_out(dataset)) == {f"cats/{name}" for name in names}


def test_files_beside_the_class_folders_are_named(pets):
    put(pets / "cover.png")
    (pets / "README.txt").write_text("my pets")
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 4 and set(left_out(dataset)) == {"cover.png", "README.txt"}


@pytest.mark.parametrize("junk", [*JUNK, "thumbs.db", ".ipynb_checkpoints/1.png", "__MACOSX/._1.png"])
@pytest.mark.parametrize("place", [".", "cats", "cats/tom"])
def test_what_systems_leave_behind_is_ignored(pets, junk, place):
    put(pets / place / junk)
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 4 and dataset.left_out == () and dataset.class_names == ("cats", "dogs")


def test_a_class_without_a_photo_is_no_class_and_is_named(pets):
    (pets / "birds").mkdir()
    (pets / "fish").mkdir()
    (pets / "fish" / "notes.txt").write_text("no photos yet")
    dataset = tl.load_dataset(pets)
    assert dataset.class_names == ("cats", "dogs") and dataset.labels.tolist() == [0, 0, 1, 1]
    assert set(left_out(dataset)) == {"birds", "fish", "fish/notes.txt"}


def test_what_may_not_be_read_is_named(pets):
    """In a process without root's right to read everything."""
    (pets / "cats" / "closed.png").write_bytes(WHOLE)
    (pets / "cats" / "closed.png").chmod(0)
    put(pets / "dogs" / "closed" / "1.png").parent.chmod(0)
    code = f"import tlhelpers as tl; d = tl.load_dataset({str(pets)!r}); print(len(d), *map(str, d.left_out), sep='\\n')"

    def give_up_rights():
        import ctypes

        for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP

    rights = give_up_rights if sys.platform == "linux" and os.geteuid() == 0 else None
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=rights, timeout=60)
    (pets / "dogs" / "closed").chmod(0o700)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    count, *named = run.stdout.splitlines()
    assert count == "4" and len(named) == 2
    assert all("closed" in line and "ermission" in line for line in named)


# --- names ----------------------------------------------------------------------------------------------------------

ODD = ("new\nline", "\x1b[31mred\x1b[0m", "tab\t", "[red]markup[bold]", "🐈‍⬛", os.fsdecode(b"caf\xe9"), "\u202egnp", "n" * 245)


def test_names_may_hold_anything(pets):
    for name in ODD:
        put(pets / "cats" / f"{name}.png")
        (pets / "dogs" / f"{name}.png").write_bytes(WHOLE[:99])
    dataset = tl.load_dataset(pets)
    assert {path.name for path in dataset.files} >= {f"{name}.png" for name in ODD}
    assert {path.name for path, _ in dataset.left_out} == {f"{name}.png" for name in ODD}
    assert all(reason.isprintable() for _, reason in dataset.left_out)
    for row in range(len(dataset)):
        assert dataset.image(row).shape == (24, 36, 3)


@pytest.mark.parametrize("name", ODD)
def test_classes_may_be_called_anything_and_their_summary_can_be_printed(pets, name):
    put(pets / name / "1.png")
    dataset = tl.load_dataset(pets)
    assert len(dataset) == 5 and len(dataset.class_names) == 3
    for text in (repr(dataset), *dataset.class_names, *dataset.metadata["class"], *dataset.metadata["subfolder"]):
        assert str(text).isprintable() and str(text).encode("utf-8")


def test_class_names_are_composed(pets):
    put(pets / unicodedata.normalize("NFD", "Vögel") / "1.png")
    dataset = tl.load_dataset(pets)
    assert unicodedata.normalize("NFC", "Vögel") in dataset.class_names and dataset.image(0).shape == (24, 36, 3)


def test_two_folders_of_one_name_are_refused(pets):
    for form in ("NFC", "NFD"):
        put(pets / unicodedata.normalize(form, "Vögel") / f"{form}.png")
    if len(list(pets.iterdir())) == 3:
        pytest.skip("this file system knows them as one folder")
    with pytest.raises(ValueError, match=unicodedata.normalize("NFC", "Vögel")):
        tl.load_dataset(pets)


@pytest.mark.parametrize("name", [*ODD, "plain", "back\\slash", "\u2028", "half \udcf0\udc9f"])
def test_shown_is_one_printable_line(name):
    text = shown(Path("folder", name))
    assert text.isprintable() and text.encode("utf-8")
    assert text.startswith("folder" + os.sep)


def test_shown_leaves_ordinary_names_and_tells_odd_ones_apart():
    for name in ("a b/ü.png", "猫/[1] (2).png"):
        assert shown(Path(name)) == name
    assert len({shown(name) for name in (*ODD, "caf\udce8", "caf")}) == len(ODD) + 2


# --- folders that are refused ---------------------------------------------------------------------------------------


def refused(folder, *, saying):
    with pytest.raises(ValueError, match=saying) as error:
        tl.load_dataset(folder)
    text = str(error.value)
    assert shown(folder) in text and text.isprintable() and len(text) < 600
    return text


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, saying="empty|no photo")


def test_a_folder_of_empty_folders_is_refused(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "dogs" / "deeper").mkdir(parents=True)
    refused(tmp_path, saying="no photo|no usable photo")


def test_a_folder_without_one_usable_photo_is_refused_and_says_why(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"<html></html>")
    refused(tmp_path, saying="web page")


def test_one_class_is_refused(tmp_path):
    refused(fill(tmp_path, "cats/1.png", "cats/2.png"), saying="one class.*expected one subfolder a class")


def test_one_class_with_photos_among_two_folders_is_refused(pets):
    for path in (pets / "dogs").iterdir():
        path.write_bytes(b"")
    refused(pets, saying="one class.*expected one subfolder a class")


def test_photos_without_subfolders_are_refused(tmp_path):
    refused(fill(tmp_path, "1.png", "2.png"), saying="one subfolder a class")


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "Test"), ("train", "val", "test"), ("training", "valid")])
def test_a_folder_that_is_split_already_is_refused(tmp_path, parts):
    for part in parts:
        fill(tmp_path / part, "cats/1.png", "dogs/1.png")
    text = refused(tmp_path, saying="--test")
    held_out = parts[-1] if "est" in parts[-1] else parts[1]
    assert shown(tmp_path / parts[0]) in text and f"--test {shown(tmp_path / held_out)}" in text


def test_classes_called_train_and_test_are_classes_if_photos_lie_in_them(tmp_path):
    fill(tmp_path, "train/1.png", "test/1.png")
    assert tl.load_dataset(tmp_path).class_names == ("test", "train")


def test_classes_may_be_vehicles_one_of_which_is_a_train(tmp_path):
    fill(tmp_path, "train/steam/1.png", "bus/red/1.png")
    assert tl.load_dataset(tmp_path).class_names == ("bus", "train")


def test_a_folder_around_the_folder_of_classes_is_refused_and_names_that_one(tmp_path):
    text = refused(fill(tmp_path, "pets/cats/1.png", "pets/dogs/1.png"), saying="pets")
    assert shown(tmp_path / "pets") in text
    assert tl.load_dataset(tmp_path / "pets").class_names == ("cats", "dogs")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        tl.load_dataset(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"photo\.png"):
        tl.load_dataset(put(tmp_path / "photo.png"))


def test_a_class_of_one_photo_cannot_be_split(pets):
    put(pets / "birds" / "1.png")
    with pytest.raises(ValueError, match="birds"):
        tl.load_dataset(pets).split()


# --- what is built on it --------------------------------------------------------------------------------------------


def test_the_number_left_out_is_in_the_summary_and_in_every_report(pets, small):
    for n in range(3):
        (pets / "cats" / f"bad{n}.jpg").write_bytes(b"")
        fill(pets, f"cats/more{n}.png", f"dogs/more{n}.png")
    dataset = tl.load_dataset(pets)
    assert "10 photos (cats 5, dogs 5), 3 left out" in repr(dataset)
    train, test = dataset.split(test_size=0.4)
    assert "3 left out" in repr(train) and "3 left out" in repr(test)
    head = tl.train_head(tl.extract_features(train, small), train.labels)
    report = tl.evaluate(tl.build_classifier(small, train.class_names, head=head), test)
    assert report.left_out == dataset.left_out and "3 left out" in str(report)


def test_the_same_folder_gives_the_same_data_set(tmp_path):
    names = [f"{kind}/{place}{n}.png" for kind in "ba" for place in ("", "z/", "a/") for n in (10, 9, 1)]
    first, second = (tl.load_dataset(fill(tmp_path, *names)) for _ in range(2))
    assert first.files == second.files and len(first) == 18
    assert first.labels.tolist() == sorted(first.labels)  # class by class
    for label in (0, 1):
        mine = [path for path, own in zip(first.files, first.labels) if own == label]
        assert mine == sorted(mine)


# --- links that lead back --------------------------------------------------------------------------------------------


def photo(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def test_a_link_to_where_everything_lies_brings_no_photos_of_other_classes(tmp_path):
    for part in ("train", "test"):
        for number, name in enumerate(("cats", "dogs")):
            for row in range(3):
                photo(tmp_path / part / name / f"{row}.png", (row, number, len(part)))
    (tmp_path / "train" / "cats" / "loop").symlink_to(tmp_path)
    data = tl.load_dataset(tmp_path / "train")
    assert np.bincount(data.labels).tolist() == [3, 3]
    assert [path.name for path, _ in data.left_out] == ["loop"]


def test_a_link_to_part_of_another_class_leaves_that_part_where_it_is(tmp_path):
    for row in range(3):
        photo(tmp_path / "dogs" / "day 1" / f"{row}.png", (row, 0, 0))
        photo(tmp_path / "cats" / f"{row}.png", (row, 1, 0))
    (tmp_path / "cats" / "best").symlink_to(tmp_path / "dogs" / "day 1")
    (tmp_path / "all").symlink_to(tmp_path)
    data = tl.load_dataset(tmp_path)
    assert data.class_names == ("cats", "dogs") and np.bincount(data.labels).tolist() == [3, 3]
    assert {path.name for path, _ in data.left_out} == {"best", "all"}


def test_a_link_to_photos_elsewhere_is_followed(tmp_path):
    for row in range(3):
        photo(tmp_path / "elsewhere" / f"{row}.png", (row, 0, 0))
        photo(tmp_path / "photos" / "cats" / f"{row}.png", (row, 1, 0))
    (tmp_path / "photos" / "dogs").symlink_to(tmp_path / "elsewhere")
    assert np.bincount(tl.load_dataset(tmp_path / "photos").labels).tolist() == [3, 3]


@pytest.mark.parametrize("names", [("cats", "dogs", "cats"), ("cats",), ()])
def test_class_names_that_are_no_classes_are_refused(tmp_path, names):
    photo(tmp_path / "cats" / "1.png", "red")
    with pytest.raises(ValueError, match="class_names is"):
        tl.load_dataset(tmp_path, class_names=names)
