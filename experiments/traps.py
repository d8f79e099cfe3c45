"""What each trap costs: the code as people write it, and its repair, on the same draws of photos.

    python experiments/traps.py                          goes on where it stopped; --list shows what is missing
    python experiments/traps.py --only bgr,one_seed      some of it
    python experiments/traps.py --trial                  one seed of each, nothing written: does it run?

The book's test photos are not used. From the other 1,968 solar cells each seed draws 200 to learn from, 200 on which the code
prints its accuracy ("shown": its validation or test photos), 400 that no code may touch and that tell how good the classifier is
when it is used ("true"), and 400 for what comes before. Photos are 96 × 96 pixels. Where a network is
trained, it is the last stage of EfficientNet-Lite0, on what the stages below give; BatchNorm and flags are the same there as in a
whole network. Recipes are those of the usual guides and were fixed before: the new last layer first (Adam, 0.001), then what is
unfrozen. Each pair, broken and repaired, has the same photos and the same random seed.

Two columns answer two questions. "true" of the repaired minus "true" of the broken code is what the trap costs; the same of "shown" is
by how much the printed number falls. What it costs and does not show is by how much the number is too good. "symptom" is a number that gives the trap
away, if one knows to look; TRAPS says what it is. Where broken and repaired code have the same symptom, the trap is gone in these
versions ("gone" in results/traps.json).

In one line of results/traps.csv is one version of one trap with one seed. Budget: 15 minutes on two cores.

Explained in notebooks/16_trap_lab.ipynb.
"""

import argparse
import csv
import functools
import json
import os
import platform
import time
import warnings
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import tlhelpers as tl

# Small steps: a second thread mostly waits, and beside other programs for long.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

RESULTS = Path(__file__).with_name("results") / "traps.csv"
COLUMNS = ("trap", "seed", "version", "train", "shown", "true", "symptom", "n_train", "n_shown", "n_true", "processor_seconds")
SIZE, SEEDS, EPOCHS, BATCH = 96, range(5), 10, 32
LOSS = "sparse_categorical_crossentropy"
TRAPS = {}  # name → (function, what its symptom is)


def trap(symptom):
    """A function of the seed that yields ("broken", …) and ("repaired", …)."""

    def keep(function):
        TRAPS[function.__name__] = function, symptom
        return function

    return keep


# --- photos ---------------------------------------------------------------------------------------------------------


@functools.cache
def pool():
    """Solar cells without the book's test photos, and the photos themselves."""
    cells = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)[0]
    return cells, cells.images(SIZE)


@functools.cache
def network():
    return tl.load_backbone("efficientnet_lite0", image_size=SIZE)


def draw(seed):
    """Rows of the pool: learn, shown, true, more."""
    labels, rows, drawn = pool()[0].labels, np.arange(len(pool()[0])), []
    for number in (200, 200, 400, 400):
        part, rows = train_test_split(rows, train_size=number, random_state=seed, stratify=labels[rows])
        drawn.append(part)
    return drawn


def labels_of(rows):
    return pool()[0].labels[rows]


def false_colours(grey):
    """As infrared cameras show their pictures: dark to bright becomes black, violet, orange, yellow."""
    from matplotlib import colormaps

    return (255 * colormaps["inferno"](grey[..., 0])[..., :3]).astype(np.uint8)


CHANGES = {
    "plain": lambda photos: photos,
    "divided": lambda photos: photos.astype(np.float32) / 255,
    "false_colours": false_colours,
    "false_colours_bgr": lambda photos: false_colours(photos)[..., ::-1],
    "mirrored": lambda photos: photos[:, :, ::-1],
    "upside_down": lambda photos: photos[:, ::-1],
    "turned": lambda photos: photos[:, ::-1, ::-1],
}
VIEWS = ("plain", "mirrored", "upside_down", "turned")
_maps = {}  # (change, row) → what the frozen stages give


def maps_of(rows, change="plain"):
    """Photos of the pool through the stages that stay frozen: (n, 3, 3, 192). Each is computed once."""
    if missing := [row for row in rows if (change, row) not in _maps]:
        below = network().cut("stage_6", pool=False)
        found = below.predict(np.ascontiguousarray(CHANGES[change](pool()[1][missing])), batch_size=64, verbose=0)
        _maps.update(zip([(change, row) for row in missing], found))
    return np.stack([_maps[change, row] for row in rows])


