"""Chapter 13, "Less overfitting?", before its results are there, with its exercises. See making.py for the form, run.py to try it.

A sentence that begins with RESULT: is a guess at what the table will say. CLAIMS has the numbers that the text quotes, HOW the way in
which the notebook computes each. BIB and GLOSSARY: entries to be added to the book.
"""

# ruff: noqa: E501 - a paragraph of a notebook is one line

from building import code, fold, md, save

NAME = "13_overfitting"
HOW = {}

EXPERIMENT = "experiments/decision_map.py"
DATA = {"flowers": ("flowers", "10"), "faces": ("faces", "5"), "solar": ("solar_cells", "10"), "textiles": ("textiles", "10")}
NAMES = {"flowers": "flowers", "faces": "faces", "solar": "solar cells", "textiles": "textiles"}
METHODS = {
    "frozen": ("feature_extraction", "frozen features"), "stage": ("last_stage", "the last stage"), "lp_ft": ("lp_ft", "the head first, then everything"),
    "all": ("all_layers", "everything, from a last layer of zeros"), "scratch": ("scratch", "everything, from random weights"),
}  # fmt: skip
MANY = ("flowers", "solar")


def stored(sentence, how, unit="", digits=0, seeds="3 to 5 draws"):
    """A number that is read from the table: run.py gives it a tolerance of a tenth of the last digit shown."""
    return {"sentence": sentence, "unit": unit, "digits": digits, "seeds": seeds, "experiment": EXPERIMENT, "how": how}


def live(sentence, how, tolerance, why, photos, seeds="one draw, seed 0"):
    """A number that the notebook measures itself."""
    return {"sentence": sentence, "unit": "%", "digits": 1, "tolerance": tolerance, "why": why, "photos": photos, "seeds": seeds, "how": how}


CLAIMS = {}
TOY = (("faces", "faces", 98, "two photos a person"), ("cells", "solar cells", 656, "twenty photos a class"))
for short, data, n, learned in TOY:
    for name, what in (("constant", "an answer that is always the same"), ("pixels", "a head on 1,296 grey pixels"), ("features", "a head on 1,280 frozen features")):
        for mirrored, these in (("", ""), ("_mirrored", ", mirrored")):
            if name == "constant" and mirrored:
                continue
            CLAIMS[f"13.{short}_{name}{mirrored}"] = live(
                f"Of {n} test photos of {data}{these}, {what} has this part right, learned from {learned}: mean of five draws.", f"means['{data}', '{name}']",
                0.015 if name != "constant" else 0.0001, "one or two verdicts in a hundred may fall the other way on another processor", n, "draws with seeds 0 to 4")
CLAIMS["13.own"] = live(
    "Of their own photos, the heads on pixels and on features have this part right, on both data sets.", "min and max of own", 0,
    "with more numbers than photos there is a line between the classes: no processor misses one", 80, "draws with seeds 0 to 4")
for short, (data, photos) in DATA.items():
    for method, (_, what) in METHODS.items():
        CLAIMS[f"13.gap_{short}_{method}"] = stored(
            f"Accuracy on its own photos less accuracy on test photos, {NAMES[short]}, {photos} photos a class, {what}: mean over the draws.",
            f"gap('{data}', method, '{photos}').mean()", "points", 1,
        )  # fmt: skip
for short in MANY:
    for method, (_, what) in METHODS.items():
        CLAIMS[f"13.gap_all_{short}_{method}"] = stored(
            f"Accuracy on its own photos less accuracy on test photos, {NAMES[short]}, all photos, {what}: mean over the seeds.",
            f"gap('{DATA[short][0]}', method, 'all').mean()", "points", 1,
        )  # fmt: skip
CLAIMS |= {
    "13.cells": stored("Pairs of a data set and a number of photos a class in the map.", "len(cells)"),
    "13.scratch_smaller": stored("Of these, the pairs where scratch has a smaller gap than frozen features.", "len(smaller)"),
    "13.scratch_smaller_worse": stored("Of those, the pairs where scratch is right on fewer test photos than frozen features.", "len(worse)"),
    "13.equal_cells": stored("Pairs where both scratch and full fine-tuning have at least 95 of 100 of their own photos right.", "len(equal)"),
    "13.equal_plain": stored("Of these, pairs in which the gap of scratch is plainly larger, over draws.", "len(plain)"),
    "13.equal_smaller": stored("Of these, pairs in which the gap of scratch is plainly smaller, over draws.", "len(plain)"),
}
for short, photos in (("flowers", "2"), ("flowers", "5"), ("solar", "2"), ("solar", "5")):
    CLAIMS[f"13.equal_{short}_{photos}"] = stored(f"{NAMES[short].capitalize()}, {photos} photos a class: gap of scratch less gap of full fine-tuning, mean over draws.", "lead(...)", "points", 1, "3 draws")
    CLAIMS[f"13.equal_{short}_{photos}_reach"] = stored("How far the 95 % interval of this reaches to either side, over draws.", "lead(...)", "points", 1, "3 draws")
for kind, method in (("frozen", "feature extraction"), ("all", "full fine-tuning"), ("stage", "the last stage")):
    for end, what in (("low", "lowest"), ("high", "highest")):
        CLAIMS[f"13.lottery_{kind}_{end}"] = stored(f"Textiles, 25 photos a class, {method}: the {what} accuracy of the first three draws.", "values(...)", "%", 1, "3 draws")
CLAIMS["13.lottery_all_own"] = stored("Textiles, 25 photos a class, full fine-tuning: accuracy on its own photos in the draw with the lowest test accuracy.", "values(...)", "%", 1, "1 draw")
for method, what in (("all", "full fine-tuning"), ("lp_ft", "fine-tuning after the head was fitted")):
    for verdict, says in (("hurts", "is plainly worse than"), ("helps", "is plainly better than"), ("no_difference", "cannot be told from")):
        CLAIMS[f"13.{method}_{verdict}"] = stored(f"Pairs in which {what} {says} frozen features, by accuracy.", f"counts['{method}', '{verdict}']")
    for short in DATA:
        for photos, few in (("2", "2 photos a class"), ("all", "all photos")):
            id = f"13.{method}_{photos}_{short}"
            CLAIMS[id] = stored(
                f"Accuracy of {what} less that of frozen features, {NAMES[short]}, {few}: mean of paired differences.", "difference(...)[0]", "points", 1
            )
            CLAIMS[f"{id}_reach"] = stored(
                f"How far the 95 % interval of this reaches to either side ({what}, {NAMES[short]}, {few}).", "difference(...)[1]", "points", 1
            )
