"""fine_tune: what trains and what does not, the same losses both ways, kills, bad calls."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlhelpers as tl
from tlhelpers.images import VARIANTS, vary

SIZE = 64


@pytest.fixture(scope="module")
def backbone():
    return tl.load_backbone("efficientnet_lite0", image_size=SIZE)


@pytest.fixture(scope="module")
def people():
    """Four people, ten photos each."""
    faces = tl.load_dataset("faces")
    rows = np.flatnonzero(faces.labels < 4)
    found = faces.subset(rows)
    return type(found)(found.name, found.files, found.labels, found.class_names[:4], found.card)


@pytest.fixture(scope="module")
def cells():
    """160 solar cells: a task that no network of this size solves at once."""
    return tl.load_dataset("solar_cells").sample(per_class=80, seed=0)


def new(backbone, people):
    return tl.build_classifier(backbone, people.class_names)


@pytest.fixture(scope="module")
def untouched(backbone, people):
    """For calls that must change nothing, which each of them proves."""
    return new(backbone, people)


def small_network(people, dropout=0.0):
    """For what any network shows, the same at each call: three convolutions, Dropout below and above its cut points."""
    import keras
    from keras import layers

    x = photos = keras.Input((SIZE, SIZE, 3), name="photos")
    x = layers.Rescaling(1 / 255)(x)
    for number, channels in enumerate((8, 16, 16), start=1):
        kernel = keras.initializers.GlorotUniform(seed=number)
        x = layers.Conv2D(channels, 3, strides=2, padding="same", kernel_initializer=kernel, name=f"conv_{number}")(x)
        x = layers.Dropout(dropout, noise_shape=(None, 1, 1, 1), name=f"drop_{number}")(x)
        x = layers.ReLU(name=f"relu_{number}")(layers.BatchNormalization(name=f"norm_{number}")(x))
    logits = layers.Dense(4, name="logits", kernel_initializer=keras.initializers.GlorotUniform(seed=4))(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(photos, layers.Softmax(name="probabilities")(logits))
    model.class_names = people.class_names
    return model


def weights_of(model):
    return {weight.path: weight.numpy().copy() for weight in model.weights}


def changed(before, model):
    return {path for path, value in weights_of(model).items() if not np.array_equal(value, before[path])}


def layers_of(paths):
    return {path.split("/")[-2] for path in paths}


# --- what trains --------------------------------------------------------------------------------------------------

LAYERS_ABOVE = {
    "head": (),
    "top": ("top_conv", "top_bn"),
    "last_stage": ("stage_7", "top_conv", "top_bn"),
    "stage_7": ("stage_7", "top_conv", "top_bn"),
    "stage_6": ("stage_6", "stage_7", "top_conv", "top_bn"),
    "stem": ("stem", "stage", "top"),
    "all": ("stem", "stage", "top"),
}


@pytest.mark.parametrize("unfreeze", [*LAYERS_ABOVE, "batch_norm"])
def test_just_the_part_asked_for_trains_and_batch_norm_keeps_its_statistics(unfreeze, backbone, people, tmp_path):
    import keras

    classifier = new(backbone, people)
    before, flags = weights_of(classifier), [layer.trainable for layer in classifier.layers]
    history = tl.fine_tune(classifier, people, unfreeze=unfreeze, epochs=1, validation=0, learning_rate=1e-2, batch_size=20)
    after = changed(before, classifier)
    if unfreeze == "batch_norm":
        expected = {path for path in before if path.endswith(("gamma", "beta"))}
    else:
        expected = {
            path for path in before
            if path.split("/")[-2].startswith(LAYERS_ABOVE[unfreeze]) and not path.endswith(("mean", "variance"))
        } if LAYERS_ABOVE[unfreeze] else set()  # fmt: skip
    expected |= {path for path in before if "logits" in path}
    assert after == expected
    assert history.trained_parameters == sum(before[path].size for path in expected)
    assert [layer.trainable for layer in classifier.layers] == flags
    # the file as well
    tl.save_classifier(classifier, tmp_path / "model.keras")
    photos = people.subset(slice(4)).images(SIZE).astype(np.float32)
    said = np.asarray(classifier(photos, training=False))
    for name, loaded in (("tlhelpers", tl.load_classifier(tmp_path / "model.keras")), ("keras", keras.models.load_model(tmp_path / "model.keras"))):
        statistics = {path for path in before if path.endswith(("moving_mean", "moving_variance"))}
        now = weights_of(loaded)
        assert len(statistics) == 2 * 49, name
        for path in statistics:
            assert np.array_equal(now[path], before[path]), (name, path)
        assert np.array_equal(np.asarray(loaded(photos, training=False)), said), name


def test_the_backbone_it_was_built_on_stays_as_it_was(backbone, people):
    before = weights_of(backbone.model)
    tl.fine_tune(new(backbone, people), people, unfreeze="all", epochs=1, validation=0)
    assert not changed(before, backbone.model)


@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny", "NASNetMobile"])
def test_networks_of_keras_train_as_well(name, people):
    from tlhelpers.backbones import _load_keras_backbone

    size = 96
    network = _load_keras_backbone(name, size, weights=None)
    classifier = tl.build_classifier(network, people.class_names)
    before = weights_of(classifier)
    history = tl.fine_tune(classifier, people, epochs=1, validation=0, batch_size=20, head_first=False)
    after = changed(before, classifier)
    assert history.computed_once == (name != "NASNetMobile")  # it has a way around every place but its ends
    assert any("logits" in path for path in after)
    assert 2 < len(after) < len(before) / 2, name
    assert not any(path.endswith(("moving_mean", "moving_variance")) for path in after)


# --- computed once, or each time: the same ------------------------------------------------------------------------


@pytest.mark.parametrize("unfreeze", ["last_stage", "stage_5"])
def test_the_first_20_losses_are_those_of_the_usual_way(unfreeze, backbone, cells):
    steps = {}
    for once in (True, False):
        history = tl.fine_tune(
            new(backbone, cells), cells, unfreeze=unfreeze, epochs=4, validation=0, augment="none", compute_once=once
        )
        assert history.computed_once == once
        steps[once] = np.array(history.steps)
    assert len(steps[True]) == 20 and (steps[True] > 0.01).all()
    np.testing.assert_allclose(steps[True], steps[False], rtol=1e-4)
    if outputs_are_those_of_any_batch(backbone, cells, {"last_stage": "stage_6", "stage_5": "stage_4"}[unfreeze]):
        assert np.array_equal(steps[True], steps[False])  # not only near: the same bits


def outputs_are_those_of_any_batch(backbone, cells, cut_point):
    """Whether a photo gives the same bits with 7 others as with 31. On some processors the order of sums depends on it."""
    few, many = (
        tl.extract_features(cells, backbone, cut_point=cut_point, pool=False, engine="keras", batch_size=size, cache=False)
        for size in (8, 32)
    )
    return np.array_equal(few, many)


def test_the_first_20_losses_are_those_of_plain_keras(backbone, cells):
    """A loop as one would write it by hand: Keras's layers, optimizer and schedule, BatchNorm's layers in inference mode."""
    import keras
    import tensorflow as tf

    classifier = new(backbone, cells)
    head = tl.train_head(tl.extract_features(cells, backbone), cells.labels)
    classifier.get_layer("logits").set_weights([head.kernel, head.bias])
    photos, targets = cells.images(SIZE).astype(np.float32), np.eye(2)[cells.labels]
    variables = []
    for layer in classifier.layers:
        if layer.name.startswith(("stage_7", "top", "logits")):
            layer.trainable = True
            variables += layer.trainable_weights
    rate = keras.optimizers.schedules.CosineDecay(2e-4 / 3, 18, warmup_target=2e-4, warmup_steps=2)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(variables)
    loss_of, found = keras.losses.CategoricalCrossentropy(), []
    for epoch in range(4):
        order = np.random.default_rng([7, 2, epoch]).permutation(160)
        for rows in order.reshape(5, 32):
            with tf.GradientTape() as tape:
                loss = loss_of(targets[rows], classifier(photos[rows], training=False))
            optimizer.apply(tape.gradient(loss, variables), variables)
            found.append(float(loss))
    ours = tl.fine_tune(new(backbone, cells), cells, epochs=4, validation=0, learning_rate=2e-4, augment="none", seed=7)
    assert ours.computed_once and len(found) == 20
    np.testing.assert_allclose(ours.steps, found, rtol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "MobileNetV2", "EfficientNetB0"])
def test_a_convolution_that_takes_in_its_batch_norm_has_the_same_outputs_and_gradients(name, people):
    """In float64 the two ways are one: what differs in float32 is rounding."""
    import keras
    import tensorflow as tf

    from tlhelpers.backbones import _load_keras_backbone
    from tlhelpers.parts import Part

    size, rng = 96, np.random.default_rng(0)
    if name == "efficientnet_lite0":
        network = tl.load_backbone(name, image_size=size)
    else:
        network = _load_keras_backbone(name, size, weights=None)
    classifier = keras.models.clone_model(
        tl.build_classifier(network, people.class_names),
        clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "float64"}),
    )
    for layer in classifier.layers:  # statistics, scales and offsets as a trained network has them
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    logits = classifier.get_layer("logits")
    logits.set_weights([rng.normal(size=weight.shape) for weight in logits.get_weights()])
    part = Part(classifier, "all")
    photos = tf.constant(rng.uniform(0, 255, (2, size, size, 3)))

    def outputs_and_gradients():
        variables = [variable.value for variable in part.variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = part.whole(photos, training=False)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, 0])
        return [logits.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, variables))]

    with part.unfrozen():
        plain = outputs_and_gradients()
        with part.folded():
            taken_in = sum("call" in vars(layer) for layer in classifier.layers)
            folded = outputs_and_gradients()
        again = outputs_and_gradients()
    assert taken_in == 2 * len(part.norms)  # every BatchNorm of these networks stands on a convolution
    assert plain[0].dtype == np.float64
    for one, other, third in zip(plain, folded, again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-6, atol=1e-9 * np.abs(one).max())
        assert np.array_equal(third, one)  # and afterwards all is as before
    assert not any("call" in vars(layer) for layer in classifier.layers)


def test_a_convolution_whose_output_is_used_elsewhere_as_well_stays_alone():
    import keras

    from tlhelpers.parts import _pairs

    photo = keras.Input((8, 8, 3))
    alone, shared, to_model = (keras.layers.Conv2D(3, 3, padding="same", use_bias=False, name=name) for name in ("alone", "shared", "to_model"))
    norms = [keras.layers.BatchNormalization() for _ in range(3)]
    twice = keras.layers.Activation("relu")
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Activation("relu")])
    first, second, third = alone(photo), shared(photo), to_model(photo)
    outputs = [norms[0](first), norms[1](second), norms[2](third), twice(second), twice(photo), inner(third)]
    model = keras.Model(photo, keras.layers.Add()(outputs))
    assert _pairs(model) == [(alone, norms[0])]


def test_turned_photos_computed_once_give_the_losses_of_the_usual_way(backbone, cells):
    assert cells.card.symmetry == "turns_and_flips"
    steps = [
        tl.fine_tune(new(backbone, cells), cells, epochs=10, validation=0, compute_once=once).steps for once in (True, False)
    ]
    assert len(steps[0]) == 50
    np.testing.assert_allclose(*steps, rtol=1e-3)
    plain = tl.fine_tune(new(backbone, cells), cells, epochs=10, validation=0, augment="none").steps
    assert np.abs(np.array(plain) - steps[0]).max() > 0.01


def test_each_photo_comes_in_all_its_variants_before_one_comes_again(backbone, people):
    seen = []

    class Watched(type(people)):
        def image(self, index, **options):
            photo = np.zeros_like(super().image(index, **options))
            photo[:, :10] = 100 + index % 40  # a bar at the left
            return photo

    watched = Watched(people.name, people.files, people.labels, people.class_names, people.card)
    from tlhelpers.finetuning import _Source
    from tlhelpers.parts import Part

    source = _Source(Part(new(backbone, people), "all"), watched, VARIANTS["turns_and_flips"], 9, True, seed=3)
    for epoch in range(9):
        inputs, good = source.read(np.arange(40), epoch)
        assert good.all() and inputs.dtype == np.uint8
        seen.append(inputs)
    seen = np.array(seen)
    for row in range(40):
        corners = {seen[epoch, row].tobytes() for epoch in range(8)}
        assert len(corners) == 4  # the bar stands on one of four sides, each twice
        assert np.array_equal(seen[8, row], seen[0, row])
    assert len({tuple(seen[epoch, row].tobytes() for epoch in range(2)) for row in range(40)}) > 20


@pytest.mark.parametrize("variant", range(8))
def test_a_variant_is_a_quarter_turn_or_a_mirror_image(variant):
    photo = np.arange(2 * 2 * 3).reshape(2, 2, 3)
    assert np.array_equal(vary(photo, variant % 4), np.rot90(photo, variant % 4))
    if variant >= 4:
        assert np.array_equal(vary(photo, variant), vary(photo, variant - 4)[:, ::-1])
    assert len({vary(photo, number).tobytes() for number in range(8)}) == 8


def test_features_of_a_variant_are_those_of_a_turned_file(backbone, tmp_path):
    photo = tl.resize_image(tl.load_photo("chelsea"), SIZE)
    for name, array in (("plain", photo), ("turned", vary(photo, 5))):
        (tmp_path / name / "a").mkdir(parents=True)
        (tmp_path / name / "b").mkdir()
        for letter in "ab":
            Image.fromarray(array).save(tmp_path / name / letter / "photo.png")
    plain, turned = (tl.load_dataset(str(tmp_path / name)) for name in ("plain", "turned"))
    for _ in range(2):  # computed, then known
        assert np.array_equal(tl.extract_features(plain, backbone, variant=5), tl.extract_features(turned, backbone))
        assert not np.array_equal(tl.extract_features(plain, backbone), tl.extract_features(turned, backbone))
    assert np.array_equal(tl.features.predict(backbone.model, plain, variant=5), tl.features.predict(backbone.model, turned))
    with pytest.raises(ValueError, match="variant is 8; expected 0 to 7"):
        tl.extract_features(plain, backbone, variant=8)


# --- targets, validation, history ---------------------------------------------------------------------------------


def test_the_first_loss_is_that_of_the_formula(backbone, people):
    """Soft labels, smoothing and class weights, against numpy, from a last layer of zeros: all classes equally probable."""
    soft = np.random.default_rng(0).dirichlet(np.ones(4), len(people)).astype(np.float32)
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    history = tl.fine_tune(
        new(backbone, people), people, unfreeze="head", epochs=1, validation=0, batch_size=40, head_first=False, augment="none",
        soft_labels=soft, label_smoothing=0.2, class_weights=weights,
    )  # fmt: skip
    assert history.steps[0] == pytest.approx(np.log(4) * weights[people.labels].mean(), rel=1e-5)
    head = tl.train_head(tl.extract_features(people, backbone), people.labels)
    classifier = tl.build_classifier(backbone, people.class_names, head=head)
    said = classifier.predict(people.images(SIZE).astype(np.float32), verbose=0)
    target = 0.8 * soft + 0.05
    expected = (-(target * np.log(said)).sum(axis=1) * weights[people.labels]).mean()
    history = tl.fine_tune(
        classifier, people, unfreeze="last_stage", epochs=1, validation=0, batch_size=40, augment="none", soft_labels=soft,
        label_smoothing=0.2, class_weights=weights,
    )  # fmt: skip
    assert history.steps[0] == pytest.approx(expected, rel=1e-3)


def test_the_weights_kept_are_those_of_the_lowest_validation_loss(people):
    held = np.arange(len(people)) % 10 >= 7
    train, judge = people.subset(~held), people.subset(held)
    classifier = small_network(people)
    history = tl.fine_tune(classifier, train, unfreeze="all", epochs=6, validation=judge, patience=None, learning_rate=3e-2, augment="none")
    losses = [history.start[0], *history.validation_loss]
    assert len(losses) == 7 and history.best_epoch == int(np.argmin(losses))
    said = classifier.predict(judge.images(SIZE).astype(np.float32), verbose=0)
    now = -np.log(np.maximum(said[np.arange(len(judge)), judge.labels], 1e-30)).mean()
    assert now == pytest.approx(min(losses), rel=1e-3)


def test_it_stops_where_nothing_gets_better(people):
    history = tl.fine_tune(
        small_network(people), people, unfreeze="all", epochs=20, validation=0.25, patience=2, learning_rate=0.1, augment="none"
    )
    assert len(history.loss) == history.best_epoch + 2 < 20
    assert len(history.validation_loss) == len(history.loss) == len(history.seconds) == len(history.learning_rate)
    assert "weights are those after epoch" in str(history)


def test_a_tenth_is_set_aside_where_there_are_ten_photos_a_class(backbone, people):
    history = tl.fine_tune(new(backbone, people), people, unfreeze="head", epochs=1)
    assert len(history.validation_loss) == 1 and "on 36 photos" in history.plan and "judged by 4 other photos" in history.plan
    history = tl.fine_tune(new(backbone, people), people.sample(per_class=9), unfreeze="head", epochs=1)
    assert not history.validation_loss and history.start is None and history.best_epoch == 1


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(backbone, people):
    found = []
    for seed in (0, 0, 1):
        classifier = new(backbone, people)
        tl.fine_tune(classifier, people, epochs=2, batch_size=16, seed=seed)
        found.append(weights_of(classifier))
    assert all(np.allclose(found[0][path], found[1][path], atol=1e-6) for path in found[0])
    assert any(np.abs(found[0][path] - found[2][path]).max() > 1e-4 for path in found[0])


def test_a_function_may_change_each_batch(backbone, people):
    calls = []

    def change(photos, targets, rng):
        calls.append((photos.shape, photos.dtype, targets.shape, rng.random()))
        return 255 - photos, targets

    history = tl.fine_tune(new(backbone, people), people, epochs=2, validation=0, batch_size=16, augment=change)
    assert not history.computed_once and len(calls) == 6 and len({call[3] for call in calls}) == 6
    assert calls[0][:3] == ((16, SIZE, SIZE, 3), np.uint8, (16, 4))
    with pytest.raises(ValueError, match=r"augment returned photos .* expected"):
        tl.fine_tune(new(backbone, people), people, epochs=1, augment=lambda photos, targets, rng: (photos[:1], targets))


@pytest.mark.parametrize("unfreeze", ["last_stage", "all"])
def test_a_photo_that_cannot_be_read_is_left_out_and_counted(unfreeze, people, tmp_path):
    files = list(people.files)
    files[3] = tmp_path / "bad.png"
    files[3].write_bytes(b"no photo")
    broken = type(people)("broken", tuple(files), people.labels, people.class_names, people.card)
    good = people.subset(np.setdiff1d(np.arange(40), 3))
    with pytest.warns(UserWarning, match="broken: 1 of 40 photos cannot be read"):
        history = tl.fine_tune(small_network(people), broken, unfreeze=unfreeze, epochs=1, validation=0, batch_size=40, augment="none")
    without = tl.fine_tune(small_network(people), good, unfreeze=unfreeze, epochs=1, validation=0, batch_size=40, augment="none")
    assert history.steps[0] == pytest.approx(without.steps[0], rel=1e-3)
    assert np.isfinite(history.loss).all()


def test_progress_is_told_after_each_epoch(backbone, people, capsys):
    seen = []
    tl.fine_tune(new(backbone, people), people, unfreeze="head", epochs=3, progress=lambda history: seen.append(len(history.loss)))
    assert seen == [1, 2, 3]
    tl.fine_tune(new(backbone, people), people, unfreeze="head", epochs=2, progress=True)
    captured = capsys.readouterr()
    assert captured.out == "" and "5,124 of" in captured.err and "validation accuracy" in captured.err and "2/2" in captured.err


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unfreeze": "stage_9"}, "unfreeze is 'stage_9'; expected 'head', 'last_stage', 'all', 'batch_norm' or one of stem, stage_1"),
        ({"unfreeze": None}, "unfreeze is None; expected"),
        ({"epochs": 0}, "epochs is 0; expected a whole number, 1 or more"),
        ({"patience": 0}, "patience is 0; expected a whole number, 1 or more"),
        ({"seed": -1}, "seed is -1; expected a whole number, 0 or more"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -1}, "learning_rate is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"warm_up": 1}, "warm_up is 1; expected a part"),
        ({"label_smoothing": 2}, "label_smoothing is 2"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"validation": 1}, "validation is 1; expected a part of the photos"),
        ({"validation": 0.99}, "too few to set 0.99 of them aside"),
        ({"augment": "upside_down"}, "augment is 'upside_down'; expected 'none', 'mirror', 'turns_and_flips' or a function"),
        ({"soft_labels": np.ones((40, 3))}, r"soft_labels have shape \(40, 3\); expected \(40, 4\)"),
        ({"soft_labels": np.ones((40, 4))}, "each row with sum 1"),
        ({"class_weights": [1, 2]}, "class_weights must be 'balanced' or 4 numbers"),
        ({"class_weights": {"a": 1}}, "class_weights must be 'balanced' or 4 numbers"),
        ({"class_weights": [1, 1, 1, -1]}, "class_weights must be 'balanced' or 4 numbers"),
    ],
)
def test_a_wrong_argument_is_told_in_a_sentence_and_nothing_changes(options, message, untouched, people):
    before = weights_of(untouched)
    with pytest.raises(ValueError, match=message):
        tl.fine_tune(untouched, people, **options)
    assert not changed(before, untouched)


def test_wrong_classes_and_wrong_models_are_told(backbone, people):
    import keras

    classifier = tl.build_classifier(backbone, ["cat", "dog"])
    with pytest.raises(ValueError, match="names and order must be the same"):
        tl.fine_tune(classifier, people)
    with pytest.raises(ValueError, match="names and order must be the same"):
        tl.fine_tune(new(backbone, people), people, validation=tl.load_dataset("solar_cells").subset(slice(4)))
    with pytest.raises(ValueError, match="no photos to train on"):
        tl.fine_tune(new(backbone, people), people.subset(slice(0)))
    with pytest.raises(ValueError, match="as build_classifier makes it"):
        tl.fine_tune(keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.GlobalAveragePooling2D()]), people)
    one = people.subset(people.labels == 1)
    with pytest.raises(ValueError, match="no training photo of person 01, person 03, person 04"):
        tl.fine_tune(new(backbone, people), one, validation=0)


def test_without_resume_no_state_is_kept(backbone, people):
    folder, kept = tl.cache_dir() / "fine_tuning", {}
    for resume in (True, False):
        tl.fine_tune(
            new(backbone, people), people, unfreeze="head", epochs=2, validation=0, resume=resume,
            progress=lambda history: kept.setdefault(resume, []).append(len(list(folder.glob("*")))),
        )  # fmt: skip
    assert kept == {True: [1, 1], False: [0, 0]}


def test_a_loss_that_is_no_number_stops_at_once_with_the_best_weights(backbone, people):
    classifier = new(backbone, people)
    before = weights_of(classifier)
    soft = np.eye(4)[people.labels]

    calls, after = [], {}

    def poison(photos, targets, rng):
        calls.append(1)
        photos = photos.astype(np.float32)
        if len(calls) == 4:  # the second epoch's second batch
            photos[0] = np.nan
        return photos, targets

    with pytest.raises(ValueError, match=r"the loss is nan in epoch 2, step 2.*weights of epoch 1 again.*lower learning_rate"):
        tl.fine_tune(
            classifier, people, unfreeze="last_stage", epochs=3, validation=0, batch_size=20, augment=poison, soft_labels=soft,
            progress=lambda history: after.update(weights_of(classifier)),
        )  # fmt: skip
    assert changed(before, classifier) and after and not changed(after, classifier)  # those after epoch 1
    assert not (tl.cache_dir() / "fine_tuning").exists() or not list((tl.cache_dir() / "fine_tuning").iterdir())


def test_weights_that_explode_in_the_last_step_are_no_best_weights(people):
    classifier = small_network(people)
    options = {"unfreeze": "all", "batch_size": 40, "learning_rate": 1e30, "warm_up": 0, "augment": "none"}
    for validation in (0, 0.25):
        with pytest.raises(ValueError, match="in epoch 1, step 1: .* weights of epoch 0 again"):
            tl.fine_tune(classifier, people, epochs=1, validation=validation, **options)
        assert np.isfinite(classifier.predict(people.images(SIZE)[:4].astype(np.float32), verbose=0)).all()


def test_where_no_photo_can_be_read_nothing_is_learned(backbone, people, tmp_path):
    head = tl.train_head(tl.extract_features(people, backbone), people.labels)
    gone = type(people)("gone", tuple(tmp_path / f"{row}.png" for row in range(40)), people.labels, people.class_names, people.card)
    for unfreeze in ("all", "last_stage"):
        classifier = tl.build_classifier(backbone, people.class_names, head=head)
        before = weights_of(classifier)
        with pytest.raises(ValueError, match="gone: none of its 40 photos can be read"):
            tl.fine_tune(classifier, gone, unfreeze=unfreeze, epochs=2, validation=0)
        assert not changed(before, classifier)


def test_a_bad_photo_that_is_alone_in_its_variant_is_left_out(backbone, cells, tmp_path):
    few = cells.subset(np.r_[0:4, 156:160])
    files = list(few.files)
    files[2] = tmp_path / "bad.png"
    files[2].write_bytes(b"no photo")
    broken = type(few)("broken", tuple(files), few.labels, few.class_names, few.card)
    for seed, alone in ((0, True), (1, False)):
        variants = np.random.default_rng([seed, 1]).permuted(np.tile(np.arange(8), (8, 1)), axis=1)[:, 0]
        assert (np.sum(variants == variants[2]) == 1) == alone  # as fine_tune draws them for the first epoch
        with pytest.warns(UserWarning, match="1 of 8 photos"):
            history = tl.fine_tune(new(backbone, few), broken, epochs=1, validation=0, seed=seed)
        assert history.computed_once and np.isfinite(history.loss).all()


def test_a_class_without_photos_and_a_network_in_one_piece_are_told(backbone, people):
    import keras

    three = people.subset(people.labels < 3)
    with pytest.raises(ValueError, match="no training photo of person 04"):
        tl.fine_tune(new(backbone, people), three, validation=0)
    photos = keras.Input((SIZE, SIZE, 3))
    logits = keras.layers.Dense(4, name="logits")(tl.load_backbone("efficientnet_lite0", image_size=SIZE).model(photos))
    nested = keras.Model(photos, keras.layers.Softmax(name="probabilities")(logits))
    with pytest.raises(ValueError, match="the network in this classifier is a single layer"):
        tl.fine_tune(nested, people)
    before = weights_of(nested)
    tl.fine_tune(nested, people, unfreeze="all", epochs=1, validation=0)
    assert changed(before, nested) and not any("moving" in path for path in changed(before, nested))


@pytest.mark.parametrize("unfreeze", ["last_stage", "all", "batch_norm", "head"])
def test_with_dropout_the_seed_decides_and_once_is_the_same_as_each_time(unfreeze, people):
    model, steps = small_network(people, dropout=0.3), []
    start = model.get_weights()
    for once in (True, False, True):
        model.set_weights(start)
        for layer in model.layers:  # what ran before must not matter
            for generator in layer._seed_generators:
                generator.state.assign(np.random.randint(0, 1000, 2))
        model.trainable = len(steps) != 1
        steps.append(tl.fine_tune(
            model, people, unfreeze=unfreeze, epochs=3, validation=0, batch_size=10, augment="none", compute_once=once
        ).steps)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-4)
    assert steps[0] == steps[2]


def test_dropout_differs_between_layers_steps_and_epochs(people):
    """Seen from outside: which photos each layer drops, in each step."""
    import keras

    model = small_network(people, dropout=0.3)
    seen = {}

    class Watch(keras.layers.Dropout):
        def call(self, inputs, training=False):
            import tensorflow as tf

            out = super().call(inputs, training=training)
            if training:
                dropped = tf.reduce_all(out == 0, axis=(1, 2, 3))
                tf.numpy_function(lambda rows, name: seen.setdefault(name, []).append(rows.tobytes()) or np.int64(0), [dropped, self.name], tf.int64)
            return out

    watched = keras.models.clone_model(model, clone_function=lambda layer: (Watch if isinstance(layer, keras.layers.Dropout) else type(layer)).from_config(layer.get_config()))
    watched.class_names = people.class_names
    tl.fine_tune(watched, people, unfreeze="all", epochs=3, validation=0, batch_size=20, augment="none")
    masks = [mask for layer in seen.values() for mask in layer]
    assert len(seen) == 3 and len(masks) == 18 and len(set(masks)) > 15


def test_fine_tuning_leaves_no_trained_features_in_the_cache_of_the_frozen_network(people, monkeypatch, tmp_path):
    """Where Keras is the engine, and so the classifier's own layers compute."""
    from tlhelpers import features

    def refuse(model):
        raise ValueError("not today")

    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    monkeypatch.setattr(features, "convert", refuse)
    monkeypatch.setattr(features._Kept, "_engines", type(features._Kept._engines)())
    backbone = tl.load_backbone("efficientnet_lite0", image_size=SIZE)
    train, others = people.subset(slice(0, None, 2)), people.subset(slice(1, None, 2))
    with pytest.warns(UserWarning, match="not today"):
        tl.fine_tune(new(backbone, people), train, unfreeze="all", epochs=2, validation=0, learning_rate=1e-2)
        found = tl.extract_features(others, backbone)
    np.testing.assert_allclose(found, tl.features.predict(backbone.model, others), rtol=1e-4, atol=1e-4)