@functools.cache
def last_stage():
    """From those maps to the features, with the weights of ImageNet."""
    model = network().model
    return keras.Model(model.get_layer("stage_6").output, model.output)


def features_of(rows, change="plain"):
    return last_stage().predict(maps_of(rows, change), batch_size=256, verbose=0)


# --- what guides write ----------------------------------------------------------------------------------------------


def new_base():
    """A copy of the last stage, to be trained. To the code below it is what a whole network is in a guide."""
    base = keras.models.clone_model(last_stage())
    base.set_weights(last_stage().get_weights())
    for layer in base.layers:
        layer.trainable = True
    return base


def norms_of(base):
    return [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]


def open_without_norms(base):
    for layer in base.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def new_head(units=2, activation="softmax"):
    return keras.layers.Dense(units, activation=activation)


def fit(model, photos, labels, *, rate=1e-3, epochs=EPOCHS, loss=LOSS, again=True, **more):
    """Compile, unless `again` is False, and fit: what the code prints."""
    if again:
        model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model.fit(photos, labels, batch_size=BATCH, epochs=epochs, verbose=0, **more).history


def fit_head(head, learn):
    """The first phase of every guide. The base is frozen, so that its features can be computed once."""
    fit(keras.Sequential([keras.Input((1280,)), head]), features_of(learn), labels_of(learn))


def answers(model, photos):
    return np.asarray(model(photos, training=False)).argmax(axis=1)  # predict would first make a program of each new model


def right(answered, labels):
    return float(np.mean(answered == labels))


def row(train, shown, true, symptom, n=(200, 200, 400)):
    return {"train": train, "shown": shown, "true": true, "symptom": symptom} | dict(zip(("n_train", "n_shown", "n_true"), n))


def judged(model, seed, history, symptom):
    """The line of a classifier of maps."""
    _, shown, true, _ = draw(seed)
    found = [right(answers(model, maps_of(rows)), labels_of(rows)) for rows in (shown, true)]
    return row(history["accuracy"][-1], *found, symptom)


def judged_head(head, seed, symptom, learn="plain", shown="plain", true="plain"):
    """The line of a head on features, each part of the photos in its own state."""
    found = [
        right(head.predict(features_of(rows, change)), labels_of(rows)) for rows, change in zip(draw(seed), (learn, shown, true))
    ]
    return row(*found, symptom)


def running_means(base):
    return np.concatenate([norm.moving_mean.numpy() / np.sqrt(norm.moving_variance.numpy() + 1e-3) for norm in norms_of(base)])


def changed(before, after):
    """How many of the arrays differ."""
    return sum(not np.array_equal(one, other) for one, other in zip(before, after))


def kernels(base):
    return [layer.get_weights()[0] for layer in base.layers if "conv" in layer.name]


# --- the network is not trained as it seems -------------------------------------------------------------------------


class Guarded(keras.Model):
    """A model whose own call says training=False: fit cannot overwrite it."""

    def __init__(self, base, head):
        super().__init__()
        self.base, self.head = base, head

    def call(self, photos):
        return self.head(self.base(photos, training=False))


@trap("mean shift of BatchNorm's running means, in standard deviations")
def training_false(seed):
    learn = draw(seed)[0]
    for which in ("broken", "repaired"):
        keras.utils.set_random_seed(seed)
        base, head = new_base(), new_head()
        photo = keras.Input(base.input_shape[1:])
        model = keras.Model(photo, head(base(photo, training=False))) if which == "broken" else Guarded(base, head)
        fit_head(head, learn)
        before = running_means(base)
        history = fit(model, maps_of(learn), labels_of(learn), rate=1e-4)
        yield which, judged(model, seed, history, float(np.abs(running_means(base) - before).mean()))


@trap("mean shift of BatchNorm's running means, in standard deviations")
def batchnorm_drift(seed):
    """With a rate at which hardly any kernel moves, as guides advise."""
    learn = draw(seed)[0]
    for which in ("broken", "repaired"):
        keras.utils.set_random_seed(seed)
        base, head = new_base(), new_head()
        fit_head(head, learn)
        model, before = keras.Sequential([base, head]), running_means(base)
        if which == "repaired":
            open_without_norms(base)
        history = fit(model, maps_of(learn), labels_of(learn), rate=1e-5)
        yield which, judged(model, seed, history, float(np.abs(running_means(base) - before).mean()))


