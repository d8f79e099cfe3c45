"""Chapter 14, "When to use what", before its results are there, with its exercises. See making.py for the form, run.py to try it.

A sentence that begins with RESULT: is a guess at what the tables will say. CLAIMS has the numbers that the text quotes, HOW the way in
which the notebook computes each. BIB: entries to be added to the book.
"""

# ruff: noqa: E501 - a paragraph of a notebook is one line

import copy
import re
from pathlib import Path

from building import code, fold, md, save

NAME = "14_when_to_use_what"
EXPERIMENT = "experiments/decision_map.py"
DATA = {"flowers": "flowers", "faces": "faces", "solar_cells": "solar cells", "textiles": "textiles"}
METHODS = {
    "feature_extraction": "feature extraction", "last_stage": "the last stage", "lp_ft": "LP-FT", "all_layers": "all layers", "scratch": "training from scratch",
}  # fmt: skip
HOW, CLAIMS = {}, {}
FLOAT = "the network computes in float32; between processors the distance moves in the fourth digit"


def claim(id, sentence, how, **fields):
    CLAIMS[f"14.{id}"], HOW[f"14.{id}"] = {"sentence": sentence} | fields, how


def stored(id, sentence, how, **fields):
    """A number that is read from the tables: run.py gives it a tolerance of a tenth of the last digit shown."""
    claim(id, sentence, how, **({"seeds": "3 to 5 draws", "experiment": EXPERIMENT} | fields))


for id, what, n in (
    ("everyday", "four everyday photos", 4), ("everyday_down", "four everyday photos upside down", 4), ("faces", "200 faces", 200),
    ("faces_down", "200 faces upside down", 200), ("noise", "50 pictures of noise", 50),
):  # fmt: skip
    for which, layers in (("all", "all BatchNorm layers"), ("last", "the last BatchNorm layer")):
        claim(f"{id}_{which}", f"Distance from ImageNet of {what} at 128 pixels, by {layers}.", "distance(...)", digits=2, photos=n, seeds="one draw of photos", tolerance=0.02, why=FLOAT)
for data, name in DATA.items():
    stored(f"distance_{data}", f"Distance of {name} from ImageNet at the image size of the map: mean over five draws of 200 photos.", f"far['{data}']", digits=2, photos=200)
    stored(f"bits_{data}", f"Entropy of the ImageNet probabilities of {name}, in bits: mean over five draws of 200 photos.", f"unsure['{data}']", digits=1, photos=200, unit="bits")
    stored(f"gain_{data}", f"Accuracy of LP-FT less that of feature extraction, {name}, all photos: mean of paired differences.", "difference(...)[0]", unit="points", digits=1)
    stored(f"gain_{data}_reach", f"How far the 95 % interval of this reaches to either side, over draws and test photos ({name}).", "difference(...)[1]", unit="points", digits=1)
stored("cells", "Pairs of a data set and a number of photos a class in the map.", "len(cells)")
stored("clear", "Of these, pairs in which one method alone is still in the race.", "cells with one name in `among`")
stored("tied", "Pairs in which two or more methods are still in the race.", "cells - clear")
for method, name in METHODS.items():
    stored(f"wins_{method}", f"Pairs in which {name} alone is still in the race.", "among == {method}")
    stored(f"among_{method}", f"Pairs in which {name} is still in the race: no other method is plainly better.", "method in among")
    stored(f"cheapest_{method}", f"Pairs in which {name} is the cheapest still in the race, or within a quarter of its time.", "method in advice")
    stored(f"seconds_{method}", f"Processor seconds of {name} on all flowers: the least of the seeds.", "seconds(...)", unit="s", seeds="1 to 3 seeds")
for method in ("scratch", "all_layers"):
    stored(f"textiles_{method}", f"Processor seconds of {METHODS[method]} on all textiles: the least of the seeds.", "seconds(...)", unit="s", seeds="3 seeds")
for kind, says in (("right", "as it says, plainly"), ("wrong", "the other way round, plainly"), ("open", "no difference to be seen")):
    stored(f"rule_{kind}", f"Pairs in which full fine-tuning against feature extraction came out as follows, by the rule of thumb with the border that fits best: {says}.", f"score['{kind}']")
for kind in ("right", "wrong", "open"):
    stored(f"rule_fifty_{kind}", f"The same with a border of 50 photos a class: {kind}.", f"scores[5]['{kind}']")
stored("rule_better", "Pairs with 100 photos a class or all in which full fine-tuning is plainly better than feature extraction.", "better")
stored("rule_many", "Pairs with 100 photos a class or all.", "len(many)")
stored("rule_worse", "Pairs in which full fine-tuning is plainly worse than feature extraction.", "worse")
stored("rule_border", "Photos a class up to which the rule of thumb fits best if this counts as few.", "int(columns[border - 1])")
stored("why_cells", "Pairs of a data set and a number of photos a class up to 100.", "len(small)")
for id, what in (
    ("views", "feature extraction of all views of a photo"), ("steps", "the last layer alone, trained by gradient steps from zeros,"),
    ("stage", "the last stage"), ("lp_ft", "LP-FT"),
):  # fmt: skip
    stored(f"why_{id}", f"Accuracy of {what} less that of feature extraction, mean over the cells with up to 100 photos a class.", "above_frozen(...).mean()", unit="points", digits=1, seeds="3 draws")
    stored(f"why_{id}_reach", "How far the 95 % interval of this reaches to either side, over draws.", "over_draws(...)", unit="points", digits=1, seeds="3 draws")
for id, what in (("stage", "the last stage"), ("lp_ft", "LP-FT")):
    stored(f"why_{id}_steps", f"Accuracy of {what} less that of the last layer alone by gradient steps, mean over the cells with up to 100 photos a class.", "suspects[...] - suspects['steps']", unit="points", digits=1, seeds="3 draws")
    stored(f"why_{id}_steps_reach", "How far the 95 % interval of this reaches to either side, over draws.", "over_draws(...)", unit="points", digits=1, seeds="3 draws")
stored("tau", "Kendall's tau between distance from ImageNet and what LP-FT gains on feature extraction with all photos: four data sets.", "kendalltau(...)", digits=2)
stored("again_stored", "Solar cells, 10 photos a class, feature extraction: accuracy, mean of five draws.", "values(...).mean()", unit="%", digits=1, photos=500)
# Exercises: quoted by the solutions.
for id, what in (("low", "stem to stage_3"), ("high", "stage_6 and above")):
    claim(f"faces_{id}", f"Distance of 60 faces from ImageNet at 128 pixels, over the BatchNorm layers of {what} only.", "14.1", digits=2, photos=60, seeds="the first 60 photos", tolerance=0.02, why=FLOAT)
stored("plain_draws", "Pairs in which full fine-tuning and feature extraction differ plainly if only draws are counted as chance.", "14.2")
stored("plain_both", "Pairs in which they differ plainly if draws and test photos are.", "14.2")
stored("budget_accuracy", "Textiles, 100 photos a class: the highest mean accuracy of the methods that take at most 60 processor seconds.", "14.3", unit="%", digits=1)
stored("budget_seconds", "Processor seconds of that method: the least of the draws.", "14.3", digits=1, unit="s")
stored("free_accuracy", "Textiles, 100 photos a class: the highest mean accuracy of the five methods.", "14.3", unit="%", digits=1)

