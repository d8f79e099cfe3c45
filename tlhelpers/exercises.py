"""The reader's answers, checked: no network, no account.

What is expected stands in `exercises.toml` beside this file: for each exercise how to begin, the answer with its tolerance,
a hint, and the mistakes that are often made, each with a hint of its own.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Verdict", "check"]

KEY = Path(__file__).with_name("exercises.toml")


class Verdict(str):
    """What `check` printed. True when the answer is right; a notebook does not show it a second time.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """

    right = False

    def __bool__(self) -> bool:
        return self.right

    def _ipython_display_(self):
        pass


def check(id: str, answer: Any = None) -> Verdict:
    """Is this answer to an exercise right?

    Prints "right", "not yet" with a hint, or how to begin when there is no answer yet.

    Args:
        id: number of the chapter, a dot, number of the exercise: "03.2".
        answer: in the form that the exercise asks for: a number, a text, several numbers, or a dictionary of numbers
            (also as arrays). None and ... ask how to begin.

    Returns:
        `Verdict`: the printed text, true when the answer is right.

    Raises:
        ValueError: there is no such exercise.

    Example:
        >>> verdict = tl.check("02.1")
        02.1: to begin: Mirror the queries left to right. Give two fractions between 0 and 1: (by pixels, by features).
        >>> bool(verdict)
        False

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    exercises = read_key()
    if id not in exercises:
        raise ValueError(f"there is no exercise {id!r}; there are {', '.join(exercises)}")
    right, text = _judge(exercises[id], _plain(answer))
    verdict = Verdict(f"{id}: {text}")
    verdict.right = right
    print(verdict)
    return verdict


@cache
def read_key() -> dict[str, dict]:
    """Everything in `exercises.toml`: id → title, begin, answer, tolerance, hint, wrong (each with answer and hint)."""
    return tomllib.loads(KEY.read_text(encoding="utf-8"))


def _judge(exercise, answer):
    if answer is None or answer is ...:
        return False, f"to begin: {exercise['begin']}"
    expected, tolerance = exercise["answer"], exercise.get("tolerance", 0)
    if not _same_form(answer, expected):
        return False, f"not yet. The answer has another form than asked for. {exercise['begin']}"
    if _near(answer, expected, tolerance):
        return True, "right"
    for wrong in exercise["wrong"]:
        if _near(answer, wrong["answer"], tolerance):
            return False, f"not yet. {wrong['hint']}"
    if not isinstance(answer, str) and _near(_over_100(answer), expected, tolerance):
        return False, "not yet. That looks like per cent: give fractions between 0 and 1"
    return False, f"not yet. {exercise['hint']}"


def _plain(answer):
    """Arrays and their numbers as Python's own; the values of dictionaries likewise, their keys as texts, as TOML has them."""
    if isinstance(answer, Mapping):
        return {str(_plain(key)): _plain(value) for key, value in answer.items()}
    if hasattr(answer, "numpy"):  # a tensor
        answer = answer.numpy()
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    return list(map(_plain, answer)) if isinstance(answer, Sequence) and not isinstance(answer, str) else answer


def _same_form(answer, expected):
    if isinstance(expected, dict):
        return isinstance(answer, dict) and answer.keys() == expected.keys() and all(
            _same_form(answer[name], value) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return isinstance(answer, list) and len(answer) == len(expected) and all(map(_same_form, answer, expected))
    if isinstance(expected, str):
        return isinstance(answer, str)
    return isinstance(answer, (int, float)) and not isinstance(answer, bool) and abs(answer) < 1e300  # no nan, no inf


def _near(answer, expected, tolerance):
    """Within the tolerance everywhere; a tolerance may be one number, or one for each number of the answer."""
    if isinstance(expected, dict):
        each = tolerance if isinstance(tolerance, dict) else dict.fromkeys(expected, tolerance)
        return all(_near(answer[name], expected[name], each[name]) for name in expected)
    if isinstance(expected, list):
        each = tolerance if isinstance(tolerance, list) else [tolerance] * len(expected)
        return all(map(_near, answer, expected, each))
    if isinstance(expected, str):
        return " ".join(answer.casefold().split()) == " ".join(expected.casefold().split())
    return abs(answer - expected) <= tolerance + 1e-9


def _over_100(answer):
    if isinstance(answer, dict):
        return {name: _over_100(value) for name, value in answer.items()}
    return list(map(_over_100, answer)) if isinstance(answer, list) else answer / 100