@functools.cache
def carefully(seed, rate=1e-4):
    """What several traps miss: the last layer first, then the base without its BatchNorm layers, compiled anew."""
    learn = draw(seed)[0]
    keras.utils.set_random_seed(seed)
    base, head = new_base(), new_head()
    fit_head(head, learn)
    open_without_norms(base)
    model, before = keras.Sequential([base, head]), kernels(base)
    history = fit(model, maps_of(learn), labels_of(learn), rate=rate)
    return judged(model, seed, history, None), changed(before, kernels(base)), max(history["loss"])


@trap("kernels that training changed")
def no_recompile(seed):
    learn = draw(seed)[0]
    keras.utils.set_random_seed(seed)
    base = new_base()
    model = keras.Sequential([base, new_head()])
    base.trainable = False
    fit(model, maps_of(learn), labels_of(learn))
    open_without_norms(base)
    before = kernels(base)
    history = fit(model, maps_of(learn), labels_of(learn), again=False)
    yield "broken", judged(model, seed, history, changed(before, kernels(base)))
    sound, moved, _ = carefully(seed)
    yield "repaired", sound | {"symptom": moved}


@trap("kernels that training changed")
def freeze_after_compile(seed):
    """Frozen between compile and the first fit."""
    yield from _frozen_late(seed, tried=False)


@trap("kernels that training changed")
def freeze_after_fit(seed):
    """Frozen after a first epoch that was only meant to see whether it runs."""
    yield from _frozen_late(seed, tried=True)


def _frozen_late(seed, tried):
    learn = draw(seed)[0]
    for which in ("broken", "repaired"):
        keras.utils.set_random_seed(seed)
        base = new_base()
        model = keras.Sequential([base, new_head()])
        model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
        if tried:
            fit(model, maps_of(learn), labels_of(learn), epochs=1, again=False)
        base.trainable, before = False, kernels(base)
        history = fit(model, maps_of(learn), labels_of(learn), again=which == "repaired")
        yield which, judged(model, seed, history, changed(before, kernels(base)))


@trap("kernels that training changed")
def forgotten_unfreeze(seed):
    """Layers are frozen one by one, and 'unfrozen' by a flag that the model has already."""
    learn = draw(seed)[0]
    keras.utils.set_random_seed(seed)
    base, head = new_base(), new_head()
    for layer in base.layers:
        layer.trainable = False
    fit_head(head, learn)
    base.trainable = True
    model, before = keras.Sequential([base, head]), kernels(base)
    history = fit(model, maps_of(learn), labels_of(learn), rate=1e-4)
    yield "broken", judged(model, seed, history, changed(before, kernels(base)))
    sound, moved, _ = carefully(seed)
    yield "repaired", sound | {"symptom": moved}


@trap("largest training loss of an epoch")
def learning_rate(seed):
    """0.01, a rate that serves many networks trained from nothing."""
    yield from _rates(seed, 1e-2)


@trap("largest training loss of an epoch")
def learning_rate_default(seed):
    """compile("adam") is 0.001."""
    yield from _rates(seed, 1e-3)


def _rates(seed, broken):
    for which, rate in (("broken", broken), ("repaired", 1e-4)):
        found, _, largest_loss = carefully(seed, rate)
        yield which, found | {"symptom": largest_loss}


def _losses(seed, versions):
    """A new last layer on frozen features; versions: name → function that makes the layers, from_logits."""
    learn, shown, true, _ = draw(seed)
    for which, (new_layers, from_logits) in versions.items():
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((1280,)), *new_layers()])
        with warnings.catch_warnings():  # of the versions that Keras sees and mends: the chapter shows its warning
            warnings.simplefilter("ignore", UserWarning)
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
            history = fit(model, features_of(learn), labels_of(learn), epochs=30, loss=loss)
        found = [right(answers(model, features_of(rows)), labels_of(rows)) for rows in (shown, true)]
        yield which, row(history["accuracy"][-1], *found, history["loss"][-1])


@trap("training loss at the end")
def logits_twice(seed):
    """softmax, and a loss that is told that there was none."""
    yield from _losses(seed, {"broken": (lambda: [new_head()], True), "repaired": (lambda: [new_head()], False)})


@trap("training loss at the end")
def logits_twice_hidden(seed):
    """The same with a layer behind the softmax: Keras does not see it any more."""
    layers = lambda: [new_head(), keras.layers.Reshape((2,))]  # noqa: E731
    yield from _losses(seed, {"broken": (layers, True), "repaired": (layers, False)})