BIB = r"""
@misc{CS231n,
  author = {{CS231n}}, title = {Transfer Learning}, howpublished = {Course notes, Stanford University}, year = {2015},
  url = {https://cs231n.github.io/transfer-learning/}
}
@article{Dowson1982,
  author = {Dowson, D. C. and Landau, B. V.}, title = {The {Fréchet} Distance between Multivariate Normal Distributions},
  journal = {Journal of Multivariate Analysis}, volume = {12}, pages = {450--455}, year = {1982}, doi = {10.1016/0047-259X(82)90077-X}
}
@inproceedings{Yin2020,
  author = {Yin, Hongxu and Molchanov, Pavlo and Alvarez, Jose M. and Li, Zhizhong and Mallya, Arun and Hoiem, Derek and Jha, Niraj K. and Kautz, Jan},
  title = {Dreaming to Distill: Data-Free Knowledge Transfer via {DeepInversion}},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition}, year = {2020}, url = {https://arxiv.org/abs/1912.08795}
}
"""


def link(id):
    return f"[?](claim:14.{id})"


def counts_table():
    head = "| method | alone in the race | in the race | the cheapest in the race |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| {name} | " + " | ".join(link(f"{kind}_{method}") for kind in ("wins", "among", "cheapest")) + " |" for method, name in METHODS.items()
    )


def distance_table():
    head = "| | distance | entropy of ImageNet's answer | LP-FT against feature extraction, all photos, points |\n|---|---|---|---|\n"
    return head + "\n".join(
        f"| {name} | {link(f'distance_{data}')} | {link(f'bits_{data}')} | {link(f'gain_{data}')} ± {link(f'gain_{data}_reach')} |" for data, name in DATA.items()
    )


MAP_ALT = (
    "A table of coloured cells: four rows, the data sets by their distance from ImageNet, and seven columns, photos a class. In each cell stand the "
    "letters of the methods that are still in the race. No cell has a single letter. Darker cells, most of them to the right, are those without F."
)  # fmt: skip
ADVICE_ALT = (
    "The same table of cells, each in the colour and with the letter of one method: the cheapest still in the race. "
    "F, feature extraction, stands in most cells to the left, L, the last stage, in several of the others."
)  # fmt: skip

