"""The assignments, marked by nbgrader itself: a point for the right answer to each exercise, none for a wrong one or none.

nbgrader has an environment of its own, which `make assignments` makes; TLHELPERS_TOOLS names the Python of another. Where there
is none, what needs it is skipped; with TLHELPERS_REQUIRE_TOOLS set it fails instead. The notebooks run in the
environment of these tests. What computes for minutes before the first exercise is left out of the submissions here, except
in the last test, where the book's own solutions are handed in for one chapter (TLHELPERS_ASSIGNMENTS=all: for each).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tlhelpers.exercises import read_key

ROOT = Path(__file__).parents[1]
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
NAMES = [path.stem for path in SOLUTIONS]
KEY = read_key()

sys.path.insert(0, str(ROOT / "book" / "tools"))

import make_assignments

THERE = ROOT / ".venv-tools" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NBGRADER = os.environ.get("TLHELPERS_TOOLS") or (str(THERE) if THERE.is_file() else None)


# --- the source version --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    make_assignments.main(folder)
    return folder


def read(course, step, name):
    return nbformat.read(course / step / name / f"{name}.ipynb", as_version=4)


def marked(notebook):
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if "nbgrader" in cell.metadata}


def exercises_of(name):
    return [id for id in KEY if id.startswith(name[:2])]


@pytest.mark.parametrize("name", NAMES)
def test_each_exercise_of_the_key_is_asked_solved_and_has_its_point(course, name):
    cells = marked(read(course, "source", name))
    assert len(exercises_of(name)) >= 3
    assert set(cells) == {f"{part}-{id}".replace(".", "-") for id in exercises_of(name) for part in ("statement", "answer", "check")}
    for id in exercises_of(name):
        statement, answer, check = (cells[f"{part}-{id}".replace(".", "-")] for part in ("statement", "answer", "check"))
        assert statement.source.startswith(f"## {id} {KEY[id]['title']}") and statement.metadata.nbgrader.locked
        assert check.source == f'verdict = tl.check("{id}", answer)\nassert verdict, verdict'
        assert check.metadata.nbgrader.locked and check.metadata.nbgrader.grade and check.metadata.nbgrader.points == 1
        body = re.search(r"### BEGIN SOLUTION\n(.+)\n### END SOLUTION$", answer.source, re.S)[1]
        assert re.search(r"^answer\b.* = ", body, re.M) and "tl.check" not in answer.source and "= ..." not in answer.source
        assert not answer.metadata.nbgrader.locked and answer.metadata.nbgrader.solution


@pytest.mark.parametrize("name", NAMES)
def test_an_assignment_has_no_links_into_the_book_no_numbers_of_its_and_the_files_that_it_reads(course, name):
    notebook = read(course, "source", name)
    nbformat.validate(notebook)
    text = "\n".join(cell.source for cell in notebook.cells)
    for foreign in ("claims.check", "claim:", "{doc}", "../", "<details"):
        assert foreign not in text, foreign
    for file in re.findall(r'"([\w.]+\.(?:csv|json|npz))"', text):
        assert (course / "source" / name / file).is_file(), file


def test_made_again_nothing_changes_and_what_the_teacher_has_is_left_alone(course):
    files = [path for path in course.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    (course / "nbgrader_config.py").write_text("c = get_config()\n", encoding="utf-8")
    (course / "gradebook.db").write_bytes(b"grades")
    make_assignments.main(course)
    assert (course / "nbgrader_config.py").read_text(encoding="utf-8") == "c = get_config()\n"
    assert (course / "gradebook.db").read_bytes() == b"grades"
    (course / "gradebook.db").unlink()
    (course / "nbgrader_config.py").write_bytes(before[course / "nbgrader_config.py"])
    assert {path: path.read_bytes() for path in files} == before


def test_a_solution_without_its_check_is_refused(tmp_path):
    notebook = nbformat.read(SOLUTIONS[0], as_version=4)
    for cell in notebook.cells:
        if "solution" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('\ntl.check("02.3", answer)', "")
    nbformat.write(notebook, tmp_path / "02_changed.ipynb")
    with pytest.raises(ValueError, match=r'ends with tl\.check\("02\.3", answer\)'):
        make_assignments.assignment_of(tmp_path / "02_changed.ipynb")


# --- marked by nbgrader --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nbgrader(course, tmp_path_factory):
    """Run commands of nbgrader in the course, and return what they print; notebooks run with the Python of these tests."""
    if not NBGRADER:
        (pytest.fail if os.environ.get("TLHELPERS_REQUIRE_TOOLS") else pytest.skip)(
            f"no {THERE.relative_to(ROOT)} (`make assignments` makes it; TLHELPERS_TOOLS can name another)"
        )
    jupyter = tmp_path_factory.mktemp("jupyter")
    kernel = jupyter / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    environment = os.environ | {
        "JUPYTER_PATH": str(jupyter), "PYTHONPATH": str(ROOT), "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }  # fmt: skip

    def run(commands):
        command = [NBGRADER, str(ROOT / "book" / "tools" / "nbgrader_course.py"), *commands]
        done = subprocess.run(command, cwd=course, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture(scope="module")
def released(course, nbgrader):
    nbgrader([f"generate_assignment:{name}" for name in NAMES])
    return course


def hand_in(course, student, name, notebook):
    folder = course / "submitted" / student / name
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def answered(released, name, answers):
    """The released notebook with these answers (id → value), and without what computes before the first exercise."""
    notebook = read(released, "release", name)
    for id, answer in answers.items():
        marked(notebook)[f"answer-{id}".replace(".", "-")].source = f"answer = {answer!r}"
    begin = nbformat.v4.new_code_cell("import tlhelpers as tl")
    notebook.cells = [begin, *(cell for cell in notebook.cells if "nbgrader" in cell.metadata)]
    return notebook


def scores(nbgrader, student, names):
    """Points of each exercise after marking, from nbgrader's gradebook: id → points."""
    found = {}
    for line in nbgrader([f"autograde:{name}:{student}" for name in names]):
        marks = json.loads(line.split(" ", 1)[1])
        assert marks["of"] == len(marks["points"]) and marks["total"] == sum(marks["points"].values())
        found |= {name.removeprefix("check-").replace("-", "."): points for name, points in marks["points"].items()}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_students_get_no_solution_and_no_outputs(released, name):
    source, release = marked(read(released, "source", name)), marked(read(released, "release", name))
    assert set(source) == set(release)
    for grade_id, cell in release.items():
        if grade_id.startswith("answer"):
            begin = source[grade_id].source.partition("### BEGIN SOLUTION")[0]
            assert cell.source == f"{begin}answer = ..."
        else:
            assert cell.source == source[grade_id].source
    assert all(not cell.get("outputs") for cell in release.values())
    assert {path.name for path in (released / "source" / name).iterdir()} == {path.name for path in (released / "release" / name).iterdir()}


