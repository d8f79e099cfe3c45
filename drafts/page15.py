"""Builds book/15_verdicts.md: a row for each of the seven sentences. `python drafts/page15.py ROOT` writes it and says which of the
numbers that it quotes are not in ROOT's ledger (those of chapters 11 to 14 come with their chapters).

A verdict that begins with RESULT: is a guess at what the tables will say. Words for verdicts, and no others: "True", "True under these
conditions", "Not seen here".
"""

# ruff: noqa: E501 - a row of a table is one line

import re
import sys
from pathlib import Path


def link(id):
    return f"[?](claim:{id})"


def pair(id):
    return f"{link(id)} ± {link(id + '_reach')}"


ROWS = [
    (
        "The features of a frozen network serve a new task.",
        "RESULT: True",
        f"Solar cells, all photos, 224 pixels: {link('03.accuracy')} against {link('03.test_majority')} for the commonest class and {link('03.test_pixels')} for pixels. RESULT: In {link('14.among_feature_extraction')} of {link('14.cells')} cells of the map no other method is plainly better than feature extraction.",
        "One network. On textiles with few photos, and wherever what decides is a few pixels wide, its features say little at this cut point.",
        "[3](../notebooks/03_feature_extraction), [6](../notebooks/06_where_to_cut), [14](../notebooks/14_when_to_use_what)",
    ),
    (
        "Feature extraction fits small data close to the source.",
        "RESULT: True",
        f"Flowers, two photos a class, against scratch: {pair('11.flowers_gain_2')}. Against it, full fine-tuning has {pair('13.all_2_flowers')}, and LP-FT {pair('13.lp_ft_2_flowers')}. Cheapest of those not to be told from the best in {link('14.cheapest_feature_extraction')} of {link('14.cells')} cells.",
        "Close is measured as a distance of statistics, of which chapter 14 shows what it cannot see. Faces, which are not near by it, behave likewise.",
        "[13](../notebooks/13_overfitting), [14](../notebooks/14_when_to_use_what)",
    ),
    (
        "Fine-tuning fits larger data far from the source.",
        "RESULT: True under these conditions",
        f"All photos, LP-FT against feature extraction: solar cells {pair('14.gain_solar_cells')}, textiles {pair('14.gain_textiles')}; flowers, which are near, {pair('14.gain_flowers')}. With all solar cells at 224 pixels and longer training, all layers had {link('08.lead_plain')} more in each of five splits.",
        f"Hundreds of photos a class. That distance is the reason has not been shown: there are four data sets, with a tau of {link('14.tau')}. With two photos a class full fine-tuning hurts: solar cells {pair('13.all_2_solar')}, textiles {pair('13.all_2_textiles')}.",
        "[8](../notebooks/08_fine_tuning), [9](../notebooks/09_how_deep), [14](../notebooks/14_when_to_use_what)",
    ),
    (
        "Transfer improves accuracy.",
        "RESULT: True under these conditions",
        f"Of all comparisons with a network from scratch {link('11.better')} are plainly in favour of transfer, {link('11.worse')} against it, and in {link('11.same')} no difference can be seen. Feature extraction with all photos: flowers {pair('11.flowers_gain_all')}, faces {pair('11.faces_gain_all')}, solar cells {pair('11.solar_cells_gain_all')}, textiles {pair('11.textiles_gain_all')}.",
        "RESULT: With few photos on all four; with all photos only if layers are trained where data are far. A longer training from scratch was not tried but for the curves of chapter 12.",
        "[11](../notebooks/11_better)",
    ),
    (
        "Transfer saves time.",
        "RESULT: True",
        f"To reach the highest accuracy that scratch gets to and feature extraction has as well, scratch takes {link('12.flowers_times')} times the processor seconds on flowers and {link('12.solar_cells_times')} times on solar cells. All photos: {link('12.flowers_feature_extraction_seconds')} for feature extraction of flowers, {link('12.flowers_all_layers_seconds')} for all layers, {link('12.flowers_scratch_seconds')} from scratch.",
        f"If somebody else has paid for the pre-training. With an estimate of its price it pays back after about {link('12.flowers_tasks')} tasks like flowers. Full fine-tuning saves time against scratch only by taking fewer epochs.",
        "[12](../notebooks/12_faster)",
    ),
    (
        "Transfer reduces overfitting.",
        "RESULT: True under these conditions",
        f"At the same training accuracy ({link('13.equal_cells')} cells) the gap of scratch is {link('13.equal_scratch')}, of full fine-tuning {link('13.equal_all')}: {pair('13.equal_lead')} apart. By the gap alone scratch is the better in {link('13.scratch_smaller')} of {link('13.cells')} cells, and worse on test photos in {link('13.scratch_smaller_worse')} of these. Against frozen features full fine-tuning overfits, by Mitchell's definition, in {link('13.mitchell_all')} cells.",
        "It has to be said against what, and by which measure. Pre-trained networks learn their photos by heart as well; freezing, or fitting the head first, is what helps.",
        "[10](../notebooks/10_small_data_big_tricks), [13](../notebooks/13_overfitting)",
    ),
    (
        "A pre-trained model of TensorFlow's is a starting point for a specific task.",
        "RESULT: True under these conditions",
        f"EfficientNet-Lite0 in Keras, started from its trained weights, against the same network from random ones, two photos a class: faces {pair('11.faces_gain_2')}, flowers {pair('11.flowers_gain_2')}, solar cells {pair('11.solar_cells_gain_2')}, textiles {pair('11.textiles_gain_2')}.",
        "Measured for this one network and its two larger sisters (chapter 7). Those of `keras.applications` can be loaded in the same way; nothing was measured with them, as their weights must be downloaded.",
        "[7](../notebooks/07_which_backbone), [11](../notebooks/11_better)",
    ),
]

