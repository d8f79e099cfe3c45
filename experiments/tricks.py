"""What pays on 200 photos: one trick at a time, the same draws of photos for all.

    python experiments/tricks.py              goes on where it stopped; --list shows what is missing
    python experiments/tricks.py --confirm    the winners together, on new draws and the book's test photos
    python experiments/tricks.py --trial      few photos, one epoch, nothing is kept: does it run at all?

The book's test photos (a quarter, split with seed 0) are set aside. From the training photos 400 are drawn, class by class, and
200 of these to learn from; all that are not among the 400 judge. So a classifier that may have all 400 ("twice_the_photos")
is judged by the same photos. Each draw is done with each trick: lines with the same data set and draw can be compared in pairs.
"other_order" is the base once more with its photos in another order: a trick that cannot help, to show what luck does.
"frozen" is logistic regression on frozen features.

The base was fixed before: chapter 8's best for the last stage, 20 epochs, photos as they are. Nothing was tuned for a
trick: strengths are those of the papers, or say here that they are not. Photos are squeezed to 160 pixels, not 224, to leave
time for more draws. Tricks that are a function send each photo through the whole network in each epoch: fewer draws.

One line of results/tricks.csv is one classifier ("views" 8: the mean of what it says of the eight turned and mirrored views).
results/tricks_curves.csv has the way there, for the first three draws. With --confirm, draws 10 to 19 are judged by the test photos
("judged_by" is "test"); what is put together there was chosen by draws 0 to 4. The chapter does this for draw 10.
Budget on two cores: 15 minutes for five draws of the solar cells, 10 for the functions, 40 for all of it; --confirm 8.

Explained in notebooks/10_small_data_big_tricks.ipynb.
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

RESULTS = Path(__file__).with_name("results") / "tricks.csv"
CURVES = RESULTS.with_name("tricks_curves.csv")
COLUMNS = (
    "dataset", "trick", "draw", "judged_by", "views", "accuracy", "log_loss", "n_judged", "train_accuracy", "train_log_loss", "epochs",
    "processor_seconds",
)  # fmt: skip
CURVE_COLUMNS = ("dataset", "trick", "draw", "epoch", "accuracy", "log_loss", "train_accuracy", "train_log_loss")
SIZE, PHOTOS, EPOCHS = 160, 200, 20
DRAWS, CONFIRM, CURVE_DRAWS = range(10), range(10, 20), range(3)
BASE = {"unfreeze": "last_stage", "head_first": False, "learning_rate": 1e-3, "epochs": EPOCHS, "validation": 0, "augment": "none"}


def mixup(photos, targets, rng, alpha=0.2):
    """Zhang et al. 2018, arXiv:1710.09412: each photo with a part of another, each target likewise."""
    other = rng.permutation(len(photos))
    part = rng.beta(alpha, alpha, len(photos)).astype(np.float32)
    mixed = part[:, None, None, None] * photos + (1 - part[:, None, None, None]) * photos[other]
    return mixed, part[:, None] * targets + (1 - part[:, None]) * targets[other]


def brightness(photos, targets, rng):
    """Each photo brighter or darker, with more contrast or less, by up to a quarter."""
    light, contrast = rng.uniform(0.75, 1.25, (2, len(photos), 1, 1, 1)).astype(np.float32)
    mean = photos.mean(axis=(1, 2, 3), keepdims=True)
    return np.clip(light * mean + contrast * (photos - mean), 0, 255), targets


def pieces(photos, targets, rng):
    """A quarter of each photo, from anywhere in it, enlarged. The defect may be in the rest."""
    size = photos.shape[1]
    out = np.empty_like(photos)
    for number, photo in enumerate(photos):
        top, left = rng.integers(size - size // 2 + 1, size=2)
        out[number] = tl.resize_image(photo[top : top + size // 2, left : left + size // 2], size)
    return out, targets


TRICKS = {  # what changes in the call; two names that are no arguments: "photos", and "experts" for soft labels
    "base": {},
    "other_order": {"seed": 1000},
    "turns_and_flips": {"augment": "turns_and_flips"},
    "mirror": {"augment": "mirror"},
    "label_smoothing": {"label_smoothing": 0.1},
    "soft_labels": {"experts": True},
    "head_first": {"head_first": True},
    "early_stopping": {"validation": 0.2},
    "weight_decay_0": {"weight_decay": 0.0},
    "weight_decay_1": {"weight_decay": 1.0},  # a hundred times what is usual, which does next to nothing
    "balanced": {"class_weights": "balanced"},
    "twice_the_photos": {"photos": 2 * PHOTOS},
    "frozen": None,
    "mixup": {"augment": mixup},
    "brightness": {"augment": brightness},
    "pieces": {"augment": pieces},
}
TEXTILES = ("base", "other_order", "turns_and_flips", "mirror", "label_smoothing", "head_first", "early_stopping", "twice_the_photos", "frozen")
VIEWS = ("base", "turns_and_flips", "together")


def plan():
    """(data set, draw, trick), in the order in which they are done: first some draws of everything."""
    functions = [trick for trick, changed in TRICKS.items() if changed and callable(changed.get("augment"))]
    others = [trick for trick in TRICKS if trick not in functions]
    for dataset, draws, tricks in (
        ("solar_cells", DRAWS[:5], others), ("solar_cells", DRAWS[:3], functions), ("textiles", DRAWS[:5], TEXTILES),
        ("solar_cells", DRAWS[5:], others), ("solar_cells", DRAWS[3:5], functions),
    ):  # fmt: skip
        yield from ((dataset, draw, trick) for draw in draws for trick in tricks)


def photos_of(name, draw, trial=False):
    """Photos to learn from (with twice as many, whose first half they are), to judge by, and the book's test photos."""
    from sklearn.model_selection import train_test_split

    pool, test = tl.load_dataset(name).split(test_size=0.25, seed=0)
    count = 20 if trial else PHOTOS
    more, others = train_test_split(np.arange(len(pool)), train_size=2 * count, random_state=draw, stratify=pool.labels)
    learn, rest = train_test_split(more, train_size=count, random_state=draw, stratify=pool.labels[more])
    others = np.sort(others)[: 20 if trial else None]
    return pool.subset(np.concatenate([learn, rest])), pool.subset(others), test


