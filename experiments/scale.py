"""How a head on frozen features should scale them: each by its own deviation, all by one number, or something between.

    python -m experiments.scale --flowers FOLDER

The data and image sizes of `decision_map`, training photos only: three tenths of them, which nothing learns from, judge. Eight draws from
the others (one with all photos). `tl.train_head` chooses the strength each time. "between" divides a feature by the root of a mean of its own
variance and the mean variance of all features, in which the second counts as much as eight photos of each class. One line of
results/scale.csv is one head. Two minutes on two cores, without the features.

Why scales matter with few photos: notebooks/05_few_shots.ipynb.
"""

import argparse
from pathlib import Path

import numpy as np

import tlhelpers as tl
from experiments import decision_map

RESULTS = Path(__file__).with_name("results") / "scale.csv"
COLUMNS = ("dataset", "photos", "seed", "scale", "n_train", "n_judged", "strength", "accuracy", "loss")
PHOTOS = (2, 3, 5, 10, 25, 50, 100, None)
AS_MANY_AS = 8  # photos of each class that the common variance counts as


def between(features, classes):
    """Deviation of each feature, (channels,)."""
    variance, n, prior = features.var(axis=0), len(features), AS_MANY_AS * classes
    return np.sqrt((n * variance + prior * variance.mean()) / (n + prior))


def lines(name, flowers):
    pool, held = decision_map.photos_of(name, flowers)[0].split(test_size=0.3, seed=1)
    held = held.subset(np.sort(np.random.default_rng(0).permutation(len(held))[:400]))
    backbone = tl.load_backbone("efficientnet_lite0", image_size=decision_map.DATA[name][0])
    features, others = (np.asarray(tl.extract_features(part, backbone)) for part in (pool, held))
    place, classes = {file: row for row, file in enumerate(pool.files)}, len(pool.class_names)
    for photos in PHOTOS:
        if photos and photos >= np.bincount(pool.labels).min():
            continue
        for seed in range(8 if photos else 1):
            learn = pool.sample(per_class=photos, seed=seed) if photos else pool
            x = features[[place[file] for file in learn.files]]
            middle = between(x, classes)
            for scale, divided, how in (("each", 1, "each"), ("one", 1, "one"), ("between", middle, "one")):
                head = tl.train_head(x / divided, learn.labels, scale=how, seed=seed)
                found = decision_map.measures(head.predict_proba(others / divided), held)[:2]
                yield dict(zip(COLUMNS, (name, photos or "all", seed, scale, len(learn), len(held), head.strength, *found), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", help="folder with flower photos; without, load_dataset('flowers'), which downloads them")
    flowers = parser.parse_args().flowers
    rows = [row for name in decision_map.DATA for row in lines(name, flowers)]
    decision_map.write(RESULTS, COLUMNS, rows)
    for name, photos in dict.fromkeys((row["dataset"], row["photos"]) for row in rows):
        means = {
            scale: [
                np.mean([row[column] for row in rows if (row["dataset"], row["photos"], row["scale"]) == (name, photos, scale)])
                for column in ("accuracy", "loss")
            ]
            for scale in ("each", "one", "between")
        }
        print(f"{name:<12}{photos:>4}", *(f"   {scale} {right:.3f} loss {loss:.2f}" for scale, (right, loss) in means.items()))


if __name__ == "__main__":
    main()