@trap("training loss at the end")
def logits_missing(seed):
    """No softmax, and a loss that takes the outputs for probabilities."""
    layers = lambda: [new_head(activation=None)]  # noqa: E731
    yield from _losses(seed, {"broken": (layers, False), "repaired": (layers, True)})


@trap("part of the photos that are called defective")
def sigmoid_again(seed):
    """The model ends in a sigmoid, and whoever uses it takes the sigmoid of what it says."""
    learn, shown, true, _ = draw(seed)
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((1280,)), new_head(1, "sigmoid")])
    history = fit(model, features_of(learn), labels_of(learn), epochs=30, loss="binary_crossentropy")
    printed = model.evaluate(features_of(shown), labels_of(shown), verbose=0)[1]
    chance = model.predict(features_of(true), verbose=0)[:, 0]
    for which, used in (("broken", tf.sigmoid(chance).numpy()), ("repaired", chance)):
        said = used >= 0.5
        yield which, row(history["accuracy"][-1], printed, right(said, labels_of(true)), float(said.mean()))


# --- photos are not what the network expects ------------------------------------------------------------------------


@trap("mean standard deviation of a feature over photos")
def preprocessing_twice(seed):
    """Divided by 255 although the network does that itself, in training and in use."""
    learn, shown, true, _ = draw(seed)
    for which, change in (("broken", "divided"), ("repaired", "plain")):
        keras.utils.set_random_seed(seed)
        model = keras.Sequential([keras.Input((1280,)), new_head()])
        features = features_of(learn, change)
        history = fit(model, features, labels_of(learn), epochs=30)
        found = [right(answers(model, features_of(rows, change)), labels_of(rows)) for rows in (shown, true)]
        yield which, row(history["accuracy"][-1], *found, float(features.std(axis=0).mean()))


@trap("part of the photos that get the commonest answer in use")
def preprocessing_differs(seed):
    """Divided by 255 in use only."""
    learn, _, true, _ = draw(seed)
    head = tl.train_head(features_of(learn), labels_of(learn), seed=seed)
    for which, change in (("broken", "divided"), ("repaired", "plain")):
        counts = np.bincount(head.predict(features_of(true, change)))
        yield which, judged_head(head, seed, float(counts.max() / 400), true=change)


@trap("part of the photos that get the commonest answer in use")
def bgr(seed):
    """Trained on RGB, and in use read by a program that gives BGR. In false colours: grey photos do not care."""
    learn, _, true, _ = draw(seed)
    head = tl.train_head(features_of(learn, "false_colours"), labels_of(learn), seed=seed)
    for which, change in (("broken", "false_colours_bgr"), ("repaired", "false_colours")):
        counts = np.bincount(head.predict(features_of(true, change)))
        yield which, judged_head(head, seed, float(counts.max() / 400), "false_colours", "false_colours", change)


@trap("distinct views of a photo in ten epochs, mean")
def augmentation_cached(seed):
    """.map(augment).cache(): the first epoch's views are those of all others."""
    learn = draw(seed)[0]
    views = np.stack([maps_of(learn, change) for change in VIEWS], axis=1)

    for which in ("broken", "repaired"):
        keras.utils.set_random_seed(seed)
        chance = keras.random.SeedGenerator(seed)  # as in RandomFlip; tf.random in a map draws the same in each epoch once a seed is set

        def any_view(all_views, label, chance=chance):
            pick = keras.random.randint((), 0, 4, seed=chance)
            return all_views[pick], label, pick

        data = tf.data.Dataset.from_tensor_slices((views, labels_of(learn))).map(any_view)
        data = data.cache() if which == "broken" else data
        base = new_base()
        open_without_norms(base)
        model = keras.Sequential([base, new_head()])
        model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
        photos = data.map(lambda view, label, pick: (view, label)).shuffle(200, seed=seed).batch(BATCH)
        history = model.fit(photos, epochs=EPOCHS, shuffle=False, verbose=0).history
        picks = np.array([[int(pick) for pick in data.map(lambda view, label, pick: pick)] for _ in range(EPOCHS)])
        yield which, judged(model, seed, history, float(np.mean([len(set(column)) for column in picks.T])))


