"""Builds chapter 12, "Faster?", and its exercises. See making.py for the form, run.py to try it.

Claims (id: how it is computed):
    12.curves                            learning curves in decision_map_curves.csv
    12.again, 12.again_stored            faces, 2 photos, last stage, seed 0: accuracy measured by the notebook; of the same line in the table
    12.DATA_METHOD_seconds               processor seconds of training with all photos, mean over seeds, decision_map.csv
    12.DATA_METHOD_mib                   the most memory, mean over seeds (only if the table has it)
    12.DATA_METHOD_end                   accuracy at the end of the curve, mean over seeds
    12.DATA_METHOD_to_TARGET             wall seconds until the curve first has the accuracy, mean over seeds; only where all seeds get there
    12.DATA_METHOD_cpu_to_TARGET         the same in processor seconds
    12.DATA_common, 12.DATA_times        the highest accuracy that scratch has at the end of an epoch and feature extraction has as well;
                                         how many times the processor seconds scratch takes to get there
    12.DATA_fixed, _an_epoch, _all_fixed, _all_an_epoch, _epochs    last stage and all layers as a straight line over epochs; where they cross
    12.pretraining_hours, 12.DATA_tasks  processor hours of the assumed pre-training; tasks after which it has paid
    12.DATA_METHOD_energy                watt-hours at 10 W a core
Tolerance: all but 12.again are read from tables: a tenth of the last digit shown.
"""

# ruff: noqa: E501 - a paragraph of a notebook is one line

import numpy as np
from ch11 import METHODS, NAMES, TEST
from making import Pages, link, table

import tlhelpers as tl

NAME = "12_faster"
EXPERIMENT = "experiments/decision_map.py"
TARGETS = {"flowers": ("0.6", "0.7", "0.8", "0.85"), "solar_cells": ("0.7", "0.75", "0.8", "0.85")}  # chosen before any curve was there
CLAIMS = {}
EXERCISES = {
    "12.1": {
        "title": "How long until",
        "begin": 'Give a dictionary with the keys "mean" and "worst", in processor seconds.',
        "tolerance": 0.5,
        "hint": "For each seed find the first epoch whose accuracy is at least the target, and take the seconds of that epoch.",
        "wrong": ["Those are seconds of the wall clock. Which column has the processor's?", "That is the best seed. Which one made you wait longest?"],
    },
    "12.2": {
        "title": "What a hundred trainings draw",
        "begin": 'Give a dictionary with the keys "scratch", "all_layers" and "feature_extraction", in kilowatt-hours.',
        "tolerance": 0.0005,
        "hint": "A watt is a joule a second. A kilowatt-hour is a thousand watts for an hour.",
        "wrong": ["Those are watt-hours, not kilowatt-hours.", "An hour has more than sixty seconds.", "That is one training each."],
    },
    "12.3": {
        "title": "Eight views, computed once",
        "begin": 'Give a dictionary with the keys "mirror" and "turns_and_flips", each a number of epochs.',
        "tolerance": 0.05,
        "hint": "Count in passes through the lower part. What is computed once costs one pass a view; how many does an epoch of the usual way cost?",
        "wrong": ["One pass for all views? Each view is another photo for the network.", "Nothing below the cut is trained: there is no way back through it."],
    },
}


def build(root):
    CLAIMS.clear()
    space = chapter(root)
    solutions(root, space)


def claim(name, sentence, experiment=EXPERIMENT, **fields):
    CLAIMS[f"12.{name}"] = {"sentence": sentence} | fields | ({"experiment": experiment} if experiment else {})
    return link(f"12.{name}")


