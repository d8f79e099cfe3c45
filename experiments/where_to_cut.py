"""The same head on every cut point: three data sets, sizes, pools, networks, and two controls.

    python experiments/where_to_cut.py            goes on where it stopped; --list shows what is there and what is missing

The book's test photos (a quarter, split with seed 0) are set aside; copies among the faces are removed first. What is left
is split five times, seeds 0 to 4: a head is fitted to three quarters and judged on the last quarter. One line of the table
is one head. The split depends on data set and seed alone, so lines that have both in common can be compared pair by pair.
Where `seed` is "test", the head was fitted to all training photos and judged on the test photos: those lines show what
happens to somebody who chooses by them, and choose nothing here.

Results are results/where_to_cut.csv and, for the conditions, results/where_to_cut.json. Features are kept in the cache
folder (`tlhelpers.cache_dir`).

Explained in notebooks/06_where_to_cut.ipynb.
"""

import csv
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import tlhelpers as tl

RESULTS = Path(__file__).with_name("results") / "where_to_cut.csv"
COLUMNS = (
    "dataset", "variant", "backbone", "image_size", "pool", "cut_point", "channels", "seed", "strength", "cv_accuracy",
    "accuracy", "recalls", "n_test",
)
SEEDS = range(5)
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
DATASETS = ("faces", "solar_cells", "textiles")


def conditions():
    """(data set, variant, backbone, image size, pool), those first that others are compared with."""
    lite0, lite1, lite2 = "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"
    for pool in ("average", "max"):
        for dataset in DATASETS:
            yield dataset, "trained", lite0, 224, pool
    for pool in ("average", "max"):
        yield "textiles", "trained", lite0, 250, pool
    for variant, size in (("cropped", 224), ("smoothed", 250)):
        yield "textiles", variant, lite0, size, "average"
    for variant in ("pca 16", "random 0", "widened", "random 1", "random 2"):
        for dataset in DATASETS:
            yield dataset, variant, lite0, 224, "average"
    for backbone, size in ((lite2, 260), (lite2, 224), (lite1, 240)):
        for dataset in DATASETS:
            yield dataset, "trained", backbone, size, "average"
    for size in (125, 500):
        yield "textiles", "trained", lite0, size, "average"
    yield "solar_cells", "trained", lite0, 300, "average"  # their own size


def load_photos(name, variant):
    """Training and test photos; for two variants with other pixels, which are kept as files in the cache folder.

    "cropped": the 224 × 224 pixels in the middle of 250 × 250, untouched. "smoothed": shrunk to 224 and enlarged to 250
    again, so that the network sees photos of 250 pixels from which the same has been lost as at 224.
    """
    dataset = tl.load_dataset(name)
    if name == "faces":  # the only ones that have copies
        dataset = dataset.subset(np.sort(np.unique(tl.duplicate_groups(dataset), return_index=True)[1]))
    if variant not in ("cropped", "smoothed"):
        return dataset.split(test_size=0.25, seed=0)
    folder = tl.cache_dir() / "where_to_cut" / f"{name} {variant}"
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"{row:04d}.png" for row in range(len(dataset)))
    for row, file in enumerate(files):
        if not file.exists():
            photo = dataset.image(row)
            if variant == "cropped":
                photo = photo[13:237, 13:237]
            else:
                photo = tl.resize_image(tl.resize_image(photo, 224), 250)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".png", delete=False) as part:
                Image.fromarray(photo).save(part, format="png")
            os.replace(part.name, file)
    return tl.Dataset(name, files, dataset.labels, dataset.class_names, dataset.card).split(test_size=0.25, seed=0)


def random_backbone(name, image_size, seed):
    """The same architecture with random weights.

    Left alone, what a random network hands on would shrink from layer to layer. So its BatchNorm layers measure mean and
    deviation on 96 photos, 32 of each data set; no label is used.
    """
    import keras

    keras.utils.set_random_seed(seed)
    model = tl.backbones.build_network(name, image_size)
    some = []
    for dataset in map(tl.load_dataset, DATASETS):
        rows = np.random.default_rng(seed).choice(len(dataset), 32, replace=False)
        some.append(dataset.subset(rows).images(image_size))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(np.concatenate(some).astype(np.float32), training=True)
    model.trainable = False
    cut_points = tl.load_backbone(name).cut_points
    return tl.Backbone(f"{name}_random_{seed}", model, {cut_point: cut_point for cut_point in cut_points}, None)


