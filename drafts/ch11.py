"""Builds chapter 11, "Better?", and its exercises. See making.py for the form, run.py to try it.

Claims (id: how it is computed):
    11.lines                            lines of the table
    11.DATA_METHOD_PHOTOS               accuracy of a cell, mean over draws; all cells, quoted in the folded tables
    11.DATA_all                         photos a class with all photos, mean over classes
    11.again, 11.again_stored, _reach   faces, 2 photos, feature extraction: measured by the notebook; table; half of its interval
    11.DATA_gain_PHOTOS, _reach         feature extraction minus scratch, paired, in points; fewest photos and all
    11.DATA_tuned_PHOTOS, _reach        the same for all_layers
    11.better, 11.same, 11.worse        number of comparisons with scratch whose interval lies above, across, below zero
    11.DATA_worth_PHOTOS, _low, _high   photos a class that scratch needs for what feature extraction has with PHOTOS (only where the
                                        curve from scratch reaches it; else the text says "more than 11.DATA_all")
Tolerance: all but 11.again are read from the table: a tenth of the last digit shown.
"""

# ruff: noqa: E501 - a paragraph of a notebook is one line

from making import Pages, link, table

NAME = "11_better"
NAMES = {"faces": "faces", "flowers": "flowers", "solar_cells": "solar cells", "textiles": "textiles"}
METHODS = {
    "scratch": "from scratch", "feature_extraction": "feature extraction", "last_stage": "last stage", "all_layers": "all layers", "lp_ft": "LP-FT",
}  # fmt: skip
EXPERIMENT = "experiments/decision_map.py"
TEST = {"faces": 98, "flowers": 500, "solar_cells": 500, "textiles": 500}  # RESULT: test photos that judge
SEVEN = {"solar_cells": 2, "flowers": 5, "textiles": 3}  # data sets with all seven numbers of photos, and their classes
WORTH = ("2", "5")

CLAIMS = {}
EXERCISES = {
    "11.1": {
        "title": "How much is shared",
        "begin": 'Give a dictionary with the keys "gain", "paired" and "apart", in points.',
        "tolerance": 0.02,
        "hint": "Points are per cent of accuracy. Half of an interval is t times the standard error, with t.ppf(0.975, degrees of freedom).",
        "wrong": [
            "1.96 is for very many draws. How many degrees of freedom have these?",
            "That divides by n. With few draws take ddof=1.",
            "Which of the two shall lie above the other?",
        ],
    },
    "11.2": {
        "title": "The other way round",
        "begin": "Give one number: photos a class.",
        "tolerance": 0.25,
        "hint": "The accuracy of scratch with all photos is the target; go along the curve of feature extraction until it gets there.",
        "wrong": [
            "That goes in a straight line from number to number. The steps are multiples: go along the logarithm.",
            "That is a logarithm. Turn it back.",
        ],
    },
    "11.3": {
        "title": "Three draws",
        "begin": 'Give a dictionary with the keys "normal" and "student", each a fraction between 0 and 1.',
        "tolerance": 0.01,
        "hint": "Draw three numbers, make the interval, ask whether 0 is in it; many thousand times, and take the part.",
        "wrong": [
            "That divides by n. np.std does, unless you say ddof=1.",
            "That is the interval for a single draw. The mean of three scatters less.",
        ],
    },
}


def build(root):
    CLAIMS.clear()
    solutions(root, data_for_exercise(chapter(root)))


def data_for_exercise(space):
    """Of 11.2: the first data set in which feature extraction gets to what the network from scratch has with all photos."""
    for data in SEVEN:
        ends = [space["cell"](data, "feature_extraction", photos)[0] for photos in ("2", "all")]
        if ends[0] < space["cell"](data, "scratch", "all")[0] < ends[1]:
            return data
    raise SystemExit("11.2 needs a data set in which feature extraction crosses what scratch has with all photos; there is none: ask something else")


# --- the chapter ------------------------------------------------------------------------------------------------------------


