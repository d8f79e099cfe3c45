"""The package as it is published: what is in the wheel and in the sdist, what they say of themselves, one version everywhere.

That it installs and works without the book's environment is tested with the folder of wheels: tests/test_wheelhouse.py.
"""

import ast
import email
import inspect
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import tlhelpers as tl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted(path.stem for path in (ROOT / "tlhelpers").glob("*.py") if path.stem != "__init__")


def build(folder, out, *which):
    """Build with hatchling, which is in the environment: nothing is fetched."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(out), *which], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


def contents(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def test_one_wheel_for_every_system_and_one_sdist(dist):
    assert sorted(path.name for path in dist.iterdir()) == [
        f"tlhelpers-{tl.__version__}-py3-none-any.whl", f"tlhelpers-{tl.__version__}.tar.gz",
    ]  # fmt: skip


def test_the_wheel_has_all_of_the_package_and_nothing_else(dist):
    files = contents(next(dist.glob("*.whl")))
    package = {name for name in files if ".dist-info/" not in name}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tlhelpers").iterdir() if path.is_file()}
    assert package == there
    assert {"tlhelpers/py.typed", "tlhelpers/exercises.toml", "tlhelpers/book.mplstyle"} < package
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in files)


def test_a_wheel_made_from_the_sdist_is_the_same(dist, tmp_path):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as file:
        file.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert {"tests", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} < {path.name for path in source.iterdir()}
    build(source, tmp_path / "again", "-t", "wheel")
    assert contents(next((tmp_path / "again").glob("*.whl"))) == contents(next(dist.glob("*.whl")))


def test_the_metadata_are_complete_and_the_readme_is_the_long_description(dist):
    files = contents(next(dist.glob("*.whl")))
    message = email.message_from_bytes(next(text for name, text in files.items() if name.endswith(".dist-info/METADATA")))
    assert message["Name"] == "tlhelpers" and message["Version"] == tl.__version__
    assert set(message["Requires-Python"].split(",")) == set(PROJECT["requires-python"].split(","))
    assert message["License-Expression"] == "MIT"
    assert message["Summary"] and message["Keywords"] and message["Author"]
    assert "Typing :: Typed" in message.get_all("Classifier")
    assert message["Description-Content-Type"] == "text/markdown"
    assert message.get_payload(decode=True).decode().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    needs = message.get_all("Requires-Dist")
    plain = {re.match(r"[\w-]+", need)[0] for need in needs if "extra ==" not in need}
    assert plain == {re.match(r"[\w-]+", need)[0] for need in PROJECT["dependencies"]}
    assert set(message.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    entry = next(text for name, text in files.items() if name.endswith("entry_points.txt")).decode()
    assert "tlhelpers = tlhelpers.cli:main" in entry


def test_one_version_in_the_package_the_citation_and_the_changelog():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version, date = re.search(r"^version: (\S+)$", citation, re.M)[1], re.search(r"^date-released: (\S+)$", citation, re.M)[1]
    assert version == tl.__version__
    releases = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert releases[0] == (version, date)


def test_each_import_of_the_package_is_a_dependency_that_it_names():
    """Else it works here, where everything is, and fails where only what it names is installed."""
    named = {re.match(r"[\w-]+", need)[0] for need in PROJECT["dependencies"]}
    called = {"PIL": "pillow", "sklearn": "scikit-learn", "ai_edge_litert": "ai-edge-litert"}
    extras = {"tensorflow_datasets"}  # asked for by name: load_dataset("tfds:…"), in the extra tfds
    for path in (ROOT / "tlhelpers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - extras - {"tlhelpers"}:
                assert called.get(top, top) in named, f"{path.name}: {top}"


def public_callables():
    for module in MODULES:
        if module == "cli":  # its functions are called by click
            continue
        home = import_module(f"tlhelpers.{module}")
        for name in home.__all__:
            thing = getattr(home, name)
            if inspect.isclass(thing):
                for method, function in vars(thing).items():
                    function = getattr(function, "fget", None) or getattr(function, "func", None) or function  # properties
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield pytest.param(function, id=f"{module}.{name}.{method}")
            elif callable(thing):
                yield pytest.param(inspect.unwrap(thing), id=f"{module}.{name}")


@pytest.mark.parametrize("function", list(public_callables()))
def test_every_argument_and_result_of_a_public_function_has_a_type(function):
    if function.__module__.startswith("tlhelpers"):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        for name, argument in signature.parameters.items():
            assert name == "self" or argument.annotation is not inspect.Parameter.empty, name
