"""Scores that need no training, against the accuracy of a trained head: the table of notebooks/07_which_backbone.ipynb.

    python experiments/which_backbone.py

Candidates are three backbones × nine cut points × two ways to pool, on each of three data sets. The book's test photos
(split with seed 0) are set aside and never looked at. What is left is split five times, seeds 0 to 4, into photos to
learn from and a quarter to judge by. Scores see the photos to learn from; `accuracy` is that of a head fitted on them, on
the quarter. Copies among the faces are removed first: a copy is its original's nearest neighbour, whatever the network.

Writes results/which_backbone.csv, one row a candidate and split, and results/which_backbone.json, the conditions. A run
that was stopped goes on where it stopped; features are kept in the cache folder (`tlhelpers.cache_dir`).

Explained in notebooks/07_which_backbone.ipynb.
"""

import csv
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

import tlhelpers as tl

RESULTS = Path(__file__).with_name("results")
DATA_SETS = ("faces", "textiles", "solar_cells")
POOLS = ("average", "max")
SEEDS = range(5)
KEY = ("data", "backbone", "cut_point", "pool", "seed")
COLUMNS = (
    *KEY, "channels", "learn", "judge", "accuracy", "strength",
    "nearest", "logme", "h_score", "cross_validation", "nearest_scaled", "logme_scaled", "fitted", "leep",
)


def main():
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "which_backbone.csv"
    rows = known(path)
    write(path, rows)
    done = {tuple(row[name] for name in KEY) for row in rows}
    with open(path, "a", newline="", encoding="utf-8") as file:
        for name in DATA_SETS:
            data = without_copies(tl.load_dataset(name))
            train, _ = data.split(test_size=0.25, seed=0)
            for backbone_name in tl.BACKBONES:
                measure(train, tl.load_backbone(backbone_name), done, file)
    write(path, in_order(known(path)))
    write_conditions()


