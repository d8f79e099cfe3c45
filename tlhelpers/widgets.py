"""Interactive figures that also work in a static page, where no kernel runs.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

import base64
import html
import io

__all__ = ["frames"]


def frames(figures, names, *, description, alts, control="slider"):
    """One picture out of several, chosen by a slider or a menu.

    All pictures are in the page, and the control and the stack are linked in the browser (`jslink`), so the figure
    moves without a kernel.

    Args:
        figures: n matplotlib figures of one size.
        names: n texts: what the control shows for each.
        description: what is chosen; stands before the control.
        alts: n texts that say what each picture shows, for readers who do not see it.
        control: "slider" or "menu".

    Returns:
        `ipywidgets.VBox`.

    Raises:
        ValueError: lengths differ, there are fewer than two pictures, or the control is unknown.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    import ipywidgets

    if not len(figures) == len(names) == len(alts) or len(figures) < 2:
        raise ValueError(f"{len(figures)} figures, {len(names)} names, {len(alts)} alts; expected the same, 2 or more")
    pages = [
        ipywidgets.HTML(f'<img src="data:image/png;base64,{_png(figure)}" alt="{html.escape(alt)}" style="max-width:100%">')
        for figure, alt in zip(figures, alts)
    ]
    wide = ipywidgets.Layout(width="95%", max_width="40em")
    style = {"description_width": "initial"}
    if control == "slider":
        chooser = ipywidgets.SelectionSlider(
            options=[(name, place) for place, name in enumerate(names)],
            value=0, description=description, layout=wide, style=style,
        )
    elif control == "menu":
        chooser = ipywidgets.Dropdown(
            options=[(name, place) for place, name in enumerate(names)],
            value=0, description=description, layout=wide, style=style,
        )
    else:
        raise ValueError(f"control={control!r}; expected 'slider' or 'menu'")
    stack = ipywidgets.Stack(pages, selected_index=0, layout=ipywidgets.Layout(width="100%"))
    ipywidgets.jslink((chooser, "index"), (stack, "selected_index"))
    return ipywidgets.VBox([chooser, stack])


def _png(figure):
    from PIL import Image

    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=90)
    # Every frame is stored in the notebook and in the page: 256 colours take a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(stream, format="png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")
