"""classifiers.py: a classifier stands on a copy of its backbone, and its file is whole, harmless and plain Keras."""

import json
import resource
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers.features import predict


def run(model, photos):
    """Outputs of a model as an array; without `predict`, which would compile each model of these tests anew."""
    return np.asarray(model(np.asarray(photos, np.float32), training=False))


# --- build_classifier ---------------------------------------------------------------------------------------------


@pytest.fixture
def classifier(small, cells):
    return tl.build_classifier(small, cells.class_names)


@pytest.fixture(scope="module")
def head(cell_features, cells):
    return tl.train_head(cell_features, cells.labels, strength=0.01)


def test_only_the_new_last_layer_is_trainable(classifier, small):
    assert [layer.name for layer in classifier.layers if layer.trainable_weights] == ["logits"]
    assert [tuple(weight.shape) for weight in classifier.trainable_weights] == [(1280, 2), (2,)]
    assert classifier.count_params() == small.model.count_params() + 1281 * 2


def test_without_a_head_all_classes_are_equally_probable(classifier, small, cell_photos):
    assert np.allclose(run(classifier, cell_photos), 1 / 2, atol=1e-6)
    four = run(tl.build_classifier(small, ("a", "b", "c", "d")), cell_photos)
    assert four.shape == (20, 4) and four.dtype == np.float32
    assert np.allclose(four, 1 / 4, atol=1e-6)


def test_a_classifier_knows_its_class_names(classifier):
    assert classifier.class_names == ("functional", "defective")


def test_the_copy_computes_what_the_backbone_computes(classifier, small, cell_photos):
    import keras

    copied = keras.Model(classifier.input, classifier.get_layer("average").output)
    assert np.allclose(run(copied, cell_photos), run(small.model, cell_photos), rtol=1e-5, atol=1e-6)


