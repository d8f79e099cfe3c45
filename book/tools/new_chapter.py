"""Begin a chapter to run from the template: `make chapter NUMBER=04 NAME=similar_photos TITLE="What does similar mean?"`.

It copies the notebooks of book/_template/, puts the chapter's number in place of 00 and its name in place of the template's, adds
the template's numbers to the ledger and its exercise to the key, and the chapter to the table of contents. CONTRIBUTING.md
says how to go on.
"""

import argparse
import json
import re
from pathlib import Path

import make_exercises

ROOT = Path(__file__).parents[2]


def new_chapter(number, name, title, root=ROOT):
    stem = f"{number}_{name}"
    if not re.fullmatch(r"\d\d", number) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SystemExit(f"{stem!r}: the number has two digits, the name small letters, digits and underscores")
    if taken := [*(root / "notebooks").glob(f"{number}_*"), *(root / "book").glob(f"{number}_*")]:
        raise SystemExit(f"chapter {number} is there: {taken[0].relative_to(root)}")

    def adapted(file):
        text = (root / "book" / "_template" / file).read_text(encoding="utf-8")
        text = re.sub(r"(?<![\d,])00\.", f"{number}.", text.replace("00_template", stem))
        escaped = json.dumps(title, ensure_ascii=False)[1:-1]
        text = text.replace("Title of the chapter", escaped)
        return text.replace("title of the chapter", escaped[:1].lower() + escaped[1:])

    (root / "notebooks" / f"{stem}.ipynb").write_text(adapted("chapter.ipynb"), encoding="utf-8")
    (root / "notebooks" / "solutions" / f"{stem}.ipynb").write_text(adapted("solution.ipynb"), encoding="utf-8")
    for file, target in (("claims.toml", "book/claims.toml"), ("exercises.toml", "tlhelpers/exercises.toml")):
        with open(root / target, "a", encoding="utf-8") as out:
            out.write(adapted(file))
    toc = root / "_toc.yml"
    entry = f"      - file: notebooks/{stem}\n        sections:\n          - file: notebooks/solutions/{stem}\n"
    text = toc.read_text(encoding="utf-8")
    before = "  - caption: Use it\n"
    if before not in text:
        raise SystemExit(f"_toc.yml has no part 'Use it' any more; add these lines where the chapter belongs:\n{entry}")
    toc.write_text(text.replace(before, entry + before), encoding="utf-8")
    make_exercises.main(root)
    return stem


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("number", "name", "title"):
        arguments.add_argument(name)
    stem = new_chapter(**vars(arguments.parse_args()))
    print(f"notebooks/{stem}.ipynb and notebooks/solutions/{stem}.ipynb are there. Edit them, then:\n"
          f"make notebooks NOTEBOOKS='notebooks/{stem}.ipynb notebooks/solutions/{stem}.ipynb'\nmake claims")