CLAIMS |= {
    "13.rerun": stored("Faces, 5 photos a person, frozen features: accuracy, mean of five draws.", "mean of values(...)", "%", 1, "5 draws")
}
for method in ("stage", "lp_ft", "all", "scratch"):
    what = METHODS[method][1]
    CLAIMS[f"13.error_{method}"] = stored(f"Pairs with fewer errors than frozen features on its own photos and more on test photos ({what}).", "by_error")
    CLAIMS[f"13.mitchell_{method}"] = stored(f"Pairs with a lower log loss than frozen features on its own photos and a higher one on test photos ({what}).", "by_loss")
    CLAIMS[f"13.higher_{method}"] = stored(f"Pairs in which the interval of the test loss, divided by that of frozen features, lies above 1 ({what}; over draws).", "higher")
    CLAIMS[f"13.lower_{method}"] = stored(f"Pairs in which it lies below 1 ({what}).", "lower")
CLAIMS["13.frozen_perfect"] = stored("Pairs in which frozen features have all of their own photos right, in every draw.", "perfect")
CLAIMS["13.small_cells"] = stored("Pairs of a data set and a number of photos a class up to 100.", "len(small)")
for method, what in (("steps", "the last layer alone, trained by gradient steps from zeros"), ("stage", "the last stage")):
    CLAIMS[f"13.small_higher_{method}"] = stored(f"Of these, pairs in which the interval of the test loss, divided by that of frozen features, lies above 1 ({what}).", "control", seeds="3 to 5 draws")
for method, (_, what) in METHODS.items():
    CLAIMS[f"13.lost_{method}"] = stored(f"Pairs in which the log loss on test photos is above that of an answer without any knowledge ({what}).", "len(lost)")
# Exercises: quoted by the solutions.
CLAIMS |= {
    "13.praised_gap": stored("Flowers, 100 photos a class: the smallest mean gap of the five methods.", "min of the mean gaps", "points", 1),
    "13.praised_accuracy": stored("The accuracy of the method with the smallest gap, flowers, 100 photos a class.", "accuracy of that method", "%", 1),
    "13.best_accuracy": stored("The highest mean accuracy of the five methods, flowers, 100 photos a class.", "max of the means", "%", 1),
    "13.random_own": live(
        "Of 40 solar cells with labels drawn by lot, a head on frozen features has this part as the lot said.", "13.2", 0,
        "40 photos and 1,280 numbers each: no processor misses one", 40, "labels from seed 0"),
    "13.random_others": live(
        "Of 328 test photos with their true labels, that head has this part right.", "13.2", 0.02,
        "seven of 328 photos: what it says of others is chance", 328, "labels from seed 0"),
    "13.largest_ratio": stored("Solar cells, everything trained, from a last layer of zeros: the largest mean test loss over the numbers of photos, divided by that of frozen features.", "13.3", "", 2),
    "13.largest_photos": stored("The number of photos a class where it is.", "13.3"),
}  # fmt: skip

for id, claim in CLAIMS.items():
    HOW[id] = claim.pop("how")
    for field in [field for field, value in claim.items() if field != "tolerance" and value in ("", 0)]:
        del claim[field]

GLOSSARY = """
gap
  Accuracy on the photos that were learned from, less accuracy on others, in points.
"""
BIB = r"""
@book{Mitchell1997,
  author = {Mitchell, Tom M.}, title = {Machine Learning}, publisher = {McGraw-Hill}, year = {1997}
}
@inproceedings{ZhangC2017,
  author = {Zhang, Chiyuan and Bengio, Samy and Hardt, Moritz and Recht, Benjamin and Vinyals, Oriol},
  title = {Understanding Deep Learning Requires Rethinking Generalization},
  booktitle = {International Conference on Learning Representations}, year = {2017}, url = {https://arxiv.org/abs/1611.03530}
}
"""


def link(id):
    return f"[?](claim:13.{id})"


def gap_table():
    head = "| gap, points | " + " | ".join(f"{NAMES[short]}, {photos} a class" for short, (_, photos) in DATA.items()) + " |\n|---" * 1 + "|---" * len(DATA) + "|\n"
    rows = {"frozen": "feature extraction", "stage": "last stage", "lp_ft": "LP-FT", "all": "all layers", "scratch": "from scratch"}
    return head + "\n".join(f"| {name} | " + " | ".join(link(f"gap_{short}_{method}") for short in DATA) + " |" for method, name in rows.items())


def difference_table():
    head = "| against frozen features, points | 2 photos a class: all layers | LP-FT | all photos: all layers | LP-FT |\n|---|---|---|---|---|\n"
    rows = []
    for short in DATA:
        cells = [f"{link(f'{method}_{photos}_{short}')} ± {link(f'{method}_{photos}_{short}_reach')}" for photos in ("2", "all") for method in ("all", "lp_ft")]
        rows.append(f"| {NAMES[short]} | " + " | ".join(cells) + " |")
    return head + "\n".join(rows)


