"""The built pages in _build/html: every link inside the book leads somewhere, every picture is there and has alt text."""

import base64
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

from tlhelpers.claims import read_ledger

HTML = Path(__file__).parents[1] / "_build" / "html"

if not (HTML / "index.html").is_file():
    pytest.skip("the book is not built; `make book` builds it", allow_module_level=True)

PAGES = {
    path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    for path in sorted(HTML.rglob("*.html"))
    if "_static" not in path.parts
}


IDS = {path: {element["id"] for element in page.find_all(id=True)} for path, page in PAGES.items()}
LINKS = [(path, link) for path, page in PAGES.items() for link in page.find_all("a", href=True)]


def article(page):
    return page.select_one("article.bd-article")


def test_the_chapters_are_there():
    for name in ("book/intro", "book/01_what_is_transfer_learning", "notebooks/02_what_a_network_knows",
                 "notebooks/03_feature_extraction", "notebooks/solutions/02_what_a_network_knows",
                 "notebooks/solutions/03_feature_extraction", "book/numbers", "book/glossary", "book/references",
                 "book/reference", "book/command_line"):
        assert HTML / f"{name}.html" in PAGES


def test_every_link_inside_the_book_leads_to_a_page_and_a_place_that_exist():
    broken = []
    for path, link in LINKS:
        parts = urlparse(link["href"])
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.exists() or (parts.fragment and target in IDS and unquote(parts.fragment) not in IDS[target]):
            broken.append(f"{path.name}: {link['href']}")
    assert not broken


def test_external_links_are_well_formed():
    for _, link in LINKS:
        if link["href"].startswith("data:"):  # a sheet that the page holds: it is what it says, and it is saved
            kind, data = link["href"].split(";base64,")
            assert kind == "data:application/pdf" and base64.b64decode(data, validate=True).startswith(b"%PDF-")
            assert link["download"].endswith(".pdf")
            continue
        parts = urlparse(link["href"])
        if parts.scheme not in ("", "mailto", "javascript"):
            assert parts.scheme in ("https", "http") and re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc), link["href"]


def test_every_picture_is_there_and_has_alt_text():
    for path, page in PAGES.items():
        for picture in page.select("article img"):
            within = picture["src"].startswith("data:image/png;base64,")  # a small photo in a notebook's table stands in the page itself
            assert within or (path.parent / unquote(picture["src"])).exists(), f"{path.name}: {picture['src'][:200]}"
            # docutils writes the file's name where no alt text is given
            assert len(picture.get("alt", "")) > 30 and ".png" not in picture["alt"], f"{path.name}: {picture['src'][:200]}"


def test_each_page_has_one_title_and_no_directive_left_unread():
    for path, page in PAGES.items():
        if (body := article(page)) is None:
            continue
        if path.stem not in ("genindex", "search", "index"):
            assert len(body.select("h1")) == 1, path.name
        left = body.find_all(string=re.compile(r":::|```|\{(term|doc|cite:p|exercise|solution)"))
        assert not [text for text in left if not text.find_parent(["pre", "code"])], path.name


CHAPTERS = ("02_what_a_network_knows", "03_feature_extraction")
each_chapter = pytest.mark.parametrize("name", CHAPTERS)


@each_chapter
def test_solutions_are_folded_each_below_its_exercise_and_hold_their_code(name):
    page = article(PAGES[HTML / "notebooks" / "solutions" / f"{name}.html"])
    solutions = page.select("details.solution")
    assert len(solutions) == 3
    for number, solution in enumerate(solutions, start=1):
        section = solution.find_parent("section")
        assert section.h2.get_text().startswith(f"{name[:2]}.{number} ")
        assert solution.select("div.cell_input") and f"{name[:2]}.{number}: right" in solution.get_text()
        # What stands before the fold gives nothing away.
        begins = [cell.get_text() for cell in section.select("div.cell_input") if not cell.find_parent(class_="solution")]
        assert not solution.has_attr("open") and solution.summary.get_text() == "Solution"
        assert len(begins) == 1 and "answer = ..." in begins[0]


