"""How much of the network to train: nothing, the last layer, each stage from the top down, everything, BatchNorm only.

    python experiments/how_deep.py                                   goes on where it stopped; --list shows what is missing
    python experiments/how_deep.py --flowers FOLDER                  flowers from a folder; without, they are downloaded
    python experiments/how_deep.py --data solar_cells --seeds 0      some of it
    python experiments/how_deep.py --trial                           20 photos, one epoch, nothing written: does it run?

Two data sets: solar cells, unlike ImageNet, and flowers, like it (daisy is one of its classes; copies are removed first). Test
photos, a quarter, split with seed 0, are set aside. From the others each seed draws 200 to learn from and 200 more to choose
by: which of two recipes serves a depth better. Judged are 300 test photos, another draw for each seed; nothing is chosen by
them. Photos are 160 × 160 pixels, which is half the work of 224. Both recipes take AdamW, 4 epochs in batches of 16, and photos
as they are:

    careful   the last layer is fitted first; learning rate 0.0001 (0.001 where no kernel but that of the last layer trains)
    bold      the last layer starts with zeros; ten times the rate

One line of results/how_deep.csv is one classifier. Seconds are those of the processor, both cores added, in one call of
`fine_tune` with an empty cache; "wall" is what a clock on the wall says. Budget: 35 minutes on two cores.

Explained in notebooks/09_how_deep.ipynb.
"""

import argparse
import csv
import functools
import json
import os
import platform
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tlhelpers as tl

RESULTS = Path(__file__).with_name("results") / "how_deep.csv"
COLUMNS = (
    "dataset", "seed", "depth", "recipe", "trained_parameters", "train_loss", "validation_loss", "validation_accuracy", "loss",
    "accuracy", "n_photos", "n_train", "n_validation", "n_test", "seconds", "seconds_an_epoch", "wall", "right",
)
DATA = ("solar_cells", "flowers")  # --data takes others too
COPIES = ("flowers", "faces")  # have photos twice
SEEDS = range(3)
STAGES = ("top", "stage_7", "stage_6", "stage_5", "stage_4", "stage_3", "stage_2", "stage_1")
FITTED = {"nothing": "nearest_mean", "last_layer": "logistic_regression"}  # no gradient goes into the network
DEPTHS = (*FITTED, "head", *STAGES, "all", "batch_norm")
RECIPES = {"careful": {"head_first": True}, "bold": {"head_first": False}}
COMMON = {"epochs": 4, "batch_size": 16, "augment": "none", "validation": 0}
SIZE = 160


def rate_of(depth, recipe):
    """Small steps where kernels train; ten times as large where only scales and offsets do, or a last layer."""
    return (1e-3 if depth in ("head", "batch_norm") else 1e-4) * (10 if recipe == "bold" else 1)


@functools.cache
def photos_of(name, flowers=None):
    """Training part and test part."""
    dataset = tl.load_dataset(flowers if name == "flowers" and flowers else name)
    if name in COPIES:
        dataset = dataset.subset(np.sort(np.unique(tl.duplicate_groups(dataset), return_index=True)[1]))
    return dataset.split(test_size=0.25, seed=0)


