"""Sphinx extension: after each interactive figure stands its still picture, for print and where no script runs.

An output of a notebook may hold a widget and a picture of it; MyST-NB shows the one it likes best and drops the other.
Here both stay, in containers of the classes `tl-widget` and `tl-still`; book.css shows one of them at a time.
"""

import re

import nbformat
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

VIEW = "application/vnd.jupyter.widget-view+json"
STILL = "image/png"


class KeepStills(SphinxPostTransform):
    default_priority = 3  # before MyST-NB's SelectMimeType, which has 4
    formats = ("html",)

    def run(self, **kwargs):
        alts = None
        for bundle in list(self.document.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            parts = {part["mime_type"]: part for part in bundle.children}
            if VIEW not in parts or STILL not in parts:
                continue
            alts = alts or alts_of_stills(self.env.doc2path(self.env.docname))
            still = nodes.container("", *parts[STILL].children, classes=["tl-still"])
            model = re.search(r'"model_id": "(\w+)"', parts[VIEW].astext())[1]
            if model in alts:
                for image in still.findall(nodes.image):
                    image["alt"] = alts[model]
            bundle.replace_self([widget := nodes.container(classes=["tl-widget"]), still])
            widget += bundle


def alts_of_stills(path):
    """{id of the widget: alt text}: MyST-NB keeps the alt text of a cell, but not that of an output."""
    notebook = nbformat.read(path, as_version=4)
    return {
        output["data"][VIEW]["model_id"]: output["metadata"][STILL]["alt"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {}) and "alt" in output["metadata"].get(STILL, {})
    }


def setup(app):
    app.add_post_transform(KeepStills)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
