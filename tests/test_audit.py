"""audit.py and probes.py: each trap is found where it is, and nothing is found where it is not.

A trap is a broken model or broken data and the repaired one beside it; both are small networks made here with plain Keras.
"""

import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import tlhelpers as tl
from tlhelpers import probes

SIDE = 32


def checks(found, *severities):
    return [finding.check for finding in found.findings if not severities or finding.severity in severities]


# --- data and models ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(solar):
    """40 solar cells to train on, 40 to test; half of them defective."""
    return solar.sample(per_class=40, seed=0).split(test_size=0.5, seed=0)


@pytest.fixture(scope="module")
def arrays(parts):
    return [(part.images(SIDE).astype(np.float32), part.labels) for part in parts]


@pytest.fixture(scope="module")
def colour():
    """Photos with colour: 48 pieces of four photos of scikit-image, two classes (an animal or not), RGB 0..255."""
    draw, pieces = np.random.default_rng(0), []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photo = tl.load_photo(name)
        for _ in range(12):
            top, left = draw.integers(photo.shape[0] - 180), draw.integers(photo.shape[1] - 180)
            pieces.append(tl.resize_image(photo[top : top + 180, left : left + 180], SIDE))
    order = draw.permutation(48)
    return np.stack(pieces).astype(np.float32)[order], np.repeat([0, 1, 0, 0], 12)[order]


def filled(base, photos):
    """A network whose BatchNorm layers have seen these photos in training, as a trained one's have."""
    norms = [layer for layer in base._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    base(photos, training=True)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return base


def small_base(photos, scale=True, seed=1):
    keras.utils.set_random_seed(seed)
    blocks = [layers.Rescaling(1 / 127.5, offset=-1)] if scale else []
    for channels in (8, 16):
        blocks += [layers.Conv2D(channels, 3, strides=2, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    base = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *blocks, layers.GlobalAveragePooling2D()], name="base")
    return filled(base, photos)


def head_for(base, photos, labels, **options):
    """A fitted Dense layer, as weights."""
    head = tl.train_head(np.asarray(base(photos, training=False)), labels, strength=1.0)
    return [head.kernel, head.bias]


def with_head(base, photos, labels, *, activation="softmax", training=None, tail=(), outputs=2, dtype=None):
    """A functional model: the network as one layer, a last layer, what comes after it."""
    weights = head_for(base, photos, labels)
    x = keras.Input(base.input_shape[1:])
    last = layers.Dense(outputs, activation=activation, name="last", dtype=dtype or None)
    y = last(base(x) if training is None else base(x, training=training))
    for layer in tail:
        y = layer(y)
    if outputs == 1:
        weights = [weights[0][:, 1:] - weights[0][:, :1], weights[1][1:] - weights[1][:1]]
    last.set_weights(weights)
    return keras.Model(x, y)


@pytest.fixture(scope="module")
def base(arrays):
    return small_base(arrays[0][0])


@pytest.fixture
def model(base, arrays):
    """A sound one, with a network of its own."""
    base.trainable = True
    copy = keras.models.clone_model(base)
    copy.set_weights(base.get_weights())
    copy.trainable = False
    return with_head(copy, *arrays[0])


def batches(photos, labels, **options):
    return tf.data.Dataset.from_tensor_slices((photos, labels)).batch(8)


# --- sound models: nothing to be found ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine_tuned", [False, True])
def test_a_classifier_of_this_package_is_sound(parts, small, fine_tuned):
    train, test = parts
    head = tl.train_head(tl.extract_features(train, small), train.labels)
    classifier = tl.build_classifier(small, train.class_names, head=head)
    if fine_tuned:
        tl.fine_tune(classifier, train, epochs=1, unfreeze="last_stage", augment="none", validation=0)
    found = tl.audit(classifier, train, test)
    assert found.findings == () and found.ok and found.n_train == found.n_test == 40
    assert {"batchnorm_drift", "input_range", "overlap", "one_class", "worse_than_pixels"} <= set(found.checked)


@pytest.mark.parametrize(
    ("name", "preprocess"),
    [
        ("MobileNetV2", lambda x: x / 127.5 - 1),
        ("EfficientNetB0", None),
        ("ResNet50", lambda x: x[..., ::-1] - np.float32([103.939, 116.779, 123.68])),
    ],
)
def test_a_network_of_keras_applications_with_a_new_head_is_sound(parts, arrays, name, preprocess):
    keras.utils.set_random_seed(0)
    photos = arrays[0][0] if preprocess is None else preprocess(arrays[0][0])
    base = getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3), pooling="avg")
    filled(base, photos).trainable = False
    model = with_head(base, photos, arrays[0][1], training=False)
    model.compile("adam", "sparse_categorical_crossentropy")
    assert tl.audit(model, *parts, preprocess=preprocess).findings == ()
    if name == "ResNet50":  # one of them as it is often used: without preprocess_input
        assert set(checks(tl.audit(model, *parts), "fault")) >= {"input_range"}


