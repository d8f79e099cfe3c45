"""Try a drafted chapter: build it, run it, and hold it against the book's own tests, in a temporary copy of the clone.

    python drafts/run.py 11                  with invented tables (drafts/mkfake.py); --seed N for others
    python drafts/run.py 11 --real           with the tables that stand in experiments/results
    python drafts/run.py 11 --keep FOLDER    keeps the copy, with the notebooks as they ran, and the figures beside it
    python drafts/run.py 11 --real --write   puts notebooks, claims and exercises into this clone; `_toc.yml` is left to you

The first run records what the cells measure and what the solutions answer; ledger and key are made from that, and the second run is
checked against them as the book's are: nothing is compared with itself within one run.
"""

import argparse
import base64
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "drafts"), str(ROOT)]

RECORD_CLAIM = '''

def check(id, value):
    import json, os
    value = value.item() if hasattr(value, "item") else value
    with open(os.environ["DRAFT_RECORD"], "a") as file:
        file.write(json.dumps(["claim", id, float(value)]) + "\\n")
'''
RECORD_ANSWER = '''

def check(id, answer=None):
    import json, os
    if answer is None or answer is Ellipsis:
        return Verdict("to begin")
    def plain(value):
        if isinstance(value, dict):
            return {str(key): plain(each) for key, each in value.items()}
        if hasattr(value, "tolist"):
            value = value.tolist()
        return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value
    first = id not in _SEEN
    _SEEN.add(id)
    with open(os.environ["DRAFT_RECORD"], "a") as file:
        file.write(json.dumps(["answer", id, plain(answer)]) + "\\n")
    verdict = Verdict("recorded")
    verdict.right = first
    return verdict

_SEEN = set()
'''


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(float(f"{value:.7g}"))
    return json.dumps(value, ensure_ascii=False)


def tolerance_of(fields, value):
    """Of a number read from a table: a tenth of the last digit shown, and never so much that nearly any number would hold."""
    if float(value).is_integer() and not fields.get("digits") and fields.get("unit", "") == "":
        return 0
    shown = 0.1 * 10.0 ** -fields.get("digits", 0) / (100 if fields.get("unit") == "%" else 1)
    return float(f"{min(shown, abs(value) / 4):.2g}")


def claims_text(chapter, measured):
    """Entries of the ledger, and what is wrong between the builder's list and the cells."""
    wrong = [f"{id}: defined, and no cell checks it" for id in chapter.CLAIMS if id not in measured]
    wrong += [f"{id}: checked, and not defined in CLAIMS" for id in measured if id not in chapter.CLAIMS]
    blocks = []
    for id, value in measured.items():
        if id not in chapter.CLAIMS:
            continue
        fields = dict(chapter.CLAIMS[id])
        entry = {"sentence": fields.pop("sentence"), "value": int(value) if value.is_integer() else float(f"{value:.7g}")}
        entry["tolerance"] = fields.pop("tolerance", None)
        if entry["tolerance"] is None:
            entry["tolerance"] = tolerance_of(fields, value)
        entry |= {"why": fields.pop("why", "read from the table of the experiment: the same on every machine")} | fields
        blocks.append(f'["{id}"]\n' + "\n".join(f"{key} = {toml(each)}" for key, each in entry.items()))
    return "\n\n".join(blocks), wrong


def key_text(chapter, answers):
    blocks, wrong = [], []
    for id, fields in chapter.EXERCISES.items():
        right, *mistakes = answers.get(id, [None])
        if right is None or len(mistakes) != len(fields["wrong"]):
            wrong.append(f"{id}: {len(mistakes)} mistakes made, {len(fields['wrong'])} hints; each needs its own, and a right answer first")
            continue
        lines = [f'["{id}"]', f"title = {toml(fields['title'])}", f"begin = {toml(fields['begin'])}", f"answer = {toml(right)}"]
        if "tolerance" in fields:
            lines.append(f"tolerance = {toml(fields['tolerance'])}")
        lines += [f"hint = {toml(fields['hint'])}", "wrong = ["]
        lines += [f"    {{ answer = {toml(each)}, hint = {toml(hint)} }}," for each, hint in zip(mistakes, fields["wrong"], strict=True)]
        blocks.append("\n".join([*lines, "]"]))
    return "\n\n".join(blocks), wrong


def without(text, number):
    """A file of TOML without the entries of a chapter."""
    return re.sub(rf'^\["{number}\..*?(?=^\["|\Z)', "", text, flags=re.M | re.S).rstrip() + "\n"


