"""Make slides of the chapters: `make slides`. They stand in _build/slides, and load nothing from other hosts.

Each chapter to run becomes one page, by nbconvert and reveal.js. What comes onto the wall is decided by these rules, cell by cell:

- a heading begins a slide, with the first sentence below it; "Questions" become one slide each, "Exercises" are left out;
- code stands on a slide with what it prints, its picture on the next one, each with the first sentence of the text that reads it;
- all other text is in the speaker's notes (key S); tables, lists and formulas are shown;
- cells that only check numbers of the book are left out.

A cell's tag says otherwise: "slide-skip" leaves it out, "slide-whole" shows all its text, "slide-notes" none of it.
"""

import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets.config import Config

ROOT = Path(__file__).parents[2]
OUT = ROOT / "_build" / "slides"
NODE_MODULES = ROOT / "book" / "web" / "node_modules"

# folder in web/ ← file or pattern in node_modules
FILES = {
    "reveal": ["reveal.js/LICENSE", "reveal.js/dist/reveal.js", "reveal.js/dist/re*.css", "reveal.js/plugin/notes/notes.js"],
    "mathjax": ["mathjax/LICENSE", "mathjax/es5/tex-chtml-full.js"],
    "mathjax/output/chtml/fonts/woff-v2": ["mathjax/es5/output/chtml/fonts/woff-v2/*.woff"],
}
_SHORT = 60  # letters
_ROOM = 17  # lines of code and of what it prints, on one slide
_LINES = 16  # of what a cell prints; the rest stands in the book
_SENTENCE = re.compile(r"(?:[^.!?`$(]|`[^`]*`|\$[^$]*\$|\([^)]*\)|[.](?=\w))+[.!?][)*\"]*(?=\s|$)")
_CREDIT = re.compile(r"\*([^*]*(?:CC BY|AT&T)[^*]*)\*\.?")  # whose photos: stays with them
_SHOWN = re.compile(r"^(?:\||[-*] |\d+\. |> |\$\$|```)")  # tables, lists, quotations, formulas, code


def plain(text):
    """Markdown that needs no Sphinx: titles for {doc}, words for {term}, numbers without their links."""

    def title(match):
        path = next(ROOT.glob(f"*/{Path(match[1]).name}.*"), None)
        return f"*{title_of(path)}*" if path else match[1]

    text = re.sub(r"\{doc\}`([^`<]+)`", title, text)
    text = re.sub(r"\{term\}`([^`<]+?)(?: <[^>]+>)?`", r"\1", text)
    text = re.sub(r"\s?\{cite:p\}`[^`]*`", "", text)
    return re.sub(r"\[([^\]\[]*)\]\((?:claim|quoted):[^)\s]*\)", r"\1", text)


def title_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = nbformat.reads(text, as_version=4).cells[0].source
    return next(line[2:].strip() for line in text.splitlines() if line.startswith("# "))


def beginning(text):
    """The first sentence of a paragraph; where that is short, the first two."""
    text = " ".join(text.split())
    found = _SENTENCE.match(text)
    if found and found.end() < _SHORT and (second := _SENTENCE.match(text, found.end() + 1)):
        return text[: second.end()]
    return found[0] if found else text


class Deck:
    """The cells of one set of slides, in the form that nbconvert takes."""

    def __init__(self):
        self.cells, self.part, self.bare = [], "", False  # bare: so far the slide has only a heading

    def add(self, cell, kind):
        cell = nbformat.from_dict(cell)
        cell.metadata["slideshow"] = {"slide_type": kind}
        cell.metadata.pop("tags", None)
        cell["id"] = f"cell-{len(self.cells)}"
        self.cells.append(cell)

    def text(self, source, kind="-"):
        if source.strip():
            self.add(new_markdown_cell(source), kind)

    def head(self, source, kind, part):
        """A new slide with a heading, on which the next thing has room."""
        self.text(source, kind)
        self.part, self.bare = part, True

    def turn(self):
        """A new slide of the same part, but for one that has only a heading."""
        if not self.bare:
            self.text(f'<p class="tl-part">{self.part}</p>', "subslide")
        self.bare = False


def add_markdown(deck, source, tags, lead):
    """A cell of text: headings and what is to be seen onto slides, the rest into the notes. `lead`: it reads a result."""
    notes = []
    for block in re.split(r"\n\s*\n", source.strip()):
        if heading := re.match(r"(#+) +(.+)$", block):
            deck.text("\n\n".join(notes), "notes")
            notes, lead = [], True
            deck.head(block, "slide" if len(heading[1]) < 3 else "subslide", heading[2])
        elif "slide-whole" in tags or _SHOWN.match(block):
            if block.startswith("|") and block.count("\n") > 5:
                deck.bare = False
                deck.turn()
            deck.text(block)
        else:
            if credit := _CREDIT.match(block):
                deck.text(f'<p class="tl-credit">{" ".join(credit[1].split())}</p>')
                block = block[credit.end() :].strip()
            if block and lead and "slide-notes" not in tags and not block.startswith(("<", "**After", "**Needs")):
                deck.text(beginning(block))
                lead = False
            notes.append(block)
    deck.text("\n\n".join(notes), "notes")


