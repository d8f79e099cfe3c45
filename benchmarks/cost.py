"""What feature extraction costs: time against the number and the size of photos, memory against the number of photos.

The photos are windows cut from real solar cells (or from those of --folder) and compressed anew: all are different.
Memory is that of a fresh process that loads the folder and extracts its features, with an empty cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import common
import numpy as np

import tlhelpers as tl

LARGE = 50_000


def slope(sizes, seconds):
    """Exponent of the power law through the medians: 1 is in proportion, 2 with the square. None for a single point."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]) if len(sizes) > 1 else None


def against_number(dataset, backbone, counts, args):
    """Time of one pass over the first photos of a data set, for several numbers of photos."""
    tl.extract_features(dataset.subset(slice(2)), backbone, cache=False)  # building is not the matter here
    parts = {str(count): dataset.subset(slice(count)) for count in counts}
    ways = {name: partial(tl.extract_features, part, backbone, cache=False) for name, part in parts.items()}
    seconds, _ = common.paired_rounds(ways, args.rounds)
    return measured("photos", counts, seconds)


def against_size(dataset, sizes, args):
    """The same for several sizes of photos; and of reading and resizing alone, on one core."""
    ways = {}
    for size in sizes:
        backbone = tl.load_backbone(args.backbone, image_size=size)
        tl.extract_features(dataset.subset(slice(2)), backbone, cache=False)
        ways[str(size)] = partial(tl.extract_features, dataset, backbone, cache=False)
    seconds, _ = common.paired_rounds(ways, args.rounds)
    found = measured("image_size", sizes, seconds) | {"photos": len(dataset)}
    for row in found["rows"]:
        row["milliseconds_a_photo"] = 1000 * row["median"] / len(dataset)
        row["of_which_reading"] = 1000 * seconds_of_reading(dataset, row["image_size"]) / len(dataset)
    return found


def seconds_of_reading(dataset, size):
    _, seconds = common.seconds_of(lambda: [common.read(dataset, row, 1, size) for row in range(len(dataset))])
    return seconds


def measured(what, values, seconds):
    rows = [{what: value, "seconds": seconds[str(value)], "median": median(seconds[str(value)])} for value in values]
    return {"rows": rows, "slope": slope(values, [row["median"] for row in rows])}


