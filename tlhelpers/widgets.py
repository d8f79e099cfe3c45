"""Interactive figures that also work in a static page, where no kernel runs.

All pictures are in the page, and controls and pictures are linked in the browser (`jslink`). For print, and where no
script runs, each figure also holds a still picture with its alt text.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

import base64
import functools
import html
import io
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from tlhelpers.images import read_image

if TYPE_CHECKING:
    import ipywidgets

__all__ = ["frames", "gallery", "grid"]

_CONTROLS = {"slider": "SelectionSlider", "menu": "Dropdown", "toggle": "ToggleButtons"}


def frames(
    figures: Sequence, names: Sequence[str], *, description: str, alts: Sequence[str], control: str = "slider"
) -> ipywidgets.VBox:
    """One picture out of several, chosen by a slider, a menu or buttons.

    Each picture is stored in the notebook and in the page: a chart of 600 × 400 pixels takes 10 to 20 kB, a figure full
    of photos up to 100 kB. The still, which is the first picture, is one more.

    Args:
        figures: n matplotlib figures of one size, or uint8 arrays, (height, width, 3) or (height, width).
        names: n texts: what the control shows for each; JupyterLab cuts those of a slider off after some 20 letters.
        description: what is chosen; stands before the control.
        alts: n texts that say what each picture shows, for readers who do not see it.
        control: "slider", "menu" or "toggle" (a row of buttons).

    Returns:
        `ipywidgets.VBox` of control and stack of pictures.

    Raises:
        ValueError: lengths differ, there are fewer than two pictures, or the control is unknown.

    Example:
        >>> pictures = [np.full((8, 8), grey, np.uint8) for grey in (0, 255)]
        >>> alts = ["A black square.", "A white square."]
        >>> figure = tl.widgets.frames(pictures, ["dark", "bright"], description="brightness", alts=alts)
        >>> type(figure.children[0]).__name__
        'SelectionSlider'

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    _check_lengths(figures=figures, names=names, alts=alts)
    chooser = _chooser(control, names, description)
    images = [_image(figure) for figure in figures]
    stack = _stack(chooser, _pages(map(_img, images, alts)))
    return _figure_class()([chooser, stack], images[0], f"{description}: {names[0]}. {alts[0]}")


def grid(
    figures: Sequence[Sequence], row_names: Sequence[str], column_names: Sequence[str], *, descriptions: tuple[str, str],
    alts: Sequence[Sequence[str]], controls: tuple[str, str] = ("menu", "slider"),
) -> ipywidgets.VBox:  # fmt: skip
    """One picture out of rows × columns, chosen by two controls.

    It takes as much room as `frames` of so many pictures; the still shows all of them, small.

    Args:
        figures: list of rows, each a list of pictures, one a column; pictures as for `frames`.
        row_names: what the first control shows, one text a row.
        column_names: what the second control shows, one text a column.
        descriptions: two texts: what is chosen by the first control and by the second.
        alts: list of rows, each a list of texts that say what each picture shows.
        controls: two of "slider", "menu" and "toggle".

    Returns:
        `ipywidgets.VBox` of both controls and a stack of rows, each a stack of pictures.

    Raises:
        ValueError: lengths differ, there are fewer than two rows or columns, or a control is unknown.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    _check_lengths(figures=figures, row_names=row_names, alts=alts)
    for name, row, texts in zip(row_names, figures, alts):
        _check_lengths(f"row {name!r}: ", figures=row, column_names=column_names, alts=texts)
    if not len(descriptions) == len(controls) == 2:
        raise ValueError(f"descriptions={descriptions!r}, controls={controls!r}; expected two each")
    choosers = list(map(_chooser, controls, (row_names, column_names), descriptions))
    images = [[_image(figure) for figure in row] for row in figures]
    rows = [_stack(choosers[1], _pages(map(_img, row, texts))) for row, texts in zip(images, alts)]
    captions = [f"{row}, {column}" for row in row_names for column in column_names]
    still = _sheet([image for row in images for image in row], captions, columns=len(column_names))
    alt = "Small pictures. " + " ".join(
        f"{text}: {', '.join(map(str, names))}." for text, names in zip(descriptions, (row_names, column_names))
    )
    return _figure_class()([*choosers, _stack(choosers[0], rows)], still, alt)


def gallery(
    pictures: Sequence, titles: Sequence[str], details: Sequence, *, description: str, alts: Sequence[str],
    control: str = "toggle", live: Callable[[np.ndarray], Any] | None = None,
) -> ipywidgets.VBox:  # fmt: skip
    """Choose one of several photos and read what is known of it; with a kernel, try a photo of your own.

    Photos are stored with at most 400 pixels a side: 10 to 40 kB each. The still shows all of them with their details.

    Args:
        pictures: n photos, uint8 arrays, (height, width, 3) or (height, width), or matplotlib figures.
        titles: n texts: what the control shows for each.
        details: for each photo what is known of it: a mapping, a list of (name, value) pairs, or a text.
        description: what is chosen; stands before the control.
        alts: n texts that say what each photo shows, for readers who do not see it.
        control: "slider", "menu" or "toggle" (a row of buttons).
        live: function from a photo, uint8 array, (height, width, 3), RGB, to its details. It adds a button to upload a
            photo, with the class `tl-live`, which the built page hides: without a kernel nothing would answer.

    Returns:
        `ipywidgets.VBox` of control, stack of photos with their details and, if `live` is given, the live part.

    Raises:
        ValueError: lengths differ, there are fewer than two photos, details of another form, or an unknown control.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    _check_lengths(pictures=pictures, titles=titles, details=details, alts=alts)
    chooser = _chooser(control, titles, description)
    images = [_image(picture, largest=400) for picture in pictures]
    known = [_pairs(each) for each in details]
    pages = _pages(map(_photo_with_details, images, alts, titles, known))
    parts = [chooser, _stack(chooser, pages)] + ([] if live is None else [_upload(live)])
    captions = [
        "\n".join([str(title), *(f"{name}: {value}" if name else value for name, value in pairs)])
        for title, pairs in zip(titles, known)
    ]
    alt = f"{description}: " + "; ".join(f"{title}: {alt}" for title, alt in zip(titles, alts))
    return _figure_class()(parts, _sheet(images, captions, columns=min(len(images), 4)), alt)


