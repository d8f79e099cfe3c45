"""The offline book: with BOOK_OFFLINE set, pages take from npm packages what they otherwise load from other hosts.

`npm ci` in book/web brings the packages; what pages use of them is copied to the folder web/ of the built book. Not to
_static/: myst-nb adds every script there to every page. Without BOOK_OFFLINE it only
leaves sphinx-thebe's scripts out.
"""

import os
import re
import shutil
from importlib import metadata
from pathlib import Path

from sphinx.errors import ConfigError
from sphinx.util.osutil import relative_uri

NODE_MODULES = Path(__file__).parents[1] / "web" / "node_modules"

# folder in web/ ← file or pattern in node_modules
FILES = {
    "html-manager": [
        "@jupyter-widgets/html-manager/dist/embed.js",
        "@jupyter-widgets/html-manager/dist/embed.js.LICENSE.txt",
        "@jupyter-widgets/html-manager/dist/*.woff2",  # every browser that runs embed.js takes the first format named
    ],
    "html-manager/icons": ["@fortawesome/fontawesome-free/LICENSE.txt"],  # of the woff2
    "mathjax": ["mathjax/LICENSE", "mathjax/es5/tex-chtml-full.js"],
    "mathjax/output/chtml/fonts/woff-v2": ["mathjax/es5/output/chtml/fonts/woff-v2/*.woff"],
}


def take_scripts_from_the_book(app, config):
    if not NODE_MODULES.is_dir():
        raise ConfigError(f"{NODE_MODULES} is missing; `make book-offline` fills it with the packages of package.json")
    # Sphinx puts _static/ before what names no host.
    config.nb_ipywidgets_js = {"../web/html-manager/embed.js": {}}  # unlike embed-amd.js it needs no require.js
    config.mathjax_path = "../web/mathjax/tex-chtml-full.js"  # the others fetch \boldsymbol when first used


def name_the_folder_of_widget_icons(app, page, template, context, doctree):
    folder = relative_uri(app.builder.get_target_uri(page), "web/html-manager/")
    app.add_js_file(None, body=f"window.__jupyter_widgets_assets_path__ = '{folder}';", priority=200)


def finish_folder(app, exception):
    if exception or app.builder.format != "html":
        return
    web = Path(app.outdir) / "web"
    for folder, patterns in FILES.items():
        (web / folder).mkdir(parents=True, exist_ok=True)
        for pattern in patterns:
            files = sorted(NODE_MODULES.glob(pattern))
            if not files:
                raise ConfigError(f"{NODE_MODULES / pattern} is missing; has the package changed?")
            for file in files:
                shutil.copy(file, web / folder)
    # Over file:// browsers refuse to load a font ahead, and log an error; the style sheet loads it without one.
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r'<link rel="preload" as="font"[^>]*>\s*', "", text), encoding="utf-8")
    # html-manager comes without a licence text; ipywidgets, from the same source, has it.
    licence = next(file for file in metadata.files("ipywidgets") if file.name == "LICENSE")
    shutil.copy(licence.locate(), web / "html-manager")


def leave_thebe_out(app, page, template, context, doctree):
    """sphinx-thebe declares THEBE_JS_URL twice, an error in every console; no page of this book starts a kernel."""
    scripts = context["script_files"]
    scripts[:] = [
        script for script in scripts
        if "THEBE_JS_URL" not in script.attributes.get("body", "") and "sphinx-thebe.js" not in (script.filename or "")
    ]


def setup(app):
    app.connect("html-page-context", leave_thebe_out)
    if os.environ.get("BOOK_OFFLINE"):
        app.connect("config-inited", take_scripts_from_the_book)
        app.connect("html-page-context", name_the_folder_of_widget_icons)
        app.connect("build-finished", finish_folder)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