@each_chapter
def test_answers_to_the_questions_are_folded(name):
    page = article(PAGES[HTML / "notebooks" / f"{name}.html"])
    answers = page.select("#questions details")
    assert len(answers) >= 3 and not any(answer.has_attr("open") for answer in answers)
    assert all(answer.find("summary") and len(answer.find("p").get_text()) > 40 for answer in answers)


@each_chapter
def test_interactive_figures_are_in_the_page_with_their_state_and_a_still_picture(name):
    page = PAGES[HTML / "notebooks" / f"{name}.html"]
    state = page.find("script", type="application/vnd.jupyter.widget-state+json").string
    views = page.find_all("script", type="application/vnd.jupyter.widget-view+json")
    assert len(views) >= 2
    for view in views:
        assert re.search(r'"model_id": "(\w+)"', view.string)[1] in state
        still = view.find_parent(class_="tl-widget").find_next_sibling(class_="tl-still")
        assert still.find("img")["alt"]


def test_every_number_of_the_ledger_is_on_its_page_and_numbers_in_the_text_lead_there():
    claims = read_ledger(HTML.parents[1] / "book" / "claims.toml")
    blocks = {block["id"]: block for block in PAGES[HTML / "book" / "numbers.html"].select("div.claim-card")}
    assert len(blocks) == len(claims)
    for claim in claims.values():
        text = " ".join(blocks["claim-" + re.sub("[._]", "-", claim.id)].get_text(" ").replace("’", "'").split())
        for part in (claim.id, claim.text, claim.sentence, claim.why, claim.seeds, f"{claim.photos:,}" if claim.photos else ""):
            assert " ".join(part.split()) in text, claim.id
        assert re.search(r"checked .+ last on \d{4}-\d\d-\d\d", text), claim.id
    links = [(path, link) for path, link in LINKS if "claim" in link.get("class", [])]
    assert len(links) > len(claims)
    for path, link in links:
        target = urlparse(link["href"])
        assert target.path.endswith("numbers.html") or path.stem == "numbers"
        assert blocks[target.fragment].select_one(".claim-value").get_text() == link.get_text(), link
    quoted = [link for _, link in LINKS if "quoted" in link.get("class", [])]
    assert quoted and all("references.html#" in link["href"] for link in quoted)


def test_each_entry_of_the_reference_leads_to_a_chapter_and_the_chapters_that_use_it_lead_back():
    page = PAGES[HTML / "book" / "reference.html"]
    entries = {
        term["id"]: term.find_parent("dl") for term in page.select("dl.py > dt.sig[id]")
        if term.find_parent("dl").parent.find_parent("dl") is None and "data" not in term.find_parent("dl")["class"]
    }
    assert len(entries) > 40
    for name, entry in entries.items():
        if name != "tlhelpers.Card":
            assert "Explained in chapter" in entry.get_text() and entry.select('a[href*="notebooks/"]'), name
    back = {
        (path.stem, urlparse(link["href"]).fragment)
        for path, chapter in PAGES.items() for link in chapter.select("div.tl-names a[href]")
    }
    forth = set()
    for name, entry in entries.items():
        for paragraph in entry.find_all("p"):
            if paragraph.get_text().startswith("Used in"):
                forth |= {(Path(urlparse(link["href"]).path).stem, name) for link in paragraph.select("a")}
    constants = {pair for pair in back if pair[1].split(".")[-1].isupper()}
    assert len(forth) > 40 and forth == back - constants


def test_notebooks_have_buttons_for_colab_and_binder_if_the_repository_has_an_address_and_other_pages_have_none():
    import yaml

    address = yaml.safe_load((HTML.parents[1] / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    for path, page in PAGES.items():
        links = page.select('a[href*="colab.research"], a[href*="mybinder.org"]')
        assert bool(links) == bool(address and path.parent.name in ("notebooks", "solutions")), path.name
