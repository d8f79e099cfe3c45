"""The command `tlhelpers`: from a folder of photos to a tested classifier, without writing a program.

Results go to standard output; progress and messages go to standard error. Exit status: 0 done, 1 the work failed, 2 the
call was wrong.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import contextlib
import functools
import json as json_module
import os
import platform
import shutil
import sys
import time
import warnings
from datetime import date
from importlib.metadata import requires, version
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tlhelpers.backbones import BACKBONES, KERAS_BACKBONES, load_backbone
from tlhelpers.classifiers import build_classifier, load_classifier, save_classifier
from tlhelpers.datasets import PACKAGED, Dataset, load_dataset, load_photo, package_folder
from tlhelpers.downloads import FLOWERS, cache_dir
from tlhelpers.duplicates import duplicate_groups, find_duplicates
from tlhelpers.evaluation import evaluate as evaluate_classifier
from tlhelpers.features import extract_features, run_model
from tlhelpers.folders import photos_below
from tlhelpers.heads import train_head
from tlhelpers.images import resize_image, shown

__all__ = ["main"]

CACHED = ("features", "datasets", "tfds")  # what this package keeps in the cache folder, and may delete there
SHOWN = 20  # lines of a list that are printed; files and reasons beyond stand in the model card and in --json

_err = Console(stderr=True, highlight=False)


class _Failed(Exception):
    """The work could not be done; the message says why."""


def _command(function):
    """A subcommand: with --json its result, a dict, is the only thing on standard output, also when it fails."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output, nothing else there.")
    @functools.wraps(function)
    def run(*args, as_json, **options):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show must not end the work
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: _say(str(message))
                result = function(*args, as_json=as_json, **options)
        except (click.ClickException, BrokenPipeError):  # click knows what to do
            raise
        except KeyboardInterrupt:
            result = {"error": "stopped; what was finished is kept, and the same command goes on from there"}
        except (_Failed, ValueError, OSError, ModuleNotFoundError, MemoryError) as error:
            result = {"error": str(error) or type(error).__name__}
        if "error" in result:
            _say(result["error"])
        if as_json:
            click.echo(json_module.dumps(result, indent=2, ensure_ascii=False))
        sys.exit(0 if "error" not in result and result.get("ok", True) else 1)

    return run


def _say(line=""):
    click.echo(line, err=True)


@contextlib.contextmanager
def _stage(name, seconds=None, unit="photos"):
    """Times a stage and shows how far it is: as a bar on a terminal, else as a line when it is done."""
    start, last = time.perf_counter(), [0, 0]
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None, rate="")

        def progress(done, total):
            last[:] = done, total
            rate = done / max(time.perf_counter() - start, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:.0f} a second")

        yield progress
    took = time.perf_counter() - start
    if seconds is not None:
        seconds[name] = round(took, 2)
    _say(f"{name:<14}{f'{last[1]:>7,} {unit}' if last[1] else '':<16}{took:6.1f} s")


def _data_argument(text):
    """A folder, or the name of a data set: anything else is a wrong call."""
    if Path(text).is_dir() or text in (*PACKAGED, "flowers") or text.startswith("tfds:"):
        return text
    raise click.BadParameter(f"{text!r} is neither a folder nor a data set; tlhelpers datasets lists those there are")


def _model_argument(text):
    if not text.endswith(".keras"):
        raise click.BadParameter(f"{text!r}: the name of a model ends in .keras")
    return Path(text)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tlhelpers")
def main():
    """Transfer learning on photos: fit a classifier to a folder, test it, use it.

    A folder holds one subfolder a class: photos/cats/…, photos/dogs/…
    """


# --- fit ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("folder", callback=lambda *args: _data_argument(args[2]))
@click.option("--test", "test_folder", metavar="FOLDER", callback=lambda *args: args[2] and _data_argument(args[2]),
              help="Photos to test on, with the same subfolders. Without it a quarter of FOLDER is set aside.")
