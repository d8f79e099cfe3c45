"""How good is a classifier, and how sure can one be?

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tlhelpers.datasets import Dataset
from tlhelpers.features import run_model

if TYPE_CHECKING:
    import keras

__all__ = ["Report", "evaluate", "proportion_ci"]


@dataclass(frozen=True, repr=False)
class Report:
    """What a classifier said of n photos, against what they are.

    Attributes:
        labels: int64 array, (n,): what each photo is.
        probabilities: float32 array, (n, k): what the classifier said.
        class_names: k names.
        left_out: tuple of (file, reason): photos that could not be used.
        files: tuple of n paths, or () where they are not known. Rows are those of the data set, less photos that could not
            be read.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
        >>> report = tl.Report([0, 0, 0, 1], probabilities, ["good", "bad"])
        >>> report
        accuracy 75.0 %, 95 % interval 30.1 to 95.4 %, 4 photos, 0 left out
        class  photos   recall  precision
        good        3   66.7 %    100.0 %
        bad         1  100.0 %     50.0 %
        >>> report.confusion
        array([[2, 1],
               [0, 1]])
        >>> report.wrong
        array([2])

    Explained in notebooks/03_feature_extraction.ipynb.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]
    left_out: Sequence[tuple] = ()
    files: Sequence = ()

    def __post_init__(self):
        object.__setattr__(self, "labels", np.asarray(self.labels))
        object.__setattr__(self, "probabilities", np.asarray(self.probabilities))
        n, k = np.shape(self.probabilities)
        if np.shape(self.labels) != (n,) or len(self.class_names) != k or n == 0:
            raise ValueError(
                f"labels {np.shape(self.labels)}, probabilities {(n, k)} and {len(self.class_names)} class names do not "
                "fit; expected (n,), (n, k) and k, with n at least 1"
            )
        if not np.isfinite(self.probabilities).all():
            raise ValueError("the classifier gives probabilities that are no finite number; its training has failed")
        if len(self.files) not in (0, n):
            raise ValueError(f"{len(self.files)} files for {n} photos; expected as many, or none")
        if np.min(self.labels) < 0 or np.max(self.labels) >= k:
            raise ValueError(f"labels run from {np.min(self.labels)} to {np.max(self.labels)}; expected 0..{k - 1}")

    @property
    def n(self) -> int:
        """Number of photos."""
        return len(self.labels)

    @cached_property
    def predictions(self) -> np.ndarray:
        """int64 array, (n,): the class with the largest probability."""
        return np.argmax(self.probabilities, axis=1)

    @property
    def wrong(self) -> np.ndarray:
        """int64 array: rows of this report where the classifier is wrong; `files[row]` is the photo."""
        return np.flatnonzero(self.predictions != self.labels)

    @property
    def accuracy(self) -> float:
        """Part of the photos that are classified right, 0..1."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def accuracy_ci(self) -> tuple[float, float]:
        """95 % interval of the accuracy (low, high), Wilson's: how far it could be off with so few photos."""
        return proportion_ci(self.n - len(self.wrong), self.n)

    @cached_property
    def confusion(self) -> np.ndarray:
        """int64 array, (k, k): row is what the photo is, column is what the classifier says."""
        k = len(self.class_names)
        return np.bincount(self.labels * k + self.predictions, minlength=k * k).reshape(k, k)

    @cached_property
    def per_class(self) -> dict[str, dict]:
        """Class name → `n` photos, `recall` (part of them found), its 95 % interval `recall_ci`, and `precision` (part
        of the photos so named that are right; None where no photo was so named). None stands for recall where n is 0."""
        out = {}
        for label, name in enumerate(self.class_names):
            right, n, named = (int(x) for x in (
                self.confusion[label, label], self.confusion[label].sum(), self.confusion[:, label].sum()
            ))
            out[name] = {
                "n": n,
                "recall": right / n if n else None,
                "recall_ci": proportion_ci(right, n) if n else None,
                "precision": right / named if named else None,
            }
        return out

    def __str__(self):
        def percent(value):
            return "    –  " if value is None else f"{100 * value:5.1f} %"

        low, high = self.accuracy_ci
        width = max(len(name) for name in (*self.class_names, "class"))
        lines = [
            f"accuracy {percent(self.accuracy).strip()}, 95 % interval {100 * low:.1f} to {100 * high:.1f} %, "
            f"{self.n:,} photos, {len(self.left_out)} left out",
            f"{'class':<{width}}  photos   recall  precision",
        ]
        lines += [
            f"{name:<{width}}  {row['n']:>6,}  {percent(row['recall'])}    {percent(row['precision'])}"
            for name, row in self.per_class.items()
        ]
        return "\n".join(lines)

    __repr__ = __str__


def evaluate(
    classifier: keras.Model, dataset: Dataset, *, batch_size: int = 8, progress: Callable[[int, int], object] | None = None
) -> Report:
    """Let a classifier say of each photo what it is, and count.

    Args:
        classifier: `keras.Model`: RGB 0..255, (n, size, size, 3) → probabilities, (n, k), as `build_classifier` makes it.
        dataset: `Dataset` of n photos that the classifier was not fitted on.
        batch_size: photos a step.
        progress: function that is called with (photos done, photos in all) after each step; None calls nothing.

    Returns:
        `Report`. Photos that can no longer be read are left out, and named in `left_out`.

    Raises:
        ValueError: the classifier has other classes, or another order of classes, than the data set.

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=2, seed=0)
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> classifier = tl.build_classifier(backbone, cells.class_names)
        >>> tl.evaluate(classifier, cells).n
        4

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    names = getattr(classifier, "class_names", None)
    if names is not None and tuple(names) != tuple(dataset.class_names):
        raise ValueError(
            f"the classifier knows the classes {list(names)[:6]}, {dataset.name} has {list(dataset.class_names)[:6]}; "
            "names and order must be the same"
        )
    if classifier.output_shape[-1] != len(dataset.class_names):
        raise ValueError(
            f"the classifier has {classifier.output_shape[-1]} outputs, {dataset.name} has {len(dataset.class_names)} classes"
        )
    (probabilities, *_), unread = run_model(classifier, dataset, batch_size=batch_size, progress=progress)
    kept = np.setdiff1d(np.arange(len(dataset)), [row for row, _ in unread])
    probabilities = probabilities[kept]
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-3 or probabilities.min() < 0:
        raise ValueError("the classifier's outputs are no probabilities (they do not sum to 1); give it a softmax at its end")
    left_out = (*dataset.left_out, *((dataset.files[row], reason) for row, reason in unread))
    files = tuple(dataset.files[row] for row in kept)
    return Report(dataset.labels[kept], probabilities, tuple(dataset.class_names), left_out, files)


def proportion_ci(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion: Wilson's score interval.

    Args:
        right: number of photos classified right, 0..n.
        n: number of photos, 1 or more.

    Returns:
        (low, high), each 0..1.

    Raises:
        ValueError: right is not between 0 and n, or n is below 1.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Example:
        >>> low, high = tl.proportion_ci(90, 100)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