def chapter(root):
    page = Pages(root, NAME)
    md, code, check, space = page.md, page.code, page.check, page.space
    space |= {"np": np, "tl": tl}  # imported by cells that are not run here
    md("""
# Faster?

"Transfer learning saves time." Time of what: your afternoon, the processor, the building's electricity? And until when: to the end of a recipe that somebody wrote down, or until the classifier is good enough? In this chapter you put clocks on five ways to a classifier and stop
them at the same accuracy. Then you look for break-even points, where the slower way becomes the faster one.

**After this chapter you will be able to**

- tell wall time, processor time and work apart, and say which of them to compare when;
- read from a learning curve how long a method takes to a given accuracy, and when the honest answer is *never*;
- find three break-even points: transfer against scratch, computing once against computing anew, and pre-training against not pre-training;
- estimate the energy of a training by a formula whose weakest part you can name;
- say what a method needs in memory, and why.

**Needs** {doc}`11_better` and {doc}`09_how_deep`. **Takes** about 45 minutes to read and do, and a minute of computing on two cores.
Nothing is downloaded.
""")
    md("""
## Three clocks

*Wall time* is what you wait. It is what matters, and it depends on everything: how many cores there are, what else they do, how warm they are. *Processor time* is what all cores spent on the task, added up; it hardly depends on what else they had to do, though it does on the processor. *Work*, the
multiplications, is the same everywhere and is nobody's waiting time. Compare methods by processor time, plan your day by wall time, and use work to understand both.

Here is the difference on a small scale: frozen features of faces, and one training of the last stage. The cache is empty, so that everything is paid for.
""")
    code("""
import os
import tempfile

import numpy as np

import tlhelpers as tl

faces = tl.load_dataset("faces")
first = np.unique(tl.duplicate_groups(faces), return_index=True)[1]
pool, test = faces.subset(np.sort(first)).split(test_size=0.25, seed=0)
few = pool.sample(per_class=2, seed=0)
backbone = tl.load_backbone("efficientnet_lite0", image_size=128)
""")
    code("""
import time


def clocked(task):
    # what it returns, wall seconds, processor seconds; with an empty cache
    usual = str(tl.cache_dir())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        start = time.perf_counter(), time.process_time()
        found = task()
        spent = time.perf_counter() - start[0], time.process_time() - start[1]
    os.environ["TLHELPERS_CACHE"] = usual
    return found, *spent
""")
    code("""
import keras


def last_stage():
    keras.utils.set_random_seed(0)
    classifier = tl.build_classifier(backbone, few.class_names)
    tl.fine_tune(classifier, few, unfreeze="last_stage", epochs=8,
                 learning_rate=1e-3, batch_size=16, head_first=False,
                 validation=0, augment="mirror", seed=0)
    return classifier
""")
    code("""
_, wall, processor = clocked(lambda: tl.train_head(
    tl.extract_features(few, backbone), few.labels, scale="one", seed=0))
print(f"feature extraction: {wall:.1f} s to wait, {processor:.1f} of processor")
classifier, wall, processor = clocked(last_stage)
print(f"last stage:         {wall:.1f} s to wait, {processor:.1f} of processor")
again = tl.evaluate(classifier, test).accuracy
""")
    md("""
80 photos. Your numbers will differ from those printed here, and from each other if you run the cell again: the processor may do other things meanwhile, and some of the time goes into preparing steps that have not been taken before. That is why nothing in this book is ever *asserted* about a time. What can be checked is that this is the classifier of the table:
its accuracy against that of the same cell, the same draw.
""")
    code("""
import csv
from pathlib import Path

folder = Path("../experiments/results")
lines, curves = (
    list(csv.DictReader((folder / f"{name}.csv").open(encoding="utf-8")))
    for name in ("decision_map", "decision_map_curves"))


def values(data, method, photos, column):
    # draw → value
    wanted = {"dataset": data, "method": method, "photos": photos}
    return {int(line["seed"]): float(line[column] or "nan")
            for line in lines if wanted.items() <= line.items()}
""", now=True)  # fmt: skip
    code("""
from scipy.stats import t


def mean_and_reach(found):
    # mean over seeds, and half of its 95 % interval
    found = np.array(list(found))
    k = len(found)
    spread = found.std(ddof=1) if k > 1 else np.nan
    return found.mean(), t.ppf(0.975, k - 1) * spread / np.sqrt(k)
""", now=True)  # fmt: skip
    md("Student's interval over seeds, once more. With it the cell, and its draw 0:")
    code("""
there = values("faces", "last_stage", "2", "accuracy")
n = values("faces", "last_stage", "2", "n_test")[0]
draws, judged = mean_and_reach(there.values())[1], there[0] * (1 - there[0]) / n
assert abs(again - there[0]) <= np.sqrt(draws**2 + 1.96**2 * judged)
""")
    check("""
tl.claims.check("12.again", again)
tl.claims.check("12.again_stored", there[0])
""")
    one = {"unit": "%", "digits": 1, "photos": 98, "seeds": "draw with seed 0"}
    claim("again", "Faces, two photos a person, last stage at 128 pixels: accuracy measured in the notebook.", experiment=None, tolerance=0.04,
          why="training in float32 on another number of threads takes a slightly other path; four of 98 photos", **one)  # fmt: skip
    claim("again_stored", "The same in the stored table.", **one)
    md(f"""
{link("12.again")} here, {link("12.again_stored")} in the table, which lies within the interval of that cell, draws and test photos together (chapter 11 built it). The table's clocks ran elsewhere; its *seconds* are of the processor, for the training alone, with an empty cache. *Wall* stands only in the learning curves, which were measured on a machine that did nothing else.

## What the whole recipe costs

First without asking how good the result is: processor seconds of a training as chapter 11 had it, against photos a class. The recipe has four epochs, but at least 640 photos seen, twice that from scratch, and four times that for the last stage, whose epochs cost little.
""")
    code("""
import matplotlib.pyplot as plt

plt.style.use(tl.plots.STYLE)
looks = {"scratch": ("scratch", "#000000", "x", ":"),
         "feature_extraction": ("feature extraction", "#0072B2", "o", "-"),
         "last_stage": ("last stage", "#56B4E9", "s", "--"),
         "all_layers": ("all layers", "#D55E00", "^", "-."),
         "lp_ft": ("LP-FT", "#009E73", "D", (0, (5, 1)))}
data_sets = tuple(dict.fromkeys(line["dataset"] for line in lines))
titles = {data: data.replace("_", " ") for data in data_sets}
""", now=True)  # fmt: skip
    code("""
def bill(data, method, photos, column="seconds"):
    return mean_and_reach(values(data, method, photos, column).values())[0]


def steps(data):
    return list(dict.fromkeys(line["photos"] for line in lines
                              if line["dataset"] == data))
""", now=True)  # fmt: skip
    code("""
figure, axes = plt.subplots(1, 4, figsize=(9.4, 3.4), sharey=True)
for axis, data in zip(axes, data_sets):
    for method, (label, colour, mark, dash) in looks.items():
        spent = [bill(data, method, each) for each in steps(data)]
        axis.plot(spent, color=colour, marker=mark, ls=dash, ms=4, label=label)
    axis.set_xticks(range(len(steps(data))), steps(data), rotation=45)
    axis.set(title=titles[data], xlabel="photos a class", yscale="log")
axes[0].set_ylabel("processor seconds of training")
figure.legend(*axes[0].get_legend_handles_labels(), ncols=5, fontsize=8,
              loc="outside upper center");
""", alt="Four panels, one a data set: processor seconds of training, on a logarithmic axis, against photos a class. Feature extraction is the lowest line and the network from scratch the highest; all rise to the right, flat at first where the recipe has a least number of photos seen.")  # fmt: skip
    check("""
for data in data_sets:
    for method in looks:
        tl.claims.check(f"12.{data}_{method}_seconds", bill(data, method, "all"))
    ratio = (bill(data, "scratch", "all")
             / bill(data, "feature_extraction", "all"))
    tl.claims.check(f"12.{data}_ratio", ratio)
""")
    rows = []
    for data in space["data_sets"]:
        said = [
            claim(f"{data}_{method}_seconds", f"{NAMES[data].capitalize()}, all photos: processor seconds to train {METHODS[method]}, mean over seeds.",
                  unit="s", digits=0, seeds="seeds 0 to 2; feature extraction has one")
            for method in space["looks"]
        ]
        ratio = claim(f"{data}_ratio", f"{NAMES[data].capitalize()}, all photos: processor seconds from scratch, in those of feature extraction.", digits=0)
        rows.append([NAMES[data], *said, ratio])
    md(f"""
With all photos, in processor seconds:

{table(["data", *METHODS.values(), "scratch ÷ feature extraction"], rows)}

RESULT: Feature extraction is the cheapest everywhere, by one to two orders of magnitude. The reason is the arithmetic of {{doc}}`09_how_deep`: it sends each photo through the network once, forward. Training everything goes forward once and back twice in *each* epoch, and *scratch* does so in twice the epochs. The last stage lies between: what is below is computed once, once for each *view* that is, and solar cells have eight.

But this compares recipes, and somebody chose the number of epochs. *Scratch* might be stopped earlier, or need more.

## Seconds until a given accuracy

So let each method train, look at the test photos after each epoch with the clock stopped, and write down the clocks. `decision_map_curves.csv` has these curves for flowers and solar cells, with all photos: three seeds for the methods that start from ImageNet, and one curve from scratch with four times its usual epochs.
(Nothing is chosen by them; the learning rate falls as if nobody looked. Feature extraction has no epochs, so it is one point.)
""")
    code("""
def course(data, method, column):
    # epochs × seeds
    found = {}
    for line in curves:
        if (line["dataset"], line["method"]) == (data, method):
            seeds = found.setdefault(int(line["epoch"]), [])
            seeds.append(float(line[column]))
    return np.array([found[epoch] for epoch in sorted(found)])


two = ("flowers", "solar_cells")
""", now=True)  # fmt: skip
    code("""
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
for axis, data in zip(axes, two):
    for method, (label, colour, mark, dash) in looks.items():
        spent, right = (course(data, method, column).mean(axis=1)
                        for column in ("wall", "accuracy"))
        axis.plot(spent, 100 * right, color=colour, marker=mark, ls=dash,
                  ms=4, label=label)
    axis.set(title=titles[data], xscale="log", xlabel="seconds to wait",
             ylabel="accuracy on test photos, %")
figure.legend(*axes[0].get_legend_handles_labels(), ncols=5,
              loc="outside upper center");
""", alt="Two panels, flowers and solar cells: accuracy on test photos against seconds to wait, on a logarithmic axis. Feature extraction is a single point far to the left and high up; the curves that start from ImageNet begin near it and rise; the dotted curve from scratch begins low and climbs far to the right.")  # fmt: skip
    md("""
One line a method, a point an epoch, means over seeds. To the left is sooner, up is better.

RESULT: The curve from scratch is still low when all others have arrived. RESULT: On solar cells it comes near them in the end, on flowers it does not.

To say it in seconds, fix some accuracies. These were written down before any curve was there. For each seed take the first epoch that has the accuracy; if one seed never gets there, the answer is *never*, because a mean over those that do would flatter.
""")
    code("""
targets = {"flowers": ("0.6", "0.7", "0.8", "0.85"),
           "solar_cells": ("0.7", "0.75", "0.8", "0.85")}


def time_to(data, method, target, clock="seconds"):
    # mean over seeds; inf if one of them never gets there
    reached = course(data, method, "accuracy") >= float(target)
    if not reached.any(axis=0).all():
        return np.inf
    first = reached.argmax(axis=0)
    return course(data, method, clock)[first, np.arange(len(first))].mean()
""", now=True)  # fmt: skip
    code("""
print("processor seconds until" + " " * 15 + "  accuracy")
for data in two:
    for method in looks:
        spent = [time_to(data, method, target) for target in targets[data]]
        print(f"{data:<12} {method:<19}", *(f"{each:>8.0f}" for each in spent))
""")
    check("""
tl.claims.check("12.curves", len({(line["dataset"], line["method"],
                                   line["seed"]) for line in curves}))
for data in two:
    for method in looks:
        for target in targets[data]:
            for clock, to in (("wall", "to"), ("seconds", "cpu_to")):
                value = time_to(data, method, target, clock)
                name = f"12.{data}_{method}_{to}_{target.replace('.', '')}"
                if value < np.inf:
                    tl.claims.check(name, value)
""", "hide-output")
    claim("curves", "Learning curves against the clock in the stored table.")
    md(f"""
{link("12.curves")} curves; until the accuracy at the head of the column, seconds to wait and, in brackets, seconds of the processor:

{until(space, "flowers")}

{until(space, "solar_cells")}

RESULT: Whatever accuracy *scratch* reaches at all, the others reached long before. RESULT: Feature extraction answers first wherever it gets there; above its own accuracy it has no answer, and only there the slower methods begin to be worth waiting for.

*(Three seeds, one from scratch. Photos of flowers were looked at after each epoch, so a time is right to an epoch.)*

## The first break-even: transfer against scratch

Is there an accuracy, however high or low, that *scratch* reaches sooner? Ask for each accuracy in steps of a hundredth who is there first.
""")
    code("""
def first_to(data, target):
    # the method that is there first, None if none is
    spent = {method: time_to(data, method, target) for method in looks}
    first = min(spent, key=spent.get)
    return first if spent[first] < np.inf else None


grid = np.arange(0.3, 1, 0.01).round(2)
winners = {data: [first_to(data, target) for target in grid] for data in two}
for data in two:
    print(data, {method: winners[data].count(method) for method in looks})
""", now=True)  # fmt: skip
    code("""
def common(data):
    # the highest accuracy, after an epoch, that frozen features have too
    limit = course(data, "feature_extraction", "accuracy").min()
    seen = course(data, "scratch", "accuracy")
    return seen[seen <= limit].max()


factors = {data: time_to(data, "scratch", common(data))
           / time_to(data, "feature_extraction", common(data)) for data in two}
""", now=True)  # fmt: skip
    check("""
for data in two:
    tl.claims.check(f"12.{data}_first", winners[data].count("scratch"))
    tl.claims.check(f"12.{data}_common", common(data))
    tl.claims.check(f"12.{data}_times", factors[data])
    for method in ("scratch", "feature_extraction", "all_layers"):
        end = course(data, method, "accuracy")[-1].mean()
        tl.claims.check(f"12.{data}_{method}_end", end)
""")
    said = {}
    for data in space["two"]:
        words = NAMES[data].capitalize()
        said[data] = {
            "first": claim(f"{data}_first", f"{words}: accuracies, in steps of a hundredth, that the network from scratch reaches first."),
            "common": claim(f"{data}_common", f"{words}: the highest accuracy after an epoch from scratch that feature extraction has as well.", unit="%", digits=1, photos=TEST[data]),
            "times": claim(f"{data}_times", f"{words}: processor seconds from scratch until that accuracy, in those of feature extraction.", digits=0),
        }
        for method in ("scratch", "feature_extraction", "all_layers"):
            said[data][method] = claim(f"{data}_{method}_end", f"{words}, all photos: accuracy of {METHODS[method]} at the end of its curve, mean over seeds.", unit="%", digits=1, photos=TEST[data])
    f, s = said["flowers"], said["solar_cells"]
    md(f"""
*Scratch* is first to {f["first"]} of these accuracies on flowers and to {s["first"]} on solar cells. RESULT: There is no such break-even here. The highest accuracy that both have, {f["common"]} on flowers and {s["common"]} on solar cells, cost *scratch* {f["times"]} and {s["times"]} times the processor time of feature extraction.

What *scratch* can do is arrive later and higher than frozen features: at its end it has {f["scratch"]} on flowers, where they have {f["feature_extraction"]}, and {s["scratch"]} on solar cells, where they have {s["feature_extraction"]}. RESULT: On solar cells, patience from nothing ends above frozen features, and below all layers from ImageNet, which has {s["all_layers"]} there and {f["all_layers"]} on flowers. The break-even then lies between feature extraction and *fine-tuning*: whoever needs more accuracy than frozen features have must pay for epochs, and gets them cheapest from ImageNet.

With less than all photos? *Scratch* has fewer epochs' worth of photos to catch up with, and its curve ends lower (chapter 11). These curves were not measured.
""")
    md("""
## The second break-even: computing once

`fine_tune` computes what lies below the last stage once and keeps it. That is a fixed cost, one pass for each view, after which epochs are cheap. Training all layers has next to no fixed cost and dear epochs. Two straight lines over the epochs cross:

$$ f_{\\text{last}} + e \\, c_{\\text{last}} = f_{\\text{all}} + e \\, c_{\\text{all}} \\quad\\Rightarrow\\quad e = \\frac{f_{\\text{last}} - f_{\\text{all}}}{c_{\\text{all}} - c_{\\text{last}}} . $$
""")
    code("""
def line_of(data, method):
    # fixed processor seconds, and seconds an epoch
    spent = course(data, method, "seconds").mean(axis=1)
    slope = np.diff(spent).mean()
    return spent[0] - slope, slope


for data in two:
    (fixed, epoch), (all_fixed, all_epoch) = (
        line_of(data, method) for method in ("last_stage", "all_layers"))
    print(f"{data:<12} last stage {fixed:.0f} + {epoch:.1f} an epoch,",
          f"all layers {all_fixed:.0f} + {all_epoch:.1f}")
""", now=True)  # fmt: skip
    check("""
for data in two:
    (fixed, epoch), (all_fixed, all_epoch) = (
        line_of(data, method) for method in ("last_stage", "all_layers"))
    for name, value in (("fixed", fixed), ("an_epoch", epoch),
                        ("all_an_epoch", all_epoch)):
        tl.claims.check(f"12.{data}_{name}", value)
    crossing = (fixed - all_fixed) / (all_epoch - epoch)
    tl.claims.check(f"12.{data}_epochs", crossing)
""")
    for data in space["two"]:
        words = f"{NAMES[data].capitalize()}, all photos: processor seconds"
        said[data] |= {
            "fixed": claim(f"{data}_fixed", f"{words} that training the last stage costs before its first epoch.", unit="s", digits=0),
            "epoch": claim(f"{data}_an_epoch", f"{words} of an epoch of the last stage.", unit="s", digits=1),
            "all": claim(f"{data}_all_an_epoch", f"{words} of an epoch of all layers.", unit="s", digits=1),
            "epochs": claim(f"{data}_epochs", f"{NAMES[data].capitalize()}: epochs after which the last stage has cost less than all layers.", digits=1),
        }
    md(f"""
On flowers, with two views, the last stage costs {f["fixed"]} before its first epoch and {f["epoch"]} in each, all layers {f["all"]} in each: the lines cross after {f["epochs"]} epochs. On solar cells, with eight views, it is {s["fixed"]}, {s["epoch"]} and {s["all"]}, and {s["epochs"]} epochs.
RESULT: So computing once pays from the second epoch on where there are two views, and needs a few more where there are eight. Nobody fine-tunes for less. (A negative number would say that it pays from the start.)

## The third: who pays for ImageNet?

Everything so far took the weights as a gift. Somebody trained them, on 1,281,167 photos. What would that have taken on your processor? One epoch of all layers on flowers says what a photo costs at 128 pixels; at the 224 of the pre-training it has $(224 / 128)^2$ times the pixels. How many epochs these weights had we do not know; *suppose* 100, which is few for such a network.

The saving of one task is what *scratch* takes to the accuracy above, less what feature extraction takes. How many tasks until the pre-training has paid?
""")
    code("""
photos = values("flowers", "all_layers", "all", "n_train")[0]
a_photo = line_of("flowers", "all_layers")[1] / photos * (224 / 128) ** 2
pretraining = 1_281_167 * 100 * a_photo  # 100 epochs: an assumption


def saved(data):
    scratch, frozen = (time_to(data, method, common(data))
                       for method in ("scratch", "feature_extraction"))
    return scratch - frozen


print(f"{pretraining / 3600:,.0f} processor hours, or",
      *(f"{pretraining / saved(data):,.0f} tasks like {data}," for data in two))
""", now=True)  # fmt: skip
    check("""
tl.claims.check("12.pretraining_hours", pretraining / 3600)
for data in two:
    tl.claims.check(f"12.{data}_tasks", pretraining / saved(data))
""")
    hours = claim("pretraining_hours", "Processor hours that 100 epochs of ImageNet at 224 pixels would take: an estimate from the cost of a photo of flowers.")
    tasks = {data: claim(f"{data}_tasks", f"{NAMES[data].capitalize()}: tasks like this after which such a pre-training has saved what it cost.") for data in space["two"]}
    md(f"""
About {hours} processor hours, and {tasks["flowers"]} tasks like flowers, or {tasks["solar_cells"]} like solar cells, until they have paid. No single user would do it for the time alone. But weights are used by everybody who can install them: shared by so many, the pre-training costs each of you next to nothing. The sentence "transfer saves time" is about reusing what exists.
(It is an estimate with an assumption in it, and good to its order of magnitude.)
""")
    md("""
## Energy

Energy is power times time. While a core works it draws some watts more than when it idles:

$$ E \\;[\\text{Wh}] = \\frac{\\text{processor seconds} \\times P}{3600} . $$

Processor seconds we have. The power $P$ of one busy core we have *not*: no meter was attached. 10 watts is **an assumption**; a laptop's core may draw 5 and a server's 20, and memory, fans and the power supply come on top. So a ratio between two methods may be trusted more than either number, and numbers from different machines should not be compared at all.
""")
    code("""
WATTS = 10  # of one busy core: an assumption, 5 to 20 are as likely


def energy(data, method):
    return bill(data, method, "all") * WATTS / 3600  # watt-hours


for method in looks:
    print(f"{method:<19}", *(f"{energy(data, method):>8.2f} Wh"
                             for data in data_sets))
""", now=True)  # fmt: skip
    check("""
for method in looks:
    tl.claims.check(f"12.flowers_{method}_energy", energy("flowers", method))
""")
    wh = {method: claim(f"flowers_{method}_energy", f"Flowers, all photos: energy to train {METHODS[method]}, if a busy core draws 10 W.", unit="Wh", digits=2) for method in METHODS}
    md(f"""
The columns are {", ".join(NAMES[data] for data in space["data_sets"])}. Flowers with all photos: {wh["feature_extraction"]} for feature extraction, {wh["last_stage"]} for the last stage, {wh["all_layers"]} for all layers, {wh["lp_ft"]} for LP-FT, {wh["scratch"]} from scratch. To boil half a litre of water takes about 50 Wh. RESULT: None of these trainings would make tea. What adds up is trying: a search over dozens of recipes takes dozens of times as much, and there feature extraction, which computes its features once for all of them, saves most.

## Memory

The last resource is the one that ends a run without a verdict. The table has the most memory that the process held during the training, above what it held before.
""")
    if any(line["mib"] for line in space["lines"]):
        memory(page, space)
    md("""
## What this does not say

- Two cores and no graphics processor. On one, an epoch of all layers may cost little more than loading the photos, and the order of methods by *wall* time can change. The order by work cannot.
- One network with one way to compute it. `extract_features` uses an engine that is faster than training's own forward pass ({doc}`03_feature_extraction`), which flatters feature extraction; the usual recipe, where a frozen base runs in every epoch, would look far worse.
- Processor seconds of one process that is held to a core are not those of one that may use two, which also waits busily. Compare within the table.
- The clock of the curves starts before the network is loaded, that of the table after. For feature extraction this is a good part of it.
- Time until an accuracy on *test* photos is a yardstick for methods. For your own training you have validation photos, and stop by those.
- One curve from scratch for each data set, so no interval: read its times as orders of magnitude.

*Photos of solar cells: ELPV data set, CC BY-NC-SA 4.0 {cite:p}`Buerhop2018,Deitsch2021`.*
""")
    md("""
## Take-aways

- Compare by processor time, plan by wall time, explain by work. And compare *to the same accuracy*, with *never* as a possible answer.
- RESULT: Transfer was faster to every accuracy that both reached, by an order of magnitude or more. Faster to the *best* accuracy is another question: there, epochs must be paid.
- Computing the frozen part once has a fixed cost of a pass for each view, and pays after a few epochs.
- The time is saved because the pre-training exists and is shared. Counted in full, it takes very many tasks to pay for it.
- An energy without a meter is a time with an assumption. Name it.
""")
    md("""
## Questions

Answer in a sentence or two, then unfold.

<details>
<summary>A run took 60 seconds to wait and 100 processor seconds on two cores. What happened in between?</summary>

At most 120 processor seconds could have been spent. Both cores worked most of the time, and for a sixth of it one of them waited or did something else.

</details>

<details>
<summary>Why is "never" reported if two of three seeds reach the accuracy?</summary>

A mean over the two that get there leaves out the one that would have made you wait for ever. Methods that fail now and then would look fast.

</details>

<details>
<summary>Somebody compares ten epochs of one method with ten epochs of another. What has been compared?</summary>

Two recipes. An epoch costs a different amount in each, and neither need be good after ten of them, or need ten. Fix the accuracy and read off the time, or fix the time and read off the accuracy.

</details>

<details>
<summary>Energies are estimated as seconds times 10 watts. Which statements survive if the 10 is wrong by a factor of two?</summary>

All ratios between methods on the same machine, as far as they keep the core equally busy. No statement in watt-hours does.

</details>
""")
    md(f"""
## Exercises

Three exercises go with this chapter: how long until an accuracy, what a hundred trainings draw, and when eight views pay.
{{doc}}`solutions/{NAME}` has them with their solutions folded away. To work on them, open
`notebooks/exercises/{NAME}.ipynb`, which has the questions only.
""")
    page.write()
    return space


