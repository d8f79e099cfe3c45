"""The book online: buttons that open a chapter on Colab or Binder, and the first cell that Colab needs.

Both begin with one setting, the address of the repository in `_config.yml`. While it is empty there are no buttons. Once it
is there, the pages of notebooks have buttons that open the same notebook on the branch `online`.

`python book/_ext/online.py` puts the first cell into every notebook below notebooks/; the workflow does that and pushes the
result as that branch. On the main branch there is no such cell, because only Colab needs it.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BRANCH = "online"
TAG = "for-colab"

FIRST_CELL = """\
# On Colab this fetches the book and installs what it needs, in a few minutes. Anywhere else it does nothing.
import os
import sys

if "google.colab" in sys.modules:
    if not os.path.isdir("/content/book"):
        !git clone --quiet --depth 1 --branch {branch} {address} /content/book
        %pip install --quiet "/content/book[data]"
    %cd /content/book/{folder}"""


def address_of(root=ROOT):
    """Where the repository is on the web, without a slash at its end; "" while nobody has said."""
    import yaml

    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"].rstrip("/")


def first_cell(path, address, root=ROOT):
    """The cell that a notebook begins with on the branch `online`."""
    from nbformat.v4 import new_code_cell

    source = FIRST_CELL.format(branch=BRANCH, address=address, folder=path.parent.relative_to(root).as_posix())
    return new_code_cell(source, id=TAG, metadata={"tags": [TAG]})


def main(root=ROOT):
    """Put the first cell into each notebook that has none."""
    import nbformat

    if not (address := address_of(root)):
        print("no address of the repository in _config.yml: no cells for Colab")
        return
    for path in sorted((root / "notebooks").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if notebook.cells[0].get("id") != TAG:
            notebook.nbformat_minor = max(notebook.nbformat_minor, 5)  # cells have ids from here on
            notebook.cells.insert(0, first_cell(path, address, root))
            nbformat.write(notebook, path)
            print(path.relative_to(root))


def show_buttons(app, config):
    address = address_of(Path(app.srcdir))
    if address and not os.environ.get("BOOK_OFFLINE"):
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": BRANCH,
            "use_repository_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "colab_url": "https://colab.research.google.com",
                "binderhub_url": "https://mybinder.org",
                "notebook_interface": "jupyterlab",
            },
        }


def setup(app):
    app.connect("config-inited", show_buttons)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit(main())
