"""What is kept on disk: store.py alone, then through extract_features: wrong rows, killed processes, no space."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlhelpers as tl
from tlhelpers import store as store_module
from tlhelpers.store import KnownFiles, RowStore, look, same

ROOT = Path(__file__).parents[1]


def key(number):
    return hashlib.sha256(b"%d" % number).digest()


def row(number, length=5):
    """The one right row for a key."""
    return np.random.default_rng(number).normal(size=length).astype(np.float32)


def add(store, *numbers):
    store.add([key(number) for number in numbers], np.stack([row(number) for number in numbers]))


def known(store, numbers):
    """Numbers whose rows are found; each row that is found is the right one."""
    places = store.find([key(number) for number in numbers])
    for number, place in zip(numbers, places):
        assert place < 0 or np.array_equal(store.read([place])[0], row(number))
    return [number for number, place in zip(numbers, places) if place >= 0]


def rows_of(folder):
    (file,) = folder.glob("rows-*.bin")
    return file


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends processes in another way")


@pytest.fixture
def everything_mapped(monkeypatch):
    monkeypatch.setattr(store_module, "_MAPPED", 0)


# --- rows ---------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were_also_for_another_process(tmp_path):
    store = RowStore(tmp_path, 5, "float32")
    assert len(store) == 0 and known(store, [0, 1]) == []
    add(store, 0, 1, 2)
    add(store, 2, 3)  # 2 is there
    assert len(store) == 4 and known(store, range(6)) == [0, 1, 2, 3]
    store.close()
    code = (
        "import sys, numpy as np; from tlhelpers.store import RowStore; store = RowStore(sys.argv[1], 5, 'float32');"
        "print(np.asarray(store.read(store.find([bytes.fromhex(name) for name in sys.argv[2:]]))).tolist())"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path, key(3).hex(), key(0).hex()], capture_output=True, text=True, check=True
    ).stdout
    assert np.array_equal(np.array(json.loads(out), np.float32), [row(3), row(0)])


def test_rows_one_behind_the_other_are_mapped_and_writing_into_them_changes_nothing_on_disk(tmp_path, everything_mapped):
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    rows = store.read(np.arange(3, 8))
    assert isinstance(rows, np.memmap) and np.array_equal(rows, [row(number) for number in range(3, 8)])
    rows[:] = 7
    assert known(store, range(10)) == list(range(10))
    assert not isinstance(store.read([3, 5]), np.memmap) and np.array_equal(store.read([5, 3]), [row(5), row(3)])
    assert len(store.read([])) == 0


def test_few_rows_are_copied_so_that_no_file_stays_open_for_them(tmp_path):
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    held = [store.read(np.arange(10)) for _ in range(50)]
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)
    assert all(type(rows) is np.ndarray and np.array_equal(rows, held[0]) for rows in held)


def test_more_keys_than_sqlite_takes_in_one_question(tmp_path):
    store, keys = RowStore(tmp_path, 1, "float32"), [key(number) for number in range(70_000)]
    store.add(keys, np.arange(70_000, dtype=np.float32)[:, None])
    order = np.random.default_rng(0).permutation(70_000)
    assert np.array_equal(store.read(store.find([keys[number] for number in order]))[:, 0], order)


def test_two_writers_at_once_do_not_mix_their_rows(tmp_path):
    one, other = RowStore(tmp_path, 5, "float32"), RowStore(tmp_path, 5, "float32")
    for number in range(0, 40, 2):
        add(one, number, number + 1)
        add(other, number + 1, number + 100)
    everything = [*range(40), *range(100, 140, 2)]
    assert known(one, everything) == known(other, everything) == everything


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_damaged_row_is_not_found_and_can_be_added_again(tmp_path, place):
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    damaged = bytearray(rows_of(tmp_path).read_bytes())
    damaged[place * 20 + 7] ^= 1  # one bit
    rows_of(tmp_path).write_bytes(damaged)
    assert known(store, range(10)) == [number for number in range(10) if number != place]
    assert len(store) == 9
    add(store, place)
    assert known(store, range(10)) == list(range(10)) and len(store) == 10


def test_a_file_of_rows_that_was_cut_off_or_deleted_loses_only_what_is_gone(tmp_path):
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    os.truncate(rows_of(tmp_path), 7 * 20 + 3)
    assert known(store, range(10)) == list(range(7))
    add(store, 8)
    assert known(store, range(10)) == [*range(7), 8]
    store.close()
    rows_of(tmp_path).unlink()
    store = RowStore(tmp_path, 5, "float32")
    assert known(store, range(10)) == []
    add(store, 4)
    assert known(store, range(10)) == [4]


@pytest.mark.parametrize("harm", ["damaged", "deleted"])
def test_an_index_that_is_gone_is_begun_anew_and_arrays_in_hand_stay_what_they_were(tmp_path, everything_mapped, harm):
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    mapped = store.read(np.arange(10))
    store.close()
    (tmp_path / "index.sqlite").unlink()
    if harm == "damaged":
        (tmp_path / "index.sqlite").write_bytes(b"no database " * 1000)
    store = RowStore(tmp_path, 5, "float32")
    assert known(store, range(10)) == []
    add(store, *range(20, 40))
    assert known(store, range(50)) == list(range(20, 40))
    assert len(list(tmp_path.iterdir())) == 2  # the old rows are gone but for those who hold them
    assert np.array_equal(mapped, [row(number) for number in range(10)])


def test_a_place_is_never_given_twice(tmp_path, everything_mapped):
    """A row that somebody holds stays what it was, also where another, who saw the file otherwise, takes it for damaged."""
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(10))
    held = store.read(np.arange(10))
    whole = rows_of(tmp_path).read_bytes()
    os.truncate(rows_of(tmp_path), 5 * 20)  # as a second machine on a network folder may see it for a moment
    assert known(store, range(10)) == list(range(5))
    with open(rows_of(tmp_path), "r+b") as file:
        file.write(whole)
    add(store, *range(200, 210))
    assert np.array_equal(held, [row(number) for number in range(10)])
    assert known(store, [*range(10), *range(200, 210)]) == [*range(5), *range(200, 210)]


def test_what_a_killed_process_left_behind_the_last_row_is_written_over(tmp_path):
    store = RowStore(tmp_path, 5, "float32")
    add(store, 0, 1)
    store.close()
    with open(rows_of(tmp_path), "ab") as file:
        file.write(row(77).tobytes() + b"half a row")
    store = RowStore(tmp_path, 5, "float32")
    assert known(store, [0, 1, 2, 3, 77]) == [0, 1]
    add(store, 2, 3)
    assert known(store, [0, 1, 2, 3, 77]) == [0, 1, 2, 3]
    assert rows_of(tmp_path).stat().st_size == 4 * 20


WRITER = """
import sys
sys.path[:0] = sys.argv[2:]
import numpy as np
from test_store import add
from tlhelpers.store import RowStore
store, chance = RowStore(sys.argv[1], 5, "float32"), np.random.default_rng()
while True:
    add(store, *chance.integers(0, 3000, 40))
    print(flush=True)
