"""claims.py and the ledger: numbers hold or they do not, texts and notebooks agree with the ledger, nothing is typed by hand."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers.claims import Claim, read_ledger

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import ledger

CLAIMS = read_ledger(ROOT / "book" / "claims.toml")

ENTRY = """
["03.accuracy"]
sentence = "Accuracy on photos nobody has seen."
value = 0.854
tolerance = 0.008
why = "five of 656 photos"
unit = "%"
digits = 1

["03.count"]
sentence = "So many."
value = 2624
tolerance = 0
why = "a count"
"""


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with a ledger of its own, and the working folder below it, as a notebook's is."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.toml").write_text(ENTRY, encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


# --- check ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.854, 0.846, 0.862, np.float32(0.8541), np.float64(0.8619), np.array(0.85)])
def test_a_value_within_the_tolerance_holds_and_is_not_printed(clone, capsys, value):
    assert tl.claims.check("03.accuracy", value) is None
    assert capsys.readouterr().out == "03.accuracy: 85.4 % holds\n"


@pytest.mark.parametrize("value", [0.8459, 0.8621, 85.4, -0.854, 0, float("nan"), float("inf"), np.float32("nan")])
def test_a_value_outside_the_tolerance_fails_with_both_numbers(clone, capsys, value):
    with pytest.raises(AssertionError, match=r"03\.accuracy: the book says 85\.4 %, give or take 0\.008; this run gives"):
        tl.claims.check("03.accuracy", value)
    assert capsys.readouterr().out == ""


def test_a_tolerance_of_zero_is_met_by_the_very_number_only(clone):
    tl.claims.check("03.count", np.int64(2624))
    with pytest.raises(AssertionError):
        tl.claims.check("03.count", 2625)


@pytest.mark.parametrize("value", [None, "0.854", [0.854], np.array([0.854]), True, np.bool_(True), ...])
def test_only_one_number_can_be_checked(clone, value):
    with pytest.raises(TypeError, match="03.accuracy: the value is .*; expected one number"):
        tl.claims.check("03.accuracy", value)


def test_an_unknown_id_is_answered_with_those_that_are_like_it(clone):
    with pytest.raises(ValueError, match=r"no claim '03\.acuracy' in book/claims\.toml; did you mean: 03\.accuracy"):
        tl.claims.check("03.acuracy", 0.854)


def test_outside_a_clone_nothing_is_checked_and_the_reader_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tl.claims.check("03.accuracy", 0.1)
    assert capsys.readouterr().out == "03.accuracy: no ledger here\n"


def test_the_books_own_ledger_is_found_from_a_notebooks_folder(monkeypatch, capsys):
    monkeypatch.chdir(ROOT / "notebooks" / "solutions")
    tl.claims.check("03.accuracy", CLAIMS["03.accuracy"].value)
    assert capsys.readouterr().out == f"03.accuracy: {CLAIMS['03.accuracy'].text} holds\n"


# --- the ledger as a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "unit", "digits", "text"),
    [
        (0.854, "%", 1, "85.4 %"), (1.0, "%", 1, "100.0 %"), (0.68, "%", 0, "68 %"), (2624, "", 0, "2,624"),
        (3.413024, "million", 1, "3.4 million"), (-1.25, "points", 1, "-1.2 points"), (0.14496, "", 2, "0.14"),
    ],
)
def test_a_number_is_written_with_its_unit_and_digits(value, unit, digits, text):
    assert Claim("x", "A sentence.", value, 0, "why", unit, digits).text == text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('why = "five of 656 photos"\n', "", "03.accuracy.*why"),
        ("tolerance = 0.008", "tolerance = -0.008", "03.accuracy.*finite"),
        ("tolerance = 0.008", "tolerance = inf", "03.accuracy.*finite"),
        ("value = 0.854", "value = nan", "03.accuracy.*finite"),
        ("value = 0.854", 'value = "0.854"', "03.accuracy.*expected a number"),
        ("tolerance = 0.008", "tolerance = 0.008\ntolerence = 1", "Cannot|tolerence"),
        ('sentence = "So many."', 'sentence = ""', "03.count.*sentence"),
        ('["03.count"]', '["03.accuracy"]', "claims.toml"),
        ("value = 2624", "value = ", "claims.toml"),
    ],
)
def test_a_ledger_with_a_fault_is_refused_with_the_name_of_the_claim(clone, old, new, message):
    path = clone / "book" / "claims.toml"
    assert old in ENTRY
    path.write_text(ENTRY.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_ledger(path)


def test_every_claim_has_an_id_of_its_chapter_and_a_tolerance_that_means_something():
    for claim in CLAIMS.values():
        assert re.fullmatch(r"\d\d\.[a-z0-9_]+", claim.id), claim.id
        assert claim.sentence.endswith("."), claim.id
        few_photos = 5 if claim.unit == "" and claim.digits == 0 else 0
        assert claim.tolerance <= max(abs(claim.value) / 3, few_photos), f"{claim.id}: nearly any number would hold"


# --- text, notebooks and ledger agree ------------------------------------------------------------------------------

PROSE = list(ledger.prose())
CHECKS = list(ledger.checks())


def where(piece):
    return f"{piece.path.relative_to(ROOT)}" + ("" if piece.cell is None else f", cell {piece.cell}")


def test_every_quoted_number_is_in_the_ledger_and_reads_as_it_does_there():
    wrong = []
    for piece in PROSE:
        for text, id in ledger.quoted(piece.text):
            if id not in CLAIMS:
                wrong.append(f"{where(piece)}: no claim {id}")
            elif text != CLAIMS[id].text:
                wrong.append(f"{where(piece)}: {id} reads {text!r}, the ledger has {CLAIMS[id].text!r} (make claims)")
    assert not wrong


def test_every_claim_is_checked_by_a_notebook_that_last_found_the_number_of_the_ledger():
    wrong = [f"{id}: no notebook checks it" for id in CLAIMS.keys() - {check.id for check in CHECKS}]
    for check in CHECKS:
        if check.id not in CLAIMS:
            wrong.append(f"{where(check)}: no claim {check.id}")
        elif check.text != CLAIMS[check.id].text:
            wrong.append(f"{where(check)}: {check.id} printed {check.text!r}, the ledger has {CLAIMS[check.id].text!r}: run it")
    assert not wrong


def test_every_claim_is_quoted_somewhere():
    quoted = {id for piece in PROSE for _, id in ledger.quoted(piece.text)}
    never = sorted(CLAIMS.keys() - quoted)
    assert not never


def test_cells_that_check_are_compared_by_nbval_word_for_word():
    for path in ledger.notebooks():
        for number, _, cell, text in ledger.cells(path):
            if cell["cell_type"] == "code" and "claims.check(" in text:
                assert "nbval-check-output" in cell["metadata"].get("tags", []), f"{path.name}, cell {number}"


def test_no_measured_number_is_typed_into_the_prose():
    typed = [f"{where(piece)}: {number!r}" for piece in PROSE for number in ledger.typed_numbers(piece.text)]
    assert not typed


def test_a_number_quoted_from_others_names_its_reference():
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", bibliography, re.M))
    quoted = [(piece, key) for piece in PROSE for _, key in ledger.quoted(piece.text, ledger.QUOTED)]
    assert quoted
    for piece, key in quoted:
        assert key in keys, f"{where(piece)}: no reference {key}"


@pytest.mark.parametrize(
    "text",
    [
        "It reaches 85.4 % on the test photos.", "about 85%", "85.4 per cent", "85 percent of them", "a gain of 7.0 points",
        "3 percentage points", "accuracy of 0.854", "an accuracy between 0.80 and 0.85", "0.85 is the accuracy",
        "Accuracy: 0.85", "accuracies of 0.8", "95 % of the photos", "59.6, 70.3 and 75.7 %", "| 85.4 % |",
        "**85.4 %**", "its {term}`interval` of 85.4 % and `code`", "`a` 85.4 % `b`", "[85.4 %](https://example.org)", "see `x`: 85.4 %", "the 90 % interval", "100 % of them",
    ],
)
def test_a_number_that_looks_measured_is_found(text):
    assert ledger.typed_numbers(text)


@pytest.mark.parametrize(
    "text",
    [
        "[85.4 %](claim:03.accuracy) of the photos", "report [82.44 %](quoted:Deitsch2019)", "a 95 % interval",
        "its 95 % {term}`interval` and more", "a 95 % confidence interval", "print `accuracy 0.85`", "`` `x`: accuracy 0.85 ``", "224 × 224 pixels",
        "```{figure} a.png\n:width: 100%\n:alt: A cat.\n```", "```python\naccuracy = 0.85  # 85 %\n```",
        "<img style=\"max-width:100%\">", "in two parts", "The accuracy matters. 40 people came.", "$0.5\\%$",
        "The accuracy {cite:p}`Deng2009` is high.",
    ],
)
def test_a_number_that_is_no_measurement_is_left_alone(text):
    assert not ledger.typed_numbers(text)


def test_texts_are_written_anew_from_the_ledger_and_unknown_ids_stay():
    text = "a [1 %](claim:03.accuracy) b [](claim:03.accuracy) c [2 %](claim:nope) d [3 %](quoted:Deitsch2019)"
    accuracy = CLAIMS["03.accuracy"].text
    assert ledger.rewrite(text, CLAIMS) == (
        f"a [{accuracy}](claim:03.accuracy) b [{accuracy}](claim:03.accuracy) c [2 %](claim:nope) d [3 %](quoted:Deitsch2019)"
    )
