"""The audit over every classifier that the book's own notebooks build: no fault, or the one that the chapter shows on purpose.

Each is built as its notebook builds it, with fewer photos, and of 64 pixels. A notebook that builds a classifier and does not
stand in the table fails the first test.
"""

import re
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest

import tlhelpers as tl

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
BUILDS = re.compile(r"build_classifier\(|keras\.Model\(|Sequential\(|load_classifier\(|clone_model\(|tlhelpers fit")
SHOWS_TRAPS = {"16_trap_lab"}  # what it builds is broken on purpose, and tests/test_audit.py has the same traps


def head_on(backbone, train):
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    return tl.build_classifier(backbone, train.class_names, head=head)


def by_hand(backbone, train):
    """03: the network as the first layer of a Sequential, only the last layer is trained."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Model(backbone.model.input, backbone.model.get_layer("average").output), keras.layers.Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(train.images(64).astype("float32"), train.labels, epochs=1, batch_size=16, verbose=0)
    return model


def from_file(backbone, train, folder):
    """04: what `tlhelpers fit` writes, loaded again."""
    return tl.load_classifier(tl.save_classifier(head_on(backbone, train), folder / "model.keras"))


def the_usual_way(backbone, train):
    """08: the last stage opened, `training=False` in a functional model."""
    keras.utils.set_random_seed(0)
    base = keras.models.clone_model(backbone.model)
    base.set_weights(backbone.model.get_weights())
    for layer in base.layers:
        layer.trainable = layer.name.startswith(("stage_7", "top"))
    photo = keras.Input((64, 64, 3))
    model = keras.Model(photo, keras.layers.Dense(2, activation="softmax")(base(photo, training=False)))
    model.compile(keras.optimizers.AdamW(1e-4), "sparse_categorical_crossentropy")
    model.fit(train.images(64).astype("float32"), train.labels, batch_size=8, epochs=1, verbose=0)
    return model


def untrained(backbone, train):
    """08, 09: a head of zeros, before anything is fitted."""
    return tl.build_classifier(backbone, train.class_names)


def opened(backbone, train):
    """08: all layers opened, BatchNorm and all; and not trained."""
    model = tl.build_classifier(backbone, train.class_names)
    model.trainable = False
    model.trainable = True
    return model


def tuned(unfreeze, epochs=1, augment="none", **options):
    def build(backbone, train):
        keras.utils.set_random_seed(0)
        model = tl.build_classifier(backbone, train.class_names)
        tl.fine_tune(model, train, unfreeze=unfreeze, epochs=epochs, augment=augment, validation=0, batch_size=8, **options)
        return model

    build.__qualname__ = f"tuned {unfreeze}" + " boldly" * bool(options) + f" {augment}" * (augment != "none")
    return build


BOLD = {"learning_rate": 1e-3, "head_first": False}
last_stage, boldly = tuned("last_stage"), tuned("last_stage", **BOLD)
mirrored = tuned("last_stage", epochs=8, augment="mirror", learning_rate=3e-4, head_first=False)  # an epoch is four steps: fewer leave it at one class

# notebook → how it builds its classifiers. Parts of a classifier that take no photo (a tail above kept maps) are not models
# that can be audited with photos; the classifier they are cut from stands here.
TABLE = {
    "03_feature_extraction": [by_hand, head_on],
    "04_your_own_photos": [from_file],
    "06_where_to_cut": [],  # a model that gives what BatchNorm layers get, to look at
    "08_fine_tuning": [the_usual_way, untrained, opened, head_on, last_stage],
    "09_how_deep": [head_on, tuned("stage_7", epochs=2, **BOLD), tuned("batch_norm", epochs=6, head_first=False, learning_rate=1e-2)],
    "10_small_data_big_tricks": [boldly],
    "12_faster": [mirrored],
    "14_when_to_use_what": [],  # models that give what BatchNorm layers get, for the distance; in its solution too
    "solutions/08_fine_tuning": [untrained, last_stage],
    "solutions/09_how_deep": [tuned("stage_5"), tuned("all")],
    "solutions/10_small_data_big_tricks": [boldly],
    "solutions/14_when_to_use_what": [],
}
ON_PURPOSE = {the_usual_way: ["batchnorm_drift"]}  # chapter 8 shows this trap, and says how to get out of it


def test_every_notebook_that_builds_a_classifier_is_in_the_table():
    found = set()
    for path in [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")]:
        cells = nbformat.read(path, as_version=4).cells
        if any(BUILDS.search(cell.source) for cell in cells if cell.cell_type == "code") and path.stem not in SHOWS_TRAPS:
            found.add(path.relative_to(NOTEBOOKS).with_suffix("").as_posix())
    assert found == set(TABLE)


@pytest.fixture(scope="module")
def parts(solar):
    return solar.sample(per_class=32, seed=0).split(test_size=0.5, seed=0)


@pytest.mark.parametrize("build", dict.fromkeys(build for builds in TABLE.values() for build in builds), ids=lambda build: build.__qualname__)
def test_the_audit_finds_no_fault_in_what_the_book_builds(build, parts, small, tmp_path):
    train, test = parts
    model = build(small, train, tmp_path) if build is from_file else build(small, train)
    found = tl.audit(model, train, test)
    faults = [finding.check for finding in found.findings if finding.severity == "fault"]
    assert faults == ON_PURPOSE.get(build, []), found
    if build is the_usual_way:
        for layer in model.layers[1].layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        model.compile(keras.optimizers.AdamW(1e-4), "sparse_categorical_crossentropy")
        assert tl.audit(model, train, test).ok
    else:
        assert [finding.severity for finding in found.findings] in ([], ["note"]), found


def test_chapter_8_s_smallest_model_of_the_trap_is_known_by_its_probe():
    from tlhelpers.probes import moved_in_training, unchanged

    norm = keras.layers.BatchNormalization()
    inner = keras.Sequential([keras.Input((1,)), norm])
    value = keras.Input((1,))
    outer = keras.Model(value, keras.layers.Dense(1)(inner(value, training=False)))
    with unchanged(outer):
        ((layer, why, change),) = moved_in_training(outer, np.full((32, 1), 5.0))
    assert layer is norm and why == "training=False" and change == pytest.approx(0.05)
    assert norm.moving_mean.numpy()[0] == 0
