"""What the builders of chapters share: a notebook made cell by cell, with the code of some cells run as they are added.

A builder is a module chNN.py with

    NAME        "11_better": the notebook's name, the same in notebooks/ and notebooks/solutions/
    build(root) writes both notebooks below `root`, a clone whose experiments/results has the tables, measured or invented
    CLAIMS      id → fields of book/claims.toml without the value. "tolerance" may be left out: then the number is read from a table,
                and the tolerance is a tenth of the last digit shown
    EXERCISES   id → fields of tlhelpers/exercises.toml without the answers, "wrong" a list of hints in the order in which the
                solution makes the mistakes
"""

import os
from pathlib import Path

import nbformat

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
FOLD, END = '<details class="solution">\n<summary>Solution</summary>', "</details>"
TABLE = "read from the table of the experiment: the same on every machine"


class Pages:
    """Cells of one notebook. `folder` is where it will stand, so that its relative paths can be tried."""

    def __init__(self, root, place):
        self.path = Path(root) / "notebooks" / f"{place}.ipynb"
        self.cells, self.space = [], {}

    def md(self, text, *tags):
        self._add(nbformat.v4.new_markdown_cell(text.strip("\n")), tags)

    def code(self, source, *tags, alt=None, now=False):
        """A cell of code; `alt` for its picture. With `now` it is run here as well, so that the text can ask `space`."""
        source = source.strip("\n")
        if now:
            before = Path.cwd()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.chdir(self.path.parent)
            try:
                exec(compile(source, self.path.name, "exec"), self.space)
            finally:
                os.chdir(before)
        self._add(nbformat.v4.new_code_cell(source), tags)
        if alt:
            self.cells[-1].metadata["mystnb"] = {"image": {"alt": alt}}

    def check(self, source, *tags):
        """A cell that holds numbers against the ledger."""
        self.code(source, "nbval-check-output", *tags)

    def exercise(self, id, title, statement, form):
        self.md(f"## {id} {title}\n\n{statement.strip()}\n\n`answer`: {form}")
        self.code(f'answer = ...\n\ntl.check("{id}", answer)')
        self.md(FOLD, "solution")

    def end_exercise(self):
        self.md(END, "solution")

    def _add(self, cell, tags):
        cell["id"] = f"c{len(self.cells):03d}"
        if tags:
            cell.metadata["tags"] = list(tags)
        self.cells.append(cell)

    def write(self):
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        notebook = nbformat.v4.new_notebook(cells=self.cells, metadata=metadata)
        nbformat.validate(notebook)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, self.path)


def link(id):
    """A number of the ledger in the text."""
    return f"[?](claim:{id})"


def table(head, rows):
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
