"""The command `tlhelpers`: from a folder of photos to a tested classifier, without writing a program.

Results go to standard output; progress and messages go to standard error. Exit status: 0 done, 1 the work failed, 2 the
call was wrong.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json as json_module
import os
import platform
import shutil
import sys
import time
import traceback
import warnings
from datetime import date
from difflib import get_close_matches
from importlib.metadata import requires, version
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tlhelpers.audit import audit as audit_model
from tlhelpers.backbones import BACKBONES, KERAS_BACKBONES, known_backbone, load_backbone
from tlhelpers.classifiers import build_classifier, load_classifier, save_classifier
from tlhelpers.datasets import PACKAGED, Dataset, load_dataset, load_photo, package_folder
from tlhelpers.downloads import FLOWERS, cache_dir
from tlhelpers.duplicates import duplicate_groups, find_duplicates
from tlhelpers.engine import quiet
from tlhelpers.evaluation import evaluate as evaluate_classifier
from tlhelpers.evaluation import proportion_ci
from tlhelpers.features import extract_features, run_model
from tlhelpers.finetuning import fine_tune
from tlhelpers.folders import photos_below
from tlhelpers.heads import train_head
from tlhelpers.images import printable, resize_image, shown
from tlhelpers.store import kept

__all__ = ["main"]

CARD_MARK = "<!-- the card of a model, written by tlhelpers fit -->"
CACHED = ("features", "fine_tuning", "datasets", "tfds")  # what this package keeps in the cache folder, and may delete there
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
        except BrokenPipeError:  # click knows what to do
            raise
        except click.ClickException as error:
            if as_json:
                click.echo(json_module.dumps({"error": error.format_message()}, indent=2))
            raise
        except KeyboardInterrupt:
            result = {"error": "stopped; what was finished is kept, and the same command goes on from there"}
        except (_Failed, ValueError, OSError, ImportError, MemoryError) as error:
            result = {"error": str(error) or type(error).__name__}
        except Exception as error:  # a fault of this program: with its trace, so that it can be mended
            traceback.print_exc()
            result = {"error": f"unexpected: {type(error).__name__}: {error}"}
        if "error" in result:
            _say(result["error"])
        if as_json:
            click.echo(json_module.dumps(result, indent=2))
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


def _data_argument(context, parameter, text):
    """A folder, or the name of a data set: anything else is a wrong call."""
    if text is not None and Path(text).is_dir():
        return Path(text)  # also where a data set has the same name
    if text is None or text in (*PACKAGED, "flowers") or text.startswith("tfds:"):
        return text
    if Path(text).is_file():
        raise click.BadParameter(f"{text!r} is a file; give the folder that holds one subfolder a class")
    beside = [path.name for path in Path(text).absolute().parent.glob("*") if path.is_dir()]
    near = get_close_matches(Path(text).name, [*beside, *PACKAGED, "flowers"], n=2)
    raise click.BadParameter(
        f"{text!r} is neither a folder nor a data set; "
        + (f"did you mean {' or '.join(map(repr, near))}?" if near else "tlhelpers datasets lists those there are")
    )


def _model_argument(context, parameter, text):
    if Path(text).suffix != ".keras":
        raise click.BadParameter(f"{text!r}: the name of a model ends in .keras")
    return Path(text)


def _new_model_argument(context, parameter, text):
    """A model to be written, with its card: neither may replace something that is not ours."""
    out = _model_argument(context, parameter, text)
    if not out.parent.is_dir():
        raise click.BadParameter(f"{out.parent}: there is no such folder to put the model in")
    card = out.with_suffix(".md")
    if out.is_dir() or card.is_dir() or card.exists() and CARD_MARK not in card.read_text("utf-8", errors="replace"):
        raise click.BadParameter(f"{out if out.is_dir() else card} is there, and is not of this program; choose another name")
    return out


def _backbone_argument(context, parameter, text):
    try:
        return known_backbone(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tlhelpers")
def main():
    """Transfer learning on photos: fit a classifier to a folder, test it, use it.

    A folder holds one subfolder a class: photos/cats/…, photos/dogs/…
    """


# --- fit ----------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("folder", callback=_data_argument)
@click.option("--test", "test_folder", metavar="FOLDER", callback=_data_argument,
              help="Photos to test on, with the same subfolders. Without it a quarter of FOLDER is set aside.")
@click.option("--method", type=click.Choice(["feature-extraction", "fine-tuning"]), default="feature-extraction", show_default=True)
@click.option("--unfreeze", metavar="PART", help="What fine-tuning trains: head, last_stage (default), batch_norm, all, or the "
              "name of a cut point: this stage and all above.")
@click.option("--epochs", type=click.IntRange(1), help="How often fine-tuning sees each photo at most; 8 if not given.")
@click.option("--backbone", default="efficientnet_lite0", show_default=True, callback=_backbone_argument,
              help="tlhelpers backbones lists them.")
@click.option("--groups", metavar="NAME",
              help="Keep on one side what belongs together: subfolder (one object), subfolder_name (one day in all classes).")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Same seed, same split, same model.")
@click.option("--out", required=True, metavar="MODEL.keras", callback=_new_model_argument)
@_command
def fit(folder, test_folder, method, unfreeze, epochs, backbone, groups, seed, out, as_json):
    """Fit a classifier to the photos of FOLDER, test it, and save it."""
    if method != "fine-tuning" and (unfreeze or epochs):
        raise click.UsageError("--unfreeze and --epochs are for --method fine-tuning")
    if test_folder and groups:
        raise click.UsageError("--groups is for the split; with --test there is none")
    if test_folder and os.path.realpath(test_folder) == os.path.realpath(folder):
        raise click.UsageError("the test photos are the training photos: give another folder, or leave --test out")
    seconds, began = {}, time.perf_counter()
    with _stage("reading", seconds, "files") as progress:
        train = load_dataset(folder, progress=progress)
    if test_folder:
        with _stage("reading test", seconds, "files") as progress:
            test = load_dataset(test_folder, class_names=train.class_names, progress=progress)
    _check_groups(train, groups)
    with _stage("copies", seconds):
        copies, found = _copies(train)
    if test_folder:
        found["test"] = shown(test_folder)
    else:
        train, test = train.split(seed=seed, groups=_together(train, groups, copies))
        found["test"] = f"a quarter of {shown(folder)}, " + (f"groups: {groups}" if groups else "drawn by lot")
    with _stage("starting", seconds):
        _start(seed)
        with contextlib.redirect_stdout(sys.stderr):  # Keras shows there how its download goes on
            network = load_backbone(backbone)
    if unfreeze not in (None, "head", "last_stage", "batch_norm", "all", *network.cut_points):
        raise click.BadParameter(
            f"--unfreeze {unfreeze}: expected head, last_stage, batch_norm, all, or one of {', '.join(network.cut_points)}"
        )
    with _stage("features", seconds) as progress:
        features = extract_features(train, network, progress=progress)
    unread = np.isnan(features).all(axis=1)
    if method == "fine-tuning":
        with _stage("fine-tuning", seconds, "epochs") as progress:
            classifier, how = _fine_tuned(network, train, groups, copies, unfreeze or "last_stage", epochs or 8, seed, progress)
    else:
        with _stage("head", seconds):
            head = train_head(features, train.labels, seed=seed)
            classifier, how = build_classifier(network, train.class_names, head=head), {"strength": head.strength}
    save_classifier(classifier, out, trained_on=_digests(train))
    with _stage("testing", seconds) as progress:  # what was saved is what is measured
        report = evaluate_classifier(load_classifier(out), test, progress=progress)
    found["duplicates"] = []  # of a split there are none: copies are kept on one side
    if test_folder:
        with _stage("leak guard", seconds):
            found |= _leaks(train, test, report)
    seconds["total"] = round(time.perf_counter() - began, 2)
    left_out = [*train.left_out, *((train.files[row], "it could no longer be read") for row in np.flatnonzero(unread))]
    left_out += report.left_out if test_folder else report.left_out[len(train.left_out) :]
    result = {
        "model": shown(out), "card": shown(out.with_suffix(".md")), "method": method, "backbone": network.name, "seed": seed,
        **how, "n_train": int((~unread).sum()), **_numbers(report), **found,
        "left_out": _left_out(left_out), "seconds": seconds,
    }
    out.with_suffix(".md").write_text(_model_card(result, train, network), encoding="utf-8")
    if not as_json:
        _print_report(result)
        click.echo(f"\nsaved: {result['model']} and its card {result['card']}")
    return result


def _check_groups(dataset, groups):
    subfolders = dataset.metadata.get("subfolder")
    known = [name for name in dataset.metadata if name not in ("class", "sha256")]
    if groups and groups not in known:
        raise click.BadParameter(f"{groups!r}: of these photos no such groups are known; known are {', '.join(known)}")
    if subfolders is not None and not groups and (several := len(set(subfolders))) < len(dataset):
        _say(f"{several:,} subfolders or single photos: does a subfolder hold one object, or one day? Then see --groups")


def _copies(dataset):
    """Groups of copies, or None where there are no copies; and what is said of them."""
    groups = duplicate_groups(dataset)
    rows_of = [np.flatnonzero(groups == group) for group in np.flatnonzero(np.bincount(groups) > 1)]
    return groups if rows_of else None, {
        "copies": sum(map(len, rows_of)),
        "copies_in_two_classes": [
            [shown(dataset.files[row]) for row in rows] for rows in rows_of if len(set(dataset.labels[rows])) > 1
        ],
    }


def _together(dataset, groups, copies):
    """Groups for the split: those that the reader named, and copies; what hangs together by either is one group."""
    if groups is None or copies is None:
        return groups or copies
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    named = np.unique(dataset.metadata[groups], return_inverse=True)[1]
    photos, n = np.arange(len(dataset)), len(dataset)
    ends = np.concatenate([n + named, n + named.max() + 1 + copies])  # a node for each photo, each group, each copy group
    links = coo_array((np.ones(2 * n), (np.tile(photos, 2), ends)), shape=(ends.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][:n]


def _fine_tuned(network, train, groups, copies, unfreeze, epochs, seed, progress):
    """A classifier, fine-tuned; and what there is to say of it. A tenth judges the epochs; copies and groups stay together."""
    try:
        part, judge = train.split(test_size=0.1, seed=seed, groups=_together(train, groups, copies))
    except ValueError:  # too few photos: the last epoch counts
        part, judge = train, 0
    classifier = build_classifier(network, train.class_names)
    history = fine_tune(
        classifier, part, unfreeze=unfreeze, epochs=epochs, validation=judge, seed=seed,
        progress=lambda history: progress(len(history.loss), epochs),
    )  # fmt: skip
    return classifier, {
        "strength": None, "unfreeze": unfreeze, "epochs": len(history.loss), "best_epoch": history.best_epoch,
        "trained_parameters": history.trained_parameters, "n_validation": len(judge) if judge else 0, "plan": history.plan,
    }


def _leaks(train, test, report):
    """Pairs of copies on both sides, and the accuracy without them."""
    pairs = find_duplicates(train, test)
    found = {"duplicates": [
        {"train": shown(train.files[pair.row]), "test": shown(test.files[pair.other_row]), "kind": pair.kind}
        for pair in pairs
    ]}
    return found | _without({test.files[pair.other_row] for pair in pairs}, report)


def _without(leaked, report):
    """The accuracy on those test photos that are not among `leaked`."""
    clean = np.array([file not in leaked for file in report.files])
    n, right = int(clean.sum()), int((clean & (report.predictions == report.labels)).sum())
    if not leaked:
        return {}
    return {"without_duplicates": {
        "n_test": n, "accuracy": right / n if n else None, "accuracy_ci": list(proportion_ci(right, n)) if n else None
    }}


def _digests(dataset):
    """SHA-256 of each file, in hexadecimal."""
    if "sha256" in dataset.metadata:
        return [str(digest) for digest in dataset.metadata["sha256"]]
    digests = []
    for path in dataset.files:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


def _start(seed=0):
    """Import TensorFlow, and make what it computes repeatable."""
    with quiet():  # start-up messages
        import keras
        import tensorflow

        tensorflow.config.list_logical_devices()  # looks for a GPU, and says so

    keras.utils.set_random_seed(seed)
    tensorflow.config.experimental.enable_op_determinism()


def _left_out(pairs):
    return [{"file": shown(path), "reason": reason} for path, reason in pairs]


def _numbers(report):
    """What there is to say of a test, as JSON has it."""
    counts = np.bincount(report.labels, minlength=len(report.class_names))
    surest = sorted(report.wrong, key=lambda row: (-report.probabilities[row, report.predictions[row]], row))
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
                "file": shown(report.files[row]),
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
    common = result["commonest_class"]
    click.echo(f"\n{_accuracy(result)}")
    click.echo(f"(calling every photo {common['name']} would be right for {_percent(common['accuracy'])})")
    _print_leaks(result)
    click.echo()
    names = result["class_names"]
    if lacking := [name for name in names if not result["per_class"][name]["n"]]:
        click.echo(f"no test photos of {', '.join(lacking)}: nothing is known of how well they are found\n")
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
        recall = {name: row["recall"] for name, row in result["per_class"].items() if row["recall"] not in (None, 1)}
        worst = sorted(recall, key=recall.get)[:8]
        click.echo("classes found least often: " + (", ".join(f"{name} {_percent(recall[name])}" for name in worst) or "none"))
    if result["worst_mistakes"]:
        click.echo("\nworst mistakes, the surest first:")
        for row in result["worst_mistakes"][:10]:
            click.echo(f"  {row['file']}: is {row['is']}, said {row['said']} ({_percent(row['probability'])})")
    _print_left_out(result["left_out"])


def _print_leaks(result):
    if pairs := result.get("duplicates"):
        leaked, clean = len({pair["test"] for pair in pairs}), result["without_duplicates"]
        click.echo(f"LEAK: {leaked:,} test photos are copies of training photos, and make this number too good")
        click.echo(f"  without them: {_accuracy(clean)}" if clean["n_test"] else "  no test photo is new: the number says nothing")
        for pair in pairs[:SHOWN]:
            click.echo(f"  {pair['test']}" + (f" ({pair['kind']} copy of {pair['train']})" if pair["train"] else ""))
        if len(pairs) > SHOWN:
            click.echo(f"  … and {len(pairs) - SHOWN:,} more; --json names all")
    for files in result.get("copies_in_two_classes", ())[:SHOWN]:
        click.echo(f"LABEL: one photo in two classes: {', '.join(files[:4])}")
    if result.get("copies"):
        click.echo(f"{result['copies']:,} of the photos to learn from are copies of one another; a split keeps copies on one side")


def _accuracy(numbers):
    low, high = numbers["accuracy_ci"]
    return (
        f"accuracy {_percent(numbers['accuracy'])} on {numbers['n_test']:,} test photos, 95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %"
    )


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


def _cell(text):
    return text.replace("|", "\\|")


def _how(result):
    if result["method"] == "fine-tuning":
        return (
            f"{result['trained_parameters']:,} parameters trained ({result['unfreeze']}), weights after epoch {result['best_epoch']} of "
            f"{result['epochs']}, chosen by {result['n_validation']:,} of the training photos"
        )
    return f"frozen; logistic regression, C = {result['strength']:g}"


def _model_card(result, train, network):
    """Markdown: what the model is, what it was made from, and how good it is."""
    leaked = len({pair["test"] for pair in result["duplicates"]})
    packages = ", ".join(f"{name} {version(name)}" for name in ("tlhelpers", "tensorflow", "keras", "scikit-learn", "numpy"))
    lines = [
        CARD_MARK,
        f"# {Path(result['model']).name}",
        "",
        f"A classifier of photos into {len(train.class_names)} classes: {', '.join(train.class_names)}.",
        "",
        "| | |",
        "|---|---|",
        f"| made | {date.today().isoformat()}, {packages}, Python {platform.python_version()} |",
        f"| takes | RGB 0..255, {network.image_size} × {network.image_size} pixels, whole photos squeezed to a square |",
        f"| method | {result['method']}: {network.name}, trained on ImageNet; {_how(result)} |",
        f"| seed | {result['seed']} |",
        f"| data | {train.card.title} |",
        f"| source | {train.card.source} |",
        f"| licence of the data | {train.card.licence} |",
        f"| cite | {train.card.citation} |",
        f"| photos | {result['n_train']:,} to train, {result['n_test']:,} to test, {len(result['left_out']):,} left out |",
        f"| tested on | {result['test']} |",
        f"| result | {_accuracy(result)} |",
        f"| commonest class | {_percent(result['commonest_class']['accuracy'])} |",
        f"| test photos that are copies of training photos | {leaked:,}"
        + (f"; without them: {_accuracy(result['without_duplicates'])} |" if leaked and result["without_duplicates"]["n_test"] else " |"),
        "",
        "The accuracy holds for photos taken in the same way as those it was tested on.",
        "",
        "| class | test photos | recall | precision |",
        "|---|---|---|---|",
        *(
            f"| {_cell(name)} | {row['n']:,} | {_percent(row['recall'])} | {_percent(row['precision'])} |"
            for name, row in result["per_class"].items()
        ),
    ]
    if result["left_out"]:
        lines += ["", "## Left out", "", *(f"- `{row['file']}`: {row['reason']}" for row in result["left_out"])]
    return "\n".join(lines) + "\n"


# --- evaluate, predict --------------------------------------------------------------------------------------------

_CLASSES = click.option(
    "--classes", metavar="A,B,…", callback=lambda context, parameter, text: text and tuple(text.split(",")),
    help="Names of the classes, in their order, for a model that has lost them.",
)


def _load(model, classes):
    _start()
    classifier = load_classifier(model)
    if classifier.class_names is not None:  # they come from a file that anybody may have made
        classifier.class_names = tuple(map(printable, classifier.class_names))
    elif classes:
        if len(classes) != classifier.output_shape[-1]:
            raise click.BadParameter(f"--classes: {len(classes)} names for {classifier.output_shape[-1]} classes")
        classifier.class_names = classes
    return classifier


def _lost(model):
    return f"{shown(model)} has lost its class names (Keras drops them when it saves a file again)"


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False), callback=_model_argument)
@click.argument("folder", callback=_data_argument)
@_CLASSES
@_command
def evaluate(model, folder, classes, as_json):
    """Test MODEL on the photos of FOLDER, which it was not fitted to."""
    seconds = {}
    with _stage("starting", seconds):
        classifier = _load(model, classes)
    if classifier.class_names is None:
        raise _Failed(f"{_lost(model)}; give them in the order of the training: --classes cat,dog")
    with _stage("reading", seconds, "files") as progress:
        dataset = load_dataset(folder, class_names=classifier.class_names, progress=progress)
    with _stage("testing", seconds) as progress:
        report = evaluate_classifier(classifier, dataset, progress=progress)
    digests = dict(zip(dataset.files, _digests(dataset)))
    seen = {file for file in report.files if digests[file][:16] in classifier.trained_on}
    result = {
        "model": shown(model), **_numbers(report),
        "duplicates": [{"train": None, "test": shown(file), "kind": "exact"} for file in sorted(seen)],
        **_without(seen, report), "seconds": seconds,
    }
    if not as_json:
        _print_report(result)
    return result


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False), callback=_model_argument)
@click.argument("images", nargs=-1, required=True, type=click.Path())
@_CLASSES
@_command
def predict(model, images, classes, as_json):
    """Say of each of IMAGES, files or folders, which class it is."""
    files, left_out = [], []
    for image in map(Path, images):
        for path, reason in photos_below(image) if image.is_dir() else [(image, None)]:
            left_out.append((path, reason)) if reason else files.append(path)
    if not files:
        raise _Failed("there are no photos: " + (f"{shown(left_out[0][0])}: {left_out[0][1]}" if left_out else "the folder is empty"))
    with _stage("starting"):
        classifier = _load(model, classes)
    names = classifier.class_names
    if names is None:
        _say(f"{_lost(model)}: classes have numbers only, unless you give --classes")
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
        "model": shown(model),
        "class_names": None if classifier.class_names is None else list(names),
        "predictions": rows,
        "left_out": _left_out(left_out),
    }


# --- audit --------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False), callback=_model_argument)
@click.option("--train", "train_folder", required=True, metavar="FOLDER", callback=_data_argument, help="Photos it was trained on.")
@click.option("--test", "test_folder", required=True, metavar="FOLDER", callback=_data_argument, help="Photos it was tested on.")
@_command
def audit(model, train_folder, test_folder, as_json):
    """Look for what is wrong with MODEL and its photos: copies on both sides, a wrong range, layers that drift, …

    Exit status 1 where a fault is found. MODEL is given RGB 0..255; tl.audit in Python also takes preprocessing and tf.data.
    """
    if os.path.realpath(train_folder) == os.path.realpath(test_folder):
        raise click.UsageError("the test photos are the training photos: give another folder")
    seconds = {}
    with _stage("starting", seconds):
        _start()
        classifier = _compiled(model)
    with _stage("reading", seconds, "files") as progress:
        train = load_dataset(train_folder, class_names=classifier.class_names, progress=progress)
        test = load_dataset(test_folder, class_names=train.class_names)
    with _stage("looking", seconds):
        found = audit_model(classifier, train, test)
    if not as_json:
        click.echo(f"\n{found}")
        _print_left_out(found.to_dict()["left_out"])
    return {"model": shown(model), **found.to_dict(), "seconds": seconds}


def _compiled(model):
    """A classifier with its loss and optimiser, where Keras can make them again."""
    try:
        classifier = load_classifier(model, compile=True)
    except ValueError:  # a loss of somebody's own: the rest can still be looked at
        classifier = load_classifier(model)
        _say(f"{shown(model)}: its loss or optimiser cannot be loaded; what hangs on them is not looked at")
    if classifier.class_names is not None:  # they come from a file that anybody may have made
        classifier.class_names = tuple(map(printable, classifier.class_names))
    return classifier


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
    flowers_here = any(cache_dir().glob("datasets/flowers-*/flower_photos"))
    rows["flowers"] = {
        "photos": 3670, "classes": 5, "licence": "CC BY 2.0",
        "state": "here" if flowers_here else f"downloads {FLOWERS['size'] / 1e6:.0f} MB",
    }
    if not as_json:
        table = Table("name", "photos", "classes", "here?", "licence")
        for name, row in rows.items():
            counts = [f"{row[key]:,}" if key in row else "" for key in ("photos", "classes")]
            table.add_row(name, *counts, row["state"], row.get("licence", ""))
        _print_table(table)
        click.echo("Also tfds:NAME, an image classification set of TensorFlow Datasets, and any folder with one subfolder a class.")
    return {"datasets": rows}


@main.command()
@_command
def backbones(as_json):
    """List the networks: those that are here, and those that Keras downloads."""
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
    networks = [
        {"name": name, "photos": rows, "megabytes": round(size / 1e6, 1)} for name, rows, size in kept(folder / "features")
    ]
    for name in CACHED:
        files = [path for path in (folder / name).rglob("*") if path.is_file()]
        parts[name] = {"files": len(files), "megabytes": round(sum(path.stat().st_size for path in files) / 1e6, 1)}
        if clear and (folder / name).is_dir():
            for path in (folder / name).iterdir():
                if path.name != "manual":  # what a reader put there by hand for TensorFlow Datasets
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not as_json:
        click.echo(f"{shown(folder)}" + (", cleared; it held" if clear else ""))
        for name, row in parts.items():
            click.echo(f"  {name:<12}{row['files']:>8,} files  {row['megabytes']:>9,.1f} MB")
        for row in networks:
            click.echo(f"  features of {row['photos']:,} photos, {row['megabytes']:,.1f} MB: {row['name']}")
    return {"folder": str(folder), "parts": parts, "networks": networks, "cleared": clear}


@main.command()
@_command
def doctor(as_json):
    """Is this machine ready? Versions, memory, disk, photos, weights, and the speed to expect."""
    rows = []
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


def _tensorflow():
    _start()
    return "TensorFlow and Keras can be imported"


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
    "tensorflow": _tensorflow, "versions": _versions, "memory": _memory, "disk": _disk, "photos": _photos,
    "weights": _weights, "a cat": _a_cat, "speed": _speed,
}  # fmt: skip

if __name__ == "__main__":
    main()
