"""Invented tables with the columns of the decision map, so that chapters 11 to 15 can be tried before the experiment has ended.

    python drafts/mkfake.py FOLDER [--seed N]        writes decision_map.csv, _curves.csv, _distance.csv, _tried.csv and .json there

No number in them was measured. They are written into a folder outside the repository, and never into experiments/results.
Cells, seeds, epochs and columns are those of experiments/decision_map.py; accuracies are multiples of one test photo.
Another --seed gives other winners: a chapter should run with each, whatever its sentences say.
"""

import argparse
import csv
import importlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

the_map = importlib.import_module("experiments.decision_map")

# classes, photos to learn from, the smallest class among these, test photos that judge
SIZES = {"faces": (40, 295, 6, 98), "flowers": (5, 2193, 380, 500), "solar_cells": (2, 1968, 616, 500), "textiles": (3, 1500, 375, 500)}
START = {"faces": 0.025, "flowers": 0.2, "solar_cells": 0.5, "textiles": 0.34}
# for each method: accuracy with very many photos, and the photos a class with which half of the way is done
SHAPES = {
    "faces": ((0.8, 12), (1.0, 0.45), (1.0, 0.25), (0.98, 2.5), (1.0, 0.3)),
    "flowers": ((0.8, 90), (0.9, 2), (0.92, 2.2), (0.95, 8), (0.94, 2.1)),
    "solar_cells": ((0.82, 90), (0.83, 9), (0.86, 10), (0.92, 28), (0.9, 14)),
    "textiles": ((0.76, 90), (0.84, 25), (0.86, 28), (0.97, 60), (0.93, 40)),
}
SHAPES = {name: dict(zip(the_map.METHODS, shapes, strict=True)) for name, shapes in SHAPES.items()}
TRAINED = {"scratch": 3_377_413, "feature_extraction": 6_405, "last_stage": 1_024_005, "all_layers": 3_377_413, "lp_ft": 3_377_413}
MIB = {"scratch": 900, "feature_extraction": 180, "last_stage": 350, "all_layers": 800, "lp_ft": 820}
DISTANCES = {"flowers": (0.35, 2.6), "faces": (0.75, 3.9), "solar_cells": (1.2, 5.6), "textiles": (1.6, 6.9)}


def cells(name):
    return [photos for photos in the_map.PHOTOS if photos == "all" or int(photos) < SIZES[name][2]]


def n_of(name, photos):
    return SIZES[name][1] if photos == "all" else int(photos) * SIZES[name][0]


def accuracy_of(name, method, photos):
    top, half = SHAPES[name][method]
    each = n_of(name, photos) / SIZES[name][0]
    return START[name] + (top - START[name]) * each / (each + half)


def lines(rng):
    for name in the_map.DATA:
        n_test = SIZES[name][3]
        hard = rng.normal(size=n_test)  # the same photos are hard for all
        for photos in cells(name):
            n = n_of(name, photos)
            each = n / SIZES[name][0]
            draws = rng.normal(0, 0.06 / np.sqrt(each), 5)  # what the draw does to all methods alike
            for method in the_map.METHODS:
                for seed in the_map.seeds_of(method, photos):
                    mean = accuracy_of(name, method, photos) + draws[seed] + rng.normal(0, 0.012)
                    right = np.clip(round(n_test * mean), 0, n_test)
                    best = np.argsort(hard + rng.normal(0, 0.7, n_test))[: int(right)]
                    bits = np.packbits(np.isin(np.arange(n_test), best)).tobytes().hex()
                    judged = min(n, the_map.MOST_JUDGED)
                    learned = 1 - (0.35 / (1 + each / 20) if method == "scratch" else 0.02) * rng.uniform(0.3, 1)
                    epochs = 0 if method == "feature_extraction" else the_map.epochs_of(n, method)
                    area = (the_map.DATA[name][0] / 128) ** 2
                    work = n * max(epochs, 1) * the_map.GUESS[method] * area + 3
                    sure = {"feature_extraction": 0.6, "last_stage": 0.9, "lp_ft": 1.1, "all_layers": 1.4, "scratch": 1.0}[method]
                    loss = (0.1 + 2 * (1 - right / n_test)) * sure * rng.uniform(0.9, 1.1)
                    yield {
                        "dataset": name, "method": method, "photos": photos, "seed": seed, "n_train": n, "n_test": n_test, "epochs": epochs,
                        "accuracy": round(float(right / n_test), 5), "loss": round(float(loss), 5),
                        "train_accuracy": round(round(judged * learned) / judged, 5),
                        "train_loss": round(float(0.02 + 2 * (1 - learned) * rng.uniform(0.5, 1)), 5),
                        "trained_parameters": TRAINED[method], "seconds": round(float(work * rng.uniform(0.95, 1.1)), 2),
                        "mib": round(float(MIB[method] * area * rng.uniform(0.9, 1.1))), "right": bits,
                    }  # fmt: skip