def _check_lengths(where="", **lists):
    lengths = [len(each) for each in lists.values()]
    if len(set(lengths)) > 1 or lengths[0] < 2:
        counts = ", ".join(f"{length} {name}" for name, length in zip(lists, lengths))
        raise ValueError(f"{where}{counts}; expected the same, 2 or more")


def _chooser(control, names, description):
    import ipywidgets

    if control not in _CONTROLS:
        raise ValueError(f"control={control!r}; expected 'slider', 'menu' or 'toggle'")
    style = {"description_width": "initial"}
    if control == "toggle":
        style["button_width"] = "auto"
    return getattr(ipywidgets, _CONTROLS[control])(
        options=[(str(name), place) for place, name in enumerate(names)],
        value=0,
        description=description,
        # Nothing is cut off on a phone: what does not fit beside the description goes below it.
        layout=ipywidgets.Layout(width="95%", max_width="40em", height="auto", flex_flow="row wrap"),
        style=style,
    )


def _stack(chooser, pages):
    import ipywidgets

    stack = ipywidgets.Stack(pages, selected_index=0, layout=ipywidgets.Layout(width="100%"))
    ipywidgets.jslink((chooser, "index"), (stack, "selected_index"))
    return stack


def _pages(texts):
    import ipywidgets

    layout = ipywidgets.Layout(width="100%")  # one for all: each of its own would add 1 kB to a page
    return [ipywidgets.HTML(text, layout=layout) for text in texts]


@functools.cache
def _figure_class():
    import ipywidgets

    class Figure(ipywidgets.VBox):
        """A box of widgets that also shows a still picture where widgets do not work."""

        def __init__(self, children, still, alt):
            super().__init__(children)
            self._still, self._alt = base64.b64encode(_png(still)).decode("ascii"), alt

        def _repr_mimebundle_(self, **kwargs):
            data = super()._repr_mimebundle_(**kwargs)
            return {**data, "text/plain": self._alt, "image/png": self._still}, {"image/png": {"alt": self._alt}}

    return Figure


# --- pictures -----------------------------------------------------------------------------------------------------


def _image(picture, largest=None):
    """RGB picture of a matplotlib figure or an array, shrunk to `largest` pixels a side."""
    if hasattr(picture, "savefig"):
        drawn = io.BytesIO()
        picture.savefig(drawn, format="png", dpi=90)
        return Image.open(drawn).convert("RGB")
    array = np.asarray(picture)
    if array.dtype != np.uint8 or not (array.ndim == 2 or array.ndim == 3 and array.shape[2] == 3) or not array.size:
        raise ValueError(
            f"a picture has shape {array.shape} and dtype {array.dtype}; expected a matplotlib figure or a uint8 "
            "array, (height, width, 3) or (height, width)"
        )
    image = Image.fromarray(array).convert("RGB")
    if largest:
        image.thumbnail((largest, largest))
    return image