@click.option("--method", type=click.Choice(["feature-extraction"]), default="feature-extraction", show_default=True)
@click.option("--backbone", default="efficientnet_lite0", show_default=True, help="tlhelpers backbones lists them.")
@click.option("--groups", metavar="NAME", help="Keep photos together that belong together: subfolder, or what else is known.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same split, same model.")
@click.option("--out", required=True, metavar="MODEL.keras", callback=lambda *args: _model_argument(args[2]))
@_command
def fit(folder, test_folder, method, backbone, groups, seed, out, as_json):
    """Fit a classifier to the photos of FOLDER, test it, and save it."""
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out.parent}: there is no such folder to put the model in", param_hint="--out")
    if test_folder and groups:
        raise click.UsageError("--groups is for the split; with --test there is none")
    seconds, began = {}, time.perf_counter()
    with _stage("reading", seconds, "files") as progress:
        train, found = load_dataset(folder, progress=progress), {}
    if test_folder:
        with _stage("reading test", seconds, "files") as progress:
            test = load_dataset(test_folder, class_names=train.class_names, progress=progress)
    else:
        with _stage("splitting", seconds):
            train, test, found = _split(train, groups, seed)
    with _stage("starting", seconds):
        _start(seed)
        network = _backbone(backbone)
    with _stage("features", seconds) as progress:
        features = extract_features(train, network, cache=True, progress=progress)
    with _stage("head", seconds):
        head = train_head(features, train.labels, seed=seed)
        save_classifier(build_classifier(network, train.class_names, head=head), out)
    with _stage("testing", seconds) as progress:  # what was saved is what is measured
        report = evaluate_classifier(load_classifier(out), test, progress=progress)
    with _stage("leak guard", seconds):
        found |= _leaks(train, test, report)
    seconds["total"] = round(time.perf_counter() - began, 2)
    numbers = _numbers(report, test)
    if test_folder:
        numbers["left_out"] = _left_out(train.left_out) + numbers["left_out"]
    result = {
        "model": shown(out), "card": shown(out.with_suffix(".md")), "method": method, "backbone": network.name, "seed": seed,
        "strength": head.strength, "n_train": len(train), **numbers, **found, "seconds": seconds,
    }
    out.with_suffix(".md").write_text(_model_card(result, train, network), encoding="utf-8")
    if not as_json:
        _print_report(result)
        click.echo(f"\nsaved: {result['model']} and its card {result['card']}")
    return result


def _split(photos, groups, seed):
    """A quarter for the test, copies of a photo on one side; and what was found of copies."""
    copies = duplicate_groups(photos)
    rows_of = [np.flatnonzero(copies == copy) for copy in np.flatnonzero(np.bincount(copies) > 1)]
    found = {
        "copies": sum(map(len, rows_of)),
        "copies_in_two_classes": [
            [shown(photos.files[row]) for row in rows] for rows in rows_of if len(set(photos.labels[rows])) > 1
        ],
    }
    return *photos.split(seed=seed, groups=groups or (copies if rows_of else None)), found


def _leaks(train, test, report):
    """Pairs of copies on both sides, and the accuracy without them."""
    pairs = find_duplicates(train, test)
    found = {"duplicates": [
        {"train": shown(train.files[pair.row]), "test": shown(test.files[pair.other_row]), "kind": pair.kind}
        for pair in pairs
    ]}
    clean = np.isin(_files_of(report, test), [test.files[pair.other_row] for pair in pairs], invert=True)
    if pairs and clean.any():
        right = report.predictions == report.labels
        found["without_duplicates"] = {"n_test": int(clean.sum()), "accuracy": float(right[clean].mean())}
    return found


def _files_of(report, dataset):
    """The file behind each row of a report, which lacks those that could not be read."""
    left_out = {path for path, _ in report.left_out}
    return np.array([file for file in dataset.files if file not in left_out], dtype=object)