def known(path):
    """The rows that are there; a last line that was cut short by a stop is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def write(path, rows):
    """All rows, whole or not at all."""
    part = path.with_suffix(".part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def in_order(rows):
    """Data sets, backbones, pools, cut points, seeds, whatever order they were measured in."""
    cuts = tl.load_backbone("efficientnet_lite0").cut_points
    orders = (DATA_SETS, tuple(tl.BACKBONES), POOLS, cuts, tuple(map(str, SEEDS)))
    names = ("data", "backbone", "pool", "cut_point", "seed")
    return sorted(rows, key=lambda row: [order.index(row[name]) for order, name in zip(orders, names)])


def without_copies(data):
    """One photo of each group of copies. Only the faces have any; looking among the others takes a minute each."""
    if data.name != "faces":
        return data
    return data.subset(np.sort(np.unique(tl.duplicate_groups(data), return_index=True)[1]))


def measure(train, backbone, done, file):
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    row_of = {photo: row for row, photo in enumerate(train.files)}
    for pool in POOLS:
        keys = {(train.name, backbone.name, cut, pool, str(seed)) for cut in backbone.cut_points for seed in SEEDS}
        if keys <= done:
            continue
        features = tl.extract_features(train, backbone, cut_point=list(backbone.cut_points), pool=pool)
        for seed in SEEDS:
            sides = train.split(test_size=0.25, seed=seed)
            learn, judge = (np.array([row_of[photo] for photo in side.files]) for side in sides)
            for cut, table in zip(backbone.cut_points, features):
                key = dict(zip(KEY, (train.name, backbone.name, cut, pool, str(seed))))
                if tuple(key.values()) in done:
                    continue
                x, y = table[learn], train.labels[learn]
                row = key | {"channels": x.shape[1], "learn": len(learn), "judge": len(judge), "leep": ""}
                with threadpool_limits(1, user_api="blas"):  # more threads wait for each other more than they work
                    row |= heads(x, y, table[judge], train.labels[judge]) | scores(x, y)
                if cut == "top" and pool == "average":  # LEEP needs the ImageNet classes, which only the top has
                    row["leep"] = leep(imagenet_probabilities(backbone, x), y)
                writer.writerow({name: f"{v:.7g}" if isinstance(v, float) else v for name, v in row.items()})
                file.flush()
        print(train.name, backbone.name, pool, file=sys.stderr, flush=True)


def heads(x, y, x_judge, y_judge):
    """What training tells: accuracy on the quarter, by cross-validation, and on the photos that were fitted."""
    from sklearn.model_selection import StratifiedKFold

    head = tl.train_head(x, y)
    right = np.zeros(len(y), bool)
    for fit, held in StratifiedKFold(3, shuffle=True, random_state=1).split(x, y):  # other folds than train_head's own
        right[held] = tl.train_head(x[fit], y[fit], strength=head.strength).predict(x[held]) == y[held]
    return {
        "accuracy": float(np.mean(head.predict(x_judge) == y_judge)),
        "strength": head.strength,
        "cross_validation": float(right.mean()),
        "fitted": float(np.mean(head.predict(x) == y)),
    }


def scores(x, y):
    """All that needs features and labels only."""
    scaled = (x - x.mean(0, dtype=np.float64)) / np.maximum(x.std(0, dtype=np.float64), 1e-12)
    return {
        "nearest": nearest(x, y),
        "logme": logme(x, np.eye(y.max() + 1)[y]),
        "h_score": h_score(scaled, y),
        "nearest_scaled": nearest(scaled, y),
        "logme_scaled": logme(scaled, np.eye(y.max() + 1)[y] - np.bincount(y) / len(y)),
    }


def nearest(x, y):
    """Leave-one-out accuracy of the nearest neighbour by cosine."""
    x = x.astype(np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return float(np.mean(y[alike.argmax(1)] == y))


def logme(x, targets):
    """Maximum log evidence of Bayesian linear regression, a photo, mean over the columns of `targets` (You et al. 2021).

    y is Gaussian with covariance (1 + x xᵀ / t) / β. For each t the best β is known in closed form, so the maximum is one
    along t, which is found on a fine grid.
    """
    n = len(x)
    left, sizes, _ = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    parts = (left.T @ targets) ** 2
    rest = np.maximum((targets**2).sum(0) - parts.sum(0), 0)
    t = np.mean(sizes**2) * np.logspace(-8, 4, 1001)
    grow = 1 + sizes**2 / t[:, None]
    misfit = ((1 / grow) @ parts + rest) / n
    evidence = -0.5 * (np.log(2 * np.pi * misfit) + 1 + np.log(grow).sum(1, keepdims=True) / n)
    return float(evidence.max(0).mean())


def h_score(x, y):
    """Scatter between classes as a part of all scatter (Bao et al. 2019), shrunk (Ibrahim et al. 2022)."""
    from sklearn.covariance import ledoit_wolf

    covariance, shrinkage = ledoit_wolf(x)
    means = np.stack([x[y == label].mean(0) for label in range(y.max() + 1)])[y] - x.mean(0)
    return float((1 - shrinkage) * np.trace(np.linalg.solve(covariance, means.T @ means / len(x))))


def imagenet_probabilities(backbone, x):
    kernel, bias = backbone.classifier.get_layer("logits").get_weights()
    logits = x @ kernel + bias
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def leep(probabilities, y):
    """Mean log probability of the labels, guessed from ImageNet's classes alone (Nguyen et al. 2020)."""
    joint = np.eye(y.max() + 1)[y].T @ probabilities  # (k, 1000)
    guess = probabilities @ (joint / joint.sum(0)).T
    return float(np.mean(np.log(guess[np.arange(len(y)), y])))


def write_conditions():
    conditions = {
        "command": "python experiments/which_backbone.py",
        "photos": "split(test_size=0.25, seed=0): its test part is never used; its training part is split again by"
        " split(test_size=0.25, seed=0..4) into learn and judge; faces without copies",
        "candidates": {name: "stem, stage_1..7, top; average and max" for name in tl.BACKBONES},
        "imagenet_top1": {name: source.imagenet_top1 for name, source in tl.BACKBONES.items()},
        "versions": {
            name: version(name)
            for name in ("tlhelpers", "tensorflow", "keras", "numpy", "scikit-learn", "scipy", "pillow")
        },
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    path = RESULTS / "which_backbone.json"
    path.with_suffix(".part").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")
    os.replace(path.with_suffix(".part"), path)


if __name__ == "__main__":
    main()
