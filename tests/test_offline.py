"""The built pages in _build/offline: whatever they load is in the folder."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from bs4 import BeautifulSoup

BOOK = Path(__file__).parents[1] / "_build" / "offline"

if not (BOOK / "index.html").is_file():
    pytest.skip("the offline book is not built; `make book-offline` builds it", allow_module_level=True)

PAGES = {
    path.relative_to(BOOK): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    for path in sorted(BOOK.rglob("*.html")) if "_static" not in path.parts
}


def test_scripts_styles_and_pictures_are_in_the_folder():
    absent = []
    for name, page in PAGES.items():
        for tag in page.select("script[src], link[href], img[src], iframe[src], source[src], video[src], audio[src]"):
            target = urlparse(tag.get("src") or tag["href"])
            if target.scheme == "data":
                continue
            if target.scheme or target.netloc or not (BOOK / name.parent / unquote(target.path)).exists():
                absent.append(f"{name}: {target.geturl()}")
    assert not absent


def test_no_script_in_a_page_names_another_host():
    named = [
        f"{name}: {script.string.strip()[:100]}"
        for name, page in PAGES.items() for script in page.select("script:not([src], [type])")
        if re.search("https?://", script.string or "")
    ]
    assert not named


def test_the_licences_of_the_packages_are_in_the_folder():
    for name in ("LICENSE", "embed.js.LICENSE.txt", "icons/LICENSE.txt"):
        assert (BOOK / "web" / "html-manager" / name).stat().st_size > 500, name
    assert (BOOK / "web" / "mathjax" / "LICENSE").stat().st_size > 500