CHAPTER = [
    md(r"""
# Less overfitting?

The third advantage that introductions name: a network that starts from a trained one overfits less. It sounds plausible and is hardly ever shown, and few of those who write it say what would be
counted. This chapter first asks what overfitting *is*, which is less clear than it seems, and then puts three answers to the table of {doc}`11_better`: the same five methods, four data sets, from two photos
a class to all there are.

**After this chapter you will be able to**

- say why the {term}`gap` between training and test accuracy alone does not measure overfitting, and give a classifier that proves it;
- use a definition that does: lower loss on its own photos, higher loss on others, than a simpler classifier;
- compare two trainings at the same training accuracy, so that one is not praised for having learned nothing;
- say how far training everything on few photos may be better or worse than frozen features, and why one draw does not tell;
- judge the sentence "transfer learning reduces overfitting" by numbers.

**Needs** {doc}`11_better` and {doc}`10_small_data_big_tricks`. **Takes** about 45 minutes to read and do, and about a minute of computing on two cores. Nothing is downloaded.
"""),
    md(r"""
## What the gap does not say

The usual measure is the *{term}`gap`*: {term}`accuracy` on the photos that were learned from, less accuracy on others. A large gap is called overfitting. Before we trust it, three classifiers that anybody can make in a minute, on two data sets. Faces, with two photos of each person to learn from; solar cells, with twenty of each
class. Five draws each, all judged by the same test photos.
"""),
    code(r"""
import numpy as np

import tlhelpers as tl

faces = tl.load_dataset("faces")
once = np.unique(tl.duplicate_groups(faces), return_index=True)[1]
both = {"faces": faces.subset(np.sort(once)).split(test_size=0.25, seed=0),
        "solar_cells": tl.load_dataset("solar_cells").split(
            test_size=0.25, seed=0)}
few = {"faces": 2, "solar_cells": 20}  # a class
"""),
    md(r"""
Two of the classifiers are the same linear {term}`head`. One sees a photo as 36 × 36 grey pixels, 1,296 numbers; the other as the 1,280 {term}`features` of the frozen network. So both have about as many weights, and hardly any penalty on them (`C=1000`). The third looks at nothing and always names the class that comes first. All are asked about the test photos twice, the second
time mirrored: that changes nobody's name, and no defect.
"""),
    code(r"""
backbone = tl.load_backbone("efficientnet_lite0", image_size=128)
network = backbone.cut()


def pixels(photos, mirrored=False):
    small = photos.images(36)[..., 0].astype("float32") / 255
    return small[:, :, ::-1 if mirrored else 1].reshape(len(photos), -1)


def features(photos, mirrored=False):
    return tl.features.predict(network, photos, batch_size=16,
                               variant=4 if mirrored else 0)  # 4: mirrored
"""),
    code(r"""
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def right(seen, learn, others, labels):
    # parts of its own photos, of others, of others mirrored
    own = seen(learn)
    head = make_pipeline(StandardScaler(),
                         LogisticRegression(C=1000, max_iter=1000))
    head.fit(own, learn.labels)
    return [head.score(own, learn.labels),
            *(head.score(these, labels) for these in others)]
"""),
    code(r"""
table = {}
for data, (pool, test) in both.items():
    draws = [pool.sample(per_class=few[data], seed=seed) for seed in range(5)]
    table[data, "constant"] = [[np.mean(learn.labels == 0), *2 * [
        np.mean(test.labels == 0)]] for learn in draws]
    for seen in (pixels, features):
        others = [seen(test, mirrored) for mirrored in (False, True)]
        table[data, seen.__name__] = [
            right(seen, learn, others, test.labels) for learn in draws]
means = {key: np.mean(rows, axis=0) for key, rows in table.items()}
for (data, kind), (own, others, turned) in means.items():
    print(f"{data:<12}{kind:<9} own {own:6.1%}  others {others:6.1%}  gap"
          f" {100 * (own - others):+6.1f} points  mirrored {turned:6.1%}")
"""),
    md(r"""
Before you read on: which of the three would you take, by the gap? And which by what it says of others?
"""),
    code(r"""
for data, short in (("faces", "faces"), ("solar_cells", "cells")):
    for kind in ("pixels", "features"):
        tl.claims.check(f"13.{short}_{kind}", means[data, kind][1])
        tl.claims.check(f"13.{short}_{kind}_mirrored", means[data, kind][2])
        assert means[data, kind][0] == 1
    tl.claims.check(f"13.{short}_constant", means[data, "constant"][1])
    gaps = {kind: np.subtract(*means[data, kind][:2])
            for kind in ("constant", "pixels", "features")}
    assert min(gaps, key=gaps.get) == "constant"
tl.claims.check("13.own", means["faces", "features"][0])
"""),
    md(f"""
**The classifier that looks at nothing has the smallest gap**, on both. It is right on {link('faces_constant')} of the others' faces, and on {link('cells_constant')} of the solar cells, because most are functional and it says so. By the gap it would be the best of the three.

**Both heads have {link('own')} of their own photos right.** With more numbers than photos there is nearly always a line between the classes. On other faces the pixels have {link('faces_pixels')} right and the features {link('faces_features')}: by the gap they are as good as each other. On solar cells it is {link('cells_pixels')} and {link('cells_features')}, no better than the constant answer (the head of {{doc}}`03_feature_extraction`, which may choose the price of its weights and has far more photos, is).

**And then the same faces mirrored.** The pixels fall to {link('faces_pixels_mirrored')}, the features to {link('faces_features_mirrored')}. Same photos to learn from, same kind of head, about as many weights, same training accuracy, the same gap: and one of the two goes by something that mirroring leaves alone, the other does not. (Solar cells look much the same mirrored: {link('cells_pixels_mirrored')} and {link('cells_features_mirrored')}.)

So a gap has two causes, and they should not be mixed up. How much of its own photos does a classifier learn by heart? And how far does what it learned carry? The second depends on which others you ask. (There is a third, plainer one. The constant answer to solar cells has a gap below zero only because its own photos are as many of each class and the test photos are not. It moves all gaps on solar cells and textiles by some points.)
"""),
    md(r"""
## Three questions instead of one

1. **How large is the gap, at the same training accuracy?** Then nobody is praised for having learned nothing.
2. **Is there a simpler classifier that knows less of its own photos and more of others?** That is the definition in Mitchell's textbook {cite:p}`Mitchell1997`: a classifier *overfits* if another one, out of those that the same training could have found, has a larger error on the training photos and a smaller one on all photos there are. The
   frozen network with its head is one of those that full {term}`fine-tuning` could find: it need only leave the layers as they are. So we can ask it by name, and ask with the {term}`log loss`, which is what training lowers.
3. **Is it sure of its mistakes?** In {doc}`10_small_data_big_tricks` the loss on other photos rose while the accuracy stayed. A log loss above that of an answer which gives each class the same probability is worse than knowing nothing.

The table of {doc}`11_better` has what is needed: accuracy and loss, on test photos and on its own (at most 500 of each), for each classifier.
"""),
    code(r"""
import csv
from pathlib import Path

stored = Path("../experiments/results/decision_map.csv")
with stored.open(newline="", encoding="utf-8") as file:
    lines = list(csv.DictReader(file))
cells = list(dict.fromkeys((line["dataset"], line["photos"]) for line in lines))
methods = ("feature_extraction", "last_stage", "lp_ft", "all_layers", "scratch")
len(lines), len(cells)
"""),
    code(r"""
def values(data, method, photos, column, read=float):
    # one for each draw, in their order
    wanted = {"dataset": data, "method": method, "photos": photos}
    found = [read(line[column]) for line in lines
             if wanted.items() <= line.items()]
    if len(found) == 1:  # frozen, all photos: nothing is left to chance
        found *= 5
    return np.array(found)
"""),
    code(r"""
from scipy.stats import t


def interval(values):
    # mean, and how far its 95 % interval reaches: over draws
    n = len(values)
    reach = t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
    return values.mean(), reach


def gap(data, method, photos):
    own = values(data, method, photos, "train_accuracy")
    return 100 * (own - values(data, method, photos, "accuracy"))
"""),
    md(r"""
A *cell* is a data set with a number of photos a class; in each cell the five methods have learned from the very same photos, draw by draw. With all photos, the frozen features leave nothing to chance, so that line stands for every draw.
"""),
    md(r"""
## The gap against the number of photos

First the picture that the sentence asks for. Lines join means over draws; bars are 95 % intervals over draws, other photos to learn from.
"""),
    code(r"""
import matplotlib.pyplot as plt

plt.style.use(tl.plots.STYLE)
looks = {"feature_extraction": ("o-", "#0072B2", "feature extraction"),
         "last_stage": ("s--", "#56B4E9", "last stage"),
         "lp_ft": ("D-", "#009E73", "LP-FT"),
         "all_layers": ("^-.", "#D55E00", "all layers"),
         "scratch": ("x:", "#000000", "from scratch")}
titles = {"flowers": "flowers", "faces": "faces",
          "solar_cells": "solar cells", "textiles": "textiles"}
"""),
    code(r"""
def curves(axis, data, measure):
    photos = [number for name, number in cells if name == data]
    for shift, (method, (look, colour, name)) in enumerate(looks.items()):
        found = [interval(measure(data, method, number)) for number in photos]
        mean, reach = np.array(found).T
        axis.errorbar(np.arange(len(photos)) + 0.07 * (shift - 2), mean, reach,
                      fmt=look, color=colour, label=name, capsize=2,
                      markersize=5, linewidth=1.2)
    axis.set_xticks(range(len(photos)), photos)
    axis.set_title(titles[data])
"""),
    code(r"""
figure, axes = plt.subplots(2, 2, figsize=(7.6, 6), sharey=True)
for axis, data in zip(axes.ravel(), titles):
    curves(axis, data, gap)
    axis.axhline(0, color="#555555", linewidth=0.8)
axes[0, 0].set_ylabel("gap in points")
axes[1, 0].set_ylabel("gap in points")
for axis in axes[1]:
    axis.set_xlabel("photos a class")
axes[0, 1].legend(fontsize=8);
""", alt="Four charts, one for each data set: the gap between accuracy on own photos and on test photos against photos a class, with one line for each of five methods and bars for their intervals. The lines that start from ImageNet fall to the right, close together on flowers and faces, less so on solar cells and textiles. On flowers and textiles the line of scratch begins far above them; on flowers it ends below."),
    md("""
The numbers that the text quotes: a middling number of photos for all four, and all photos for two of them.
"""),
    code(r"""
shorts = {"flowers": "flowers", "faces": "faces", "solar": "solar_cells",
          "textiles": "textiles"}
names = {"frozen": "feature_extraction", "stage": "last_stage",
         "lp_ft": "lp_ft", "all": "all_layers", "scratch": "scratch"}
for short, data in shorts.items():
    photos = "5" if data == "faces" else "10"
    for name, method in names.items():
        tl.claims.check(f"13.gap_{short}_{name}",
                        gap(data, method, photos).mean())
"""),
    code(r"""
for short in ("flowers", "solar"):
    for name, method in names.items():
        tl.claims.check(f"13.gap_all_{short}_{name}",
                        gap(shorts[short], method, "all").mean())
"""),
    md(f"""
{gap_table()}

The gap falls with more photos, and that is most of the story. With 10 photos a class of flowers it is {link('gap_flowers_frozen')} for frozen features and {link('gap_flowers_all')} with all layers; with all photos {link('gap_all_flowers_frozen')} and {link('gap_all_flowers_all')}.

**Among the four that start from ImageNet, does training more make a larger gap?** Not on flowers. With few of them all four are level; with all of them it is {link('gap_all_flowers_frozen')} for frozen features, {link('gap_all_flowers_stage')} for the last stage, {link('gap_all_flowers_lp_ft')} for LP-FT and {link('gap_all_flowers_all')} for all layers. That is the reverse of what "do not train everything" would expect, and the method with the smallest gap is the best classifier, too ({{doc}}`11_better`). With 10 solar cells a class it does: {link('gap_solar_frozen')} frozen, {link('gap_solar_stage')} for the last stage. But there the frozen head has not learned all of its own photos, and whoever has learned less has the smaller gap. On all solar cells nothing is left to compare: {link('gap_all_solar_frozen')}, {link('gap_all_solar_stage')}, {link('gap_all_solar_lp_ft')} and {link('gap_all_solar_all')}.

And scratch? With 10 flowers a class its gap is {link('gap_flowers_scratch')}, about twice that of the others. With all flowers it is {link('gap_all_flowers_scratch')}, the smallest of all, and with all solar cells {link('gap_all_solar_scratch')}.
"""),
    md(r"""
## A small gap is no praise

Count it. In how many cells has scratch a smaller gap than frozen features, and is it the better classifier there?
"""),
    code(r"""
def mean(data, method, photos, column="accuracy"):
    return values(data, method, photos, column).mean()


smaller = [cell for cell in cells
           if gap(cell[0], "scratch", cell[1]).mean()
           < gap(cell[0], "feature_extraction", cell[1]).mean()]
worse = [(data, photos) for data, photos in smaller
         if mean(data, "scratch", photos)
         < mean(data, "feature_extraction", photos)]
print(len(smaller), "of", len(cells), "cells; worse in", len(worse))
"""),
    code(r"""
tl.claims.check("13.cells", len(cells))
tl.claims.check("13.scratch_smaller", len(smaller))
tl.claims.check("13.scratch_smaller_worse", len(worse))
"""),
    md(f"""
In {link('scratch_smaller')} of {link('cells')} cells scratch has the smaller gap, and in {link('scratch_smaller_worse')} of these it is right on fewer test photos. Mostly it has not even learned its own photos. Whoever measures overfitting by the gap would advise random weights there. (These are comparisons of means: a count, not a test.)
"""),
    md(r"""
## At the same training accuracy

Now the fair comparison. Scratch and full fine-tuning train the same network, all layers of it, on the same photos. What differs is where they start (and the recipe that goes with it: twice the epochs and BatchNorm that learns, for scratch). Take the cells in which *both* have at least 95 of 100 of their
own photos right, in the mean over draws. There both know their photos by heart. (At the same training accuracy the gap says the same as the accuracy on others; nothing else can differ.)
"""),
    code(r"""
pair = ("scratch", "all_layers")
equal = [(data, photos) for data, photos in cells if min(
    mean(data, method, photos, "train_accuracy") for method in pair) >= 0.95]
assert equal, "no cell in which both know their photos by heart"
"""),
    code(r"""
def lead(data, photos):
    # how much larger the gap of scratch is, in pairs
    one, other = (gap(data, method, photos) for method in pair)
    draws = min(len(one), len(other))
    return interval(one[:draws] - other[:draws])


for data, photos in equal:
    apart = [gap(data, method, photos).mean() for method in pair]
    middle, reach = lead(data, photos)
    print(f"{titles[data]:<12}{photos:>4}  gap: scratch {apart[0]:.1f}, all"
          f" layers {apart[1]:.1f}; {middle:+.1f} ± {reach:.1f} points")
"""),
    code(r"""
tl.claims.check("13.equal_cells", len(equal))
leads = [lead(*cell) for cell in equal]
for name, sign in (("plain", 1), ("smaller", -1)):
    tl.claims.check(f"13.equal_{name}", sum(
        sign * middle > reach for middle, reach in leads))
for short in ("flowers", "solar"):
    for photos in ("2", "5"):
        middle, reach = lead(shorts[short], photos)
        tl.claims.check(f"13.equal_{short}_{photos}", middle)
        tl.claims.check(f"13.equal_{short}_{photos}_reach", reach)
"""),
    md(f"""
There are {link('equal_cells')} such cells. In {link('equal_plain')} of them the gap of scratch is plainly larger, in {link('equal_smaller')} plainly smaller (*plainly*: the interval does not hold zero; here it is over draws alone). On flowers it is a matter of {link('equal_flowers_2')} ± {link('equal_flowers_2_reach')} with two photos a class and {link('equal_flowers_5')} ± {link('equal_flowers_5_reach')} with five (in pairs). Pre-training does not keep a network from learning its photos by heart: both know all of them. But what the pre-trained one learns carries further. That is
the two heads from the beginning once more, pixels and features, in a whole network.

On solar cells (and textiles likewise) it is {link('equal_solar_2')} ± {link('equal_solar_2_reach')} and {link('equal_solar_5')} ± {link('equal_solar_5_reach')}: no difference that we can see, and with three draws only a very large one could be seen. {{doc}}`11_better` has found that neither of the two has learned this task from so few solar cells.

That a network can learn anything by heart is an old finding: Zhang et al. trained networks from random weights on photos whose labels were drawn by lot, until every label was learned {{cite:p}}`ZhangC2017`. Exercise 13.2 does it with a frozen network.
"""),
    md(r"""
## When does training everything hurt?

The warning that goes with the claim: with few photos do not train everything. So hold full fine-tuning against frozen features, draw by draw. The interval of the difference has two parts. One is over draws, other photos to learn from. The other is over test photos: both
methods were judged by the same, so only those count on which they differ, and the table has a bit for each classifier and test photo. (As in {doc}`11_better`, with two photos added, one for each side, so that two methods that never differ do not look certain.)
"""),
    code(r"""
def bits(text):
    # 1 for each test photo that was right, and a few zeros at the end
    row = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.unpackbits(row).astype(float)


bits(lines[-1]["right"])[:12]
"""),
    code(r"""
def difference(data, method, photos, other="feature_extraction"):
    # mean of method less other, in points, and how far its interval reaches
    mine, its = (values(data, name, photos, "right", bits)
                 for name in (method, other))
    draws = min(len(mine), len(its))
    more = mine[:draws] - its[:draws]  # draws × test photos
    n = values(data, method, photos, "n_test")[0] + 2
    a_photo, a_draw = more.mean(axis=0), 100 * more.sum(axis=1) / (n - 2)
    square = (np.sum(a_photo**2) + 2) / n
    variance = (square - (a_photo.sum() / n) ** 2) / n
    return a_draw.mean(), np.hypot(interval(a_draw)[1], 196 * variance**0.5)
"""),
    code(r"""
def verdict(middle, reach):
    if abs(middle) <= reach:
        return "no_difference"
    return "helps" if middle > 0 else "hurts"


found = {(short, cell): difference(cell[0], names[short], cell[1])
         for short in ("all", "lp_ft") for cell in cells}
verdicts = {key: verdict(*value) for key, value in found.items()}
counts = {(short, kind): sum(verdicts[short, cell] == kind for cell in cells)
          for short in ("all", "lp_ft")
          for kind in ("hurts", "helps", "no_difference")}
"""),
    md(r"""
One chart for each data set: what either way of training everything has above frozen features.
"""),
    code(r"""
figure, axes = plt.subplots(2, 2, figsize=(7.6, 6), sharey="row")
for axis, data in zip(axes.ravel(), titles):
    photos = [number for name, number in cells if name == data]
    axis.axhline(0, color="#555555", linewidth=0.8)
    for short, shift in (("all", -0.1), ("lp_ft", 0.1)):
        look, colour, name = looks[names[short]]
        middle, reach = np.transpose([found[short, (data, x)] for x in photos])
        axis.errorbar(np.arange(len(photos)) + shift, middle, reach,
                      fmt=look[0], color=colour, label=name, capsize=2)
    axis.set_xticks(range(len(photos)), photos)
    axis.set(title=titles[data])
axes[0, 0].legend(fontsize=8)
figure.supxlabel("photos a class", fontsize=10)
figure.supylabel("accuracy above frozen features, points", fontsize=10);
""", alt="Four charts, one for each data set: accuracy of full fine-tuning and of fine-tuning after the head was fitted, less that of frozen features, against photos a class, with intervals. Most dots lie a little above zero and most bars cross it; the lower two charts have a wider scale, for on textiles with few photos and on solar cells with 100 the bars are very long. On textiles with 100 photos a class and with all both methods lie far above."),
    code(r"""
for (short, kind), number in counts.items():
    tl.claims.check(f"13.{short}_{kind}", number)
for short, data in shorts.items():
    for name in ("all", "lp_ft"):
        for photos in ("2", "all"):
            middle, reach = found[name, (data, photos)]
            tl.claims.check(f"13.{name}_{photos}_{short}", middle)
            tl.claims.check(f"13.{name}_{photos}_{short}_reach", reach)
"""),
    md(f"""
{difference_table()}

Full fine-tuning from a last layer of zeros is plainly worse than frozen features in {link('all_hurts')} of the {link('cells')} cells, plainly better in {link('all_helps')}, and in {link('all_no_difference')} no difference can be seen. With the head fitted first {{cite:p}}`Kumar2022` it is {link('lp_ft_hurts')}, {link('lp_ft_helps')} and {link('lp_ft_no_difference')}.

**So no plain harm is seen against frozen features, in the answers.** That is not evidence of none: many of these intervals could hide ten points. The one place that looks like harm is faces with two photos of a person, {link('all_2_faces')} ± {link('all_2_faces_reach')} with all layers. With the head first it is {link('lp_ft_2_faces')} ± {link('lp_ft_2_faces_reach')}, though just as many numbers train: if there is harm, it is not their number that does it, but the start, or the learning rate, which is a third as large with the head first. This table does not tell these two apart.

With {link('cells')} cells and two methods a few intervals miss zero by luck (at one in twenty, about two). Read the table by its pattern, not by its single cells.

What does stand out are the *lengths* of some bars. Look at single draws.
"""),
    code(r"""
kinds = {"frozen": "feature_extraction", "stage": "last_stage",
         "all": "all_layers"}
draws = {kind: values("textiles", method, "25", "accuracy")[:3]
         for kind, method in kinds.items()}
own = values("textiles", "all_layers", "25",
             "train_accuracy")[draws["all"].argmin()]
for kind, found in draws.items():
    print(f"{kind:<7}", *(f"{accuracy:6.1%}" for accuracy in found))
print(f"all layers, own photos in its worst draw: {own:.1%}")
"""),
    code(r"""
for kind, found in draws.items():
    tl.claims.check(f"13.lottery_{kind}_low", found.min())
    tl.claims.check(f"13.lottery_{kind}_high", found.max())
tl.claims.check("13.lottery_all_own", own)
"""),
    md(f"""
Textiles with 25 photos a class, three draws. Frozen features have between {link('lottery_frozen_low')} and {link('lottery_frozen_high')}, the last stage between {link('lottery_stage_low')} and {link('lottery_stage_high')}, all layers between {link('lottery_all_low')} and {link('lottery_all_high')}. **Training everything on few photos can be a lottery**: one draw wins what no frozen network wins here, another ends at what a constant answer has. Somebody who tries it once will report one or the other. (This is the cell with the longest bar. The other long ones are textiles with fewer photos, and solar cells with 100.)

Nor is it overfitting where it fails. In that draw it is right on {link('lottery_all_own')} of its *own* photos: the recipe, whose number of steps is fixed, was over before they were learned. How much longer training would help is not in this table.
"""),
    md(r"""
## Overfitting by the definition

Now the second question: is a method better than frozen features on its own photos, *and* worse on others? By the letter of the definition, in errors. And in {term}`log loss`, which is what training lowers; as in {doc}`10_small_data_big_tricks`, losses are compared as ratios, draw by draw. (Test photos are not in this interval.)
"""),
    code(r"""
def against(data, method, photos, column, change):
    # what the method has more than frozen features, one for each draw
    mine, its = (change(values(data, name, photos, column))
                 for name in (method, "feature_extraction"))
    draws = min(len(mine), len(its))
    return mine[:draws] - its[:draws]
"""),
    code(r"""
def overfits(*cell):
    # by errors; by loss; test loss plainly higher; plainly lower
    errors = [against(*cell, column, lambda right: 1 - right).mean()
              for column in ("train_accuracy", "accuracy")]
    own, others = (interval(against(*cell, column, lambda x: np.log(x + 1e-7)))
                   for column in ("train_loss", "loss"))
    return (errors[0] < 0 < errors[1], own[0] < 0 < others[0],
            others[0] > others[1], others[0] < -others[1])
"""),
    md(r"""
Printed is the number of photos a class of each cell in which the test loss is plainly higher (+) or plainly lower (-) than that of frozen features.
"""),
    code(r"""
overfitting = {}
for short in ("stage", "lp_ft", "all", "scratch"):
    judged = {cell: overfits(cell[0], names[short], cell[1]) for cell in cells}
    overfitting[short] = np.sum(list(judged.values()), axis=0)
    print(looks[names[short]][2])
    for data in titles:
        print(f"  {titles[data]:<12}", *(
            photos + ("+" if higher else "-")
            for (name, photos), (*_, higher, lower) in judged.items()
            if name == data and (higher or lower)))
"""),
    code(r"""
for short, found in overfitting.items():
    for kind, number in zip(("error", "mitchell", "higher", "lower"), found):
        tl.claims.check(f"13.{kind}_{short}", number)
tl.claims.check("13.frozen_perfect", sum(values(
    data, "feature_extraction", photos, "train_accuracy").min() == 1
    for data, photos in cells))
"""),
    md(f"""
Of {link('cells')} cells:

| against frozen features | overfits, by errors | by log loss | test loss plainly higher | plainly lower |
|---|---|---|---|---|
| last stage | {link('error_stage')} | {link('mitchell_stage')} | {link('higher_stage')} | {link('lower_stage')} |
| LP-FT | {link('error_lp_ft')} | {link('mitchell_lp_ft')} | {link('higher_lp_ft')} | {link('lower_lp_ft')} |
| all layers | {link('error_all')} | {link('mitchell_all')} | {link('higher_all')} | {link('lower_all')} |
| from scratch | {link('error_scratch')} | {link('mitchell_scratch')} | {link('higher_scratch')} | {link('lower_scratch')} |

**By errors the definition hardly bites.** In {link('frozen_perfect')} cells the frozen head makes no error on its own photos, and nobody can make fewer. **By loss it does**, and most often for the last stage, which trains least of the three. On flowers its test loss is plainly higher with each number of photos, while its *accuracy* is a point or two above that of frozen features. Its training loss has gone to nothing, its probabilities are all near 0 or 1, and where it errs it errs with conviction. Its answers are a little better, and its probabilities are worse. On faces it is the other way round: there its probabilities are the better ones.

Mind what scratch's numbers do not say. A network that fails to learn its own photos cannot overfit by this definition; it is only bad.

Is it the layers that train? The head of feature extraction has a price on its weights, which {{term}}`cross-validation` chooses each time. The others have none to speak of, and that alone could make them too sure. A control tells: the last layer *alone*, trained by the steps of the last stage's recipe, from zeros, without a price. (Its results stand in a table of their own; three draws, up to 100 photos a class.)
"""),
    code(r"""
controls = stored.with_name("decision_map_why.csv")
with controls.open(newline="", encoding="utf-8") as file:
    lines += csv.DictReader(file)
small = [cell for cell in cells if cell[1] != "all"]
higher = {name: sum(overfits(data, method, photos)[2]
                    for data, photos in small)
          for name, method in (("steps", "head_gradient"),
                               ("stage", "last_stage"))}
higher
"""),
    code(r"""
tl.claims.check("13.small_cells", len(small))
for name, number in higher.items():
    tl.claims.check(f"13.small_higher_{name}", number)
"""),
    md(f"""
In {link('small_cells')} cells with up to 100 photos a class the last layer alone has a plainly higher test loss than feature extraction in {link('small_higher_steps')}, the last stage in {link('small_higher_stage')}. So most of it does come from the layers that train.
"""),
    md(r"""
## Sure of its mistakes

The third question. An answer without knowledge, the same probability for each of $k$ classes, has a log loss of $\ln k$. Whoever does worse on test photos would have done better to say nothing.
"""),
    code(r"""
classes = {data: int(values(data, "scratch", "2", "n_train")[0]) // 2
           for data in titles}  # with two photos of each


def loss_factor(data, method, photos):
    return values(data, method, photos, "loss") / np.log(classes[data])


lost = {short: [(data, photos) for data, photos in cells
                if loss_factor(data, method, photos).mean() > 1]
        for short, method in names.items()}
print(classes, {short: len(there) for short, there in lost.items()})
"""),
    code(r"""
figure, axes = plt.subplots(2, 2, figsize=(7.6, 6), sharey=True)
for axis, data in zip(axes.ravel(), titles):
    curves(axis, data, lambda *cell: np.log10(loss_factor(*cell)))
    axis.axhline(0, color="#555555", linewidth=0.8)
ticks = {0.01: "0.01", 0.1: "0.1", 1: "1", 10: "10"}
axes[0, 0].set_yticks(np.log10(list(ticks)), ticks.values())
axes[0, 0].set_ylim(-2.3, 1.3)
figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=5, fontsize=8,
              loc="outside upper center")
figure.supxlabel("photos a class", fontsize=10)
figure.supylabel("log loss on test photos ÷ that of no knowledge", fontsize=10);
""", alt="Four charts, one for each data set: log loss on test photos as a multiple of that of an answer without knowledge, on a logarithmic axis, against photos a class, one line for each of five methods. On flowers and solar cells frozen features lie lowest with few photos, and the others begin above the line of no knowledge; on faces last stage and LP-FT lie lowest. Scratch lies highest nearly everywhere."),
    code(r"""
for short, there in lost.items():
    tl.claims.check(f"13.lost_{short}", len(there))
"""),
    md(f"""
(Some bars end above the picture. On textiles with all photos, all layers and LP-FT lie below it: they are right on every test photo.) Of {link('cells')} cells each, frozen features are worse than no knowledge in {link('lost_frozen')}, the last stage in {link('lost_stage')}, LP-FT in {link('lost_lp_ft')}, all layers in {link('lost_all')} and scratch in {link('lost_scratch')}. This is where methods differ most with few photos. If you use the probabilities, and not only the answers, it is the part of overfitting that counts, and {{doc}}`10_small_data_big_tricks` has what helps.
"""),
    md(r"""
## A small part measured again

One cell, on this machine: frozen features, five faces a person. Photos that stand twice are left out, and a quarter of the others are test photos, as in the experiment.
"""),
    code(r"""
learn, judge = both["faces"]
everything = tl.extract_features(judge, backbone)
again = []
for seed in range(5):
    draw = learn.sample(per_class=5, seed=seed)
    features = tl.extract_features(draw, backbone)
    head = tl.train_head(features, draw.labels, scale="one", seed=seed)
    again.append([np.mean(head.predict(x) == photos.labels)
                  for x, photos in ((features, draw), (everything, judge))])
"""),
    code(r"""
here = values("faces", "feature_extraction", "5", "accuracy")
own, others = np.mean(again, axis=0)
reach = np.hypot(interval(here)[1], 1.96 * (
    here.mean() * (1 - here.mean()) / len(judge)) ** 0.5)
print(f"again {others:.3f} (own photos {own:.3f}),",
      f"stored {here.mean():.3f} ± {reach:.3f}")
assert abs(others - here.mean()) <= reach
""", "again"),
    code(r"""
tl.claims.check("13.rerun", here.mean())
"""),
    md(f"""
The stored mean of five draws is {link('rerun')}, and what was measured just now lies within its interval. Any other cell, such as one of full fine-tuning, is measured again by `python -m experiments.decision_map --part tuned_few --cell faces/all_layers/2 --again`.
"""),
    md(f"""
## Is the claim true?

"Transfer learning reduces overfitting." It depends on who is compared, and by what:

- **Against random weights, at the same training accuracy: yes, on flowers.** Where both know their photos by heart, the gap of scratch is larger by {link('equal_flowers_2')} ± {link('equal_flowers_2_reach')} and {link('equal_flowers_5')} ± {link('equal_flowers_5_reach')}. On solar cells and textiles no difference can be seen. Of all such cells it is plainly larger in {link('equal_plain')} of {link('equal_cells')}.
- **Against random weights, by the gap alone: no.** In {link('scratch_smaller')} of {link('cells')} cells scratch has the smaller gap, mostly because it has learned less.
- **Pre-training does not prevent memorising.** With two or five photos a class what starts from ImageNet has nearly all of its own photos right.
- **Does freezing reduce it?** In the answers, no plain harm of training was seen: full fine-tuning is plainly less accurate than frozen features in {link('all_hurts')} of {link('cells')} cells. In the probabilities it depends on the photos: on flowers and solar cells with few photos those of the methods that train layers are plainly worse, on faces those of the last stage and of LP-FT are better.

So the careful sentence is: *what a pre-trained network learns from few photos mostly carries further than what a new one learns. Training its layers as well was not seen to make its answers worse; it can make it far too sure of them.*

The limits: one small network, one recipe with its epochs fixed, one learning rate a method for all data, at most 500 test photos (98 for faces), and four data sets. Longer training would let scratch memorise more.

*Photos of solar cells: ELPV data set, CC BY-NC-SA 4.0 {{cite:p}}`Buerhop2018,Deitsch2021`.*
"""),
    md(r"""
## Take-aways

- The gap mixes two things: how much is learned by heart, and how far it carries. A classifier that looks at nothing has the smallest.
- Compare gaps at the same training accuracy, or ask for the definition: lower loss on its own photos, higher on others, than something simpler.
- Pre-trained networks memorise too. What they memorise carries further.
- Training everything on a handful of photos can be a lottery: look at several draws before you believe one.
- Look at the loss. A network can be worse than no answer at all and still have a decent accuracy.
"""),
    md(r"""
## Questions

Answer in a sentence or two, then unfold.

<details>
<summary>Give a classifier with a gap of zero that nobody wants.</summary>

One that draws its answer by lot, or always gives the same one on balanced classes: it is as bad on its own photos as on others.

</details>

<details>
<summary>Why may the frozen network stand for "a simpler classifier" when full fine-tuning is judged?</summary>

It is one of those that full fine-tuning could have found: leave all layers as they are and fit the last one. If it has a higher loss on the training photos and a lower one on others, training has gone past it.

</details>

<details>
<summary>Two networks have all of their own photos right. One has a gap of ten points, the other of forty. Which has more weights?</summary>

That cannot be said. The two heads of the first section have about as many weights and the same training accuracy, and on mirrored faces their gaps are far apart: what the numbers mean makes the difference.

</details>

<details>
<summary>Head first, then everything, trains as many numbers as everything at once. Why might it hurt less with few photos?</summary>

When the last layer already fits, the first gradients are small and point somewhere sensible, so the layers below stay near what they were. While the head is hardly fitted, the gradients below say little, and the optimiser takes full steps along them all the same. (Here the learning rate was smaller as well.)

</details>

<details>
<summary>Two classifiers have the same 90 of 100 test photos right. Two others have 90 right each, but not the same. Which pair has the wider interval for its difference?</summary>

The second. What two classifiers have in common cancels in the difference; only photos on which they differ could have fallen otherwise. The first pair differs on none.

</details>
"""),
    md(r"""
## Exercises

Three exercises go with this chapter: the method that the gap praises, labels drawn by lot, and where the loss goes furthest astray.
{doc}`solutions/13_overfitting` has them with their solutions folded away. To work on them, open
`notebooks/exercises/13_overfitting.ipynb`, which has the questions only.
"""),
]