"""


@needs_kill
def test_writers_that_are_killed_leave_no_wrong_row(tmp_path):
    """Thirty processes, three at a time, each killed after as many additions as lots say."""
    chance, ends = np.random.default_rng(0), []
    for _ in range(10):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, ROOT / "tests"], stdout=subprocess.PIPE) for _ in range(3)
        ]
        for writer in writers:
            for _ in range(chance.integers(1, 6)):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        ends += [writer.wait() for writer in writers]
        for writer in writers:
            writer.stdout.close()
        store = RowStore(tmp_path, 5, "float32")
        assert len(known(store, range(3000))) == len(store) > 0
        store.close()
    assert ends == [-signal.SIGKILL] * 30
    store = RowStore(tmp_path, 5, "float32")
    add(store, *range(3000))
    assert known(store, range(3000)) == list(range(3000))
    assert len(os.listdir(tmp_path)) == 2 and rows_of(tmp_path).stat().st_size == 3000 * 20


# --- files --------------------------------------------------------------------------------------------------------


def sha256(content):
    return hashlib.sha256(content).digest()


@pytest.fixture
def long_ago(monkeypatch):
    """As if every file had been changed long ago."""
    monkeypatch.setattr(store_module, "_SETTLED", -1e9)


def test_a_file_is_known_until_anything_about_it_changes(tmp_path, long_ago):
    files, a, b = KnownFiles(tmp_path), tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    assert files.digests([a, b]) == [None, None]
    files.remember([(path, look(path)) for path in (a, b)])
    assert files.digests([b, a, b, tmp_path / "none"]) == [sha256(b"two"), sha256(b"one"), sha256(b"two"), None]
    assert KnownFiles(tmp_path).digests([a]) == [sha256(b"one")]
    times = a.stat()
    other = tmp_path / "other"
    other.write_bytes(b"six")  # same size
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(a)
    assert a.stat().st_mtime_ns == times.st_mtime_ns and files.digests([a, b]) == [None, sha256(b"two")]
    b.unlink()
    assert files.digests([b]) == [None]


def test_a_link_that_is_set_to_another_photo_is_not_taken_for_the_first(tmp_path, long_ago):
    (tmp_path / "black").write_bytes(b"black")
    (tmp_path / "white").write_bytes(b"white")
    times = (1_700_000_000, 1_700_000_000)
    for name in ("black", "white"):
        os.utime(tmp_path / name, times)
    files, link = KnownFiles(tmp_path), tmp_path / "link"
    link.symlink_to("black")
    files.remember([(link, look(link))])
    assert files.digests([link]) == [sha256(b"black")]
    link.unlink()
    link.symlink_to("white")
    assert files.digests([link]) == [None]


def test_a_file_that_was_changed_a_moment_before_it_was_read_is_never_relied_on(tmp_path, monkeypatch):
    """Where the clock is coarse, a second change does not show. What counts is the moment of reading, not of remembering."""
    files, path = KnownFiles(tmp_path), tmp_path / "a"
    path.write_bytes(b"one")
    looked = look(path)
    assert looked[1] == sha256(b"one") and not looked[2]
    monkeypatch.setattr(store_module, "_SETTLED", -1e9)  # much later
    files.remember([(path, looked)])
    assert files.digests([path]) == [None]
    monkeypatch.setattr(store_module, "_sign", lambda status: "the clock stands still")
    assert same(path, look(path)) is not None
    looked = ("the clock stands still", sha256(b"one"), False)
    assert same(path, looked) == looked
    path.write_bytes(b"two")
    assert same(path, looked) is None
    assert same(path, None) is None and same(tmp_path / "none", looked) is None
    monkeypatch.setattr(store_module, "look", lambda path: None)  # it goes between one look and the next
    assert same(path, looked) is None


def test_what_is_no_file_is_not_opened(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
        assert look(tmp_path / "pipe") is None
    assert look(tmp_path) is None and look(tmp_path / "none") is None and look(os.devnull) is None


# --- through extract_features -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where features go in this test: nothing is known."""
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def steps():
    """What `progress` is told: the first step says what was known, the number of others what was computed."""

    class Steps(list):
        def __call__(self, done, total):
            self.append(done)

        def computed(self, total):
            done, self[:] = list(self), []
            assert done[-1] == total
            # the first step: what is known, if anything is; where all is computed, there is one step a photo
            return total if len(done) == total and done[0] == 1 else total - done[0]

    return Steps()


