"""The offline book in a real browser: served and over file://, on a desktop and a phone, light and dark.

Chromium (or Chrome) is the system's; TLHELPERS_BROWSER names another one. Where there is none, or no offline
book, these tests are skipped; with TLHELPERS_REQUIRE_BROWSER set they fail instead.
Of a page with a fault, a picture is kept in _build/screenshots; with TLHELPERS_SCREENSHOTS set, of every page.
"""

import os
import shutil
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Error, TimeoutError, sync_playwright

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "offline"
SCREENSHOTS = ROOT / "_build" / "screenshots"
ALL_SCREENSHOTS = bool(os.environ.get("TLHELPERS_SCREENSHOTS"))
AXE = ROOT / "book" / "web" / "node_modules" / "axe-core" / "axe.min.js"
IN_PAGE = Path(__file__).with_name("browser.js")
BROWSER = os.environ.get("TLHELPERS_BROWSER") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

WIDTHS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
# Two visits of a page; each turns it to the other mode before it leaves, so that both modes are seen at both widths.
TOURS = [("http", "desktop", "light"), ("file", "phone", "dark")]

# Faults of the theme and of html-manager that axe-core finds: rule, elements, reason. One that matches nothing any more
# fails a test, so that this list stays true. What is ours is mended, never listed.
KNOWN = [
    ("aria-required-children", ".citation-list[role=list]",
     "docutils gives the entries of a list of references a role of their own (doc-biblioentry), which is no list item"),
]

PAGES = sorted(
    path.relative_to(BOOK).as_posix() for path in BOOK.rglob("*.html")
    if "_static" not in path.parts and path != BOOK / "index.html"  # which leads on to the first page
)
SOURCES = {page: BeautifulSoup((BOOK / page).read_text(encoding="utf-8"), "html.parser") for page in PAGES}


@dataclass
class Visit:
    """One page, opened once; what is wrong with it, by kind."""

    page: str
    served: str
    width: str
    mode: str
    faults: dict = field(default_factory=lambda: defaultdict(list))
    known: set = field(default_factory=set)  # those of KNOWN that were met

    def __str__(self):
        return f"{self.page} ({self.served}, {self.width}, {self.mode})"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path == "/favicon.ico":  # no page names it: Chromium asks every server
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def chromium():
    lacking = [
        what for what, there in [
            ("no Chromium or Chrome on the PATH (TLHELPERS_BROWSER can name one)", BROWSER),
            (f"no {BOOK.relative_to(ROOT)} (`make book-offline` builds it)", PAGES),
            (f"no {AXE.relative_to(ROOT)} (`make book-offline` brings it)", AXE.is_file()),
        ] if not there
    ]
    if lacking:
        (pytest.fail if os.environ.get("TLHELPERS_REQUIRE_BROWSER") else pytest.skip)("; ".join(lacking))
    with browser() as chromium:
        yield chromium


@contextmanager
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=[
            "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a request to another host fails at once
        ])


@pytest.fixture(scope="module")
def addresses(chromium, tmp_path_factory):
    """Where the book is: on a web server, below its root; and on a stick, its folder renamed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=BOOK.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stick = tmp_path_factory.mktemp("stick") / "Büch 2"
    shutil.copytree(BOOK, stick)
    yield {"http": f"http://127.0.0.1:{server.server_port}/{BOOK.name}", "file": stick.as_uri()}
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def visits(chromium, addresses):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for old in SCREENSHOTS.iterdir():
        old.unlink()
    with ThreadPoolExecutor(2) as pool:
        return [visit for visits in pool.map(partial(tour, addresses), TOURS) for visit in visits]


def tour(addresses, how):
    """Every page, visited in one way, in a browser of its own: Playwright's belong to one thread each."""
    visits = [Visit(page, *how) for page in PAGES]
    served, width, mode = how
    with browser() as chromium, chromium.new_context(
        viewport=WIDTHS[width], color_scheme=mode, reduced_motion="reduce"
    ) as context:
        for visit in visits:
            look_at(context.new_page(), visit, addresses[served])
    return visits


def look_at(tab, visit, address):
    """Open a page and use it as a reader would; faults go into `visit`."""
    faults = visit.faults
    listen(tab, faults, address)
    tab.goto(f"{address}/{visit.page}")
    checks = [mode, rendered, formulas, sideways, figures, folded, sideways, stills, thinned, accessibility, keyboard, other_mode]
    tab.add_script_tag(path=IN_PAGE)
    if ALL_SCREENSHOTS:
        screenshot(tab, visit)
    for check in checks:
        try:
            faults[check.__name__] += check(tab, visit)
        except (Error, NotImplementedError) as error:
            faults[check.__name__].append(str(error))
    if any(faults.values()) and not ALL_SCREENSHOTS:
        screenshot(tab, visit)
    tab.close()


