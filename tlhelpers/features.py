"""Each photo through the frozen backbone once.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import sqlite3
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from PIL import ImageFile
from PIL import features as pillow

from tlhelpers import images
from tlhelpers.datasets import Dataset
from tlhelpers.downloads import cache_dir
from tlhelpers.engine import KerasEngine, LiteRTEngine, convert, fingerprint, on_gpu
from tlhelpers.images import UnreadablePhoto, resize_image, shown, vary
from tlhelpers.store import KnownFiles, RowStore, look, same

if TYPE_CHECKING:
    import keras

    from tlhelpers.backbones import Backbone

    Progress = bool | Callable[[int, int], object] | None

__all__ = ["extract_features", "predict"]

_FLUSH_SECONDS, _FLUSH_BYTES = 1.0, 2**26  # features are written to disk at least this often


@overload  # one cut point: one array; a list of them: a list of arrays
def extract_features(
    dataset: Dataset, backbone: Backbone, *, cut_point: str | None = None, pool: bool | str = True, variant: int = 0,
    engine: str = "fastest", batch_size: int = 8, dtype: str = "float32", cache: bool = True, progress: Progress = None,
) -> np.ndarray: ...  # fmt: skip
@overload
def extract_features(
    dataset: Dataset, backbone: Backbone, *, cut_point: list[str], pool: bool | str = True, variant: int = 0,
    engine: str = "fastest", batch_size: int = 8, dtype: str = "float32", cache: bool = True, progress: Progress = None,
) -> list[np.ndarray]: ...  # fmt: skip
def extract_features(
    dataset: Dataset, backbone: Backbone, *, cut_point: str | list[str] | None = None, pool: bool | str = True, variant: int = 0,
    engine: str = "fastest", batch_size: int = 8, dtype: str = "float32", cache: bool = True, progress: Progress = None,
) -> np.ndarray | list[np.ndarray]:  # fmt: skip
    """Send each photo through the frozen backbone once.

    Args:
        dataset: `Dataset` of n photos; each is squeezed to `backbone.image_size`.
        backbone: `Backbone`; only its weights up to `cut_point` are used.
        cut_point: name from `backbone.cut_points`, or a list of names; None is the last.
        pool: "average" (True is the same) or "max" over the picture's height and width; False keeps the maps.
        variant: 0 takes photos as they are, 1 to 7 turned or mirrored: see `tlhelpers.images.vary`.
        engine: "fastest", or "keras": half as fast without a GPU, and bit for bit what the network gives while a part of it trains.
        batch_size: photos a step where Keras computes, as on a GPU. LiteRT, which computes on a processor, takes one
            photo at a time on each core. Results change in their last digits at most.
        dtype: "float32", or "float16", which takes half the space and has three digits left: enough for a head.
        cache: keep the features of each photo on disk, and take from there what is known (5 kB a photo; see
            `tlhelpers.cache_dir`). They are known by the photo's content and the network's weights.
        progress: True shows a bar with rate and time left; a function is called with (photos done, photos in all) after
            each step; None does neither.

    Returns:
        array of `dtype`, (n, channels) or, with pool=False, (n, height, width, channels); rows in the order of `dataset`.
        For a list of cut points: a list of such arrays. The row of a photo that cannot be read is nan, and a warning
        names it; `train_head` leaves such rows out. What comes from the cache may be a memory map (`numpy.memmap`): it is read
        from disk as it is used, and what you write into it stays in memory.

    Raises:
        ValueError: `cut_point` is not one of `backbone.cut_points`, the data set is empty, none of its photos can be
            read, there is no such variant, or float16 cannot hold the features.

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=5, seed=0)
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> tl.extract_features(cells, backbone).shape
        (10, 1280)
        >>> stem, top = tl.extract_features(cells, backbone, cut_point=["stem", "top"])
        >>> stem.shape, top.shape
        ((10, 32), (10, 1280))

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    model = backbone.cut(cut_point, pool=pool)
    size, shapes = _shapes(model, dataset, batch_size, variant)
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise ValueError(f"dtype is {dtype!r}; expected 'float32' or 'float16'")
    if engine not in ("fastest", "keras"):
        raise ValueError(f"engine is {engine!r}; expected 'fastest' or 'keras'")
    with _bar(progress) as show, _Kept(model, dataset, shapes, dtype, variant, engine, cache) as kept:
        rows, todo = kept.rows()
        if show is not None and len(todo) < len(dataset):
            show(len(dataset) - len(todo), len(dataset))
        unread = _fill(rows, todo, dataset, size, variant, lambda: kept.engine(batch_size), kept, show)
    for message in (*kept.troubles, *_left_out(dataset, unread)):
        warnings.warn(message, stacklevel=2)
    features = _split(rows, shapes)
    return features[0] if cut_point is None or isinstance(cut_point, str) else features