@trap("points between two calls of evaluate")
def augmentation_of_test_photos(seed):
    """One data pipeline with augmentation for training and for test photos."""
    learn, shown, _, _ = draw(seed)
    head = tl.train_head(features_of(learn), labels_of(learn), seed=seed)
    keras.utils.set_random_seed(seed)
    augment = keras.Sequential([
        keras.layers.RandomFlip("horizontal_and_vertical"), keras.layers.RandomRotation(0.2), keras.layers.RandomZoom(0.2),
        keras.layers.RandomContrast(0.3, value_range=(0, 255)),
    ])  # fmt: skip
    photos = pool()[1][shown].astype(np.float32)
    whole = network().model

    def printed(augmented):
        seen = np.asarray(augment(photos, training=True)) if augmented else photos
        return right(head.predict(whole.predict(seen, batch_size=64, verbose=0)), labels_of(shown))

    for which in ("broken", "repaired"):
        twice = [printed(which == "broken") for _ in range(2)]
        found = judged_head(head, seed, 100 * abs(twice[0] - twice[1]))
        yield which, found | {"shown": twice[0]}


# --- the number is not that of photos never seen --------------------------------------------------------------------


@trap("part of the test photos that were trained on")
def reshuffled_split(seed):
    """Test photos by take and skip from a data set that is shuffled anew each time."""
    learn, shown, true, _ = draw(seed)
    both = np.concatenate([learn, shown])
    features, labels = features_of(both), labels_of(both)
    for which in ("broken", "repaired"):
        keras.utils.set_random_seed(seed)
        data = tf.data.Dataset.from_tensor_slices((features, labels, np.arange(400)))
        data = data.shuffle(400, seed=seed, reshuffle_each_iteration=which == "broken")
        train, test, seen = data.take(200), data.skip(200), set()
        model = keras.Sequential([keras.Input((1280,)), new_head()])
        model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
        pairs = [part.map(lambda photo, label, number: (photo, label)).batch(BATCH) for part in (train, test)]
        history = model.fit(pairs[0], epochs=30, shuffle=False, verbose=0).history
        printed = model.evaluate(pairs[1], verbose=0)[1]
        for _ in range(30):
            seen |= {int(number) for *_, number in train}
        tested = {int(number) for *_, number in test}
        found = right(answers(model, features_of(true)), labels_of(true))
        yield which, row(history["accuracy"][-1], printed, found, len(seen & tested) / len(tested))


@trap("part of the test photos that have a copy among those learned from")
def duplicates(seed):
    """Each photo is turned and mirrored, saved four times, and then the files are split."""
    learn, _, true, _ = draw(seed)
    rows, views = np.tile(learn, 4), np.repeat(np.arange(4), 200)
    features = np.concatenate([features_of(learn, change) for change in VIEWS])
    files = np.arange(800)
    for which in ("broken", "repaired"):
        if which == "broken":
            fitted, held = train_test_split(files, test_size=0.25, random_state=seed, stratify=labels_of(rows))
        else:
            one, other = train_test_split(learn, test_size=0.25, random_state=seed, stratify=labels_of(learn))
            fitted, held = (np.flatnonzero(np.isin(rows, part)) for part in (one, other))
        head = tl.train_head(features[fitted], labels_of(rows[fitted]), strength=1.0)
        inside, printed = (right(head.predict(features[part]), labels_of(rows[part])) for part in (fitted, held))
        found = right(head.predict(features_of(true)), labels_of(true))
        assert set(views[held]) == set(range(4))
        yield which, row(inside, printed, found, float(np.isin(rows[held], rows[fitted]).mean()), (600, 200, 400))


@trap("points between one batch for all and batches of eight")
def scaled_by_test_photos(seed):
    """StandardScaler().fit_transform(test). In use photos come eight at a time, not as a test set."""
    learn, shown, true, _ = draw(seed)
    scaler = StandardScaler().fit(features_of(learn))
    model = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(features_of(learn)), labels_of(learn))
    inside = model.score(scaler.transform(features_of(learn)), labels_of(learn))

    def scored(rows, size, which):
        answered = []
        for first in range(0, len(rows), size):
            batch = features_of(rows[first : first + size])
            scaled = StandardScaler().fit_transform(batch) if which == "broken" else scaler.transform(batch)
            answered.append(model.predict(scaled))
        return right(np.concatenate(answered), labels_of(rows))

    for which in ("broken", "repaired"):
        whole, eight = scored(true, 400, which), scored(true, 8, which)
        yield which, row(inside, scored(shown, 200, which), eight, 100 * (whole - eight))