def chapter(root):
    page = Pages(root, NAME)
    md, code, check, space = page.md, page.code, page.check, page.space
    md("""
# Better?

"Transfer learning improves accuracy." You read this sentence often, and seldom with a number. In this chapter you hold a network that starts from ImageNet against the same network
that starts from nothing, on four data sets, from two photos a class to all there are. Then you ask what the pre-training is worth in a unit that everybody knows: photos.

**After this chapter you will be able to**

- read a learning curve, and say of each point how sure it is, and of what;
- compare two methods in pairs, and keep "no difference that we can see" apart from "no difference";
- say how many photos a pre-training is worth, with an interval, and when a table cannot tell;
- say for which data and how many photos the sentence was found true here, and what has not been tried.

**Needs** {doc}`08_fine_tuning` and {doc}`10_small_data_big_tricks`. **Takes** about 45 minutes to read and do, and half a minute of computing on two cores.
Nothing is downloaded.
""")
    md("""
## What is compared

One network, EfficientNet-Lite0, five ways to get a classifier out of it:

| method | starts from | what trains |
|---|---|---|
| *scratch* | random weights | everything, and BatchNorm's statistics with it; twice the epochs |
| *feature extraction* | ImageNet | nothing: logistic regression on its features, all on one scale, which serves few photos better ({doc}`05_few_shots`) |
| *last stage* | ImageNet | the last stage and the last layer ({doc}`08_fine_tuning`); four times the epochs, for each costs little |
| *all layers* | ImageNet | everything but BatchNorm's statistics, from a last layer of zeros |
| *LP-FT* (linear probing, then fine-tuning) | ImageNet | the last layer on frozen features first, then the same as before {cite:p}`Kumar2022` |

The epochs are 4, but at least 640 photos are seen, unless the table says otherwise.

Four data sets. *Faces*, *solar cells* and *textiles* you know. *Flowers* are colour photos of five kinds, the nearest to ImageNet that we have: one of the five, the daisy, is one of its 1,000
classes, the other four are not. (They are no part of the book's packages; `tl.load_dataset("flowers")` downloads them. What is measured on them is read from the stored table.) Photos are 128 × 128, textiles as
they are, 250 × 250, because a defect there is a few pixels wide.

A quarter of each data set is set aside for tests, once; up to 500 of these photos judge. Photos that stand twice in a data set are removed first. From the rest each *{term}`draw`* takes 2, 5, 10, 25, 50 or 100 photos of each class, or all. Each method learns
from the same draws: five draws where a classifier costs seconds, three where it costs minutes. One recipe serves all data sets. The learning rate of each method was chosen once, on training photos, from two candidates (the one with the lower log loss in the mean over faces, flowers and solar cells), and the epochs of the last stage with it; no test photo took part in any choice.
`experiments/decision_map.py` has done all of it. Its table has a line for each classifier.
""")
    code("""
import csv
from pathlib import Path

import numpy as np

stored = Path("../experiments/results/decision_map.csv")
with stored.open(newline="", encoding="utf-8") as file:
    lines = list(csv.DictReader(file))
data_sets = tuple(dict.fromkeys(line["dataset"] for line in lines))
methods = tuple(dict.fromkeys(line["method"] for line in lines))
""", now=True)  # fmt: skip
    code("""
def values(data, method, photos, column="accuracy", read=float):
    # draw → value
    wanted = {"dataset": data, "method": method, "photos": photos}
    found = {int(line["seed"]): read(line[column])
             for line in lines if wanted.items() <= line.items()}
    if len(found) == 1:  # nothing left to chance: it stands for each draw
        found = dict.fromkeys(range(3), found[0])
    return found
""", now=True)  # fmt: skip
    code("""
def steps(data):
    # numbers of photos a class, as the table writes them
    return list(dict.fromkeys(line["photos"] for line in lines
                              if line["dataset"] == data))


def number(data, photos):
    # photos a class; of "all", the mean over the classes
    n, two = (values(data, "scratch", each, "n_train")[0]
              for each in (photos, "2"))
    return 2 * n / two
""", now=True)  # fmt: skip
    md("""
A *cell* of the table is one data set, one method and one number of photos. `values` reads one column of a cell, `steps` says which numbers of photos there are, and `number` how many photos a class that makes: two a class are twice as many photos as there are classes, which gives the number of classes.
""")
    code("""
for data in data_sets:
    counts = " ".join(f"{number(data, each):.0f}" for each in steps(data))
    learn = values(data, "scratch", "all", "n_train")[0]
    judge = values(data, "scratch", "all", "n_test")[0]
    print(f"{data:<12} {learn:>5.0f} photos to learn from, {judge:.0f} judge;",
          "a class:", counts)
""", now=True)  # fmt: skip
    check("""
import tlhelpers as tl

tl.claims.check("11.lines", len(lines))
for data in data_sets:
    tl.claims.check(f"11.{data}_all", number(data, "all"))
""")
    claim("lines", "Classifiers in the table of the decision map.")
    for data in NAMES:
        claim(f"{data}_all", f"{NAMES[data].capitalize()}: photos a class to learn from when all are taken, mean over the classes.", digits=0)
    md(f"""
{link("11.lines")} classifiers. Faces end after a few steps, for a person has ten photos and some of these are for tests. There are forty persons, five kinds of flowers, two of solar cells and three of textiles. With all photos a class has {link("11.faces_all")} in the mean on faces, {link("11.flowers_all")} on flowers, {link("11.solar_cells_all")} on solar cells and {link("11.textiles_all")} on textiles.
With all of them, "draws" differ in nothing but the order of the photos and the random numbers of the training; feature extraction has neither, so one line stands for each.

## One cell by hand

A table is only as good as your trust in it. Take one of its cells and fill it yourself: faces, two photos a person, feature extraction. First the photos that everybody shares.
""")
    code("""
faces = tl.load_dataset("faces")
first = np.unique(tl.duplicate_groups(faces), return_index=True)[1]
pool, test = faces.subset(np.sort(first)).split(test_size=0.25, seed=0)
backbone = tl.load_backbone("efficientnet_lite0", image_size=128)
test_features = tl.extract_features(test, backbone)
len(pool), len(test)
""")
    code("""
again = []
for seed in range(5):
    few = pool.sample(per_class=2, seed=seed)
    features = tl.extract_features(few, backbone)
    head = tl.train_head(features, few.labels, scale="one", seed=seed)
    said = head.predict_proba(test_features).argmax(axis=1)
    again.append(np.mean(said == test.labels))
there = np.array(list(values("faces", "feature_extraction", "2").values()))
print("again:", np.round(again, 3), " stored:", there.round(3))
""")
    md("""
Five draws, five accuracies, by the code of chapter 3. The same photos went in, so the same numbers should come out, up to the last digits in which processors differ. That is one question. The other is how far *other* photos would have moved them.

## How sure is a cell?

Two things are left to chance. Other photos to learn from, and other random numbers in the training, would give another classifier: that is what the draws show, and their mean has Student's interval, $t\\, s / \\sqrt{k}$ for $k$ draws with
standard deviation $s$. And other photos to *judge by* would give another verdict. All draws share their test photos, so no draw shows this; it has to be added. Of $n$ test photos a part $p$ is right, and the standard error of $p$ is $\\sqrt{p (1 - p) / n}$. (Add two right and two wrong photos first, so that
a perfect score does not look certain.) The two have nothing to do with each other, so their squares add up.
""")
    code("""
from scipy.stats import t


def of_draws(found):
    # half of the 95 % interval of a mean over draws
    k = len(found)
    return t.ppf(0.975, k - 1) * np.std(found, ddof=1) / np.sqrt(k)


def of_test_photos(data, accuracy):
    # half of the interval over other test photos, squared
    n = values(data, "scratch", "2", "n_test")[0]
    p = (accuracy * n + 2) / (n + 4)
    return 1.96**2 * p * (1 - p) / (n + 4)
""", now=True)  # fmt: skip
    code("""
def cell(data, method, photos):
    # accuracy, and half of its interval
    found = list(values(data, method, photos).values())
    mean = np.mean(found)
    return mean, np.sqrt(of_draws(found) ** 2 + of_test_photos(data, mean))


mean, reach = cell("faces", "feature_extraction", "2")
assert abs(np.mean(again) - mean) <= 0.012  # six verdicts of 490
print(f"stored {mean:.3f} ± {reach:.3f}, of which draws {of_draws(there):.3f};",
      f"again {np.mean(again):.3f}")
""", now=False)  # fmt: skip
    exec(page.cells[-1].source.split("\n\n\nmean")[0], space)
    check("""
tl.claims.check("11.again", np.mean(again))
tl.claims.check("11.again_stored", mean)
tl.claims.check("11.again_reach", 100 * reach)
""")
    claim("again", "Faces, two photos a person, feature extraction at 128 pixels: mean accuracy over five draws, measured in the notebook.",
          unit="%", digits=1, photos=98, seeds="draws with seeds 0 to 4", experiment=None, tolerance=0.012,
          why="the network computes in float32 and the five draws share 98 test photos: six verdicts of 490 may fall the other way")  # fmt: skip
    claim("again_stored", "The same in the stored table.", unit="%", digits=1, photos=98, seeds="draws with seeds 0 to 4")
    claim("again_reach", "Half of its 95 % interval, over draws and test photos.", unit="points", digits=1, photos=98, seeds="draws with seeds 0 to 4")
    md(f"""
{link("11.again")} here, {link("11.again_stored")} in the table, which with other photos might have been ± {link("11.again_reach")}. Any other cell, also those that take minutes, is measured again and held against its interval by one command:

```
python -m experiments.decision_map --part tuned_few --cell faces/all_layers/2 --again
```

## Accuracy against photos a class

Now all cells. Photos go along a logarithmic axis, for the steps of the table are multiples. A thin line shows what a guess would have.
""")
    code("""
import matplotlib.pyplot as plt

plt.style.use(tl.plots.STYLE)
looks = {"scratch": ("scratch", "#000000", "x", ":"),
         "feature_extraction": ("feature extraction", "#0072B2", "o", "-"),
         "last_stage": ("last stage", "#56B4E9", "s", "--"),
         "all_layers": ("all layers", "#D55E00", "^", "-."),
         "lp_ft": ("LP-FT", "#009E73", "D", (0, (5, 1)))}
titles = {data: data.replace("_", " ") for data in data_sets}
""")
    code("""
def curve(axis, data, method, shift):
    label, colour, mark, dash = looks[method]
    points = [cell(data, method, each) for each in steps(data)]
    mean, reach = 100 * np.array(points).T
    at = np.array([number(data, each) for each in steps(data)]) * 1.06**shift
    bars = mean - np.maximum(mean - reach, 0), np.minimum(reach, 100 - mean)
    axis.errorbar(at, mean, bars, color=colour, marker=mark, ls=dash,
                  markersize=4.5, capsize=2, lw=1.2, label=label)
""")
    code("""
figure, axes = plt.subplots(2, 2, figsize=(9, 6.6))
for axis, data in zip(axes.flat, data_sets):
    for shift, method in enumerate(methods):
        curve(axis, data, method, shift - 2)
    ticks = [round(number(data, each)) for each in steps(data)]
    guess = 200 / values(data, "scratch", "2", "n_train")[0]
    axis.axhline(guess, color="#999999", lw=0.8)
    axis.set(title=titles[data], xscale="log", xticks=ticks, ylim=(0, 103),
             xticklabels=ticks, xlabel="photos a class",
             ylabel="accuracy on test photos, %")
    axis.minorticks_off()
figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=5,
              loc="outside upper center");
""", alt="Four panels, faces, flowers, solar cells and textiles: accuracy on test photos against photos a class, one line with bars for each of five methods. On faces and flowers the dotted line of the network from scratch lies far below the other four, which lie close together. On textiles it lies lowest with two and five photos a class, among the others from ten on, and at the top, with all layers and LP-FT, when all are taken. On solar cells all five lie together, and their bars are long and overlap nearly everywhere.")  # fmt: skip
    tables = "\n\n".join(accuracies(space, data) for data in space["data_sets"])
    md("""
Points are means over draws, bars their intervals, drawn a little apart so that they can be told from each other (and cut off where accuracies end). The dotted line is *scratch*.

On flowers and faces the four lines that start from ImageNet lie far above it, all the way. On faces it does not get far at all with the six to eight photos of a person that there are. On solar cells nothing of the kind is to be seen at the left: with two, five or ten photos a class all five lie together, as far as these bars can tell. And on textiles *scratch* begins below, is among the others from ten photos a class on, and ends at the top.

Many bars are long. Three draws leave Student's $t$ at 4.3; with few photos a draw matters; and so does the luck of the training, which from random weights is great even with the very same photos. Overlapping bars are no verdict, though: all methods learned from the same draws and were judged by the same photos. For that, compare in pairs.
""")
    check("""
for data in data_sets:
    for method in methods:
        for photos in steps(data):
            tl.claims.check(f"11.{data}_{method}_{photos}",
                            cell(data, method, photos)[0])
""", "hide-output")  # fmt: skip
    md(f"""
**The numbers behind the figure**: accuracy, mean over draws, by photos a class.

{tables}
""")
    md("""
## In pairs

Draw by draw, by how much does a method lie above *scratch*? (Over the draws that both have, so that means differ a little from those of the table.) The mean of these differences has Student's interval as before. And the test photos? Both methods were judged by the same, and mostly find the same ones difficult. What they have in common
cancels in the difference, so here only those photos count on which they *differ*. The table keeps, for each classifier, which test photos it had right: a bit for each. Subtract these bits photo by photo, take the mean over draws, and the spread of what remains says how far the verdict would move with other test photos. (Of $n$ photos, two more are added, one for each side, so that two methods
that never differ do not look certain {cite:p}`Bonett2012`.)
""")
    code("""
def bits(text):
    # 1 for each test photo that was right, and a few zeros at the end
    row = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.unpackbits(row).astype(float)


bits(lines[-1]["right"])[:12]
""", now=True)  # fmt: skip
    code("""
def difference(data, photos, method, other="scratch"):
    # points of accuracy more, paired, and half of the interval
    here, there = (values(data, each, photos, "right", bits)
                   for each in (method, other))
    draws = sorted(here.keys() & there.keys())
    more = np.array([here[draw] - there[draw] for draw in draws])
    n = values(data, "scratch", "2", "n_test")[0]
    a_photo, a_draw = more.mean(axis=0), 100 * more.sum(axis=1) / n
    square = (np.sum(a_photo**2) + 2) / (n + 2)
    variance = (square - (a_photo.sum() / (n + 2)) ** 2) / (n + 2)
    return a_draw.mean(), np.hypot(of_draws(a_draw), 196 * variance**0.5)
""", now=True)  # fmt: skip
    md("""
An interval that lies above zero says *better*, one below zero *worse*. If it contains zero, there is no difference *that we can see*. Count all comparisons.
""")
    code("""
def verdict(mean, reach):
    # "same": no difference that we can see
    return "same" if abs(mean) <= reach else "better" if mean > 0 else "worse"


counts = dict.fromkeys(("better", "same", "worse"), 0)
for data in data_sets:
    for method in methods[1:]:
        for photos in steps(data):
            counts[verdict(*difference(data, photos, method))] += 1
counts
""", now=True)  # fmt: skip
    code("""
figure, axes = plt.subplots(1, 4, figsize=(9.4, 3.4), sharey=True)
for axis, data in zip(axes, data_sets):
    for shift, method in enumerate(methods[1:]):
        label, colour, mark, _ = looks[method]
        points = [difference(data, each, method) for each in steps(data)]
        at = np.arange(len(points)) + 0.17 * (shift - 1.5)
        axis.errorbar(at, *np.array(points).T, color=colour, fmt=mark,
                      markersize=4, capsize=1.5, lw=1, label=label)
    axis.axhline(0, color="#444444", lw=0.8)
    axis.set(title=titles[data], xlabel="photos a class", ylim=(-60, 100))
    axis.set_xticks(range(len(points)), steps(data), rotation=45)
axes[0].set_ylabel("accuracy above scratch, points")
figure.legend(*axes[0].get_legend_handles_labels(), ncols=4,
              loc="outside upper center");
""", alt="Four panels, one a data set: how many points of accuracy each of the four methods that start from ImageNet has above the network from scratch, by photos a class, with intervals and a line at zero. On faces and flowers all intervals lie above the line. On solar cells most cross it up to 50 photos a class. On textiles most cross it with up to 100 photos a class; with all, feature extraction and the last stage lie below it, the other two on it.")  # fmt: skip
    check("""
for kind in counts:
    tl.claims.check(f"11.{kind}", counts[kind])
for data in data_sets:
    for photos in (steps(data)[0], "all"):
        for name, method in (("gain", methods[1]), ("tuned", "all_layers")):
            for end, value in zip(("", "_reach"),
                                  difference(data, photos, method)):
                tl.claims.check(f"11.{data}_{name}_{photos}{end}", value)
""")
    ways = {"better": "whole interval lies above zero", "same": "interval contains zero", "worse": "whole interval lies below zero"}
    for kind, words in ways.items():
        claim(kind, f"Comparisons with scratch (data set, method, photos a class) in which the {words}.")
    rows = []
    for data in space["data_sets"]:
        for photos in (space["steps"](data)[0], "all"):
            said = []
            for name, method in (("gain", "feature_extraction"), ("tuned", "all_layers")):
                id = f"{data}_{name}_{photos}"
                claim(id, f"{NAMES[data].capitalize()}, {many(photos)}: accuracy of {METHODS[method]} minus that from scratch, mean of paired differences.",
                      unit="points", digits=1, photos=TEST[data], seeds=seeds(photos))  # fmt: skip
                claim(f"{id}_reach", "Half of its 95 % interval, over draws and test photos.", unit="points", digits=1, photos=TEST[data], seeds=seeds(photos))
                kind = space["verdict"](*space["difference"](data, photos, method))
                said += [f"{link('11.' + id)} ± {link('11.' + id + '_reach')}", {"same": "no difference that we can see"}.get(kind, kind)]
            rows.append([NAMES[data], photos, *said])
    md(f"""
Of all comparisons with *scratch*, {link("11.better")} are clear in favour of transfer, {link("11.worse")} against it, and in {link("11.same")} no difference is to be seen. At both ends of each curve:

{table(["data", "photos a class", "feature extraction above scratch", "", "all layers above scratch", ""], rows)}

**On faces and flowers each method that starts from ImageNet is better than *scratch*, with each number of photos.** With two photos of each flower that is more than twenty points.

**On solar cells with few photos nothing is to be seen**, and the intervals are so wide that they could hide a good deal either way. With all of them each of the four methods is ahead, by seven to nine points.

**On all textiles, a frozen network is *worse* than one from scratch, by far.** *Scratch* has three of 500 test photos wrong in one training and none in the others; all layers and LP-FT have none wrong. Frozen features of ImageNet have about one in five wrong. The defects are a few pixels wide, there are 500 photos of each class, and the photos are made by a simulation that draws all of them by one rule: a network that may change its layers finds the rule, and one that may not does not. It does not take ImageNet to find it. With fewer photos intervals are too wide for a verdict on feature extraction: with two photos a class it is ahead by a good deal, with 25 it is behind, and neither is plain. What *is* plain is that all layers are ahead with 50 and with 100 photos a class.

Do *similar* photos gain most, as the rule of thumb has it? With two photos a class faces gain most, not flowers, which are nearest to ImageNet. Points are a poor yardstick for that: of forty persons a guess finds one in forty, of five flowers one in five, so there is less to gain. Chapter 14 measures "similar", and asks again.

(The comparisons of a row share the same runs from scratch, so the counts above are no counts of independent findings. And with all photos, these intervals know nothing of other photos to learn from.)

## What the accuracy of solar cells hides

Something is odd about the solar cells. With five photos a class feature extraction is right on little more than half of them. There are two classes, but the test photos are not balanced: most cells work. Which photos were right is in the table, bit by bit, so the accuracy can be had for each class by itself, if the 500 test photos are chosen again as the experiment chose them. The mean of the two is the *{{term}}`balanced accuracy`*: a constant answer has one half.
""")
    code("""
cells = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)[1]
chosen = np.random.default_rng(0).permutation(len(cells))[:500]
labels = cells.subset(np.sort(chosen)).labels
constant = np.mean(labels == 0)  # always "functional"


def by_class(found):
    # draws × photos → balanced, one for each draw
    return np.mean([found[:, labels == label].mean(axis=1)
                    for label in (0, 1)], axis=0)
""")
    code("""
def even(photos):
    # balanced: feature extraction, scratch, the difference and its reach
    here, there = (values("solar_cells", method, photos, "right", bits)
                   for method in ("feature_extraction", "scratch"))
    here, there = (np.array([found[draw][:500] for draw in range(3)])
                   for found in (here, there))
    more, a_draw = here - there, 100 * (by_class(here) - by_class(there))
    variance = sum(more[:, labels == label].mean(axis=0).var()
                   / np.sum(labels == label) for label in (0, 1)) / 4
    return (by_class(here).mean(), by_class(there).mean(), a_draw.mean(),
            np.hypot(of_draws(a_draw), 196 * variance**0.5))
""")
    code("""
print(f"always the same answer: {constant:.1%}; balanced, three draws:")
for photos in steps("solar_cells"):
    frozen, scratch, more, reach = even(photos)
    print(f"{photos:>3}: feature extraction {frozen:.1%}, scratch {scratch:.1%},"
          f" difference {more:+.1f} ± {reach:.1f} points")
""")
    check("""
tl.claims.check("11.solar_constant", constant)
for photos in ("2", "10", "100", "all"):
    for name, value in zip(("f", "s", "more", "reach"), even(photos)):
        tl.claims.check(f"11.even_{name}_{photos}", value)
""")
    claim("solar_constant", "Solar cells: accuracy on the test photos of the map of an answer that is always functional.", unit="%", digits=1, photos=500)
    for photos in ("2", "10", "100", "all"):
        for name, words in (("f", "feature extraction"), ("s", "the network from scratch")):
            claim(f"even_{name}_{photos}", f"Solar cells, {many(photos)}: balanced accuracy of {words}, mean over three draws.", unit="%", digits=1, photos=500, seeds="draws with seeds 0 to 2")
        claim(f"even_more_{photos}", f"Solar cells, {many(photos)}: balanced accuracy of feature extraction minus that from scratch, in pairs.", unit="points", digits=1, photos=500, seeds="draws with seeds 0 to 2")
        claim(f"even_reach_{photos}", "Half of its 95 % interval, over draws and test photos.", unit="points", digits=1, photos=500, seeds="draws with seeds 0 to 2")
    said = {photos: (link(f"11.even_f_{photos}"), link(f"11.even_s_{photos}"), f"{link(f'11.even_more_{photos}')} ± {link(f'11.even_reach_{photos}')}") for photos in ("2", "10", "100", "all")}
    md(f"""
**Always answering "functional" has {link("11.solar_constant")} right.** With two or five photos a class none of the methods reaches that: they learned from as many defective cells as functional ones, and expect to meet as many. So the accuracies of this data set are hard to read. (On textiles half of the test photos have no defect, so a constant answer has one half there.)

By balanced accuracy, feature extraction has {said["2"][0]} with two photos a class and *scratch* {said["2"][1]}: both are hardly better than a coin, and {said["2"][2]} apart. With ten it is {said["10"][0]} and {said["10"][1]}: both have learned something, and still no difference is to be seen, {said["10"][2]}. With 100 photos a class it is {said["100"][0]} against {said["100"][1]}, {said["100"][2]}, with all of them {said["all"][0]} against {said["all"][1]}, {said["all"][2]}.

**With few solar cells we cannot see that pre-training helps. With all of them it does**, by both measures.

## What is the pre-training worth?

"Twenty points better" is hard to weigh. What would it take to get there without ImageNet? More photos; so go along the curve of *scratch* until it has the accuracy that feature extraction has with two photos, or five, and read off how many photos that is. Between two points of the curve go straight in the *logarithm* of the photos.

The curve itself is uncertain, and so is the accuracy to be reached. So redraw the whole figure 2,000 times: each point anywhere in its interval, as likely as a normal distribution has it. More photos should not make a classifier worse, so through the points goes the nearest curve that never falls; where they go down and up, it takes their weighted mean (*isotonic regression*). The middle is read from the means; the interval leaves out the 2.5 lowest and the 2.5 highest of a hundred redrawn figures. Where the curve ends before
it gets there, the answer is *more than there are*, and may not be extrapolated into a number.
""")
    code("""
from sklearn.isotonic import IsotonicRegression


def read_off(target, curve, error, at):
    # photos a class at which a curve that never falls has the target
    fit = IsotonicRegression().fit(at, curve, sample_weight=error**-2)
    return np.exp(np.interp(target, fit.predict(at), at, right=np.inf))


def known(data, method):
    # means and standard errors along a curve
    mean, reach = np.array([cell(data, method, each)
                            for each in steps(data)]).T
    return mean, reach / 1.96
""", now=True)  # fmt: skip
    code("""
def worth(data, photos, method="feature_extraction", times=2000):
    # photos a class from scratch: middle, low, high
    rng = np.random.default_rng(0)
    at = np.log([number(data, each) for each in steps(data)])
    mean, error = known(data, "scratch")
    target, spread = np.array(known(data, method))[:, steps(data).index(photos)]
    redrawn = [read_off(rng.normal(target, spread), rng.normal(mean, error),
                        error, at) for _ in range(times)]
    ends = np.quantile(redrawn, [0.025, 0.975], method="inverted_cdf")
    return read_off(target, mean, error, at), *ends
""", now=True)  # fmt: skip
    code("""
worths = {(data, photos): worth(data, photos)
          for data in data_sets for photos in ("2", "5")}
for (data, photos), found in worths.items():
    last = number(data, "all")
    said = [f"more than {last:.0f}" if value == np.inf else "2 or fewer"
            if value < 2.0001 else f"{value:.0f}" for value in found]
    print(f"{data:<12} {photos} photos a class are worth {said[0]}",
          f"({said[1]} to {said[2]})")
""", now=True)  # fmt: skip
    check("""
for (data, photos), found in worths.items():
    for end, value in zip(("", "_low", "_high"), found):
        if 2.0001 < value < np.inf:  # "or fewer", "more than" are no claims
            tl.claims.check(f"11.{data}_worth_{photos}{end}", value)
""")
    rows = [[NAMES[data], photos, *(worth(space, data, photos, number) for number in range(3))] for data in space["data_sets"] for photos in WORTH]
    md(f"""
{table(["data", "photos a class, feature extraction", "worth, from scratch", "at least", "at most"], rows)}

On flowers, two photos of each kind and a network that knows ImageNet do as well as about a hundred without it, but the interval goes from some twenty to more than there are. It is that wide because the points of *scratch* are themselves uncertain, and because its curve rises slowly: a small difference in accuracy is a large one in photos. On faces no number of photos that exist does it. "More than" is all that can be said there: the curve of *scratch* ends below. On textiles two photos a class are worth about ten, and anything from four to some dozens. On solar cells the table cannot tell two from thirty.

This is the answer to the question of the chapter in the form in which it is most useful: before you take many more photos, *try* a pre-trained network. On flowers and faces that was worth more than the photos; on solar cells and textiles, with few, not for sure.
""")
    md("""
## What this does not say

- *Scratch* had one network, of a size that was made for a million photos. A smaller network might do better with few. That is the choice most people have, though: a network from a library, with its weights or without.
- It had twice the epochs of *all layers*, and its learning rate, one for all data sets, was chosen from two. Faces decided that choice; on flowers and solar cells the other rate had the lower log loss on the photos held out for it (the next cell). A part of its lag on flowers is this choice. With more epochs it would get further. He et al. needed just that, long training, to catch up with pre-training {cite:p}`He2019`.
- A draw has equally many photos of each class, and the test photos of solar cells and textiles have not. The step to *all* is more photos, and also the mixture of classes that the test photos have.
- Small photos, 128 pixels wide, are harder than those that the network was trained on, for all methods. At 224 the curves of faces, flowers and solar cells would lie elsewhere.
- Draws from one pool share photos, which makes intervals over draws too narrow, a little with few photos, much with five of the seven photos of a person; with all photos they share every photo. And it is a table of dozens of intervals: one in twenty may mislead.
- The weights of ImageNet were not free. Someone trained them, on more than a million photos.

*Photos of solar cells: ELPV data set, CC BY-NC-SA 4.0 {cite:p}`Buerhop2018,Deitsch2021`.*
""")
    code("""
tried = stored.with_name("decision_map_tried.csv")
with tried.open(newline="", encoding="utf-8") as file:
    rates = [line for line in csv.DictReader(file)
             if line["method"] == "scratch"]
for line in rates:
    print(f"{line['dataset']:<12} {line['photos']:>4} a class, rate "
          f"{line['learning_rate']}: {float(line['accuracy']):.1%} right,"
          f" log loss {float(line['loss']):.2f}")
held = {line["learning_rate"]: float(line["accuracy"]) for line in rates
        if (line["dataset"], line["photos"]) == ("flowers", "100")}
""")
    check("""
tl.claims.check("11.rate_taken", held["0.003"])
tl.claims.check("11.rate_other", held["0.001"])
""")
    claim("rate_taken", "Flowers, 100 photos a class, from scratch with the learning rate that was chosen for all data sets: accuracy on training photos held out.", unit="%", digits=1, photos=200, seeds="one training, seed 0")
    claim("rate_other", "The same with the other learning rate.", unit="%", digits=1, photos=200, seeds="one training, seed 0")
    md(f"""
With 100 flowers a class the rate that was taken has {link("11.rate_taken")} of the held-out photos right, the other {link("11.rate_other")} (one training each). One recipe for all data sets was the rule of this experiment; this is a price of it, and *scratch* pays it here.
""")
    md("""
## Take-aways

- On faces and flowers, starting from ImageNet was better with every number of photos, by every method.
- On solar cells, with few photos, no difference could be seen; with all of them it was better.
- On textiles it was plainly better with 50 and 100 photos a class, if all layers were trained. With all of them, training everything from scratch was as good as it gets, and plainly better than a frozen network. Pre-training can be worse than nothing, if nothing of it may change.
- Where classes are not balanced, hold the accuracy against that of a constant answer, or balance it.
- What a pre-training is worth can be said in photos. Where the other curve ends too early, say "more than there are".
- An interval has two parts: other photos to learn from, which draws show, and other photos to judge by, which they do not.
- "No difference that we can see" is a result about the experiment as much as about the methods.
""")
    md("""
## Questions

Answer in a sentence or two, then unfold.

<details>
<summary>All draws are judged by the same 500 photos. What does their standard deviation not contain?</summary>

How far the verdict would move with other test photos. They are the same in each draw, so whatever is peculiar about them is the same in each draw as well, and the standard deviation does not see it.

</details>

<details>
<summary>The intervals of two methods overlap. A colleague concludes that they are equally good. What are the two mistakes?</summary>

Intervals of two methods that learned from the same draws share what the draws do; the interval of the paired difference may be far from zero all the same. And if it did contain zero, the methods would not be equal: there would be no difference that this experiment can see.

</details>

<details>
<summary>Why is the number of photos that a pre-training is worth so uncertain where curves are flat?</summary>

It is read off along the photos. Where the curve hardly rises, a point of accuracy more or less is a long way along it.

</details>

<details>
<summary>Feature extraction with all photos has a single line in the table. Is it certain?</summary>

Nothing in it is left to chance while it is trained, so there is no spread to show. It would be another classifier with other photos to learn from, and another accuracy with other photos to judge by.

</details>
""")
    md(f"""
## Exercises

Three exercises go with this chapter: what pairing changes, the worth of photos the other way round, and what three draws are good for.
{{doc}}`solutions/{NAME}` has them with their solutions folded away. To work on them, open
`notebooks/exercises/{NAME}.ipynb`, which has the questions only.
""")
    page.write()
    return space


