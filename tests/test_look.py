"""The book's style sheet: every text colour can be read on every ground, and nothing is fetched."""

import re
from pathlib import Path

import pytest

STYLE = (Path(__file__).parents[1] / "book" / "_static" / "book.css").read_text(encoding="utf-8")
MODES = {"light": 'html:not([data-theme="dark"]) {', "dark": 'html[data-theme="dark"] {'}


def colours(mode):
    block = STYLE.split(MODES[mode], 1)[1].split("}", 1)[0]
    return dict(re.findall(r"--tl-([\w-]+): (#[0-9a-f]{6});", block))


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Ratio as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("mode", MODES)
def test_every_text_colour_can_be_read_on_every_ground(mode):
    own = colours(mode)
    grounds = [name for name in own if name.endswith("ground") or name == "surface"]
    assert len(grounds) == 6
    for text in ("ink", "muted", "accent", "new", "good", "bad"):
        for ground in grounds:
            assert contrast(own[text], own[ground]) >= 4.5, f"{mode}: {text} on {ground}"


def test_both_modes_set_the_same_colours():
    assert colours("light").keys() == colours("dark").keys()


def test_the_style_sheet_fetches_nothing():
    assert not re.search(r"@import|@font-face|url\(|https?:", STYLE)
