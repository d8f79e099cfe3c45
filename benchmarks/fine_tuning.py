"""Fine-tuning with what is frozen computed once, against the usual way with the same layers unfrozen: seconds an epoch.

Ours: `fine_tune`, which sends each photo through the frozen part before the first epoch. The usual way is plain Keras: the
same numbers trainable, the same optimizer, `fit` on an array of photos that are in memory, so that it waits for no file. It is
measured a second time with BatchNorm layers frozen as a whole, as guides have it: that trains fewer numbers, and the ratio to
it is reported, without a bar. Photos come as they are, in all. The first epoch of each call is not counted: TensorFlow traces in it.
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
    return history.seconds[1:], took - sum(history.seconds), history.trained_parameters


def usual(train, backbone, unfreeze, epochs, *, train_norms):
    """Plain Keras. With `train_norms`, BatchNorm trains its scale and offset, as in `fine_tune`: the same numbers train."""
    import keras
    import tensorflow as tf

    class StatisticsStay(keras.Model):
        """In Keras 3.15 scale and offset can only be trained, and mean and variance kept, with a step of one's own."""

        def train_step(self, data):
            photos, labels = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=labels, y_pred=self(photos, training=False))
            self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
            return {"loss": loss}

    classifier = tl.build_classifier(backbone, train.class_names)
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    classifier.get_layer("logits").set_weights([head.kernel, head.bias])
    first = {"last_stage": "stage_7", "stage_6": "stage_6"}[unfreeze]
    open_now = False
    for layer in classifier.layers:
        open_now = open_now or layer.name.startswith(first)
        layer.trainable = open_now and (train_norms or not isinstance(layer, keras.layers.BatchNormalization))
    if train_norms:
        classifier = StatisticsStay(classifier.input, classifier.output)
    ends = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            ends.append(time.perf_counter())

    classifier.compile(keras.optimizers.AdamW(1e-4, weight_decay=0.01, global_clipnorm=1.0), "sparse_categorical_crossentropy")
    numbers = sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights)
    photos = train.images(backbone.image_size).astype(np.float32)
    start = time.perf_counter()
    classifier.fit(photos, train.labels, batch_size=BATCH_SIZE, epochs=epochs, callbacks=[Clock()], verbose=0)
    return list(np.diff(ends)), ends[0] - start, numbers


def work(args):
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    train = common.drawn(tl.load_dataset(args.sets), args.photos)
    results, bars, rows = [], [], []
    for unfreeze, least in PARTS.items():
        common.say(f"{unfreeze}: {len(train)} photos")
        ways = {
            "tlhelpers": partial(ours, train, backbone, unfreeze, args.epochs),
            "usual": partial(usual, train, backbone, unfreeze, 3, train_norms=True),
            "usual, BatchNorm frozen": partial(usual, train, backbone, unfreeze, 3, train_norms=False),
        }
        _, found = common.paired_rounds(ways, args.rounds)
        numbers = {name: runs[0][2] for name, runs in found.items()}
        assert numbers["usual"] == numbers["tlhelpers"] > numbers["usual, BatchNorm frozen"]
        epoch = {name: [median(seconds) for seconds, _, _ in runs] for name, runs in found.items()}
        once = [before for _, before, _ in found["tlhelpers"]]
        ratio, frozen = (common.ratio(epoch[name], epoch["tlhelpers"]) for name in list(ways)[1:])
        results.append({
            "unfreeze": unfreeze, "photos": len(train), "seconds_an_epoch": epoch, "seconds_before_the_first_epoch": once,
            "trained_parameters": numbers, "ratio": ratio, "ratio_batch_norm_frozen": frozen,
        })
        bars.append(common.bar(f"{unfreeze}: times as fast an epoch", ratio["median"], at_least=least))
        seconds = [f"{median(each):.2f}" for each in (epoch["usual"], epoch["tlhelpers"])]
        rows.append((unfreeze, *seconds, common.told(ratio), common.told(frozen), f"{median(once):.1f}"))
    columns = ("unfrozen", "usual, s an epoch", "tlhelpers, s", "times as fast", "as BatchNorm frozen", "computed once, s")
    tables = [common.table(f"{train.name}: {len(train)} photos, batches of {BATCH_SIZE}", columns, rows)]
    settings = {name: getattr(args, name) for name in ("backbone", "image_size", "photos", "epochs", "rounds", "sets")}
    return {"settings": settings, "results": results, "bars": bars}, tables


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=3, photos=640, sets=("solar_cells",))
    arguments.add_argument("--epochs", type=int, default=5, help="of tlhelpers; the usual way does three")
    common.run(arguments, work)