@contextlib.contextmanager
def _quiet():
    """TensorFlow's start-up messages come from C++, past Python: standard error is closed to them meanwhile."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _start(seed=0):
    """Import TensorFlow, and make what it computes repeatable."""
    with _quiet():
        import keras
        import tensorflow

        tensorflow.config.list_logical_devices()  # looks for a GPU, and says so

    keras.utils.set_random_seed(seed % 2**32)
    tensorflow.config.experimental.enable_op_determinism()


def _backbone(name):
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras shows there how its download goes on
            return load_backbone(name)
    except ValueError as error:
        if "there is no backbone" in str(error):
            raise click.BadParameter(str(error), param_hint="--backbone") from error
        raise


def _left_out(pairs):
    return [{"file": shown(path), "reason": reason} for path, reason in pairs]


def _numbers(report, dataset):
    """What there is to say of a test, as JSON has it."""
    counts = np.bincount(report.labels, minlength=len(report.class_names))
    surest = sorted(report.wrong, key=lambda row: (-report.probabilities[row, report.predictions[row]], row))
    files = _files_of(report, dataset)
    return {
        "accuracy": report.accuracy,
        "accuracy_ci": list(report.accuracy_ci),
        "n_test": report.n,
        "commonest_class": {"name": report.class_names[counts.argmax()], "accuracy": float(counts.max() / report.n)},
        "class_names": list(report.class_names),
        "per_class": {name: {**row, "recall_ci": row["recall_ci"] and list(row["recall_ci"])} for name, row in report.per_class.items()},
        "confusion": report.confusion.tolist(),
        "worst_mistakes": [
            {
                "file": shown(files[row]),
                "is": report.class_names[report.labels[row]],
                "said": report.class_names[report.predictions[row]],
                "probability": float(report.probabilities[row, report.predictions[row]]),
            }
            for row in surest[:SHOWN]
        ],
        "left_out": _left_out(report.left_out),
    }


def _percent(value):
    return "–" if value is None else f"{100 * value:.1f} %"


def _print_report(result):
    low, high = result["accuracy_ci"]
    common = result["commonest_class"]
    click.echo(
        f"\naccuracy {_percent(result['accuracy'])} on {result['n_test']:,} test photos, 95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %\n(calling every photo {common['name']} would be right for {_percent(common['accuracy'])})\n"
    )
    names = result["class_names"]
    if len(names) <= 12:
        click.echo("rows: what the photo is; columns: what the classifier says")
        table = Table()
        table.add_column("")
        for name in [*names, "recall"]:
            table.add_column(Text(name), justify="right", overflow="fold")
        for name, row in zip(names, result["confusion"]):
            cells = [Text(f"{count:,}") for count in row]
            table.add_row(Text(name), *cells, _percent(result["per_class"][name]["recall"]))
        _print_table(table)
    else:
        worst = sorted(names, key=lambda name: (result["per_class"][name]["recall"] is None, result["per_class"][name]["recall"]))
        click.echo("classes found least often: " + ", ".join(f"{n} {_percent(result['per_class'][n]['recall'])}" for n in worst[:8]))
    if result["worst_mistakes"]:
        click.echo("\nworst mistakes, the surest first:")
        for row in result["worst_mistakes"][:10]:
            click.echo(f"  {row['file']}: is {row['is']}, said {row['said']} ({_percent(row['probability'])})")
    _print_leaks(result)
    _print_left_out(result["left_out"])


def _print_leaks(result):
    if result.get("copies"):
        click.echo(f"\n{result['copies']:,} photos are copies of one another; the split keeps copies on one side")
    for files in result.get("copies_in_two_classes", ())[:SHOWN]:
        click.echo(f"  one photo in two classes: {', '.join(files[:4])}")
    if pairs := result.get("duplicates"):
        leaked = len({pair["test"] for pair in pairs})
        click.echo(f"\nLEAK: {leaked:,} test photos are copies of training photos; the accuracy looks better than it is:")
        for pair in pairs[:SHOWN]:
            click.echo(f"  {pair['test']} ({pair['kind']} copy of {pair['train']})")
        if clean := result.get("without_duplicates"):
            click.echo(f"  without them: accuracy {_percent(clean['accuracy'])} on {clean['n_test']:,} test photos")


def _print_left_out(left_out):
    if left_out:
        click.echo(f"\n{len(left_out):,} left out:")
        for row in left_out[:SHOWN]:
            click.echo(f"  {row['file']}: {row['reason']}")
        if len(left_out) > SHOWN:
            click.echo(f"  … and {len(left_out) - SHOWN:,} more; --json names all, and so does the card of a fit")


def _print_table(table):
    on_terminal = sys.stdout.isatty()  # Rich would also believe FORCE_COLOR, which notebooks set for their children
    Console(highlight=False, force_terminal=on_terminal, width=None if on_terminal else 120).print(table)


def _model_card(result, train, network):
    """Markdown: what the model is, what it was made from, and how good it is."""
    low, high = result["accuracy_ci"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("tlhelpers", "tensorflow", "keras", "scikit-learn", "numpy"))
    lines = [
        f"# {Path(result['model']).name}",
        "",
        f"A classifier of photos into {len(train.class_names)} classes: {', '.join(train.class_names)}.",
        "",
        "| | |",
        "|---|---|",
        f"| made | {date.today().isoformat()}, {packages}, Python {platform.python_version()} |",
        f"| takes | RGB 0..255, {network.image_size} × {network.image_size} pixels, whole photos squeezed to a square |",
        f"| method | {result['method']}: {network.name}, frozen, trained on ImageNet; logistic regression, C = {result['strength']:g} |",
        f"| seed | {result['seed']} |",
        f"| data | {train.card.title} |",
        f"| source | {train.card.source} |",
        f"| licence of the data | {train.card.licence} |",
        f"| cite | {train.card.citation} |",
        f"| photos | {result['n_train']:,} to train, {result['n_test']:,} to test, {len(result['left_out']):,} left out |",
        f"| accuracy | {_percent(result['accuracy'])}, 95 % interval {100 * low:.1f} to {100 * high:.1f} % |",
        f"| commonest class | {_percent(result['commonest_class']['accuracy'])} |",
        f"| test photos that are copies of training photos | {len({pair['test'] for pair in result['duplicates']}):,} |",
        "",
        "The accuracy holds for photos taken in the same way as those it was tested on.",
        "",
        "| class | test photos | recall | precision |",
        "|---|---|---|---|",
        *(f"| {name} | {row['n']:,} | {_percent(row['recall'])} | {_percent(row['precision'])} |" for name, row in result["per_class"].items()),
    ]
    if result["left_out"]:
        lines += ["", "## Left out", "", *(f"- `{row['file']}`: {row['reason']}" for row in result["left_out"])]
    return "\n".join(lines) + "\n"


# --- evaluate, predict --------------------------------------------------------------------------------------------


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False), callback=lambda *args: _model_argument(args[2]))
@click.argument("folder", callback=lambda *args: _data_argument(args[2]))
@_command
def evaluate(model, folder, as_json):
    """Test MODEL on the photos of FOLDER, which it was not fitted to."""
    seconds = {}
    with _stage("starting", seconds):
        _start()
        classifier = load_classifier(model)
    if classifier.class_names is None:
        _say(f"{shown(model)} has lost its class names (Keras drops them when it saves a file again): those of the folder are used")
    with _stage("reading", seconds, "files") as progress:
        dataset = load_dataset(folder, class_names=classifier.class_names, progress=progress)
    with _stage("testing", seconds) as progress:
        report = evaluate_classifier(classifier, dataset, progress=progress)
    result = {"model": str(model), **_numbers(report, dataset), "seconds": seconds}
    if not as_json:
        _print_report(result)
    return result


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False), callback=lambda *args: _model_argument(args[2]))
@click.argument("images", nargs=-1, required=True, type=click.Path())
@_command
def predict(model, images, as_json):
    """Say of each of IMAGES, files or folders, which class it is."""
    files, left_out = [], []
    for image in map(Path, images):
        for path, reason in photos_below(image) if image.is_dir() else [(image, None)]:
            left_out.append((path, reason)) if reason else files.append(path)
    if not files:
        raise _Failed("there are no photos: " + (f"{shown(left_out[0][0])}: {left_out[0][1]}" if left_out else "the folder is empty"))
    with _stage("starting"):
        _start()
        classifier = load_classifier(model)
    names = classifier.class_names
    if names is None:
        _say(f"{shown(model)} has lost its class names (Keras drops them when it saves a file again): classes have numbers only")
        names = [f"class {number}" for number in range(classifier.output_shape[-1])]
    dataset = Dataset("photos", tuple(files), np.zeros(len(files), np.int64), tuple(names), card=None)
    with _stage("predicting") as progress:
        (probabilities, *_), unread = run_model(classifier, dataset, progress=progress)
    left_out += [(files[row], reason) for row, reason in unread]
    lost = {row for row, _ in unread}
    rows = [
        {
            "file": shown(file),
            "class": names[int(probability.argmax())],
            "probability": float(probability.max()),
            "probabilities": {name: float(value) for name, value in zip(names, probability)},
        }
        for row, (file, probability) in enumerate(zip(files, probabilities)) if row not in lost
    ]
    if not as_json:
        for row in rows:
            click.echo(f"{row['file']}: {row['class']} ({_percent(row['probability'])})")
        _print_left_out(_left_out(left_out))
    return {
        "model": str(model),
        "class_names": None if classifier.class_names is None else list(names),
        "predictions": rows,
        "left_out": _left_out(left_out),
    }


# --- what there is ------------------------------------------------------------------------------------------------


@main.command()
@_command
def datasets(as_json):
    """List the data sets, and whether they are here."""
    rows = {}
    for name in PACKAGED:
        try:
            data = load_dataset(name)
            rows[name] = {
                "photos": len(data), "classes": len(data.class_names), "state": "here", "licence": data.card.licence.split(" (")[0]
            }
        except ModuleNotFoundError as error:
            rows[name] = {"state": str(error)}
    rows["flowers"] = {
        "photos": 3670, "classes": 5, "licence": "CC BY 2.0", "state": f"downloads {FLOWERS['size'] / 1e6:.0f} MB on first use"
    }
    if not as_json:
        table = Table("name", "photos", "classes", "here?", "licence")
        for name, row in rows.items():
            table.add_row(name, *(str(row.get(key, "")) for key in ("photos", "classes", "state", "licence")))
        _print_table(table)
        click.echo("Also tfds:NAME, an image classification set of TensorFlow Datasets, and any folder with one subfolder a class.")
    return {"datasets": rows}


@main.command()
@_command
def backbones(as_json):
    """List the networks, and whether they are here."""
    rows = {}
    for name, source in BACKBONES.items():
        try:
            package_folder(source.module, source.requirement)
            state = "here"
        except ModuleNotFoundError as error:
            state = str(error)
        rows[name] = {"image_size": source.image_size, "imagenet_top1": source.imagenet_top1, "state": state}
    if not as_json:
        table = Table("name", "pixels", "ImageNet top 1, %", "here?")
        for name, row in rows.items():
            table.add_row(name, str(row["image_size"]), str(row["imagenet_top1"]), row["state"])
        _print_table(table)
        click.echo(f"Also those of keras.applications, which Keras downloads: {', '.join(KERAS_BACKBONES)}.")
    return {"backbones": rows, "downloaded_by_keras": KERAS_BACKBONES}


@main.command()
@click.option("--clear", is_flag=True, help="Delete it: all of it can be computed or downloaded again.")
@_command
def cache(clear, as_json):
    """Show what is kept on disk, and where."""
    folder, parts = cache_dir(), {}
    for name in CACHED:
        files = [path for path in (folder / name).rglob("*") if path.is_file()]
        parts[name] = {"files": len(files), "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1)}
        if clear:
            shutil.rmtree(folder / name, ignore_errors=True)
    if not as_json:
        click.echo(f"{shown(folder)}" + (", now empty; it held" if clear else ""))
        for name, row in parts.items():
            click.echo(f"  {name:<10}{row['files']:>8,} files {row['megabytes']:>9,.1f} MB")
    return {"folder": str(folder), "parts": parts, "cleared": clear}


@main.command()
@_command
def doctor(as_json):
    """Is this machine ready? Versions, memory, disk, photos, weights, and the speed to expect."""
    rows = []
    _start()
    for name, check in _CHECKS.items():
        try:
            found, ok = check(), True
        except Exception as error:  # whatever is wrong with a machine: the other checks go on
            found, ok = str(error) or type(error).__name__, False
        rows.append({"check": name, "ok": ok, "found": found})
        if not as_json:
            click.echo(f"{'ok  ' if ok else 'FAIL'}  {name:<12}{found}")
    ready = all(row["ok"] for row in rows)
    if not as_json:
        click.echo("This machine is ready." if ready else "This machine is not ready: see the lines that begin with FAIL.")
    return {"ok": ready, "checks": rows}


def _versions():
    from packaging.requirements import Requirement

    wrong = []
    for text in requires("tlhelpers") or ():
        requirement = Requirement(text)
        if requirement.marker is None and not requirement.specifier.contains(version(requirement.name), prereleases=True):
            wrong.append(f"{requirement.name} {version(requirement.name)}, needed {requirement.specifier}")
    if wrong:
        raise _Failed("; ".join(wrong) + ": install the book's requirements.txt")
    return ", ".join(f"{name} {version(name)}" for name in ("tlhelpers", "tensorflow", "keras", "numpy", "pillow"))


def _memory():
    import psutil

    free = psutil.virtual_memory().available / 2**30
    if free < 2:
        raise _Failed(f"{free:.1f} GiB free, 2 are needed: close other programs")
    return f"{free:.1f} GiB free, {os.cpu_count()} processor cores"


def _disk():
    free = shutil.disk_usage(cache_dir()).free / 2**30
    if free < 1:
        raise _Failed(f"{free:.1f} GiB free in {shown(cache_dir())}, 1 is needed: make room, or set TLHELPERS_CACHE")
    return f"{free:.1f} GiB free in {shown(cache_dir())}"


def _photos():
    return ", ".join(f"{name} {len(load_dataset(name)):,}" for name in PACKAGED)


def _weights():
    return ", ".join(f"{name} ({load_backbone(name).model.count_params():,} parameters)" for name in BACKBONES)


def _a_cat():
    network = load_backbone("efficientnet_lite0")
    cat = resize_image(load_photo("chelsea"), network.image_size, crop=True)
    best = int(network.classifier.predict(cat[None].astype("float32"), verbose=0).argmax())
    if best not in range(281, 286):  # ImageNet's house cats
        raise _Failed(f"the network calls a cat {network.class_names[best]}: TensorFlow computes wrongly on this machine")
    return f"the network calls a cat {network.class_names[best]}"


def _speed():
    network = load_backbone("efficientnet_lite0")
    some = load_dataset("solar_cells").subset(slice(128))
    extract_features(some.subset(slice(16)), network)
    start = time.perf_counter()
    extract_features(some, network)
    rate = len(some) / (time.perf_counter() - start)
    return f"{rate:.0f} photos a second: the features of 1,000 photos take about {1000 / rate:.0f} s"


_CHECKS = {
    "versions": _versions, "memory": _memory, "disk": _disk, "photos": _photos, "weights": _weights, "a cat": _a_cat, "speed": _speed,
}

if __name__ == "__main__":
    main()
