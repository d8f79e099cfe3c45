"""A linear classifier on features: the new last layer.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Head", "train_head"]

METHODS = ("logistic_regression", "nearest_mean", "keras")
SCALES = ("each", "one")
# Tried by cross-validation, from strong to weak regularisation (scikit-learn's C).
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
# Used where there are too few photos to try: with two photos a class, nothing can be held back to choose by.
FIXED_STRENGTH = 0.01
# Likewise for how fast probabilities fall with the distance from a mean: rather too slowly than too fast.
FIXED_STEEPNESS = 1.0
# Of method "keras": enough that up to 512 photos end near the optimum, and thousands not far from it. With fewer channels
# each weight has further to go, hence the root below.
STEPS, BATCH_SIZE, LEARNING_RATE = 300, 512, 0.8


@dataclass(frozen=True, repr=False)
class Head:
    """A trained last layer: features → probabilities = softmax(features · kernel + bias).

    Attributes:
        kernel: float32 array, (channels, k).
        bias: float32 array, (k,).
        strength: scikit-learn's C of the fit: the smaller, the stronger the regularisation; None for "nearest_mean".
        method: how it was fitted: "logistic_regression", "nearest_mean" or "keras".

    Example:
        >>> head = tl.Head(kernel=np.array([[1.0, -1.0]]), bias=np.zeros(2), strength=None, method="nearest_mean")
        >>> head
        <Head: 1 features → 2 classes, nearest_mean>
        >>> head.predict([[2.0], [-2.0]])
        array([0, 1])

    Explained in notebooks/03_feature_extraction.ipynb.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float | None
    method: str = "logistic_regression"

    def __repr__(self):
        strength = "" if self.strength is None else f", C = {self.strength:g}"
        return f"<Head: {self.kernel.shape[0]} features → {self.kernel.shape[1]} classes, {self.method}{strength}>"

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Probabilities, float32, (n, k), for features, (n, channels).

        Raises:
            ValueError: `features` has another number of channels.
        """
        features = np.asarray(features, np.float32)
        if features.ndim != 2 or features.shape[1] != len(self.kernel):
            raise ValueError(f"features have shape {features.shape}; this head takes (n, {len(self.kernel)})")
        logits = features @ self.kernel + self.bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Labels, int64, (n,): the class with the largest probability."""
        return self.predict_proba(features).argmax(axis=1)


