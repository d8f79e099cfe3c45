"""The package as a whole: light to import, documented, one module above the other; and its figures."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import tlhelpers as tl
from tlhelpers import plots

MODULES = (
    "images", "folders", "downloads", "datasets", "duplicates", "backbones", "engine", "store", "features",
    "heads", "parts", "finetuning", "classifiers", "evaluation",
    "claims", "exercises", "plots", "widgets", "probes", "audit", "cli",
)
FOLDER = Path(tl.__file__).parent


# --- import -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["import tlhelpers", "from tlhelpers import *; import tlhelpers.backbones, tlhelpers.features"])
def test_importing_the_package_imports_nothing_heavy(code):
    heavy = "{'tensorflow', 'keras', 'sklearn', 'matplotlib', 'ipywidgets', 'scipy', 'imagehash', 'requests', 'rich', 'click'}"
    code = f"import sys; {code}; print(sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_announced_name_is_there():
    assert list(tl.__all__) == sorted(tl.__all__)
    for name in tl.__all__:
        assert getattr(tl, name) is not None
        assert name in dir(tl)
    assert set(MODULES) - {"cli"} <= set(tl.__all__)  # the command line is for the shell, and imports what it needs at once


def test_an_unknown_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="'tlhelpers' has no attribute 'fine_tuna'"):
        tl.fine_tuna


def test_each_name_of_the_package_is_offered_by_the_module_it_comes_from():
    for name, module in tl._HOME.items():
        home = import_module(f"tlhelpers.{module}")
        assert name in home.__all__ and getattr(tl, name) is getattr(home, name)
    # Of one name in two modules, readers meet one as tl.check and the other as tl.claims.check.
    assert tl.check is tl.exercises.check and tl.claims.check is not tl.check


@pytest.mark.parametrize("code", ["import tlhelpers.audit, tlhelpers as tl", "import tlhelpers as tl; tl.Finding", "import tlhelpers as tl"])
def test_the_audit_is_a_function_also_after_its_module_was_imported(code):
    code = f"{code}; from tlhelpers.audit import audit; assert tl.audit is audit"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_every_file_of_the_package_is_in_the_order_of_reading():
    assert {path.stem for path in FOLDER.glob("*.py")} == {"__init__", *MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_modules_above_it(module):
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module] if node.module != "tlhelpers" else [f"tlhelpers.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        imported |= {name.split(".")[1] for name in names if name.startswith("tlhelpers.")}
        assert "tlhelpers" not in names
    assert imported <= set(MODULES[: MODULES.index(module)])


# --- documentation ------------------------------------------------------------------------------------------------

PUBLIC = [
    (module, name)
    for module in MODULES
    if module != "cli"  # its docstrings are what --help prints
    for name in import_module(f"tlhelpers.{module}").__all__
    if callable(getattr(import_module(f"tlhelpers.{module}"), name)) and name != "Card"  # Dataset's chapter explains it
]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_says_where_it_is_explained(module, name):
    doc = inspect.getdoc(getattr(import_module(f"tlhelpers.{module}"), name))
    assert "Explained in notebooks/" in doc.splitlines()[-1]


@pytest.mark.parametrize(("module", "name"), [pair for pair in PUBLIC if pair[1].islower()])
def test_every_argument_of_a_public_function_is_described(module, name):
    function = getattr(import_module(f"tlhelpers.{module}"), name)
    doc = inspect.getdoc(function)
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in doc


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_where_it_is_explained(module):
    assert "Explained in notebooks/" in import_module(f"tlhelpers.{module}").__doc__


# --- plots --------------------------------------------------------------------------------------------------------


@pytest.fixture
def report():
    return tl.Report(np.array([0, 0, 0, 1]), np.eye(2, dtype=np.float32)[[0, 0, 1, 1]], ("good", "bad"))


def texts_of(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_a_grid_shows_each_photo_once_under_its_title(faces):
    photos = [faces.image(0), tl.load_photo("chelsea"), np.zeros((5, 9), np.uint8)]  # each in its own size, one grey
    figure = plots.photo_grid(photos, ["one", "two", "three"], columns=2)
    assert isinstance(figure, Figure)
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == ["one", "two", "three"]
    for axis, photo in zip(shown, photos):
        assert np.array_equal(axis.images[0].get_array(), photo)
    assert len(figure.axes) == 4 and not any(axis.axison for axis in figure.axes)


def test_grey_photos_are_not_stretched_each_to_its_own_range():
    figure = plots.photo_grid([np.full((4, 4), 100, np.uint8), np.full((4, 4), 200, np.uint8)])
    assert all(axis.images[0].get_clim() == (0, 255) for axis in figure.axes)


def test_a_confusion_matrix_shows_counts_and_parts_of_rows(report):
    figure = plots.confusion_matrix(report)
    assert isinstance(figure, Figure)
    assert texts_of(figure) == ["2\n67 %", "1\n33 %", "0\n0 %", "1\n100 %"]
    axis = figure.axes[0]
    assert np.allclose(axis.images[0].get_array(), [[2 / 3, 1 / 3], [0, 1]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["good", "bad"]
    assert axis.get_xlabel() == "the classifier says" and axis.get_ylabel() == "the photo is"


def test_a_confusion_matrix_of_many_classes_has_no_numbers_in_it():
    labels = np.arange(13)
    figure = plots.confusion_matrix(tl.Report(labels, np.eye(13, dtype=np.float32), [f"class {k}" for k in labels]))
    assert texts_of(figure) == []


def test_values_stand_where_they_belong_with_their_intervals():
    figure = plots.values_with_intervals(
        [0.5, 0.875], [(0.4, 0.6), None], ["ours", "theirs"], label="accuracy, %", reference=(0.687, "largest class")
    )
    assert isinstance(figure, Figure)
    axis = figure.axes[0]
    lines = [line.get_xdata() for line in axis.lines]
    assert np.allclose(lines[0], [40, 60]) and np.allclose(lines[1], 50) and np.allclose(lines[3], 87.5)
    assert np.allclose(lines[4], 68.7)
    assert texts_of(figure) == ["50.0", "87.5", " largest class"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ours", "theirs"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first name on top
    assert axis.get_xlabel() == "accuracy, %"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.photo_grid([]), "photos is empty"),
        (lambda: plots.photo_grid([np.zeros((2, 2))], ["a", "b"]), "1 photos but 2 titles"),
        (lambda: plots.values_with_intervals([], [], [], label="x"), "0 values"),
        (lambda: plots.values_with_intervals([0.5], [None, None], ["a"], label="x"), "1 values, 2 intervals"),
        (lambda: plots.values_with_intervals([0.5], [None], ["a", "b"], label="x"), "2 names"),
        (lambda: plots.values_with_intervals([0.5], [(0.6, 0.7)], ["ours"], label="x"), "ours: value 0.5 lies outside"),
    ],
)
def test_arguments_that_do_not_fit_a_figure_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_figures_leave_no_trace_behind(report):
    before = dict(plt.rcParams)
    plots.confusion_matrix(report)
    plots.photo_grid([np.zeros((2, 2))])
    with pytest.raises(ValueError):
        plots.values_with_intervals([0.5], [(0.6, 0.7)], ["ours"], label="x")
    assert plt.get_fignums() == []  # a figure left open would be shown twice in a notebook
    assert dict(plt.rcParams) == before