def test_training_every_layer_of_a_classifier_leaves_the_backbone_as_it_was(classifier, small, cells, cell_photos):
    import keras

    before = small.model.get_weights()
    for layer in classifier.layers:  # `classifier.trainable = True` would do nothing: it is True already
        layer.trainable = True
    classifier.compile(optimizer=keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy")
    classifier.get_layer("logits").kernel.assign(np.linspace(-1, 1, 2560).reshape(1280, 2))  # from zeros, no slope below
    classifier.train_on_batch(cell_photos, cells.labels)
    after = classifier.get_weights()[: len(before)]
    assert sum(not np.array_equal(old, new) for old, new in zip(before, after)) > 0.9 * len(before)
    assert all(np.array_equal(old, new) for old, new in zip(before, small.model.get_weights()))


def test_training_the_last_layer_leaves_the_frozen_ones_as_they_were(classifier, cells, cell_photos):
    import keras

    before = classifier.get_weights()
    classifier.compile(optimizer=keras.optimizers.SGD(0.1), loss="sparse_categorical_crossentropy")
    classifier.train_on_batch(cell_photos[:15], cells.labels[:15])  # unequal counts, else the bias has no slope
    changed = [not np.array_equal(old, new) for old, new in zip(before, classifier.get_weights())]
    assert changed == [False] * (len(before) - 2) + [True, True]  # moving statistics are among the frozen


def test_two_classifiers_share_nothing(small, cells, head):
    first, second = (tl.build_classifier(small, cells.class_names, head=head) for _ in range(2))
    before = second.get_weights()
    first.set_weights([np.zeros_like(weight) for weight in first.get_weights()])
    assert all(np.array_equal(old, new) for old, new in zip(before, second.get_weights()))


def test_a_classifier_with_a_head_gives_what_the_head_gives(small, cells, head, cell_features, cell_photos):
    probabilities = run(tl.build_classifier(small, cells.class_names, head=head), cell_photos)
    assert np.abs(probabilities - head.predict_proba(cell_features)).max() < 1e-5


@pytest.mark.parametrize("names", [(), ("one",), ("same", "same")])
def test_fewer_than_two_different_classes_are_refused(small, names):
    with pytest.raises(ValueError, match="expected at least two names, all different"):
        tl.build_classifier(small, names)


def test_a_head_of_other_classes_is_refused(small, head):
    with pytest.raises(ValueError, match="takes 1280 features to 2 classes, .* there are 3 class names"):
        tl.build_classifier(small, ("a", "b", "c"), head=head)


def test_a_head_of_another_cut_point_is_refused(small, cells):
    features = tl.extract_features(cells, small, cut_point="stage_5")
    head = tl.train_head(features, cells.labels, strength=0.01)
    with pytest.raises(ValueError, match="takes 112 features to 2 classes, but efficientnet_lite0 gives 1280"):
        tl.build_classifier(small, cells.class_names, head=head)


# --- saving and loading -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def solver(small, cells, head):
    """A classifier that has learned something."""
    return tl.build_classifier(small, cells.class_names, head=head)


@pytest.fixture(scope="module")
def saved(solver, tmp_path_factory):
    return tl.save_classifier(solver, tmp_path_factory.mktemp("saved") / "cells.keras")


def tiny(outputs=2, size=8):
    """The smallest model that looks like a classifier."""
    import keras

    photos = keras.Input((size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(photos)
    return keras.Model(photos, keras.layers.Dense(outputs, activation="softmax")(x))


def rewritten(source, target, **members):
    """A copy of a zip with some members in place of its own; None leaves one out."""
    members = {name.replace("_", "."): data for name, data in members.items()}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in members:
                new.writestr(name, old.read(name))
        for name, data in members.items():
            if data is not None:
                new.writestr(name, data)
    return target


def test_what_is_loaded_is_what_was_saved(solver, saved, cell_photos):
    loaded = tl.load_classifier(saved)
    assert np.array_equal(run(loaded, cell_photos), run(solver, cell_photos))
    assert loaded.class_names == ("functional", "defective") and loaded.backbone_name == "efficientnet_lite0"
    assert [layer.name for layer in loaded.layers if layer.trainable_weights] == ["logits"]


def test_plain_keras_gives_the_same_probabilities(solver, saved, cell_photos):
    import keras

    assert np.array_equal(run(keras.models.load_model(saved), cell_photos), run(solver, cell_photos))


def test_the_file_says_what_keras_does_not_keep(saved):
    with zipfile.ZipFile(saved) as file:
        assert json.loads(file.read("tlhelpers.json")) == {
            "class_names": ["functional", "defective"],
            "image_size": 64,
            "backbone": "efficientnet_lite0",
            "tlhelpers": tl.__version__,
        }


def test_two_files_of_the_same_weights_hold_the_same(solver, saved, tmp_path):
    again = tl.save_classifier(solver, tmp_path / "again.keras")
    with zipfile.ZipFile(saved) as one, zipfile.ZipFile(again) as two:
        for name in ("tlhelpers.json", "config.json", "model.weights.h5"):
            assert one.read(name) == two.read(name)


def test_a_file_saved_again_by_keras_has_lost_the_names(saved, cells, tmp_path):
    import keras

    keras.models.load_model(saved).save(tmp_path / "again.keras")
    loaded = tl.load_classifier(tmp_path / "again.keras")
    assert loaded.class_names is None and loaded.backbone_name is None
    assert predict(loaded, cells.subset(slice(3))).shape == (3, 2)
    with pytest.raises(ValueError, match=r"new\.keras: not saved: the classifier has no class names; set classifier\."):
        tl.save_classifier(loaded, tmp_path / "new.keras")
    loaded.class_names = cells.class_names
    assert tl.load_classifier(tl.save_classifier(loaded, tmp_path / "new.keras")).class_names == cells.class_names


def test_names_of_any_kind_come_back(tmp_path):
    names = ("größer als 3", "猫", "a/b\\c \"d\"", "", "caf\udce9")  # the last: a folder whose name is not UTF-8
    model = tiny(5)
    model.class_names = names
    assert tl.load_classifier(tl.save_classifier(model, tmp_path / "names.keras")).class_names == names


def test_a_compiled_classifier_comes_back_without_its_training(cells, cell_photos, tmp_path):
    classifier = tiny(size=64)
    classifier.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    classifier.train_on_batch(cell_photos, cells.labels)
    classifier.class_names = cells.class_names
    loaded = tl.load_classifier(tl.save_classifier(classifier, tmp_path / "trained.keras"))
    assert np.array_equal(run(loaded, cell_photos), run(classifier, cell_photos)) and not loaded.compiled


# --- saving: whole or not at all ----------------------------------------------------------------------------------


def test_paths_that_cannot_be_are_refused(solver, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    for name in ("cells.zip", "cells", "cells.keras.h5", "folder.keras"):
        with pytest.raises(ValueError, match=f"{name}: expected the name of a file that ends in .keras"):
            tl.save_classifier(solver, tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"cells\.keras: there is no folder .*nowhere; make it first"):
        tl.save_classifier(solver, tmp_path / "nowhere" / "cells.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.keras"]


@pytest.mark.parametrize(
    ("names", "message"), [(("a", "b", "c"), "3 class names for 2 outputs"), (("a", "a"), "no list of names, all different")]
)
def test_names_that_do_not_fit_the_outputs_are_refused(tmp_path, names, message):
    model = tiny()
    model.class_names = names
    with pytest.raises(ValueError, match=rf"bad\.keras: not saved: .*{message}"):
        tl.save_classifier(model, tmp_path / "bad.keras")
    assert not list(tmp_path.iterdir())


def test_what_is_no_classifier_of_photos_is_not_saved(tmp_path):
    import keras

    with pytest.raises(ValueError, match="it is a dict; expected a keras.Model"):
        tl.save_classifier({}, tmp_path / "bad.keras")
    photos = keras.Input((8, 9, 3))
    with pytest.raises(ValueError, match=r"the model takes \(None, 8, 9, 3\) to \(None, 8, 9, 3\); expected"):
        tl.save_classifier(keras.Model(photos, keras.layers.ReLU()(photos)), tmp_path / "bad.keras")


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_the_old_file_and_nothing_else(saved, tmp_path, error):
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Interrupting(keras.layers.Dense):
        def save_own_variables(self, store):  # by then, Keras has written half the file
            raise error

    photos = keras.Input((8, 8, 3))
    model = keras.Model(photos, Interrupting(2)(keras.layers.Flatten()(photos)))
    model.class_names = ("a", "b")
    path = tmp_path / "cells.keras"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(error):
        tl.save_classifier(model, path)
    assert path.read_bytes() == saved.read_bytes() and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(solver, saved, tmp_path):
    path = tmp_path / "cells.keras"
    path.write_bytes(saved.read_bytes())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (100, 100_000, 5_000_000, len(saved.read_bytes()) - 100):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            with pytest.raises(OSError):
                tl.save_classifier(solver, path)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert list(tmp_path.iterdir()) == [path]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == saved.read_bytes()


def test_a_killed_process_leaves_a_file_that_loads(saved, tmp_path):
    path = tmp_path / "cells.keras"
    path.write_bytes(saved.read_bytes())
    code = (
        "import sys, tlhelpers as tl; classifier = tl.load_classifier(sys.argv[1]); print('saving', flush=True)\n"
        "while True: tl.save_classifier(classifier, sys.argv[1]); print('saved', flush=True)"
    )
    rng = np.random.default_rng(0)
    killed_at_work = 0
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        process.stdout.readline()
        for _ in range(rng.integers(1, 3)):
            assert process.stdout.readline() == "saved\n"
        while not list(tmp_path.glob(".*.part.keras")):  # until it is at it again
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        killed_at_work += len(list(tmp_path.glob(".*.part.keras")))
        for part in tmp_path.glob(".*.part.keras"):
            part.unlink()
        with zipfile.ZipFile(path) as file, zipfile.ZipFile(saved) as old:
            assert file.testzip() is None and file.read("tlhelpers.json") == old.read("tlhelpers.json")
        assert tl.load_classifier(path).class_names == ("functional", "defective")
    assert killed_at_work > 0


# --- loading: files that are none, and worse ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    model = tiny()
    model.class_names = ("a", "b")
    return tl.save_classifier(model, tmp_path_factory.mktemp("little") / "little.keras")


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in (tmp_path / "nowhere.keras", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{path.name}: there is no such file"):
            tl.load_classifier(path)


def test_a_file_by_another_name_is_refused(little, tmp_path):
    (tmp_path / "little.zip").write_bytes(little.read_bytes())
    with pytest.raises(ValueError, match=r"little\.zip: expected a file that ends in \.keras"):
        tl.load_classifier(tmp_path / "little.zip")


@pytest.mark.parametrize("content", [b"", b"notes", b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(2000)])
def test_a_file_that_is_no_classifier_is_refused(tmp_path, content):
    (tmp_path / "other.keras").write_bytes(content)
    with pytest.raises(ValueError, match=r"other\.keras: not a classifier that Keras can load, or damaged .*copy it again"):
        tl.load_classifier(tmp_path / "other.keras")


def test_wherever_a_file_breaks_off_the_message_names_it(little, tmp_path):
    data = little.read_bytes()
    for length in range(0, len(data), 97):
        (tmp_path / "half.keras").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"half\.keras: not a classifier .* or damaged"):
            tl.load_classifier(tmp_path / "half.keras")


def test_wherever_a_file_is_changed_it_is_refused_or_the_same(little, tmp_path):
    wanted = tl.load_classifier(little).get_weights()
    data, refused = little.read_bytes(), 0
    for place in range(5, len(data), len(data) // 60):
        (tmp_path / "changed.keras").write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            loaded = tl.load_classifier(tmp_path / "changed.keras")
        except ValueError as error:
            assert "changed.keras: " in str(error)
            refused += 1
        else:  # a byte that carries nothing, like the date of a member
            assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), wanted))
    assert refused > 50


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[" * 500_000, "not JSON"),
        (" " * 10_000_001, "has 10,000,001 bytes; expected at most"),
        ("null", "holds a NoneType; expected an object"),
        ("[]", "holds a list; expected an object"),
        ("{}", "no list of names"),
        ({"class_names": "ab"}, "no list of names"),
        ({"class_names": {"a": 0, "b": 1}}, "no list of names"),
        ({"class_names": ["a", 2]}, "no list of names"),
        ({"class_names": ["a", ["b"]]}, "no list of names"),
        ({"class_names": ["a", "a"]}, "no list of names, all different"),
        ({"class_names": ["a", "b"], "trained_on": "all"}, "trained_on in tlhelpers.json is no list"),
        ({"class_names": []}, "0 class names for 2 outputs"),
        ({"class_names": ["a", "b", "c"]}, "3 class names for 2 outputs"),
        ({"class_names": ["a", "b"]}, "does not fit the model"),
        ({"class_names": ["a", "b"], "image_size": 9}, "does not fit the model, which takes photos of 8"),
        ({"class_names": ["a", "b"], "image_size": 8, "backbone": ["x"]}, "image_size or backbone"),
    ],
)
def test_facts_that_are_none_are_refused(little, tmp_path, facts, message):
    facts = json.dumps(facts) if isinstance(facts, dict) else facts
    path = rewritten(little, tmp_path / "odd.keras", tlhelpers_json=facts)
    with pytest.raises(ValueError, match=rf"odd\.keras: .*{message}.*save_classifier$"):
        tl.load_classifier(path)


def test_facts_that_are_more_than_needed_are_taken(little, tmp_path):
    facts = {"class_names": ["a", "b"], "image_size": 8, "another": [1]}
    path = rewritten(little, tmp_path / "more.keras", tlhelpers_json=json.dumps(facts))
    assert tl.load_classifier(path).class_names == ("a", "b")


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5"])
@pytest.mark.parametrize("data", [None, b"", b"[]"])
def test_a_zip_without_a_model_is_refused(little, tmp_path, member, data):
    path = rewritten(little, tmp_path / "odd.keras", **{member.replace(".", "_"): data})
    with pytest.raises(ValueError, match=r"odd\.keras: not a classifier that Keras can load"):
        tl.load_classifier(path)


def test_a_bomb_is_not_unpacked(little, tmp_path):
    path = tmp_path / "bomb.keras"
    path.write_bytes(little.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open("more", "w") as member:
        for _ in range(50):
            member.write(bytes(1_000_000))
    with pytest.raises(ValueError, match=r"bomb\.keras: .*unpack to far more than it holds"):
        tl.load_classifier(path)


def test_code_in_a_file_is_refused_and_does_nothing(tmp_path, monkeypatch):
    import keras

    marker = tmp_path / "marker"
    monkeypatch.setenv("MARKER", str(marker))
    photos = keras.Input((8, 8, 3))

    def write(x):
        import os

        open(os.environ["MARKER"], "w").close()
        return x

    x = keras.layers.Lambda(lambda x: (open(__import__("os").environ["MARKER"], "w").close(), x)[1])(photos)
    keras.Model(photos, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save(tmp_path / "lambda.keras")
    x = keras.layers.Lambda(write, output_shape=(8, 8, 3))(photos)
    keras.Model(photos, keras.layers.Dense(2)(keras.layers.Flatten()(x))).save(tmp_path / "named.keras")
    marker.unlink()  # it works: building the model has run it
    for name in ("lambda", "named"):
        with pytest.raises(ValueError, match=rf"{name}\.keras: it needs code that does not come with Keras .*not loaded"):
            tl.load_classifier(tmp_path / f"{name}.keras")
    assert not marker.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"module": "os", "class_name": "system", "config": {"command": "touch marker"}, "registered_name": None},
        {"module": "builtins", "class_name": "function", "config": "eval", "registered_name": "function"},
        {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None},
        {"module": "keras.utils", "class_name": "get_file", "config": {"origin": "file:///"}, "registered_name": None},
    ],
)
def test_a_file_that_asks_for_something_else_is_refused(little, tmp_path, config):
    path = rewritten(little, tmp_path / "odd.keras", config_json=json.dumps(config))
    with pytest.raises(ValueError, match=r"odd\.keras: "):
        tl.load_classifier(path)


def test_a_model_of_something_else_than_photos_is_refused(tmp_path):
    import keras

    numbers = keras.Input((4,))
    keras.Model(numbers, keras.layers.Dense(2)(numbers)).save(tmp_path / "numbers.keras")
    with pytest.raises(ValueError, match=r"numbers\.keras: the model takes \(None, 4\) to \(None, 2\); expected"):
        tl.load_classifier(tmp_path / "numbers.keras")