def _png(image):
    stream = io.BytesIO()
    # 256 colours take a third of the bytes.
    image.quantize(256, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return stream.getvalue()


def _img(image, alt, *, smallest=0):
    """HTML of a picture, at least `smallest` pixels wide where there is room; PNG or JPEG, whichever is smaller."""
    stream = io.BytesIO()
    image.save(stream, format="jpeg", quality=85, optimize=True)
    kind, data = min(("png", _png(image)), ("jpeg", stream.getvalue()), key=lambda pair: len(pair[1]))
    width = max(image.width, smallest)
    # With both sides given the browser knows the shape before the picture is there, and nothing below it jumps.
    return (
        f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{round(width * image.height / image.width)}" style="max-width:100%;height:auto">'
    )


def _sheet(images, captions, columns):
    """All pictures, small, side by side, each above its caption."""
    from matplotlib.figure import Figure

    side = 6 / max(columns, 4)
    texts = ["\n".join(textwrap.fill(line, int(15 * side)) for line in caption.splitlines()) for caption in captions]
    rows = -(-len(images) // columns)
    tallest = side * max(image.height / image.width for image in images)
    lines = max(text.count("\n") + 1 for text in texts)
    figure = Figure(figsize=(side * columns, rows * (tallest + 0.13 * lines + 0.1)), layout="constrained")
    for axis in (axes := figure.subplots(rows, columns, squeeze=False).ravel()):
        axis.set_axis_off()
    for axis, image, text in zip(axes, images, texts):
        axis.imshow(image)
        axis.set_anchor("N")
        axis.text(0, -0.02, text, transform=axis.transAxes, fontsize=7, va="top")
    sheet = _image(figure)
    return sheet.crop(ImageOps.invert(sheet).getbbox())


# --- details ------------------------------------------------------------------------------------------------------


def _pairs(details):
    """(name, value) texts; a text alone has no name."""
    if isinstance(details, str):
        return [("", details)]
    try:
        return [(str(name), str(value)) for name, value in (details.items() if hasattr(details, "items") else details)]
    except (TypeError, ValueError):
        raise ValueError(f"details={details!r}; expected a mapping, (name, value) pairs, or a text") from None


def _photo_with_details(image, alt, title, pairs):
    cell = "padding:0.1em 1em 0.1em 0;text-align:left;vertical-align:top"
    rows = [
        f'<tr><th scope="row" style="{cell}">{html.escape(name)}</th><td style="{cell}">{html.escape(value)}</td></tr>'
        if name
        else f'<tr><td style="{cell}">{html.escape(value)}</td></tr>'
        for name, value in pairs
    ]
    return (
        # Side by side, or one below the other where the page is narrow.
        '<div style="display:flex;flex-wrap:wrap;gap:1em;line-height:1.5">'
        f'<div style="max-width:100%">{_img(image, alt, smallest=240)}</div><div style="flex:1 1 14em">'
        f'<strong>{html.escape(str(title))}</strong><table style="margin:0">{"".join(rows)}</table></div></div>'
    )


def _upload(live):
    import ipywidgets

    button = ipywidgets.FileUpload(
        accept="image/*", description="Try a photo of your own", layout=ipywidgets.Layout(width="max-content")
    )
    answer = ipywidgets.HTML()

    def show(change):
        if change["new"]:
            answer.value = "<p>Working …</p>"
            answer.value = _answer(change["new"][0], live)
            button.value = ()  # the photo stays out of the saved notebook, and the same one can be chosen again

    button.observe(show, "value")
    return ipywidgets.VBox([button, answer]).add_class("tl-live")


def _answer(file, live):
    """HTML of an uploaded photo with its details, or of a sentence that says why not."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "photo")
            path.write_bytes(file["content"])
            photo = read_image(path)
    except ValueError:
        return f"<p>{html.escape(file['name'])} is not a photo that can be read; choose a JPEG or PNG.</p>"
    try:
        return _photo_with_details(_image(photo, largest=400), "your photo", file["name"], _pairs(live(photo)))
    except Exception as error:  # whatever goes wrong: a traceback would end in a log that no reader opens
        return f"<p>{html.escape(file['name'])} was read, but then: {html.escape(str(error))}</p>"
