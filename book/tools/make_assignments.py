"""Make assignments for nbgrader from the notebooks with solutions: `make assignments`.

An assignment is the notebook of the same name in notebooks/solutions/, in the form that nbgrader calls the source version:
the statement is locked, the solution stands between the marks that nbgrader cuts out, and a locked cell with a point calls
`tl.check`. What does not lead to the answer (numbers of the book, mistakes, the fold) is left out.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

ROOT = Path(__file__).parents[2]
POINTS = 1  # an exercise

CONFIG = """\
c = get_config()

c.CourseDirectory.course_id = "transfer_learning"
c.ClearSolutions.code_stub = {"python": "answer = ..."}
c.ExecutePreprocessor.timeout = 900  # seconds a cell: the first that sends photos through a network takes longest
c.ExecutePreprocessor.allow_errors = True
"""


def assignment_of(path):
    """The source version of an assignment, and the stored results that it reads.

    Args:
        path: notebook with solutions.

    Returns:
        (notebook, list of files to lay beside it)
    """
    notebook = nbformat.read(path, as_version=4)
    cells, files, id = [], [], None
    rest = iter(notebook.cells)
    for cell in rest:
        source = cell.source
        for name in re.findall(r'"\.\./\.\./(experiments/results/[\w.]+)"', source):
            files.append(ROOT / name)
            source = source.replace(f"../../{name}", Path(name).name)
        source = re.sub(r"\{doc\}`\.\./0?(\d+)_\w+`", r"chapter \1", source)
        if heading := re.match(r"## (\d\d\.\d+) ", source):
            id = heading[1]
            cells.append(_marked(new_markdown_cell(source), f"statement-{id}", locked=True))
        elif id is None:
            cells.append(new_code_cell(source) if cell.cell_type == "code" else new_markdown_cell(source))
        elif cell.cell_type == "code" and "solution" not in cell.metadata.get("tags", []):
            begin, check = "answer = ...", f'tl.check("{id}", answer)'
            solution = f"### BEGIN SOLUTION\n{_solution(rest, check)}\n### END SOLUTION"
            source = source.replace(f"\n\n{check}", "").replace(begin, solution)
            cells.append(_marked(new_code_cell(source), f"answer-{id}", solution=True))
            test = new_code_cell(f"verdict = {check}\nassert verdict, verdict")
            cells.append(_marked(test, f"check-{id}", grade=True, locked=True, points=POINTS))
    for number, cell in enumerate(cells):  # the same ids each time, so that nothing changes where nothing has changed
        cell["id"] = f"cell-{number:02d}"
    metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata), files


def _solution(cells, check):
    """Code up to the check of the right answer; claims belong to the book, and what follows is about mistakes."""
    parts = []
    for cell in cells:
        if cell.cell_type == "code" and "nbval-check-output" not in cell.metadata.get("tags", []):
            parts.append(cell.source)
            if cell.source.endswith(f"\n{check}"):
                return "\n\n\n".join(parts).removesuffix(f"\n{check}")
    raise ValueError(f"no cell of a solution ends with {check}")


def _marked(cell, name, *, grade=False, solution=False, locked=False, points=None):
    cell.metadata["nbgrader"] = {
        "schema_version": 3, "grade_id": name.replace(".", "-"), "grade": grade, "solution": solution, "locked": locked,
        "task": False, "cell_type": cell.cell_type,
    }  # fmt: skip
    if points is not None:
        cell.metadata["nbgrader"]["points"] = points
    return cell


def main(folder="course"):
    """Write or renew `source/` below a course's folder. What nbgrader and the teacher keep beside it is left alone."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    for path in sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb")):
        notebook, files = assignment_of(path)
        place = folder / "source" / path.stem
        place.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place / path.name)
        for file in files:
            shutil.copy(file, place)
        print(place / path.name)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
