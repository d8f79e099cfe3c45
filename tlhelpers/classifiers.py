"""Backbone and head together: a plain keras.Model, and the file it is kept in.

The file is Keras's own, a zip that any program with Keras loads. One more member stands in it, `tlhelpers.json`, with
what Keras does not keep: the names of the classes.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import json
import os
import uuid
import zipfile
from collections.abc import Collection, Iterable
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlhelpers.backbones import Backbone, with_head
from tlhelpers.heads import Head

if TYPE_CHECKING:
    import keras

__all__ = ["build_classifier", "load_classifier", "save_classifier"]

_MEMBER = "tlhelpers.json"
_MEMBER_LIMIT = 10_000_000  # bytes: half a million training photos
_EXPANSION_LIMIT = 100  # Keras does not compress; what unpacks to more than this many times its size is no classifier


def build_classifier(backbone: Backbone, class_names: Iterable[str], *, head: Head | None = None) -> keras.Model:
    """Put a new last layer on a copy of the backbone.

    The copy has weights of its own: training the classifier leaves `backbone` as it was. All layers of the copy are
    frozen, the new last layer is not.

    Args:
        backbone: `Backbone`.
        class_names: k names, in the order of the labels.
        head: what `train_head` returned; None starts with zeros, so that all classes are equally probable.

    Returns:
        `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → probabilities, float32, (n, k). Layer "logits" is
        the new last layer, "probabilities" its softmax; the others are named as in `backbone.model`.
        `classifier.class_names` has the names, `classifier.backbone_name` that of the backbone.

    Raises:
        ValueError: head and class names, or head and backbone, do not fit each other.

    Example:
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> classifier = tl.build_classifier(backbone, ["functional", "defective"])
        >>> classifier.output_shape, classifier.class_names
        ((None, 2), ('functional', 'defective'))
        >>> photos = np.zeros((1, 64, 64, 3), np.float32)
        >>> classifier.predict(photos, verbose=0)
        array([[0.5, 0.5]], dtype=float32)

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    import keras

    class_names = tuple(str(name) for name in class_names)
    if len(class_names) < 2 or len(set(class_names)) < len(class_names):
        raise ValueError(f"class_names is {class_names}; expected at least two names, all different")
    shape = (backbone.feature_size, len(class_names))
    kernel = np.zeros(shape, np.float32) if head is None else head.kernel
    bias = np.zeros(shape[1], np.float32) if head is None else head.bias
    if kernel.shape != shape:
        raise ValueError(
            f"the head takes {kernel.shape[0]} features to {kernel.shape[1]} classes, but {backbone.name} gives "
            f"{shape[0]} features and there are {shape[1]} class names; train the head on features of this backbone, "
            "last cut point, with the labels of these classes"
        )
    network = keras.models.clone_model(backbone.model)
    network.set_weights(backbone.model.get_weights())
    network.trainable = False
    classifier = with_head(network, kernel, bias, name=f"{backbone.name}_classifier")
    classifier.class_names = class_names
    classifier.backbone_name = backbone.name
    return classifier


def save_classifier(classifier: keras.Model, path: str | PathLike, *, trained_on: Collection[str] = ()) -> Path:
    """Save a classifier with its class names, in a file that plain Keras loads (`keras.models.load_model`).

    The file is written whole or not at all: until the new one is complete, the old one stays.

    Args:
        classifier: `keras.Model` with `class_names`, as `build_classifier` makes it.
        path: where to; must end in `.keras`.
        trained_on: SHA-256 of the training photos' files, in hexadecimal, so that they are known again when somebody tests
            the classifier on them; the first 16 digits of each are kept.

    Returns:
        `Path` of the file. It is a zip; its member `tlhelpers.json` holds `class_names` (list), `image_size` (side in
        pixels), `backbone` (its name, or null) and `tlhelpers` (the version that wrote it). Saved again by Keras, the
        file loses this member.

    Raises:
        ValueError: the path does not end in `.keras`, or the classifier has no class names or not one for each output.
        FileNotFoundError: there is no such folder.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> classifier = tl.build_classifier(backbone, ["functional", "defective"])
        >>> with TemporaryDirectory() as folder:
        ...     path = tl.save_classifier(classifier, Path(folder) / "cells.keras")
        ...     again = tl.load_classifier(path)
        >>> path.name, again.class_names, again.backbone_name
        ('cells.keras', ('functional', 'defective'), 'efficientnet_lite0')

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    path = Path(path)
    if path.suffix != ".keras" or path.is_dir():
        raise ValueError(f"{path}: expected the name of a file that ends in .keras, for example {path.stem or 'model'}.keras")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")
    fault = _fault_of_model(classifier)
    if fault:
        raise ValueError(f"{path}: not saved: {fault}")
    if getattr(classifier, "class_names", None) is None:
        raise ValueError(
            f"{path}: not saved: the classifier has no class names; set classifier.class_names to a list of names in "
            "the order of the labels"
        )
    facts = {
        "class_names": [str(name) for name in classifier.class_names],
        "image_size": classifier.input_shape[1],
        "backbone": getattr(classifier, "backbone_name", None),
        "tlhelpers": version("tlhelpers"),
    }
    if len(trained_on):
        facts["trained_on"] = sorted({str(digest)[:16] for digest in trained_on})
    fault = _fault_of_facts(facts, classifier)
    if fault:
        raise ValueError(f"{path}: not saved: {fault}")
    # In the same folder: only within one file system is replacing a single step.
    part = path.with_name(f".tlhelpers-{uuid.uuid4().hex}.part.keras")
    try:
        classifier.save(part)
        with zipfile.ZipFile(part, "a") as file:
            member = zipfile.ZipInfo(_MEMBER)  # dated 1980: no clock in it
            file.writestr(member, json.dumps(facts, indent=1))
        os.replace(part, path)
    finally:  # after an error, or Ctrl-C
        part.unlink(missing_ok=True)
    return path


def load_classifier(path: str | PathLike, *, compile: bool = False) -> keras.Model:
    """Load a classifier that `save_classifier`, or Keras, has saved.

    Such a file can hold code of its own (a Lambda layer), which would run on your machine and could do anything there.
    Keras refuses that (`safe_mode`), and so does this function; `keras.models.load_model(path, safe_mode=False)` does
    not.

    Args:
        path: file that ends in `.keras`.
        compile: also make the loss and the optimiser that it was saved with, if it was.

    Returns:
        `keras.Model`, not compiled unless asked for: RGB 0..255, (n, image_size, image_size, 3) → probabilities, float32, (n, k).
        `class_names` is a tuple of k names, and `backbone_name` that of its backbone; both are None for a file that
        Keras alone has saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no classifier that can be loaded, or holds code; the message names it and says what to
            do.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    import keras

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the path")
    if path.suffix != ".keras":
        raise ValueError(f"{path}: expected a file that ends in .keras, as save_classifier and Keras write it")
    try:
        facts = _read_facts(path)
        classifier = keras.models.load_model(path, compile=compile, safe_mode=True)
    except Exception as error:  # a damaged or hostile file can fail in any way
        if "safe_mode" in str(error) or "Could not locate" in str(error):
            raise ValueError(
                f"{path}: it needs code that does not come with Keras (a Lambda layer, or a class of its own), and code "
                "from a file could do anything on this machine: not loaded; ask for a model of Keras's own layers alone"
            ) from error
        raise ValueError(
            f"{path}: not a classifier that Keras can load, or damaged ({_first_line(error)}); copy it again from where "
            "it comes from, or make it anew with save_classifier"
        ) from error
    fault = _fault_of_model(classifier) or (facts is not None and _fault_of_facts(facts, classifier))
    if fault:
        raise ValueError(f"{path}: {fault}; make the file anew with save_classifier")
    classifier.class_names = None if facts is None else tuple(facts["class_names"])
    classifier.backbone_name = None if facts is None else facts.get("backbone")
    classifier.trained_on = frozenset(() if facts is None else facts.get("trained_on", ()))
    return classifier


def _read_facts(path):
    """What `tlhelpers.json` says, unchecked; None where there is none."""
    with zipfile.ZipFile(path) as file:
        members = {member.filename: member for member in file.infolist()}
        if sum(member.file_size for member in file.infolist()) > _EXPANSION_LIMIT * path.stat().st_size:
            raise ValueError("it would unpack to far more than it holds")
        if _MEMBER not in members:
            return None
        size = members[_MEMBER].file_size
        if size > _MEMBER_LIMIT:
            raise ValueError(f"{_MEMBER} in it has {size:,} bytes; expected at most {_MEMBER_LIMIT:,}")
        try:
            facts = json.loads(file.read(_MEMBER))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{_MEMBER} in it is not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{_MEMBER} in it holds a {type(facts).__name__}; expected an object with class_names")
    return facts


def _fault_of_model(model):
    """Why this is no classifier of photos, as part of a sentence; None where all is well."""
    import keras

    if not isinstance(model, keras.Model):
        return f"it is a {type(model).__name__}; expected a keras.Model"
    taken, given = model.input_shape, model.output_shape
    photos = isinstance(taken, tuple) and len(taken) == 4 and taken[1] == taken[2] and taken[3] == 3
    if not photos or not isinstance(given, tuple) or len(given) != 2:
        return f"the model takes {taken} to {given}; expected (None, image_size, image_size, 3) to (None, classes)"
    return None


def _fault_of_facts(facts, classifier):
    names, size = facts.get("class_names"), classifier.input_shape[1]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return "class_names is no list of names, all different"
    if len(names) != classifier.output_shape[1]:
        return f"there are {len(names)} class names for {classifier.output_shape[1]} outputs"
    known = facts.get("trained_on", [])
    if not isinstance(known, list) or not all(isinstance(digest, str) for digest in known):
        return f"trained_on in {_MEMBER} is no list of texts"
    if facts.get("image_size") != size or not isinstance(facts.get("backbone"), (str, type(None))):
        return f"image_size or backbone in {_MEMBER} does not fit the model, which takes photos of {size} pixels"
    return None


def _first_line(error):
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:300]
