"""Sphinx: links to the ledger of numbers and to the sources of quoted ones; the page "Every number in this book".

    [86.6 %](claim:03.accuracy)       a number of ours: links to its place on that page
    [82.44 %](quoted:Deitsch2019)     a number of others: links to the reference
"""

from collections import defaultdict
from functools import cache

import ledger
import nbformat
from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from tlhelpers.claims import read_ledger

logger = logging.getLogger(__name__)
PAGE = "book/numbers"


def anchor(id):
    return nodes.make_id(f"claim-{id}")


def resolve_links(app, doctree, docname):
    claims = app.env.ledger
    for link in doctree.findall(nodes.reference):
        scheme, _, target = link.get("refuri", "").partition(":")
        if scheme == "claim":
            if target not in claims:
                logger.warning("there is no claim %r in book/claims.toml", target, location=link)
                continue
            if link.astext() != claims[target].text:
                logger.warning("claim %s reads %r here, %r in the ledger: make claims", target, link.astext(),
                               claims[target].text, location=link)
            page, place, link["reftitle"] = PAGE, anchor(target), claims[target].sentence
        elif scheme == "quoted":
            found = [citation for citation in app.env.get_domain("cite").citations if citation.key == target]
            if not found:
                logger.warning("there is no reference %r in book/references.bib", target, location=link)
                continue
            page, place = found[0].bibliography_key.docname, found[0].citation_id
            link["reftitle"] = "from a reference"
        else:
            continue
        link["refuri"] = (app.builder.get_relative_uri(docname, page) if page != docname else "") + f"#{place}"
        link["classes"].append(scheme)
        link["internal"] = True


class EveryNumber(SphinxDirective):
    """One block for each claim, under the name of its chapter; a chapter's exercises come after it."""

    def run(self):
        claims = self.env.ledger
        for path in (ledger.ROOT / "book" / "claims.toml", *ledger.sources()):
            self.env.note_dependency(str(path))
        self.quoted, self.checked = defaultdict(dict), {}
        for piece in ledger.prose():
            for _, id in ledger.quoted(piece.text):
                self.quoted[id].setdefault(piece.path)
        for check in ledger.checks():
            self.checked.setdefault(check.id, check)
        chapters = defaultdict(list)
        for id in claims:
            chapters[self.checked[id].path if id in self.checked else None].append(id)
        out = []
        for path, ids in sorted(chapters.items(), key=lambda item: (item[0].stem, item[0].parts) if item[0] else ("",)):
            title = title_of(path) if path else "Checked nowhere"
            section = nodes.section("", nodes.title("", title), ids=[nodes.make_id(f"numbers {title}")])
            section += [self.block(claims[id]) for id in ids]
            out.append(section)
        return out

    def block(self, claim):
        block = nodes.container(classes=["claim-card"], ids=[anchor(claim.id)])
        block += nodes.paragraph("", claim.text, classes=["claim-value"])
        block += nodes.paragraph("", claim.sentence, classes=["claim-sentence"])
        facts = nodes.definition_list(classes=["claim-facts"])
        scale, unit = (100, "points") if claim.unit == "%" else (1, claim.unit)
        near = f"± {scale * claim.tolerance:.3g} {unit}".rstrip().replace("± 1 points", "± 1 point") if claim.tolerance else "exactly"
        rows = [("id", [nodes.literal("", claim.id)]), ("holds", [nodes.Text(f"{near}: {claim.why}")])]
        if claim.photos:
            rows.append(("photos", [nodes.Text(f"{claim.photos:,}")]))
        if claim.seeds:
            rows.append(("seeds", [nodes.Text(claim.seeds)]))
        if claim.experiment:
            rows.append(("measured by", [nodes.literal("", claim.experiment)]))
        if check := self.checked.get(claim.id):
            run = contents(check.path)[1]
            rows.append(("checked", [self.link(check.path, check.heading), nodes.Text(f", last on {run}" if run else "")]))
        places = [self.link(path) for path in self.quoted[claim.id] if path.parent != ledger.ROOT]
        rows.append(("quoted in", [node for place in places for node in (place, nodes.Text("; "))][:-1]))
        for name, value in rows:
            facts += nodes.definition_list_item("", nodes.term("", name), nodes.definition("", *value))  # no paragraph: a page of thousands
        block += facts
        return block

    def link(self, path, heading=""):
        docname = path.relative_to(ledger.ROOT).with_suffix("").as_posix()
        place = f"#{nodes.make_id(heading)}" if heading else ""
        words = f"{title_of(path)}: {heading}" if heading and heading != title_of(path) else title_of(path)
        return nodes.inline("", "", nodes.reference("", words, refuri=f"../{docname}.html{place}", internal=True))


def title_of(path):
    return contents(path)[0]


@cache
def contents(path):
    """Of a page: its title, and of a notebook the day on which it was last run. A page of the ledger asks a thousand times."""
    text, run = path.read_text(encoding="utf-8"), ""
    if path.suffix == ".ipynb":
        notebook = nbformat.reads(text, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        run = notebook.metadata.get("book", {}).get("run", "")
    return next(line[2:].strip() for line in text.splitlines() if line.startswith("# ")), run


def load_ledger(app, env, docnames):
    contents.cache_clear()
    env.ledger = read_ledger(ledger.ROOT / "book" / "claims.toml")


def setup(app):
    app.connect("env-before-read-docs", load_ledger)
    app.connect("doctree-resolved", resolve_links)
    app.add_directive("every-number", EveryNumber)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
