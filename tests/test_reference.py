"""The reference: every example in a docstring runs and prints what it says; what the pages are made from is all there.

The built pages are looked at in tests/test_pages.py.
"""

import doctest
import inspect
import sys
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest

import tlhelpers as tl

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import reference

FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [
    test for module in tl._MODULES for test in FINDER.find(import_module(f"tlhelpers.{module}"), globs={"tl": tl, "np": np}) if test.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("tlhelpers."))
def test_an_example_prints_what_its_docstring_says(example, capsys):
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, clear_globs=False)
    assert found.attempted and not found.failed, capsys.readouterr().out


def test_every_function_that_readers_call_directly_stands_in_an_example():
    code = "\n".join(line.source for test in EXAMPLES for line in test.examples)
    called = reference.names_in(code)
    assert {name for name in tl._HOME if inspect.isfunction(getattr(tl, name))} <= called


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("tl.read_image(path); tl.images.resize_image(photo, 8)", {"read_image", "resize_image"}),
        ("tl.load_dataset('faces').split(groups='person')", {"load_dataset"}),
        ("tl.plots.photo_grid([])", {"plots.photo_grid"}),
        ("from tlhelpers import evaluate\nfrom tlhelpers.images import vary", {"evaluate", "images.vary"}),
        ("other.read_image(path); tl.no_such_name", set()),
    ],
)
def test_the_names_that_code_uses_are_found(code, names):
    assert reference.names_in(code) == names


@pytest.mark.parametrize(
    ("line", "rst"),
    [
        ("see `train_head`", "see :py:obj:`train_head <tlhelpers.train_head>`"),
        ("see `tlhelpers.images.vary`", "see :py:obj:`tlhelpers.images.vary <tlhelpers.images.vary>`"),
        ("the `class` of `keras.Model`", "the ``class`` of ``keras.Model``"),
        ("distance² = |x|² − 2 x * mean_", r"distance² = \|x\|² − 2 x \* mean\_"),
    ],
)
def test_a_docstring_becomes_text_with_links(line, rst):
    assert reference.linked(line) == rst


def test_a_notebook_becomes_a_link_to_its_chapter_with_its_title():
    assert reference.linked("Explained in notebooks/03_feature_extraction.ipynb.") == (
        "Explained in :doc:`chapter 3, Feature extraction </notebooks/03_feature_extraction>`."
    )


def test_every_command_and_option_is_on_the_page_of_the_command_line():
    from tlhelpers.cli import main

    page = reference.commands_page()
    for name, command in main.commands.items():
        assert f"## tlhelpers {name}\n" in page
        options = [option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts]
        part = page.split(f"## tlhelpers {name}\n")[1].split("\n## ")[0]
        assert all(option in part for option in options)
    assert max(map(len, page.splitlines())) <= reference.WIDTH