CHAPTER = [
    md(r"""
# When to use what

Feature extraction or {term}`fine-tuning`? {doc}`../book/01_what_is_transfer_learning` has the rule of thumb: it depends on how many photos you have and on how similar they are to those that the network knows. It does not say how many are many, nor how similarity is measured. This chapter measures both, draws the map from the runs of {doc}`11_better`, lays the rule over it, and ends with a page to print and a figure that gives advice.

**After this chapter you will be able to**

- measure how far your photos are from ImageNet, with nothing but the network itself;
- read a map of methods that has a colour for "no difference that we can see", and say why it is all in that colour;
- choose the cheapest method still in the race;
- say where the rule of thumb fits, where it does not, and what it leaves open.

**Needs** {doc}`11_better` and {doc}`13_overfitting`. **Takes** about 50 minutes to read and do, and about a minute of computing on two cores. Nothing is downloaded.
"""),
    md(r"""
## How far from ImageNet? One layer by hand

"Similar" can be measured, for the network has kept a picture of its photos. Each {term}`BatchNorm` layer holds, for each {term}`channel`, the mean $m$ and the deviation $s$ that this channel had over {term}`ImageNet`. If your photos were like those, they would give the channel the same mean and the same deviation. So send
some through, and look. Faces first: 200 of them, none twice, no test photo.
"""),
    code(r"""
import keras
import numpy as np

import tlhelpers as tl

faces = tl.load_dataset("faces")
once = np.unique(tl.duplicate_groups(faces), return_index=True)[1]
pool, test = faces.subset(np.sort(once)).split(test_size=0.25, seed=0)
some = np.random.default_rng(0).permutation(len(pool))[:200]
photos = pool.subset(np.sort(some)).images(128).astype("float32")
"""),
    code(r"""
network = tl.load_backbone("efficientnet_lite0", image_size=128).model
norm = network.get_layer("stem_bn")
below = keras.Model(network.input, norm.input)
maps = below.predict(photos, batch_size=16, verbose=0)
mean, deviation = maps.mean(axis=(0, 1, 2)), maps.std(axis=(0, 1, 2))
m = norm.moving_mean.numpy()
s = np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
maps.shape, mean.shape
"""),
    code(r"""
import matplotlib.pyplot as plt

plt.style.use(tl.plots.STYLE)
figure, axis = plt.subplots(figsize=(7.2, 2.8))
axis.axhspan(-1, 1, color="#dddddd", label="ImageNet: mean ± deviation")
axis.errorbar(range(len(m)), (mean - m) / s, deviation / s, fmt="o",
              color="#0072B2", capsize=2, label="faces: mean ± deviation")
axis.set(xlabel="channel of the first layer", ylim=(-1.7, 1.3),
         ylabel="in deviations of ImageNet")
axis.legend(ncols=2, fontsize=8, loc="lower right");
""", alt="For each of 32 channels a dot with a bar, the mean and deviation of faces, over a grey band from minus one to one, the same of ImageNet. All lie within the band, and all bars are shorter than it. Ten or so have no bar at all."),
    md(r"""
Each dot is one of 32 channels behind the first convolution, measured in ImageNet's own unit. If faces were ImageNet, all dots would lie on zero and all bars fill the band. All bars are too short: faces vary less than ImageNet does. Ten or so channels have no bar at all. They answer to colour only, and a grey photo has none.

How far are two such bars apart? For two normal distributions there is a neat answer, the *Fréchet distance*: $(\mu - m)^2 + (\sigma - s)^2$ is its square {cite:p}`Dowson1982`. Divided by $s^2$, so that all channels count alike, averaged over channels, and the root taken:

$$d = \sqrt{\frac1C \sum_{c=1}^{C} \frac{(\mu_c - m_c)^2 + (\sigma_c - s_c)^2}{s_c^2}}$$
"""),
    code(r"""
def far(mean, deviation, m, s):
    # squared, one for each channel
    return ((mean - m) ** 2 + (deviation - s) ** 2) / s**2


assert not far(m, s, m, s).any()  # ImageNet from itself
print(f"first layer: {np.sqrt(far(mean, deviation, m, s).mean()):.2f}")
"""),
    md(r"""
## All layers

The first layer knows colours and edges. Whether things look like *things* is decided higher up, so take all BatchNorm layers together, every channel counting once. The maps need not be kept, only the means of their values and of their squares: $\sigma^2$ is the mean of the squares less the square of the mean.
"""),
    code(r"""
norms = [layer for layer in network.layers
         if isinstance(layer, keras.layers.BatchNormalization)]
pooled = keras.layers.GlobalAveragePooling2D()
sums = keras.Model(network.input, [
    pooled(values) for layer in norms
    for values in (layer.input, layer.input * layer.input)])
len(norms), sum(layer.gamma.shape[0] for layer in norms)
"""),
    code(r"""
def distance(photos):
    outputs = sums.predict(photos, batch_size=16, verbose=0)
    outputs = [each.mean(axis=0, dtype="float64") for each in outputs]
    parts = []
    for layer, mean, square in zip(norms, outputs[::2], outputs[1::2]):
        deviation = np.sqrt(np.maximum(square - mean**2, 0))
        s = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        parts.append(far(mean, deviation, layer.moving_mean.numpy(), s))
    return [np.sqrt(each.mean()) for each in (np.concatenate(parts), parts[-1])]
"""),
    md(r"""
A measure that nobody has tried is not worth much. Does it see what it should? Everyday photos should be near: four of scikit-image's, an astronaut, a cat, coffee, a rocket. Faces upside down should be farther than upright: every pixel is still there, but what ImageNet shows stands upright. Noise should be farthest. Two candidates are tried: all layers together, and the last BatchNorm
layer alone, which stands right before the features.
"""),
    code(r"""
rng = np.random.default_rng(0)
noise = rng.uniform(0, 255, (50, 128, 128, 3)).astype("float32")
everyday = np.stack([tl.resize_image(tl.load_photo(name), 128) for name in (
    "astronaut", "chelsea", "coffee", "rocket")]).astype("float32")
changed = {"everyday": everyday, "faces": photos, "noise": noise,
           "everyday_down": everyday[:, ::-1], "faces_down": photos[:, ::-1]}
away = {name: distance(these) for name, these in changed.items()}
print(f"{'':<14} all layers   last layer")
for name, (everywhere, last) in away.items():
    print(f"{name:<14} {everywhere:>10.2f} {last:>12.2f}")
"""),
    code(r"""
for name, values_of in away.items():
    for which, value in zip(("all", "last"), values_of):
        tl.claims.check(f"14.{name}_{which}", value)
"""),
    md(f"""
By all layers: everyday photos {link('everyday_all')}, faces {link('faces_all')}, noise {link('noise_all')}. That order is as it should be. But upside down, faces come to {link('faces_down_all')} and everyday photos to {link('everyday_down_all')}: *nearer* than upright. Most layers answer to edges, textures and contrast, and these do not mind which way is up. By all layers together you measure how photos look, not what is on them.

The last layer alone has {link('everyday_last')} for everyday photos, {link('faces_last')} for faces and {link('noise_last')} for noise; and upside down it says farther, as it should: {link('everyday_down_last')} and {link('faces_down_last')}. What do the numbers mean? 0 would be ImageNet's own photos. And 1 is what a set gets whose channels keep ImageNet's means and do not vary at all: so a distance near 1 need not be exotic, it can be *narrow*. Four everyday photos vary little, and come out farther than they should. (We prefer the last layer because of two flips, one of them of four photos. That is a reason, no proof.)

That the statistics in BatchNorm are a picture of the photos is no new idea: Yin et al. made photos out of nothing by asking for those that fit them {{cite:p}}`Yin2020`. What no such distance can say is whether a *task* is hard. It looks at photos and never at labels, and two tasks on the same photos
have the same distance.

## Four data sets on a line

The experiment has measured five draws of 200 photos of each data set, in the sizes of the map, and at 224, where the network was trained. BY_WHAT Beside it stands the {{term}}`entropy` of the 1,000 ImageNet probabilities from {{doc}}`06_where_to_cut`, a second opinion.
"""),
    code(r"""
import csv
from pathlib import Path

stored = Path("../experiments/results/decision_map.csv")
spread = stored.with_name("decision_map_distance.csv")
lines, measured = (list(csv.DictReader(path.open(encoding="utf-8")))
                   for path in (stored, spread))
# the image size of the map, which is 250 for textiles and else the smaller
sizes = {name: min(int(line["image_size"]) if name != "textiles" else 250
                   for line in measured if line["dataset"] == name)
         for name in dict.fromkeys(line["dataset"] for line in measured)}
"""),
    code(r"""
def of_photos(name, column, size):
    where = {"dataset": name, "image_size": str(size)}
    return np.array([float(line[column]) for line in measured
                     if where.items() <= line.items()])
"""),
    code(r"""
far_off = {name: of_photos(name, "MEASURE", size).mean()
           for name, size in sizes.items()}
unsure = {name: of_photos(name, "entropy_bits", size).mean()
          for name, size in sizes.items()}
data_sets = sorted(sizes, key=far_off.get)  # the nearest first
for name in data_sets:
    large = of_photos(name, "MEASURE", 224).mean()
    print(f"{name:<12} {far_off[name]:.2f}, at 224 pixels {large:.2f};"
          f" {unsure[name]:.1f} bits")
"""),
    code(r"""
for name in data_sets:
    tl.claims.check(f"14.distance_{name}", far_off[name])
    tl.claims.check(f"14.bits_{name}", unsure[name])
again = of_photos("faces", "MEASURE", 128)[0]  # the draw from above
assert abs(again - away["faces"][WHICH]) < 0.1 * again
"""),
    md(f"""
Flowers are nearest with {link('distance_flowers')}; faces ({link('distance_faces')}) and solar cells ({link('distance_solar_cells')}) lie close together, and textiles are farthest ({link('distance_textiles')}). The entropy puts the four in the same order: {link('bits_flowers')}, {link('bits_faces')}, {link('bits_solar_cells')} and {link('bits_textiles')}; of textiles the network has next to no opinion. At 224 pixels all are nearer, in the same order again.

The first draw of faces is the one from above, so this stored number you have already measured again.
"""),
    md(r"""
## Which method is the best, and of which can that be said?

Now the runs: five methods, learned from the same photos, draw by draw. Their differences and intervals are those of {doc}`13_overfitting`, over draws and test photos.
"""),
    code(r"""
cells = list(dict.fromkeys((line["dataset"], line["photos"]) for line in lines))
methods = {"feature_extraction": "F", "last_stage": "L", "lp_ft": "P",
           "all_layers": "A", "scratch": "S"}


def values(data, method, photos, column="accuracy", read=float):
    wanted = {"dataset": data, "method": method, "photos": photos}
    found = [read(line[column]) for line in lines
             if wanted.items() <= line.items()]
    return np.array(found * 5 if len(found) == 1 else found)
"""),
    code(r"""
from scipy.stats import t


def bits(text):
    # 1 for each test photo that was right, and a few zeros at the end
    row = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.unpackbits(row).astype(float)


def over_draws(found):
    # half of the 95 % interval of a mean
    k = len(found)
    return t.ppf(0.975, k - 1) * found.std(ddof=1) / k**0.5
"""),
    code(r"""
def difference(data, photos, method, other):
    # points that method has more than other, and how far the interval reaches
    mine, its = (values(data, name, photos, "right", bits)
                 for name in (method, other))
    draws = min(len(mine), len(its))
    more = mine[:draws] - its[:draws]  # draws × test photos
    n = values(data, method, photos, "n_test")[0] + 2
    a_photo, a_draw = more.mean(axis=0), 100 * more.sum(axis=1) / (n - 2)
    square = (np.sum(a_photo**2) + 2) / n
    variance = (square - (a_photo.sum() / n) ** 2) / n
    return a_draw.mean(), np.hypot(over_draws(a_draw), 196 * variance**0.5)
"""),
    md(r"""
In each *cell*, a data set with a number of photos a class, hold each method against each other one. A method is out if another is *plainly* better: if the interval of the difference lies above zero. The rest is still in the race. Only where one alone remains is there a winner.

(Why not hold all against the one with the highest mean? Its lead may be one lucky draw with a long interval, and then a method could stay in the race that is plainly worse than a third.)
"""),
    code(r"""
def is_better(data, photos, method, other):
    middle, reach = difference(data, photos, method, other)
    return middle > reach


def in_the_race(data, photos, candidates=tuple(methods)):
    return [name for name in candidates if not any(
        is_better(data, photos, other, name)
        for other in candidates if other != name)]


among = {cell: in_the_race(*cell) for cell in cells}
print(sum(len(left) == 1 for left in among.values()), "of", len(cells))
"""),
    code(r"""
columns = ("2", "5", "10", "25", "50", "100", "all")
colours = {"feature_extraction": "#0072B2", "last_stage": "#56B4E9",
           "lp_ft": "#009E73", "all_layers": "#D55E00", "scratch": "#000000"}
labels = {"feature_extraction": "feature extraction",
          "last_stage": "last stage", "lp_ft": "LP-FT",
          "all_layers": "all layers", "scratch": "from scratch"}


def draw_cell(axis, row, column, text, colour):
    axis.add_patch(plt.Rectangle((column - 0.48, row - 0.46), 0.96, 0.92,
                                 color=colour))
    axis.text(column, row, text, ha="center", va="center", fontsize=9,
              color="white" if colour in ("#0072B2", "#000000") else "black")
"""),
    code(r"""
def draw_map(axis, content):
    # content: cell → text, colour
    for (data, photos), (text, colour) in content.items():
        draw_cell(axis, data_sets.index(data), columns.index(photos), text,
                  colour)
    axis.set_xticks(range(7), columns)
    axis.set_yticks(range(4), [f"{name.replace('_', ' ')}\n{far_off[name]:.2f}"
                               for name in data_sets])
    axis.set(xlim=(-0.5, 6.5), ylim=(-0.5, 3.5), xlabel="photos a class",
             ylabel="distance from ImageNet")
    axis.tick_params(length=0)
"""),
    code(r"""
def key(figure, marks):
    # marks: text → colour
    figure.legend([plt.Rectangle((0, 0), 1, 1, color=colour)
                   for colour in marks.values()], list(marks),
                  loc="outside lower center", ncols=3, fontsize=9)


def shade(left):
    if len(left) == 1:
        return colours[left[0]]
    return "#e4e4e4" if "feature_extraction" in left else "#bdbdbd"
"""),
    md(r"""
Each method has a letter: F, L, P, A, S. Now draw the letters that are left.
"""),
    code(r"""
names = {f"{methods[name]}: {labels[name]}": "white" for name in methods}
figure, axis = plt.subplots(figsize=(7.4, 4.2))
draw_map(axis, {cell: (" ".join(methods[name] for name in left), shade(left))
                for cell, left in among.items()})
key(figure, names | {"no difference that we can see": "#e4e4e4",
                     "the same, and F is out": "#bdbdbd"})
""", alt=MAP_ALT),
    md(r"""
This is the map. A cell with a winner would have a colour of its own. There is none: in each stand the letters of all methods that are still in the race, between which no difference is large enough to be seen with our draws and test photos. Where feature extraction is out, the grey is darker. Faces end early, for there are no more photos of a person.
"""),
    code(r"""
tl.claims.check("14.cells", len(cells))
clear = sum(len(left) == 1 for left in among.values())
tl.claims.check("14.clear", clear)
tl.claims.check("14.tied", len(cells) - clear)
for name in methods:
    tl.claims.check(f"14.wins_{name}",
                    sum(left == [name] for left in among.values()))
    tl.claims.check(f"14.among_{name}",
                    sum(name in left for left in among.values()))
"""),
    md(f"""
Of {link('cells')} cells {link('clear')} have a winner; in {link('tied')} two methods or more are left. In the race are feature extraction in {link('among_feature_extraction')} cells, the last stage in {link('among_last_stage')}, LP-FT in {link('among_lp_ft')}, all layers in {link('among_all_layers')} and scratch in {link('among_scratch')}.

That is the first answer to "which is the best": with as many draws as we could afford, and 500 photos to judge by, one cannot know. What one can know in some cells is that feature extraction is *not* the best. On flowers it is out with 10, 25 and 100 photos a class and with all, on textiles from 25 on, on solar cells with five. Faces with two photos show one more thing: all layers are out there, for the last stage is plainly better.

Grey does not mean *equal*. It means that a difference, if there is one, is smaller than what {{doc}}`11_better` could measure. And with ten comparisons in each cell some intervals miss zero by luck: a letter out of pattern, such as F with 50 flowers a class, is likely to be chance.
"""),
    md(r"""
## The cheapest of those left

Where no difference in accuracy is to be seen, one remains: the time. So the advice in each cell is: of those still in the race, take the one with the fewest processor seconds. (Of the draws the least counts: they were computed on several days, and the machine was slower on some. Two methods whose times are within a quarter of each other are taken together, for the clock is no better than that.)
"""),
    code(r"""
def seconds(data, method, photos):
    return values(data, method, photos, "seconds").min()


def cheapest(data, photos, left):
    spent = {name: seconds(data, name, photos) for name in left}
    return [name for name in left
            if spent[name] <= 1.25 * min(spent.values())]
"""),
    code(r"""
advice = {cell: cheapest(*cell, left) for cell, left in among.items()}
letters = {cell: (" ".join(methods[name] for name in names),
                  colours[names[-1]]) for cell, names in advice.items()}
figure, axis = plt.subplots(figsize=(7.4, 4.2))
draw_map(axis, letters)
key(figure, {f"{methods[name]}: {labels[name]}": colours[name]
             for name in methods})
""", alt=ADVICE_ALT),
    code(r"""
for name in methods:
    tl.claims.check(f"14.cheapest_{name}",
                    sum(name in names for names in advice.values()))
    tl.claims.check(f"14.seconds_{name}", seconds("flowers", name, "all"))
for name in ("scratch", "all_layers"):
    tl.claims.check(f"14.textiles_{name}", seconds("textiles", name, "all"))
"""),
    md(f"""
{counts_table()}

In {link('cheapest_feature_extraction')} of {link('cells')} cells the answer is feature extraction: nothing that was measured is plainly better, and nothing is cheaper. In {link('cheapest_last_stage')} it is the last stage, and with many textiles P and A, which cost the same. On all flowers feature extraction takes {link('seconds_feature_extraction')} of processor time, the last stage {link('seconds_last_stage')}, all layers {link('seconds_all_layers')}, LP-FT {link('seconds_lp_ft')} and scratch {link('seconds_scratch')}.

(If a point of accuracy is worth an hour to you, read the map above, not this one: try every method in the grey cell, on validation photos of your own.)
"""),
    md(r"""
## The rule of thumb, laid over it

The best known form of the rule stands in the notes of Stanford's course on networks for photos {cite:p}`CS231n`. In short:

| | similar to the source | very different |
|---|---|---|
| **small** | a linear classifier on the network's features | a linear classifier on features from an earlier layer |
| **large** | fine-tune through the full network | training from scratch may be affordable, yet in practice it is often better to start from the trained weights and fine-tune everything |

Said for two of our methods: with few photos feature extraction, because fine-tuning would overfit; with many, all layers. Similarity decides *which* features, and {doc}`06_where_to_cut` is about that. The notes do not say where *small* ends. So try each border, and see with which one the rule fits the map best.
A cell counts as *right* if the difference between all layers and feature extraction is plain and as the rule says (few photos: worse; many: better), *wrong* if it is plainly the other way round, *open* if nothing can be seen.
"""),
    code(r"""
tuned = {cell: difference(*cell, "all_layers", "feature_extraction")
         for cell in cells}


def score(border):
    # columns before the border are "few"
    found = {"right": 0, "wrong": 0, "open": 0}
    for (data, photos), (middle, reach) in tuned.items():
        many = columns.index(photos) >= border
        plain = abs(middle) > reach
        fits = (middle > 0) == many
        found[("right" if fits else "wrong") if plain else "open"] += 1
    return found
"""),
    code(r"""
scores = {border: score(border) for border in range(1, 7)}
border = max(scores, key=lambda each: scores[each]["right"]
             - scores[each]["wrong"])
for each, found in scores.items():
    print(f"few is up to {columns[each - 1]:>3}: {found}",
          "<- fits best" if each == border else "")
"""),
    code(r"""
figure, axis = plt.subplots(figsize=(7.4, 3.8))
shades = {"better": "#F0B48A", "worse": "#8EBBDD", "open": "#e4e4e4"}
draw_map(axis, {cell: (f"{middle:+.1f}\n± {reach:.1f}", shades[
    "open" if abs(middle) <= reach else "better" if middle > 0 else "worse"])
    for cell, (middle, reach) in tuned.items()})
axis.axvline(border - 0.5, color="black", linewidth=2, linestyle="--")
marks = [plt.Rectangle((0, 0), 1, 1, color=colour)
         for colour in shades.values()]
figure.legend(marks, ["all layers plainly better", "plainly worse",
                      "no difference that we can see"],
              loc="outside lower center", ncols=3, fontsize=9);
""", alt="The table of cells once more, with the accuracy of all layers less that of feature extraction and its interval in each. A dashed upright line is the border with which the rule of thumb fits best. It stands far to the left, behind two photos a class. Most cells are grey, none has the colour for worse, and some to the right have that for better."),
    code(r"""
for kind, number in scores[border].items():
    tl.claims.check(f"14.rule_{kind}", number)
tl.claims.check("14.rule_border", int(columns[border - 1]))
for kind, number in scores[5].items():
    tl.claims.check(f"14.rule_fifty_{kind}", number)
many = [tuned[cell] for cell in cells if cell[1] in ("100", "all")]
tl.claims.check("14.rule_many", len(many))
tl.claims.check("14.rule_better", sum(mean > reach for mean, reach in many))
worse = sum(middle < -reach for middle, reach in tuned.values())
tl.claims.check("14.rule_worse", worse)
"""),
    md(f"""
The border that fits best lies at {link('rule_border')} photos a class: right in {link('rule_right')} cells, wrong in {link('rule_wrong')}, open in {link('rule_open')}. It is hardly a border at all, and it beats the others by one cell: five solar cells a class, where all layers are plainly ahead and still below a constant answer ({{doc}}`11_better`). With a border that somebody might have in mind, 50, the rule is right in {link('rule_fifty_right')}, wrong in {link('rule_fifty_wrong')} and open in {link('rule_fifty_open')}. **The map has no border to offer.**

Of the two halves of the rule one is borne out in part: of {link('rule_many')} cells with 100 photos a class or all of them, training everything is plainly better in {link('rule_better')}, on flowers and on textiles, the nearest and the farthest. The other half, that it is worse with few, is plain in {link('rule_worse')} cells. That does not refute it, for most intervals are wide. Over most of the map no difference can be seen, and what decides is the time. And the last corner of the table, many and very different: with all textiles a network from scratch is as good as a fine-tuned one, and plainly better than a frozen one ({{doc}}`11_better`).
"""),
    md(r"""
## Is it the layers that train?

Where methods that train layers are ahead, three things are different about them at once: layers train; photos come mirrored or turned, which feature extraction has not seen; and the last layer learns by gradient steps from zeros, and not by a logistic regression to its end. Two controls with the same draws tell these apart (three draws, up to 100 photos a class):
*views* is feature extraction of each photo in all its views, and *steps* trains the last layer alone, from zeros, for as many epochs as the last stage, with a learning rate chosen like the others.
"""),
    code(r"""
controls = stored.with_name("decision_map_why.csv")
extra = list(csv.DictReader(controls.open(encoding="utf-8")))
small = [cell for cell in cells if cell[1] != "all"]


def first_three(rows, data, photos, method):
    found = {line["seed"]: 100 * float(line["accuracy"]) for line in rows
             if (line["dataset"], line["photos"], line["method"])
             == (data, photos, method)}
    return np.array([found[seed] for seed in "012"])
"""),
    code(r"""
def above_frozen(rows, method):
    # mean over the cells, one for each of three draws
    return np.mean([
        first_three(rows, *cell, method)
        - first_three(lines, *cell, "feature_extraction")
        for cell in small], axis=0)
"""),
    code(r"""
suspects = {"views": above_frozen(extra, "feature_views"),
            "steps": above_frozen(extra, "head_gradient"),
            "stage": above_frozen(lines, "last_stage"),
            "lp_ft": above_frozen(lines, "lp_ft")}
apart = {f"{name}_steps": suspects[name] - suspects["steps"]
         for name in ("stage", "lp_ft")}
for name, more in (suspects | apart).items():
    print(f"{name:<12} {more.mean():+.1f} ± {over_draws(more):.1f} points")
"""),
    code(r"""
tl.claims.check("14.why_cells", len(small))
for name, more in (suspects | apart).items():
    tl.claims.check(f"14.why_{name}", more.mean())
    tl.claims.check(f"14.why_{name}_reach", over_draws(more))
"""),
    md(f"""
In the mean over {link('why_cells')} cells, against feature extraction: the views alone {link('why_views')} ± {link('why_views_reach')}, the steps alone {link('why_steps')} ± {link('why_steps_reach')}, the last stage {link('why_stage')} ± {link('why_stage_reach')}, LP-FT {link('why_lp_ft')} ± {link('why_lp_ft_reach')} (intervals over three draws; the test photos are the same). So the views explain next to nothing. The steps may explain a part, for their interval is wide: the last stage has {link('why_stage_steps')} ± {link('why_stage_steps_reach')} more than they, LP-FT {link('why_lp_ft_steps')} ± {link('why_lp_ft_steps_reach')}. The rest is that layers train.

That only holds because all features have *one* scale here. With each feature on its own scale, as a scaler before a logistic regression has it, feature extraction lies many points lower with few photos ({{doc}}`05_few_shots`), and the map would have praised fine-tuning for a fault of its opponent.
"""),
    md(r"""
## Does the distance matter?

Often this is added to the rule: the farther from the source, the more fine-tuning gains. Hold the gain of LP-FT over feature extraction, with all photos, against the distance. LP-FT, because it is the one that trains everything and hardly ever hurts ({doc}`13_overfitting`).
"""),
    code(r"""
from scipy.stats import kendalltau

gains = {name: difference(name, "all", "lp_ft", "feature_extraction")
         for name in data_sets}
tau = kendalltau([far_off[name] for name in data_sets],
                 [gains[name][0] for name in data_sets]).statistic
"""),
    code(r"""
figure, axis = plt.subplots(figsize=(5.6, 3.4))
for name, (middle, reach) in gains.items():
    axis.errorbar(far_off[name], middle, reach, fmt="o", color="#009E73",
                  capsize=3)
    axis.annotate(name.replace("_", " "), (far_off[name], middle),
                  (-34 if name == "faces" else 6, 6),
                  textcoords="offset points", fontsize=9)
axis.axhline(0, color="#555555", linewidth=0.8)
axis.set(xlabel="distance from ImageNet", ylabel="gain of LP-FT, points");
""", alt="Four dots with bars, one for each data set: what LP-FT gains on feature extraction with all photos, in points, against distance from ImageNet. Textiles, the farthest, lie highest by far; flowers, the nearest, come next, above zero; faces and solar cells lie on zero."),
    code(r"""
tl.claims.check("14.tau", tau)
for name, (middle, reach) in gains.items():
    tl.claims.check(f"14.gain_{name}", middle)
    tl.claims.check(f"14.gain_{name}_reach", reach)
"""),
    md(f"""
{distance_table()}

The farthest gains most. But the nearest gains as well, plainly, and the two between gain nothing that we can see. {{term}}`Kendall's tau` between the two columns is {link('tau')}: **the distance does not put the gains in order.** Faces have no room, for frozen features have nearly all of them right. And solar cells do gain with larger photos and longer training: {{doc}}`08_fine_tuning` has that at 224 pixels.

Four data sets can be put into 24 orders, so even a perfect one would come up by luck once in 24 times. They differ in much besides distance: classes, photos a class, image size, how fine the decisive part is. And one of the six pairs here, faces and solar cells, is decided by noise.
"""),
    md(r"""
## A page to keep

What has been measured here, on one page: the questions in the order in which they are cheap to answer, and the map of advice. It is drawn by matplotlib, so it has the size of a sheet of paper.
"""),
    code(r"""
steps = (
    "1  Fit a head on frozen features. It takes seconds. Compare with it.",
    "2  Count photos a class, and find the row whose data are most like\n"
    "    yours, in task and in looks. The distance from ImageNet may help.",
    "3  A letter other than F? Try that method with 3 seeds. Keep it if its\n"
    "    gain on validation photos has an interval above zero.",
    "4  Few photos, and all layers train? Another draw may give another\n"
    "    answer. Look at several before you believe one.",
    "5  Do you need probabilities? Compare log losses: with few photos\n"
    "    frozen features often have the better ones (not on faces).")
limits = ("One small network (EfficientNet-Lite0), photos of 128 pixels "
          "(textiles 250), one recipe,\nfour data sets, at most 500 test "
          "photos. Letter: the cheapest method than which none is\nplainly "
          "better; one out of pattern is likely to be chance.")
"""),
    code(r"""
page = plt.figure(figsize=(8.27, 11.69))  # A4
page.set_layout_engine("none")
page.text(0.1, 0.93, "Feature extraction or fine-tuning?", fontsize=20)
for place, step in enumerate(steps):
    page.text(0.1, 0.88 - 0.055 * place, step, fontsize=11, va="top")
axis = page.add_axes((0.22, 0.25, 0.68, 0.32))
draw_map(axis, letters)
for place, name in enumerate(methods):
    page.text(0.1 + 0.28 * (place % 3), 0.17 - 0.022 * (place // 3),
              f"{methods[name]}: {labels[name]}", fontsize=10,
              fontweight="bold", color=colours[name])
page.text(0.1, 0.07, limits, fontsize=9, color="#444444");
""", alt="A printable page, Feature extraction or fine-tuning: five numbered steps: fit a head on frozen features, find your row and column, try the method of your cell with three seeds, look at several draws, compare log losses. Below them the map of advice with a letter for the method in each cell, its key, and a note on the limits."),
    code(r"""
import base64
import io

from IPython.display import HTML

sheet = io.BytesIO()
page.savefig(sheet, format="pdf", metadata={"CreationDate": None})
data = base64.b64encode(sheet.getvalue()).decode()
print(f"{len(data) / 1000:.0f} kB")
HTML('<a download="decision_chart.pdf" href="data:application/pdf;base64,'
     f'{data}">Decision chart, one page to print (PDF)</a>')
"""),
    md(r"""
The link holds the page itself, so it works without a network, too.
"""),
    md(r"""
## Ask the map

Choose the data set that yours is most like, the photos a class, and how many processor seconds you have for a training. (On two cores, a minute of waiting is up to two minutes of processor time.) The figure names the method, says why, and shows the runs behind it: small dots are single runs, the large one their mean, the bar its 95 % interval, over draws and test photos.
"""),
    code(r"""
budgets = {"30 s": 30, "5 min": 300, "no limit": np.inf}
"""),
    code(r"""
def advise(data, photos, limit):
    fits = [name for name in methods if seconds(data, name, photos) <= limit]
    if not fits:
        return "None of the five was that quick. Try feature extraction."
    left = in_the_race(data, photos, fits)
    take = " or ".join(labels[each] for each in cheapest(data, photos, left))
    why = ("the only one within this time" if len(fits) == 1 else "of those "
           "within this time still in the race, and costs least")
    ahead = [labels[each] for each in methods if each not in fits and any(
        is_better(data, photos, each, name) for name in left)]
    more = f" With more time, {' or '.join(ahead)} is plainly better."
    return f"<b>Take {take}</b>: {why}." + (more if ahead else "")
"""),
    code(r"""
def row_of(place, data, method, photos):
    # one method as a line of SVG
    found, y = values(data, method, photos), 22 * place + 18
    n = values(data, "scratch", "2", "n_test")[0]
    p, k = (found.mean() * n + 2) / (n + 4), len(found)
    reach = np.hypot(t.ppf(0.975, k - 1) * found.std(ddof=1) / k**0.5,
                     1.96 * (p * (1 - p) / n)**0.5)
    low, high = np.clip([found.mean() - reach, found.mean() + reach], 0, 1)
    x = [120 + 200 * value for value in (low, high, found.mean(), *found)]
    dots = "".join(f"<circle cx='{at:.0f}' cy='{y}' r='2'/>" for at in x[3:])
    spent = f"{seconds(data, method, photos):.0f} s"
    return (f"<text y='{y + 4}'>{labels[method]}</text><path d='M{x[0]:.0f} "
            f"{y}H{x[1]:.0f}'/><circle cx='{x[2]:.0f}' cy='{y}' r='5'/>{dots}"
            f"<text x='330' y='{y + 4}'>{spent}</text>")
"""),
    code(r"""
from urllib.parse import quote


def picture(data, photos):
    rows = "".join(row_of(place, data, method, photos)
                   for place, method in enumerate(methods))
    axis = "".join(f"<text x='{110 + 2 * at}' y='136'>{at} %</text>"
                   for at in (0, 50, 100))
    svg = ("<svg xmlns='http://www.w3.org/2000/svg' width='380' height='140' "
           "font-family='sans-serif' font-size='12'><style>path{stroke:#06a;"
           "stroke-width:2}circle{fill:#06a;fill-opacity:.6}</style><rect "
           f"width='380' height='140' fill='white'/>{rows}{axis}</svg>")
    return "data:image/svg+xml," + quote(svg, safe=" /:=',;()<>")
"""),
    md(r"""
A picture of lines, dots and text is some thousand letters of SVG, far less than a picture of pixels. That matters: the figure holds a page for each combination. Its alt text has the numbers.
"""),
    code(r"""
def image(alt, source, width, height):
    return (f'<img alt="{alt}" width="{width}" height="{height}" '
            f'style="max-width:100%" src="{source}">')


def page_of(data, photos, limit):
    if (data, photos) not in cells:
        return "<p>There are no such runs.</p>" + image(
            "No runs, for there are too few photos of each class.",
            "data:image/svg+xml,", 1, 1)
    alt = "; ".join(f"{labels[name]} {values(data, name, photos).mean():.0%}, "
                    f"{seconds(data, name, photos):.0f} s" for name in methods)
    return f"<p>{advise(data, photos, limit)}</p>" + image(
        "Accuracy, seconds: " + alt, picture(data, photos), 380, 140)
"""),
    code(r"""
import ipywidgets

wide = ipywidgets.Layout(width="100%")  # one for all: each of its own is 1 kB


def stack(chooser, pages):
    found = ipywidgets.Stack(pages, selected_index=0, layout=wide)
    ipywidgets.jslink((chooser, "index"), (found, "selected_index"))
    return found


def chooser(kind, options, description):
    return kind(options=list(options), description=description,
                style={"description_width": "initial"})
"""),
    code(r"""
which = chooser(ipywidgets.Dropdown, [name.replace("_", " ")
                                      for name in data_sets], "Photos like")
few = chooser(ipywidgets.SelectionSlider, columns, "Photos a class")
time = chooser(ipywidgets.ToggleButtons, budgets, "Processor time")
ask = ipywidgets.VBox([which, few, time, stack(which, [
    stack(few, [stack(time, [
        ipywidgets.HTML(page_of(data, photos, limit), layout=wide)
        for limit in budgets.values()]) for photos in columns])
    for data in data_sets])])
ask
"""),
    md(r"""
Go to textiles with 25 photos a class, and take the time away step by step. Then to faces with 2. Advice that rests on three runs and 98 test photos is not worth more than these: look at the bars before you look at the name.
"""),
    md(r"""
## A small part measured again

One cell, on this machine: solar cells, ten photos a class, feature extraction, the five draws of the experiment, and the same 500 test photos.
"""),
    code(r"""
cells_pool, judge = tl.load_dataset("solar_cells").split(test_size=0.25, seed=0)
rows = np.random.default_rng(0).permutation(len(judge))[:500]
judge, backbone = judge.subset(np.sort(rows)), tl.load_backbone(
    "efficientnet_lite0", image_size=128)
test_features, again = tl.extract_features(judge, backbone), []
for seed in range(5):
    learn = cells_pool.sample(per_class=10, seed=seed)
    head = tl.train_head(tl.extract_features(learn, backbone), learn.labels,
                         scale="one", seed=seed)
    again.append(np.mean(head.predict(test_features) == judge.labels))
"""),
    code(r"""
here = values("solar_cells", "feature_extraction", "10")
mean, n = here.mean(), len(judge)
reach = np.hypot(t.ppf(0.975, 4) * here.std(ddof=1) / 5**0.5,
                 1.96 * (mean * (1 - mean) / n) ** 0.5)
print("again", np.round(again, 3), "stored", here.round(3))
assert abs(np.mean(again) - mean) <= reach
""", "again"),
    code(r"""
tl.claims.check("14.again_stored", mean)
"""),
    md(f"""
The stored mean is {link('again_stored')}, and what was measured just now lies within its interval. Each other cell can be measured again by `python -m experiments.decision_map --part … --cell … --again`.
"""),
    md(f"""
## When to use what

- **Start with feature extraction, always.** It takes seconds, in {link('among_feature_extraction')} of {link('cells')} cells nothing is plainly better, and it is the baseline in the others.
- **Then the last stage.** It is still in the race in {link('among_last_stage')} cells, feature extraction in {link('among_feature_extraction')}, and it costs a few times as much, which is seconds to a minute or two.
- **With hundreds of photos, train everything, at least once.** On all textiles LP-FT gains {link('gain_textiles')} ± {link('gain_textiles_reach')}, on all flowers {link('gain_flowers')} ± {link('gain_flowers_reach')}. On solar cells it gains nothing that we can see here ({link('gain_solar_cells')} ± {link('gain_solar_cells_reach')}), and does with larger photos ({{doc}}`08_fine_tuning`).
- **Near or far?** Not a guide here. Measure it to know what you have, not to choose a method.
- **Few photos: expect not to know.** With two, ten or 25 solar cells a class all five methods are in the race, scratch too. More photos help most; then another cut point ({{doc}}`06_where_to_cut`), which this map does not have.
- **Scratch?** In the race in {link('among_scratch')} cells: solar cells and textiles with few photos, where it cannot be told from the others, and all textiles, where it has next to every test photo right, as LP-FT and all layers have. There it took {link('textiles_scratch')} of processor time, all layers {link('textiles_all_layers')}.

The limits stand on the printed page. One more: "not to be told from" depends on us. With 5,000 test photos and ten draws more of the map would have a colour.

*Photos of solar cells: ELPV data set, CC BY-NC-SA 4.0 {{cite:p}}`Buerhop2018,Deitsch2021`. Flowers: photographers on Flickr, CC BY.*
"""),
    md(r"""
## Take-aways

- How far photos are from ImageNet can be measured: hold what they do to each channel against what BatchNorm remembers.
- A map of winners needs a colour for "no difference that we can see". Here all of it has that colour.
- Where quality cannot decide, time does: take the cheapest method that is still in the race.
- With many photos training layers paid on two data sets of four, the nearest and the farthest. That it harms with few was not seen against frozen features; and distance did not order the gains.
- Four data sets show what is possible, not what is usual. Find your cell, then measure.
"""),
    md(r"""
## Questions

Answer in a sentence or two, then unfold.

<details>
<summary>Why is the difference divided by ImageNet's deviation, channel by channel?</summary>

Channels have different scales. Without the division the few with large values would decide, and the distance would say little about the others.

</details>

<details>
<summary>Two tasks on the same photos: is one nearer to ImageNet than the other?</summary>

Not by this distance, which never sees a label. One of the tasks may still be much easier for ImageNet's features than the other.

</details>

<details>
<summary>A cell is grey and holds the letters F, P and A. A colleague says: "so they are equally good". What do you answer?</summary>

Only that no difference was large enough to be seen with these draws and test photos. The interval says how large it may still be.

</details>

<details>
<summary>Why was every border tried for the rule of thumb, and what does that do to its score?</summary>

The rule names no border, so any one of ours could be called unfair. Choosing it on the same map makes the score too good; it is an upper bound. Here the borders hardly differ, and the best is decided by one cell.

</details>

<details>
<summary>Why take the cheapest in the race, and not the one with the highest mean?</summary>

The highest mean among methods that cannot be told apart is mostly luck. The order of the times is mostly certain: features first, then the last stage, then all layers, then scratch.

</details>
"""),
    md(r"""
## Exercises

Three exercises go with this chapter: in which layers faces are far away, what counts as chance, and the best for a minute.
{doc}`solutions/14_when_to_use_what` has them with their solutions folded away. To work on them, open
`notebooks/exercises/14_when_to_use_what.ipynb`, which has the questions only.
"""),
]

