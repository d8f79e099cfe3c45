"""Which technique when: five methods, four data sets, from two photos a class to all there are.

    python -m experiments.decision_map --list                       parts, what of them is there, how long the rest takes
    python -m experiments.decision_map --part features              goes on where it stopped; --flowers FOLDER for the flowers
    python -m experiments.decision_map --part tuned_few --cell flowers/all_layers/10 --again
                                                                    the same cell once more, held against the stored interval

Methods, all with EfficientNet-Lite0:

    scratch             random weights, BatchNorm learns its statistics, everything trains; twice the epochs
    feature_extraction  frozen; logistic regression on its features, which share one scale (chapter 5: with few photos that is better)
    last_stage          the last stage and the last layer train, from a last layer of zeros; what is below is computed once; four times
                        the epochs, each of which costs a sixth
    all_layers          everything trains, from a last layer of zeros
    lp_ft               the last layer is fitted on frozen features first, then everything trains (Kumar et al. 2022)

Data: solar cells, faces, flowers at 128 pixels, textiles at their own 250 (a defect there is a few pixels wide). Photos that stand
twice in faces and flowers are removed; a quarter of the photos, drawn once, is for tests only. Daisy, one of the five flowers, is one
of ImageNet's classes; none of the other four is, by name. Each seed draws its training photos from the rest. One recipe for all:
AdamW, weight decay 0.01, batches of 16, 4 epochs but at least 640 photos seen, photos mirrored or turned as their card allows.
Learning rates, and for the last stage the number of epochs, are chosen by part "choose", once for all data sets, among training photos
only (results/decision_map_tried.csv); it comes first.

One line of results/decision_map.csv is one classifier. "seconds" are those of the processor, all cores added, for the training
alone, with an empty cache; "mib" is the most memory that the process held in it, above what it held before. "accuracy" and "loss" are
those of the test photos, "train_accuracy" and "train_loss" those of the photos it learned from, as they are; of both at most 500. "right" says of
each test photo, in their order, whether it was: a bit each, as a hexadecimal number (`bits` reads it).
The budget, two processes side by side, each held to a core (taskset -c 0, taskset -c 1): 4 hours were the aim; the stored lines took about 5 (README.md). One process on two cores waits
busily, and its processor seconds mean less. Lines were made on several days, and one machine gave the same line in 35 seconds on one day and in
88 on another, with nothing else of ours running: "seconds" of different lines compare to a factor of two or three at best, those of part "quiet",
made in one go, much better. "wall" stands only in
lines of part "quiet", which wants a machine that does nothing else: see results/decision_map_curves.csv, one line an epoch.

Explained in notebooks/11_better.ipynb, 12_faster.ipynb, 13_overfitting.ipynb and 14_when_to_use_what.ipynb.
"""

import argparse
import functools
import gc
import itertools
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
from experiments import solar_cells
from experiments.solar_cells import cores, from_scratch, write

RESULTS = Path(__file__).with_name("results") / "decision_map.csv"
COLUMNS = (
    "dataset", "method", "photos", "seed", "n_train", "n_test", "epochs", "accuracy", "loss", "train_accuracy", "train_loss",
    "trained_parameters", "seconds", "mib", "right",
)  # fmt: skip
TRIED = RESULTS.with_name("decision_map_tried.csv")
TRIED_COLUMNS = ("dataset", "method", "photos", "learning_rate", "times", "n_train", "n_validation", "accuracy", "loss")
CURVES = RESULTS.with_name("decision_map_curves.csv")
CURVES_COLUMNS = ("dataset", "method", "photos", "seed", "epoch", "n_train", "n_test", "accuracy", "loss", "seconds", "wall")
WHY = RESULTS.with_name("decision_map_why.csv")
DISTANCES = RESULTS.with_name("decision_map_distance.csv")
DISTANCES_COLUMNS = ("dataset", "image_size", "draw", "n_photos", "distance", "last_distance", "entropy_bits")

