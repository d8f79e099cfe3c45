"""Make the students' notebooks from those with the solutions: `make exercises`.

A student's notebook is the notebook of the same name in notebooks/solutions/ without its cells tagged `solution` and
without outputs. Nothing else differs; a test compares them.
"""

import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


def without_solutions(path):
    """The student's notebook for a notebook with solutions."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return notebook


def main(root=ROOT):
    folder = root / "notebooks" / "exercises"
    folder.mkdir(exist_ok=True)
    wanted = {path.name: path for path in (root / "notebooks" / "solutions").glob("*.ipynb")}
    for path in folder.glob("*.ipynb"):
        if path.name not in wanted:
            path.unlink()
    for name, path in wanted.items():
        nbformat.write(without_solutions(path), folder / name)


if __name__ == "__main__":
    sys.exit(main())