def claim(name, sentence, experiment=EXPERIMENT, **fields):
    CLAIMS[f"11.{name}"] = {"sentence": sentence} | fields | ({"experiment": experiment} if experiment else {})


def many(photos):
    return "all photos" if photos == "all" else f"{photos} photos a class"


def seeds(photos):
    return "seeds 0 to 2 of the training, all photos" if photos == "all" else "draws with seeds 0 to 2, or to 4"


def accuracies(space, data):
    """All means of a data set as a table of claims."""
    steps, rows = space["steps"](data), []
    for method in space["methods"]:
        for photos in steps:
            claim(f"{data}_{method}_{photos}", f"{NAMES[data].capitalize()}, {many(photos)}: accuracy of {METHODS[method]}, mean over draws.",
                  unit="%", digits=1, photos=TEST[data], seeds=seeds(photos))  # fmt: skip
        rows.append([METHODS[method], *(link(f"11.{data}_{method}_{photos}") for photos in steps)])
    return table([f"*{NAMES[data]}*", *steps], rows)


def worth(space, data, photos, number):
    """Middle (0), low (1) or high (2) end, in words: a claim only where the curve from scratch gets there."""
    value, end = space["worths"][data, photos][number], ("", "_low", "_high")[number]
    if value == float("inf"):
        return f"more than {link(f'11.{data}_all')}"
    if value <= 2.0001:
        return "2 or fewer"
    what = ("", "Lower end of its 95 % interval.", "Upper end of its 95 % interval.")[number]
    claim(f"{data}_worth_{photos}{end}", what or f"{NAMES[data].capitalize()}: photos a class that the network from scratch needs for the accuracy that "
          f"feature extraction has with {photos}.", digits=1 if value < 10 else 0, photos=TEST[data], seeds=seeds(photos))  # fmt: skip
    return link(f"11.{data}_worth_{photos}{end}")


