"""Interactive figures: what the browser gets, what a notebook stores, what is printed, a photo of the reader's own."""

import base64
import html
import io
import re
import sys
import tempfile
from pathlib import Path

import ipywidgets
import nbformat
import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image

import tlhelpers as tl
from tlhelpers import widgets

ROOT = Path(__file__).parents[1]
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
NAMES = list(COLOURS)
ALTS = ["a red square", 'a "green" square, 3 < 4 & more', "a blue square"]
KINDS = {"slider": ipywidgets.SelectionSlider, "menu": ipywidgets.Dropdown, "toggle": ipywidgets.ToggleButtons}
SCRIPT = "<script>alert(1)</script>"


def square(colour):
    figure = Figure(figsize=(1, 1))
    figure.add_axes((0, 0, 1, 1)).set_facecolor(colour)
    return figure


def photo(colour, height=40, width=60):
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


@pytest.fixture(scope="module")
def pictures():
    return [square(colour) for colour in NAMES]


def rgb_of(page):
    """Array of the picture in a page: (height, width, 3)."""
    source = BeautifulSoup(page.value, "html.parser").img["src"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split("base64,")[1]))).convert("RGB")).astype(int)


def assert_shows(page, colour):
    array = rgb_of(page)
    middle = array[array.shape[0] // 2, array.shape[1] // 2]
    assert np.abs(middle - COLOURS[colour]).max() <= 3  # JPEG is not exact


def links_to(stack):
    """(model, trait) that each saved link makes the stack follow."""
    state = ipywidgets.Widget.get_manager_state()["state"]
    links = [model["state"] for model in state.values() if model["model_name"] == "LinkModel"]
    target = [f"IPY_MODEL_{stack.model_id}", "selected_index"]
    return [tuple(link["source"]) for link in links if link["target"] == target]


def models_in(widget):
    """The widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from models_in(child)


def still_of(box):
    data, metadata = box._repr_mimebundle_()
    assert data[VIEW]["model_id"] == box.model_id
    assert data["text/plain"] == metadata["image/png"]["alt"]
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB")).astype(int), metadata["image/png"]["alt"]


def has_colour(array, colour):
    return (np.abs(array - COLOURS[colour]).max(axis=-1) <= 3).sum() > 100


# --- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", KINDS)
def test_the_browser_alone_turns_the_pages(pictures, control):
    box = widgets.frames(pictures, NAMES, description="colour", alts=ALTS, control=control)
    chooser, stack = box.children
    assert isinstance(box, ipywidgets.VBox) and type(chooser) is KINDS[control] and type(stack) is ipywidgets.Stack
    assert len(stack.children) == 3 and stack.selected_index == 0 and chooser.index == 0
    # What a notebook saves of it, and a static page reads: a link that runs in the browser, from control to stack.
    assert links_to(stack) == [(f"IPY_MODEL_{chooser.model_id}", "index")]
    state = ipywidgets.Widget.get_manager_state()["state"]
    assert {model.model_id for model in models_in(box)} <= set(state)
    assert state[box.model_id]["model_name"] == "VBoxModel"  # the class of its own exists in Python only
    assert tuple(state[chooser.model_id]["state"]["_options_labels"]) == ("red", "green", "blue")
    assert chooser.description == "colour"


def test_each_page_is_the_picture_of_its_name_with_its_text(pictures):
    box = widgets.frames(pictures, NAMES, description="colour", alts=ALTS)
    for page, colour, alt in zip(box.children[1].children, NAMES, ALTS):
        assert_shows(page, colour)
        assert f'alt="{html.escape(alt)}"' in page.value
    assert "&quot;green&quot; square, 3 &lt; 4 &amp; more" in box.children[1].children[1].value


def test_a_picture_has_a_shape_before_it_is_loaded_and_shrinks_on_a_phone(pictures):
    box = widgets.frames(pictures, NAMES, description="colour", alts=ALTS)
    img = BeautifulSoup(box.children[1].children[0].value, "html.parser").img
    assert (img["width"], img["height"]) == ("90", "90")
    assert img["style"] == "max-width:100%;height:auto"


def test_drawings_are_stored_as_png_and_photos_as_jpeg():
    drawing, cat = np.zeros((200, 200, 3), np.uint8), tl.load_photo("chelsea")
    box = widgets.frames([drawing, cat], ["drawing", "cat"], description="picture", alts=ALTS[:2])
    pages = box.children[1].children
    assert "data:image/png;" in pages[0].value and "data:image/jpeg;" in pages[1].value
    assert np.abs(rgb_of(pages[1]) - cat).mean() < 4
    assert len(pages[1].value) < 50_000


def test_the_still_of_frames_is_the_first_of_them(pictures):
    still, alt = still_of(widgets.frames(pictures, NAMES, description="colour", alts=ALTS))
    assert np.array_equal(still[45, 45], COLOURS["red"]) and not has_colour(still, "blue")
    assert alt == "colour: red. a red square"


@pytest.mark.parametrize(
    ("number", "names", "alts", "control", "message"),
    [
        (1, ["red"], ALTS[:1], "slider", "2 or more"),
        (3, ["red", "green"], ALTS, "slider", "3 figures, 2 names, 3 alts"),
        (3, NAMES, ALTS[:2], "slider", "2 alts"),
        (3, NAMES, ALTS, "knob", "control='knob'; expected 'slider', 'menu' or 'toggle'"),
    ],
)
def test_frames_that_do_not_fit_are_refused(pictures, number, names, alts, control, message):
    with pytest.raises(ValueError, match=message):
        widgets.frames(pictures[:number], names, description="colour", alts=alts, control=control)


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4), np.uint8), "cat.jpg"]
)
def test_what_is_no_picture_is_refused(picture):
    with pytest.raises(ValueError, match="a picture has shape .*; expected a matplotlib figure or a uint8 array"):
        widgets.frames([picture, picture], NAMES[:2], description="colour", alts=ALTS[:2])


# --- grid ---------------------------------------------------------------------------------------------------------

CELLS = [["red", "green", "blue"], ["blue", "red", "green"]]
CELL_ALTS = [[f"row {row}, column {column}" for column in range(3)] for row in range(2)]


def grid_of(cells=CELLS, rows=("up", "down"), columns=("left", "middle", "right"), alts=CELL_ALTS, **more):
    pictures = [[photo(colour) for colour in row] for row in cells]
    return widgets.grid(pictures, rows, columns, **{"descriptions": ("Height", "Side"), "alts": alts, **more})


def test_a_grid_has_each_picture_in_its_row_and_column():
    first, second, stack = grid_of().children
    assert type(first) is ipywidgets.Dropdown and type(second) is ipywidgets.SelectionSlider
    assert (first.description, second.description) == ("Height", "Side")
    assert [label for label, _ in first.options] == ["up", "down"]
    assert [label for label, _ in second.options] == ["left", "middle", "right"]
    assert len(stack.children) == 2
    for row, colours, alts in zip(stack.children, CELLS, CELL_ALTS):
        assert len(row.children) == 3
        for page, colour, alt in zip(row.children, colours, alts):
            assert_shows(page, colour)
            assert f'alt="{alt}"' in page.value


def test_the_second_control_of_a_grid_moves_every_row_shown_or_not():
    box = grid_of(controls=("toggle", "menu"))
    first, second, stack = box.children
    assert links_to(stack) == [(f"IPY_MODEL_{first.model_id}", "index")]
    for row in stack.children:
        assert links_to(row) == [(f"IPY_MODEL_{second.model_id}", "index")]
    assert {model.model_id for model in models_in(box)} <= set(ipywidgets.Widget.get_manager_state()["state"])


def test_the_still_of_a_grid_shows_all_its_pictures():
    still, alt = still_of(grid_of())
    assert all(has_colour(still, colour) for colour in NAMES)
    assert alt == "Small pictures. Height: up, down. Side: left, middle, right."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": ("up",)}, "2 figures, 1 row_names, 2 alts; expected the same, 2 or more"),
        ({"columns": ("left", "right")}, "row 'up': 3 figures, 2 column_names, 3 alts"),
        ({"cells": [CELLS[0], CELLS[1][:2]]}, "row 'down': 2 figures, 3 column_names, 3 alts"),
        ({"alts": [CELL_ALTS[0], []]}, "row 'down': 3 figures, 3 column_names, 0 alts"),
        ({"descriptions": ["Height"]}, r"descriptions=\['Height'\].*; expected two each"),
        ({"controls": ("menu", "knob")}, "control='knob'; expected 'slider', 'menu' or 'toggle'"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        grid_of(**change)


# --- gallery ------------------------------------------------------------------------------------------------------

DETAILS = [{"class": "red", SCRIPT: 3}, [("class", SCRIPT)], f"only words & {SCRIPT}"]


def gallery_of(details=DETAILS, titles=("one", SCRIPT, "three"), **more):
    return widgets.gallery(
        [photo(colour) for colour in NAMES], titles, details, **{"description": "Photo", "alts": ALTS, **more}
    )


def test_a_gallery_shows_each_photo_with_what_is_known_of_it():
    chooser, stack = gallery_of().children
    assert type(chooser) is ipywidgets.ToggleButtons and links_to(stack) == [(f"IPY_MODEL_{chooser.model_id}", "index")]
    read = []
    for page, colour, alt, title in zip(stack.children, NAMES, ALTS, ("one", SCRIPT, "three")):
        assert_shows(page, colour)
        soup = BeautifulSoup(page.value, "html.parser")
        assert soup.img["alt"] == alt and soup.strong.text == title
        assert not soup.find("script")  # what looks like a tag stays text
        read.append([[cell.text for cell in row.find_all(["th", "td"])] for row in soup.find_all("tr")])
    assert read == [[["class", "red"], [SCRIPT, "3"]], [["class", SCRIPT]], [[f"only words & {SCRIPT}"]]]


def test_large_photos_are_stored_small_and_small_ones_shown_large():
    wide, tiny = photo("red", 300, 3000), photo("blue", 12, 10)
    box = widgets.gallery([wide, tiny], ["w", "t"], ["a", "b"], description="Photo", alts=ALTS[:2])
    pages = box.children[1].children
    assert rgb_of(pages[0]).shape == (40, 400, 3) and rgb_of(pages[1]).shape == (12, 10, 3)
    img = BeautifulSoup(pages[1].value, "html.parser").img
    assert (img["width"], img["height"]) == ("240", "288")


def test_the_still_of_a_gallery_shows_all_photos():
    still, alt = still_of(gallery_of())
    assert all(has_colour(still, colour) for colour in NAMES)
    assert alt == f"Photo: one: a red square; {SCRIPT}: {ALTS[1]}; three: a blue square"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"details": DETAILS[:2]}, "3 pictures, 3 titles, 2 details, 3 alts; expected the same, 2 or more"),
        ({"details": [DETAILS[0], DETAILS[1], 5]}, "details=5; expected a mapping, .* pairs, or a text"),
        ({"details": [DETAILS[0], DETAILS[1], [("one", "two", "three")]]}, "expected a mapping"),
        ({"control": "knob"}, "control='knob'"),
    ],
)
def test_a_gallery_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        gallery_of(**change)


# --- a photo of one's own -----------------------------------------------------------------------------------------


def size_and_corner(photo):
    height, width, _ = photo.shape
    return {"size": f"{width} × {height}", "corner": "red" if photo[0, 0, 0] > 200 > photo[0, 0, 2] else "other"}


def upload(box, name, content):
    """What the page shows after a file was chosen, as the browser sends it."""
    button, answer = box.children[2].children
    assert type(button) is ipywidgets.FileUpload
    file = {"name": name, "type": "image/jpeg", "size": len(content), "last_modified": 0}
    button.set_state({"value": [{**file, "content": memoryview(content)}]})
    assert button.value == ()  # nothing of it is left for the saved notebook
    return answer


def bytes_of(array, kind, **more):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=kind, **more)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_photo_of_your_own_is_shown_upright_with_its_details(folder):
    box = gallery_of(live=size_and_corner)
    lying = np.zeros((64, 96, 3), np.uint8)
    lying[:32, :48] = COLOURS["red"]  # top left; the camera was turned: 6 says, show it a quarter clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = upload(box, f"{SCRIPT}.jpg", bytes_of(lying, "jpeg", exif=exif, quality=95))
    soup = BeautifulSoup(answer.value, "html.parser")
    assert soup.find("td", string="64 × 96") and soup.find("td", string="other")
    assert soup.strong.text == f"{SCRIPT}.jpg" and not soup.find("script")
    shown = rgb_of(answer)
    assert shown.shape == (96, 64, 3)
    assert shown[10, 55, 0] > 200 and shown[10, 5, 0] < 50  # red is top right now

    answer = upload(box, "red.png", bytes_of(photo("red"), "png"))
    soup = BeautifulSoup(answer.value, "html.parser")
    assert soup.find("td", string="60 × 40") and soup.find("td", string="red") and soup.strong.text == "red.png"
    assert not list(folder.iterdir())


def test_a_file_that_is_no_photo_is_answered_with_a_sentence(folder):
    box = gallery_of(live=size_and_corner)
    answer = upload(box, "page.jpg", f"<!doctype html>{SCRIPT}".encode())
    assert answer.value == "<p>page.jpg is not a photo that can be read; choose a JPEG or PNG.</p>"
    assert upload(box, f"{SCRIPT}.jpg", b"GIF").value.startswith("<p>&lt;script&gt;alert(1)&lt;/script&gt;.jpg is not")
    assert upload(box, "half.png", bytes_of(photo("red"), "png")[:50]).value.startswith("<p>half.png is not a photo")
    assert upload(box, "nothing.png", b"").value.startswith("<p>nothing.png is not a photo")
    assert not list(folder.iterdir())


def test_an_error_in_the_readers_function_is_a_sentence_too(folder):
    def fail(photo):
        raise RuntimeError("the network <is> tired")

    answer = upload(gallery_of(live=fail), "red.png", bytes_of(photo("red"), "png"))
    assert answer.value == "<p>red.png was read, but then: the network &lt;is&gt; tired</p>"
    answer = upload(gallery_of(live=lambda photo: 5), "red.png", bytes_of(photo("red"), "png"))
    assert "red.png was read, but then: details=5; expected a mapping" in answer.value


def test_the_live_part_can_be_told_from_what_works_without_a_kernel():
    live = gallery_of(live=size_and_corner).children[2]
    assert live._dom_classes == ("tl-live",)
    assert len(gallery_of().children) == 2


# --- in a notebook, and in the built page -------------------------------------------------------------------------

CODE = """
import numpy as np
import tlhelpers as tl
pictures = [np.full((40, 60, 3), value, np.uint8) for value in (10, 20, 30)]
tl.widgets.frames(pictures, ["a", "b", "c"], description="shade", alts=["dark", "less dark", "least dark"])
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook as `make notebooks` runs and stores it."""
    path = tmp_path_factory.mktemp("book") / "tiny.ipynb"
    cells = [nbformat.v4.new_markdown_cell("# Tiny"), nbformat.v4.new_code_cell(CODE)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return path


def test_a_notebook_stores_view_still_and_state(notebook):
    notebook = nbformat.read(notebook, as_version=4)
    (output,) = notebook.cells[1].outputs
    state = notebook.metadata.widgets[STATE]["state"]
    box = state[output.data[VIEW]["model_id"]]
    assert box["model_name"] == "VBoxModel" and box["model_module"] == "@jupyter-widgets/controls"
    names = [entry["model_name"] for entry in state.values()]
    assert (names.count("LinkModel"), names.count("StackModel"), names.count("HTMLModel")) == (1, 1, 3)
    assert set(re.findall(r"IPY_MODEL_(\w+)", str(state))) <= set(state)
    still = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    assert still.size == (60, 40) and still.convert("RGB").getpixel((30, 20)) == (10, 10, 10)
    assert output.metadata["image/png"] == {"alt": "shade: a. dark"}


def test_the_built_page_has_the_still_after_the_widget(notebook, monkeypatch):
    from sphinx.application import Sphinx

    folder = notebook.parent
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "book" / "_ext")])
    settings = {"extensions": ["myst_nb", "stills"], "nb_execution_mode": "off", "root_doc": "tiny"}
    said = io.StringIO()
    Sphinx(folder, None, folder / "html", folder / "html", "html", settings, status=None, warning=said).build()
    assert not said.getvalue()
    page = BeautifulSoup((folder / "html" / "tiny.html").read_text(encoding="utf-8"), "html.parser")
    widget, still = page.select_one(".tl-widget"), page.select_one(".tl-widget + .tl-still")
    assert widget.find("script", type=VIEW) and not widget.find("img")
    assert still.img["alt"] == "shade: a. dark"
    assert (folder / "html" / still.img["src"]).is_file()
    assert len(page.select("img")) == 1