def against_memory(source, counts, folder, args):
    """Peak memory of a fresh process for several numbers of photos. The folder grows from one to the next."""
    rows, there = [], 0
    for count in sorted(counts):
        common.say(f"  writing photos: {count:,}")
        common.write_variants(source, there, count, folder)
        there = count
        with common.empty_cache():
            command = [sys.executable, __file__, "--memory-of", folder, "--backbone", args.backbone]
            command += ["--image-size", str(args.image_size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        rows.append(row := json.loads(done.stdout.splitlines()[-1]))
        common.say(f"  {row['photos']:,} photos: {row['peak_bytes'] / 2**20:.0f} MiB, {row['seconds']:.0f} s")
    return {"rows": rows}


def memory_of(args):
    """What the fresh process does; prints one line of JSON."""
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    dataset, loading = common.seconds_of(lambda: tl.load_dataset(args.memory_of))
    if len(set(dataset.metadata["sha256"])) < len(dataset):
        raise SystemExit(f"{args.memory_of}: some of the photos are the same; each must be different")
    with common.empty_cache():
        tl.extract_features(dataset.subset(slice(16)), backbone)
    building_peak = peak_bytes()
    forget_peak()
    before = peak_bytes()
    features, seconds = common.seconds_of(lambda: tl.extract_features(dataset, backbone))
    extracting_peak = peak_bytes()
    print(json.dumps({
        "photos": len(dataset),
        "left_out": len(dataset.left_out),
        "peak_bytes": max(building_peak, extracting_peak),
        "before_extracting_bytes": before,
        "peak_extracting_bytes": extracting_peak,
        "features_bytes": features.nbytes,
        "loading_seconds": loading,
        "seconds": seconds,
    }))


def peak_bytes():
    """The most memory that this process has held at a time."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage there also counts what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak():
    """On Linux: count the peak from here on. Converting the network takes more than many photos and would hide them."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def bars_of(number, memory):
    bars = []
    if number["slope"] is not None:
        factor = 10 ** number["slope"]
        bars.append(common.bar("ten times the photos, times the time", factor, at_most=11))
    held = {row["photos"]: row["peak_extracting_bytes"] - row["features_bytes"] for row in memory["rows"]}
    for count in held:
        if 10 * count in held:
            what = f"memory for {10 * count:,} photos over that for {count:,}, features aside"
            bars.append(common.bar(what, held[10 * count] / held[count], at_most=1.2))
    for row in memory["rows"]:
        if row["photos"] >= LARGE:
            what = f"peak memory for {row['photos']:,} photos in GiB, features and all"
            bars.append(common.bar(what, row["peak_bytes"] / 2**30, at_most=2))
    return bars


def numbers(text):
    return [int(number) for number in text.split(",")]


def work(args):
    source = tl.load_dataset(args.folder or "solar_cells")
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    memory_photos = {*args.memory_photos, *([LARGE] if args.large else [])}
    with tempfile.TemporaryDirectory(prefix="tlhelpers-benchmark-") as folder:
        common.say("time against the number of photos")
        common.write_variants(source, 0, max(args.photos), Path(folder, "time"))
        dataset = tl.load_dataset(Path(folder, "time"))
        dataset = dataset.subset(np.random.default_rng(0).permutation(len(dataset)))
        number = against_number(dataset, backbone, args.photos, args)
        common.say("time against the size of the photos")
        size = against_size(dataset.subset(slice(args.size_photos)), args.image_sizes, args)
        common.say("memory against the number of photos")
        memory = against_memory(source, memory_photos, Path(folder, "memory"), args)
    settings = {name: getattr(args, name) for name in ("backbone", "image_size", "rounds")}
    settings["photos_from"] = source.name
    found = {"settings": settings, "number_of_photos": number, "size_of_photos": size, "memory": memory}
    return found | {"bars": bars_of(number, memory)}, tables_of(number, size, memory, args.rounds)


def tables_of(number, size, memory, rounds):
    def exponent(found):
        return "" if found["slope"] is None else f"; the time grows with the power {found['slope']:.3f}"

    rows = [
        (f"{row['photos']:,}", f"{row['median']:.2f}", f"{row['photos'] / row['median']:.0f}") for row in number["rows"]
    ]
    of_number = common.table(
        f"Number of photos, median of {rounds} rounds{exponent(number)}", ("photos", "seconds", "photos/s"), rows
    )
    rows = [
        (row["image_size"], *(f"{row[name]:.2f}" for name in ("median", "milliseconds_a_photo", "of_which_reading")))
        for row in size["rows"]
    ]
    of_size = common.table(
        f"Size of photos, {size['photos']} of them, median of {rounds} rounds{exponent(size)}",
        ("side, pixels", "seconds", "ms a photo", "reading alone on one core, ms"), rows,
    )
    rows = []
    for row in memory["rows"]:
        peak, before, extracting, features = (
            row[name] / 2**20
            for name in ("peak_bytes", "before_extracting_bytes", "peak_extracting_bytes", "features_bytes")
        )
        mib = (f"{value:.0f}" for value in (peak, before, extracting - features, extracting - features - before))
        rows.append((f"{row['photos']:,}", *mib, f"{row['seconds']:.0f}"))
    columns = ("photos", "peak in all", "before extracting", "peak then, features aside", "more than before", "seconds")
    return [of_number, of_size, common.table("Memory of a fresh process, MiB", columns, rows)]


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=3)
    arguments.add_argument(
        "--photos", type=numbers, default="250,500,1000,2000,4000", help="numbers of photos to measure the time of"
    )
    arguments.add_argument(
        "--image-sizes", type=numbers, default="96,128,160,192,224,256,320,384", help="sides in pixels"
    )
    arguments.add_argument("--size-photos", type=int, default=300, help="photos for the comparison of sizes")
    arguments.add_argument(
        "--memory-photos", type=numbers, default="500,5000", help="numbers of photos to measure the memory of"
    )
    arguments.add_argument("--large", action="store_true", help=f"memory of {LARGE:,} photos too")
    arguments.add_argument("--folder", help="folder of photos to cut the windows from, in place of solar_cells")
    arguments.add_argument("--memory-of", metavar="FOLDER", help=argparse.SUPPRESS)
    if "--memory-of" in sys.argv:
        memory_of(arguments.parse_args())
    else:
        common.run(arguments, work)