def add_code(deck, cell):
    """A cell of code: onto a slide with what it prints; its picture onto a slide of its own."""
    pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
    others = [output for output in cell.outputs if output not in pictures]
    for output in others:
        if lines := output.get("text", "").splitlines()[_LINES:]:
            output.text = "\n".join([*output.text.splitlines()[:_LINES], f"… {len(lines)} more lines"])
    printed = sum(len(str(output.get("text") or output.get("data", {}).get("text/plain", "")).splitlines()) for output in others)
    length = len(cell.source.splitlines())
    deck.bare = deck.bare and length + printed <= _ROOM - 5  # a heading takes so much
    deck.turn()
    if length + printed <= _ROOM:
        deck.add(cell | {"outputs": others}, "-")
    else:
        deck.add(cell | {"outputs": []}, "-")
        deck.turn()
        deck.add(cell | {"outputs": others, "source": ""}, "-")
    for output in pictures:
        alt = output.metadata.get("image/png", {}).get("alt") or cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        data = output.data["image/png"].replace("\n", "")
        alt = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        deck.turn()
        deck.text(f'<img class="tl-figure" src="data:image/png;base64,{data}" alt="{alt}">')


def add_questions(deck, source):
    """Each question on a slide, its answer in the notes."""
    for question, answer in re.findall(r"<summary>(.+?)</summary>\n\n(.+?)\n\n</details>", source, re.S):
        deck.text(f"### {question}", "subslide")
        deck.text(answer, "notes")


def deck_of(notebook):
    """A notebook whose cells say which slide they are on.

    Args:
        notebook: a chapter, with outputs.

    Returns:
        notebook for nbconvert's `SlidesExporter`.
    """
    deck, shown, part = Deck(), False, ""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            source = plain(cell.source)
            part = (re.findall(r"^## (.+)$", source, re.M) or [part])[-1]
            if part == "Exercises" or "slide-skip" in tags:
                continue
            if part == "Questions":
                if source.startswith("## "):
                    deck.text("## Questions", "slide")
                add_questions(deck, source)
                continue
            add_markdown(deck, source, tags, shown)
            shown = False
            if source.startswith("# "):
                deck.text(f'<p class="tl-credit">{LICENCES}</p>')
        elif not {"slide-skip", "nbval-check-output"} & set(tags) and (cell.outputs or "assert " not in cell.source):
            add_code(deck, cell)
            shown = bool(cell.outputs)
    return new_notebook(cells=deck.cells, metadata={key: notebook.metadata[key] for key in ("kernelspec", "language_info")})


def exporter():
    config = Config()
    config.SlidesExporter.exclude_input_prompt = config.SlidesExporter.exclude_output_prompt = True
    config.SlidesExporter.exclude_anchor_links = True
    config.CSSHTMLHeaderPreprocessor.style = "github-light-colorblind"
    return SlidesExporter(config, template_name="slides", extra_template_basedirs=[str(Path(__file__).parent)])


def copy_packages(out):
    for folder, patterns in FILES.items():
        (out / "web" / folder).mkdir(parents=True, exist_ok=True)
        for pattern in patterns:
            files = sorted(NODE_MODULES.glob(pattern))
            if not files:
                raise SystemExit(f"{NODE_MODULES / pattern} is missing; `npm ci --prefix book/web` brings it")
            for file in files:
                shutil.copy(file, out / "web" / folder)


LICENCES = "Text and figures CC BY 4.0. Photos of solar cells, and figures that show them: ELPV data set, CC BY-NC-SA 4.0."

INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Slides</title>
<style>body {{ max-width: 40rem; margin: 3rem auto; padding: 0 1rem; font: 1.1rem/1.6 sans-serif; }}</style></head>
<body><main><h1>Slides</h1>
<ol start="2">{}</ol>
<p>Arrow keys turn the pages: right to the next part, down within it, or the space bar for one after the other. S opens the speaker's
notes, F fills the screen, Esc shows all slides. To print, add <code>?print-pdf</code> to the address.</p>
<p>{}</p></main></body></html>
"""


def main(out=OUT, paths=None):
    shutil.rmtree(out, ignore_errors=True)
    copy_packages(out)
    make, entries = exporter(), []
    for path in paths or sorted((ROOT / "notebooks").glob("*.ipynb")):
        title = title_of(path)
        page, _ = make.from_notebook_node(deck_of(nbformat.read(path, as_version=4)), {"metadata": {"name": title}})
        (out / f"{path.stem}.html").write_text(page, encoding="utf-8")
        entries.append(f'<li><a href="{path.stem}.html">{title}</a></li>')
        print(out / f"{path.stem}.html")
    (out / "index.html").write_text(INDEX.format("\n".join(entries), LICENCES), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
