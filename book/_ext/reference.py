"""Sphinx: the reference of `tlhelpers`, made in the build from docstrings, and the command line's pages from its own help.

Two lines in Markdown are replaced while they are read:

    <!-- every name of tlhelpers -->           by a table of all names, then each module with its entries (autodoc)
    <!-- every command of tlhelpers -->        by what `--help` prints

Each entry says which chapter explains it and which chapters use it; each chapter to run ends with links to what it uses.
"""

import ast
import inspect
import re
from functools import cache
from importlib import import_module

import click
import ledger
import nbformat
from claims import title_of
from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

import tlhelpers as tl

logger = logging.getLogger(__name__)
NAMES, COMMANDS = "<!-- every name of tlhelpers -->", "<!-- every command of tlhelpers -->"
NOTEBOOK = re.compile(r"notebooks/((\d\d)_\w+)\.ipynb")
WIDTH = 80  # columns of the command line's help: fits the page


@cache
def public_names():
    """name as a reader writes it after `tl.` → (module, name in the module), module by module, in the order of reading."""
    out = {}
    for module in tl._MODULES:
        for name in import_module(f"tlhelpers.{module}").__all__:
            out[name if tl._HOME.get(name) == module else f"{module}.{name}"] = module, name
    return out


def thing(name):
    module, own = public_names()[name]
    return getattr(import_module(f"tlhelpers.{module}"), own)


def target(name):
    """Under which name Sphinx knows it: as readers write it, but autodoc finds constants only in their own module."""
    return f"tlhelpers.{name}" if callable(thing(name)) else "tlhelpers." + ".".join(public_names()[name])


@cache
def chapters():
    """Notebook's stem → path, chapters to run only."""
    return {path.stem: path for path in sorted((ledger.ROOT / "notebooks").glob("*.ipynb"))}


def names_in(code):
    """The public names that a piece of Python uses as tl.name or tl.module.name."""
    known, dotted = public_names(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text.startswith("tl."):
                dotted.add(text.removeprefix("tl."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tlhelpers":
            prefix = f"{node.module}.".removeprefix("tlhelpers.")
            dotted |= {f"{prefix}{alias.name}" for alias in node.names}
    own = {f"{module}.{name}": public for public, (module, name) in known.items()}  # tl.images.read_image is tl.read_image
    return {own.get(name, name) for name in dotted} & set(known)


def used_in(path):
    """The public names that a notebook uses, in the order of the reference."""
    cells = nbformat.read(path, as_version=4).cells
    # a line that begins with % or ! is IPython's and no Python
    code = [re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.M) for cell in cells if cell.cell_type == "code"]
    used = set().union(*map(names_in, code))
    return [name for name in public_names() if name in used]


def users():
    """name → stems of the chapters that use it."""
    out = {name: [] for name in public_names()}
    for stem, path in chapters().items():
        for name in used_in(path):
            out[name].append(stem)
    return out


# --- from docstrings to reStructuredText ----------------------------------------------------------------------------


def chapter_link(stem, *, title):
    path = ledger.ROOT / "notebooks" / f"{stem}.ipynb"
    words = f"chapter {int(stem[:2])}" + (f", {title_of(path)}" if title else "")
    return f":doc:`{words} </notebooks/{stem}>`"


def linked(text):
    """A line of a docstring: names of the package become links, other code stays code, and what RST would take as markup
    is text."""
    known = public_names()
    homes = {own: name for name, (_, own) in known.items() if own not in known}  # FolderContents is folders.FolderContents

    def code(match):
        inside = match[1]
        name = inside.removeprefix("tlhelpers.").removeprefix("tl.")
        name = homes.get(name, name)
        return f":py:obj:`{inside} <{target(name)}>`" if name in known else f"``{inside}``"

    parts = re.split(r"(`[^`]+`)", text)
    parts = [
        re.sub(r"`([^`]+)`", code, part) if number % 2 else re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part)
        for number, part in enumerate(parts)
    ]
    parts = [("\\ " if number % 2 == 0 and number and part[:1].isalnum() else "") + part for number, part in enumerate(parts)]
    return NOTEBOOK.sub(lambda match: chapter_link(match[1], title=True), "".join(parts))


def to_rst(lines):
    """A docstring's lines, but for its examples, which are code."""
    out, example = [], False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and line.strip() != "")
        out.append(line if example else linked(line))
    return out