def predict(
    model: keras.Model, dataset: Dataset, *, variant: int = 0, batch_size: int = 8, progress: Progress = None
) -> np.ndarray | list[np.ndarray]:
    """Send each photo of a data set through a Keras model, batch by batch, reading photos as they are needed.

    Args:
        model: `keras.Model`: RGB 0..255, (n, size, size, 3) → one or several outputs.
        dataset: `Dataset` of n photos; each is squeezed to the size that the model takes.
        variant: 0 takes photos as they are, 1 to 7 turned or mirrored: see `tlhelpers.images.vary`.
        batch_size: photos a step.
        progress: as for `extract_features`.

    Returns:
        float32 array, (n, …), or a list of them where the model has several outputs; rows in the order of `dataset`. The
        row of a photo that cannot be read is nan, and a warning names it.

    Raises:
        ValueError: the data set is empty, none of its photos can be read, there is no such variant, or the model says of
            no single image size that it takes.

    Example:
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=2, seed=0)
        >>> tl.features.predict(backbone.model, cells).shape
        (4, 1280)

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    outputs, unread = run_model(model, dataset, variant=variant, batch_size=batch_size, progress=progress)
    for message in _left_out(dataset, unread):
        warnings.warn(message, stacklevel=2)
    return outputs if isinstance(model.output_shape, list) else outputs[0]


def run_model(model, dataset, *, variant=0, batch_size=8, progress=None):
    """What `predict` does, with one array for each output of the model, and with the photos that could not be read.

    Args:
        model, dataset, variant, batch_size, progress: as for `predict`.

    Returns:
        list of arrays, and a list of (row, reason).
    """
    size, shapes = _shapes(model, dataset, batch_size, variant)
    rows = np.empty((len(dataset), _length(shapes)), np.float32)
    engine = KerasEngine(model, min(batch_size, len(dataset)))
    with _bar(progress) as progress:
        unread = _fill(rows, np.arange(len(dataset)), dataset, size, variant, lambda: engine, None, progress)
    return _split(rows, shapes), unread


def _shapes(model, dataset, batch_size, variant):
    """Side in pixels of the photos that the model takes, and the shapes of what it gives for one."""
    if variant not in range(8):
        raise ValueError(f"variant is {variant!r}; expected 0 to 7")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more photos a step")
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: no photos to send through the network")
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2]:
        raise ValueError(f"the model takes input of shape {shape}; expected (None, size, size, 3) with a fixed size")
    outputs = model.output_shape if isinstance(model.output_shape, list) else [model.output_shape]
    return shape[1], [tuple(output[1:]) for output in outputs]


def _length(shapes):
    return sum(math.prod(shape) for shape in shapes)


def _split(rows, shapes):
    """One array for each output of the network, out of rows that hold one behind the other."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [rows[:, end - math.prod(shape) : end].reshape(-1, *shape) for shape, end in zip(shapes, ends)]