DATA = {  # pixels, and what leaves a photo's class alone
    "faces": (128, "mirror"), "flowers": (128, "mirror"), "solar_cells": (128, "turns_and_flips"), "textiles": (250, "mirror"),
}  # fmt: skip
COPIES = ("flowers", "faces")  # have photos twice
METHODS = ("scratch", "feature_extraction", "last_stage", "all_layers", "lp_ft")
WHY_METHODS = ("feature_views", "head_gradient", "all_longer")
FROZEN = ("feature_extraction", "feature_views", "head_gradient")  # their features are those of the backbone
LONGER, LONGER_CELLS = 4, (("solar_cells", "25"), ("solar_cells", "100"), ("textiles", "10"), ("textiles", "50"))
PHOTOS = ("2", "5", "10", "25", "50", "100", "all")
EPOCHS, SEEN = 4, 640
MOST_JUDGED = 500  # test photos, and training photos, by which a classifier is judged: the same for all
BATCH = 16
RATES = {"last_stage": 3e-4, "all_layers": 3e-4, "lp_ft": 1e-4, "scratch": 3e-3, "head_gradient": 1e-3}  # what part choose found: a test compares
TIMES = {"last_stage": 4, "all_layers": 1, "lp_ft": 1, "scratch": 2, "head_gradient": 4}  # epochs as a multiple of EPOCHS: likewise for the last stage
RATES_TRIED = {"last_stage": (3e-4, 1e-3), "all_layers": (3e-4, 1e-3), "lp_ft": (1e-4, 3e-4), "scratch": (1e-3, 3e-3), "head_gradient": (1e-3, 1e-2)}
TIMES_TRIED = {"last_stage": (1, 4), "all_layers": (1,), "lp_ft": (1,), "scratch": (2,), "head_gradient": (4,)}  # an epoch of the last stage costs a sixth
CHOOSE_CELLS = (("faces", "2"), ("faces", "5"), ("flowers", "10"), ("flowers", "100"), ("solar_cells", "10"), ("solar_cells", "100"))
FEW, MORE = ("2", "5", "10", "25", "50"), ("100", "all")
THREE, TUNED = ("faces", "flowers", "solar_cells"), ("all_layers", "lp_ft")
PARTS = {  # data sets, methods, photos a class; and seeds, where a part would take more than an hour with all of them
    "features": (tuple(DATA), ("feature_extraction",), PHOTOS),
    "last_stage_few": (tuple(DATA), ("last_stage",), FEW[:3]),
    "last_stage_more": (tuple(DATA), ("last_stage",), (*FEW[3:], *MORE)),
    "tuned_few": (THREE, TUNED, FEW),
    "tuned_more": (THREE, TUNED, MORE),
    "scratch_few": (THREE, ("scratch",), (*FEW, "100")),
    "scratch_all": (("faces", "solar_cells"), ("scratch",), ("all",)),
    "scratch_flowers": (("flowers",), ("scratch",), ("all",)),
    **{f"textiles_few_{method}": (("textiles",), (method,), (*FEW, "100")) for method in TUNED},
    "textiles_all": (("textiles",), TUNED, ("all",)),
    "textiles_scratch_few": (("textiles",), ("scratch",), FEW[:3]),
    "textiles_scratch_more": (("textiles",), ("scratch",), FEW[3:]),
    "textiles_scratch_100": (("textiles",), ("scratch",), ("100",)),
    **{f"textiles_scratch_all_{seed}": (("textiles",), ("scratch",), ("all",), (seed,)) for seed in range(3)},
}
QUIET = [  # data set, method, photos a class, seed, and the multiple of EPOCHS where it is not the recipe's
    (name, method, "all", seed, None)
    for seed in range(3) for name in ("flowers", "solar_cells")
    for method in ("feature_extraction", "last_stage", "all_layers", "lp_ft")
] + [(name, "scratch", "all", 0, 4 * TIMES["scratch"]) for name in ("flowers", "solar_cells")]  # fmt: skip
# Processor seconds for a photo seen once in training, of 128 pixels: for --list, until lines of the same kind are there.
GUESS = {"feature_extraction": 0.006, "last_stage": 0.002, "all_layers": 0.02, "lp_ft": 0.02, "scratch": 0.02}


# --- photos ---------------------------------------------------------------------------------------------------------------


@functools.cache
def photos_of(name, flowers=None):
    """(photos to learn from, test photos): the same for everybody, whatever the seed."""
    dataset = tl.load_dataset(flowers if name == "flowers" and flowers else name)
    if name in COPIES:
        dataset = dataset.subset(np.sort(np.unique(tl.duplicate_groups(dataset), return_index=True)[1]))
    pool, test = dataset.split(test_size=0.25, seed=0)
    return pool, judging(test)


