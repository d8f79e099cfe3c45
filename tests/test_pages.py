"""The built pages in _build/html: every link inside the book leads somewhere, every picture is there and has alt text."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

HTML = Path(__file__).parents[1] / "_build" / "html"

if not (HTML / "index.html").is_file():
    pytest.skip("the book is not built; `make book` builds it", allow_module_level=True)

PAGES = {
    path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    for path in sorted(HTML.rglob("*.html"))
    if "_static" not in path.parts
}


def article(page):
    return page.select_one("article.bd-article")


def test_the_chapters_are_there():
    for name in ("book/intro", "book/01_what_is_transfer_learning", "notebooks/02_what_a_network_knows",
                 "notebooks/03_feature_extraction", "book/glossary", "book/references"):
        assert HTML / f"{name}.html" in PAGES


def test_every_link_inside_the_book_leads_to_a_page_and_a_place_that_exist():
    broken = []
    for path, page in PAGES.items():
        for link in page.select("a[href]"):
            parts = urlparse(link["href"])
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link['href']}")
            elif parts.fragment and target in PAGES and not PAGES[target].find(id=unquote(parts.fragment)):
                broken.append(f"{path.name}: {link['href']}")
    assert not broken


def test_external_links_are_well_formed():
    for path, page in PAGES.items():
        for link in page.select("a[href]"):
            parts = urlparse(link["href"])
            if parts.scheme not in ("", "mailto", "javascript"):
                assert parts.scheme in ("https", "http") and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link["href"]


def test_every_picture_is_there_and_has_alt_text():
    for path, page in PAGES.items():
        for picture in page.select("article img"):
            assert (path.parent / unquote(picture["src"])).exists(), f"{path.name}: {picture['src']}"
            # docutils writes the file's name where no alt text is given
            assert len(picture.get("alt", "")) > 30 and ".png" not in picture["alt"], f"{path.name}: {picture['src']}"


def test_each_page_has_one_title_and_no_directive_left_unread():
    for path, page in PAGES.items():
        if (body := article(page)) is None:
            continue
        if path.stem not in ("genindex", "search", "index"):
            assert len(body.select("h1")) == 1, path.name
        for code in body.select("pre, code"):
            code.extract()
        assert not re.search(r":::|```|\{(term|doc|cite:p|exercise|solution)", body.get_text()), path.name


def test_solutions_are_folded_and_hold_their_code():
    for name in ("02_what_a_network_knows", "03_feature_extraction"):
        page = PAGES[HTML / "notebooks" / f"{name}.html"]
        solutions = page.select("div.solution.dropdown")
        assert len(solutions) == 3
        assert all(solution.select("div.cell_input") for solution in solutions)


def test_the_interactive_figure_is_in_the_page_with_its_state():
    page = PAGES[HTML / "notebooks" / "02_what_a_network_knows.html"]
    assert page.find("script", type="application/vnd.jupyter.widget-state+json")
    assert page.find("script", type="application/vnd.jupyter.widget-view+json")