# --- exercises --------------------------------------------------------------------------------------------------------------


def solutions(root, own):
    page = Pages(root, f"solutions/{NAME}")
    md, code = page.md, page.code
    one, two, three = EXERCISES
    md(f"""
# Exercises: better?

Three exercises to {{doc}}`../{NAME}`. Each asks for an answer in a form that `tl.check` can read. It says *right*,
or *not yet* with a hint; with `...` in place of an answer it says how to begin. Guess first, then measure.

**Needs** chapter 11. **Takes** about 30 minutes, and a few seconds of computing.
""")
    md("## What the exercises need\n\nThe stored results of the chapter's experiment.")
    code("""
import csv
from pathlib import Path

import numpy as np
from scipy.stats import t

import tlhelpers as tl

table = Path("../../experiments/results/decision_map.csv")
lines = list(csv.DictReader(table.open(encoding="utf-8")))
""")
    code(f"""
def stored(method, photos, dataset="{own}", column="accuracy"):
    # draw → accuracy in per cent
    wanted = {{"dataset": dataset, "method": method, "photos": photos}}
    times = 100 if column == "accuracy" else 1
    return {{int(line["seed"]): times * float(line[column])
            for line in lines if wanted.items() <= line.items()}}


def photos_a_class(photos):
    return stored("scratch", photos, column="n_train")[0] / {SEVEN[own]}
""")
    md(f"""
`stored("scratch", "10")` gives the accuracy of *scratch* with ten photos a class on {NAMES[own]}, for each draw, in per cent (`column` chooses another column of the table); `photos_a_class("all")` is the mean over the classes of {NAMES[own]}.
""")
    page.exercise(one, EXERCISES[one]["title"], """
*Feature extraction* with ten photos a class on flowers, `stored("feature_extraction", "10", "flowers")`, against *scratch*. By how many points does the first lie above the second, in the mean over the draws that both have? What is half of its 95 % interval over draws (Student's; leave the test photos aside)? And what would half of the interval be if the two
had *not* had the same draws: $t\\, \\sqrt{s_1^2 / k + s_2^2 / k}$, with the two standard deviations and $2k - 2$ degrees of freedom?
""", 'a dictionary with the keys "gain", "paired" and "apart", in points.')
    code("""
both = [stored(method, "10", "flowers")
        for method in ("feature_extraction", "scratch")]
draws = sorted(both[0].keys() & both[1].keys())
here, there = (np.array([each[draw] for draw in draws]) for each in both)
more, k = here - there, len(draws)
alone = np.sqrt((here.var(ddof=1) + there.var(ddof=1)) / k)
""", "solution")
    code("""
answer = {"gain": more.mean(),
          "paired": t.ppf(0.975, k - 1) * more.std(ddof=1) / np.sqrt(k),
          "apart": t.ppf(0.975, 2 * k - 2) * alone}
print(answer)
tl.check("11.1", answer)
""", "solution")
    page.check("""
for name, value in answer.items():
    tl.claims.check(f"11.exercise_{name}", value)
tl.claims.check("11.exercise_draws", k)
""", "solution")
    flowers = {"unit": "points", "digits": 1, "photos": TEST["flowers"], "seeds": seeds("10")}
    claim("exercise_gain", "Flowers, ten photos a class: accuracy of feature extraction minus that from scratch.", **flowers)
    claim("exercise_paired", "Half of its 95 % interval over draws, in pairs.", **flowers)
    claim("exercise_apart", "The same if the draws had not been shared.", **flowers)
    claim("exercise_draws", "Draws that both methods have in this cell.")
    md(f"""
{link("11.exercise_gain")} ± {link("11.exercise_paired")} in pairs, ± {link("11.exercise_apart")} if not, with {link("11.exercise_draws")} draws. In pairs the interval is *wider* here. Pairing takes away what a draw does to both alike, and saves a little of the standard error. But it leaves two degrees of freedom in place of four, and Student's $t$ goes from 2.8 to 4.3, which
costs more. It is right all the same: the draws *were* shared, and an interval that does not know it answers another question.

Three mistakes: 1.96 in place of Student's $t$; `np.std` without `ddof=1`; the difference the wrong way round.
""", "solution")
    code("""
normal = answer | {"paired": 1.96 * more.std(ddof=1) / np.sqrt(k)}
assert not tl.check("11.1", normal)
by_n = {"paired": answer["paired"] * np.sqrt((k - 1) / k),
        "apart": answer["apart"] * np.sqrt((k - 1) / k)}
assert not tl.check("11.1", answer | by_n)
assert not tl.check("11.1", answer | {"gain": -answer["gain"]})
""", "solution")
    page.end_exercise()
    page.exercise(two, EXERCISES[two]["title"], f"""
The chapter asked how many photos *scratch* needs for what feature extraction has. Now the other way round: with how many photos a class does *feature extraction* have the accuracy that *scratch* has with all photos of {NAMES[own]}? Take means over draws, let the curve never fall (`np.maximum.accumulate`), and go straight in the logarithm of the photos. No interval.
""", "a number of photos a class.")
    code("""
steps = ("2", "5", "10", "25", "50", "100", "all")
target = np.mean(list(stored("scratch", "all").values()))
curve = np.maximum.accumulate([
    np.mean(list(stored("feature_extraction", each).values()))
    for each in steps])
at = np.array([photos_a_class(each) for each in steps])
assert curve[0] < target < curve[-1]
""", "solution")
    code("""
answer = np.exp(np.interp(target, curve, np.log(at)))
print(f"{answer:.1f} of {at[-1]} photos a class")
tl.check("11.2", answer)
""", "solution")
    page.check("""
tl.claims.check("11.exercise_target", target / 100)
tl.claims.check("11.exercise_photos", answer)
""", "solution")
    claim("exercise_target", f"{NAMES[own].capitalize()}, all photos: accuracy from scratch, mean over seeds.", unit="%", digits=1,
          photos=TEST[own], seeds=seeds("all"))  # fmt: skip
    claim("exercise_photos", "Photos a class with which feature extraction has the same accuracy, by interpolation.", digits=0,
          photos=TEST[own], seeds=seeds("10"))  # fmt: skip
    md(f"""
For the {link("11.exercise_target")} that *scratch* has with all photos, feature extraction needs about {link("11.exercise_photos")} a class. Take it as rough: it lies in the widest step of the table, and over that step the mixture of classes changes as well.

Two mistakes: going straight in the photos and not in their logarithm, and forgetting to turn the logarithm back.
""", "solution")
    code("""
assert not tl.check("11.2", np.interp(target, curve, at))
assert not tl.check("11.2", np.log(answer))
""", "solution")
    page.end_exercise()
    page.exercise(three, EXERCISES[three]["title"], """
Where a classifier costs minutes there are three draws. How often does an interval that should miss the truth once in twenty times contain it, when it is made of three draws? Draw three numbers from a normal distribution with mean 0, make the interval *mean* ± *factor* × $s / \\sqrt{3}$, and see if 0 is in it; 100,000 times. Once with 1.96 as factor, once with Student's $t$.
""", 'a dictionary with the keys "normal" and "student", each a fraction between 0 and 1.')
    code("""
rng = np.random.default_rng(0)
draws = rng.normal(size=(100_000, 3))
mean, error = draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(3)
answer = {"normal": np.mean(abs(mean) <= 1.96 * error),
          "student": np.mean(abs(mean) <= t.ppf(0.975, 2) * error)}
print(answer)
tl.check("11.3", answer)
""", "solution")
    page.check("""
tl.claims.check("11.three_normal", answer["normal"])
tl.claims.check("11.three_student", answer["student"])
tl.claims.check("11.three_factor", t.ppf(0.975, 2))
""", "solution")
    drawn = {"unit": "%", "digits": 0, "experiment": None, "tolerance": 0.004, "why": "100,000 worlds: three standard errors", "seeds": "random numbers with seed 0"}
    claim("three_normal", "Part of intervals of three draws, mean ± 1.96 standard errors, that contain the truth.", **drawn)
    claim("three_student", "The same with Student's factor.", **drawn)
    claim("three_factor", "Student's factor for three draws.", digits=1, experiment=None, tolerance=0.001, why="a constant")
    md(f"""
{link("11.three_normal")} with 1.96, {link("11.three_student")} with Student's factor, which for three draws is {link("11.three_factor")}. So the usual ± 2 standard errors is wrong one time in five when there are three draws. Student's interval is more than twice as wide, and that is the price of three draws: it can only see large differences.

Two mistakes: `np.std` without `ddof=1`, and the standard deviation of a single draw in place of that of a mean.
""", "solution")
    code("""
def contain(error):
    return {"normal": np.mean(abs(mean) <= 1.96 * error),
            "student": np.mean(abs(mean) <= t.ppf(0.975, 2) * error)}


assert not tl.check("11.3", contain(draws.std(axis=1) / np.sqrt(3)))
assert not tl.check("11.3", contain(error * np.sqrt(3)))
""", "solution")
    page.end_exercise()
    page.write()