class Subclassed(keras.Model):
    def __init__(self, base):
        super().__init__()
        self.base, self.last = base, layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.last(self.base(x, training=False))  # this way the word holds


def test_a_subclassed_model_is_sound(parts, arrays, base):
    base.trainable = True
    model = Subclassed(base)
    model(arrays[0][0][:2])
    model.last.set_weights(head_for(base, *arrays[0]))
    with pytest.raises(ValueError, match="does not say which size of photos it takes .* give image_size="):
        tl.audit(model, *parts)
    assert tl.audit(model, *parts, image_size=SIDE).findings == ()


def test_a_sequential_model_with_a_network_inside_and_one_output_is_sound(arrays, base):
    base.trainable = False
    kernel, bias = head_for(base, *arrays[0])
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), base, layers.Dropout(0.5), layers.Dense(1)])
    model.layers[-1].set_weights([kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(*arrays[0], epochs=1, verbose=0)
    assert tl.audit(model, batches(*arrays[0]), batches(*arrays[1])).findings == ()


def test_a_model_trained_from_scratch_is_sound(parts, arrays):
    keras.utils.set_random_seed(0)
    x = keras.Input((SIDE, SIDE, 3))
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(layers.Rescaling(1 / 255)(x)))
    model = keras.Model(x, layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(layers.ReLU()(y))))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    for epochs in (2, 28):  # its statistics on their way, and settled
        model.fit(*arrays[0], epochs=epochs, batch_size=8, verbose=0)
        assert "input_range" not in checks(tl.audit(model, *parts))
    assert checks(tl.audit(model, *parts), "fault") == []


# --- traps of training ----------------------------------------------------------------------------------------------------


def test_batchnorm_that_drifts_though_called_with_training_false(parts, arrays, base):
    base.trainable = True
    model = with_head(base, *arrays[0], training=False)
    before = [norm.moving_mean.numpy() for norm in base.layers if isinstance(norm, layers.BatchNormalization)]
    found = tl.audit(model, *parts)
    assert checks(found) == ["batchnorm_drift"]
    assert found.findings[0].evidence["layers"] == len(before) == 2 and found.findings[0].evidence["meant"] == "training=False"
    for norm in base.layers:
        if isinstance(norm, layers.BatchNormalization):
            norm.trainable = False
    assert tl.audit(model, *parts).findings == ()
    base.trainable = True


def test_batchnorm_in_training_on_purpose_is_no_finding(parts, arrays, base):
    base.trainable = True  # fine-tuned with its statistics: nobody said that they should stay
    assert tl.audit(with_head(base, *arrays[0]), *parts).findings == ()


def test_batchnorm_unfrozen_inside_a_frozen_part_drifts_and_trains_nothing(parts, model):
    base = model.get_layer("base")
    for layer in base.layers:
        layer.trainable = True  # and not the part: the forgotten unfreeze
    found = tl.audit(model, *parts)
    assert checks(found) == ["batchnorm_drift", "hidden_trainable"] and checks(found, "note") == ["hidden_trainable"]
    base.trainable = True
    assert tl.audit(model, *parts).findings == ()