def train_head(
    features: np.ndarray, labels: Sequence[int] | np.ndarray, *, method: str = "logistic_regression",
    strength: float | None = None, scale: str = "each", seed: int = 0,
) -> Head:  # fmt: skip
    """Fit a linear classifier on features: the only part of feature extraction that learns.

    "logistic_regression" minimises the mean of −log(probability of the right class), plus a price on large weights.
    Each feature is first centred and scaled to a standard deviation of 1 over these photos, or with `scale` all by one
    number; that scaling is folded into the returned kernel, so the head takes features as they are.

    "keras" minimises the same sum with a softmax layer of Keras and Adam: 300 steps of up to 512 photos, with a
    learning rate that falls from 0.8 / √channels to 0 along a cosine, and no early stopping. It is what you would train
    before fine-tuning, and comes out near "logistic_regression", more slowly. The price stands in the loss, and not in
    the optimiser as AdamW's weight decay does, so that `strength` means the same.

    "nearest_mean" averages the features of each class; the nearest average wins. Features are neither centred nor
    scaled: from a few photos their scatter is not known. Probabilities are softmax(−steepness · distance² / total
    variance). As distance² = |x|² − 2 x · mean + |mean|², and |x|² is the same for all classes, that is exactly a
    linear head. Classes count alike, however many photos each has. The steepness is the one with the lowest log loss
    where each photo is judged by means that it had no part in. Where a class has fewer than three photos it is 1: trust
    the order of the classes then, and not the probabilities.

    Args:
        features: float array, (n, channels), as `extract_features` returns it, float16 or on disk (np.memmap) as well;
            training photos only. Rows that are nan throughout, of photos that could not be read, are left out with a
            warning.
        labels: int array, (n,), with values 0..k−1, each at least once, k ≥ 2.
        method: "logistic_regression", "nearest_mean" or "keras".
        strength: scikit-learn's C, above 0: the price is ‖kernel‖² / (2 · C · n), or twice that for two classes, whose
            kernel has one column in scikit-learn. None chooses it by cross-validation within these photos (three folds,
            lowest log loss of logistic regression); where a class has fewer than three photos it is 0.01.
            "nearest_mean" has no use for it.
        scale: "each" divides each feature by its own standard deviation; "one" divides all by one number, the root of their
            mean variance. With fewer than ten photos a class "one" is mostly better: so few photos say little about the
            spread of a single feature. "nearest_mean" has no use for it.
        seed: decides the folds, and for "keras" the order of the photos.

    Returns:
        `Head`.

    Raises:
        ValueError: there is no such method or scale, `strength` is not above 0 or the method has no use for it, shapes do
            not fit, a label is missing, or a feature is not a finite number.

    Source: multinomial logistic regression as scikit-learn's `LogisticRegression` defines it. Judging frozen features
    by a linear classifier: Razavian et al. 2014, Kornblith et al. 2019. Nearest class mean: Mensink et al. 2013; as a
    softmax over distances, and as a linear layer: Snell et al. 2017.

    Example:
        >>> features = np.array([[0.0, 0.1], [0.2, 0.0], [1.0, 0.9], [0.8, 1.0]])
        >>> head = tl.train_head(features, np.array([0, 0, 1, 1]), method="nearest_mean")
        >>> head
        <Head: 2 features → 2 classes, nearest_mean>
        >>> head.predict([[0.1, 0.2], [0.9, 0.8]])
        array([0, 1])

    Explained in notebooks/03_feature_extraction.ipynb; nearest mean, and one scale, in notebooks/05_few_shots.ipynb.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; there are {', '.join(map(repr, METHODS))}")
    if scale not in SCALES:
        raise ValueError(f"there is no scale {scale!r}; there are {', '.join(map(repr, SCALES))}")
    if scale != "each" and method == "nearest_mean":
        raise ValueError("scale is for heads that scale features, and 'nearest_mean' does not: leave it out")
    if strength is not None and method == "nearest_mean":
        raise ValueError("strength is a price on large weights, and 'nearest_mean' fits none: leave it out")
    if strength is not None and not 0 < strength < np.inf:
        raise ValueError(f"strength is {strength}; expected a number above 0")
    features, labels = _checked(features, labels)
    few = np.bincount(labels).min() < 3
    if method == "nearest_mean":
        kernel, bias = _nearest_mean(features, labels, FIXED_STEEPNESS if few else None)
        return Head(kernel, bias, None, method)

    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    if scale == "one":
        deviation[:] = np.sqrt(np.mean(deviation**2))
    deviation[deviation == 0] = 1.0  # a feature that never changes carries nothing; do not divide by zero
    if strength is None and few:
        strength = FIXED_STRENGTH
    # The products are small: a second BLAS thread mostly waits, and beside TensorFlow's threads for ten times as long.
    with _blas().limit(limits=1, user_api="blas"):
        if strength is None or method == "logistic_regression":
            scores, back = _principal((features - mean) / deviation, once=strength is not None)
            strength = _choose_strength(scores, labels, seed) if strength is None else strength
        if method == "logistic_regression":
            model = _logistic(scores, labels, strength)
            kernel, bias = back(model.coef_.T), model.intercept_
            if len(bias) == 1:  # scikit-learn keeps one column for two classes; softmax(−z/2, z/2) is the same as sigmoid(z)
                kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    if method == "keras":
        kernel, bias = _keras_layer(features, labels, mean, deviation, strength, seed)
    kernel = kernel / deviation[:, None]
    return Head(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32), float(strength), method)


def _checked(features, labels):
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"features have shape {features.shape} and labels {labels.shape}; expected (n, channels) and (n,)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0 or labels.min() < 0:
        raise ValueError(f"labels are {labels.dtype}; expected whole numbers 0..k−1, one a photo")
    unread = np.isnan(features).all(axis=1)
    if unread.any():
        warnings.warn(f"{unread.sum():,} of {len(labels):,} photos could not be read and are left out", stacklevel=3)
        features, labels = features[~unread], labels[~unread]
    labels = labels.astype(np.int64)
    if len(labels) and labels.max() >= len(labels):
        raise ValueError(f"labels run to {labels.max()} for {len(labels)} photos; expected 0..k−1, each at least once")
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() == 0:
        raise ValueError(f"photos a label are {counts.tolist()}; expected at least two labels, none of them empty")
    if not np.isfinite(features).all():
        raise ValueError(
            "features hold values that are no finite number; look at the photos or the network they come from"
        )
    return features, labels


@functools.cache
def _blas():
    """To limit the threads of linear algebra; to find its libraries takes longer than to fit a head on 40 photos."""
    import scipy.linalg  # noqa: F401, so that its library is among them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _softmax(logits, labels):
    """Probabilities, (n, k), and −log(probability of the right class), (n,)."""
    logits = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    totals = powers.sum(axis=1)
    return powers / totals[:, None], np.log(totals) - logits[np.arange(len(labels)), labels]


def _nearest_mean(features, labels, steepness):
    """Kernel and bias; `steepness` None chooses it, from 0.01 to 100."""
    from scipy.optimize import minimize_scalar

    middle, counts = features.mean(axis=0, dtype=np.float64), np.bincount(labels)
    centred = features - middle
    means = np.stack([centred[labels == label].mean(axis=0) for label in range(len(counts))])
    variance = np.vdot(centred, centred) / len(centred) or 1.0  # all photos alike: any number will do
    if steepness is None:
        scores = (2 * centred @ means.T - (means**2).sum(axis=1)) / variance
        own = ((centred - means[labels]) ** 2).sum(axis=1) / variance
        n = counts[labels]
        # without the photo, the mean of its class lies further away
        scores[np.arange(len(n)), labels] -= own * ((n / (n - 1)) ** 2 - 1)

        def loss(log_steepness):
            return (_softmax(np.exp(log_steepness) * scores, labels)[1] / n).sum()

        steepness = np.exp(minimize_scalar(loss, bounds=np.log([0.01, 100]), method="bounded").x)
    kernel = 2 * steepness / variance * means.T
    bias = -steepness / variance * (means**2).sum(axis=1) - middle @ kernel
    return kernel.astype(np.float32), bias.astype(np.float32)


def _principal(scaled, once):
    """The same photos along their principal directions, of which there are at most as many as photos.

    The best kernel is a sum of photos: whatever stands at right angles to all of them costs and changes nothing. So
    nothing is lost, and 40 photos need 39 numbers each and not 1,280.

    Returns:
        float64 array, (n, directions); a function that takes a kernel for it back to one for `scaled`. For a single fit
        (`once`) of more photos than channels both stay as they are: turning would cost more than it saves.
    """
    n, channels = scaled.shape
    if n >= channels and once:
        return scaled, lambda kernel: kernel
    squares, directions = np.linalg.eigh(scaled @ scaled.T if n < channels else scaled.T @ scaled)
    kept = squares > 1e-12 * squares[-1]
    kept[-1] = True  # also where all photos are alike
    lengths, directions = np.sqrt(np.maximum(squares[kept], 1e-300)), directions[:, kept]
    if n >= channels:
        return scaled @ directions, lambda kernel: directions @ kernel
    return directions * lengths, lambda kernel: scaled.T @ (directions @ (kernel / lengths[:, None]))


def _logistic(scores, labels, strength, model=None, tolerance=1e-7):
    """scikit-learn's model, fitted; one that was fitted before goes on from there."""
    from sklearn.linear_model import LogisticRegression

    model = model or LogisticRegression(max_iter=3000, warm_start=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes")  # one photo of each of 40 people: so it is
        return model.set_params(C=strength, tol=tolerance).fit(scores, labels)


def _choose_strength(scores, labels, seed):
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    losses = np.zeros(len(STRENGTHS))
    for kept, held in StratifiedKFold(3, shuffle=True, random_state=seed).split(scores, labels):
        known, model = scores[kept], None
        for place, strength in enumerate(STRENGTHS):  # each starts where the one before ended
            model = _logistic(known, labels[kept], strength, model, tolerance=1e-5)
            said = model.predict_proba(scores[held])
            losses[place] += log_loss(labels[held], said, labels=model.classes_, normalize=False)
    return STRENGTHS[losses.argmin()]


def _keras_layer(features, labels, mean, deviation, strength, seed):
    """Kernel and bias for standardised features. From zeros, and in an order of its own: no global seed is set."""
    import keras

    price, k = keras.regularizers.L2((2 if labels.max() == 1 else 1) / (strength * len(labels)) / 2), int(labels.max()) + 1
    layer = keras.layers.Dense(
        k, activation="softmax", kernel_initializer="zeros", kernel_regularizer=price, dtype="float32"
    )
    model = keras.Sequential([keras.Input((len(mean),)), layer])
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE / len(mean) ** 0.5, STEPS))
    # jit_compile: that would take longer than the training
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    mean, deviation = mean.astype(np.float32), deviation.astype(np.float32)
    rng, queue, size = np.random.default_rng(seed), np.empty(0, np.int64), min(BATCH_SIZE, len(labels))
    for _ in range(STEPS):
        if len(queue) < size:
            queue = np.append(queue, rng.permutation(len(labels)))
        rows, queue = queue[:size], queue[size:]  # always as many: another shape would make TensorFlow trace it again
        model.train_on_batch((features[rows] - mean) / deviation, labels[rows])
    return [weight.astype(np.float64) for weight in layer.get_weights()]