def draw(name, seed, flowers=None):
    """Photos to learn from, to choose by, and to judge by."""
    from sklearn.model_selection import train_test_split

    train, test = photos_of(name, flowers)
    rows, few = np.arange(len(train)), min(200, (len(train) - 200) // 40 * 40)  # of the faces, two of each person
    learn, choose = train_test_split(rows, train_size=200, test_size=few, random_state=seed, stratify=train.labels)
    judge = np.arange(len(test))
    if len(test) > 300:
        judge, _ = train_test_split(judge, train_size=300, random_state=seed, stratify=test.labels)
    return train.subset(np.sort(learn)), train.subset(np.sort(choose)), test.subset(np.sort(judge))


def classifier_of(learn, depth, recipe, seed, **changes):
    """A classifier, and what its training took."""
    import keras

    keras.utils.set_random_seed(seed)
    backbone = tl.load_backbone("efficientnet_lite0", image_size=SIZE)
    epochs, seconds = [], lambda: (time.process_time(), time.perf_counter())
    begin = seconds()
    if depth in FITTED:
        head = tl.train_head(tl.extract_features(learn, backbone), learn.labels, method=FITTED[depth], seed=seed)
        classifier, trained = tl.build_classifier(backbone, learn.class_names, head=head), head.kernel.size + head.bias.size
        trained, loss = 0 if depth == "nothing" else trained, ""  # means are computed, not trained
    else:
        classifier = tl.build_classifier(backbone, learn.class_names)
        history = tl.fine_tune(
            classifier, learn, unfreeze=depth, learning_rate=rate_of(depth, recipe), seed=seed, **COMMON | RECIPES[recipe] | changes,
            progress=lambda history: epochs.append(time.process_time()),
        )  # fmt: skip
        trained, loss = history.trained_parameters, round(history.loss[-1], 5)
    processor, wall = np.subtract(seconds(), begin)
    # The first epoch also has TensorFlow make a program of each step.
    an_epoch = (epochs[-1] - epochs[0]) / (len(epochs) - 1) if len(epochs) > 1 else 0
    return classifier, {
        "trained_parameters": trained, "train_loss": loss, "seconds": round(float(processor), 2),
        "seconds_an_epoch": round(an_epoch, 3), "wall": round(float(wall), 2),
    }  # fmt: skip


def judged(classifier, choose, judge):
    """Loss and accuracy on both, and for which of those to judge by it was right, as 0 and 1."""
    both = tl.Dataset(choose.name, choose.files + judge.files, [*choose.labels, *judge.labels], choose.class_names, choose.card)
    chance = tl.features.predict(classifier, both, batch_size=16)
    right = chance.argmax(axis=1) == both.labels
    loss = -np.log(chance[np.arange(len(both)), both.labels] + 1e-7)
    found = {}
    for part, rows in (("validation_", slice(len(choose))), ("", slice(len(choose), None))):
        found |= {f"{part}loss": round(float(loss[rows].mean()), 5), f"{part}accuracy": round(float(right[rows].mean()), 5)}
    return found | {"right": "".join(map(str, right[len(choose) :].astype(int)))}


def line(name, seed, depth, recipe, *, flowers=None, photos=None, **changes):
    learn, choose, judge = draw(name, seed, flowers)
    if photos:
        learn = learn.sample(per_class=photos // len(learn.class_names) or 1)
        choose, judge = choose.subset(slice(photos)), judge.subset(slice(photos))
    with tempfile.TemporaryDirectory() as empty, _cache(empty):
        classifier, facts = classifier_of(learn, depth, recipe, seed, **changes)
    found = judged(classifier, choose, judge)
    n_photos = sum(map(len, photos_of(name, flowers)))
    counts = {"n_photos": n_photos, "n_train": len(learn), "n_validation": len(choose), "n_test": len(judge)}
    row = {"dataset": name, "seed": seed, "depth": depth, "recipe": recipe} | facts | found | counts
    return {column: row[column] for column in COLUMNS}


class _cache:
    """The cache folder is another one for a while."""

    def __init__(self, folder):
        self.folder, self.before = folder, os.environ.get("TLHELPERS_CACHE")

    def __enter__(self):
        os.environ["TLHELPERS_CACHE"] = self.folder

    def __exit__(self, *error):
        os.environ.pop("TLHELPERS_CACHE")
        if self.before is not None:
            os.environ["TLHELPERS_CACHE"] = self.before


def known():
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(row):
    """A line more, written whole or not at all, while nobody else writes: two of these may run side by side, with other seeds."""
    from filelock import FileLock

    RESULTS.parent.mkdir(exist_ok=True)
    part = RESULTS.with_suffix(".part")
    with FileLock(tl.cache_dir() / "how_deep.lock"):
        rows = sorted([*known(), row], key=lambda row: (row["dataset"], int(row["seed"]), DEPTHS.index(row["depth"]), row["recipe"]))
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, RESULTS)


def unsure(name, flowers=None):
    """Entropy of the ImageNet classifier's answers to the 200 photos of seed 0, in bits: 0 is sure, 10 knows nothing."""
    network = tl.load_backbone("efficientnet_lite0", image_size=SIZE).classifier
    chance = tl.features.predict(network, draw(name, 0, flowers)[0], batch_size=16)
    return round(float(-(chance * np.log2(chance + 1e-12)).sum(axis=1).mean()), 4)


def write_conditions(names, flowers):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("tlhelpers", "tensorflow", "keras", "ai-edge-litert", "scikit-learn", "numpy")
    conditions = {
        "command": "python experiments/how_deep.py", "date": date.today().isoformat(), "common": COMMON,
        "learning_rates": {recipe: {depth: rate_of(depth, recipe) for depth in ("head", "batch_norm", "all")} for recipe in RECIPES},
        "image_size": SIZE, "backbone": "efficientnet_lite0", "flowers": "a folder (--flowers)" if flowers else "load_dataset('flowers')",
        "imagenet_entropy_bits": {name: unsure(name, flowers) for name in names}, "cores": cores,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, no GPU",
        "versions": {name: version(name) for name in packages},
    }  # fmt: skip
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(DATA), help="data sets, commas between")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="commas between")
    parser.add_argument("--depths", default=",".join(DEPTHS), help="commas between")
    parser.add_argument("--flowers", help="folder with flower photos; without, load_dataset('flowers'), which downloads them")
    parser.add_argument("--trial", action="store_true", help="20 photos, one epoch, nothing written")
    parser.add_argument("--list", action="store_true", help="show what is there and what is missing")
    args = parser.parse_args()
    if not args.list:
        line("solar_cells", 0, "head", "bold", photos=20)  # what is imported at the first call counts for none
    done = {(row["dataset"], int(row["seed"]), row["depth"], row["recipe"]) for row in known()}
    for seed in map(int, args.seeds.split(",")):
        for name in args.data.split(","):
            for depth in args.depths.split(","):
                for recipe in ["fitted"] if depth in FITTED else RECIPES:
                    this = name, seed, depth, recipe
                    if this in done and not args.trial or args.list:
                        print(*this, "there" if this in done else "missing", flush=True)
                        continue
                    row = line(*this, flowers=args.flowers, **{"photos": 20, "epochs": 1} if args.trial else {})
                    if not args.trial:
                        add(row)
                    told = ("validation_loss", "loss", "accuracy", "seconds", "wall")
                    print(*this, *(f"{key} {row[key]}" for key in told), flush=True)
    if not args.trial and not args.list:
        write_conditions(args.data.split(","), args.flowers)


if __name__ == "__main__":
    main()
