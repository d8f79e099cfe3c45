"""Each photo through the frozen backbone once.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tlhelpers.downloads import cache_dir
from tlhelpers.images import UnreadablePhoto, resize_image, shown

__all__ = ["extract_features", "predict"]


def extract_features(dataset, backbone, *, cut_point=None, pool=True, batch_size=8, cache=False, progress=None):
    """Send each photo through the frozen backbone once.

    Args:
        dataset: `Dataset` of n photos; each is squeezed to `backbone.image_size`.
        backbone: `Backbone`; only its weights up to `cut_point` are used.
        cut_point: name from `backbone.cut_points`, or a list of names; None is the last.
        pool: average over the picture's height and width.
        batch_size: photos a step; memory grows with it, results do not change. On a CPU small is fast: what one step
            computes then stays in the processor's cache.
        cache: keep the features of each photo on disk, and take from there what is known (5 kB a photo; see
            `tlhelpers.cache_dir`). They are known by the photo's content and the network's weights.
        progress: function that is called with (photos done, photos in all) after each step; None calls nothing.

    Returns:
        float32 array, (n, channels) or, with pool=False, (n, height, width, channels); rows in the order of `dataset`.
        For a list of cut points: a list of such arrays. The row of a photo that cannot be read is nan, and a warning
        names it; `train_head` leaves such rows out.

    Raises:
        ValueError: `cut_point` is not one of `backbone.cut_points`, the data set is empty, or none of its photos can be
            read.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    model = backbone.cut(cut_point, pool=pool)
    store = _Store(model) if cache else None
    features, unread = run_model(model, dataset, batch_size=batch_size, progress=progress, store=store)
    _warn(dataset, unread)
    return features[0] if cut_point is None or isinstance(cut_point, str) else features


def predict(model, dataset, *, batch_size=8, progress=None):
    """Send each photo of a data set through a Keras model, batch by batch, reading photos as they are needed.

    Args:
        model: `keras.Model`: RGB 0..255, (n, size, size, 3) → one or several outputs.
        dataset: `Dataset` of n photos; each is squeezed to the size that the model takes.
        batch_size: photos a step.
        progress: function that is called with (photos done, photos in all) after each step; None calls nothing.

    Returns:
        float32 array, (n, …), or a list of them where the model has several outputs; rows in the order of `dataset`. The
        row of a photo that cannot be read is nan, and a warning names it.

    Raises:
        ValueError: the data set is empty, none of its photos can be read, or the model says of no single image size that
            it takes.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    outputs, unread = run_model(model, dataset, batch_size=batch_size, progress=progress)
    _warn(dataset, unread)
    return outputs if isinstance(model.output_shape, list) else outputs[0]


def run_model(model, dataset, *, batch_size=8, progress=None, store=None):
    """What `predict` does, with one array for each output of the model, and with the photos that could not be read.

    Args:
        model, dataset, batch_size, progress: as for `predict`.
        store: `_Store`: what it knows is not computed a second time; None keeps nothing.

    Returns:
        list of arrays, and a list of (row, reason).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more photos a step")
    if len(dataset) == 0:
        raise ValueError(f"{dataset.name}: no photos to send through the network")
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2]:
        raise ValueError(f"the model takes input of shape {shape}; expected (None, size, size, 3) with a fixed size")
    single = not isinstance(model.output_shape, list)
    output_shapes = [model.output_shape] if single else model.output_shape
    outputs = [np.full((len(dataset), *output_shape[1:]), np.nan, np.float32) for output_shape in output_shapes]
    todo = np.arange(len(dataset)) if store is None else store.fill(outputs, dataset)
    unread = []
    if progress and len(todo) < len(dataset):
        progress(len(dataset) - len(todo), len(dataset))

    def read(rows):
        """One batch, always of the same shape: another would make TensorFlow trace the model a second time. Never of one
        photo, which TensorFlow computes in another way, with other last digits."""
        batch, good = np.zeros((max(2, min(batch_size, len(dataset))), *shape[1:]), np.float32), []
        for place, row in enumerate(rows):
            try:
                batch[place] = resize_image(dataset.image(row, at_least=shape[1]), shape[1])
                good.append(place)
            except (UnreadablePhoto, OSError) as error:
                unread.append((int(row), getattr(error, "reason", "there is no such file")))
        return batch, good

    batches = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    with ThreadPoolExecutor(1) as reader:  # reads the next batch while the network works on this one
        waiting = reader.submit(read, batches[0]) if batches else None
        for number, rows in enumerate(batches):
            batch, good = waiting.result()
            if number + 1 < len(batches):
                waiting = reader.submit(read, batches[number + 1])
            results = model.predict_on_batch(batch)
            for output, result in zip(outputs, [results] if single else results):
                output[rows[good]] = result[good]
            if store is not None:
                store.keep(outputs, dataset, rows[good])
            if progress:
                progress(len(dataset) - len(todo) + number * batch_size + len(rows), len(dataset))
    if len(unread) == len(dataset):
        raise ValueError(
            f"{dataset.name}: none of its {len(dataset):,} photos can be read; the first: {_told(dataset, unread[0])}"
        )
    return outputs, unread