def until(space, data):
    """A table of claims: rows are methods, columns accuracies."""
    rows = []
    for method, words in METHODS.items():
        row = [words]
        for target in TARGETS[data]:
            if space["time_to"](data, method, target) == float("inf"):
                row.append("never")
                continue
            id, end = f"{data}_{method}", target.replace(".", "")
            what = f"{NAMES[data].capitalize()}, all photos: seconds until {METHODS[method]} first has an accuracy of {target}, mean over seeds"
            row.append(claim(f"{id}_to_{end}", f"{what}.", unit="s", digits=0) + " (" + claim(f"{id}_cpu_to_{end}", f"{what}, of the processor.", unit="s", digits=0) + ")")
        rows.append(row)
    return table([f"*{NAMES[data]}*", *(f"`{target}`" for target in TARGETS[data])], rows)


def memory(page, space):
    page.check("""
for method in looks:
    for data in ("flowers", "textiles"):
        tl.claims.check(f"12.{data}_{method}_mib",
                        bill(data, method, "all", "mib"))
""")
    rows = [
        [words, *(claim(f"{data}_{method}_mib", f"{NAMES[data].capitalize()}, all photos: the most memory that training {words} took, mean over seeds.", unit="MiB", digits=0)
                  for data in ("flowers", "textiles"))]
        for method, words in METHODS.items()
    ]  # fmt: skip
    page.md(f"""
With all photos, batches of 16:

{table(["method", "flowers, 128 pixels", "textiles, 250 pixels"], rows)}

To go forward, a layer's output can be forgotten as soon as the next layer has it. To go back, it is needed again: training keeps the outputs of all open layers for a whole batch, and they grow with the area of the photo. So what trains everything needs most, and most of all with large photos. RESULT: Feature extraction needs least. The weights themselves, with a gradient and two running means for each, are 4 × 4 bytes a number and do not depend on the photos.
Photos held in memory are in it as well, and those are a matter of the helper rather than of the method.
""")


