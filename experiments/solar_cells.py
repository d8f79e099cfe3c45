"""Solar cells, the published protocol: frozen features, parts fine-tuned, all fine-tuned, from scratch.

    python experiments/solar_cells.py                       goes on where it stopped; --list shows what is missing
    python experiments/solar_cells.py --only all --seeds 0  some of it
    python experiments/solar_cells.py --choose              what was tried before RECIPES was written down

Deitsch et al. 2019 train on 75 % of the 2,624 photos, stratified by wafer type and label, and call a cell defective if experts
give a defect a probability of one half or more; SVM 82.44 %, fine-tuned VGG-19 88.42 %. Here the same is done with five
splits, seeds 0 to 4 (theirs is not published). No epoch is chosen by test photos: the last one counts. Recipes were chosen by
--choose: a fifth of the training photos of seed 0 judges what learned from the other four, and no test photo is looked at
(results/solar_cells_tried.csv, one line for each thing tried).

One line of results/solar_cells.csv is one classifier on one split: accuracy of single photos, and of the mean over the eight
turned and mirrored views of each ("views": 8). Budget on two cores: frozen 1 minute a run, frozen_views 3, last_stage 4, all and
scratch 12. Minutes are those of the wall clock, whatever else ran; processor_minutes add up all cores.

Explained in notebooks/08_fine_tuning.ipynb.
"""

import argparse
import csv
import json
import os
import platform
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tlhelpers as tl

RESULTS = Path(__file__).with_name("results") / "solar_cells.csv"
COLUMNS = (
    "recipe", "seed", "views", "accuracy", "accuracy_mono", "accuracy_poly", "n_test", "trained_parameters", "minutes",
    "processor_minutes", "train_loss",
)
SEEDS = range(5)
RECIPES = {  # what fine_tune is called with, and what frozen
    "frozen": {"learn_views": 1},
    "frozen_views": {"learn_views": 8},
    "last_stage": {"unfreeze": "last_stage", "epochs": 16, "learning_rate": 1e-3, "head_first": False},
    "all": {"unfreeze": "all", "epochs": 12, "learning_rate": 3e-4, "head_first": False},
    "scratch": {"unfreeze": "all", "epochs": 12, "learning_rate": 1e-3, "head_first": False},
}
TRIED = {
    "frozen": [{"learn_views": 1}, {"learn_views": 8}],
    "all": [
        {"learning_rate": 3e-4, "epochs": 8},
        {"learning_rate": 3e-4, "epochs": 8, "head_first": False},
        {"learning_rate": 1e-3, "epochs": 8, "head_first": False},
        {"learning_rate": 3e-4, "epochs": 16, "head_first": False, "image_size": 160},
        {"learning_rate": 3e-4, "epochs": 5, "head_first": False, "image_size": 288},
    ],
    "last_stage": [
        {"learning_rate": rate, "epochs": 16, "head_first": first} for first, rate in ((True, 1e-4), (True, 1e-3), (False, 3e-4), (False, 1e-3))
    ],
}  # fmt: skip
TRIED_RESULTS = RESULTS.with_name("solar_cells_tried.csv")
TRIED_COLUMNS = ("unfreeze", "settings", "views", "accuracy", "log_loss", "n", "minutes")
COMMON = {"validation": 0, "label_smoothing": 0.0, "batch_size": 32}


def split(seed):
    return tl.load_dataset("solar_cells").split(test_size=0.25, seed=seed, stratify=["wafer", "class"])


def soft_labels(dataset):
    """What the experts said, not yes or no: (n, 2)."""
    defect = dataset.metadata["probability"]
    return np.stack([1 - defect, defect], axis=1).astype(np.float32)


def frozen(backbone, train, learn_views):
    """Feature extraction: a head on the features of each photo, or of its eight views.

    The strength is chosen with one view of each photo (with eight, a photo would stand on both sides of a fold), and shared
    by the views, as scikit-learn's C belongs to one row.
    """
    features = [tl.extract_features(train, backbone, variant=variant) for variant in range(learn_views)]
    head = tl.train_head(features[0], train.labels)
    if learn_views > 1:
        labels = np.tile(train.labels, learn_views)
        head = tl.train_head(np.concatenate(features), labels, strength=head.strength / learn_views)
    return tl.build_classifier(backbone, train.class_names, head=head)


