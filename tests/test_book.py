"""The sources of the book, before it is built: notebooks with outputs, alt texts, links, kernels, the table of contents."""

import re
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
CHAPTERS = sorted((ROOT / "book").rglob("*.md"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def texts():
    """(where, text) of every piece of prose in the book."""
    for path in [*CHAPTERS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        for number, cell in enumerate(read(path).cells):
            if cell.cell_type == "markdown":
                yield f"{path.relative_to(ROOT)}, cell {number}", cell.source


def test_the_table_of_contents_names_every_chapter_and_only_those_there_are():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    listed = {toc["root"]} | {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    there = {str(path.relative_to(ROOT).with_suffix("")) for path in [*CHAPTERS, *(ROOT / "notebooks").glob("*.ipynb")]}
    assert listed == there


@each_notebook
def test_every_cell_was_run_in_order_and_none_ends_in_an_error(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"], cell.source
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source


@each_notebook
def test_the_kernel_is_the_one_every_machine_has(path):
    assert read(path).metadata.kernelspec.name == "python3"


@each_notebook
def test_cells_are_short_and_code_is_followed_by_words_or_by_the_check_of_its_result(path):
    notebook = read(path)
    for cell in code_cells(notebook):
        assert len(cell.source.strip().splitlines()) <= 14, cell.source
    kinds = [cell.cell_type for cell in notebook.cells]
    runs = re.findall("c+", "".join("c" if kind == "code" else "m" for kind in kinds))
    assert max(map(len, runs)) <= 4, "more than four code cells with no words between them"


@each_notebook
def test_every_picture_has_alt_text(path):
    for cell in code_cells(read(path)):
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        assert len(pictures) <= 1 and (not pictures or len(alt) > 30), cell.source


@each_notebook
def test_every_interactive_figure_is_stored_with_its_state_and_moves_without_a_kernel(path):
    notebook = read(path)
    views = [
        output.data[WIDGET_VIEW]["model_id"]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if WIDGET_VIEW in output.get("data", {})
    ]
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    assert set(views) <= set(state), "a widget is shown whose state is not saved: it is dead in the static page"
    if views:
        models = [entry["model_name"] for entry in state.values()]
        assert "LinkModel" in models and "StackModel" in models
        pages = [entry["state"]["value"] for entry in state.values() if entry["model_name"] == "HTMLModel"]
        assert pages and all(re.search(r'<img [^>]*alt="[^"]{20,}"', page) for page in pages)


@each_notebook
def test_a_chapter_says_what_you_will_be_able_to_do_what_it_needs_and_ends_with_take_aways_and_exercises(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for part in ("# ", "**After this chapter you will be able to**", "**Needs**", "**Takes**", "## Take-aways", "## Exercises"):
        assert part in prose
    exercises = re.findall(r"\{exercise\}[^\n]*\n:label: (\S+)", prose)
    assert len(exercises) >= 3
    for label in exercises:
        assert f"{{solution-start}} {label}\n:class: dropdown" in prose
    solutions = [cell for cell in code_cells(read(path)) if "solution" in cell.metadata.get("tags", [])]
    assert sum("assert" in cell.source for cell in solutions) >= len(exercises), "a solution that nothing checks"


@each_notebook
def test_every_percentage_in_the_words_stands_in_an_assertion_of_the_same_notebook(path):
    notebook = read(path)
    checks = " ".join(cell.source for cell in code_cells(notebook) if "assert" in cell.source)
    asserted = [float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", checks)]
    unchecked = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for paragraph in cell.source.split("\n\n"):
            if "{cite" in paragraph and "Deitsch2019" in paragraph:
                continue  # quoted from a reference, which is named
            for number in re.findall(r"(\d+(?:\.\d+)?)(?: %|(?=(?:, \d+(?:\.\d+)?)*(?:,? and \d+(?:\.\d+)?) %))", paragraph):
                percent = float(number)
                near = [a for a in asserted if abs(100 * a - percent) < 0.06 or abs(a - percent) < 0.06]
                if not near and percent not in (95, 100):  # the level of all intervals; all of them
                    unchecked.append(f"{number} %: {paragraph[:80]}")
    assert not unchecked


def test_pictures_in_markdown_exist_and_have_alt_text():
    for where, text in texts():
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text):
            assert len(alt) > 30 and (ROOT / target).is_file(), f"{where}: {target}"
        for kind, target, options in re.findall(r"```\{(image|figure)\} (\S+)\n((?::.*\n)*)", text):
            assert re.search(r":alt: .{30,}", options), f"{where}: {target} has no alt text"
            assert (ROOT / "book" / target).is_file(), f"{where}: {target}"


def test_external_links_are_well_formed():
    links = [(where, link) for where, text in texts() for link in re.findall(r"https?:[^\s)>\]}`'\"]*", text)]
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    links += [("references.bib", link) for link in re.findall(r"url = \{([^}]*)\}", bibliography)]
    for where, link in links:
        parts = urlparse(link)
        assert parts.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), f"{where}: {link}"
    for doi in re.findall(r"doi = \{([^}]*)\}", bibliography):
        assert re.fullmatch(r"10\.\d{4,}/\S+", doi), doi


def test_figures_that_show_solar_cells_say_their_licence():
    for path in NOTEBOOKS:
        prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        if "solar" in prose:
            assert "CC BY-NC-SA 4.0" in prose, path
    for where, text in texts():
        if any(figure in text for figure in ("result.png", "transfer.png", "cover.png")):
            assert "CC BY-NC-SA 4.0" in text, where


def test_every_package_is_pinned_to_one_version():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if line and not line.lstrip().startswith("#")]
    assert len(packages) > 150
    for line in packages:
        assert re.fullmatch(r"[a-z0-9._-]+==[\w.!+-]+( ; .+)?", line), line
    for given in ("tensorflow==2.21", "keras==3", "jupyter-book==1", "matplotlib==", "ipywidgets==", "nbval=="):
        assert any(line.startswith(given) for line in packages), given