def listen(tab, faults, address):
    """Errors in the console and in scripts; requests that fail or leave the book."""
    faults["console"], faults["requests"] = [], []
    tab.on("console", lambda message: message.type == "error" and faults["console"].append(message.text))
    tab.on("pageerror", lambda error: faults["console"].append(f"{error.name}: {error.message}"))
    tab.on("requestfailed", lambda request: faults["requests"].append(f"{request.url} failed: {request.failure}"))
    tab.on("response", lambda answer: answer.status < 400
           or faults["requests"].append(f"{answer.url}: {answer.status}"))
    tab.on("request", lambda request: request.url.startswith((address, "data:", "blob:"))
           or faults["requests"].append(f"{request.url} is not in the book"))


def mode(tab, visit):
    theme = tab.evaluate("document.documentElement.dataset.theme")
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(","))) / 3
    right = theme == visit.mode and (brightness < 64 if visit.mode == "dark" else brightness > 192)
    return [] if right else [f"theme {theme}, background {background}"]


def rendered(tab, visit):
    """Every interactive figure of the page's source shows a picture."""
    expected = len(SOURCES[visit.page].select('script[type="application/vnd.jupyter.widget-view+json"]'))
    tab.wait_for_function(
        "n => [...document.querySelectorAll('.widget-subarea')].filter(figure => tl.pictures(figure)).length === n",
        arg=expected, timeout=10_000,
    )
    return []


def figures(tab, visit):
    """Each control of an interactive figure, moved by keyboard, changes the picture at every step."""
    faults = []
    find = "[role=slider], select, input, .widget-toggle-buttons, button:not(.widget-toggle-buttons *)"
    for number, figure in enumerate(tab.query_selector_all(".widget-subarea"), 1):
        # What needs a kernel is not shown.
        controls = [control for control in figure.query_selector_all(find) if control.evaluate("tl.visible")]
        if not controls:
            faults.append(f"figure {number} has no control")
        for control in controls:
            name = f"figure {number}, {control.evaluate('tl.describe')}"
            for element, key in keys(control):
                before, alt = figure.evaluate("figure => [tl.pictures(figure), tl.alts(figure)]")
                element.press(key)
                try:
                    tab.wait_for_function(
                        "([figure, before]) => tl.pictures(figure) !== before", arg=[figure, before], timeout=2000,
                    )
                except TimeoutError:
                    faults.append(f"{name}: {key} leaves the picture as it was")
                    break
                if figure.evaluate("tl.alts") == alt:
                    faults.append(f"{name}: {key} changes the picture, but not its alt text '{alt}'")
                    break
    return faults


def keys(control):
    """Elements and keys that take a control of an interactive figure through all it can show."""
    kind = control.evaluate("control => control.role || control.type || control.localName")
    if kind == "slider":
        first, last, now = (float(control.get_attribute(f"aria-value{name}")) for name in ("min", "max", "now"))
        if now > first:
            yield control, "Home"
        while float(control.get_attribute("aria-valuenow")) < last:
            yield control, "ArrowRight"
    elif kind == "select-one":
        if control.evaluate("menu => menu.selectedIndex"):
            yield control, "Home"
        for _ in range(control.evaluate("menu => menu.length") - 1):
            yield control, "ArrowDown"
    elif kind == "checkbox" or "widget-toggle-button" in (control.get_attribute("class") or "").split():
        yield control, "Space"
        yield control, "Space"
    elif "widget-toggle-buttons" in (control.get_attribute("class") or "").split():
        first, *others = control.query_selector_all("button")
        if "mod-active" not in first.get_attribute("class"):
            yield first, "Enter"
        yield from ((button, "Enter") for button in others)
    else:
        raise NotImplementedError(f"{control.evaluate('tl.describe')}: this test does not know how to use a {kind}")


def formulas(tab, visit):
    """MathJax has set every formula, and found nothing in it that it does not know."""
    if not SOURCES[visit.page].select(".math"):
        return []
    tab.evaluate("MathJax.startup.promise")
    return tab.evaluate("""[...document.querySelectorAll("article .math")].filter(formula =>
        !formula.querySelector("mjx-container") || formula.querySelector("mjx-merror, mjx-mtext[style*=red]")
    ).map(tl.describe)""")


def sideways(tab, visit):
    return tab.evaluate("tl.outOfReach()")


