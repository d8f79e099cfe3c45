"""A linear classifier on features: the new last layer.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

__all__ = ["Head", "train_head"]

# Tried by cross-validation, from strong to weak regularisation (scikit-learn's C).
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
# Used where there are too few photos to try: with two photos a class, nothing can be held back to choose by.
FIXED_STRENGTH = 0.01


@dataclass(frozen=True, repr=False)
class Head:
    """A trained last layer: features → probabilities = softmax(features · kernel + bias).

    Attributes:
        kernel: float32 array, (channels, k).
        bias: float32 array, (k,).
        strength: scikit-learn's C of the fit: the smaller, the stronger the regularisation.

    Explained in notebooks/03_feature_extraction.ipynb.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float

    def __repr__(self):
        return f"<Head: {self.kernel.shape[0]} features → {self.kernel.shape[1]} classes, C = {self.strength:g}>"

    def predict_proba(self, features):
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

    def predict(self, features):
        """Labels, int64, (n,): the class with the largest probability."""
        return self.predict_proba(features).argmax(axis=1)


def train_head(features, labels, *, strength=None, seed=0):
    """Fit a logistic regression on features: the only part of feature extraction that learns.

    Each feature is first centred and scaled to a standard deviation of 1 over these photos; that scaling is folded
    into the returned kernel, so the head takes features as they are.

    Args:
        features: float32 array, (n, channels), as `extract_features` returns it; training photos only. Rows that are nan
            throughout, of photos that could not be read, are left out with a warning.
        labels: int array, (n,), with values 0..k−1, each at least once, k ≥ 2.
        strength: scikit-learn's C, above 0. None chooses it by cross-validation within these photos (three folds, lowest
            log loss); where a class has fewer than three photos it is 0.01.
        seed: decides the folds.

    Returns:
        `Head`.

    Raises:
        ValueError: shapes do not fit, a label is missing, or a feature is not a finite number.

    Source: multinomial logistic regression, scikit-learn's `LogisticRegression`. Judging frozen features by a linear
    classifier: Razavian et al. 2014, Kornblith et al. 2019.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(
            f"features have shape {features.shape} and labels {labels.shape}; expected (n, channels) and (n,)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or len(labels) == 0 or labels.min() < 0:
        raise ValueError(f"labels are {labels.dtype}; expected whole numbers 0..k−1, one a photo")
    unread = np.isnan(features).all(axis=1)
    if unread.any():
        warnings.warn(f"{unread.sum():,} of {len(labels):,} photos could not be read and are left out", stacklevel=2)
        features, labels = features[~unread], labels[~unread]
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() == 0:
        raise ValueError(f"photos a label are {counts.tolist()}; expected at least two labels, none of them empty")
    if not np.isfinite(features).all():
        raise ValueError("features hold values that are no finite number; look at the photos or the network they come from")
    if strength is not None and not strength > 0:
        raise ValueError(f"strength is {strength}; expected a number above 0")

    mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0  # a feature that never changes carries nothing; do not divide by zero
    scaled = (features - mean) / deviation

    def fit(rows, strength):
        return LogisticRegression(C=strength, max_iter=3000, tol=1e-6).fit(scaled[rows], labels[rows])

    # The products are small: a second BLAS thread mostly waits, and beside TensorFlow's threads for ten times as long.
    with threadpool_limits(1, user_api="blas"):
        if strength is None:
            strength = FIXED_STRENGTH if counts.min() < 3 else _choose_strength(fit, scaled, labels, seed)
        model = fit(slice(None), strength)
    kernel, bias = model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64)
    if len(counts) == 2:  # scikit-learn keeps one column for two classes: softmax(−z/2, z/2) is the same as sigmoid(z)
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
    kernel = kernel / deviation[:, None]
    return Head(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32), float(strength))


def _choose_strength(fit, scaled, labels, seed):
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold

    folds = list(StratifiedKFold(3, shuffle=True, random_state=seed).split(scaled, labels))
    classes = np.arange(labels.max() + 1)

    def loss(strength):
        return sum(
            log_loss(labels[held], fit(kept, strength).predict_proba(scaled[held]), labels=classes) * len(held)
            for kept, held in folds
        )

    return min(STRENGTHS, key=loss)