SOLUTIONS = [
    md(r"""
# Exercises: overfitting

Three exercises to {doc}`../13_overfitting`. Each asks for an answer in a form that `tl.check` can read. It says *right*,
or *not yet* with a hint; with `...` in place of an answer it says how to begin. Guess first, then measure.

**Needs** chapter 13. **Takes** about 40 minutes, and under a minute of computing.
"""),
    md(r"""
## What the exercises need

The table of the map, and 40 solar cells with the features of the frozen network.
"""),
    code(r"""
import csv
from pathlib import Path

import numpy as np

import tlhelpers as tl

stored = Path("../../experiments/results/decision_map.csv")
with stored.open(newline="", encoding="utf-8") as file:
    lines = list(csv.DictReader(file))
"""),
    code(r"""
pool, test = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)
few, some = pool.sample(per_class=20, seed=0), test.subset(slice(0, None, 2))
backbone = tl.load_backbone("efficientnet_lite0", image_size=128)
own = tl.extract_features(few, backbone)
others = tl.extract_features(some, backbone)
"""),
    md(r"""
## 13.1 What the gap praises

Flowers, 100 photos a class. Which of the five methods has the smallest mean gap (accuracy on its own photos less accuracy on test photos, mean over the draws), and how large is it? How high is the accuracy of this method on test photos?

`answer`: a dictionary with the keys "gap" and "accuracy", each a fraction, such as 0.12.
"""),
    code(r"""
answer = ...

tl.check("13.1", answer)
"""),
    *fold(
        code(r"""
found = {}
for line in lines:
    if (line["dataset"], line["photos"]) == ("flowers", "100"):
        pair = float(line["train_accuracy"]), float(line["accuracy"])
        found.setdefault(line["method"], []).append(pair)
means = {method: np.mean(pairs, axis=0) for method, pairs in found.items()}
praised = min(means, key=lambda method: means[method][0] - means[method][1])
own_right, right = means[praised]
answer = {"gap": own_right - right, "accuracy": right}
print(praised)
tl.check("13.1", answer)
"""),
        code(r"""
best = max(means, key=lambda method: means[method][1])
tl.claims.check("13.praised_gap", 100 * answer["gap"])
tl.claims.check("13.praised_accuracy", answer["accuracy"])
tl.claims.check("13.best_accuracy", means[best][1])
print(best)
"""),
        md(f"""
The smallest gap is {link('praised_gap')}, and that method is right on {link('praised_accuracy')} of the test photos. The best of the five is right on {link('best_accuracy')}, and has a gap nearly twice as large.

Two mistakes: the gap the wrong way round, and the accuracy on its own photos.
"""),
        code(r"""
assert not tl.check("13.1", {**answer, "gap": -answer["gap"]})
assert not tl.check("13.1", {**answer, "accuracy": own_right})
"""),
    ),
    md(r"""
## 13.2 Labels drawn by lot

Give the 40 solar cells labels by lot: `by_lot` below. Standardise the features by the mean and deviation of the 40, and fit `LogisticRegression(C=1000, max_iter=1000)`. On what fraction of the 40 does it say what the lot said? And on what fraction of the test photos in `some` is it right, by their true labels?

`answer`: a dictionary with the keys "own" and "others", each a number between 0 and 1.
"""),
    code(r"""
by_lot = np.random.default_rng(0).permutation(few.labels)

answer = ...

tl.check("13.2", answer)
"""),
    *fold(
        code(r"""
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

scale = StandardScaler().fit(own)
head = LogisticRegression(C=1000, max_iter=1000)
head.fit(scale.transform(own), by_lot)
answer = {"own": head.score(scale.transform(own), by_lot),
          "others": head.score(scale.transform(others), some.labels)}
print(answer)
tl.check("13.2", answer)
"""),
        code(r"""
tl.claims.check("13.random_own", answer["own"])
tl.claims.check("13.random_others", answer["others"])
"""),
        md(f"""
It has learned {link('random_own')} of what the lot said, and is right on {link('random_others')} of the others, a number that another lot would move up or down: on the average it is one half. A frozen network, of which nothing trains but a last layer, learns any labels by heart if it has more features than photos. So a training accuracy of one says nothing about what was understood.

Two mistakes: true labels where the lot should stand, and judging the others by a lot as well.
"""),
        code(r"""
true = LogisticRegression(C=1000, max_iter=1000)
true.fit(scale.transform(own), few.labels)
mistake = {"own": true.score(scale.transform(own), few.labels),
           "others": true.score(scale.transform(others), some.labels)}
print(mistake)
assert not tl.check("13.2", mistake)
low = true.score(scale.transform(own), by_lot)
assert not tl.check("13.2", {**answer, "own": low})
"""),
    ),
    md(r"""
## 13.3 Where the loss goes astray

Solar cells. With which number of photos a class is the log loss of full fine-tuning (`all_layers`) on test photos largest, relative to that of frozen features with the same number? Take the mean loss over draws of the one divided by the mean loss of the other. Leave "all" out.

`answer`: a dictionary with the keys "photos", a whole number, and "ratio".
"""),
    code(r"""
answer = ...

tl.check("13.3", answer)
"""),
    *fold(
        code(r"""
def loss_of(method, photos, column="loss"):
    wanted = {"dataset": "solar_cells", "method": method, "photos": photos}
    return np.mean([float(line[column]) for line in lines
                    if wanted.items() <= line.items()])


ratios = {photos: loss_of("all_layers", photos)
          / loss_of("feature_extraction", photos)
          for photos in ("2", "5", "10", "25", "50", "100")}
worst = max(ratios, key=ratios.get)
answer = {"photos": int(worst), "ratio": ratios[worst]}
tl.check("13.3", answer)
"""),
        code(r"""
for photos, ratio in ratios.items():
    print(f"{photos:>3} photos a class: {ratio:.2f}")
tl.claims.check("13.largest_ratio", ratios[worst])
tl.claims.check("13.largest_photos", int(worst))
"""),
        md(f"""
{link('largest_ratio')} times the loss of frozen features, with {link('largest_photos')} photos a class: a cell in which no difference in accuracy can be seen. The network that trained is far surer of itself there, and no better.

Two mistakes: the ratio upside down, and the loss on its own photos.
"""),
        code(r"""
assert not tl.check("13.3", {**answer, "ratio": 1 / ratios[worst]})
own_ratio = (loss_of("all_layers", worst, "train_loss")
             / loss_of("feature_extraction", worst, "train_loss"))
assert not tl.check("13.3", {**answer, "ratio": own_ratio})
"""),
    ),
]