@trap("largest difference of a scaled feature's mean from that of the photos learned from")
def scaled_before_split(seed):
    """One StandardScaler for all photos, before the split."""
    learn, shown, true, _ = draw(seed)
    own = StandardScaler().fit(features_of(learn))
    for which in ("broken", "repaired"):
        scaler = own if which == "repaired" else StandardScaler().fit(features_of(np.concatenate([learn, shown])))
        model = LogisticRegression(C=0.01, max_iter=2000).fit(scaler.transform(features_of(learn)), labels_of(learn))
        found = [model.score(scaler.transform(features_of(rows)), labels_of(rows)) for rows in (learn, shown, true)]
        yield which, row(*found, float(np.abs((scaler.mean_ - own.mean_) / own.scale_).max()))


@trap("times that the test photos were looked at")
def best_epoch(seed):
    """validation_data=test, save_best_only. Half of the photos shown choose, the other half judge, where it is done right."""
    learn, shown, true, _ = draw(seed)
    choose, judge = shown[:100], shown[100:]
    keras.utils.set_random_seed(seed)
    base = new_base()
    open_without_norms(base)
    model = keras.Sequential([base, new_head()])
    model.compile(keras.optimizers.Adam(1e-3), LOSS, metrics=["accuracy"])
    epochs = []
    for _ in range(12):
        inside = fit(model, maps_of(learn), labels_of(learn), epochs=1, again=False)["accuracy"][0]
        epochs.append((inside, *(right(answers(model, maps_of(rows)), labels_of(rows)) for rows in (choose, judge, true))))
    epochs = np.array(epochs)
    for which, chosen_by in (("broken", 2), ("repaired", 1)):
        best = epochs[epochs[:, chosen_by].argmax()]
        yield which, row(best[0], best[2], best[3], 12 if which == "broken" else 1, (200, 100, 400))


@trap("part of the test photos that the network was pre-trained on")
def contamination(seed):
    """ImageNet's photos are not at hand. So the last stage is pre-trained on 400 cells, with the test photos among them or not."""
    learn, shown, true, more = draw(seed)
    for which, before in (("broken", np.concatenate([shown, more[:200]])), ("repaired", more)):
        keras.utils.set_random_seed(seed)
        base = new_base()
        open_without_norms(base)
        fit(keras.Sequential([base, new_head()]), maps_of(before), labels_of(before))
        features = [base.predict(maps_of(rows), batch_size=256, verbose=0) for rows in (learn, shown, true)]
        head = tl.train_head(features[0], labels_of(learn), seed=seed)
        found = [right(head.predict(part), labels_of(rows)) for part, rows in zip(features, (learn, shown, true))]
        yield which, row(*found, float(np.isin(shown, before).mean()))


@trap("classes that have another number")
def class_order(seed):
    """Folders are read in the order of the alphabet (s1, s10, s11, …), and the names are written by hand (s1, s2, s3, …)."""
    faces, features = _faces()
    by_number = [f"s{number}" for number in range(1, 41)]  # the folders of the faces, as they came
    by_alphabet = sorted(by_number)
    people = np.array(by_number)[faces.labels]
    numbers = np.array([by_alphabet.index(name) for name in people])
    learn, test = train_test_split(np.arange(len(faces)), test_size=0.5, random_state=seed, stratify=numbers)
    head = tl.train_head(features[learn], numbers[learn], strength=0.01)
    inside, printed = (right(head.predict(features[rows]), numbers[rows]) for rows in (learn, test))
    for which, names in (("broken", by_number), ("repaired", by_alphabet)):
        named = np.array(names)[head.predict(features[test])]
        other = sum(one != two for one, two in zip(names, by_alphabet))
        yield which, row(inside, printed, right(named, people[test]), other, (200, 200, 200))


@functools.cache
def _faces():
    faces = tl.load_dataset("faces")
    return faces, network().model.predict(faces.images(SIZE), batch_size=64, verbose=0)


