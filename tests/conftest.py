"""What several test files share: real networks and real data sets, each loaded once a run."""

import gc
import os
import signal
import tempfile

# What another run kept on disk must not answer for this one.
_CACHE = tempfile.TemporaryDirectory(prefix="tlhelpers-tests-")
os.environ["TLHELPERS_CACHE"] = _CACHE.name
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Logistic regression multiplies small matrices: a second thread of OpenBLAS only waits, for several times as long as the
# work takes. train_head sees to that itself, but these tests also call scikit-learn. To be set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest

# Building networks makes millions of small objects, few of which are garbage: looking for it takes a twentieth of these tests' time.
gc.set_threshold(100_000, 20, 100)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it, and so would its children

import tlhelpers as tl


def pytest_configure(config):
    # Keras 3.15 on NumPy 2: hundreds of times, and nothing that we could mend
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


# Files that take longest come first, so that no worker is left with one of them at the end. (test_audit before test_cli, whose command
# makes TensorFlow deterministic for the rest of its process.)
_LONGEST = (
    "browser", "finetuning", "audit", "cli", "guards", "decision_map", "store", "engine", "hostile", "audit_book", "benchmarks", "assignments",
    "keras_backbones", "heads",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {f"test_{name}.py": number for number, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def lite0():
    """EfficientNet-Lite0 at the size it was trained for, 224 pixels."""
    return tl.load_backbone("efficientnet_lite0")


@pytest.fixture(scope="session")
def small():
    """The same network for photos of 64 pixels: twelve times less to compute."""
    return tl.load_backbone("efficientnet_lite0", image_size=64)


@pytest.fixture(scope="session")
def solar():
    return tl.load_dataset("solar_cells")


@pytest.fixture(scope="session")
def faces():
    return tl.load_dataset("faces")


@pytest.fixture(scope="session")
def textiles():
    return tl.load_dataset("textiles")


@pytest.fixture(scope="session")
def cells(solar):
    """Ten functional and ten defective solar cells."""
    return solar.sample(per_class=10, seed=0)


@pytest.fixture(scope="session")
def cell_features(cells, small):
    return tl.extract_features(cells, small)


@pytest.fixture(scope="session")
def cell_photos(cells):
    """The 20 cells as a network takes them, without `extract_features`: float32, (20, 64, 64, 3)."""
    return np.stack([tl.resize_image(cells.image(row), 64) for row in range(len(cells))]).astype(np.float32)
