"""The book's numbers, checked.

Each measured number of the text stands once, in the ledger `book/claims.toml`, with the tolerance within which other
machines must agree. The text quotes it as a link, `[86.6 %](claim:03.accuracy)`; the notebook that measured it checks it.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from os import PathLike
from pathlib import Path

__all__ = ["Claim", "check", "read_ledger"]

LEDGER = Path("book", "claims.toml")


@dataclass(frozen=True)
class Claim:
    """One number of the book.

    Attributes:
        id: number of the chapter that checks it, a dot, a name: "03.accuracy".
        sentence: what the number says, in words that stand alone.
        value: the number, as the notebook measures it: fractions 0..1 where the unit is "%".
        tolerance: how far another machine may be off, in the units of `value`.
        why: why so far and no further.
        unit: "%", or a word to stand behind the number, or "".
        digits: shown behind the decimal point.
        photos: how many photos it was measured on; 0 where there are none.
        seeds: which seeds and draws; "" where nothing is drawn.
        experiment: script whose stored results the notebook reads; "" where the notebook measures itself.

    Example:
        >>> claim = tl.claims.Claim("90.accuracy", "An example.", 0.866, 0.01, "one photo of 100", unit="%", digits=1)
        >>> claim.text, claim.holds(0.87), claim.holds(0.9)
        ('86.6 %', True, False)

    Explained in notebooks/03_feature_extraction.ipynb.
    """

    id: str
    sentence: str
    value: float
    tolerance: float
    why: str
    unit: str = ""
    digits: int = 0
    photos: int = 0
    seeds: str = ""
    experiment: str = ""

    def __post_init__(self):
        for name in ("value", "tolerance"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), (int, float)):
                raise ValueError(f"claim {self.id}: {name} is {getattr(self, name)!r}; expected a number")
        if not 0 <= self.tolerance < float("inf") or not abs(self.value) < float("inf"):
            raise ValueError(f"claim {self.id}: value {self.value} ± {self.tolerance}; expected finite numbers, ± 0 or more")
        if not (self.sentence and self.why):
            raise ValueError(f"claim {self.id}: needs a sentence, and a reason (`why`) for its tolerance")

    @property
    def text(self) -> str:
        """The number as the book writes it: "86.6 %"."""
        return self.show(self.value)

    def show(self, value: float) -> str:
        """Another value, written in the same way."""
        number = f"{100 * value if self.unit == '%' else value:,.{self.digits}f}"
        return f"{number} {self.unit}".rstrip()

    def holds(self, value: float) -> bool:
        """Is a measured value within the tolerance? (The last bits of a float do not count.)"""
        return abs(value - self.value) <= self.tolerance + 1e-9 * max(1.0, abs(self.value))


def check(id: str, value: float) -> None:
    """Check a measured value against the number that the book gives.

    Prints the id, the claimed value and "holds"; never the measured value, whose last digits differ between
    processors. In a folder that has no ledger above it (a notebook on its own) it says so and checks nothing.

    Args:
        id: of the claim, "03.accuracy".
        value: measured number, in the units of the ledger: a fraction 0..1 where the text has per cent.

    Raises:
        AssertionError: the value is outside the tolerance; the message has both numbers.
        ValueError: the ledger has no such claim.
        TypeError: the value is no single number.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # numpy and TensorFlow scalars
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{id}: the value is {value!r}; expected one number")
    path = find_ledger()
    if path is None:
        print(f"{id}: no ledger here")
        return
    claims = read_ledger(path)
    if id not in claims:
        near = ", ".join(get_close_matches(str(id), claims)) or "none is like it"
        raise ValueError(f"there is no claim {id!r} in {LEDGER.as_posix()}; did you mean: {near}")
    claim = claims[id]
    if not claim.holds(value):
        raise AssertionError(
            f"{id}: the book says {claim.text}, give or take {claim.tolerance:g}; this run gives {value!r} "
            f"(claimed {claim.value!r}): {claim.sentence}"
        )
    print(f"{id}: {claim.text} holds")


def find_ledger():
    """Path of the ledger in the working folder or the nearest folder above it that has one; None where there is none."""
    here = Path.cwd()
    return next((folder / LEDGER for folder in (here, *here.parents) if (folder / LEDGER).is_file()), None)


def read_ledger(path: str | PathLike) -> dict[str, Claim]:
    """Read a ledger.

    Args:
        path: of a TOML file with one table for each claim, named by its id.

    Returns:
        dict: id → `Claim`, in the order of the file.

    Raises:
        ValueError: the file is no TOML, or an entry lacks something or has something unknown; the message names it.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    try:
        entries = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    claims = {}
    for id, entry in entries.items():
        try:
            claims[id] = Claim(id=id, **entry)
        except TypeError as error:  # a field that is missing or unknown; the message of Python names it
            raise ValueError(f"{path}, claim {id}: {error}") from error
    return claims