def _fill(rows, todo, dataset, size, variant, start_engine, kept, progress):
    """Compute the rows `todo` of `rows`; returns the photos that could not be read, as (row, reason)."""
    unread = []

    def read(row):
        """One photo as the network takes it, or the reason why it cannot be read."""
        try:
            photo = resize_image(dataset.image(row, at_least=size), size)
            return vary(photo, variant) if variant else photo, None
        except (UnreadablePhoto, OSError) as error:
            return None, getattr(error, "reason", None) or error.strerror or "there is no such file"

    def fail(row, reason):
        rows[row] = np.nan
        unread.append((int(row), reason))

    def work(some):
        """Read some photos and, where the engine can do that in threads, send them through the network."""
        batch, seen, reasons = np.zeros((engine.batch_size, size, size, 3), np.uint8), [], []
        for place, row in enumerate(some):
            before = look(dataset.files[row]) if kept and kept.open else None
            photo, reason = read(row)
            if reason is None:
                batch[place] = photo
            seen.append(same(dataset.files[row], before))
            reasons.append(reason)
        readable = not all(reasons)
        return some, seen, reasons, engine.run(batch) if engine.parallel and readable else batch, readable

    # To start an engine takes seconds: not where nothing that is left can be read.
    while len(todo) and (reason := read(todo[0])[1]) is not None:
        fail(todo[0], reason)
        todo = todo[1:]
    if len(unread) == len(dataset):
        raise ValueError(
            f"{dataset.name}: none of its {len(dataset):,} photos can be read; the first: {_told(dataset, unread[0])}"
        )
    done = len(dataset) - len(todo)
    if unread and progress is not None:
        progress(done, len(dataset))
    if not len(todo):
        return unread
    engine = start_engine()
    groups = [todo[start : start + engine.batch_size] for start in range(0, len(todo), engine.batch_size)]
    with ThreadPoolExecutor(engine.workers) as pool:
        for some, seen, reasons, results, readable in _in_order(pool, work, groups, engine.ahead):
            if readable and not engine.parallel:
                results = engine.run(results)
            for place, (row, looked, reason) in enumerate(zip(some, seen, reasons)):
                if reason is not None:
                    fail(row, reason)
                    continue
                with np.errstate(over="ignore"):
                    rows[row] = np.concatenate([result[place].ravel() for result in results])
                if rows.dtype == np.float16 and np.isinf(rows[row]).any():
                    raise ValueError("features reach more than 65,504, the largest that float16 holds; use dtype='float32'")
                if looked:
                    kept.keep(row, looked)
            done += len(some)
            if progress is not None:
                progress(done, len(dataset))
    return unread


def _in_order(pool, work, groups, ahead):
    """Results of `work`, in order, with at most `ahead` groups under way."""
    waiting = deque()
    try:
        for some in groups:
            waiting.append(pool.submit(work, some))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after an error, or Ctrl-C
        for future in waiting:
            future.cancel()


def _left_out(dataset, unread):
    """What to warn of: a list of one message, or of none."""
    return unread and [
        f"{dataset.name}: {len(unread):,} of {len(dataset):,} photos cannot be read; their rows are nan: "
        + "; ".join(_told(dataset, pair) for pair in unread[:5]) + ("; …" if len(unread) > 5 else "")
    ]


def _told(dataset, pair):
    row, reason = pair
    return f"{shown(dataset.files[row])}: {reason}"


@contextlib.contextmanager
def _bar(progress):
    """The function to call after each step, for what the caller gave."""
    if progress is not True:
        yield progress if callable(progress) else None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("photos, {task.fields[rate]:.0f} a second,"), TimeRemainingColumn())
    with Progress(*columns, TextColumn("left"), console=Console(stderr=True)) as bar:
        task, began = bar.add_task("", total=None, rate=0), None

        def show(done, total):
            nonlocal began
            began = began or (done, time.perf_counter())
            rate = (done - began[0]) / max(time.perf_counter() - began[1], 1e-3)
            bar.update(task, completed=done, total=total, rate=rate)

        yield show


