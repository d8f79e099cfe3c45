"""Where the book quotes its numbers, where it checks them, and which numbers it types by hand.

`make claims` runs this file: it writes each quoted number anew from `book/claims.toml`. The tests and the page "Every
number in this book" use its functions.
"""

import json
import re
import sys
from collections import namedtuple
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).parents[2]

Prose = namedtuple("Prose", "path cell heading text")  # cell: its number, None in Markdown files; heading: the last one
Check = namedtuple("Check", "path cell heading id text")  # text: the number that "holds", None if the cell never said so

CLAIM = re.compile(r"\[([^\]\[]*)\]\(claim:([^)\s]*)\)")
QUOTED = re.compile(r"\[([^\]\[]*)\]\(quoted:([^)\s]*)\)")
CALL = re.compile(r"""claims\.check\(\s*["']([^"']*)["']""")
HOLDS = re.compile(r"^(\S+): (.+) holds$", re.M)

# The level of the intervals is a convention, not a measurement.
_LEVEL = re.compile(r"95 (?:%|per cent)(?=\s+(?:confidence )?(?:intervals?\b|\{term\}`intervals?`))")
_FENCE = re.compile(r"^(`{3,})(?!\{).*?^\1`*$", re.M | re.S)
_CODE = re.compile(r"(\{[\w:,.-]+\}`[^`]*`)|(`+)(?!`)(?:(?!\n\n).)+?(?<!`)\2(?!`)", re.S)  # a role with its text, or code
_HIDDEN = (  # what else no reader reads as prose: directives' options, roles, formulas, targets of links, tags of HTML
    re.compile(r"^`{3,}\{.*$|^:(?!alt:)\w+:.*$|^:{3,}.*$", re.M),
    re.compile(r"\{(?:cite|doc|ref|numref|eq)[^}]*\}`[^`]*`"),
    re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.S),
    re.compile(r"(?<=\])\([^)\s]*\)"),
    re.compile(r"<[a-zA-Z/!][^>]*>", re.S),
)
_NUMBER = r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\w])"
_TYPED = (
    re.compile(rf"{_NUMBER}(?:(?:,| and| or| to|–) {_NUMBER})* ?(?:%|per ?cent\b|(?:percentage )?points\b)"),
    # next to the word accuracy: at most three words between, in one sentence
    re.compile(rf"\baccurac(?:y|ies)\b:?(?:[ \n]+[^\s.;:]+){{0,3}}?[ \n]+{_NUMBER}", re.I),
    re.compile(rf"{_NUMBER}(?:[ \n]+[^\s.;:]+){{0,3}}?[ \n]+accurac(?:y|ies)\b", re.I),
)


def sources(root=ROOT):
    """Every file with prose that readers of the book see, and the texts that lead to it."""
    return [*sorted((root / "book").glob("*.md")), *notebooks(root), root / "README.md", root / "CONTRIBUTING.md"]


def notebooks(root=ROOT):
    """Chapters to run, and the exercises with their solutions; not the students' notebooks, which are made from those."""
    return [path for folder in ("", "solutions") for path in sorted((root / "notebooks" / folder).glob("*.ipynb"))]


def cells(path):
    """(number, last heading above, cell, its source) for each cell of a notebook."""
    heading = ""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and (found := re.findall(r"^#+ +(.+)$", text, re.M)):
            heading = found[-1]
        yield number, heading, cell, text


def prose(root=ROOT):
    """Each piece of prose: a Markdown file, a cell of Markdown in a notebook, the alt text of a figure."""
    for path in sources(root):
        if path.suffix == ".md":
            yield Prose(path, None, "", path.read_text(encoding="utf-8"))
            continue
        for number, heading, cell, text in cells(path):
            if cell["cell_type"] == "markdown":
                yield Prose(path, number, heading, text)
            elif alt := cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"):
                yield Prose(path, number, heading, alt)


def checks(root=ROOT):
    """Each number that a notebook checks, with what its cell printed when it was run last."""
    for path in notebooks(root):
        for number, heading, cell, text in cells(path):
            if cell["cell_type"] == "code" and "claims.check(" in text:
                printed = dict(HOLDS.findall("".join("".join(output.get("text", "")) for output in cell["outputs"])))
                for id in dict.fromkeys([*CALL.findall(text), *printed]):
                    yield Check(path, number, heading, id, printed.get(id))


def quoted(text, link=CLAIM):
    """(text, target) of each link to the ledger, or to a reference with link=QUOTED; examples in code are none."""
    return link.findall(_without_code(text))


def _without_code(text):
    return _CODE.sub(lambda match: match[1] or "", _FENCE.sub("", text))


def typed_numbers(text):
    """Numbers that stand in a text by hand although they look measured: per cents, points, and those beside 'accuracy'."""
    text = _LEVEL.sub("", QUOTED.sub("", CLAIM.sub("", _without_code(text))))
    for pattern in _HIDDEN:
        text = pattern.sub("", text)
    return [match.group() for pattern in _TYPED for match in pattern.finditer(text)]


def rewrite(text, claims):
    """The text with each quoted number as the ledger has it. An unknown id stays as it is; a test finds it."""
    return CLAIM.sub(lambda m: f"[{claims[m[2]].text}](claim:{m[2]})" if m[2] in claims else m[0], text)


def main(root=ROOT):
    from tlhelpers.claims import read_ledger

    claims = read_ledger(root / "book" / "claims.toml")
    for path in sources(root):
        before = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            after = rewrite(before, claims)
        else:
            notebook = json.loads(before)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = rewrite("".join(cell["source"]), claims).splitlines(keepends=True)
            after = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            if json.loads(after) == json.loads(before):
                continue
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(path.relative_to(root))
    unknown = [(piece, id) for piece in prose(root) for _, id in quoted(piece.text) if id not in claims]
    for piece, id in unknown:
        near = ", ".join(get_close_matches(id, claims)) or "none is like it"
        place = piece.path.relative_to(root), f", cell {piece.cell}" if piece.cell is not None else ""
        print("{}{}: there is no claim {!r}; did you mean: {}".format(*place, id, near), file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