SOLUTIONS = [
    md(r"""
# Exercises: when to use what

Three exercises to {doc}`../14_when_to_use_what`. Each asks for an answer in a form that `tl.check` can read. It says *right*,
or *not yet* with a hint; with `...` in place of an answer it says how to begin. Guess first, then measure.

**Needs** chapter 14. **Takes** about 45 minutes, and under a minute of computing.
"""),
    md(r"""
## What the exercises need

The table of the map; the network; and sixty faces.
"""),
    code(r"""
import csv
from pathlib import Path

import keras
import numpy as np
from scipy.stats import t

import tlhelpers as tl

stored = Path("../../experiments/results/decision_map.csv")
with stored.open(newline="", encoding="utf-8") as file:
    lines = list(csv.DictReader(file))
"""),
    code(r"""
network = tl.load_backbone("efficientnet_lite0", image_size=128).model
faces = tl.load_dataset("faces").subset(range(60))
photos = faces.images(128).astype("float32")


def values(data, method, photos, column="accuracy", read=float):
    wanted = {"dataset": data, "method": method, "photos": photos}
    found = [read(line[column]) for line in lines
             if wanted.items() <= line.items()]
    return np.array(found * 5 if len(found) == 1 else found)
"""),
    md(r"""
## 14.1 Where faces are far away

Measure the distance of the 60 faces from ImageNet twice: over the BatchNorm layers of the stem and of stages 1 to 3 only, and over those of *stage_6*, *stage_7* and *top* only. A layer's name begins with that of its stage. Each channel counts once, as in the chapter.

`answer`: a dictionary with the keys "low" and "high", each a number.
"""),
    code(r"""
answer = ...

tl.check("14.1", answer)
"""),
    *fold(
        code(r"""
def squares(layer):
    # of one layer, one for each channel
    maps = np.array(keras.Model(network.input, layer.input)(photos))
    mean = maps.mean(axis=(0, 1, 2), dtype="float64")
    deviation = maps.std(axis=(0, 1, 2), dtype="float64")
    m = layer.moving_mean.numpy()
    s = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
    return ((mean - m) ** 2 + (deviation - s) ** 2) / s**2
"""),
        code(r"""
parts = {"low": ("stem", "stage_1", "stage_2", "stage_3"),
         "high": ("stage_6", "stage_7", "top")}
found = {part: [squares(layer) for layer in network.layers
                if isinstance(layer, keras.layers.BatchNormalization)
                and layer.name.startswith(stages)]
         for part, stages in parts.items()}
answer = {part: float(np.sqrt(np.concatenate(each).mean()))
          for part, each in found.items()}
print(answer)
tl.check("14.1", answer)
"""),
        code(r"""
for part, value in answer.items():
    tl.claims.check(f"14.faces_{part}", value)
"""),
        md(f"""
{link('faces_low')} below and {link('faces_high')} above: unusual for the first layers already, and more so for the last. (These are the first sixty photos, of a few persons only, which makes the set narrow.)

Two mistakes: the mean of the layers' own distances, in which a layer with few channels counts as much as one with many, and the root forgotten.
"""),
        code(r"""
assert not tl.check("14.1", {part: float(np.mean([
    np.sqrt(layer.mean()) for layer in each])) for part, each in found.items()})
assert not tl.check("14.1", {part: value**2 for part, value in answer.items()})
"""),
    ),
    md(r"""
## 14.2 What counts as chance

In how many cells of the map do `all_layers` and `feature_extraction` differ plainly, in either direction? Count twice: once with the interval over draws alone (Student's $t$, paired), once with draws and test photos, as in the chapter.

`answer`: a dictionary with the keys "draws" and "both", each a whole number.
"""),
    code(r"""
cells = list(dict.fromkeys((line["dataset"], line["photos"]) for line in lines))

answer = ...

tl.check("14.2", answer)
"""),
    *fold(
        code(r"""
def bits(text):
    row = np.frombuffer(bytes.fromhex(text), np.uint8)
    return np.unpackbits(row).astype(float)


def compared(data, photos):
    mine, its = (values(data, method, photos, "right", bits)
                 for method in ("all_layers", "feature_extraction"))
    draws = min(len(mine), len(its))
    more = mine[:draws] - its[:draws]  # draws × test photos
    n = values(data, "all_layers", photos, "n_test")[0]
    return 100 * more.sum(axis=1) / n, more.mean(axis=0), n
"""),
        code(r"""
def reaches(data, photos):
    # mean of the differences, and both intervals
    points, a_photo, n = compared(data, photos)
    draws = len(points)
    reach = t.ppf(0.975, draws - 1) * points.std(ddof=1) / draws**0.5
    square = (np.sum(a_photo**2) + 2) / (n + 2)
    variance = (square - (a_photo.sum() / (n + 2)) ** 2) / (n + 2)
    return points.mean(), reach, np.hypot(reach, 196 * variance**0.5)
"""),
        code(r"""
found = np.array([reaches(*cell) for cell in cells])
middle = np.abs(found[:, 0])
answer = {"draws": int((middle > found[:, 1]).sum()),
          "both": int((middle > found[:, 2]).sum())}
print(answer, "of", len(cells))
tl.check("14.2", answer)
"""),
        code(r"""
tl.claims.check("14.plain_draws", answer["draws"])
tl.claims.check("14.plain_both", answer["both"])
"""),
        md(f"""
{link('plain_draws')} and {link('plain_both')}. With draws alone you say: for *these* test photos the difference is plain. With both, other test photos are allowed for as well. Papers that report a mean and a deviation over seeds say the first and are read as the second.

Two mistakes: the two the wrong way round, and counting the cells in which *no* difference can be seen.
"""),
        code(r"""
assert not tl.check("14.2", {"draws": answer["both"],
                             "both": answer["draws"]})
assert not tl.check("14.2", {kind: len(cells) - number
                             for kind, number in answer.items()})
"""),
    ),
    md(r"""
## 14.3 The best for a minute

Textiles, 100 photos a class, and at most 60 processor seconds for a training. A method's time is the least over its draws (some were computed on a slower day). Of the methods within that, which has the highest mean accuracy? Give this accuracy and its time.

`answer`: a dictionary with the keys "accuracy", between 0 and 1, and "seconds".
"""),
    code(r"""
answer = ...

tl.check("14.3", answer)
"""),
    *fold(
        code(r"""
methods = list(dict.fromkeys(line["method"] for line in lines))
where = {method: (values("textiles", method, "100").mean(),
                  values("textiles", method, "100", "seconds").min())
         for method in methods}
quick = [method for method in methods if where[method][1] <= 60]
best = max(quick, key=lambda method: where[method][0])
answer = dict(zip(("accuracy", "seconds"), map(float, where[best])))
print(best, quick)
tl.check("14.3", answer)
"""),
        code(r"""
tl.claims.check("14.budget_accuracy", answer["accuracy"])
tl.claims.check("14.budget_seconds", answer["seconds"])
tl.claims.check("14.free_accuracy", max(right for right, _ in where.values()))
"""),
        md(f"""
{link('budget_accuracy')} in {link('budget_seconds')}; without a limit the best mean is {link('free_accuracy')}. What a minute costs here can be seen without any interval.

Two mistakes: the best single run in place of the mean, and the accuracy on its own photos.
"""),
        code(r"""
lucky = float(values("textiles", best, "100").max())
assert not tl.check("14.3", {**answer, "accuracy": lucky})
own = float(values("textiles", best, "100", "train_accuracy").mean())
assert not tl.check("14.3", {**answer, "accuracy": own})
"""),
    ),
]