def call(copy, *command, **more):
    environment = os.environ | {"PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3"} | more
    environment.setdefault("TLHELPERS_CACHE", str(copy / "cache"))
    done = subprocess.run([sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def figures(copy, name):
    out = copy / "figures"
    out.mkdir(exist_ok=True)
    for number, cell in enumerate(nbformat.read(copy / "notebooks" / f"{name}.ipynb", 4).cells):
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                (out / f"{name}_{number:02d}.png").write_bytes(base64.b64decode(output.data["image/png"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--mix", help="folder with the real results so far; what is missing is invented")
    parser.add_argument("--keep")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write and not args.real:
        parser.error("--write takes --real: invented numbers do not go into the book")
    chapter = importlib.import_module(f"ch{args.number}")
    folder = Path(args.keep or tempfile.mkdtemp()).resolve()
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "_build", ".venv*", "__pycache__", ".*_cache"))
    if args.mix:
        import mix

        mix.write(copy / "experiments" / "results", args.mix)
    elif not args.real:
        import mkfake

        mkfake.write(copy / "experiments" / "results", args.seed)
    sys.exit(attempt(args, chapter, copy))


def attempt(args, chapter, copy):
    notebooks = [f"notebooks/{place}{chapter.NAME}.ipynb" for place in ("", "solutions/")]
    ledger, key = copy / "book" / "claims.toml", copy / "tlhelpers" / "exercises.toml"
    code = [copy / "tlhelpers" / "claims.py", copy / "tlhelpers" / "exercises.py"]
    for path in (ledger, key):
        path.write_text(without(path.read_text("utf-8"), args.number), "utf-8")
    chapter.build(copy)
    kept = [path.read_text("utf-8") for path in code]
    for path, text, more in zip(code, kept, (RECORD_CLAIM, RECORD_ANSWER), strict=True):
        path.write_text(text + more, "utf-8")
    record = copy / "record.jsonl"
    status, said = call(copy, "book/tools/run_notebooks.py", *notebooks, DRAFT_RECORD=str(record))
    for path, text in zip(code, kept, strict=True):
        path.write_text(text, "utf-8")
    if status:
        print(said[-4000:])
        return 1
    measured, answers = {}, {}
    for line in record.read_text("utf-8").splitlines():
        kind, id, value = json.loads(line)
        if kind == "claim":
            measured[id] = value
        else:
            answers.setdefault(id, []).append(value)
    (claims, wrong), (entries, more) = claims_text(chapter, measured), key_text(chapter, answers)
    ledger.write_text(ledger.read_text("utf-8") + "\n" + claims + "\n", "utf-8")
    key.write_text(key.read_text("utf-8") + "\n" + entries + "\n", "utf-8")
    (copy / "claims_of_chapter.toml").write_text(claims, "utf-8")
    (copy / "exercises_of_chapter.toml").write_text(entries, "utf-8")
    status = 0
    for command in (["book/_ext/ledger.py"], ["book/tools/run_notebooks.py", *notebooks], ["book/tools/make_exercises.py"]):
        failed, said = call(copy, *command)
        if failed:
            print(said[-4000:])
            status = 1
    figures(copy, chapter.NAME)
    # The table of contents is made by hand; what else fails is a fault of the draft. Other chapters are not run.
    chosen = f"{chapter.NAME} or claims or quoted or typed or hint or key or {args.number}."
    failed, said = call(
        copy, "-m", "pytest", "-q", "-x" if args.real else "-q", "-p", "no:cacheprovider", "tests/test_book.py", "tests/test_claims.py",
        "tests/test_exercises.py", "-k", f"({chosen.rstrip('.')}) and not table_of_contents",
    )  # fmt: skip
    print(said[-6000:] if failed else said[-200:])
    texts = "\n".join(cell.source for path in notebooks for cell in nbformat.read(copy / path, 4).cells)
    print(*wrong, sep="\n")
    print(f"{len(measured)} claims, {len(answers)} exercises, {texts.count('RESULT:')} sentences marked RESULT:, in {copy}")
    if args.write and not (status or failed or wrong):
        for path in (*notebooks, f"notebooks/exercises/{chapter.NAME}.ipynb", "book/claims.toml", "tlhelpers/exercises.toml"):
            shutil.copy(copy / path, ROOT / path)
        print("written into", ROOT)
    return 1 if status or failed or wrong else 0


if __name__ == "__main__":
    main()