def screenshot(tab, visit):
    """A picture of the whole page (a PNG would take twice the time), or of its first 20,000 pixels: JPEG ends at 65,535."""
    name = visit.page.removesuffix(".html").replace("/", "-")
    width, height = tab.evaluate("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
    with suppress(Error):  # for eyes only: what is wrong with the page is said without it
        tab.screenshot(
            path=SCREENSHOTS / f"{name}-{visit.width}-{visit.mode}.jpg", full_page=True, quality=80,
            clip={"x": 0, "y": 0, "width": width, "height": min(height, 20_000)},
        )


def folded(tab, visit):
    """Solutions and answers are folded; a click unfolds and folds them, and so does Enter. They stay unfolded."""
    content = """button => [...document.getElementById(button.dataset.target).children]
        .find(child => !child.classList.contains("admonition-title"))"""
    folds = [(button, button.evaluate_handle(content))
             for button in tab.query_selector_all("article button.toggle-button")]
    folds += [(summary, summary.evaluate_handle("summary => summary.nextElementSibling"))
              for summary in tab.query_selector_all("article details > summary")]
    faults = []
    for button, hidden in folds:
        name, seen = button.evaluate("tl.describe"), partial(hidden.evaluate, "tl.visible")
        states = [seen()]
        for act in (button.click, button.click, partial(button.press, "Enter")):
            act()
            states.append(seen())
        if states != [False, True, False, True]:
            faults.append(f"{name}: seen before, after a click, a second click, Enter: {states}")
    expected = len(SOURCES[visit.page].select("article .admonition.dropdown, article .toggle, article details"))
    if len(folds) != expected:
        faults.append(f"{expected} in the page's source, {len(folds)} in the browser")
    return faults


def stills(tab, visit):
    """Each interactive figure has a still picture, on paper only."""
    find = """[...document.querySelectorAll(".widget-subarea")].map(figure => {
        const still = figure.closest(".cell").querySelector(".tl-still");
        return still && { visible: tl.visible(still), alt: (still.querySelector("img") ?? still).alt };
    })"""
    screen = tab.evaluate(find)
    tab.emulate_media(media="print")
    paper = tab.evaluate(find)
    tab.emulate_media(media="screen")
    faults = []
    for number, (here, there) in enumerate(zip(screen, paper), 1):
        if not here:
            faults.append(f"figure {number} has none")
        elif here["visible"] or not there["visible"]:
            faults.append(f"figure {number}: shown on the screen {here['visible']}, on paper {there['visible']}")
        elif not here["alt"]:
            faults.append(f"figure {number}: no alt text")
    return faults


def thinned(tab, visit):
    """Twenty of a make stand for all from here on: cards on the page of numbers, known by their elements, which are more than a
    thousand; and the pieces that code is coloured in, known by their class, which are five sixths of a chapter's elements."""
    tab.evaluate("""() => {
        const seen = {};
        const more = (make) => (seen[make] = (seen[make] ?? 0) + 1) > 20;
        for (const card of document.querySelectorAll(".claim-card")) {
            const parts = [...card.querySelectorAll("*")].map(({ localName, className }) => localName + "." + className);
            if (more([...new Set(parts)].sort())) card.remove();
        }
        for (const piece of document.querySelectorAll(".highlight pre span")) {
            if (more("code." + piece.className)) piece.replaceWith(...piece.childNodes);
        }
    }""")
    return []


def accessibility(tab, visit):
    """Serious faults that axe-core finds, by all its rules. (One of them fetches style sheets, which no script may over file://.)"""
    tab.add_script_tag(path=AXE)
    return axe(tab, visit, {"preload": visit.served == "http"})


def axe(tab, visit, options):
    found = tab.evaluate("([known, options]) => tl.axeFaults(known, options)", [[[rule, selector] for rule, selector, _ in KNOWN], options])
    visit.known |= {KNOWN[place] for place in found["met"]}
    return found["faults"]


def other_mode(tab, visit):
    """The reader's system turns from light to dark, or back, and the page with it; of axe's rules, contrast alone can change by that."""
    turned = replace(visit, mode={"light": "dark", "dark": "light"}[visit.mode])
    tab.emulate_media(color_scheme=turned.mode)
    tab.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=turned.mode)
    return mode(tab, turned) + axe(tab, visit, {"runOnly": ["color-contrast"]})


def keyboard(tab, visit):
    """Tab reaches all that can be used, and shows where it is: on the first page from the top, on others from where "Skip to main
    content" leads, as the links to every page that stand before it are the same."""
    start = None if visit.page == PAGES[0] else "#main-content"
    left = 2 * tab.evaluate("tl.watchFocus", start) + 50  # boxes that scroll take the focus, too
    if start:
        tab.locator(f'a[href="{start}"]').first.press("Enter")
    while left and (left % 20 or tab.evaluate("tl.missed()")):
        tab.keyboard.press("Tab")
        left -= 1
    return tab.evaluate("tl.focusFaults()")