def judging(dataset):
    """At most MOST_JUDGED photos of it, always the same."""
    return dataset.subset(np.sort(np.random.default_rng(0).permutation(len(dataset))[:MOST_JUDGED]))


def cells(name, flowers=None):
    """How many photos a class there can be, as texts."""
    least = np.bincount(photos_of(name, flowers)[0].labels).min()
    return [photos for photos in PHOTOS if photos == "all" or int(photos) < least]


def draw(pool, photos, seed):
    return pool if photos == "all" else pool.sample(per_class=int(photos), seed=seed)


def epochs_of(n, method, times=None):
    return (times or TIMES.get(method, 1)) * max(EPOCHS, -(-SEEN // n))


def seeds_of(method, photos):
    """Five where a line costs seconds, three where it costs minutes. With all photos, seeds decide order and views only."""
    cheap = method == "feature_extraction" or method == "last_stage" and photos != "all"
    if method == "feature_extraction" and photos == "all":
        return range(1)  # nothing is left to chance: the folds that choose the strength hardly count
    return range(5 if cheap else 3)


# --- one classifier -------------------------------------------------------------------------------------------------------


class _Empty:
    """For a while the cache folder is an empty one, so that nothing is found there which should be paid for."""

    def __enter__(self):
        self.folder, self.before = tempfile.TemporaryDirectory(), os.environ.get("TLHELPERS_CACHE")
        os.environ["TLHELPERS_CACHE"] = self.folder.name

    def __exit__(self, *error):
        os.environ.pop("TLHELPERS_CACHE")
        if self.before is not None:
            os.environ["TLHELPERS_CACHE"] = self.before
        self.folder.cleanup()


def _memory(field):
    """What the kernel says of this process, MiB; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _reset_peak():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def train(name, method, learn, seed, *, rate=None, times=None, start=lambda: None, watch=None):
    """(classifier, facts of the training). `start` is called where its clock starts, `watch` after each epoch with its number and the
    classifier."""
    import keras

    if method == "all_longer":
        return train(name, "all_layers", learn, seed, rate=rate, times=times or LONGER, start=start, watch=watch)
    size, symmetry = DATA[name]
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    gc.collect()
    backbone = tl.load_backbone("efficientnet_lite0", image_size=size)
    epochs, rate = epochs_of(len(learn), method, times), RATES.get(method) if rate is None else rate
    with _Empty():
        counted, before = _reset_peak(), _memory("VmRSS")
        began = time.process_time()
        start()
        if method == "feature_extraction":
            head = tl.train_head(tl.extract_features(learn, backbone), learn.labels, scale="one", seed=seed)
            classifier, trained = tl.build_classifier(backbone, learn.class_names, head=head), head.kernel.size + head.bias.size
        elif method == "feature_views":
            classifier = solar_cells.frozen(backbone, learn, tl.images.VARIANTS[symmetry], scale="one")
            trained = classifier.get_layer("logits").count_params()
        elif method == "scratch":
            targets = np.eye(len(learn.class_names), dtype=np.float32)[learn.labels]
            classifier, trained, _ = from_scratch(
                learn, seed, epochs, rate, lambda said: None, targets=targets, image_size=size,
                batch_size=min(BATCH, len(learn)), variants=tl.images.VARIANTS[symmetry], watch=watch,
            )  # fmt: skip
        else:
            head = None
            if method == "lp_ft":  # as head_first does it, but with the scale of feature extraction
                head = tl.train_head(tl.extract_features(learn, backbone), learn.labels, scale="one", seed=seed)
            classifier = tl.build_classifier(backbone, learn.class_names, head=head)
            history = tl.fine_tune(
                classifier, learn, unfreeze={"last_stage": "last_stage", "head_gradient": "head"}.get(method, "all"), epochs=epochs, validation=0,
                learning_rate=rate, batch_size=BATCH, head_first=False, augment=symmetry, seed=seed, resume=False,  # state costs more than a short epoch
                progress=watch and (lambda history: watch(len(history.loss), classifier)),
            )  # fmt: skip
            trained = history.trained_parameters
        seconds = time.process_time() - began
        peak = _memory("VmHWM")
    mib = round(max(peak - before, 0)) if counted and peak is not None else ""
    facts = {"epochs": epochs if method in TIMES else 0, "trained_parameters": trained, "seconds": round(seconds, 2), "mib": mib}
    return classifier, facts


def judged(classifier, dataset):
    """As `measures`."""
    chance = tl.features.predict(classifier, dataset, batch_size=BATCH)
    return measures(chance, dataset)


def measures(chance, dataset):
    """(accuracy, log loss, which photos are right as a hexadecimal number)."""
    own, right = chance[np.arange(len(dataset)), dataset.labels], chance.argmax(axis=1) == dataset.labels
    return round(float(right.mean()), 5), round(float(-np.log(own + 1e-7).mean()), 5), np.packbits(right).tobytes().hex()


def bits(right, n):
    """What `measures` said of n photos, bool (n,)."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(right), np.uint8))[:n].astype(bool)


def line(name, method, photos, seed, *, flowers=None, limit=None):
    """One line of the table; `limit` test photos only, for a trial."""
    pool, test = photos_of(name, flowers)
    learn, test = draw(pool, photos, seed), test.subset(slice(limit))
    classifier, facts = train(name, method, learn, seed)
    if method in FROZEN:  # features of the same photos serve many lines
        head, size = classifier.get_layer("logits").get_weights(), DATA[name][0]
        head = tl.Head(*head, strength=None)
        backbone = tl.load_backbone("efficientnet_lite0", image_size=size)

        def judge(dataset):
            return measures(head.predict_proba(tl.extract_features(dataset, backbone)), dataset)
    else:
        judge = functools.partial(judged, classifier)
    accuracy, loss, right = judge(test)
    train_accuracy, train_loss, _ = judge(judging(learn))
    row = {
        "dataset": name, "method": method, "photos": photos, "seed": seed, "n_train": len(learn), "n_test": len(test),
        "accuracy": accuracy, "loss": loss, "train_accuracy": train_accuracy, "train_loss": train_loss, "right": right, **facts,
    }  # fmt: skip
    return {column: row[column] for column in COLUMNS}


# --- parts that are no cells of the map -----------------------------------------------------------------------------------


def choose(flowers):
    """Each learning rate of RATES_TRIED, judged by three tenths of the training photos that nothing learned from."""
    rows = known(TRIED)
    done = {(row["dataset"], row["method"], row["photos"], row["learning_rate"], int(row["times"])) for row in rows}
    for name, photos in CHOOSE_CELLS:
        pool, held = photos_of(name, flowers)[0].split(test_size=0.3, seed=1)
        held = held.subset(np.sort(np.random.default_rng(0).permutation(len(held))[:200]))
        if name == "faces" and photos == "5":
            photos, learn = "all", pool
        else:
            learn = draw(pool, photos, 0)
        for method, rates in RATES_TRIED.items():
            for rate, times in itertools.product(rates, TIMES_TRIED[method]):
                if (name, method, photos, f"{rate:g}", times) in done:
                    continue
                accuracy, loss, _ = judged(train(name, method, learn, 0, rate=rate, times=times)[0], held)
                found = (name, method, photos, f"{rate:g}", times, len(learn), len(held), accuracy, loss)
                add(TRIED, TRIED_COLUMNS, dict(zip(TRIED_COLUMNS, found, strict=True)))
                print(*found, flush=True)
    print(chosen(known(TRIED)))


def chosen(rows):
    """method → (the rate, the multiple of EPOCHS) with the lowest log loss, averaged over the cells."""
    best = {}
    for method in RATES_TRIED:
        losses = {}
        for row in rows:
            if row["method"] == method:
                losses.setdefault((float(row["learning_rate"]), int(row["times"])), []).append(float(row["loss"]))
        best[method] = min(losses, key=lambda tried: np.mean(losses[tried]))
    return best


def distances(flowers, draws=5, n=200):
    """How far photos are from ImageNet, for the network that learned ImageNet.

    Each BatchNorm layer keeps mean m and deviation s of each channel over ImageNet. Photos give these channels mean μ and
    deviation σ. Between two normal distributions the squared Fréchet distance is (μ − m)² + (σ − s)²; divided by s², so that
    channels count alike, averaged over all channels of all layers, and the root taken. 0 would be ImageNet's own. (Fréchet distance
    of normal distributions: Dowson and Landau 1982. The stored statistics as a picture of the data: Yin et al. 2020,
    arXiv:1912.08795.) Beside it: the same for the last layer alone, whose channels see what is on a photo and not only how bright and
    how sharp it is: photos turned upside down are nearer by the first and further away by the second. And the entropy of the 1,000 ImageNet probabilities, mean over the photos, in bits.
    """
    rows = []
    for name, (size, _) in DATA.items():
        pool = photos_of(name, flowers)[0]
        for image_size in sorted({size, 224}):
            backbone = tl.load_backbone("efficientnet_lite0", image_size=image_size)
            for number in range(draws):
                some = pool.subset(np.sort(np.random.default_rng(number).permutation(len(pool))[:n]))
                chance = tl.features.predict(backbone.classifier, some, batch_size=BATCH)
                bits = float(-(chance * np.log2(chance + 1e-12)).sum(axis=1).mean())
                found = (name, image_size, number, len(some), *distance(backbone.model, some), round(bits, 4))
                rows.append(dict(zip(DISTANCES_COLUMNS, found, strict=True)))
                print(*found, flush=True)
    write(DISTANCES, DISTANCES_COLUMNS, rows)


def distance(model, dataset):
    """(of all BatchNorm layers, of the last one): see `distances`."""
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    sums = keras.Model(model.input, [tensor for layer in norms for tensor in _moments(layer.input)])
    outputs = tl.features.predict(sums, dataset, batch_size=BATCH)
    parts = []
    for layer, mean, square in zip(norms, outputs[::2], outputs[1::2], strict=True):
        mean, square = mean.mean(axis=0, dtype=np.float64), square.mean(axis=0, dtype=np.float64)
        theirs, deviation = layer.moving_mean.numpy(), np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        parts.append(((mean - theirs) ** 2 + (np.sqrt(np.maximum(square - mean**2, 0)) - deviation) ** 2) / deviation**2)
    return tuple(round(float(np.sqrt(part.mean())), 4) for part in (np.concatenate(parts), parts[-1]))


def _moments(maps):
    import keras

    pool = keras.layers.GlobalAveragePooling2D()
    return pool(maps), pool(maps * maps)


def quiet(flowers):
    """Learning curves against the clock, for a machine that does nothing else: after each epoch the test photos are looked at, with
    the clock stopped. The curve is drawn, nothing is chosen by it: the learning rate falls as if nobody looked."""
    done = {(row["dataset"], row["method"], row["photos"], int(row["seed"])) for row in known(CURVES)}
    for name, method, photos, seed, times in QUIET:
        if (name, method, photos, seed) not in done:
            rows = curve(name, method, photos, seed, times, flowers)
            add(CURVES, CURVES_COLUMNS, *rows)
            print(name, method, photos, seed, rows[-1]["accuracy"], rows[-1]["seconds"], rows[-1]["wall"], flush=True)


def why(flowers):
    """Controls, with the map's draws. Where fine-tuning on few photos beats feature extraction: is it the layers that train, the turned
    and mirrored photos, which feature extraction has not seen, or the way in which the last layer learns? "feature_views" is feature
    extraction of each photo in all its views, "head_gradient" trains the last layer alone, from zeros, with the recipe of the last stage.
    And where it does not: has it only stopped too early? "all_longer" is all layers with LONGER times the epochs, in LONGER_CELLS."""
    done = {identity(row) for row in known(WHY)}
    few = [(name, photos) for name in DATA for photos in cells(name, flowers) if photos in (*FEW, "100")]
    for method, seed in itertools.product(WHY_METHODS, range(3)):
        for name, photos in LONGER_CELLS if method == "all_longer" else few:
            if (name, method, photos, seed) not in done:
                row = line(name, method, photos, seed, flowers=flowers)
                add(WHY, COLUMNS, row)
                print(name, method, photos, seed, row["accuracy"], row["loss"], row["train_accuracy"], flush=True)


def curve(name, method, photos, seed, times=None, flowers=None, limit=None):
    """Lines of one learning curve."""
    pool, test = photos_of(name, flowers)
    learn, test, rows = draw(pool, photos, seed), test.subset(slice(limit)), []
    begun = [0.0, 0.0]

    def start():
        begun[:] = time.process_time(), time.perf_counter()

    def watch(epoch, classifier):
        spent = time.process_time() - begun[0], time.perf_counter() - begun[1]
        found = (name, method, photos, seed, epoch, len(learn), len(test), *judged(classifier, test)[:2], *(round(each, 2) for each in spent))
        rows.append(dict(zip(CURVES_COLUMNS, found, strict=True)))
        begun[:] = time.process_time() - spent[0], time.perf_counter() - spent[1]

    classifier, facts = train(name, method, learn, seed, times=times, start=start, watch=watch)
    if not facts["epochs"]:  # nothing was seen in epochs
        watch(0, classifier)
    return rows


# --- the table ------------------------------------------------------------------------------------------------------------


def known(path=None):
    return solar_cells.known(path or RESULTS)


def add(path, columns, *rows):
    """More lines, while nobody else writes: parts may run side by side."""
    from filelock import FileLock

    def place(row):
        orders = [list(DATA).index(row["dataset"]), (*METHODS, *WHY_METHODS).index(row["method"]), PHOTOS.index(row["photos"])]
        return (*orders, *(float(row[name]) for name in ("learning_rate", "times", "seed", "epoch") if name in row))

    with FileLock(tl.cache_dir() / "decision_map.lock"):
        write(path, columns, sorted([*known(path), *rows], key=place))


def lines_of(part, flowers=None, only=None):
    """(data set, method, photos, seed) of all lines of a part, or of its data set `only`; seed by seed, so that what is there early
    spans the map."""
    names, methods, photos, *seeds = PARTS[part]
    names = [name for name in names if only in (None, name)]
    found = [
        (name, method, number, seed)
        for name in names for method in methods for number in cells(name, flowers) if number in photos
        for seed in seeds_of(method, number) if not seeds or seed in seeds[0]
    ]  # fmt: skip
    return sorted(found, key=lambda this: this[3])


def identity(row):
    return row["dataset"], row["method"], row["photos"], int(row["seed"])


def seconds_of(this, rows, flowers=None):
    """Processor seconds of a line, test photos included: from a line of the same kind, or from photos seen in training."""
    name, method, photos, _ = this
    same = [float(row["seconds"]) for row in rows if (row["dataset"], row["method"], row["photos"]) == this[:3]]
    n = len(photos_of(name, flowers)[0]) if photos == "all" else int(photos) * len(photos_of(name, flowers)[0].class_names)
    area = (DATA[name][0] / 128) ** 2
    guess = n * max(epochs_of(n, method), 1) * GUESS[method] * area + 5
    return (np.mean(same) if same else guess) + judging_seconds(name, method, n)


def judging_seconds(name, method, n):
    """About what it takes to judge a classifier that has learned from n photos."""
    return 0.01 * (DATA[name][0] / 128) ** 2 * 2 * min(n, MOST_JUDGED) + (0 if method == "feature_extraction" else 20)


def run(part, flowers, only=None):
    rows = known()
    done = {identity(row) for row in rows}
    todo = [this for this in lines_of(part, flowers, only and only[0]) if this not in done and (only is None or this[:3] == only)]
    for number, this in enumerate(todo):
        began = time.perf_counter()
        row = line(*this, flowers=flowers)
        add(RESULTS, COLUMNS, row)
        rows.append(row)
        left = sum(seconds_of(other, rows, flowers) for other in todo[number + 1 :]) / cores()
        print(
            *this, f"accuracy {row['accuracy']:.3f}, training photos {row['train_accuracy']:.3f}, {row['seconds']:.0f} processor seconds,",
            f"{time.perf_counter() - began:.0f} s; {len(todo) - number - 1} lines left, about {left / 60:.0f} minutes", flush=True,
        )  # fmt: skip


def again(cell, flowers):
    """The lines of a cell once more: mean of both, and whether the new one lies in the interval of the stored one."""
    name, method, photos = cell
    stored = [float(row["accuracy"]) for row in known() if identity(row)[:3] == cell]
    if not stored:
        raise SystemExit(f"{'/'.join(cell)}: the table has no such lines")
    new = [line(name, method, photos, seed, flowers=flowers)["accuracy"] for seed in range(len(stored))]
    n_test, mean = len(photos_of(name, flowers)[1]), np.mean(stored)
    half = interval(stored, n_test)
    inside = abs(np.mean(new) - mean) <= half
    print(f"{'/'.join(cell)}: stored {mean:.4f} ± {half:.4f}, again {np.mean(new):.4f}: {'inside' if inside else 'OUTSIDE'}")
    return inside


def interval(accuracies, n_test):
    """Half of the 95 % interval of a mean accuracy: how far draws of training photos differ (Student's t), and how far another
    choice of test photos could, which all draws share (binomial; two right and two wrong are added, so that a mean of 1 is not
    certain: Agresti and Coull 1998). The two are independent: squares add."""
    from scipy.stats import t

    accuracies, n = np.asarray(accuracies, float), len(accuracies)
    between = t.ppf(0.975, n - 1) * accuracies.std(ddof=1) / n**0.5 if n > 1 else 0
    middle = (accuracies.mean() * n_test + 2) / (n_test + 4)
    return float((between**2 + 1.96**2 * middle * (1 - middle) / (n_test + 4)) ** 0.5)


def write_conditions(flowers):
    conditions = {
        "command": "python -m experiments.decision_map --part …", "date": date.today().isoformat(), "backbone": "efficientnet_lite0",
        "image_sizes": {name: size for name, (size, _) in DATA.items()}, "views": {name: views for name, (_, views) in DATA.items()},
        "epochs": f"{EPOCHS}, at least {SEEN} photos seen", "times_as_many": TIMES, "batch_size": BATCH, "learning_rates": RATES,
        "flowers": f"a folder (--flowers), {sum(map(len, photos_of('flowers', flowers))):,} photos without copies" if flowers else "load_dataset('flowers')",
        "cores": cores(), "allocator": Path(os.environ.get("LD_PRELOAD") or "malloc").name, "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, no GPU",
        "versions": {name: version(name) for name in ("tlhelpers", "tensorflow", "keras", "ai-edge-litert", "scikit-learn", "numpy")},
    }  # fmt: skip
    RESULTS.with_suffix(".json").write_text(json.dumps(conditions, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def show(flowers):
    rows = known()
    done, total = {identity(row) for row in rows}, 0
    for part in PARTS:
        lines = lines_of(part, flowers)
        todo = [this for this in lines if this not in done]
        minutes = sum(seconds_of(this, rows, flowers) for this in todo) / cores() / 60
        total += minutes
        print(f"{part:22} {len(lines) - len(todo):3} of {len(lines):3} lines there; the rest takes about {minutes:.0f} minutes")
    there = {identity(row) for row in known(CURVES)}
    print(f"{'why':22} {len(known(WHY)):3} lines there")
    print(f"{'quiet':22} {len(there):3} of {len(QUIET):3} curves there\n{'choose':22} {len(known(TRIED))} lines there")
    print(f"about {total:.0f} minutes on {cores()} cores, without quiet")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "choose", "distance", "quiet", "why"])
    parser.add_argument("--cell", help="one cell of the part: DATA/METHOD/PHOTOS, such as flowers/all_layers/10")
    parser.add_argument("--again", action="store_true", help="with --cell: run what is there once more, and compare; nothing is written")
    parser.add_argument("--flowers", help="folder with flower photos; without, load_dataset('flowers'), which downloads them")
    parser.add_argument("--list", action="store_true", help="what is there, what is missing, how long it takes")
    args = parser.parse_args()
    if args.list or not args.part:
        return show(args.flowers)
    cell = args.cell and tuple(args.cell.split("/"))
    if cell and (args.part not in PARTS or cell not in {this[:3] for this in lines_of(args.part, args.flowers, cell[0])}):
        parser.error(f"{args.cell} is no cell of part {args.part}")
    if args.again:
        if not cell:
            parser.error("--again takes --cell")
        return 0 if again(cell, args.flowers) else 1
    if args.part in PARTS:
        run(args.part, args.flowers, cell)
        write_conditions(args.flowers)
    else:
        {"choose": choose, "distance": distances, "quiet": quiet, "why": why}[args.part](args.flowers)


if __name__ == "__main__":
    raise SystemExit(main())