def test_right_answers_get_every_point(released, nbgrader):
    for name in NAMES:
        hand_in(released, "right", name, answered(released, name, {id: KEY[id]["answer"] for id in exercises_of(name)}))
    assert scores(nbgrader, "right", NAMES) == dict.fromkeys(KEY, 1)


def test_wrong_answers_get_none_and_the_reason_is_the_hint(released, nbgrader):
    for name in NAMES:
        wrong = answered(released, name, {id: KEY[id]["wrong"][0]["answer"] for id in exercises_of(name)})
        # A check that a student has changed is put back before it is run.
        for id in exercises_of(name):
            marked(wrong)[f"check-{id}".replace(".", "-")].source = "assert True"
        hand_in(released, "wrong", name, wrong)
    assert scores(nbgrader, "wrong", NAMES) == dict.fromkeys(KEY, 0)
    for name in NAMES:
        cells = marked(read(released, "autograded/wrong", name))
        for id in exercises_of(name):
            errors = [output.evalue for output in cells[f"check-{id}".replace(".", "-")].outputs if output.output_type == "error"]
            assert errors == [f"{id}: not yet. {KEY[id]['wrong'][0]['hint']}"]


def test_what_is_handed_in_as_it_was_given_out_gets_none_and_part_of_it_gets_part(released, nbgrader):
    first, second = NAMES[0], NAMES[1]
    hand_in(released, "part", first, answered(released, first, {}))
    id = exercises_of(second)[1]
    hand_in(released, "part", second, answered(released, second, {id: KEY[id]["answer"]}))
    expected = {each: int(each == id) for name in (first, second) for each in exercises_of(name)}
    assert scores(nbgrader, "part", [first, second]) == expected


@pytest.mark.parametrize("name", NAMES if os.environ.get("TLHELPERS_ASSIGNMENTS") == "all" else NAMES[2:3])
def test_the_books_own_solutions_get_every_point(released, nbgrader, name):
    student = f"book_{name[:2]}"
    shutil.copytree(released / "source" / name, released / "submitted" / student / name)
    assert scores(nbgrader, student, [name]) == dict.fromkeys(exercises_of(name), 1)
