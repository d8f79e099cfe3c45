"""Slides of the chapters: what comes onto them, and, in a real browser, that it fits and nothing is fetched.

The last tests look at _build/slides, which `make slides` fills; without it, or without Chromium, they are skipped, or fail
with TLHELPERS_REQUIRE_BROWSER set.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = Path(__file__).parents[1]
SLIDES = ROOT / "_build" / "slides"
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BROWSER = os.environ.get("TLHELPERS_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
sys.path.insert(0, str(ROOT / "book" / "tools"))

import make_slides

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="


def slides_of(*cells):
    """[(kind, source)] of what a small chapter becomes."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    deck = make_slides.deck_of(new_notebook(cells=list(cells), metadata=metadata))
    return [(cell.metadata.slideshow.slide_type, cell.source) for cell in deck.cells]


def tagged(cell, *tags):
    cell.metadata["tags"] = list(tags)
    return cell


def printing(source, text):
    return new_code_cell(source, outputs=[new_output("stream", name="stdout", text=text)])


def test_a_heading_begins_a_slide_with_the_beginning_of_its_text_and_the_rest_is_in_the_notes():
    text = "The first sentence is long enough to stand alone on a slide, more or less. A second one is for the speaker alone."
    assert slides_of(new_markdown_cell(f"## A part\n\n{text}")) == [
        ("slide", "## A part"), ("-", text.split(" A second")[0]), ("notes", text),
    ]  # fmt: skip


def test_code_shares_the_slide_with_its_heading_and_the_next_code_gets_a_slide_that_names_the_part():
    found = slides_of(new_markdown_cell("## A part"), printing("print(1)", "1\n"), printing("print(2)", "2\n"))
    assert found == [
        ("slide", "## A part"), ("-", "print(1)"), ("subslide", '<p class="tl-part">A part</p>'), ("-", "print(2)"),
    ]  # fmt: skip


def test_a_picture_has_a_slide_of_its_own_with_its_alt_text_its_credit_and_what_it_shows():
    cell = new_code_cell("figure", outputs=[new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})])
    cell.metadata["mystnb"] = {"image": {"alt": "A dot & nothing else"}}
    shows = "It shows one single dot, and whoever looks closely sees no more than that."
    found = slides_of(
        new_markdown_cell("## A part"), cell, new_markdown_cell(f"*Photos: ELPV data set, CC BY-NC-SA 4.0.* {shows} And more.")
    )
    assert [kind for kind, _ in found] == ["slide", "-", "subslide", "-", "-", "-", "notes"]
    assert 'alt="A dot &amp; nothing else"' in found[3][1] and "Photos: ELPV data set, CC BY-NC-SA 4.0." in found[4][1]
    assert found[5][1] == shows


def test_checks_of_numbers_exercises_and_what_is_tagged_are_left_out():
    found = slides_of(
        new_markdown_cell("## A part"),
        tagged(printing("tl.claims.check(1)", "holds"), "nbval-check-output"),
        new_code_cell("assert True"),
        tagged(printing("print(3)", "3"), "slide-skip"),
        new_markdown_cell("## Exercises\n\nThree of them."),
    )
    assert found == [("slide", "## A part")]


def test_each_question_has_a_slide_and_its_answer_is_in_the_notes():
    found = slides_of(
        new_markdown_cell("## Questions\n\nAnswer.\n\n<details>\n<summary>Why?</summary>\n\nBecause.\n\n</details>")
    )
    assert found == [("slide", "## Questions"), ("subslide", "### Why?"), ("notes", "Because.")]


def test_what_only_sphinx_understands_becomes_plain_words():
    text = "See {doc}`03_feature_extraction`: {term}`heads <head>` {cite:p}`A2020` reach [86.6 %](claim:03.accuracy)."
    assert make_slides.plain(text) == "See *Feature extraction*: heads reach 86.6 %."


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_chapter_leaves_markup_of_sphinx_on_a_slide_and_take_aways_are_whole(path):
    notebook = nbformat.read(path, as_version=4)
    deck = make_slides.deck_of(notebook)
    words = [cell.source for cell in deck.cells if cell.cell_type == "markdown"]
    assert not [text for text in words if re.search(r"\{\w+(:\w+)?\}`|\]\((claim|quoted):", text)]
    take_aways = next(cell.source for cell in notebook.cells if cell.source.startswith("## Take-aways"))
    points = re.findall(r"^- ", take_aways, re.M)
    (shown,) = [text for text in words if text.startswith("- ") and len(re.findall(r"^- ", text, re.M)) == len(points)
                and text.split()[1:4] == take_aways.split("- ", 1)[1].split()[:3]]
    assert shown


@pytest.fixture(scope="module")
def chromium():
    lacking = [
        what for what, there in [
            ("no Chromium or Chrome", BROWSER), ("no _build/slides (`make slides` fills it)", (SLIDES / "index.html").is_file())
        ] if not there
    ]
    if lacking:
        (pytest.fail if os.environ.get("TLHELPERS_REQUIRE_BROWSER") else pytest.skip)("; ".join(lacking))
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("stem", [path.stem for path in CHAPTERS])
def test_every_slide_fits_is_large_enough_and_fetches_nothing(chromium, stem):
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto((SLIDES / f"{stem}.html").as_uri())
    page.wait_for_function("window.Reveal && Reveal.isReady() && window.MathJax && MathJax.startup && document.readyState == 'complete'")
    page.evaluate("MathJax.startup.promise")
    slides = page.evaluate("""() => {
        const out = [];
        for (;;) {
            const slide = Reveal.getCurrentSlide(), zoom = Number(slide.style.zoom || 1);
            const bounds = slide.getBoundingClientRect();
            const wide = [...slide.querySelectorAll("pre, img, table, p")].some((part) => part.scrollWidth > part.clientWidth + 2);
            const shows = [...slide.querySelectorAll("h1, h2, h3, img, pre, li, td, p:not(.tl-part)")].some((part) => part.checkVisibility());
            const text = slide.textContent.replace(/\\s+/g, " ").trim().slice(0, 60);
            out.push({ zoom, bottom: bounds.bottom, wide, shows, text });
            if (Reveal.isLastSlide()) return out;
            Reveal.next();
        }
    }""")
    page.close()
    assert not faults
    assert len(slides) > 20
    wrong = [slide for slide in slides if slide["zoom"] < 0.6 or slide["bottom"] > 721 or slide["wide"] or not slide["shows"]]
    assert not wrong, "\n".join(map(str, wrong))
