"""Fine-tuning with what is frozen computed once, against the usual way with the same layers unfrozen: seconds an epoch.

Ours: `fine_tune`, which sends each photo through the frozen part before the first epoch. The usual way is plain Keras: the
same layers trainable, BatchNorm's frozen, the same optimizer, `fit` on an array of photos that are in memory, so that it
waits for no file. Photos come as they are, in both. The first epoch of each call is not counted: TensorFlow traces in it.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import median

import common
import numpy as np

import tlhelpers as tl

PARTS = {"last_stage": 6, "stage_6": 2}  # unfrozen → how many times as fast an epoch shall be
BATCH_SIZE = 32


def ours(train, backbone, unfreeze, epochs):
    with common.empty_cache():
        classifier = tl.build_classifier(backbone, train.class_names)
        start = time.perf_counter()
        history = tl.fine_tune(classifier, train, unfreeze=unfreeze, epochs=epochs, validation=0, augment="none")
        took = time.perf_counter() - start
    assert history.computed_once
    return history.seconds[1:], took - sum(history.seconds), history.loss


def usual(train, backbone, unfreeze, epochs):
    import keras

    classifier = tl.build_classifier(backbone, train.class_names)
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    classifier.get_layer("logits").set_weights([head.kernel, head.bias])
    first = {"last_stage": "stage_7", "stage_6": "stage_6"}[unfreeze]
    open_now = False
    for layer in classifier.layers:
        open_now = open_now or layer.name.startswith(first)
        layer.trainable = open_now and not isinstance(layer, keras.layers.BatchNormalization)
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append(time.perf_counter())

    classifier.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0), "sparse_categorical_crossentropy")
    photos = train.images(backbone.image_size).astype(np.float32)
    start = time.perf_counter()
    history = classifier.fit(photos, train.labels, batch_size=BATCH_SIZE, epochs=epochs, callbacks=[Clock()], verbose=0)
    return list(np.diff(ends)), ends[0] - start, history.history["loss"]


def work(args):
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    train = common.drawn(tl.load_dataset(args.sets), args.photos)
    results, bars, rows = [], [], []
    for unfreeze, least in PARTS.items():
        common.say(f"{unfreeze}: {len(train)} photos")
        ways = {
            "tlhelpers": partial(ours, train, backbone, unfreeze, args.epochs),
            "usual": partial(usual, train, backbone, unfreeze, 3),
        }
        _, found = common.paired_rounds(ways, args.rounds)
        epoch = {name: [median(seconds) for seconds, _, _ in runs] for name, runs in found.items()}
        once = [before for _, before, _ in found["tlhelpers"]]
        ratio = common.ratio(epoch["usual"], epoch["tlhelpers"])
        results.append({
            "unfreeze": unfreeze, "photos": len(train), "seconds_an_epoch": epoch, "seconds_before_the_first_epoch": once,
            "losses": {name: [losses for _, _, losses in runs] for name, runs in found.items()}, "ratio": ratio,
        })
        bars.append(common.bar(f"{unfreeze}: times as fast an epoch", ratio["median"], at_least=least))
        rows.append((
            unfreeze, f"{median(epoch['usual']):.2f}", f"{median(epoch['tlhelpers']):.2f}", common.told(ratio), f"{median(once):.1f}",
        ))
    columns = ("unfrozen", "usual, s an epoch", "tlhelpers, s", "times as fast", "computed once, s")
    tables = [common.table(f"{train.name}: {len(train)} photos, batches of {BATCH_SIZE}", columns, rows)]
    settings = {name: getattr(args, name) for name in ("backbone", "image_size", "photos", "epochs", "rounds", "sets")}
    return {"settings": settings, "results": results, "bars": bars}, tables


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=3, photos=640, sets=("solar_cells",))
    arguments.add_argument("--epochs", type=int, default=5, help="of tlhelpers; the usual way does three")
    common.run(arguments, work)