def _warn(dataset, unread):
    if unread:
        warnings.warn(
            f"{dataset.name}: {len(unread):,} of {len(dataset):,} photos cannot be read; their rows are nan: "
            + "; ".join(_told(dataset, pair) for pair in unread[:5]) + ("; …" if len(unread) > 5 else ""),
            stacklevel=3,
        )


def _told(dataset, pair):
    row, reason = pair
    return f"{shown(dataset.files[row])}: {reason}"


class _Store:
    """One small file a photo in the cache folder, named by the photo's content, in a folder named by the network's.

    Each is written whole or not at all, so that neither a killed process nor a second one at work can leave half a row.
    """

    def __init__(self, model):
        versions = [version(name) for name in ("tlhelpers", "keras", "pillow")]
        key = hashlib.sha256(f"{versions} {model.input_shape} {model.output_shape}".encode())
        for layer in model.layers:  # without names: a second copy of a network has others
            key.update(repr((type(layer).__name__, sorted((layer.get_config() | {"name": ""}).items()))).encode())
        for weight in model.weights:
            key.update(weight.numpy().tobytes())
        self.folder = cache_dir() / "features" / key.hexdigest()[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names = {}

    def _path(self, dataset, row):
        if row not in self.names:
            with open(dataset.files[row], "rb") as file:  # its content as it is now
                self.names[row] = hashlib.file_digest(file, "sha256").hexdigest()
        return self.folder / f"{self.names[row]}.npy"

    def fill(self, outputs, dataset):
        """Put what is known into `outputs`; returns the rows that are not, int array."""
        unknown = []
        for row in range(len(dataset)):
            try:
                kept = np.load(self._path(dataset, row), allow_pickle=False)
            except (OSError, ValueError, EOFError):  # not there, or damaged: computed again
                kept = np.empty(0)
            if kept.shape != (sum(output[row].size for output in outputs),):
                unknown.append(row)
                continue
            start = 0
            for output in outputs:
                output[row] = kept[start : start + output[row].size].reshape(output[row].shape)
                start += output[row].size
        return np.array(unknown, dtype=np.int64)

    def keep(self, outputs, dataset, rows):
        for row in rows:
            path = self._path(dataset, row)
            try:
                with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                    try:
                        np.save(file, np.concatenate([output[row].ravel() for output in outputs]))
                        file.close()
                        os.replace(file.name, path)
                    finally:  # also after Ctrl-C
                        Path(file.name).unlink(missing_ok=True)
            except OSError as error:  # a full disk: the features are computed all the same
                warnings.warn(f"{shown(self.folder)}: features cannot be kept ({error.strerror}); free some space", stacklevel=4)
                return