class _Kept:
    """What the cache knows of a data set's features, and what it learns of them; with cache=False, nothing.

    Without space, permission or a sound database features are computed all the same, and `troubles` says so once.
    """

    _engines: OrderedDict = OrderedDict()  # key → converted network, or None where Keras computes: those used last
    _started = None, None  # key and engine of the last one: its memory is laid out, and its weights are packed

    def __init__(self, model, dataset, shapes, dtype, variant, engine, cache):
        self._keras = engine == "keras"
        self._model, self._dataset, self._dtype = model, dataset, np.dtype(dtype)
        self._files = self._store = None
        self._waiting, self._bytes, self._when = [], 0, time.perf_counter()
        self._rows = np.empty((0, _length(shapes)), dtype)
        # The network, and how photos are read: a change in images.py, or of what decodes a JPEG, makes other features.
        reading = Path(images.__file__).read_bytes() + repr([version("pillow"), pillow.version("jpg")]).encode()
        self._key = hashlib.sha256(fingerprint(model).encode() + reading).hexdigest()[:24]
        self.open, self.troubles = False, []
        # A data set that makes its own pictures, by other means than reading a file, has no content to be known by; and a
        # reader that lets cut-off photos pass as whole ones makes features that others must not find.
        if cache and type(dataset).image is Dataset.image and not ImageFile.LOAD_TRUNCATED_IMAGES:
            with self._caring():
                folder = cache_dir() / "features"
                kind = f"{self._dtype.name}-variant-{variant}" if variant else self._dtype.name
                kind += "-keras" if self._keras else ""
                self._store = RowStore(folder / f"{model.name}-{self._key}-{kind}", _length(shapes), dtype)
                self._files = KnownFiles(folder)
                self.open = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.ExitStack() as closing:
            for part in filter(None, (self._files, self._store)):
                closing.callback(part.close)
            self._flush()  # also after Ctrl-C: what is finished stays

    @contextlib.contextmanager
    def _caring(self):
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            self.open = False
            reason = getattr(error, "strerror", None) or error
            self.troubles.append(
                f"features cannot be kept on disk ({reason}); `tlhelpers cache` says where and how much there is, "
                "`tlhelpers cache --clear` makes space"
            )

    def rows(self):
        """All rows, (n, length), those that are known filled in; and the places of the others, int array."""
        n, length = len(self._dataset), self._rows.shape[1]
        with self._caring():
            if self.open:
                places = self._store.find(self._digests())
                if (places >= 0).all():
                    return self._store.read(places), np.arange(0)
                self._rows, known = np.empty((n, length), self._dtype), np.flatnonzero(places >= 0)
                self._rows[known] = self._store.read(places[known])
                return self._rows, np.flatnonzero(places < 0)
        self._rows = np.empty((n, length), self._dtype)
        return self._rows, np.arange(n)

    def _digests(self):
        """Of each file, None where it cannot be read. Those of which nothing is known are read, in several threads."""
        files = self._dataset.files
        digests = self._files.digests(files)
        unknown = [row for row, known in enumerate(digests) if known is None]
        if unknown and len(self._store):  # else none of them has a row
            with ThreadPoolExecutor(4) as pool:
                looked = list(_in_order(pool, look, [files[row] for row in unknown], 64))
            for row, found in zip(unknown, looked):
                digests[row] = found and found[1]
            self._files.remember([(files[row], found) for row, found in zip(unknown, looked) if found])
        return digests

    def engine(self, batch_size):
        """What computes: LiteRT, or Keras where that is better, or asked for, or the only one that can."""
        if self._keras:
            return KerasEngine(self._model, min(batch_size, len(self._dataset)))
        if self._key not in self._engines:
            self._engines[self._key] = None  # Keras, with the model of each call: one kept from before may have been trained
            if not on_gpu():
                try:
                    self._engines[self._key] = convert(self._model)
                except ValueError as error:
                    self.troubles.append(f"{self._model.name}: LiteRT cannot run it ({error}); Keras does, which is slower")
            while len(self._engines) > 4:
                self._engines.popitem(last=False)
        self._engines.move_to_end(self._key)
        network = self._engines[self._key]
        if network is None:
            return KerasEngine(self._model, min(batch_size, len(self._dataset)))
        key, engine = _Kept._started
        if key != self._key:
            _Kept._started = None, None  # first, so that never two are in memory
            engine = LiteRTEngine(network)
            _Kept._started = self._key, engine
        return engine

    def keep(self, row, looked):
        """Keep a row that has been computed; it reaches the disk with its neighbours, soon and at the end."""
        self._waiting.append((row, looked))
        self._bytes += self._rows.shape[1] * self._dtype.itemsize
        if self._bytes > _FLUSH_BYTES or time.perf_counter() - self._when > _FLUSH_SECONDS:
            self._flush()

    def _flush(self):
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        with self._caring():
            if waiting and self.open:
                self._store.add([looked[1] for _, looked in waiting], self._rows[[row for row, _ in waiting]])
                self._files.remember([(self._dataset.files[row], looked) for row, looked in waiting])
        self._when = time.perf_counter()