@pytest.mark.parametrize(("first", "then", "check"), [(True, False, "frozen_after_compile"), (False, True, "unfrozen_without_compile")])
def test_flags_changed_after_compiling(parts, arrays, model, first, then, check):
    base = model.get_layer("base")
    for norm in (layer for layer in base.layers if isinstance(layer, layers.BatchNormalization)):
        norm.trainable = False
    kernels = [layer for layer in base.layers if isinstance(layer, layers.Conv2D)]
    base.trainable = base._trainable = True
    for layer in base.layers:
        layer.trainable = first and layer in kernels
    model.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
    model.fit(*arrays[0], verbose=0)
    for layer in kernels:
        layer.trainable = then
    before = kernels[0].kernel.numpy()
    model.fit(*arrays[0], verbose=0)
    assert np.array_equal(kernels[0].kernel.numpy(), before) is not first  # the trap is there: the flag says the contrary
    found = tl.audit(model, *parts)
    assert checks(found) == [check] and found.findings[0].evidence["variables"] == 2
    model.compile(keras.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
    assert tl.audit(model, *parts).findings == ()
    model.fit(*arrays[0], verbose=0)
    assert tl.audit(model, *parts).findings == ()


def test_a_model_frozen_when_it_is_done_is_sound(parts, arrays, model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*arrays[0], verbose=0)
    model.trainable = False
    assert tl.audit(model, *parts).findings == ()


# --- traps of the loss ----------------------------------------------------------------------------------------------------

TWICE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("activation", "outputs", "tail", "loss", "expected"),
    [
        ("softmax", 2, "reshaped", TWICE, ["activation_twice"]),
        ("softmax", 2, "float16", TWICE, ["activation_twice"]),
        ("sigmoid", 1, "reshaped", keras.losses.BinaryCrossentropy(from_logits=True), ["activation_twice"]),
        ("softmax", 2, None, TWICE, ["activation_twice_rescued"]),
        (None, 2, None, "sparse_categorical_crossentropy", ["activation_missing"]),
        (None, 2, None, keras.losses.CategoricalCrossentropy(), ["activation_missing"]),
        (None, 1, None, "binary_crossentropy", ["activation_missing"]),
        (None, 2, None, TWICE, []),
        ("softmax", 2, "reshaped", "sparse_categorical_crossentropy", []),
        ("softmax", 2, None, keras.losses.CategoricalCrossentropy(label_smoothing=0.1), []),
        ("sigmoid", 1, None, "binary_crossentropy", []),
        (None, 2, None, "mse", []),
    ],
)
def test_activation_against_loss(parts, arrays, base, activation, outputs, tail, loss, expected):
    base.trainable = False
    # Behind such a layer Keras no longer finds the logits; nor where the outputs are half as wide as what the loss computes in.
    tail = {"reshaped": [layers.Reshape((outputs,))], "float16": [], None: []}[(width := tail)]
    model = with_head(base, *arrays[0], activation=activation, outputs=outputs, tail=tail, dtype=width == "float16" and "mixed_float16")
    model.compile("sgd", loss)
    found = tl.audit(model, *parts)
    assert checks(found) == expected
    if expected == ["activation_twice"]:
        p = model.predict(arrays[1][0], verbose=0)
        said = p if outputs == 2 else np.hstack([np.zeros_like(p), p])  # taken for logits
        ours = -np.log(np.exp(said)[np.arange(40), arrays[1][1]] / np.exp(said).sum(axis=1))
        assert abs(found.findings[0].evidence["loss"] - ours.mean()) < 0.05  # of 32 of the 40 photos


# --- traps of the input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "wants", "given", "check", "change"),
    [
        (False, lambda x: x / 127.5 - 1, None, "input_range", "divided by 127.5, less 1"),
        (False, lambda x: x / 127.5 - 1, lambda x: x / 255, "input_range", "times 2, less 1"),
        (False, lambda x: x / 255, lambda x: x, "input_range", "divided by 255"),
        (True, None, lambda x: x / 255, "preprocessing_twice", "times 255"),
        (True, None, lambda x: x / 127.5 - 1, "preprocessing_twice", "plus 1, times 127.5"),
    ],
)
def test_photos_in_a_range_that_the_network_does_not_know(parts, arrays, scale, wants, given, check, change):
    right = arrays[0][0] if wants is None else wants(arrays[0][0])
    base = small_base(right, scale)
    base.trainable = False
    model = with_head(base, right, arrays[0][1])
    found = tl.audit(model, *parts, preprocess=given)
    about = [finding for finding in found.findings if finding.check == check]
    assert [finding.evidence["change"] for finding in about] == [change] * 2  # of the training and of the test photos
    assert tl.audit(model, *parts, preprocess=wants).findings == ()