def fit(features, labels, seed):
    """Head with the strength that has the lowest log loss in three folds, and the accuracy in these folds.

    As in `tl.train_head`, but weaker strengths are tried too, which few channels need: from strong to weak, until the
    loss rises.
    """
    from sklearn.model_selection import StratifiedKFold

    best = None
    for strength in STRENGTHS:
        loss, right = 0.0, 0
        for kept, held in StratifiedKFold(3, shuffle=True, random_state=seed).split(features, labels):
            chance = tl.train_head(features[kept], labels[kept], strength=strength).predict_proba(features[held])
            loss -= np.log(chance[np.arange(len(held)), labels[held]] + 1e-12).sum()
            right += (chance.argmax(axis=1) == labels[held]).sum()
        if best is not None and loss >= best[0]:
            break
        best = loss, strength, right / len(labels)
    return tl.train_head(features, labels, strength=best[1]), best[1], best[2]


def changed(features, train, variant):
    """Features with another number of channels, for all photos; what has to be learned is learned from `train` alone.

    "pca 16": the 16 directions in which the training photos differ most. "widened": 1,280 random combinations, negative
    values cut to 0. No combination knows anything that the features did not.
    """
    from sklearn.decomposition import PCA

    mean, deviation = features[train].mean(axis=0), features[train].std(axis=0)
    scaled = (features - mean) / np.where(deviation > 0, deviation, 1)
    if variant == "pca 16":
        return PCA(16, svd_solver="full").fit(scaled[train]).transform(scaled).astype(np.float32)
    if variant == "widened":
        rng = np.random.default_rng(0)
        weights = rng.normal(size=(scaled.shape[1], 1280)) / np.sqrt(scaled.shape[1])
        return np.maximum(scaled @ weights + rng.normal(size=1280), 0).astype(np.float32)
    return features


def split_of(labels, seed):
    from sklearn.model_selection import train_test_split

    return train_test_split(np.arange(len(labels)), test_size=0.25, random_state=seed, stratify=labels)


def measure(condition):
    """Rows of the table for one condition: each cut point, each seed."""
    name, variant, backbone_name, image_size, pool = condition
    train, test = load_photos(name, variant)
    if variant.startswith("random"):
        backbone = random_backbone(backbone_name, image_size, int(variant.split()[1]))
    else:
        backbone = tl.load_backbone(backbone_name, image_size=image_size)
    cut_points = list(backbone.cut_points)
    tables = tl.extract_features(train, backbone, cut_point=cut_points, pool=pool)
    judged = variant == "trained" and backbone_name == "efficientnet_lite0" and image_size in (224, 250)
    test_tables = tl.extract_features(test, backbone, cut_point=cut_points, pool=pool) if judged else tables
    rows = []
    for cut_point, features, test_features in zip(cut_points, tables, test_tables):
        features = np.array(features)
        for seed in (*SEEDS, *(["test"] if judged else [])):
            if seed == "test":
                learn, judge, held, truth = slice(None), slice(None), test_features, test.labels
            else:
                learn, judge = split_of(train.labels, seed)
                held, truth = features, train.labels[judge]
            table = changed(features, learn, variant)
            head, strength, cv_accuracy = fit(table[learn], train.labels[learn], 0 if seed == "test" else seed)
            said = head.predict((table if held is features else np.array(held))[judge])
            recalls = [np.mean(said[truth == label] == label) for label in np.unique(truth)]
            rows.append([
                *condition, cut_point, table.shape[1], seed, strength, f"{cv_accuracy:.5f}", f"{np.mean(said == truth):.5f}",
                " ".join(f"{recall:.4f}" for recall in recalls) if len(recalls) <= 3 else "", len(truth),
            ])
    return rows


def done():
    """Conditions that are in the table."""
    if not RESULTS.exists():
        return set()
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return {(r["dataset"], r["variant"], r["backbone"], int(r["image_size"]), r["pool"]) for r in csv.DictReader(file)}


def write(rows):
    """Add rows; the table is written whole or not at all."""
    RESULTS.parent.mkdir(exist_ok=True)
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ",".join(COLUMNS) + "\n"
    part = RESULTS.with_suffix(".part")
    part.write_text(old + "".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    os.replace(part, RESULTS)


def write_conditions():
    conditions = {
        "command": "python experiments/where_to_cut.py",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "versions": {name: version(name) for name in ("tensorflow", "keras", "scikit-learn", "numpy", "pillow")},
        "splits": "test photos: a quarter, seed 0, set aside; the others five times 3 : 1, seeds 0 to 4, stratified",
        "strengths": STRENGTHS,
    }
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for condition in conditions():
        there = condition in done()
        print(*condition, "there" if there else "missing" if "--list" in sys.argv else "…", flush=True)
        if not there and "--list" not in sys.argv:
            write(measure(condition))
    write_conditions()
