"""Draw the figures of the chapters to read: `make figures`, or with names of figures to draw only those.

transfer: the picture of chapter 1, drawn from photos of the data sets.
result: chapter 3 in one picture. It runs that chapter's feature extraction, so it takes about two minutes.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import tlhelpers as tl

IMAGES = Path(__file__).parents[1] / "images"
BLUE, ORANGE, GREY, INK = "#0072B2", "#E69F00", "#8a8f94", "#222222"


def transfer():
    solar = tl.load_dataset("solar_cells")
    everyday = [tl.resize_image(tl.load_photo(name), 160, crop=True) for name in ("chelsea", "coffee", "rocket")]
    few = solar.sample(per_class=6, seed=1)
    cells = [few.image(int(np.flatnonzero(few.labels == label)[place])) for label, place in ((0, 2), (0, 1), (1, 1))]

    figure = plt.figure(figsize=(10, 5.0))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(1, 51))
    axis.set_axis_off()

    def text(x, y, words, **style):
        axis.text(x, y, words, **({"ha": "center", "va": "center", "fontsize": 11, "color": INK} | style))

    def box(x, y, width, words, colour, hatch=None):
        shape = FancyBboxPatch(
            (x, y), width, 9, boxstyle="round,pad=0,rounding_size=1.2", facecolor=colour + "22", edgecolor=colour,
            linewidth=2, hatch=hatch,
        )
        axis.add_patch(shape)
        text(x + width / 2, y + 4.5, words)

    def arrow(start, end, **style):
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, shrinkA=0, shrinkB=0, **style))

    def row(y, photos, title, last, colour):
        text(1, y + 11.6, title, ha="left", fontsize=11.5, weight="bold", linespacing=1.3)
        for place, photo in enumerate(photos):
            left = 1 + 7.2 * place
            axis.imshow(photo, extent=(left, left + 6.6, y + 1, y + 8), cmap="gray", aspect="auto", zorder=2)
        for x, words in ((27, "edges,\ncolours"), (42, "textures,\nparts"), (57, "parts put\ntogether")):
            box(x, y, 12, words, BLUE)
            arrow((x - 2.9, y + 4.5), (x - 0.3, y + 4.5), color=GREY)
        arrow((69.1, y + 4.5), (74.7, y + 4.5), color=GREY)
        box(75, y, 23, last, colour)

    row(36, everyday, "Source task:\nname everyday photos", "last layer:\n1,000 names", GREY)
    row(15, cells, "Target task:\nfind defective solar cells", "new last layer:\nfunctional, defective", ORANGE)
    for x in (33, 48, 63):
        arrow((x, 35.4), (x, 24.8), color=BLUE, linewidth=2.2)
    text(65, 30.6, "carried over", ha="left", color=BLUE, weight="bold")
    text(86.5, 30.6, "not carried over", color="#5c6166", style="italic")

    def bracket(left, right, y, words, colour, style):
        axis.plot([left, left, right, right], [y + 1.2, y, y, y + 1.2], color=colour, linewidth=2.2, linestyle=style)
        text((left + right) / 2, y - 1.9, words, fontsize=10.5)

    bracket(75, 98, 12.6, "feature extraction trains this", "#9a6a00", "-")
    bracket(42, 98, 6.4, "fine-tuning trains this and some of the layers before it, or all", "#9a6a00", (0, (4, 1.5)))
    axis.set(xlim=(0, 100), ylim=(1, 51))
    figure.savefig(IMAGES / "transfer.png", dpi=160, facecolor="white")


def result():
    solar = tl.load_dataset("solar_cells")
    train, test = solar.split(test_size=0.25, seed=0)
    backbone = tl.load_backbone("efficientnet_lite0")
    head = tl.train_head(tl.extract_features(train, backbone), train.labels)
    report = tl.evaluate(tl.build_classifier(backbone, train.class_names, head=head), test)

    def pixels(dataset):
        return dataset.images(32)[..., 0].reshape(len(dataset), -1).astype("float32")

    by_pixels = tl.train_head(pixels(train), train.labels)
    pixel_report = tl.Report(test.labels, by_pixels.predict_proba(pixels(test)), test.class_names)
    common = int(np.sum(test.labels == 0))

    with plt.style.context(tl.plots.STYLE):
        figure = plt.figure(figsize=(10, 3.6))
        left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        drawn = test.sample(per_class=3, seed=0)  # at random, so that errors show as they come
        shown = [test.files.index(drawn.files[row]) for row in np.argsort(drawn.labels, kind="stable")]
        for axis, row in zip(left.subplots(2, 3).ravel(), shown):
            axis.imshow(test.image(int(row)))
            axis.set_axis_off()
            mark = "" if report.predictions[row] == test.labels[row] else " (wrong)"
            axis.set_title(
                f"is {test.class_names[test.labels[row]]}\nsaid {test.class_names[report.predictions[row]]}{mark}",
                fontsize=8.5, loc="center",
            )
        axis = right.subplots()
        rows = [
            ("majority class", common / len(test), tl.proportion_ci(common, len(test))),
            ("pixels", pixel_report.accuracy, pixel_report.accuracy_ci),
            ("features of a network\ntrained on other photos", report.accuracy, report.accuracy_ci),
        ]
        for place, (_, value, (low, high)) in enumerate(rows):
            axis.plot([100 * low, 100 * high], [place, place], color=BLUE, linewidth=2.5, solid_capstyle="butt")
            axis.plot(100 * value, place, "o", color=BLUE, markersize=7)
            axis.annotate(f"{100 * value:.1f}", (100 * value, place), (0, 7), textcoords="offset points", ha="center")
        axis.set_yticks(range(3), [name for name, *_ in rows])
        axis.set_ylim(2.6, -0.6)
        axis.set_xlabel("accuracy on 656 test photos in %,\nwith 95 % interval")
        axis.grid(axis="x", color="#dddddd", linewidth=0.8)
        figure.savefig(IMAGES / "result.png", dpi=140)


if __name__ == "__main__":
    for name in sys.argv[1:] or ("transfer", "result"):
        {"transfer": transfer, "result": result}[name]()
