"""Draw the figures of the chapters to read: `make figures`, or with names of figures to draw only those.

transfer: the picture of chapter 1, drawn from photos of the data sets.
result: chapter 3 in one picture. It runs that chapter's feature extraction, so it takes about two minutes.
cover: a cat and a solar cell on their way through the same layers.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
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


# One channel of each layer, the same for both photos: chosen by eye, as those in which eyes and crack show best.
COVER_CHANNELS = {"stem": 21, "stage_2": 17, "stage_3": 22, "stage_4": 68, "top": 967}
COVER_SIDE, COVER_STEP = 448, 352  # pixels: side of a panel, and how far the next one is shifted


def cover():
    backbone = tl.load_backbone("efficientnet_lite0")
    cell = tl.load_dataset("solar_cells").image(1)
    photos = [tl.resize_image(photo, backbone.image_size, crop=True) for photo in (tl.load_photo("chelsea"), cell)]
    layers = backbone.cut(list(COVER_CHANNELS), pool=False).predict(np.stack(photos).astype("float32"), verbose=0)
    blues = LinearSegmentedColormap.from_list("book", ["#f4f9fc", "#a9d3ec", "#3c96c8", BLUE, "#00304f"])

    def stretched(values):
        low, high = np.percentile(values, (2, 98))
        return np.clip((values - low) / (high - low), 0, 1)

    def panels(row):
        # The cell glows faintly: on paper its crack shows only when the photo is brightened.
        yield np.clip(photos[row] / 255 * (1, 1.7)[row], 0, 1)
        for layer, channel in zip(layers, COVER_CHANNELS.values()):
            yield blues(stretched(layer[row, ..., channel]))[..., :3]

    figure = plt.figure(figsize=(10, 3.6))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, 100), ylim=(0, 36))
    axis.set_axis_off()
    left, height = 1.2, 14.6
    scale = height / COVER_SIDE
    ends = [("last layer:\n1,000 names", GREY), ("new last layer:\nfunctional,\ndefective", ORANGE)]
    for row, (bottom, (words, colour)) in enumerate(zip((20.4, 1.0), ends)):
        strip = _dissolve(list(panels(row)), np.random.default_rng(row))
        right = left + scale * strip.shape[1]
        axis.imshow(strip, extent=(left, right, bottom, bottom + height), aspect="auto", interpolation="none")
        middle = bottom + height / 2
        start, end = (right + 0.8, middle), (right + 4.6, middle)
        axis.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=GREY))
        box = FancyBboxPatch(
            (right + 5.4, middle - 4.6), 98.8 - right - 5.4, 9.2, boxstyle="round,pad=0,rounding_size=1.2",
            facecolor=colour + "22", edgecolor=colour, linewidth=2,
        )
        axis.add_patch(box)
        axis.text((right + 5.4 + 98.8) / 2, middle, words, ha="center", va="center", fontsize=12, color=INK)
    for place, name in enumerate(COVER_CHANNELS, start=1):
        centre = left + scale * (place * COVER_STEP + COVER_SIDE / 2)
        axis.plot([centre, centre], [15.9, 20.1], color=BLUE, linewidth=1)
        axis.text(
            centre, 18, name.replace("_", " "), ha="center", va="center", fontsize=12, color=BLUE,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )
    axis.text((right + 5.4 + 98.8) / 2, 18, "the same layers", ha="center", va="center", fontsize=12, color=BLUE)
    figure.savefig(IMAGES / "cover.png", dpi=160, facecolor="white")


def _dissolve(panels, rng):
    """Square pictures, (side, side, 3) in 0..1, as one strip in which each breaks up into the tiles of the next."""
    strip = np.ones((COVER_SIDE, COVER_STEP * (len(panels) - 1) + COVER_SIDE, 3))
    overlap = COVER_SIDE - COVER_STEP
    for place, panel in enumerate(panels):
        times = COVER_SIDE // len(panel)
        panel = np.kron(panel, np.ones((times, times, 1)))
        start = place * COVER_STEP
        if place:
            tile = min(max(times, 8), 32)
            chance = (np.arange(overlap // tile) + 0.5) / (overlap // tile)
            arrived = np.kron(rng.random((COVER_SIDE // tile, len(chance))) < chance, np.ones((tile, tile)))[..., None]
            panel[:, :overlap] = np.where(arrived, panel[:, :overlap], strip[:, start : start + overlap])
        strip[:, start : start + COVER_SIDE] = panel
    return strip


if __name__ == "__main__":
    draw = {"cover": cover, "transfer": transfer, "result": result}
    for name in sys.argv[1:] or draw:
        draw[name]()
