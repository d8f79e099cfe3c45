"""The sources of the book, before it is built: notebooks with outputs, alt texts, links, kernels, the table of contents."""

import re
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.md"))
RUNNABLE = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
STUDENTS = sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))
NOTEBOOKS = [*RUNNABLE, *SOLUTIONS]
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"

sys.path.insert(0, str(ROOT / "book" / "tools"))

from make_exercises import without_solutions
from run_notebooks import code_hash

from tlhelpers.exercises import read_key


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: f"{path.parent.name}/{path.stem}")


each_notebook, each_chapter, each_solution = each(NOTEBOOKS), each(RUNNABLE), each(SOLUTIONS)


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
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    listed = [toc["root"], *(page["file"] for chapter in chapters for page in (chapter, *chapter.get("sections", ())))]
    there = {path.relative_to(ROOT).with_suffix("").as_posix() for path in [*CHAPTERS, *NOTEBOOKS]}
    assert set(listed) == there and len(listed) == len(there)


@each_notebook
def test_every_cell_was_run_in_order_and_none_ends_in_an_error(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"], cell.source
        assert not [output for output in cell.outputs if output.get("name") == "stderr"], cell.source


@each_notebook
def test_the_outputs_are_those_of_the_code_as_it_stands(path):
    notebook = read(path)
    assert notebook.metadata.book.code == code_hash(notebook), "the code has changed since it was run: make notebooks"


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
        # The still of an interactive figure brings its own.
        alts = [output.metadata.get("image/png", {}).get("alt", alt) for output in pictures]
        assert len(pictures) <= 1 and all(len(alt) > 30 for alt in alts), cell.source


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
        pages = [entry["state"].get("value") for entry in state.values() if entry["model_name"] == "HTMLModel"]
        pages = [page for page in pages if page]  # empty: where the answer to a reader's own photo will stand
        assert pages and all(re.search(r'<img [^>]*alt="[^"]{20,}"', page) for page in pages)


def prose_of(path):
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@each_chapter
def test_a_chapter_says_what_you_will_be_able_to_do_and_what_it_needs_and_ends_with_take_aways_questions_and_exercises(path):
    prose = prose_of(path)
    parts = (
        "# ", "**After this chapter you will be able to**", "**Needs**", "**Takes**",
        "## Take-aways", "## Questions", "## Exercises",
    )
    places = [prose.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    questions = re.findall(r"<details>\n<summary>[^\n]{20,}</summary>\n\n.{40,}?\n\n</details>", prose, re.S)
    assert len(questions) >= 3 and prose.count("<details>") == len(questions), "questions with folded answers"
    exercises = prose[places[-1] :]
    assert f"{{doc}}`solutions/{path.stem}`" in exercises and f"notebooks/exercises/{path.name}" in exercises


def test_every_chapter_to_run_has_its_exercises():
    assert [path.name for path in RUNNABLE] == [path.name for path in SOLUTIONS]


@each_solution
def test_the_students_notebook_is_the_solutions_without_the_solution(path):
    student = ROOT / "notebooks" / "exercises" / path.name
    assert student.is_file() and read(student) == without_solutions(path), "make exercises"


def test_there_is_no_students_notebook_without_solutions():
    assert [path.name for path in STUDENTS] == [path.name for path in SOLUTIONS]


@each_solution
def test_each_exercise_is_asked_begun_solved_folded_and_checked(path):
    """Statement, a cell that begins, then the solution: all of it tagged, in one fold, with its own check and two mistakes."""
    parts, chapter = {}, path.stem[:2]
    for cell in read(path).cells:
        if heading := re.match(rf"## ({chapter}\.\d+) (.+)", cell.source):
            parts[heading[1]] = current = []
            assert heading[2] == read_key()[heading[1]]["title"], f"{heading[1]}: another title in exercises.toml"
        elif not parts:
            continue
        current.append(cell)
    assert list(parts) == [id for id in read_key() if id.startswith(f"{chapter}.")] and parts
    for id, (statement, begin, start, *solution, end) in parts.items():
        assert "`answer`:" in statement.source, f"{id}: say in what form the answer shall be given"
        assert begin.source.endswith(f'answer = ...\n\ntl.check("{id}", answer)'), id
        for cell in (start, *solution, end):
            assert "solution" in cell.metadata.get("tags", []), f"{id}: a cell of the solution would be shown to students"
        assert all("solution" not in cell.metadata.get("tags", []) for cell in (statement, begin)), id
        assert start.source == '<details class="solution">\n<summary>Solution</summary>' and end.source == "</details>", id
        code = "\n".join(cell.source for cell in solution if cell.cell_type == "code")
        assert f'\ntl.check("{id}", answer)' in code, f"{id}: the solution does not check itself"
        printed = "".join(o.get("text", "") for c in solution if c.cell_type == "code" for o in c.outputs)
        assert f"{id}: right\n" in printed and code.count(f'assert not tl.check("{id}", ') >= 2, f"{id}: two mistakes"


def test_pictures_in_markdown_exist_and_have_alt_text():
    for where, text in texts():
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", text):
            assert len(alt) > 30 and (ROOT / target).is_file(), f"{where}: {target}"
        for kind, target, options in re.findall(r"```\{(image|figure)\} (\S+)\n((?::.*\n)*)", text):
            assert re.search(r":alt: .{30,}", options), f"{where}: {target} has no alt text"
            assert (ROOT / "book" / target).is_file(), f"{where}: {target}"


def test_every_word_of_the_glossary_is_linked_from_a_page_that_explains_it():
    glossary = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^(\S.*)\n  \S", glossary, re.M)
    known = {word.lower() for word in words}
    linked = {
        (target or text).lower()
        for where, prose in texts()
        if "glossary" not in str(where)
        for text, target in re.findall(r"\{term\}`([^`<]*?)(?:\s*<([^`>]*)>)?`", prose)
    }
    assert len(known) > 60 and linked == known
    assert words == sorted(words, key=str.lower), "the glossary is in the order of the alphabet"


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
    for path in RUNNABLE:
        if "solar" in (prose := prose_of(path)):
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


def test_these_tests_run_on_what_is_pinned():
    """Else a pin that cannot be installed, or another version's result, would go unnoticed where it was written."""
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    assert len(here) > 150
    assert {pin.name: metadata.version(pin.name) for pin in here} == {pin.name: str(pin.specifier)[2:] for pin in here}