def test_too_much_to_keep_is_computed_each_time_also_for_the_validation_photos_alone(backbone, cells, monkeypatch):
    from tlhelpers import finetuning

    few, judge = cells.sample(per_class=4), cells
    known = tl.fine_tune(new(backbone, few), few, epochs=2, validation=judge, augment="none")
    assert known.computed_once
    one = 2 * 2 * 192 * 4
    for most, once in ((50 * one, True), (5 * one, False)):
        monkeypatch.setattr(finetuning, "_MOST_KEPT", most)
        history = tl.fine_tune(new(backbone, few), few, epochs=2, validation=judge, augment="none")
        assert history.computed_once == once and ("GiB" in history.plan) != once
        np.testing.assert_allclose(history.validation_loss, known.validation_loss, rtol=1e-3)


# --- killed, and called again -------------------------------------------------------------------------------------

RUN = """
    import os, sys
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np, keras, tensorflow as tf
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    import tlhelpers as tl
    from test_finetuning import new, small_network
    faces = tl.load_dataset("faces")
    people = faces.subset(np.flatnonzero(faces.labels < 4))
    people = type(people)(people.name, people.files, people.labels, people.class_names[:4], people.card)
    classifier = {network}
    history = tl.fine_tune(classifier, people, unfreeze={unfreeze!r}, epochs={epochs}, validation=0.2, patience=None, batch_size=8,
                           progress=lambda history: print("epoch", len(history.loss), flush=True))
    np.savez(sys.argv[1], *classifier.get_weights(), steps=history.steps, resumed=history.resumed_after,
             losses=history.validation_loss, best=history.best_epoch)
"""