def copied(dataset, folder):
    """The same photos as files of their own, which a test may damage."""
    folder.mkdir()
    files = [folder / file.name for file in dataset.files]
    for mine, file in zip(files, dataset.files):
        mine.write_bytes(file.read_bytes())
    return tl.Dataset("copied", files, dataset.labels, dataset.class_names, dataset.card)


def test_one_changed_photo_costs_one_photo_and_a_moved_folder_none(cells, small, folder, steps, tmp_path):
    own, cuts = copied(cells, tmp_path / "photos"), ["stage_2", "top"]
    plain = tl.extract_features(own, small, cut_point=cuts, cache=False)
    first = tl.extract_features(own, small, cut_point=cuts, progress=steps)
    assert steps.computed(20) == 20 and all(np.array_equal(a, b) for a, b in zip(plain, first))
    again = tl.extract_features(own, small, cut_point=cuts, progress=steps)
    assert steps.computed(20) == 0 and all(np.array_equal(a, b) for a, b in zip(plain, again))
    photo = Image.open(own.files[5])
    photo.transpose(Image.Transpose.ROTATE_90).save(own.files[5])
    again = tl.extract_features(own, small, cut_point=cuts, progress=steps)
    assert steps.computed(20) == 1
    assert not np.allclose(again[1][5], first[1][5]) and np.array_equal(np.delete(again[1], 5, 0), np.delete(first[1], 5, 0))
    own.files[5].write_bytes(own.files[6].read_bytes())  # known by its content under another name
    again = tl.extract_features(own, small, cut_point=cuts, progress=steps)
    assert steps.computed(20) == 0 and np.array_equal(again[1][5], first[1][6])
    own.files[5].write_bytes(b"no photo")
    with pytest.warns(UserWarning, match="1 of 20 photos cannot be read"):
        assert np.isnan(tl.extract_features(own, small, cut_point=cuts)[0][5]).all()
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = tl.Dataset("moved", [tmp_path / "moved" / file.name for file in own.files], own.labels, own.class_names, own.card)
    moved = moved.subset(np.arange(20) != 5)
    there = tl.extract_features(moved, small, cut_point=cuts, progress=steps)
    assert steps.computed(19) == 0 and np.array_equal(there[1], np.delete(first[1], 5, 0))


