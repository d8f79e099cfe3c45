"""Figures: a grid of photos, a confusion matrix, values with intervals.

Each function returns a `matplotlib.figure.Figure`, which a notebook shows when it stands last in a cell.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlhelpers.evaluation import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STYLE", "confusion_matrix", "photo_grid", "values_with_intervals"]

#: The style sheet of all figures in this book, for `matplotlib.pyplot.style.context`.
STYLE = Path(__file__).with_name("book.mplstyle")


def photo_grid(
    photos: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str] | None = None, *, columns: int = 6, size: float = 1.5
) -> Figure:
    """Show photos side by side.

    Args:
        photos: sequence of n arrays, (height, width, 3) in uint8 or (height, width); each in its own size.
        titles: n texts above them; None shows none.
        columns: photos a row.
        size: width of one photo in inches.

    Returns:
        Figure.

    Raises:
        ValueError: no photos, or another number of titles than photos.

    Example:
        >>> faces = tl.load_dataset("faces")
        >>> photos = [faces.image(row) for row in range(4)]
        >>> figure = tl.plots.photo_grid(photos, ["one", "two", "three", "four"], columns=2)
        >>> len(figure.axes)
        4

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    photos = list(photos)
    if not photos:
        raise ValueError("photos is empty; expected at least one")
    if titles is not None and len(titles) != len(photos):
        raise ValueError(f"{len(photos)} photos but {len(titles)} titles; expected one each")
    columns = min(columns, len(photos))
    rows = -(-len(photos) // columns)
    lines = 0 if titles is None else max(text.count("\n") + 1 for text in titles)
    with _figure((columns * size, rows * (size + 0.16 * lines + 0.05))) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for place, photo in enumerate(photos):
            # Grey photos get a fixed range; without it, each would be stretched to its own.
            axes[place].imshow(photo, cmap="gray", vmin=0, vmax=255)
            if titles is not None:
                axes[place].set_title(titles[place], fontsize=8, loc="center", pad=3)
    return figure


def confusion_matrix(report: Report) -> Figure:
    """Show what photos are against what the classifier says they are: counts, and shade by part of the row.

    Args:
        report: `Report`.

    Returns:
        Figure. Counts are written into the cells for up to 12 classes.

    Example:
        >>> report = tl.Report([0, 0, 1], np.eye(2)[[0, 1, 1]], ["good", "bad"])
        >>> figure = tl.plots.confusion_matrix(report)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['good', 'bad']

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    counts, names = report.confusion, report.class_names
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    k = len(names)
    side = 1.2 + 0.75 * min(k, 12)
    with _figure((side + 1.0, side)) as figure:
        axis = figure.subplots()
        shade = axis.imshow(parts, cmap="Blues", vmin=0, vmax=1)
        axis.set(xlabel="the classifier says", ylabel="the photo is")
        axis.set_xticks(range(k), names, rotation=0 if k < 4 else 90)
        axis.set_yticks(range(k), names)
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        if k <= 12:
            for row in range(k):
                for column in range(k):
                    dark = parts[row, column] > 0.5
                    text = f"{counts[row, column]:,}\n{100 * parts[row, column]:.0f} %"
                    axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        figure.colorbar(shade, ax=axis, label="part of the row", shrink=0.8)
    return figure


def values_with_intervals(
    values: Sequence[float], intervals: Sequence[tuple[float, float] | None], names: Sequence[str], *, label: str,
    reference: tuple[float, str] | None = None, percent: bool = True,
) -> Figure:  # fmt: skip
    """Compare values, each a dot with its interval, one below the other.

    Args:
        values: n numbers.
        intervals: n pairs (low, high), or None where a value has no interval.
        names: n texts, from top to bottom.
        label: what the axis shows, with its unit.
        reference: (value, text) of a dashed line to compare with; None draws none.
        percent: values are parts 0..1, shown in per cent.

    Returns:
        Figure.

    Raises:
        ValueError: lengths differ, or a value lies outside its interval.

    Example:
        >>> figure = tl.plots.values_with_intervals(
        ...     [0.69, 0.9], [None, tl.proportion_ci(90, 100)], ["largest class", "ours"], label="accuracy, %"
        ... )
        >>> figure.axes[0].get_xlabel()
        'accuracy, %'

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    if not len(values) == len(intervals) == len(names) or len(values) == 0:
        raise ValueError(f"{len(values)} values, {len(intervals)} intervals, {len(names)} names; expected the same, not 0")
    scale = 100 if percent else 1
    with _figure((6.4, 0.9 + 0.42 * len(values))) as figure:
        axis = figure.subplots()
        for place, (value, interval) in enumerate(zip(values, intervals)):
            low, high = interval if interval is not None else (value, value)
            if not low <= value <= high:
                raise ValueError(f"{names[place]}: value {value} lies outside its interval {low} to {high}")
            axis.plot([scale * low, scale * high], [place, place], color="C0", linewidth=2.5, solid_capstyle="butt")
            axis.plot(scale * value, place, "o", color="C0", markersize=7)
            axis.annotate(
                f"{scale * value:.1f}", (scale * value, place), (0, 7), textcoords="offset points", ha="center", fontsize=9
            )
        if reference is not None:
            axis.axvline(scale * reference[0], color="#555555", linestyle="--", linewidth=1)
            axis.annotate(
                f" {reference[1]}", (scale * reference[0], 0), (2, 14), textcoords="offset points", fontsize=8, va="bottom"
            )
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.5, -0.8)
        axis.set_xlabel(label)
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
    return figure


class _figure:
    """A figure in the book's style, closed at once: a notebook then shows it once, not twice."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import matplotlib.pyplot as plt

        self.style = plt.style.context(STYLE)
        self.style.__enter__()
        self.figure = plt.figure(figsize=self.size)
        return self.figure

    def __exit__(self, *error):
        import matplotlib.pyplot as plt

        plt.close(self.figure)
        self.style.__exit__(*error)
