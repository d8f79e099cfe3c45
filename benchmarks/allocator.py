"""Training all layers with another way to hand out memory: processor and wall seconds an epoch, in fresh processes.

A step of training asks for hundreds of large blocks and gives them back. The C library returns such blocks to the system, which
clears each page anew when it is asked for again. Two ways to keep them: settings of the C library, and tcmalloc, a library that
is loaded before all others (Debian: libtcmalloc-minimal4). Neither changes a number. The first epoch is not counted.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from statistics import median

import common

import tlhelpers as tl

SETTINGS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_ARENA_MAX": "1"}


def ways():
    """name → environment variables; and why a way is missing."""
    found, missing = {"as it is": {}, "settings of the C library": SETTINGS}, {}
    name = next(filter(None, map(ctypes.util.find_library, ("tcmalloc_minimal", "tcmalloc"))), None)
    if name:
        found["tcmalloc"] = {"LD_PRELOAD": name}
    else:
        missing["tcmalloc"] = "not found; on Debian: apt-get install libtcmalloc-minimal4"
    return found, missing


def in_a_fresh_process(variables, args):
    """(wall seconds, processor seconds of the program, of the system, loss) of an epoch, medians over those counted."""
    command = [sys.executable, __file__, "--one", "--photos", args.photos, "--epochs", args.epochs, "--image-size", args.image_size]
    ended = subprocess.run([*map(str, command)], env=os.environ | variables, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{variables}: {ended.stderr[-2000:]}")
    return json.loads(ended.stdout.splitlines()[-1])


def one(args):
    """What the fresh process does; prints one line of JSON."""
    train = common.drawn(tl.load_dataset("solar_cells"), args.photos)
    classifier = tl.build_classifier(tl.load_backbone(args.backbone, image_size=args.image_size), train.class_names)
    clocks = []

    def watch(history):
        times = os.times()
        clocks.append((time.perf_counter(), times.user, times.system, history.loss[-1]))

    tl.fine_tune(
        classifier, train, unfreeze="all", head_first=False, epochs=args.epochs + 1, validation=0, augment="none", seed=0, progress=watch
    )
    spent = [[b - a for a, b in zip(one, two, strict=True)][:3] for one, two in pairwise(clocks)]
    print(json.dumps([median(each) for each in zip(*spent)] + [clocks[-1][3]]))


def work(args):
    found, missing = ways()
    contenders = {name: (lambda variables=variables: in_a_fresh_process(variables, args)) for name, variables in found.items()}
    _, values = common.paired_rounds(contenders, args.rounds)
    results, rows = {}, []
    for name, runs in values.items():
        wall, program, system, losses = map(list, zip(*runs))
        ratio = common.ratio([run[0] for run in values["as it is"]], wall)
        results[name] = {"variables": found[name], "wall": wall, "program": program, "system": system, "loss": losses, "ratio": ratio}
        rows.append((name, *(f"{median(each):.1f}" for each in (wall, program, system)), common.told(ratio)))
    settings = {name: getattr(args, name) for name in ("backbone", "image_size", "photos", "epochs", "rounds")}
    columns = ("memory handed out", "s an epoch", "of the program", "of the system", "times as fast")
    title = f"all layers, {args.photos} solar cells"
    return {"settings": settings, "results": results, "missing": missing, "bars": []}, [common.table(title, columns, rows)]


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=3, photos=96)
    arguments.add_argument("--epochs", type=int, default=3, help="counted; one more comes before")
    arguments.add_argument("--one", action="store_true", help="for the fresh process")
    if "--one" in sys.argv:
        one(arguments.parse_args())
    else:
        common.run(arguments, work)