def test_only_the_test_photos_in_a_wrong_range(arrays, model):
    (photos, labels), (others, answers) = arrays
    found = tl.audit(model, batches(photos, labels), batches(others / 255, answers))
    assert [finding.evidence["side"] for finding in found.findings if finding.check == "preprocessing_twice"] == ["test"]
    assert tl.audit(model, batches(photos, labels), batches(others, answers)).findings == ()


def test_red_and_blue_exchanged(colour):
    photos, labels = colour
    base = small_base(photos[:24])
    base.trainable = False
    model = with_head(base, photos[:24], labels[:24])
    train, test = batches(photos[:24], labels[:24]), (photos[24:], labels[24:])
    assert not {"channel_order", "input_range"} & set(checks(tl.audit(model, train, batches(*test))))
    assert "channel_order" in checks(tl.audit(model, train, batches(test[0][..., ::-1], test[1])), "fault")


def test_red_and_blue_exchanged_before_a_network_that_has_learned_imagenet(small, colour):
    photos = np.stack([tl.resize_image(photo.astype(np.uint8), 64) for photo in colour[0]]).astype(np.float32)
    right, wrong = probes.input_fit(small.model, photos), probes.input_fit(small.model, photos[..., ::-1])
    assert min(right, key=right.get) == ("as given", "RGB") and min(wrong, key=wrong.get) == ("as given", "BGR")
    assert wrong["as given", "BGR"] == pytest.approx(right["as given", "RGB"], rel=1e-3)


def test_a_network_without_statistics_is_not_judged_by_them(arrays):
    fresh = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    assert probes.input_fit(fresh, arrays[0][0]) == {}


# --- traps of the data ----------------------------------------------------------------------------------------------------


def test_copies_on_both_sides(parts, model, tmp_path):
    train, test = parts
    pixels = Image.fromarray(train.image(3))
    pixels.resize((200, 200)).save(tmp_path / "again.jpg", quality=80)
    files, labels = [*test.files, train.files[5], tmp_path / "again.jpg"], np.array([*test.labels, *train.labels[[5, 3]]])
    leaky = tl.Dataset("leaky", files, labels, test.class_names, None)
    found = tl.audit(model, train, leaky)
    assert checks(found) == ["overlap"] and not found.ok
    finding = found.findings[0]
    assert (finding.evidence["copies"], finding.evidence["exact"], finding.evidence["near"], finding.evidence["n"]) == (2, 1, 1, 42)
    assert {name.rsplit("/", 1)[-1] for name in finding.photos} == {train.files[5].name, "again.jpg"}
    clean = leaky.subset(slice(40))
    assert tl.audit(model, train, clean).findings == ()
    # the fingerprint: another order of the files, another model, and the photos in the order of their contents
    turned = tl.audit(with_head(small_base(train.images(SIDE), seed=7), train.images(SIDE), train.labels),
                      train.subset(np.arange(40)[::-1]), leaky.subset(np.random.default_rng(1).permutation(42)))
    again = next(finding for finding in turned.findings if finding.check == "overlap")
    assert again.fingerprint == finding.fingerprint and again.photos == finding.photos
    fewer = tl.audit(model, train, leaky.subset(slice(41)))
    assert fewer.findings[0].fingerprint != finding.fingerprint  # other photos, another finding
    shown = found._repr_html_()
    assert shown.count("<img alt=") == 2 and "overlap" in shown


@pytest.mark.parametrize("again", [True, False])
def test_a_test_set_cut_from_data_that_shuffles_anew(arrays, model, again):
    photos, labels = (np.concatenate(part) for part in zip(*arrays))
    data = tf.data.Dataset.from_tensor_slices((photos, labels)).shuffle(80, seed=0, reshuffle_each_iteration=again)
    found = tl.audit(model, data.skip(40).batch(8), data.take(40).batch(8))
    if again:
        assert set(checks(found, "fault")) == {"test_reshuffled", "overlap"}
        same = next(finding for finding in found.findings if finding.check == "test_reshuffled").evidence["same"]
        assert 5 < same < 35  # half of the photos, by lot
    else:
        assert found.findings == ()