PAGE = """# The verdicts

Seven sentences that stand in nearly every introduction to transfer learning, and what became of them in this book. *True* means: in
all that was measured here. *True under these conditions* means: in a part that can be named. *Not seen here* means: it may be so, and we
could not tell. Numbers after ± are half of a 95 % {{term}}`interval`; a difference is called plain if its interval does not contain
zero. All of it was measured with one small network on four data sets: it shows what is possible, not what is usual.

{rows}

## How to read this page

- Differences are in points of accuracy, in pairs: the same draws, the same test photos. Their intervals are over draws and over test
  photos, of which only those count on which the two differ.
- The recipe was the same everywhere. Its learning rates were chosen once, among training photos. With more epochs or another network a
  verdict may move; the experiment can be run again, cell by cell: `python -m experiments.decision_map --list`.
- A verdict is about the sentence as it is usually said. None of them says that a method is bad: each has cells in which it is among the best.
- Every number is in the {{doc}}`ledger <numbers>`, and a test fails when one of them no longer follows from the stored results.

What to do with all this is one page to print: {{doc}}`../notebooks/14_when_to_use_what`.
"""


def text():
    parts = []
    for number, (sentence, verdict, numbers, conditions, chapters) in enumerate(ROWS, start=1):
        chapters = re.sub(r"\[(\d+)\]\(([^)]+)\)", r"{doc}`\1 <\2>`", chapters)
        parts.append(f"| {number}. {sentence} | **{verdict}** | {numbers} | {conditions} | {chapters} |")
    return PAGE.format(rows="| sentence | verdict | numbers | conditions | chapters |\n|---|---|---|---|---|\n" + "\n".join(parts))


def build(root):
    root = Path(root)
    path = root / "book" / "15_verdicts.md"
    path.write_text(text(), encoding="utf-8")
    defined = set(re.findall(r'^\["([^"]+)"\]', (root / "book" / "claims.toml").read_text("utf-8"), re.M))
    return path, sorted(set(re.findall(r"claim:([\w.]+)\)", text())) - defined)


if __name__ == "__main__":
    path, missing = build(sys.argv[1])
    print(path, f"{len(missing)} numbers are not in the ledger:", *missing)
