"""What the builders of chapters 13 and 14 share: lists of cells, and the notebooks made of them. (run.py is the same for all.)"""

from pathlib import Path

import nbformat
from making import KERNEL


def md(text, *tags):
    return nbformat.v4.new_markdown_cell(text.strip("\n"), metadata={"tags": list(tags)} if tags else {})


def code(text, *tags, alt=None):
    tags = [*tags, "nbval-check-output"] if "claims.check(" in text and "nbval-check-output" not in tags else list(tags)
    metadata = {"tags": tags} if tags else {}
    if alt:
        metadata["mystnb"] = {"image": {"alt": alt}}
    return nbformat.v4.new_code_cell(text.strip("\n"), metadata=metadata)


def fold(*cells):
    """A solution: its cells in one fold, all tagged."""
    cells = [md('<details class="solution">\n<summary>Solution</summary>'), *cells, md("</details>")]
    for cell in cells:
        cell.metadata["tags"] = ["solution", *cell.metadata.get("tags", [])]
    return cells


def notebook(cells):
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(made.cells):
        cell.id = f"c{number:03}"
    nbformat.validate(made)
    return made


def save(folder, name, chapter, solutions):
    """notebooks/NAME.ipynb and notebooks/solutions/NAME.ipynb in `folder`."""
    for place, cells in (("notebooks", chapter), ("notebooks/solutions", solutions)):
        path = Path(folder) / place / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(cells), path)
        print(path)
