"""exercises.py: right, not yet with a hint, or how to begin; the key in exercises.toml; nothing else in the answer matters."""

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers import exercises
from tlhelpers.exercises import read_key

KEY = read_key()
each_exercise = pytest.mark.parametrize("id", KEY)


@each_exercise
def test_the_right_answer_is_right_and_printed_once(id, capsys):
    verdict = tl.check(id, KEY[id]["answer"])
    assert verdict and verdict == f"{id}: right"
    assert capsys.readouterr().out == f"{id}: right\n"


@each_exercise
def test_each_known_mistake_is_refused_with_its_own_hint(id, capsys):
    wrong = KEY[id]["wrong"]
    assert len(wrong) >= 2 and len({str(each["answer"]) for each in wrong}) == len(wrong)
    for each in wrong:
        verdict = tl.check(id, each["answer"])
        assert not verdict and verdict == f"{id}: not yet. {each['hint']}"


@each_exercise
@pytest.mark.parametrize("answer", [None, ...])
def test_without_an_answer_the_reader_is_told_how_to_begin(id, answer):
    verdict = tl.check(id, answer)
    assert not verdict and verdict == f"{id}: to begin: {KEY[id]['begin']}"


def test_no_answer_at_all_is_no_answer_yet():
    assert tl.check("03.2").startswith("03.2: to begin")


@each_exercise
@pytest.mark.parametrize(
    "answer",
    [
        object(), True, "", [], {}, [[[]]], {"a": 1}, float("nan"), float("inf"), [float("nan")] * 3, np.zeros((2, 2, 2)),
        [None, None], {10: None, 30: None, 100: None, 300: None}, b"drilling rig", {1, 2}, lambda: 1, 1j, "x" * 10_000, 10**400,
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_an_answer_of_any_kind_is_answered_and_never_right(id, answer):
    verdict = tl.check(id, answer)
    assert not verdict and verdict.startswith(f"{id}: not yet. ")


def test_a_single_number_is_judged_like_the_others():
    exercise = {"answer": 0.5, "tolerance": 0.01, "begin": "Give one.", "hint": "No.", "wrong": []}
    assert exercises._judge(exercise, 0.509) == (True, "right")
    for answer in (0.511, 1e299, -1):
        assert exercises._judge(exercise, answer) == (False, "not yet. No.")
    for answer in (10**400, float("nan"), float("inf"), [0.5], "0.5", True):
        assert "another form" in exercises._judge(exercise, answer)[1]
    assert "per cent" in exercises._judge(exercise, 50)[1]


def numbers_in(value):
    if isinstance(value, dict):
        return numbers_in(list(value.values()))
    if isinstance(value, list):
        return [number for each in value for number in numbers_in(each)]
    return [value] if isinstance(value, (int, float)) else []


@each_exercise
def test_no_hint_gives_the_answer_away(id):
    entry = KEY[id]
    hints = " ".join([entry["begin"], entry["hint"], *(each["hint"] for each in entry["wrong"])])
    if isinstance(entry["answer"], str):
        assert entry["answer"].casefold() not in hints.casefold()
    for number in numbers_in(entry["answer"]):
        shown = {f"{number:.2f}", f"{number:.3f}", f"{100 * number:.1f}"} - {"1.00", "1.000", "100.0"}
        assert not [text for text in shown if text in hints], id


@pytest.mark.parametrize(
    ("id", "answer"),
    [
        ("02.1", np.array([0.53, 1.0])), ("02.1", (np.float32(0.53), 1)), ("02.1", [np.float64(0.54), np.array(0.99)]),
        ("02.2", "Drilling  rig "), ("03.2", {np.int64(10): 0.6, 30: 0.7, "100": np.float32(0.76), 300: 0.8}),
        ("03.1", {"poly": 0.86, "mono": 0.873}),
    ],
)
def test_the_same_answer_in_another_type_is_right(id, answer):
    assert tl.check(id, answer)


def test_a_tensor_is_an_answer_too():
    import tensorflow as tf

    assert tl.check("02.1", tf.constant([0.53, 1.0]))


@each_exercise
def test_an_answer_just_outside_the_tolerance_is_not_right(id):
    answer, tolerance = KEY[id]["answer"], KEY[id].get("tolerance")
    if isinstance(answer, str):
        assert not tl.check(id, answer + "s")
        return
    for off, right in ((-1.01, False), (1.01, False), (-0.99, True), (0.99, True)):
        if isinstance(answer, (int, float)):
            assert bool(tl.check(id, answer + off * tolerance)) is right
            continue
        for name in answer if isinstance(answer, dict) else range(len(answer)):
            other = dict(answer) if isinstance(answer, dict) else list(answer)
            other[name] += off * (tolerance if isinstance(tolerance, (int, float)) else tolerance[name])
            assert bool(tl.check(id, other)) is right, (name, off)


@pytest.mark.parametrize("answer", [(53.0, 100.0), [53, 100]])
def test_per_cent_in_place_of_parts_has_a_hint_of_its_own(answer):
    verdict = tl.check("02.1", answer)
    assert not verdict and "per cent" in verdict


@pytest.mark.parametrize("id", ["3.2", "03.99", "", None, 3.2])
def test_an_unknown_exercise_is_answered_with_those_there_are(id):
    with pytest.raises(ValueError, match=r"there is no exercise .*; there are 02\.1, 02\.2, .*03\.3"):
        tl.check(id, 1)


def test_a_notebook_does_not_show_the_verdict_twice(capsys):
    from IPython.core.formatters import DisplayFormatter

    verdict = tl.check("03.2", None)
    capsys.readouterr()
    assert DisplayFormatter().format(verdict) == ({}, {})
    assert capsys.readouterr().out == ""


def test_the_key_has_just_the_fields_that_its_head_explains():
    for id, entry in KEY.items():
        assert set(entry) - {"tolerance"} == {"title", "begin", "answer", "hint", "wrong"}, id
        assert all(set(each) == {"answer", "hint"} for each in entry["wrong"]), id
    text = exercises.KEY.read_text(encoding="utf-8")
    assert all(f"#   {field}" in text for field in ("begin", "answer", "tolerance", "hint", "wrong"))
