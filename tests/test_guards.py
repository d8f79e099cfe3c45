"""The guards themselves: in a copy of the book, what must not happen is done, and a test has to notice it.

And the way of a new author, from the template to a page of the book.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".git", ".venv", ".venv-tools", "_build", "course", "dist", "node_modules", "__pycache__", ".pytest_cache", ".ipynb_checkpoints")
CHAPTER = "notebooks/03_feature_extraction.ipynb"
SOLUTIONS = "notebooks/solutions/03_feature_extraction.ipynb"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*LEFT_OUT))


def run(copy, *command):
    environment = os.environ | {"PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)


def failed(copy, *files):
    """Names of the tests that fail in the copy."""
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{file}" for file in files))
    assert re.search(r"\d+ passed", done.stdout), done.stdout + done.stderr
    return set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.M))


def change(copy, file, old, new):
    path = copy / file
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{file} has no {old!r} to change"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def change_cell(copy, file, part, edit):
    """Edit the first cell of a notebook in whose source `part` stands."""
    path = copy / file
    notebook = json.loads(path.read_text(encoding="utf-8"))
    edit(next(cell for cell in notebook["cells"] if part in "".join(cell["source"])))
    path.write_text(json.dumps(notebook), encoding="utf-8")


def test_an_untouched_copy_passes(copy):
    assert failed(copy, "test_claims.py", "test_book.py", "test_exercises.py") == set()


def test_a_stored_number_changed_beyond_its_tolerance_is_noticed(copy):
    text = (copy / "book/claims.toml").read_text(encoding="utf-8")
    value = re.search(r'\["03\.accuracy"\].*?value = ([\d.]+).*?tolerance = ([\d.]+)', text, re.S)
    moved = float(value[1]) + 2 * float(value[2])
    (copy / "book/claims.toml").write_text(text[: value.start(1)] + str(moved) + text[value.end(1) :], encoding="utf-8")
    assert failed(copy, "test_claims.py") == {
        "test_every_quoted_number_is_in_the_ledger_and_reads_as_it_does_there",
        "test_every_claim_is_checked_by_a_notebook_that_last_found_the_number_of_the_ledger",
    }
    # Nor does it help to write the texts anew: what the notebook printed does not say so,
    assert run(copy, "book/_ext/ledger.py").returncode == 0
    assert "test_every_claim_is_checked_by_a_notebook_that_last_found_the_number_of_the_ledger" in failed(copy, "test_claims.py")
    # and to a notebook that is run, the check says no.
    code = f"import tlhelpers as tl; tl.claims.check('03.accuracy', {value[1]})"
    done = run(copy, "-c", code)
    assert done.returncode == 1 and "AssertionError: 03.accuracy: the book says" in done.stderr


@pytest.mark.parametrize("file", [CHAPTER, "book/intro.md"])
def test_a_number_typed_into_the_prose_is_noticed(copy, file):
    change(copy, file, "Keras", "Keras (which is right for 85.4 %)")
    assert failed(copy, "test_claims.py") == {"test_no_measured_number_is_typed_into_the_prose"}


def test_a_link_replaced_by_its_text_is_noticed(copy):
    change(copy, CHAPTER, "(claim:03.recall_defective)", "")
    assert {"test_no_measured_number_is_typed_into_the_prose", "test_every_claim_is_quoted_somewhere"} <= failed(
        copy, "test_claims.py"
    )


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("## 03.2", lambda cell: cell["source"].append("\n\nDraw ten times each.")),
        ('tl.check("03.2", answer)', lambda cell: cell.update(source=['n = 3\n\nanswer = ...\n\ntl.check("03.2", answer)'])),
    ],
)
def test_an_exercise_that_is_no_longer_that_of_its_solution_is_noticed(copy, part, edit):
    change_cell(copy, SOLUTIONS, part, edit)
    stale = {"test_the_outputs_are_those_of_the_code_as_it_stands"} if "tl.check" in part else set()
    assert failed(copy, "test_book.py") == {"test_the_students_notebook_is_the_solutions_without_the_solution"} | stale


def test_code_that_was_changed_and_not_run_again_is_noticed(copy):
    change_cell(copy, CHAPTER, "def pixels", lambda cell: cell["source"].append("\n# another line"))
    assert failed(copy, "test_book.py") == {"test_the_outputs_are_those_of_the_code_as_it_stands"}


def test_a_quoted_number_that_is_in_no_ledger_is_named_by_make_claims(copy):
    change(copy, CHAPTER, "(claim:03.accuracy)", "(claim:03.acuracy)")
    done = run(copy, "book/_ext/ledger.py")
    assert done.returncode == 1 and "there is no claim '03.acuracy'; did you mean: 03.accuracy" in done.stderr
    assert CHAPTER in done.stderr


def test_a_solution_that_students_would_see_is_noticed(copy):
    change_cell(copy, SOLUTIONS, "def accuracy_with", lambda cell: cell["metadata"].update(tags=[]))
    assert "test_each_exercise_is_asked_begun_solved_folded_and_checked" in failed(copy, "test_book.py")


def test_a_right_answer_that_is_no_longer_in_the_key_is_noticed(copy):
    change(copy, "tlhelpers/exercises.toml", '["03.3"]', '["03.4"]')
    assert "test_each_exercise_is_asked_begun_solved_folded_and_checked" in failed(copy, "test_book.py")


def test_a_widget_whose_state_is_not_saved_is_noticed(copy):
    path = copy / "notebooks/02_what_a_network_knows.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    del notebook["metadata"]["widgets"]
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert failed(copy, "test_book.py") == {
        "test_every_interactive_figure_is_stored_with_its_state_and_moves_without_a_kernel"
    }


def test_a_new_authors_way_from_the_template_to_a_green_build(copy):
    """What CONTRIBUTING.md says: make chapter, notebooks, claims, test (of what the chapter touches), book."""
    assert run(copy, "book/tools/new_chapter.py", "97", "new_thing", 'A "new" thing').returncode == 0
    assert run(copy, "book/tools/new_chapter.py", "97", "other", "Another").returncode != 0
    new = ["notebooks/97_new_thing.ipynb", "notebooks/solutions/97_new_thing.ipynb"]
    for command in (["book/tools/run_notebooks.py", *new], ["book/_ext/ledger.py"], ["book/tools/make_exercises.py"]):
        done = run(copy, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "[32 %](claim:97.espresso_56)" in (copy / new[0]).read_text(encoding="utf-8")
    assert failed(copy, "test_claims.py", "test_book.py", "test_exercises.py") == set()
    build = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "--all", "-W", "--keep-going", "-n"]
    done = subprocess.run(
        build, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    page = (copy / "_build/html/notebooks/97_new_thing.html").read_text(encoding="utf-8")
    assert 'href="../book/numbers.html#claim-97-espresso-56"' in page and "A “new” thing" in page