def rewrite_docstring(app, what, name, obj, options, lines):
    app.env.temp_data["tl_docstring"] = list(lines)
    lines[:] = to_rst(lines)
    public = name.removeprefix("tlhelpers.")
    if users_of := app.env.tl_users.get(public):
        links = ", ".join(chapter_link(stem, title=False) for stem in users_of)
        lines += ["", f"Used in {links}.", ""]


def keep_properties(app, what, name, obj, options, lines):
    """Of a property or constant, napoleon takes what stands before a colon for its type: here it is a sentence."""
    if what in ("property", "data"):
        lines[:] = to_rst(app.env.temp_data["tl_docstring"])


# --- the two pages ----------------------------------------------------------------------------------------------------


def first_sentence(name):
    value = thing(name)
    doc = inspect.getdoc(value) if callable(value) else None
    return linked(re.split(r"(?<=[.:])\s", doc.split("\n\n")[0].replace("\n", " "))[0].rstrip(".:")) if doc else "constant"


def entry(name):
    value, where = thing(name), target(name)
    if inspect.isclass(value):
        return [f".. autoclass:: {where}", "   :members:", ""]
    if callable(value):
        return [f".. autofunction:: {where}", ""]
    return [f".. autodata:: {where}", "   :no-value:", ""]


def eval_rst(lines):
    return "\n".join(["```{eval-rst}", *lines, "```", ""])


def names_page():
    rows = [".. list-table::", "   :header-rows: 1", "   :class: tl-names-table", "", "   * - name", "     - what it does"]
    for name in public_names():
        if callable(thing(name)):
            rows += [f"   * - :py:obj:`tl.{name} <{target(name)}>`", f"     - {first_sentence(name)}"]
    parts = [eval_rst(rows)]
    for module in tl._MODULES:
        options = ["   :no-members:"]
        if module in public_names():  # the module has the name of its function: of the two, the function is linked to
            options += ["   :no-index:"]
        parts += [f"## {module}", "", eval_rst([f".. automodule:: tlhelpers.{module}", *options, ""])]
        parts += [eval_rst(entry(name)) for name, (home, _) in public_names().items() if home == module]
    return "\n".join(parts)


def help_of(command, name, above=None):
    settings = command.context_settings | {"max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=above, **settings)
    return command.get_help(context), context


def commands_page():
    from tlhelpers.cli import main

    text, context = help_of(main, "tlhelpers")
    parts = [f"```text\n{text}\n```\n"]
    for name, command in main.commands.items():
        text, _ = help_of(command, name, context)
        parts += [f"## tlhelpers {name}\n", f"```text\n{text}\n```\n"]
    return "\n".join(parts)


def fill_page(app, docname, content):
    for mark, page in ((NAMES, names_page), (COMMANDS, commands_page)):
        if mark in content[0].split("\n"):
            content[0] = content[0].replace(mark, page())


def follow_what_it_is_made_from(app, docname, content):
    """So that a page is made anew when a docstring or a chapter has changed."""
    if NAMES in content[0] or COMMANDS in content[0]:
        for path in [*(ledger.ROOT / "tlhelpers").glob("*.py"), *chapters().values()]:
            app.env.note_dependency(str(path))


# --- from chapters to the reference -----------------------------------------------------------------------------------


def append_names(app, doctree):
    stem = app.env.docname.removeprefix("notebooks/")
    if stem not in chapters() or not (used := [name for name, stems in app.env.tl_users.items() if stem in stems]):
        return
    line = nodes.paragraph("", "In the reference: ")
    for number, name in enumerate(used):
        link = addnodes.pending_xref(
            "", nodes.literal("", f"tl.{name}"), refdomain="py", reftype="obj", reftarget=target(name), refexplicit=True,
            refdoc=app.env.docname, refwarn=True,
        )  # fmt: skip
        line += [nodes.Text(", ")] * (number > 0) + [link]
    line += nodes.Text(".")
    doctree.next_node(nodes.section).append(nodes.container("", line, classes=["tl-names"]))


def names_of_others(app, env, node, contnode):
    """What is not of this package (an error, a type) has no page here: its name alone is shown."""
    own = node.get("reftarget", "").startswith("tlhelpers.")
    return contnode if node.get("refdomain") == "py" and node.get("reftype") in ("exc", "class") and not own else None


def read_users(app, env, docnames):
    env.tl_users = users()


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("env-before-read-docs", read_users)
    app.connect("source-read", follow_what_it_is_made_from, priority=400)
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", rewrite_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", keep_properties, priority=600)  # after it
    app.connect("doctree-read", append_names)
    app.connect("missing-reference", names_of_others)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