def test_a_photo_changed_between_two_calls_is_never_taken_for_the_old_one(small, folder, tmp_path):
    """Same name, same size in bytes."""
    photos = [tmp_path / "black.bmp", tmp_path / "white.bmp"]
    for path, grey in zip(photos, (0, 255)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(path)
    path, card = tmp_path / "photo.bmp", tl.load_dataset("faces").card
    dataset = tl.Dataset("one", [path, path], np.array([0, 1]), ["a", "b"], card)
    truth = [tl.extract_features(
        tl.Dataset("one", [photo, photo], np.array([0, 1]), ["a", "b"], card), small, cut_point="stem", cache=False
    ) for photo in photos]
    assert not np.allclose(*truth)
    for turn in range(30):
        path.write_bytes(photos[turn % 2].read_bytes())
        assert np.array_equal(tl.extract_features(dataset, small, cut_point="stem"), truth[turn % 2])


def test_features_of_another_network_size_cut_pool_or_type_are_not_mixed_up(cells, small, folder, everything_mapped):
    few = cells.subset(slice(4))
    tuned = tl.load_backbone("efficientnet_lite0", image_size=64)
    weight = tuned.model.get_layer("stem_conv").kernel
    weight.assign(weight + np.eye(3, dtype=np.float32)[:, :, None, None] * 1e-2)
    calls = [
        lambda cache: tl.extract_features(few, small, cache=cache),
        lambda cache: tl.extract_features(few, small, cut_point="stage_7", cache=cache),
        lambda cache: tl.extract_features(few, small, pool="max", cache=cache),
        lambda cache: tl.extract_features(few, small, pool=False, cache=cache),
        lambda cache: tl.extract_features(few, small, dtype="float16", cache=cache),
        lambda cache: tl.extract_features(few, tl.load_backbone("efficientnet_lite0", image_size=96), cache=cache),
        lambda cache: tl.extract_features(few, tuned, cache=cache),
    ]
    kept = [call(True) for call in calls]
    assert len(list(folder.glob("*-float*"))) == len(calls)
    for call, features in zip(calls, kept):
        again = call(True)
        assert again.dtype == features.dtype and isinstance(again, np.memmap)
        assert np.array_equal(again, features) and np.array_equal(call(False), features)
    assert not np.allclose(kept[0], kept[6])
    same = tl.load_backbone("efficientnet_lite0", image_size=64)  # a second copy, with other layer objects
    assert isinstance(tl.extract_features(few, same), np.memmap)


def test_float16_keeps_three_digits_and_refuses_what_it_cannot_hold(cells, small, folder):
    features = tl.extract_features(cells, small)
    half = tl.extract_features(cells, small, dtype="float16")
    assert half.dtype == np.float16 and np.abs(half - features).max() < 1e-3 * features.max()
    heads = [tl.train_head(array, cells.labels, strength=0.01) for array in (features, half)]
    assert np.abs(heads[0].predict_proba(features) - heads[1].predict_proba(half)).max() < 5e-3
    with pytest.raises(ValueError, match="dtype is 'int8'; expected"):
        tl.extract_features(cells, small, dtype="int8")
    huge = tl.load_backbone("efficientnet_lite0", image_size=64)
    layer = huge.model.get_layer("stage_7_block_1_project_bn")
    layer.gamma.assign(layer.gamma * 1e6)
    with pytest.raises(ValueError, match="65,504"):
        tl.extract_features(cells, huge, cut_point="stage_7", pool=False, dtype="float16")


def test_where_pillow_is_told_to_let_cut_off_photos_pass_nothing_is_kept(cells, small, folder, monkeypatch, tmp_path):
    from PIL import ImageFile

    own = copied(cells, tmp_path / "photos")
    own.files[3].write_bytes(own.files[3].read_bytes()[:-20_000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with warnings.catch_warnings(action="ignore"):
        tl.extract_features(own, small)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with pytest.warns(UserWarning, match="1 of 20 photos cannot be read") as said:
        features = tl.extract_features(own, small)
    assert np.isnan(features[3]).all() and said[0].filename == __file__  # the line that called


def test_a_cache_folder_that_cannot_be_made_costs_only_the_cache(cells, small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="features cannot be kept on disk") as said:
        features = tl.extract_features(cells.subset(slice(4)), small)
    assert features.shape == (4, 1280) and [warning.filename for warning in said] == [__file__]


def test_unreadable_photos_alone_start_no_engine(cells, small, folder, tmp_path, monkeypatch):
    own = copied(cells, tmp_path / "photos")
    for row in (0, 7):
        own.files[row].write_bytes(b"no photo")
    with pytest.warns(UserWarning, match="2 of 20"):
        first = tl.extract_features(own, small)
    monkeypatch.setattr("tlhelpers.features.LiteRTEngine", None)
    with pytest.warns(UserWarning, match="2 of 20"):
        assert np.array_equal(tl.extract_features(own, small), first, equal_nan=True)


def test_a_data_set_that_makes_its_own_pictures_is_not_known_by_its_files(cells, small, folder):
    class Mirrored(tl.Dataset):
        def image(self, index, *, at_least=None):
            return super().image(index, at_least=at_least)[:, ::-1]

    few = cells.subset(slice(4))
    mirrored = Mirrored(few.name, few.files, few.labels, few.class_names, few.card)
    plain = tl.extract_features(few, small)
    assert not np.allclose(tl.extract_features(mirrored, small), plain)
    assert np.array_equal(tl.extract_features(few, small), plain)


FULL = """
import resource, sys, warnings
import numpy as np
import tlhelpers as tl
few = tl.load_dataset("solar_cells").sample(per_class=10, seed=0)
small = tl.load_backbone("efficientnet_lite0", image_size=64)
truth = tl.extract_features(few, small, cache=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    assert np.array_equal(tl.extract_features(few, small), truth)
    said = [str(warning.message) for warning in said if "features cannot be kept" in str(warning.message)]
assert len(said) == 1 and "cache --clear" in said[0], said
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for _ in range(2):
    assert np.array_equal(tl.extract_features(few, small), truth)
steps = []
tl.extract_features(few, small, progress=lambda *step: steps.append(step))
assert steps == [(20, 20)], steps
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are of Unix")
@pytest.mark.parametrize("limit", [0, 30_000])
def test_without_space_features_are_computed_all_the_same_and_kept_once_there_is_some(folder, limit):
    """Not a byte may be written, or no file of more than 30 kB; 20 rows take 102 kB."""
    done = subprocess.run([sys.executable, "-c", FULL, str(limit)], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_a_cache_that_is_no_database_any_more_is_said_once_and_the_work_goes_on(cells, small, folder):
    few = cells.subset(slice(4))
    truth = tl.extract_features(few, small)
    for file in folder.rglob("*.sqlite"):
        with open(file, "r+b") as stream:  # its head is whole, its pages are not
            stream.seek(100)
            stream.write(b"\xff" * (file.stat().st_size - 100))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert np.array_equal(tl.extract_features(few, small), truth)
    assert sum("features cannot be kept" in str(warning.message) for warning in said) <= 1
    assert np.array_equal(tl.extract_features(few, small), truth)


@needs_kill
def test_ten_kills_of_extract_features_leave_no_wrong_row():
    """experiments/cache_kills.py, which does a hundred."""
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "cache_kills.py", "--kills", "10"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 10 and result["wrong_rows"] == 0 and result["left_behind"] == ["index.sqlite", "rows"]