def test_a_test_set_in_another_order_each_time_is_a_note_only(arrays, model):
    test = tf.data.Dataset.from_tensor_slices(arrays[1]).shuffle(40, seed=0).batch(8)
    assert [(finding.check, finding.severity) for finding in tl.audit(model, batches(*arrays[0]), test).findings] == [("test_order", "note")]


def random_turn(x, y):
    return tf.image.random_brightness(tf.image.random_flip_left_right(x), 30.0), y


def random_mirror(x, y):
    return tf.image.random_flip_left_right(x), y  # half of the photos come again as they were


def random_piece(x, y):
    return tf.image.resize(tf.image.random_crop(x, (tf.shape(x)[0], 22, 22, 3)), (SIDE, SIDE)), y


@pytest.mark.parametrize("change", [random_turn, random_piece, random_mirror])
def test_augmentation_applied_to_test_photos(arrays, model, change):
    tf.random.set_seed(None)  # after set_random_seed tf.data draws the same in each pass: then this cannot be seen
    train = batches(*arrays[0]).map(change)  # here it belongs
    assert "test_augmented" in checks(tl.audit(model, train, batches(*arrays[1]).map(change)), "fault")
    assert tl.audit(model, train, batches(*arrays[1])).findings == ()


def test_copies_are_found_among_photos_of_tf_data_in_whatever_range(arrays, model):
    photos, labels = arrays[1]
    leaky = np.concatenate([photos, photos[:3, :, ::-1]])
    train = (np.concatenate([arrays[0][0], photos[:2]]), np.concatenate([arrays[0][1], labels[:2]]))
    found = tl.audit(model, batches(*train), batches(leaky, np.concatenate([labels, labels[:3]])))
    assert checks(found) == ["overlap"] and set(found.findings[0].photos) == {"test[0]", "test[1]", "test[40]", "test[41]"}


def test_classes_in_another_order(parts, model):
    train, test = parts
    turned = replace(test, labels=1 - test.labels, class_names=test.class_names[::-1])
    found = tl.audit(model, train, turned)
    assert "class_order" in checks(found, "fault")
    model.class_names = turned.class_names
    assert checks(tl.audit(model, train, test)) == ["class_order"]
    model.class_names = train.class_names
    assert tl.audit(model, train, test).findings == ()


@pytest.fixture(scope="module")
def people(faces):
    """Four people, ten photos of each: 20 to train on, 20 to test."""
    rows = np.flatnonzero(faces.labels < 4)
    few = tl.Dataset("people", [faces.files[row] for row in rows], faces.labels[rows], faces.class_names[:4], None)
    return few.subset(np.arange(40) % 2 == 0), few.subset(np.arange(40) % 2 == 1)