class Judge:
    """What a classifier says of some photos. What stands below the last stage is the same for all: once for each photo."""

    def __init__(self, classifier, backbone):
        import keras
        import tensorflow as tf

        tail = keras.Model(classifier.get_layer("stage_6").output, classifier.output)
        self.backbone, self.maps = backbone, {}
        self.tail = tf.function(lambda maps: tail(maps, training=False))

    def says(self, dataset, variant=0):
        maps = tl.extract_features(dataset, self.backbone, cut_point="stage_6", pool=False, variant=variant, engine="keras")
        return np.concatenate([self.tail(np.array(maps[row : row + 256])) for row in range(0, len(maps), 256)])

    def exam(self, dataset, views=1):
        """Accuracy and log loss of the mean over views."""
        return exam(np.mean([self.says(dataset, variant) for variant in range(views)], axis=0), dataset)


def exam(chance, dataset):
    right = chance.argmax(axis=1) == dataset.labels
    return float(right.mean()), float(-np.log(chance[np.arange(len(right)), dataset.labels] + 1e-7).mean())


def measure(name, draw, trick, changed, judged_by="others", trial=False):
    """Lines of the table, and of the curves, for one trick on one draw."""
    import keras
    import tensorflow as tf

    more, others, test = photos_of(name, draw, trial)
    changed = dict(changed or {})
    count = changed.pop("photos", PHOTOS)
    count = 20 if trial else count
    learn, judging = more.subset(slice(count)), others if judged_by == "others" else test
    backbone = tl.load_backbone("efficientnet_lite0", image_size=SIZE)
    facts = {"dataset": name, "trick": trick, "draw": draw}
    if trick == "frozen":
        tables = [tl.extract_features(photos, backbone) for photos in (learn, judging)]
        began = time.process_time()
        head = tl.train_head(tables[0], learn.labels)
        seconds, epochs = time.process_time() - began, ""
        exams = [exam(head.predict_proba(table), photos) for table, photos in zip(tables, (learn, judging))]
        return [line(facts, judged_by, 1, exams[1], len(judging), exams[0], epochs, seconds)], []

    if changed.pop("experts", False):
        defect = learn.metadata["probability"]
        changed["soft_labels"] = np.stack([1 - defect, defect], axis=1).astype(np.float32)
    keras.utils.set_random_seed(draw)
    tf.config.experimental.enable_op_determinism()
    classifier = tl.build_classifier(backbone, learn.class_names)
    judge = Judge(classifier, backbone)
    curve, looking = [], 0.0

    def look(history):
        nonlocal looking
        began, epoch = time.process_time(), len(history.loss)
        if draw in CURVE_DRAWS and judged_by == "others" and (epoch == 1 or epoch % 2 == 0):
            now = judge.exam(judging.subset(slice(0, None, 3))), judge.exam(learn)
            curve.append(dict(zip(CURVE_COLUMNS, (*facts.values(), epoch, *(f"{value:.5f}" for pair in now for value in pair)))))
        looking += time.process_time() - began

    settings = {"seed": draw} | BASE | changed
    settings["seed"] += draw if settings["seed"] >= 1000 else 0
    began = time.process_time()
    history = tl.fine_tune(classifier, learn, **(settings | ({"epochs": 1} if trial else {})), progress=look)
    seconds = time.process_time() - began - looking
    trained = judge.exam(learn)
    return [
        line(facts, judged_by, views, judge.exam(judging, views), len(judging), trained, len(history.loss), seconds)
        for views in ((1, 8) if trick in VIEWS and name == "solar_cells" else (1,))
    ], curve  # fmt: skip