@trap("part of the defective cells that are found")
def unbalanced(seed):
    """One cell in twenty is defective. What counts in the end, "true", is balanced accuracy, on 400 cells as they are."""
    learn, shown, true, more = draw(seed)

    def few_defective(rows, extra):
        """190 functional and 10 defective; `extra` has more functional cells."""
        rows = np.concatenate([rows, extra])
        return np.concatenate([rows[labels_of(rows) == 0][:190], rows[labels_of(rows) == 1][:10]])

    learn, shown = few_defective(learn, more[:200]), few_defective(shown, more[200:])
    scaler = StandardScaler().fit(features_of(learn))
    for which, weights in (("broken", None), ("repaired", "balanced")):
        model = LogisticRegression(C=0.01, max_iter=2000, class_weight=weights)
        model.fit(scaler.transform(features_of(learn)), labels_of(learn))
        said = [model.predict(scaler.transform(features_of(rows))) for rows in (learn, shown, true)]
        score = right if which == "broken" else lambda answered, labels: balanced_accuracy_score(labels, answered)
        inside, printed = (score(one, labels_of(rows)) for one, rows in zip(said, (learn, shown)))
        found = float(np.mean(said[2][labels_of(true) == 1]))
        yield which, row(inside, printed, balanced_accuracy_score(labels_of(true), said[2]), found)


@trap("draws that the number told rests on")
def one_seed(seed):
    """Ten draws of 40 photos. Told is the one that came out best on the photos shown, or the mean of all ten."""
    learn, shown, true, more = draw(seed)
    photos, found = np.concatenate([learn, more]), []
    for number in range(10):
        few = train_test_split(photos, train_size=40, random_state=100 * seed + number, stratify=labels_of(photos))[0]
        head = tl.train_head(features_of(few), labels_of(few), strength=0.01)
        found.append([right(head.predict(features_of(rows)), labels_of(rows)) for rows in (few, shown, true)])
    found = np.array(found)
    for which, told in (("broken", found[found[:, 1].argmax()]), ("repaired", found.mean(axis=0))):
        yield which, row(*told, 1 if which == "broken" else 10, (40, 200, 400))


# --- the table ------------------------------------------------------------------------------------------------------


def known():
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(rows):
    """Both versions, written whole or not at all."""
    from filelock import FileLock

    RESULTS.parent.mkdir(exist_ok=True)
    part, names = RESULTS.with_suffix(".part"), list(TRAPS)
    with FileLock(tl.cache_dir() / "traps.lock"):
        rows = sorted([*known(), *rows], key=lambda row: (names.index(row["trap"]), int(row["seed"]), row["version"]))
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, RESULTS)


def gone():
    """Traps whose broken code has the symptom of the repaired one, with each seed, to a thousandth."""
    symptoms = {}
    for line in known():
        symptoms.setdefault(line["trap"], {}).setdefault(line["seed"], []).append(float(line["symptom"]))
    return [name for name, pairs in symptoms.items() if all(abs(one - two) <= 1e-3 * abs(two) for one, two in pairs.values())]


def write_conditions():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("tlhelpers", "tensorflow", "keras", "scikit-learn", "numpy")
    conditions = {
        "command": "python experiments/traps.py", "date": date.today().isoformat(), "image_size": SIZE, "epochs": EPOCHS,
        "batch_size": BATCH, "seeds": list(SEEDS), "backbone": "efficientnet_lite0, last stage trained",
        "symptoms": {name: symptom for name, (_, symptom) in TRAPS.items()}, "gone": gone(), "cores": cores,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, no GPU",
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TRAPS), help="names of traps, commas between")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="commas between")
    parser.add_argument("--trial", action="store_true", help="one seed, nothing written")
    parser.add_argument("--list", action="store_true", help="show what is there and what is missing")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := set(names) - set(TRAPS):
        parser.error(f"no trap {', '.join(sorted(unknown))}; there are {', '.join(TRAPS)}")
    done = {(row["trap"], int(row["seed"])) for row in known()}
    for seed in map(int, args.seeds.split(",")[: 1 if args.trial else None]):
        for name in names:
            if (name, seed) in done and not args.trial or args.list:
                print(name, seed, "there" if (name, seed) in done else "missing", flush=True)
                continue
            rows, begin = [], time.process_time()
            for which, found in TRAPS[name][0](seed):
                seconds, begin = time.process_time() - begin, time.process_time()
                found = {key: round(value, 5) if isinstance(value, float) else value for key, value in found.items()}
                line = {"trap": name, "seed": seed, "version": which, "processor_seconds": round(seconds, 1)} | found
                rows.append({column: line[column] for column in COLUMNS})
                print(*rows[-1].values(), flush=True)
            if not args.trial:
                add(rows)
            keras.backend.clear_session()
    if not args.trial and not args.list:
        write_conditions()


if __name__ == "__main__":
    main()