def pixel_model(data, columns=slice(None)):
    """A network that looks at small raw photos: right on faces."""
    side, x = 16, keras.Input((SIDE, SIDE, 3))
    shrink = keras.Sequential([layers.AveragePooling2D(SIDE // side), layers.Flatten(), layers.Rescaling(1 / 255)])
    last = layers.Dense(4, activation="softmax")
    model = keras.Model(x, last(shrink(x)))
    kernel, bias = head_for(shrink, data.images(SIDE).astype(np.float32), data.labels)
    last.set_weights([kernel[:, columns], bias[columns]])
    return model


def test_outputs_that_stand_for_other_classes(people):
    assert tl.audit(pixel_model(people[0]), *people).findings == ()
    found = tl.audit(pixel_model(people[0], [1, 2, 0, 3]), *people)
    evidence = next(finding for finding in found.findings if finding.check == "class_permuted").evidence
    assert evidence["moved"] == 3 and evidence["permuted"] > 0.8 and evidence["accuracy"] < 0.4


def test_a_class_without_training_photos(people):
    train, test = people
    found = tl.audit(pixel_model(train), train.subset(train.labels < 3), test)
    finding = next(finding for finding in found.findings if finding.check == "class_unknown")
    assert finding.evidence == {"n": 5, "names": test.class_names[3]} and len(finding.photos) == 5


def test_a_network_that_pixels_beat(people):
    train, test = people
    wrong = replace(train, labels=np.random.default_rng(0).permutation(train.labels))
    assert checks(tl.audit(pixel_model(wrong), train, test)) == ["worse_than_pixels"]


# --- traps of what comes out ----------------------------------------------------------------------------------------------


def test_one_class_for_all_photos_of_unbalanced_classes(parts, model):
    train, test = parts
    kernel, bias = model.get_layer("last").get_weights()
    said = model.predict(test.images(SIDE).astype(np.float32), verbose=0)
    beyond = np.log(said[:, 1] / said[:, 0]).max() + 0.1  # so much more for class 0, and it is said always
    model.get_layer("last").set_weights([kernel, bias + np.float32([beyond, 0])])
    found = tl.audit(model, train, test)
    assert checks(found, "fault") == ["one_class"] and found.findings[0].evidence["others"] == 20
    few = test.subset(np.r_[np.flatnonzero(test.labels == 0), np.flatnonzero(test.labels == 1)[:3]])
    assert checks(tl.audit(model, train, few), "warning") == ["one_class"]  # with so few, it may yet be chance
    model.get_layer("last").set_weights([kernel, bias])
    assert "one_class" not in checks(tl.audit(model, train, few))


def test_dead_and_constant_outputs(parts, arrays, base, model):
    weights = model.get_layer("base").get_weights()
    norm = [layer for layer in model.get_layer("base").layers if isinstance(layer, layers.BatchNormalization)][-1]
    norm.beta.assign(np.full(norm.beta.shape, -1e3))  # the last ReLU lets nothing through
    assert "constant_output" in checks(tl.audit(model, *parts), "fault")
    model.get_layer("base").set_weights(weights)
    assert tl.audit(model, *parts).findings == ()
    one = with_head(base, *arrays[0], activation="softmax", outputs=1)  # a softmax over one output is always 1
    assert "constant_output" in checks(tl.audit(one, *parts))


def test_one_dead_output_among_others(parts, arrays, base):
    model = with_head(base, *arrays[0], activation="relu", tail=[])
    kernel, bias = model.get_layer("last").get_weights()
    model.get_layer("last").set_weights([kernel, bias + np.float32([100, -1e4])])
    assert "dead_outputs" in checks(tl.audit(model, *parts), "warning")


def test_outputs_that_are_no_number(parts, model):
    kernel, bias = model.get_layer("last").get_weights()
    model.get_layer("last").set_weights([kernel, bias * np.nan])
    found = tl.audit(model, *parts)
    assert checks(found) == ["not_finite"] and found.findings[0].evidence == {"n": 40, "total": 40} and len(found.findings[0].photos) == 40
    json.loads(found.to_json())


def test_a_head_that_is_not_trained_yet_is_a_note_only(parts, small):
    found = tl.audit(tl.build_classifier(small, parts[0].class_names), *parts)
    assert checks(found) == checks(found, "note") == ["untrained_head"]


def test_outputs_without_a_class(parts, arrays, base):
    model = with_head(base, *arrays[0], outputs=2, tail=[layers.Dense(5, activation="softmax", kernel_initializer="identity")])
    assert checks(tl.audit(model, *parts), "warning") == ["too_many_outputs"]


def test_chance_at_prediction(parts, arrays, base):
    base.trainable = False
    kernel, bias = head_for(base, *arrays[0])
    for training, expected in ((True, ["random_predictions"]), (None, [])):
        x = keras.Input((SIDE, SIDE, 3))
        last = layers.Dense(2, activation="softmax")
        model = keras.Model(x, last(layers.Dropout(0.3)(base(x), training=training)))
        last.set_weights([kernel, bias])
        # In a functional model the outer word wins, so the layer has to say it itself.
        if training:
            dropout = model.layers[-2]
            dropout.call, call = (lambda inputs, training=False: call(inputs, training=True)), dropout.call
        assert checks(tl.audit(model, *parts), "fault") == expected


class AlwaysTraining(keras.Model):
    def __init__(self, base, training):
        super().__init__()
        self.base, self.last, self.word = base, layers.Dense(2, activation="softmax"), training

    def call(self, x):
        return self.last(self.base(x, training=self.word))


def test_predictions_that_depend_on_the_batch(parts, arrays, base):
    base.trainable = True
    for training, expected in ((True, ["batch_dependence"]), (False, [])):
        model = AlwaysTraining(base, training)
        with probes.unchanged(base):
            model(arrays[0][0][:4])
        model.last.set_weights(head_for(base, *arrays[0]))
        assert checks(tl.audit(model, *parts, image_size=SIDE), "fault") == expected


# --- nothing is changed ---------------------------------------------------------------------------------------------------


def state_of(model):
    variables = [*model.variables, *model.metrics_variables, *model.optimizer.variables]
    flags = [(layer.name, layer._trainable, layer.trainable) for layer in model._flatten_layers()]
    compiled = (id(model.optimizer), id(model.train_function), id(model.test_function), id(model.predict_function), model.compiled, model.loss)
    return [variable.numpy().tobytes() for variable in variables], flags, compiled, [sorted(layer.__dict__) for layer in model._flatten_layers()]


@pytest.fixture
def busy(arrays):
    """A model with all there is to change: statistics that drift, random states, an optimiser with a memory, metrics."""
    base = small_base(arrays[0][0])
    x = keras.Input((SIDE, SIDE, 3))
    y = layers.Dropout(0.5)(base(layers.RandomFlip(seed=3)(x), training=False))
    model = keras.Model(x, layers.Dense(2, activation="softmax", name="last")(y))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*arrays[0], epochs=1, verbose=0)
    base.layers[1].trainable = False
    return model


def test_the_audit_changes_nothing(parts, busy):
    before = state_of(busy)
    found = tl.audit(busy, *parts)
    assert "batchnorm_drift" in checks(found)  # something was moved, and is back
    assert state_of(busy) == before


@pytest.mark.parametrize("place", ["moved_in_training", "input_fit", "run", "output_activation"])
def test_the_audit_changes_nothing_when_it_fails(parts, busy, monkeypatch, place):
    before = state_of(busy)
    real = getattr(probes, place)

    def fail(*args):
        real(*args)
        raise MemoryError

    monkeypatch.setattr(probes, place, fail)
    with pytest.raises(MemoryError):
        tl.audit(busy, *parts)
    monkeypatch.undo()
    assert state_of(busy) == before


def test_training_goes_on_after_an_audit_as_without(parts, arrays, busy):
    kept = [variable.numpy() for variable in probes.variables_of(busy)]
    losses = []
    for look in (False, True):
        for variable, value in zip(probes.variables_of(busy), kept):
            variable.assign(value)
        if look:
            tl.audit(busy, *parts)
        losses.append([float(busy.train_on_batch(*arrays[0])[0]) for _ in range(3)])
    assert losses[0] == losses[1]


def test_whatever_is_done_inside_unchanged_is_undone(busy, arrays):
    before = state_of(busy)[:2]
    with pytest.raises(KeyError), probes.unchanged(busy):
        busy.trainable = False
        busy.trainable = True
        busy.set_weights([np.full_like(weight, np.nan) for weight in busy.get_weights()])
        busy.optimizer.learning_rate.assign(7.0)
        raise KeyError
    assert state_of(busy)[:2] == before


# --- calls, text, JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "model.keras"}, TypeError, "model is a str; expected a keras.Model"),
        ({"model": keras.Sequential([layers.Dense(2)])}, ValueError, "no weights yet; call it once on a batch of photos"),
        ({"train": 7}, TypeError, "train is a int; expected a tl.Dataset, a folder"),
        ({"test": "no/such/folder"}, ValueError, "test: no/such/folder: there is no such folder"),
        ({"test": tf.data.Dataset.range(3)}, ValueError, r"expected \(photos, labels\)"),
        ({"test": tf.data.Dataset.from_tensor_slices((np.zeros((3, 8, 8, 3)), [0, 1, 1]))}, ValueError, r"call .batch\(32\)"),
        ({"test": tf.data.Dataset.from_tensors((np.zeros((3, 8, 8, 3)), [0, 1, 1])).repeat()}, ValueError, "leave out .repeat"),
        ({"test": tf.data.Dataset.from_tensors((np.zeros((3, 8, 8, 1)), [0, 1, 1]))}, ValueError, r"expected batches \(n, height, width, 3\)"),
        ({"test": tf.data.Dataset.from_tensors((np.zeros((3, 8, 8, 3)), [0.5, 1, 1]))}, ValueError, "expected whole numbers from 0"),
        ({"max_photos": 1}, ValueError, "max_photos is 1; expected a whole number, 2 or more"),
    ],
)
def test_a_wrong_call_gets_a_sentence(parts, model, change, error, message):
    call = {"model": model, "train": parts[0], "test": parts[1]} | change
    with pytest.raises(error, match=message):
        tl.audit(call.pop("model"), call.pop("train"), call.pop("test"), **call)