@pytest.mark.parametrize(
    ("unfreeze", "network", "epochs", "killed_after"),
    [
        ("last_stage", 'new(tl.load_backbone("efficientnet_lite0", image_size=64), people)', 8, (2, 5)),
        ("all", "small_network(people, dropout=0.3)", 120, (30, 75)),  # its epochs take a tenth of the time
    ],
    ids=["last_stage", "all"],
)
def test_killed_at_random_moments_and_called_again_it_comes_to_the_same_weights(unfreeze, network, epochs, killed_after, tmp_path):
    program = textwrap.dedent(RUN).format(unfreeze=unfreeze, network=network, epochs=epochs)
    path = os.pathsep.join(map(str, [Path(__file__).parent, *filter(None, [os.environ.get("PYTHONPATH")])]))
    cache = {name: os.environ | {"TLHELPERS_CACHE": str(tmp_path / name), "PYTHONPATH": path} for name in ("whole", "killed")}

    def start(name):
        return subprocess.Popen([sys.executable, "-c", program, str(tmp_path / f"{name}.npz")], env=cache[name], stdout=subprocess.PIPE)

    assert start("whole").wait() == 0
    rng, kills = np.random.default_rng(5), 0
    for after in killed_after:  # epochs; then some moments more, so that it is somewhere within the next ones
        process = start("killed")
        for line in process.stdout:
            if int(line.split()[1]) >= after:
                break
        moment = time.monotonic() + rng.uniform(0, 0.3)
        while time.monotonic() < moment and process.poll() is None:
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        process.stdout.close()
    assert kills == 2 and list((tmp_path / "killed" / "fine_tuning").glob("*.npz"))
    assert start("killed").wait() == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert int(killed["resumed"]) >= killed_after[1] and int(whole["resumed"]) == 0
        assert set(whole.files) == set(killed.files)
        for name in set(whole.files) - {"resumed"}:
            assert np.array_equal(whole[name], killed[name]), name
    assert not list((tmp_path / "killed" / "fine_tuning").glob("*.npz"))  # what a kill left half written goes with time


def test_a_damaged_checkpoint_is_no_checkpoint(backbone, people, monkeypatch, tmp_path):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path))
    found = []
    for damage in (False, True):
        classifier, kept = new(backbone, people), []

        def stop(history):
            if len(history.loss) == 1 and damage and not kept:
                kept.append(True)
                raise KeyboardInterrupt

        try:
            tl.fine_tune(classifier, people, epochs=2, progress=stop)
        except KeyboardInterrupt:
            (file,) = (tmp_path / "fine_tuning").glob("*.npz")
            file.write_bytes(file.read_bytes()[:-1000])
            classifier = new(backbone, people)
            history = tl.fine_tune(classifier, people, epochs=2, progress=stop)
            assert history.resumed_after == 0 and len(history.loss) == 2
        found.append(weights_of(classifier))
    assert all(np.allclose(found[0][path], found[1][path], atol=1e-6) for path in found[0])


def test_without_space_on_disk_it_trains_all_the_same(backbone, people, monkeypatch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fine_tuning").write_text("a file where the folder should be")
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="the state of the training cannot be kept on disk"):
        history = tl.fine_tune(new(backbone, people), people, unfreeze="head", epochs=2)
    assert len(history.loss) == 2