def report(visits, kind):
    seen = [visit for visit in visits if kind in visit.faults]
    assert {visit.page for visit in seen} == set(PAGES)
    faults = list(dict.fromkeys(f"{visit}: {fault}" for visit in seen for fault in visit.faults[kind]))
    assert not faults, "\n" + "\n".join(faults)


def test_no_page_logs_an_error(visits):
    report(visits, "console")


def test_every_request_stays_in_the_book_and_is_answered(visits):
    report(visits, "requests")


def test_light_is_light_and_dark_is_dark(visits):
    report(visits, "mode")


def test_every_interactive_figure_is_shown(visits):
    report(visits, "rendered")
    assert any(page.select('script[type="application/vnd.jupyter.widget-view+json"]') for page in SOURCES.values())


def test_every_control_of_every_interactive_figure_changes_its_picture_by_keyboard(visits):
    report(visits, "figures")


def test_every_interactive_figure_has_a_still_picture_on_paper(visits):
    report(visits, "stills")


def test_every_formula_is_set(visits):
    report(visits, "formulas")


def test_nothing_stands_where_no_reader_gets(visits):
    report(visits, "sideways")


def test_solutions_unfold_by_mouse_and_by_keyboard(visits):
    report(visits, "folded")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(visits):
    report(visits, "keyboard")


def test_the_page_turns_to_the_other_mode_and_keeps_its_contrast(visits):
    report(visits, "other_mode")


def test_axe_finds_no_serious_fault_in_what_is_ours(visits):
    report(visits, "accessibility")


def test_every_fault_listed_as_the_themes_is_still_there(visits):
    met = set().union(*(visit.known for visit in visits))
    assert not [fault for fault in KNOWN if fault not in met]


@pytest.mark.parametrize("served", ["http", "file"])
def test_the_first_page_leads_on_to_the_introduction(chromium, addresses, served):
    with chromium.new_context() as context:
        tab = context.new_page()
        tab.goto(f"{addresses[served]}/index.html")
        tab.wait_for_url("**/book/intro.html")


@pytest.mark.parametrize("served", ["http", "file"])
def test_search_finds_a_word_and_leads_to_it(chromium, addresses, served):
    with chromium.new_context() as context:
        tab = context.new_page()
        tab.goto(f"{addresses[served]}/{PAGES[0]}")
        tab.keyboard.press("Control+k")
        tab.keyboard.type("transfer learning")
        tab.keyboard.press("Enter")
        tab.wait_for_url("**/search.html?q=transfer+learning")
        results = tab.locator("#search-results li a")
        tab.get_by_text("Search finished").wait_for()  # they come one by one
        found = {unquote(urlparse(link.evaluate("link => link.href")).path) for link in results.all()}
        root = unquote(urlparse(addresses[served]).path)
        assert f"{root}/book/intro.html" in found
        assert all((BOOK / Path(page).relative_to(root)).is_file() for page in found)
        results.first.click()
        tab.locator("article mark, article .highlighted").first.wait_for()

        tab.goto(f"{addresses[served]}/search.html?q=nosuchword")
        tab.get_by_text("did not match any documents").wait_for()


def test_on_a_phone_the_contents_open_by_keyboard(chromium, addresses):
    with chromium.new_context(viewport=WIDTHS["phone"]) as context:
        tab = context.new_page()
        tab.goto(f"{addresses['http']}/{PAGES[0]}")
        link = tab.locator(".bd-sidebar-primary nav a").last
        assert not link.is_visible()
        tab.locator("button.primary-toggle").press("Enter")
        link.wait_for()
        link.press("Enter")
        tab.wait_for_url(lambda url: not url.endswith(PAGES[0]))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_number_in_the_text_leads_to_its_place_among_all_numbers(chromium, addresses, width):
    with chromium.new_context(viewport=WIDTHS[width]) as context:
        tab = context.new_page()
        tab.goto(f"{addresses['http']}/notebooks/16_trap_lab.html")
        link = tab.locator("a.claim").last
        number = link.inner_text()
        link.click()
        tab.wait_for_url("**/numbers.html#claim-*")
        tab.wait_for_function("""() => {
            const card = document.querySelector(":target")?.getBoundingClientRect();
            return card && card.top >= 0 && card.bottom <= innerHeight;
        }""")
        assert tab.locator(":target .claim-value").inner_text() == number