EXERCISES = {
    "14.1": {
        "title": "Where faces are far away", "begin": 'Give a dictionary with the keys "low" and "high", each a number.', "tolerance": 0.02,
        "hint": "For each layer of the part take mean and deviation of the 60 faces' maps, channel by channel; join the squares of all layers, then mean, then root.",
        "wrong": ["There each layer counts once. Let each channel count once: join the squares of all layers before you take the mean.", "That is the square. Take the root."],
    },
    "14.2": {
        "title": "What counts as chance", "begin": 'Give a dictionary with the keys "draws" and "both", each a whole number.', "tolerance": 0.5,
        "hint": "A cell counts if the mean of the paired differences, without its sign, is larger than the reach of the interval.",
        "wrong": ["Which of the two intervals is wider? Fewer cells are plain with it.", "Those are the cells in which no difference can be seen. Count the others."],
    },
    "14.3": {
        "title": "The best for a minute", "begin": 'Give a dictionary with the keys "accuracy", between 0 and 1, and "seconds".',
        "tolerance": {"accuracy": 0.0005, "seconds": 0.05},
        "hint": "For each method take the mean of accuracy and the least of seconds over the lines with dataset textiles and photos 100; leave out those above 60 s, take the highest accuracy.",
        "wrong": ["That is the luckiest run. Take the mean over the draws.", "That is the accuracy on its own photos. Take the column accuracy."],
    },
}


def build(root):
    """The map's upright axis: the distance by the last layer where the experiment has stored it ("last_distance"), else by all layers."""
    table = Path(root, "experiments", "results", "decision_map_distance.csv")
    by_last = "last_distance" in table.read_text("utf-8").splitlines()[0].split(",")
    words = {
        "MEASURE": "last_distance" if by_last else "distance", "WHICH": str(int(by_last)),
        "BY_WHAT": "The last layer alone is what counts from here on." if by_last else "All layers together are what was stored: how photos look.",
    }  # fmt: skip
    cells = copy.deepcopy(CHAPTER)
    for cell in cells:
        for word, text in words.items():
            cell.source = re.sub(rf"\b{word}\b", text, cell.source)
    save(root, NAME, cells, SOLUTIONS)
