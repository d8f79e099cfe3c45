"""The whole of feature extraction, from photos to a trained classifier, against the usual recipe; and a second call.

Ours: extract_features with an empty cache, then train_head. The usual recipe is that of TensorFlow's tutorial
"Transfer learning and fine-tuning": image_dataset_from_directory with prefetch, the frozen base inside the model, so
that each epoch sends all photos through it again. It runs in two forms: "tutorial" (flips, rotations, dropout, Adam
with 0.0001) and "lean", the cheapest that is still this recipe (none of these, Adam with 0.001). Neither looks at
photos for validation after each epoch, as the tutorial does: that would take longer. Both sides have the same network,
training photos and held-out photos.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import common
import numpy as np
from PIL import Image

import tlhelpers as tl

OURS = "tlhelpers"
BATCH_SIZE = 32


def write_folder(dataset, folder):
    """The same photos, one subfolder a class, as TensorFlow reads them: JPEG and PNG as they are, others as PNG."""
    files = []
    for row, file in enumerate(dataset.files):
        suffix = Path(file).suffix.lower()
        path = folder / dataset.class_names[dataset.labels[row]] / f"{row:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix in (".jpg", ".jpeg", ".png"):
            shutil.copyfile(file, path)
        else:
            path = path.with_suffix(".png")
            Image.fromarray(dataset.image(row)).save(path)
        files.append(path)
    return replace(dataset, files=tuple(files))


def ours(train, test, backbone):
    """Seconds, and what the head says of the held-out photos (which is not timed)."""
    with common.empty_cache():
        features, extracting = common.seconds_of(lambda: tl.extract_features(train, backbone))
        head, fitting = common.seconds_of(lambda: tl.train_head(features, train.labels))
    probabilities = head.predict_proba(tl.extract_features(test, backbone, cache=False))
    run = {"seconds": extracting + fitting, "of_which": {"features": extracting, "head": fitting}}
    return run, tl.Report(test.labels, probabilities, test.class_names)


def usual(folder, backbone, epochs, seeds, *, augment, dropout, learning_rate):
    """The recipe of the tutorial; building is what happens up to the end of the first step, which traces the graph."""
    import keras
    import tensorflow as tf

    size = backbone.image_size
    ends_of_steps = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ends_of_steps.append(time.perf_counter())

    def photos(part, shuffle):
        found = keras.utils.image_dataset_from_directory(
            folder / part, shuffle=shuffle, batch_size=BATCH_SIZE, image_size=(size, size), verbose=False
        )
        return found.prefetch(tf.data.AUTOTUNE), found.class_names

    keras.utils.set_random_seed(next(seeds))
    start = time.perf_counter()
    train, class_names = photos("train", True)
    base = backbone.cut(pool=False)
    base.trainable = False
    inputs = x = keras.Input((size, size, 3))
    if augment:
        x = keras.layers.RandomRotation(0.2)(keras.layers.RandomFlip("horizontal")(x))
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    # As many logits as classes: the tutorial's cats and dogs need only one.
    model = keras.Model(inputs, keras.layers.Dense(len(class_names))(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(learning_rate), loss, metrics=["accuracy"])
    model.fit(train, epochs=epochs, callbacks=[Clock()], verbose=0)
    end = time.perf_counter()

    test, class_names = photos("test", False)
    labels = np.concatenate([labels for _, labels in test])
    probabilities = tf.nn.softmax(model.predict(test, verbose=0)).numpy()
    run = {"seconds": end - ends_of_steps[0], "building_seconds": ends_of_steps[0] - start}
    return run, tl.Report(labels, probabilities, class_names)


RECIPES = {
    "tutorial": {"augment": True, "dropout": 0.2, "learning_rate": 1e-4},
    "lean": {"augment": False, "dropout": 0, "learning_rate": 1e-3},
}


def one_set(dataset, backbone, building, args):
    train, test = dataset.split(test_size=0.25, seed=0)
    with tempfile.TemporaryDirectory(prefix="tlhelpers-benchmark-") as folder:
        folder = Path(folder)
        train, test = write_folder(train, folder / "train"), write_folder(test, folder / "test")
        ways = {OURS: partial(ours, train, test, backbone)}
        for name in args.recipes.split(","):
            ways[name] = partial(usual, folder, backbone, args.epochs, itertools.count(), **RECIPES[name])
        _, found = common.paired_rounds(ways, args.rounds)
    rows = {}
    for name, pairs in found.items():
        runs = [{"building_seconds": building} | run for run, _ in pairs]
        reports = sorted((report for _, report in pairs), key=lambda report: report.accuracy)
        middle = reports[len(reports) // 2]
        rows[name] = {
            "runs": runs,
            "seconds": [run["seconds"] for run in runs],
            "seconds_with_building": [run["seconds"] + run["building_seconds"] for run in runs],
            "accuracies": [report.accuracy for _, report in pairs],
            "accuracy": middle.accuracy,
            "accuracy_ci": middle.accuracy_ci,
        }
    for row in rows.values():
        row["ratio"] = common.ratio(row["seconds"], rows[OURS]["seconds"])
        row["ratio_with_building"] = common.ratio(row["seconds_with_building"], rows[OURS]["seconds_with_building"])
    return {"set": dataset.name, "training_photos": len(train), "test_photos": len(test), "contenders": rows}


def second_call(backbone, args):
    """The same call twice: what the first leaves on disk, the second reads, down to the last feature."""
    dataset = common.drawn(tl.load_dataset("solar_cells"), args.second_photos)
    first, second = [], []
    for number in range(args.rounds):
        with common.empty_cache():
            for seconds in (first, second):
                _, took = common.seconds_of(lambda: np.array(tl.extract_features(dataset, backbone)))
                seconds.append(took)
        common.say(f"  round {number + 1} of {args.rounds}: first {first[-1]:.2f} s, second {second[-1]:.4f} s")
    seconds = {"first_seconds": first, "second_seconds": second}
    return {"set": dataset.name, "photos": len(dataset), **seconds, "ratio": common.ratio(first, second)}


def bars_of(found, second, epochs):
    bars = []
    for one in found:
        accuracy = one["contenders"][OURS]["accuracy"]
        for name, row in one["contenders"].items():
            if name != OURS:
                what = f"{one['set']}: times as fast as {name}, {epochs} epochs"
                bars.append(common.bar(what, row["ratio"]["median"], at_least=15))
                what = f"{one['set']}: accuracy, against the lower end of the interval of {name}"
                bars.append(common.bar(what, accuracy, at_least=row["accuracy_ci"][0]))
    what = f"second call on {second['photos']:,} photos, times as fast as the first"
    return [*bars, common.bar(what, second["ratio"]["median"], at_least=50)]


def work(args):
    sets = common.datasets(args)
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    common.say(f"building: {OURS}")
    few = sets[0].subset(slice(2))
    _, building = common.seconds_of(lambda: tl.extract_features(few, backbone, cache=False))
    found = []
    for dataset in sets:
        common.say(f"{dataset.name}: {len(dataset)} photos, a quarter of them held out")
        found.append(one_set(dataset, backbone, building, args))
    common.say(f"a second call, {args.second_photos} photos")
    second = second_call(backbone, args)
    settings = {
        name: getattr(args, name) for name in ("backbone", "image_size", "photos", "epochs", "rounds", "second_photos")
    }
    settings |= {"batch_size": BATCH_SIZE, "recipes": {name: RECIPES[name] for name in args.recipes.split(",")}}
    tables = [*map(table_of, found), table_of_second(second)]
    return {
        "settings": settings, "results": found, "second_call": second, "bars": bars_of(found, second, args.epochs)
    }, tables


def table_of(one):
    rows = []
    for name, row in one["contenders"].items():
        low, high = row["accuracy_ci"]
        rows.append((
            name,
            f"{median(row['seconds']):.1f}",
            common.told(row["ratio"]),
            f"{median(row['seconds_with_building']):.1f}",
            common.told(row["ratio_with_building"]),
            f"{100 * row['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
        ))
    columns = (
        "recipe", "seconds", "tlhelpers is … times as fast", "with building", "… times as fast", "accuracy (95 %)"
    )
    return common.table(
        f"{one['set']}: {one['training_photos']} training photos, {one['test_photos']} held out", columns, rows
    )


def table_of_second(second):
    first, again = median(second["first_seconds"]), median(second["second_seconds"])
    return common.table(
        f"extract_features twice, {second['photos']:,} photos ({second['set']})",
        ("call", "seconds", "second is … times as fast"),
        [("first", f"{first:.2f}", ""), ("second", f"{again:.4f}", common.told(second["ratio"]))],
    )


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=3, photos=800, sets=("solar_cells", "faces"))
    arguments.add_argument("--epochs", type=int, default=10, help="how often the usual recipe goes over the photos")
    arguments.add_argument(
        "--recipes", default=",".join(RECIPES), metavar="NAMES", help="forms of the usual recipe, commas between"
    )
    arguments.add_argument(
        "--second-photos", type=int, default=2000, help="solar cells for which extract_features is called twice"
    )
    common.run(arguments, work)