def test_a_model_of_fewer_classes_than_the_data_gets_a_sentence(people, model):
    with pytest.raises(ValueError, match="2 outputs, but there are 4 classes"):
        tl.audit(model, *people)


def test_what_is_found_reads_as_text_and_as_json(parts, model):
    train, test = parts
    found = tl.audit(model, train, test.subset([*range(40), 0]).subset(slice(40)))
    assert str(found) == f"nothing found ({len(found.checked)} checks, 40 training and 40 test photos)"
    found = tl.audit(model, train, train)
    text, stored = str(found), json.loads(found.to_json())
    assert text.startswith("1 fault (") and "FAULT   overlap" in text and stored["findings"][0]["fingerprint"] in text
    assert stored["ok"] is False and stored["n_test"] == 40 and len(stored["findings"][0]["photos"]) == 40
    assert set(stored["findings"][0]) == {"check", "severity", "what", "evidence", "why", "mend", "section", "photos", "fingerprint"}


def test_folders_are_read_and_a_class_that_the_test_lacks_shifts_nothing(parts, model, tmp_path):
    for side, part in zip(("train", "test"), parts):
        for name in part.class_names:
            (tmp_path / side / name).mkdir(parents=True)
        for file, label in zip(part.files, part.labels):
            shutil.copy(file, tmp_path / side / part.class_names[label] / file.name)
    model.class_names = parts[0].class_names  # functional, defective: not the order of the alphabet
    found = tl.audit(model, str(tmp_path / "train"), tmp_path / "test")
    assert found.findings == () and found.n_train == found.n_test == 40
    shutil.rmtree(tmp_path / "test" / "functional")
    found = tl.audit(model, tmp_path / "train", tmp_path / "test")
    assert found.findings == () and found.n_test == 20