def line(facts, judged_by, views, judged, n, trained, epochs, seconds):
    values = judged_by, views, f"{judged[0]:.5f}", f"{judged[1]:.5f}", n, f"{trained[0]:.5f}", f"{trained[1]:.5f}", epochs, f"{seconds:.1f}"
    return facts | dict(zip(COLUMNS[3:], values, strict=True))


def known(path):
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(lines, curve):
    """Add lines; each table is written whole or not at all. The curves first: a line in the table says that all is there."""
    for path, columns, new in ((CURVES, CURVE_COLUMNS, curve), (RESULTS, COLUMNS, lines)):
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        again = {(row["dataset"], row["trick"], str(row["draw"])) for row in new} if path == CURVES else ()
        old = [row for row in known(path) if (row["dataset"], row["trick"], row["draw"]) not in again]
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows([*old, *new])
        os.replace(part, path)


def keep_conditions():
    told = {
        trick: "logistic regression" if changed is None else {name: getattr(value, "__name__", value) for name, value in changed.items()}
        for trick, changed in (TRICKS | {"together": TOGETHER}).items()
    }
    conditions = {
        "command": "python experiments/tricks.py", "date": date.today().isoformat(), "base": BASE, "tricks": told, "image_size": SIZE,
        "photos": PHOTOS, "backbone": "efficientnet_lite0",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("tlhelpers", "tensorflow", "keras", "ai-edge-litert", "scikit-learn", "numpy")},
    }  # fmt: skip
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


TOGETHER = {"augment": "turns_and_flips", "experts": True}  # chosen by draws 0 to 4, never by the test photos


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirm", action="store_true", help="new draws, judged by the test photos")
    parser.add_argument("--trial", action="store_true", help="few photos, one epoch, nothing is kept")
    parser.add_argument("--list", action="store_true", help="show what is there and what is missing")
    args = parser.parse_args()
    todo = [(*condition, TRICKS[condition[2]], "others") for condition in plan()]
    if args.confirm:
        tricks = {"frozen": None, "base": {}, "together": TOGETHER}
        todo = [("solar_cells", draw, trick, changed, "test") for draw in CONFIRM for trick, changed in tricks.items()]
    if args.trial:
        todo = [each for each in todo if each[1] == todo[0][1]]
    for name, draw, trick, changed, judged_by in todo:
        there = any((row["dataset"], row["draw"], row["trick"], row["judged_by"]) == (name, str(draw), trick, judged_by) for row in known(RESULTS))
        if args.list or there and not args.trial:
            print(name, draw, trick, judged_by, "there" if there else "missing", flush=True)
            continue
        lines, curve = measure(name, draw, trick, changed, judged_by, args.trial)
        for row in lines:
            print(*row.values(), flush=True)
        if not args.trial:
            keep(lines, curve)
    if not args.list and not args.trial:
        keep_conditions()


if __name__ == "__main__":
    main()
