"""Fine-tuning: go on training a part of the network, from weights that work.

What is frozen gives the same for a photo in every epoch. It is computed once, by `extract_features`, and only the part above
it trains. BatchNorm layers keep their statistics, in every part and in every step.

References:
    Head first, then the network: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features, arXiv:2202.10054.
    Weight decay beside the gradient, cosine: Loshchilov and Hutter 2017 and 2019, arXiv:1608.03983 and 1711.05101.
    Warm-up: Goyal et al. 2017, arXiv:1706.02677. Soft labels, smoothed: Szegedy et al. 2016, arXiv:1512.00567.

Explained in notebooks/08_fine_tuning.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import typing
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tlhelpers.datasets import Dataset
from tlhelpers.downloads import cache_dir
from tlhelpers.engine import fingerprint
from tlhelpers.features import extract_features
from tlhelpers.images import VARIANTS, UnreadablePhoto, resize_image, vary
from tlhelpers.parts import Part

if typing.TYPE_CHECKING:
    import keras

__all__ = ["History", "fine_tune"]

LEARNING_RATES = {"head": 1e-3, "batch_norm": 1e-3}
LEARNING_RATE = 1e-4  # where kernels train: a last layer that was fitted first makes much of small changes below it
_MOST_KEPT = 8 * 2**30  # bytes: outputs of the frozen part, or photos, beyond which they are computed anew in each epoch
_MOST_PHOTOS = 2**30
_FORGET = 7 * 24 * 3600  # seconds after which the checkpoint of a run that nobody went on with is removed


@dataclass(repr=False)
class History:
    """What happened in a call of `fine_tune`.

    Attributes:
        plan: str: what trains, what was computed once, how many photos and steps, and how fast it learned.
        trained_parameters: how many numbers were trained.
        computed_once: whether the frozen part saw each photo before the first epoch only.
        loss: float, one an epoch: mean over the training photos, as they came in that epoch.
        accuracy: likewise, part of them that was right, 0..1.
        validation_loss: one an epoch, after it; empty without validation photos.
        validation_accuracy: likewise.
        start: (loss, accuracy) on the validation photos before the first step; None without.
        learning_rate: float, one an epoch: at its last step.
        seconds: float, one an epoch.
        steps: float, one a step: the loss of each batch.
        best_epoch: the epoch, from 1, after which the classifier's weights are from; 0 are those before the first step.
        resumed_after: epochs that an earlier call of this run had finished before it was stopped; 0 if there was none.

    Explained in notebooks/08_fine_tuning.ipynb.
    """

    plan: str
    trained_parameters: int
    computed_once: bool
    loss: list = field(default_factory=list)
    accuracy: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    validation_accuracy: list = field(default_factory=list)
    start: tuple | None = None
    learning_rate: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    best_epoch: int = 0
    resumed_after: int = 0

    def __str__(self):
        lines = [self.plan]
        if self.start is not None:
            lines.append(f"before: validation loss {self.start[0]:.4f}, accuracy {self.start[1]:.3f}")
        for number, loss in enumerate(self.loss):
            line = f"epoch {number + 1}: loss {loss:.4f}, accuracy {self.accuracy[number]:.3f}"
            if self.validation_loss:
                line += f", validation loss {self.validation_loss[number]:.4f}, accuracy {self.validation_accuracy[number]:.3f}"
            lines.append(f"{line}, {self.seconds[number]:.1f} s")
        if self.validation_loss:
            lines.append(f"weights are those after epoch {self.best_epoch}")
        return "\n".join(lines)

    __repr__ = __str__


def fine_tune(
    classifier: keras.Model, train: Dataset, *, unfreeze: str = "last_stage", epochs: int = 5,
    validation: float | Dataset | None = None, patience: int | None = 3, learning_rate: float | None = None,
    batch_size: int = 32, weight_decay: float = 0.01, warm_up: float = 0.1, head_first: bool = True,
    augment: str | Callable | None = None, soft_labels: np.ndarray | None = None, label_smoothing: float = 0.0,
    class_weights: str | Sequence[float] | None = None, compute_once: bool = True, resume: bool = True, seed: int = 0,
    progress: bool | Callable[[History], object] | None = None,
) -> History:  # fmt: skip
    """Train a part of a classifier, and its last layer, on photos; the rest stays as it is.

    First the last layer, if it is new (all zeros), is fitted on frozen features. Then both train with AdamW: the learning
    rate rises over the first steps and falls to 0 along a cosine. All BatchNorm layers keep their mean and variance; those
    in the part that trains do train their scale and offset. What stands below that part is computed once for each photo
    and kept in the cache. Dropout layers of the network are active.

    After each epoch the state is kept on disk (but not where `augment` is a function, or with `resume=False`). The same call, after the process was
    killed, goes on with the epoch that it was in, and comes to the same weights. Stopped by hand, the classifier has the best
    weights so far.

    Args:
        classifier: `keras.Model` as `build_classifier` makes it; its weights change.
        train: `Dataset` of n photos with the classifier's classes.
        unfreeze: what trains beside the last layer. "head": nothing; "last_stage": all above the last stage but one, in
            EfficientNet-Lite the last MBConv stage and the 1×1 convolution on it; the name of a cut point: this stage and
            all above; "all": everything; "batch_norm": scale and offset of all BatchNorm layers.
        epochs: how often each photo is seen.
        validation: a part of the photos, 0..1, drawn from `train` class by class and not trained on; or a `Dataset`; 0 for
            none. None takes a tenth where each class has 10 photos or more, else none. The weights of the epoch with
            the lowest validation loss are kept. (Those before the first step count as one, unless the last layer may
            have seen these photos: it was not new, and they are drawn from `train`.) Without, it is the last epoch.
        patience: stop after so many epochs without a lower validation loss; None never stops early.
        learning_rate: highest learning rate; None is 0.001 for "head" and "batch_norm", else 0.0001.
        batch_size: photos a step.
        weight_decay: part of each kernel, times learning rate, that is taken away in each step; offsets and scales
            have none.
        warm_up: part of all steps, 0..1, in which the learning rate rises.
        head_first: False does not fit a new last layer first: it starts with zeros. That needs a higher learning rate, such as
            0.001 for the last stage, and did better with it on the solar cells (chapter 8).
        augment: "turns_and_flips" (quarter turns and mirror images, eight in all), "mirror" (left to right), "none"; None is
            what the card of the data set says leaves a photo's class alone. A function is called for each batch with photos, uint8
            (b, size, size, 3), targets, float32 (b, k), and a `numpy.random.Generator`; it returns both, new. Nothing can
            then be computed once.
        soft_labels: float array, (n, k): how probable each class is for each photo, rows that sum to 1; None takes
            `train.labels`.
        label_smoothing: part of each target, 0..1, that is spread evenly over all classes.
        class_weights: k numbers by which the loss of a photo of each class (after `train.labels`) is multiplied; "balanced"
            lets each class weigh the same in all; None lets each photo.
        compute_once: False sends each photo through the whole network in each epoch, as is usual: slower, same result.
        resume: False keeps no state on disk, and looks for none: a call that was stopped begins anew.
        seed: decides validation photos, order, augmentation and dropout.
        progress: True shows epoch, loss, validation accuracy and time left; a function is called with the `History` after
            each epoch; None does neither.

    Returns:
        `History`.

    Raises:
        ValueError: there is no such part, nothing to train, classes do not fit, an argument is wrong; or the loss is no
            longer a number, which stops the training with the best weights so far in the classifier.
        AssertionError: a BatchNorm layer has not kept its statistics (this would be a fault in this package or in Keras).

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=5, seed=0)
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> classifier = tl.build_classifier(backbone, cells.class_names)
        >>> history = tl.fine_tune(classifier, cells, unfreeze="stage_7", epochs=2, validation=0)
        >>> history.trained_parameters, len(history.loss), history.best_epoch
        (1020162, 2, 2)

    Explained in notebooks/08_fine_tuning.ipynb; how deep in notebooks/09_how_deep.ipynb.
    """
    _check(classifier, train, epochs, batch_size, learning_rate, label_smoothing, warm_up, weight_decay, patience, seed)
    targets, weights = _targets(train, soft_labels, label_smoothing, class_weights)
    variants, change = _augmentation(augment, train)
    part = Part(classifier, unfreeze)
    new_head = not any(np.any(weight) for weight in part.logits.get_weights())
    kept, held = _validation_rows(train, validation, seed)
    judged, judge = None, None
    if isinstance(validation, Dataset):
        _check_classes(classifier, validation)
        judged, judge = validation, _targets(validation, None, 0, None)[0]
    elif len(held):
        judged, judge = train.subset(held), targets[held]
    start_counts = new_head or isinstance(validation, Dataset)
    trained, targets, weights = train.subset(kept), targets[kept], weights[kept]

    statistics = part.statistics()
    if new_head and head_first:
        part.fit_head(trained)
    if learning_rate is None:
        learning_rate = LEARNING_RATES.get(unfreeze, LEARNING_RATE)
    once = compute_once and change is None
    source = _Source(part, trained, variants, epochs, once, seed)
    judged = judged and _Source(part, judged, (0,), 1, source.computed, seed)
    run = _Run(
        part, source, targets, weights, judged, judge, epochs, patience, learning_rate, batch_size, weight_decay, warm_up,
        change, start_counts, resume, seed,
    )  # fmt: skip
    try:
        with part.unfrozen(), _display(progress, epochs) as show:
            run.go(show)
    except Exception as error:
        if new_head and not run.history.loss and not isinstance(error, Diverged):  # as if nothing had been called
            part.logits.set_weights([np.zeros_like(weight) for weight in part.logits.get_weights()])
        raise
    changed = [name for name, value in part.statistics().items() if not np.array_equal(value, statistics[name])]
    if changed:
        raise AssertionError(f"{', '.join(changed[:3])}: changed, and statistics of BatchNorm must stay as they are")
    return run.history


# --- arguments ----------------------------------------------------------------------------------------------------


def _check(classifier, train, epochs, batch_size, learning_rate, label_smoothing, warm_up, weight_decay, patience, seed):
    import keras

    sound = isinstance(classifier, keras.Model) and not isinstance(classifier, keras.Sequential)
    if not sound or "logits" not in [layer.name for layer in classifier.layers]:
        raise ValueError(
            "expected a classifier whose last layers are 'logits' and 'probabilities', as build_classifier makes it: "
            f"this is {getattr(classifier, 'name', classifier)!r}"
        )
    _check_classes(classifier, train)
    patience = 1 if patience is None else patience
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("patience", patience, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}; expected a number above 0, such as 0.001")
    for name, value in (("label_smoothing", label_smoothing), ("warm_up", warm_up)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; expected a part, from 0 to below 1")
    if not 0 <= weight_decay < np.inf:
        raise ValueError(f"weight_decay is {weight_decay}; expected 0 or more, such as 0.01")


def _check_classes(classifier, dataset):
    names, k = getattr(classifier, "class_names", None), classifier.output_shape[-1]
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: no photos to train on")
    if names is not None and tuple(names) != tuple(dataset.class_names) or k != len(dataset.class_names):
        raise ValueError(
            f"the classifier knows the classes {list(names or range(k))[:6]}, {dataset.name} has "
            f"{list(dataset.class_names)[:6]}; names and order must be the same"
        )
    if np.min(dataset.labels) < 0 or np.max(dataset.labels) >= k:
        raise ValueError(f"{dataset.name}: labels run from {min(dataset.labels)} to {max(dataset.labels)}; expected 0..{k - 1}")


def _targets(dataset, soft_labels, smoothing, class_weights):
    """Probabilities to learn, float32, (n, k), and how much each photo counts, float32, (n,)."""
    n, k = len(dataset), len(dataset.class_names)
    targets = np.eye(k, dtype=np.float32)[dataset.labels]
    if soft_labels is not None:
        targets = np.asarray(soft_labels, np.float32)
        if targets.shape != (n, k) or not (targets >= 0).all() or not np.allclose(targets.sum(axis=1), 1, atol=1e-3):
            raise ValueError(
                f"soft_labels have shape {targets.shape}; expected ({n}, {k}): how probable each class is for each photo, "
                "not negative, each row with sum 1"
            )
    targets = (1 - smoothing) * targets + np.float32(smoothing / k)
    if class_weights is None:
        return targets, np.ones(n, np.float32)
    if isinstance(class_weights, str) and class_weights == "balanced":
        class_weights = n / (k * np.maximum(np.bincount(dataset.labels, minlength=k), 1))
    try:
        class_weights = np.asarray(class_weights, np.float32)
    except (TypeError, ValueError):
        class_weights = np.empty(0)
    if class_weights.shape != (k,) or not (class_weights > 0).all() or not np.isfinite(class_weights).all():
        raise ValueError(f"class_weights must be 'balanced' or {k} numbers above 0, one for each class in their order")
    return targets, class_weights[dataset.labels]


def _augmentation(augment, dataset):
    """Variants of each photo, as `vary` numbers them; and a function that changes a batch, or None."""
    if callable(augment):
        return (0,), augment
    augment = dataset.card.symmetry if augment is None else augment
    if augment not in VARIANTS:
        raise ValueError(f"augment is {augment!r}; expected {', '.join(map(repr, VARIANTS))} or a function")
    return VARIANTS[augment], None


def _validation_rows(train, validation, seed):
    """Rows to train on, and rows to judge by."""
    rows = np.arange(len(train))
    if isinstance(validation, Dataset):
        return rows, rows[:0]
    if validation is None:
        counts = np.bincount(train.labels, minlength=len(train.class_names))
        validation = 0.1 if counts.min() >= 10 else 0
    if not 0 <= validation < 1:
        raise ValueError(f"validation is {validation}; expected a part of the photos, from 0 to below 1, or a Dataset")
    if validation == 0:
        return rows, rows[:0]
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(train.labels, return_counts=True)
    size = max(round(validation * len(rows)), len(classes))
    if counts.min() < 2 or len(rows) - size < len(classes):
        raise ValueError(
            f"{train.name}: {len(rows)} photos are too few to set {validation:g} of them aside in each class; pass "
            "validation=0, or a Dataset"
        )
    kept, held = train_test_split(rows, test_size=size, random_state=seed, stratify=train.labels)
    return np.sort(kept), np.sort(held)


# --- photos: what comes into the part that trains -----------------------------------------------------------------


class _Source:
    """For each photo and variant, what comes into the tail: computed once, or photos as they are."""

    def __init__(self, part, dataset, variants, epochs, once, seed):
        import psutil

        self.dataset, self.size = dataset, part.size
        n, count = len(dataset), len(variants)
        # Each photo goes through all its variants in an order of its own before one comes again.
        orders = np.tile(np.array(variants, np.int64), (n, 1))
        orders[:] = np.random.default_rng([seed, 1]).permuted(orders, axis=1) if count > 1 else orders
        self.variants = orders.T[np.arange(min(epochs, count))]  # (at most as many as epochs, n)
        self.shape, self.dtype = (part.size, part.size, 3), np.uint8
        self.rows, self.said = None, "each photo goes through the whole network in each epoch"
        self.unread, self.computed = set(), False
        number = int(np.prod(part.bottom.output_shape[1:])) if once and part.bottom is not None else 0
        bytes_of = n * len(self.variants) * number * 4
        if bytes_of > min(_MOST_KEPT, psutil.virtual_memory().available // 2):
            self.said += f", as what stands below would take {bytes_of / 2**30:.0f} GiB"
        elif number:
            self.computed, self.shape, self.dtype = True, part.bottom.output_shape[1:], np.float32
            self.rows = {variant: self._computed(part, variant) for variant in variants if (self.variants == variant).any()}
            times = f"in {len(self.variants)} variants " if len(self.variants) > 1 else ""
            self.said = f"what stands below was computed once for each photo {times}({bytes_of / 2**20:,.0f} MiB)"
        elif n * self.size**2 * 3 <= _MOST_PHOTOS:
            self.rows = {}  # photos, as they are read for the first time

    def _computed(self, part, variant):
        """Where each photo stands in an array, and that array: those photos that come in this variant in some epoch."""
        needed = np.flatnonzero((self.variants == variant).any(axis=0))
        place = np.empty(len(self.dataset), np.int64)
        place[needed] = np.arange(len(needed))
        try:
            outputs = extract_features(self.dataset.subset(needed), part, pool=False, variant=variant, engine="keras")
        except ValueError:
            if any(self._photo(row) is not None for row in needed):
                raise
            outputs = np.full((len(needed), *self.shape), np.nan, np.float32)  # none of these can be read; others may
        return place, outputs

    def read(self, rows, epoch):
        """What comes in for some photos: array, (b, …); and whether each could be read, bool (b,)."""
        turn = epoch % len(self.variants)
        out, good = np.zeros((len(rows), *self.shape), self.dtype), np.ones(len(rows), bool)
        for place, row in enumerate(rows):
            if self.computed:
                places, outputs = self.rows[self.variants[turn, row]]
                out[place] = outputs[places[row]]
                good[place] = not np.isnan(out[place]).all()
            else:
                photo = self._photo(row)
                good[place] = photo is not None
                if photo is not None:
                    out[place] = vary(photo, self.variants[turn, row])
            if not good[place]:
                out[place] = 0
                self.unread.add(int(row))
        return out, good

    def _photo(self, row):
        """One photo as it is; None where it cannot be read."""
        if self.rows is not None and row in self.rows:
            return self.rows[row]
        try:
            photo = resize_image(self.dataset.image(row, at_least=self.size), self.size)
        except (UnreadablePhoto, OSError):
            photo = None
        if self.rows is not None:
            self.rows[row] = photo
        return photo


# --- training -----------------------------------------------------------------------------------------------------


class Diverged(ValueError):
    """The loss is no longer a number."""


class _Run:
    """One training, from the first step or from where it was stopped."""

    def __init__(
        self, part, source, targets, weights, judged, judge, epochs, patience, learning_rate, batch_size, weight_decay,
        warm_up, change, start_counts, resume, seed,
    ):  # fmt: skip
        import keras

        self.part, self.source, self.targets, self.weights = part, source, targets, weights
        self.judged, self.judge, self.change = judged, judge, change
        self.epochs, self.patience, self.seed, self.start_counts = epochs, patience, seed, start_counts
        self.n, self.batch_size, self.learning_rate = len(targets), min(batch_size, len(targets)), learning_rate
        self.steps = -(-self.n // self.batch_size)
        total = self.steps * epochs
        rising = min(int(round(warm_up * total)), total - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / (rising + 1), total - rising, warmup_target=learning_rate if rising else None, warmup_steps=rising
        )
        self.optimizer = keras.optimizers.AdamW(rate, weight_decay=weight_decay, global_clipnorm=1.0)
        self.optimizer.exclude_from_weight_decay(var_list=[v for v in part.variables if len(v.shape) < 2])
        self.optimizer.build(part.variables)
        plan = (
            f"unfreeze={part.unfreeze!r}: {part.parameters:,} of {part.classifier.count_params():,} parameters train, on {self.n:,} photos; "
            f"{source.said}; {epochs} epochs of {self.steps} steps, {self.batch_size} photos each; learning rate up to {learning_rate:g}"
        )
        plan += f"; judged by {len(judge):,} other photos" if judged else ""
        self.history = History(plan, part.parameters, source.computed)
        settings = [
            part.unfreeze, epochs, patience, learning_rate, self.batch_size, weight_decay, warm_up, start_counts, seed,
            source.variants.tolist(), self.history.computed_once,
        ]  # fmt: skip
        self.checkpoint = _Checkpoint(part.classifier, settings, (targets, weights, judge), (source, judged))
        plain = all(type(each.dataset).image is Dataset.image for each in (source, judged) if each)
        if not resume or change is not None or not plain:  # what a function does, or a data set of its own kind, cannot be told from outside
            self.checkpoint.file = None
        self.best, self.least, self.waited = self._state(), np.inf, 0
        self._step, self._forward = self._functions()

    def _functions(self):
        import tensorflow as tf

        variables, optimizer = self.part.variables, self.optimizer
        part = self.part

        def logits_of(inputs, computed, training):
            if computed:
                return part.tail(inputs, training=training)
            if part.tail is not None:  # what is frozen has its dropout at rest, as where it is computed once
                return part.tail(part.bottom(tf.cast(inputs, tf.float32), training=False), training=training)
            return part.whole(tf.cast(inputs, tf.float32), training=training)

        def losses(inputs, targets, computed, training):
            logits = logits_of(inputs, computed, training)
            right = tf.equal(tf.argmax(logits, axis=1), tf.argmax(targets, axis=1))
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits), tf.cast(right, tf.float32)

        @tf.function(autograph=False)
        def step(inputs, targets, weights, count):
            with part.folded(), tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch([variable.value for variable in variables])
                loss, right = losses(inputs, targets, self.source.computed, True)
                loss = tf.reduce_sum(weights * loss) / count
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            optimizer.apply(gradients, variables)
            return loss, right

        @tf.function(autograph=False)
        def forward(inputs, targets):
            return losses(inputs, targets, self.judged.computed if self.judged else self.source.computed, False)

        return step, forward

    def _state(self):
        return [variable.numpy() for variable in self.part.variables]

    def _restore(self, state):
        for variable, value in zip(self.part.variables, state, strict=True):
            variable.assign(value)

    def go(self, show):
        history = self.history
        saved = self.checkpoint.read(self)
        if saved:
            self._restore(saved["now"])
            for variable, value in zip(self.optimizer.variables, saved["optimizer"], strict=True):
                variable.assign(value)
            self.best, self.least, self.waited = saved["best"], saved["least"], saved["waited"]
            for name, value in saved["history"].items():
                setattr(history, name, value)
            history.resumed_after = len(history.loss)
        elif self.judged:
            history.start = self._judge()
            if self.start_counts:
                self.least = history.start[0]
        if history.loss:
            show(history)
        try:
            while len(history.loss) < self.epochs and not (self.patience and self.waited >= self.patience):
                self._epoch(len(history.loss))
                self.checkpoint.write(self)
                show(history)
        finally:  # also after an error, or Ctrl-C
            self._restore(self.best)
        self.checkpoint.remove()
        if lost := len(self.source.unread):
            warnings.warn(f"{self.source.dataset.name}: {lost:,} of {self.n:,} photos cannot be read and were left out", stacklevel=4)

    def _epoch(self, epoch):
        began, history = time.perf_counter(), self.history
        for number, generator in enumerate(self.part.generators):  # after seed and epoch, and not after what ran before
            state = np.random.default_rng([self.seed, 4, epoch, number]).integers(0, 2**31, 2)
            generator.state.assign(state.astype(generator.state.dtype))
        order = np.random.default_rng([self.seed, 2, epoch]).permutation(self.n)
        lost, hits, counted = 0.0, 0.0, 0
        for number, (rows, inputs, targets, weights) in enumerate(self._batches(order, epoch)):
            count = np.float32((weights > 0).sum())
            if not count:  # none of these photos can be read: nothing to learn, and the schedule goes on
                self.optimizer.iterations.assign_add(1)
                continue
            loss, right = self._step(inputs, targets, weights, count)
            loss = self._finite(loss, epoch, number)
            last = inputs, targets, weights
            history.steps.append(loss)
            lost, hits, counted = lost + loss * count, hits + right.numpy()[weights > 0].sum(), counted + count
        if not counted:
            raise ValueError(f"{self.source.dataset.name}: none of its {self.n:,} photos can be read")
        history.loss.append(float(lost / counted))
        history.accuracy.append(float(hits / counted))
        history.learning_rate.append(float(self.optimizer._learning_rate(self.optimizer.iterations - 1)))
        if self.judged:
            loss, accuracy = self._judge()
            self._finite(loss, epoch, self.steps - 1)
            history.validation_loss.append(loss)
            history.validation_accuracy.append(accuracy)
            self.waited = 0 if loss < self.least else self.waited + 1
        else:  # what the last step has done, no loss has seen yet
            inputs, targets, weights = last
            self._finite(self._forward(inputs, targets)[0].numpy()[weights > 0].mean(), epoch, self.steps - 1)
        if not self.judged or loss < self.least:
            self.best, history.best_epoch = self._state(), epoch + 1
            self.least = loss if self.judged else self.least
        history.seconds.append(time.perf_counter() - began)

    def _finite(self, loss, epoch, number):
        """The loss as a float, if it is a number; else the end."""
        if not np.isfinite(loss := float(loss)):
            self.checkpoint.remove()
            raise Diverged(
                f"the loss is {loss} in epoch {epoch + 1}, step {number + 1}: the training has left the numbers. The classifier "
                f"has its weights of epoch {self.history.best_epoch} again. Take a lower learning_rate (it was "
                f"{self.learning_rate:g}), a longer warm_up, or look for photos or soft labels that are not as they should be"
            )
        return loss

    def _batches(self, order, epoch):
        """Batches, read ahead by a thread; the last one is filled up with photos that count nothing."""
        full = np.concatenate([order, np.repeat(order[-1:], self.steps * self.batch_size - self.n)])
        counts = np.arange(len(full)) < self.n

        def make(number):
            here = slice(number * self.batch_size, (number + 1) * self.batch_size)
            rows = full[here]
            inputs, good = self.source.read(rows, epoch)
            good &= counts[here]
            targets = self.targets[rows]
            if self.change is not None and good.any():  # it sees photos that count, and no others
                inputs = inputs.astype(np.float32)
                inputs[good], targets[good] = self._changed(inputs[good], targets[good], [self.seed, 3, epoch, number])
            return rows, inputs, targets, (self.weights[rows] * good).astype(np.float32)

        yield from _ahead(make, self.steps)

    def _changed(self, photos, targets, seed):
        """What the reader's function makes of a batch."""
        new_photos, new_targets = self.change(photos.astype(np.uint8), targets, np.random.default_rng(seed))
        new_photos, new_targets = np.asarray(new_photos), np.asarray(new_targets, np.float32)
        if new_photos.shape != photos.shape or new_targets.shape != targets.shape:
            raise ValueError(
                f"augment returned photos {new_photos.shape} and targets {new_targets.shape}; expected {photos.shape} and "
                f"{targets.shape}"
            )
        return new_photos, new_targets

    def _judge(self):
        """Loss and accuracy on the validation photos."""
        n, size = len(self.judge), min(self.batch_size, len(self.judge))
        lost, hits, counted = 0.0, 0.0, 0

        def make(number):
            rows = np.arange(number * size, (number + 1) * size)
            inputs, good = self.judged.read(np.minimum(rows, n - 1), 0)
            return inputs, self.judge[np.minimum(rows, n - 1)], good & (rows < n)

        for inputs, targets, good in _ahead(make, -(-n // size)):
            loss, right = self._forward(inputs, targets)
            lost, hits, counted = lost + loss.numpy()[good].sum(), hits + right.numpy()[good].sum(), counted + good.sum()
        if not counted:
            raise ValueError(f"{self.judged.dataset.name}: none of the validation photos can be read")
        return float(lost / counted), float(hits / counted)


def _ahead(make, count):
    """make(0), make(1), …, with two under way in a thread while the caller computes."""
    waiting = deque()
    with ThreadPoolExecutor(1) as reader:
        for number in range(count):
            waiting.append(reader.submit(make, number))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


# --- what a killed run goes on from -------------------------------------------------------------------------------


class _Checkpoint:
    """The state after an epoch, written whole or not at all; known by network, photos and settings, and gone at the end."""

    def __init__(self, classifier, settings, arrays, sources):
        key = hashlib.sha256(repr([fingerprint(classifier), settings]).encode())
        for array in arrays:
            key.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        for source in filter(None, sources):
            for file in source.dataset.files:
                status = _status(file)
                key.update(repr((os.fspath(file), status)).encode())
        self.folder = cache_dir() / "fine_tuning"
        self.file = self.folder / f"{key.hexdigest()[:24]}.npz"

    def read(self, run):
        """What was kept, or None."""
        if self.file is None:
            return None
        try:
            with np.load(self.file, allow_pickle=False) as file:
                saved = json.loads(str(file["facts"]))
                for name, wanted in (("now", run.part.variables), ("best", run.part.variables), ("optimizer", run.optimizer.variables)):
                    saved[name] = [file[f"{name}_{number}"] for number in range(len(wanted))]
                    if [array.shape for array in saved[name]] != [tuple(variable.shape) for variable in wanted]:
                        return None
                return saved
        except Exception:  # not there, or damaged: a file can be damaged in any way
            return None

    def write(self, run):
        if self.file is None:
            return
        facts = {
            "least": run.least, "waited": run.waited,
            "history": {name: value for name, value in vars(run.history).items() if name not in ("plan", "resumed_after")},
        }  # fmt: skip
        arrays = {"facts": np.array(json.dumps(facts))}
        for name, values in (("now", run._state()), ("best", run.best), ("optimizer", [v.numpy() for v in run.optimizer.variables])):
            arrays |= {f"{name}_{number}": value for number, value in enumerate(values)}
        part = self.folder / f"{uuid.uuid4().hex}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._forget_old()
            with open(part, "wb") as stream:
                np.savez(stream, **arrays)
            os.replace(part, self.file)
        except OSError as error:
            warnings.warn(f"the state of the training cannot be kept on disk ({error.strerror or error}); a stopped run begins anew", stacklevel=6)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _forget_old(self):
        """Of runs that were killed and never called again, and of writers killed as they wrote."""
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if path != self.file and time.time() - path.stat().st_mtime > _FORGET:
                    path.unlink()

    def remove(self):
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)


def _status(file):
    try:
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns
    except OSError:
        return None


# --- progress -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _display(progress, epochs):
    """The function to call after each epoch, for what the caller gave."""
    if progress is not True:
        yield progress if callable(progress) else lambda history: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("epochs; {task.description}"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("left"), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=epochs)
        said = False

        def show(history):
            nonlocal said
            if not said:
                bar.console.print(history.plan, highlight=False)
                said = True
            text = f"loss {history.loss[-1]:.4f}"
            if history.validation_accuracy:
                text += f", validation accuracy {history.validation_accuracy[-1]:.3f}"
            bar.update(task, completed=len(history.loss), description=text)

        yield show
