"""Kill `extract_features` again and again at random moments, and look for a wrong row in what it kept.

    python experiments/cache_kills.py --kills 100

Two processes at a time extract features of the same photos into one cache; each is killed with SIGKILL at a moment drawn
by lot, from its first photo on. After each pair of kills every row that the cache knows is compared with features computed
without it. At the end one undisturbed run must find the rest, leave nothing behind, and the run after it compute nothing.
Results: experiments/results/cache_kills.json (with --out).
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CUT_POINT, IMAGE_SIZE, PHOTOS = "stage_2", 64, 600


def light():
    """Photos and a network, light enough to be killed a hundred times."""
    import tlhelpers as tl

    photos = tl.load_dataset("textiles").sample(per_class=PHOTOS // 3, seed=0)
    return photos, tl.load_backbone("efficientnet_lite0", image_size=IMAGE_SIZE)


def worker():
    """What is killed: extracts, and says so when the first photo is done. Photos go to the disk in small portions, and in
    an order of its own, so that two workers do not only take turns at the same ones."""
    import numpy as np

    import tlhelpers as tl
    from tlhelpers import features

    features._FLUSH_SECONDS = 0.02
    photos, backbone = light()
    photos = photos.subset(np.random.default_rng(os.getpid()).permutation(len(photos)))

    def progress(done, total):
        print(done, flush=True)

    tl.extract_features(photos, backbone, cut_point=CUT_POINT, progress=progress)


def known_rows():
    """Keys and rows of all that the cache knows, read by another way than the package's: SQLite's own, and numpy's."""
    import sqlite3

    import numpy as np

    folder, = (Path(os.environ["TLHELPERS_CACHE"]) / "features").glob("*-float32")
    with sqlite3.connect(folder / "index.sqlite") as database:
        places = dict(database.execute("SELECT key, place FROM places"))
    file, = folder.glob("rows-*.bin")
    length = {"stage_2": 24}[CUT_POINT]
    rows = np.fromfile(file, np.float32)
    rows = rows[: len(rows) // length * length].reshape(-1, length)
    return places, rows, folder


def run(kills, seed=0, say=print):
    """Kill, look, kill; returns the result as a dict, or raises AssertionError at the first wrong row."""
    import hashlib

    import numpy as np

    import tlhelpers as tl
    from tlhelpers import store

    store._MAPPED = 0  # every array that comes from the cache is a map of its file, and must stay what it was
    photos, backbone = light()
    truth = tl.extract_features(photos, backbone, cut_point=CUT_POINT, cache=False)
    wanted = {hashlib.sha256(file.read_bytes()).digest(): row for file, row in zip(photos.files, truth)}
    chance, moments, known, held, done = random.Random(seed), [], [], [], 0
    while done < kills:
        workers = [
            subprocess.Popen([sys.executable, __file__, "--worker"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(min(2, kills - done))
        ]
        for process in workers:
            process.stdout.readline()  # its first photo is done
            moments.append(chance.uniform(0, 0.6))
            time.sleep(moments[-1] / len(workers))
            process.send_signal(signal.SIGKILL)
        ends = [process.wait() for process in workers]
        for process in workers:
            process.stdout.close()
        done += ends.count(-signal.SIGKILL)
        places, rows, folder = known_rows()
        for key, place in places.items():
            assert np.array_equal(rows[place], wanted[key]), f"after {done} kills: a wrong row"
        some = [number for number, file in enumerate(photos.files) if hashlib.sha256(file.read_bytes()).digest() in places]
        if some:  # arrays in hand while others write, are killed, and the folder is cleared
            held.append((some, tl.extract_features(photos.subset(some), backbone, cut_point=CUT_POINT)))
        for numbers, array in held:
            assert np.array_equal(array, truth[numbers]), f"after {done} kills: an array in hand has changed"
        known.append(len(places))
        say(f"{done} kills, {known[-1]} of {len(photos)} photos known, none wrong")
        if known[-1] == len(photos) and done < kills:  # all is known: begin anew
            for file in folder.iterdir():
                file.unlink()
    computed = []
    again = tl.extract_features(photos, backbone, cut_point=CUT_POINT, progress=lambda done, total: computed.append(done))
    assert np.array_equal(again, truth)
    second = []
    once_more = tl.extract_features(photos, backbone, cut_point=CUT_POINT, progress=lambda *step: second.append(step))
    assert np.array_equal(once_more, truth)
    assert second == [(len(photos), len(photos))], "the second undisturbed run computed something"
    left = sorted(file.name.split("-")[0] for file in folder.iterdir())
    assert left == ["index.sqlite", "rows"], left
    assert folder.joinpath(*folder.glob("rows-*.bin")).stat().st_size == truth.nbytes, "bytes of killed processes are left"
    return {"kills": done, "photos": len(photos), "wrong_rows": 0, "known_after_each_pair": known, "left_behind": left}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result there, as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TLHELPERS_CACHE"] = cache
        result = run(arguments.kills, arguments.seed, lambda text: print(text, file=sys.stderr))
    result |= {
        "command": f"python experiments/cache_kills.py --kills {arguments.kills} --seed {arguments.seed}",
        "date": date.today().isoformat(), "cores": os.cpu_count(), "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tlhelpers", "tensorflow", "keras", "ai-edge-litert")},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