def controls(rng):
    for row in list(lines(rng)):
        if row["method"] == "feature_extraction" and row["photos"] != "all" and row["seed"] < 3:
            yield from ({**row, "method": method} for method in the_map.WHY_METHODS)


def curves(rng):
    for name, method, photos, seed, times in the_map.QUIET:
        n, n_test = n_of(name, photos), SIZES[name][3]
        epochs = 0 if method == "feature_extraction" else the_map.epochs_of(n, method, times)
        end, fixed = accuracy_of(name, method, photos), {"last_stage": 20, "lp_ft": 18, "feature_extraction": 14}.get(method, 6)
        if method == "scratch":
            end += 0.05  # four times as long
        for epoch in range(1, epochs + 1) if epochs else (0,):
            done = epoch / epochs if epochs else 1
            there = end - (end - START[name]) * (0.9 if method == "scratch" else 0.25) * (1 - done) ** 1.5 + rng.normal(0, 0.006)
            right = np.clip(round(n_test * there), 0, n_test) / n_test
            seconds = fixed + epoch * n * the_map.GUESS[method] * rng.uniform(0.98, 1.02)
            yield {
                "dataset": name, "method": method, "photos": photos, "seed": seed, "epoch": epoch, "n_train": n, "n_test": n_test,
                "accuracy": round(float(right), 5), "loss": round(float(0.1 + 2 * (1 - right)), 5),
                "seconds": round(float(seconds), 2), "wall": round(float(seconds * rng.uniform(0.55, 0.6)), 2),
            }  # fmt: skip


def distances(rng):
    for name, (size, _) in the_map.DATA.items():
        for image_size in sorted({size, 224}):
            for draw in range(5):
                far, bits = DISTANCES[name]
                far *= 1.05 if image_size == 224 else 1
                found = (name, image_size, draw, 200, *(round(far * rng.uniform(0.98, 1.02), 4) for _ in range(2)), round(bits * rng.uniform(0.97, 1.03), 4))
                yield dict(zip(the_map.DISTANCES_COLUMNS, found, strict=True))


def tried(rng):
    for name, photos in the_map.CHOOSE_CELLS:
        if (name, photos) == ("faces", "5"):
            photos = "all"
        for method, rates in the_map.RATES_TRIED.items():
            for rate, times in itertools.product(rates, the_map.TIMES_TRIED[method]):
                right = accuracy_of(name, method if method in the_map.METHODS else 'feature_extraction', photos) - 0.02 * ((rate, times) != (the_map.RATES[method], the_map.TIMES[method]))
                n, loss = round(0.7 * n_of(name, photos)), round(2.2 * (1 - right), 5)
                found = (name, method, photos, f"{rate:g}", times, n, 200, round(right, 5), loss)
                yield dict(zip(the_map.TRIED_COLUMNS, found, strict=True))


def write(folder, seed=0):
    """All tables, into `folder`."""
    folder = Path(folder).resolve()
    if folder == ROOT / "experiments" / "results":
        raise SystemExit(f"{folder}: invented numbers do not go where results stand; name a folder elsewhere")
    folder.mkdir(parents=True, exist_ok=True)
    for make, path, columns in (
        (lines, the_map.RESULTS, the_map.COLUMNS), (curves, the_map.CURVES, the_map.CURVES_COLUMNS),
        (distances, the_map.DISTANCES, the_map.DISTANCES_COLUMNS), (controls, the_map.WHY, the_map.COLUMNS), (tried, the_map.TRIED, the_map.TRIED_COLUMNS),
    ):  # fmt: skip
        rows = sorted(make(np.random.default_rng(seed)), key=place)
        the_map.write(folder / path.name, columns, rows)
    conditions = {
        "command": "INVENTED by drafts/mkfake.py", "image_sizes": {name: size for name, (size, _) in the_map.DATA.items()},
        "views": {name: views for name, (_, views) in the_map.DATA.items()}, "batch_size": the_map.BATCH, "learning_rates": the_map.RATES,
        "epochs": f"{the_map.EPOCHS}, at least {the_map.SEEN} photos seen", "times_as_many": the_map.TIMES,
        "flowers": "invented", "cores": 2, "system": "none", "versions": {},
    }  # fmt: skip
    (folder / the_map.RESULTS.with_suffix(".json").name).write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")
    return folder


def place(row):
    """The experiment's own order of lines."""
    orders = [list(the_map.DATA).index(row["dataset"])]
    if "method" in row:
        orders += [(*the_map.METHODS, *the_map.WHY_METHODS).index(row["method"]), the_map.PHOTOS.index(row["photos"])]
    return (*orders, *(float(row[name]) for name in ("image_size", "draw", "learning_rate", "seed", "epoch") if name in row))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = write(args.folder, args.seed)
    for path in sorted(folder.glob("decision_map*.csv")):
        print(path.name, len(list(csv.reader(path.open(encoding="utf-8")))) - 1, "lines")


if __name__ == "__main__":
    main()