# What tl.check expects; the answers are those that the solutions find on the true table (13.2 does not depend on it).
EXERCISES = {
    "13.1": {
        "title": "What the gap praises", "begin": 'Give a dictionary with the keys "gap" and "accuracy", each a fraction such as 0.12.',
        "tolerance": 0.003, "hint": "For each method take the mean of train_accuracy - accuracy over the lines with dataset flowers and photos 100; the smallest wins.",
        "wrong": ["The gap is the accuracy on its own photos less that on others.", "That is the accuracy on its own photos. Give that on test photos."],
    },
    "13.2": {
        "title": "Labels drawn by lot", "begin": 'Give a dictionary with the keys "own" and "others", each a number between 0 and 1.', "tolerance": 0.02,
        "hint": "Fit on the 40 scaled features with by_lot, score on the same 40 with by_lot, and on the others with their true labels.",
        "wrong": ["That head learned the true labels. Fit it with by_lot.", "That head has not seen the lot: fit it with by_lot, and score the 40 with by_lot."],
    },
    "13.3": {
        "title": "Where the loss goes astray", "begin": 'Give a dictionary with the keys "photos", a whole number, and "ratio".', "tolerance": {"photos": 0.5, "ratio": 0.01},
        "hint": "For each number of photos divide the mean loss of all_layers by the mean loss of feature_extraction, on solar_cells, and take the largest.",
        "wrong": ["Upside down: divide the loss of full fine-tuning by that of frozen features.", "Those are losses on their own photos. Take the column loss."],
    },
}


def build(root):
    save(root, NAME, CHAPTER, SOLUTIONS)
