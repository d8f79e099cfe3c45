"""Run notebooks and keep their outputs: `make notebooks`, or with paths of notebooks to run only those.

A notebook is rewritten only when all its cells ran. What TensorFlow says to standard error as it starts is dropped; any
other message there is a fault that a reader would see, and stops the run. Figures are kept with 256 colours where that
cannot be seen: a drawing then takes a third of the bytes. The notebook keeps the day on which it was run, and a hash of
the code that gave its outputs.
"""

import base64
import hashlib
import io
import re
import sys
from datetime import date
from pathlib import Path

import make_exercises
import nbformat
from nbclient import NotebookClient
from PIL import Image, ImageChops, ImageStat

START_UP = re.compile(
    r"absl::InitializeLog|cudart_stub|cuda_platform|cpu_feature_guard|oneDNN|rebuild TensorFlow|To enable the following"
)
ROOT = Path(__file__).parents[2]


def code_hash(notebook):
    """SHA-256 of all code: outputs stand beside the code that gave them as long as it stays the same."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def smaller(picture):
    """The PNG `picture`, as bytes, with 256 colours if that is smaller and changes a value by less than 0.2 of 255 on the mean."""
    full = Image.open(io.BytesIO(picture))
    if full.mode == "P" or full.convert("RGBA").getextrema()[3][0] < 255:
        return picture
    few = full.convert("RGB").quantize(256, dither=Image.Dither.NONE, kmeans=2)
    apart = ImageStat.Stat(ImageChops.difference(full.convert("RGB"), few.convert("RGB"))).mean
    written = io.BytesIO()
    few.save(written, "png", optimize=True)
    return min(picture, written.getvalue(), key=len) if sum(apart) / 3 < 0.2 else picture


def shrink_figures(notebook):
    """Keep the figures in the outputs of `notebook` with 256 colours, where `smaller` does."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        if text := output.get("data", {}).get("image/png"):
            output.data["image/png"] = base64.b64encode(smaller(base64.b64decode(text))).decode("ascii")


def run(path):
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stderr":
                lines = [line for line in output.text.splitlines() if line.strip() and not START_UP.search(line)]
                if lines:
                    raise SystemExit(f"{path}: a cell writes to standard error:\n" + "\n".join(lines))
            elif kept and output.get("name") == "stdout" and kept[-1].get("name") == "stdout":
                kept[-1].text += output.text  # one stream may arrive in pieces
            else:
                kept.append(output)
        cell.outputs = kept
    shrink_figures(notebook)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["book"] = {"run": date.today().isoformat(), "code": code_hash(notebook)}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    folders = (ROOT / "notebooks", ROOT / "notebooks" / "solutions")
    for path in [Path(name) for name in sys.argv[1:]] or [path for f in folders for path in sorted(f.glob("*.ipynb"))]:
        print(path, end=": ", flush=True)
        run(path)
        print("done")
    make_exercises.main()