# --- exercises --------------------------------------------------------------------------------------------------------------


def solutions(root, space):
    page = Pages(root, f"solutions/{NAME}")
    md, code = page.md, page.code
    one, two, three = EXERCISES
    target = exercise_target(space)
    md(f"""
# Exercises: faster?

Three exercises to {{doc}}`../{NAME}`. Each asks for an answer in a form that `tl.check` can read. It says *right*,
or *not yet* with a hint; with `...` in place of an answer it says how to begin. Guess first, then measure.

**Needs** chapter 12. **Takes** about 30 minutes, and a few seconds of computing.
""")
    md("## What the exercises need\n\nThe stored results of the chapter's experiment.")
    code("""
import csv
from pathlib import Path

import numpy as np

import tlhelpers as tl

table = Path("../../experiments/results/decision_map.csv")
lines = list(csv.DictReader(table.open(encoding="utf-8")))
table = Path("../../experiments/results/decision_map_curves.csv")
curves = list(csv.DictReader(table.open(encoding="utf-8")))
""")
    code("""
def course(method, seed, column, dataset="flowers"):
    # one value for each epoch
    wanted = {"dataset": dataset, "method": method, "seed": str(seed)}
    return np.array([float(line[column]) for line in curves
                     if wanted.items() <= line.items()])


def seconds(method, dataset="flowers"):
    # mean processor seconds of a training with all photos
    return np.mean([float(line["seconds"]) for line in lines
                    if (line["dataset"], line["method"], line["photos"])
                    == (dataset, method, "all")])
""")
    md("""
`course("lp_ft", 0, "accuracy")` gives a learning curve on flowers, epoch by epoch; its other columns are "seconds", of the processor, and "wall". `seconds("scratch")` is what a training with all photos took.
""")
    page.exercise(one, EXERCISES[one]["title"], f"""
*All layers* on flowers, seeds 0, 1 and 2: for each seed, the processor seconds until the test accuracy is `{target}` or more for the first time. What is their mean, and how long did the slowest seed take?
""", 'a dictionary with the keys "mean" and "worst", in seconds.')
    code(f"""
def until(seed, clock="seconds", target={target}):
    first = np.argmax(course("all_layers", seed, "accuracy") >= target)
    assert course("all_layers", seed, "accuracy")[first] >= target
    return course("all_layers", seed, clock)[first]


spent = [until(seed) for seed in range(3)]
answer = {{"mean": np.mean(spent), "worst": max(spent)}}
print(answer)
tl.check("12.1", answer)
""", "solution")
    page.check("""
tl.claims.check("12.exercise_mean", answer["mean"])
tl.claims.check("12.exercise_worst", answer["worst"])
""", "solution")
    claim("exercise_mean", f"Flowers, all layers: processor seconds until an accuracy of {target}, mean over three seeds.", unit="s", digits=0)
    claim("exercise_worst", "The same of the slowest seed.", unit="s", digits=0)
    md(f"""
{link("12.exercise_mean")} in the mean, {link("12.exercise_worst")} for the slowest. `np.argmax` of a row of True and False is the place of the first True, and 0 if there is none: the `assert` tells these two apart.

Two mistakes: the wrong clock, and the best seed in place of the worst.
""", "solution")
    code("""
wall = [until(seed, "wall") for seed in range(3)]
assert not tl.check("12.1", {"mean": np.mean(wall), "worst": max(wall)})
best = course("all_layers", 0, "seconds")[0]
assert not tl.check("12.1", answer | {"worst": min(min(spent), best)})
""", "solution")
    page.end_exercise()
    page.exercise(two, EXERCISES[two]["title"], """
A course of a hundred students: each trains a classifier of flowers with all photos once. How many kilowatt-hours do a hundred trainings draw, if a busy core draws 10 watts: from *scratch*, with *all_layers*, with *feature_extraction*?
""", 'a dictionary with the keys "scratch", "all_layers" and "feature_extraction", in kWh.')
    code("""
answer = {method: 100 * seconds(method) * 10 / 3600 / 1000
          for method in ("scratch", "all_layers", "feature_extraction")}
print(answer)
tl.check("12.2", answer)
""", "solution")
    page.check("""
for method, value in answer.items():
    tl.claims.check(f"12.exercise_{method}", value)
""", "solution")
    for method in ("scratch", "all_layers", "feature_extraction"):
        claim(f"exercise_{method}", f"Energy of a hundred trainings on flowers, {METHODS[method]}, if a busy core draws 10 W.", unit="kWh", digits=3)
    md(f"""
{link("12.exercise_scratch")}, {link("12.exercise_all_layers")} and {link("12.exercise_feature_extraction")}. A joule is a watt for a second; an hour has 3,600 of them; *kilo* is a thousand.

Three mistakes, each a factor: 1,000, 60, and 100.
""", "solution")
    code("""
def times(factor):
    return {method: value * factor for method, value in answer.items()}


assert not tl.check("12.2", times(1000))
assert not tl.check("12.2", times(60))
assert not tl.check("12.2", times(1 / 100))
""", "solution")
    page.end_exercise()
    page.exercise(three, EXERCISES[three]["title"], """
Count in passes of all photos through the part below the cut, and forget everything else. *Computing once* costs one pass for each view, before the first epoch, and nothing after. The *usual way* sends each photo, in one view, through that part in every epoch. After how many epochs have both cost the same, with two views ("mirror") and with eight ("turns_and_flips")?
""", 'a dictionary with the keys "mirror" and "turns_and_flips", each a number of epochs.')
    code("""
once = {"mirror": 2, "turns_and_flips": 8}  # passes, forward
usual = 1  # an epoch: forward, and not back, for nothing there trains
answer = {augment: views / usual for augment, views in once.items()}
tl.check("12.3", answer)
""", "solution")
    md("""
As many epochs as there are views. With fewer epochs than views, most views are computed and never looked at: eight views for four epochs, as in this chapter's recipe for solar cells, is more work in the lower part than the usual way. (*All layers*, with which the chapter compares, goes back through the lower part as well, which is why the lines cross earlier there.)

Two mistakes: taking all views for one pass, and letting the gradient go back through a part that is frozen.
""", "solution")
    code("""
assert not tl.check("12.3", dict.fromkeys(answer, 1.0))
back = {augment: views / 3 for augment, views in answer.items()}
assert not tl.check("12.3", back)
""", "solution")
    page.end_exercise()
    page.write()


def exercise_target(space):
    """The highest accuracy of the chapter's table that all seeds of all layers reach on flowers."""
    reached = [target for target in TARGETS["flowers"] if space["time_to"]("flowers", "all_layers", target) < float("inf")]
    if not reached:
        raise SystemExit("12.1: all layers reaches none of the accuracies on flowers; ask for another method")
    return reached[-1]