def classifier_of(recipe, train, seed, progress=print):
    """A classifier, and what is known of its training."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    backbone = tl.load_backbone("efficientnet_lite0")
    wall, processor = time.perf_counter(), time.process_time()
    if recipe.startswith("frozen"):
        classifier = frozen(backbone, train, **RECIPES[recipe])
        trained, loss = classifier.get_layer("logits").count_params(), ""
    else:
        if recipe == "scratch":
            # A network that knows nothing has no statistics either: those of its first photos are measured once.
            backbone = from_scratch(backbone, train)
        classifier = tl.build_classifier(backbone, train.class_names)
        history = tl.fine_tune(
            classifier, train, soft_labels=soft_labels(train), seed=seed, **COMMON, **RECIPES[recipe],
            progress=lambda history: progress(f"  epoch {len(history.loss)}: {history.loss[-1]:.4f}, {history.seconds[-1]:.0f} s"),
        )  # fmt: skip
        trained, loss = history.trained_parameters, round(history.loss[-1], 5)
    return classifier, {
        "trained_parameters": trained, "train_loss": loss, "minutes": round((time.perf_counter() - wall) / 60, 2),
        "processor_minutes": round((time.process_time() - processor) / 60, 2),
    }


def from_scratch(backbone, train):
    """The same network with random weights; its BatchNorm layers measure mean and variance on 96 training photos."""
    import keras

    model = tl.backbones.build_network(backbone.name, backbone.image_size)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(train.subset(slice(0, None, max(1, len(train) // 96))).images(backbone.image_size).astype(np.float32), training=True)
    for layer in norms:
        layer.momentum = 0.99
    model.trainable = False
    return tl.Backbone(f"{backbone.name}_scratch", model, backbone.cut_layers, None)


def judged(classifier, test, views):
    said = np.mean([tl.features.predict(classifier, test, variant=variant) for variant in range(views)], axis=0)
    report = tl.Report(test.labels, said, test.class_names)
    right = report.predictions == report.labels
    wafer = test.metadata["wafer"]
    by_wafer = {f"accuracy_{kind}": round(float(right[wafer == kind].mean()), 5) for kind in ("mono", "poly")}
    return {"views": views, "accuracy": round(report.accuracy, 5), **by_wafer, "n_test": report.n}


def known(path=RESULTS):
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, columns, rows):
    """The table, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def keep(rows):
    """Table and conditions."""
    write(RESULTS, COLUMNS, sorted(rows, key=lambda row: (list(RECIPES).index(row["recipe"]), int(row["seed"]), int(row["views"]))))
    conditions = {
        "command": "python experiments/solar_cells.py", "date": date.today().isoformat(), "recipes": RECIPES, "common": COMMON,
        "image_size": 224, "backbone": "efficientnet_lite0", "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("tlhelpers", "tensorflow", "keras", "ai-edge-litert", "scikit-learn", "numpy")},
    }  # fmt: skip
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def choose(only):
    """Each of TRIED, judged by a fifth of the training photos of seed 0."""
    import keras

    train, held = split(0)[0].split(test_size=0.2, seed=0, stratify=["wafer", "class"])
    rows = known(TRIED_RESULTS)
    there = {(row["unfreeze"], row["settings"]) for row in rows}
    for unfreeze, tried in TRIED.items():
        for settings in tried if unfreeze in only else ():
            told = ", ".join(f"{name}={value}" for name, value in settings.items())
            if (unfreeze, told) in there:
                continue
            keras.utils.set_random_seed(0)
            begin = time.perf_counter()
            arguments = {name: value for name, value in settings.items() if name != "image_size"}
            backbone = tl.load_backbone("efficientnet_lite0", image_size=settings.get("image_size", 224))
            if unfreeze == "frozen":
                classifier = frozen(backbone, train, **arguments)
            else:
                classifier = tl.build_classifier(backbone, train.class_names)
                tl.fine_tune(classifier, train, unfreeze=unfreeze, soft_labels=soft_labels(train), **COMMON, **arguments)
            minutes = round((time.perf_counter() - begin) / 60, 2)
            for views in (1, 8):
                said = np.mean([tl.features.predict(classifier, held, variant=variant) for variant in range(views)], axis=0)
                report = tl.Report(held.labels, said, held.class_names)
                loss = -np.log(said[np.arange(len(held)), held.labels]).mean()
                found = (unfreeze, told, views, round(report.accuracy, 5), round(float(loss), 5), report.n, minutes)
                rows.append(dict(zip(TRIED_COLUMNS, found, strict=True)))
                print(*found, sep="; ", flush=True)
            write(TRIED_RESULTS, TRIED_COLUMNS, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RECIPES), help="recipes, commas between")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="commas between")
    parser.add_argument("--choose", action="store_true", help="try TRIED among training photos of seed 0")
    parser.add_argument("--list", action="store_true", help="show what is there and what is missing")
    args = parser.parse_args()
    if args.choose:
        return choose(args.only.split(","))
    rows = known()
    done = {(row["recipe"], int(row["seed"])) for row in rows}
    for seed in map(int, args.seeds.split(",")):
        for recipe in args.only.split(","):
            if (recipe, seed) in done or args.list:
                print(recipe, seed, "there" if (recipe, seed) in done else "missing", flush=True)
                continue
            print(recipe, seed, flush=True)
            train, test = split(seed)
            classifier, facts = classifier_of(recipe, train, seed)
            found = [{"recipe": recipe, "seed": seed, **facts, **judged(classifier, test, views)} for views in (1, 8)]
            print("  ", *(f"{row['views']} views: {row['accuracy']:.4f}" for row in found), f"{facts['minutes']} minutes", flush=True)
            rows = [*known(), *found]
            keep(rows)


if __name__ == "__main__":
    main()
