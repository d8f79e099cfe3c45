"""Of a builder: cells that are too long, runs of code that are too long, numbers that are typed. `python drafts/lint.py 13`"""

import importlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "book" / "_ext"), str(ROOT / "drafts")]

import ledger  # noqa: E402 - its folder is no package

chapter = importlib.import_module(f"ch{sys.argv[1]}")
for name in ("CHAPTER", "SOLUTIONS"):
    cells = getattr(chapter, name)
    for number, cell in enumerate(cells):
        lines = cell.source.splitlines()
        if cell.cell_type == "code" and (len(lines) > 14 or max(map(len, lines)) > 80):
            print(name, number, len(lines), "lines,", max(map(len, lines)), "wide:", lines[0])
        elif cell.cell_type == "markdown" and (typed := ledger.typed_numbers(cell.source)):
            print(name, number, "typed:", typed)
    kinds = "".join(cell.cell_type[0] for cell in cells)
    for found in re.finditer("c{5,}", kinds):
        print(name, "code cells in a row:", found.span(), cells[found.start()].source.splitlines()[0])
    quoted = set(re.findall(r"claim:([\d.a-z_]+)\)", "\n".join(cell.source for cell in chapter.CHAPTER + chapter.SOLUTIONS)))
print("quoted, not defined:", sorted(quoted - chapter.CLAIMS.keys()), "defined, not quoted:", sorted(chapter.CLAIMS.keys() - quoted))
