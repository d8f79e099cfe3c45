"""What the benchmarks share: photos, paired rounds, the machine, and how a result is written down."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import tlhelpers as tl

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
PACKAGES = (
    "tlhelpers", "tensorflow", "keras", "numpy", "pillow", "scikit-learn", "ai-edge-litert", "onnxruntime", "openvino",
    "tf2onnx",
)


# --- one benchmark, from its arguments to its JSON ----------------------------------------------------------------


def parser(description, *, rounds, photos=None, sets=None):
    """Arguments that every benchmark has; `photos` and `sets` are defaults, for those that have these."""
    out = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if photos is not None:
        out.add_argument("--photos", type=int, default=photos, help="photos of each set; all where it has fewer")
    if sets is not None:
        out.add_argument("--sets", default=",".join(sets), metavar="NAMES", help="of tlhelpers, commas between")
        out.add_argument(
            "--folder", action="append", default=[], help="of photos, one subfolder a class; may be given several times"
        )
    out.add_argument("--backbone", default="efficientnet_lite0", help="network")
    out.add_argument("--image-size", type=int, default=224, help="side in pixels that photos are brought to")
    out.add_argument("--rounds", type=int, default=rounds, help="how often to measure; a round measures each once")
    out.add_argument("--json", action="store_true", help="print the JSON on standard output, in place of the tables")
    out.add_argument("--out", metavar="FILE", help="where the JSON goes; None is results/NAME.json beside this program")
    return out


def run(arguments, work):
    """Do the work of a benchmark, then print its tables or its JSON, and write the JSON.

    Args:
        arguments: `argparse.ArgumentParser`.
        work: function: parsed arguments → a dict for the JSON and a list of `table`s.
    """
    args = arguments.parse_args()
    name = Path(sys.argv[0]).stem
    sys.stdout.flush()
    console = Console(file=os.fdopen(os.dup(1), "w", encoding="utf-8"), width=None if sys.stdout.isatty() else 120)
    os.dup2(2, 1)  # converters print to standard output, also from C++: only the result shall stand there
    command = shlex.join(["python", f"benchmarks/{name}.py", *sys.argv[1:]])
    result = {"benchmark": name, "command": command, "machine": machine()}
    found, tables = work(args)
    result |= found
    text = json.dumps(result, indent=1, ensure_ascii=False)
    path = Path(args.out) if args.out else Path(__file__).parent / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    if args.json:
        console.file.write(text + "\n")
    else:
        for each in (*tables, _bars(result["bars"])):
            console.print(each)
        for peer, why in result.get("missing", {}).items():
            console.print(f"{peer}: {why}", markup=False)
    console.file.flush()
    say(f"written: {path.name}")


def machine():
    """What was it measured on, when, and how busy was the machine before."""
    import psutil

    cpu = platform.processor()
    with contextlib.suppress(OSError):  # Linux has it there, others in platform.processor()
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "cpu": cpu,
        "cores": CORES,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load_before": round(psutil.getloadavg()[0], 2),
    }


def bar(what, value, *, at_least=None, at_most=None):
    """A promise of this book beside what was measured."""
    met = bool(value >= at_least if at_most is None else value <= at_most)
    return {"what": what, "value": value, "at_least": at_least, "at_most": at_most, "met": met}


def table(title, columns, rows):
    """A table for the terminal; the first column is text, all others are flush right."""
    out = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        out.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        out.add_row(*map(str, row))
    return out


def _bars(bars):
    rows = []
    for each in bars:
        wanted = f"at least {each['at_least']:g}" if each["at_most"] is None else f"at most {each['at_most']:g}"
        rows.append((each["what"], f"{each['value']:.4g}", wanted, "yes" if each["met"] else "NO"))
    return table("What was promised", ("what", "measured", "promised", "met"), rows)


def say(message):
    print(message, file=sys.stderr, flush=True)


# --- time ---------------------------------------------------------------------------------------------------------


def seconds_of(function):
    """(what the function returns, how long it took)"""
    start = time.perf_counter()
    value = function()
    return value, time.perf_counter() - start


def paired_rounds(contenders, rounds):
    """Measure each contender once a round, beginning with another one in each round.

    A machine that is slow for a while is then slow for all of them: ratios are taken within a round.

    Args:
        contenders: name → function without arguments.
        rounds: how often.

    Returns:
        name → list of seconds, one a round; and name → list of what the function returned.
    """
    names, seconds, values = list(contenders), {name: [] for name in contenders}, {name: [] for name in contenders}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            value, took = seconds_of(contenders[name])
            values[name].append(value)
            seconds[name].append(took)
            say(f"  round {number + 1} of {rounds}: {name}: {took:.2f} s")
    return seconds, values


def ratio(slow, fast):
    """How many times as fast is the second as the first? Round by round, then median, least and most."""
    rounds = [one / other for one, other in zip(slow, fast, strict=True)]
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def told(ratios):
    return f"{ratios['median']:.2f} ({ratios['min']:.2f} to {ratios['max']:.2f})"


# --- photos -------------------------------------------------------------------------------------------------------


def datasets(args):
    """The data sets asked for, each cut down to --photos photos drawn at random (the same in every run)."""
    names = [*filter(None, args.sets.split(",")), *args.folder]
    return [drawn(tl.load_dataset(name), args.photos) for name in names]


def drawn(dataset, photos, seed=0):
    return dataset.subset(np.sort(np.random.default_rng(seed).permutation(len(dataset))[:photos]))


def read(dataset, start, batch_size, size):
    """One batch through the reader of tlhelpers: float32, (batch_size, size, size, 3); zeros after the last photo."""
    batch = np.zeros((batch_size, size, size, 3), np.float32)
    for place, row in enumerate(range(start, min(start + batch_size, len(dataset)))):
        batch[place] = tl.resize_image(dataset.image(row, at_least=size), size)
    return batch


def batches(dataset, batch_size, size, ahead=2):
    """All batches in order, read by a thread of their own while the caller computes."""
    waiting = deque()
    with ThreadPoolExecutor(1) as reader:
        for start in range(0, len(dataset), batch_size):
            waiting.append(reader.submit(read, dataset, start, batch_size, size))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def write_variants(dataset, first, last, folder):
    """Write photos number `first` to `last` − 1, all different: windows of real photos, as JPEG, in two class folders.

    Each number always gives the same photo. A window of 85 to 100 % of the side is cut out and perhaps mirrored.
    """
    folder = Path(folder)
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def write(number):
        rng = np.random.default_rng(number)
        photo = dataset.image(number % len(dataset))
        height, width = (int(side * rng.uniform(0.85, 1)) for side in photo.shape[:2])
        top, left = rng.integers(photo.shape[0] - height + 1), rng.integers(photo.shape[1] - width + 1)
        photo = photo[top : top + height, left : left + width, :: rng.choice((-1, 1))]
        path = folder / ("even", "odd")[number % 2] / f"{number:06d}.jpg"
        Image.fromarray(np.ascontiguousarray(photo)).save(path, quality=int(rng.integers(85, 96)))

    with ThreadPoolExecutor(CORES) as pool:
        deque(pool.map(write, range(first, last)), maxlen=0)


@contextlib.contextmanager
def empty_cache():
    """A cache folder of its own, as for somebody who begins; it goes afterwards."""
    before = os.environ.get("TLHELPERS_CACHE")
    with tempfile.TemporaryDirectory(prefix="tlhelpers-benchmark-", ignore_cleanup_errors=True) as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["TLHELPERS_CACHE"]
            else:
                os.environ["TLHELPERS_CACHE"] = before