def test_a_photo_that_cannot_be_read_is_left_out_and_named(parts, model, tmp_path):
    train, test = parts
    (tmp_path / "broken.png").write_bytes(b"no photo")
    files = [tmp_path / "broken.png", tmp_path / "gone.png", *test.files]
    broken = tl.Dataset("broken", files, np.array([0, 1, *test.labels]), test.class_names, None)
    found = tl.audit(model, train, broken)
    assert found.findings == () and [file.rsplit("/", 1)[-1] for file, _ in found.left_out] == ["gone.png", "broken.png"]


# --- the texts ------------------------------------------------------------------------------------------------------------

TEXTS = tomllib.loads((Path(tl.__file__).parent / "audit.toml").read_text("utf-8"))


def test_every_check_has_its_texts_and_a_test_here():
    source = Path(__file__).read_text("utf-8")
    for check, text in TEXTS.items():
        assert set(text) == {"severity", "what", "why", "mend", "section"} and text["severity"] in ("fault", "warning", "note")
        assert f'"{check}"' in source


def test_every_section_is_a_heading_of_the_trap_lab():
    path = Path(__file__).parents[1] / "notebooks" / "16_trap_lab.ipynb"
    if not path.exists():
        pytest.skip("this copy of the book has no trap lab")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    headings = {re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower().replace(" ", "-") for cell in cells for line in cell.splitlines() if line.startswith("#")}
    assert {text["section"] for text in TEXTS.values()} <= headings
