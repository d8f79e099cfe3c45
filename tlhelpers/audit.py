"""What is wrong with this model and this data? Traps that no error message tells of, looked for by measuring.

The texts stand in `audit.toml` beside this file: for each check what is found, why it matters, how to mend it, and the place
in the trap lab. The measurements of the model are those of `probes`.

Explained in notebooks/16_trap_lab.ipynb.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlhelpers import probes
from tlhelpers.datasets import Dataset, load_dataset
from tlhelpers.duplicates import find_duplicates
from tlhelpers.heads import train_head
from tlhelpers.images import resize_image, shown

if TYPE_CHECKING:
    import keras
    import tensorflow

__all__ = ["Audit", "Finding", "audit"]

_SEVERITIES = ("fault", "warning", "note")
_SMALL = 128  # pixels: photos of a tf.data.Dataset are kept so small, to be compared with one another
_FEW = 32  # photos for measurements step by step
_PIXELS = 16  # side of the raw photos that a head is fitted to, to compare with
_SHOWN = 6  # photos shown with a finding in a notebook


@dataclass(frozen=True)
class Finding:
    """One thing that the audit has found.

    Attributes:
        check: name of the check.
        severity: "fault" (a number is wrong, or will be), "warning" (look at it), "note" (good to know).
        what: what was found, in a sentence.
        evidence: name → number or text: what was measured.
        why: why it matters.
        mend: how to mend it.
        section: where the trap is explained and can be tried out.
        photos: the photos concerned: files, or "test[3]" for the fourth of a `tf.data.Dataset`.
        fingerprint: 12 hexadecimal digits that stay the same for the same finding, whatever the run, the order of the
            files, the seed, and the machine.

    Explained in notebooks/16_trap_lab.ipynb.
    """

    check: str
    severity: str
    what: str
    evidence: dict[str, Any]
    why: str
    mend: str
    section: str
    photos: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True, repr=False)
class Audit:
    """What `audit` has found, the gravest first.

    Attributes:
        findings: tuple of `Finding`.
        checked: names of the checks that could be made with this model and this data.
        n_train: training photos.
        n_test: test photos.
        left_out: tuple of (file, reason): photos that could not be read.

    Example:
        >>> print(tl.Audit(findings=(), checked=("overlap",), n_train=12, n_test=4))
        nothing found (1 check, 12 training and 4 test photos)

    Explained in notebooks/16_trap_lab.ipynb.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    n_train: int
    n_test: int
    left_out: tuple[tuple[str, str], ...] = ()
    _pictures: dict[str, list[bytes]] = field(default_factory=dict, compare=False)

    @property
    def ok(self) -> bool:
        """True where no fault was found; there may be warnings and notes."""
        return not any(finding.severity == "fault" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """All of it as dictionaries and lists, for JSON."""
        return {
            "ok": self.ok, "findings": [{**asdict(finding), "photos": list(finding.photos)} for finding in self.findings],
            "checked": list(self.checked), "n_train": self.n_train, "n_test": self.n_test,
            "left_out": [{"file": file, "reason": reason} for file, reason in self.left_out],
        }  # fmt: skip

    def to_json(self) -> str:
        """The same as a text."""
        return json.dumps(self.to_dict(), indent=2)

    def _summary(self):
        counts = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{counts[name]} {name}{'s' * (counts[name] > 1)}" for name in _SEVERITIES if counts[name]) or "nothing found"
        checks = f"{len(self.checked)} check{'s' * (len(self.checked) != 1)}"
        return f"{found} ({checks}, {self.n_train:,} training and {self.n_test:,} test photos)"

    def __str__(self):
        lines = [self._summary()]
        for finding in self.findings:
            lines += ["", f"{finding.severity.upper():<8}{finding.check}  [{finding.fingerprint}]", f"  what  {finding.what}"]
            lines += [f"  why   {finding.why}", f"  mend  {finding.mend}", f"  see   {finding.section}"]
            if finding.photos:
                more = len(finding.photos) - _SHOWN
                lines += [f"  photos  {', '.join(finding.photos[:_SHOWN])}" + (f" … and {more:,} more" if more > 0 else "")]
        return "\n".join(lines)

    def __repr__(self):
        return f"<Audit: {self._summary()}>"

    def _repr_html_(self):
        rows, style = [], 'style="text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere"'
        for finding in self.findings:
            pictures = "".join(
                f'<img alt="The photo {html.escape(Path(name).stem)}, one of those that this finding is about" '
                f'title="{html.escape(Path(name).name)}" width="64" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
                for name, picture in zip(finding.photos, self._pictures.get(finding.fingerprint, ()))
            )
            cells = [f"{finding.severity}<br><code>{finding.check}</code>", html.escape(finding.what) + f"<br>{pictures}" * bool(pictures)]
            cells += [html.escape(finding.why), html.escape(finding.mend)]
            rows.append("<tr>" + "".join(f"<td {style}>{cell}</td>" for cell in cells) + "</tr>")
        head = "".join(f"<th>{name}</th>" for name in ("finding", "what", "why it matters", "how to mend it"))
        table = '<table style="table-layout: fixed; width: 100%; min-width: 40em">'
        table += f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        scrolls = '<div tabindex="0" role="region" aria-label="Findings of the audit" style="overflow-x: auto">'  # by keyboard, too
        return f"<p>{html.escape(self._summary())}</p>{f'{scrolls}{table}</div>' if rows else ''}"


def audit(
    model: keras.Model, train: Dataset | str | PathLike | tensorflow.data.Dataset,
    test: Dataset | str | PathLike | tensorflow.data.Dataset, *, preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    image_size: int | None = None, max_photos: int = 400,
) -> Audit:  # fmt: skip
    """Look for what is wrong with a model and the photos it was trained and tested on.

    The model may be anybody's: functional, a Sequential with a network inside, subclassed. Nothing in it is changed: all
    variables are put back bit for bit, those of the optimiser too. A `tf.data.Dataset` is only read: train once, test twice.

    Found are: BatchNorm layers that drift though meant to be frozen, flags that the compiled step does not know, photos in a
    wrong range or scaled twice, red and blue exchanged, activation and loss that do not fit, copies of test photos among the
    training photos, test sets that change from pass to pass, classes in another order, a model that says one class, constant,
    random or dead outputs, outputs that depend on the batch, a network that raw pixels beat. What cannot be seen from model
    and data, such as epochs chosen on the test set, is not found; nor is an augmentation that repeats itself in each pass, as
    `tf.image` in a `tf.data.Dataset` does after `keras.utils.set_random_seed`.

    Args:
        model: `keras.Model`, built, one output, (n, k): for k = 1 the probability or logit of class 1. `model.class_names`
            is compared with the data if it is there.
        train: what it was trained on: `Dataset`, a folder with one subfolder a class, or `tf.data.Dataset` of batches
            (photos, labels), labels as whole numbers or one-hot.
        test: what it was tested on, likewise.
        preprocess: of photos from files: function that is given float32, (n, size, size, 3), RGB 0..255, and returns what
            the model takes; None where the model does that itself.
        image_size: side in pixels, for photos from files and a model that takes any size.
        max_photos: so many of each side at most are sent through the network, chosen by their content; copies are looked for
            among all.

    Returns:
        `Audit`. It prints as a text and shows as a table, with photos, in a notebook.

    Raises:
        TypeError: model, train or test is none of these.
        ValueError: model and data do not fit each other, or there are no photos; the message says what to do.

    Source: the traps are those of notebooks/16_trap_lab.ipynb, which names where each of them was met.

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=8, seed=0)
        >>> train, test = cells.split(test_size=0.5, seed=0)
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> head = tl.train_head(tl.extract_features(train, backbone), train.labels)
        >>> classifier = tl.build_classifier(backbone, train.class_names, head=head)
        >>> tl.audit(classifier, train, test).findings
        ()
        >>> both = train.subset([0, 1, 2, 3, 4, 5, 6, 7, *range(8)])
        >>> [finding.check for finding in tl.audit(classifier, train, both).findings]
        ['overlap']

    Explained in notebooks/16_trap_lab.ipynb.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise TypeError(f"model is a {type(model).__name__}; expected a keras.Model, for example keras.models.load_model(path)")
    if not model.built or not model.variables:
        raise ValueError("the model has no weights yet; call it once on a batch of photos, model(photos), so that Keras makes them")
    if isinstance(max_photos, bool) or not isinstance(max_photos, int) or max_photos < 2:
        raise ValueError(f"max_photos is {max_photos!r}; expected a whole number, 2 or more")
    names = getattr(model, "class_names", None)
    train = _opened("train", train, names and list(map(str, names)))
    test = _opened("test", test, train.class_names if isinstance(train, Dataset) else names and list(map(str, names)))
    size = _side(model, image_size) if isinstance(train, Dataset) or isinstance(test, Dataset) else None
    with probes.unchanged(model):
        sides = [
            (_Files if isinstance(data, Dataset) else _Batches)(name, data, size, preprocess, max_photos)
            for name, data in (("train", train), ("test", test))
        ]
        return _Check(model, *sides).all()


# --- the photos -----------------------------------------------------------------------------------------------------------


def _opened(name, data, class_names):
    """A `Dataset` or a `tf.data.Dataset`; anything else is refused with a sentence."""
    if isinstance(data, Dataset):
        if not len(data):
            raise ValueError(f"{name}: the data set has no photos")
        return data
    if isinstance(data, (str, PathLike)):
        folder = Path(data)
        if not folder.is_dir():
            raise ValueError(f"{name}: {data}: there is no such folder; give one that holds one subfolder a class, or a tl.Dataset")
        known = {path.name for path in folder.iterdir() if path.is_dir()}
        # names that are all others: not an order to be kept, but something to be found
        return load_dataset(folder, class_names=class_names if class_names and known & set(class_names) else None)
    import tensorflow as tf

    if not isinstance(data, tf.data.Dataset):
        raise TypeError(f"{name} is a {type(data).__name__}; expected a tl.Dataset, a folder, or a tf.data.Dataset of (photos, labels)")
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2 or not hasattr(spec[0], "shape"):
        raise ValueError(f"{name}: the tf.data.Dataset gives {spec}; expected (photos, labels)")
    if spec[0].shape.rank not in (None, 4):
        raise ValueError(f"{name}: photos have shape {spec[0].shape}; expected batches (n, height, width, 3): call .batch(32)")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{name}: the tf.data.Dataset never ends; leave out .repeat()")
    return data


def _side(model, image_size):
    shape = getattr(model, "input_shape", None) if image_size is None else (None, image_size, image_size, 3)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2]:
        raise ValueError(f"the model does not say which size of photos it takes (input {shape}); give image_size=, for example 224")
    return int(shape[1])


class _Files:
    """Photos from files: what `_Check` needs of one side."""

    changes = None  # from pass to pass: files do not

    def __init__(self, name, dataset, size, preprocess, limit):
        self.name, self.class_names, self.left_out = name, tuple(dataset.class_names), [(shown(f), r) for f, r in dataset.left_out]
        known = dataset.metadata.get("sha256")
        digests = []
        for row, file in enumerate(dataset.files):
            try:
                digests.append(str(known[row]) if known is not None and known[row] else hashlib.sha256(Path(file).read_bytes()).hexdigest())
            except OSError as error:
                digests.append("")
                self.left_out.append((shown(file), error.strerror or "it cannot be read"))
        self.dataset = replace(dataset, metadata={**dataset.metadata, "sha256": np.array(digests)})
        self.digests, self.labels = digests, np.asarray(dataset.labels)
        chosen, photos = [], []
        for row in sorted((row for row in range(len(digests)) if digests[row]), key=digests.__getitem__):
            try:
                photos.append(resize_image(dataset.image(row, at_least=size), size))
                chosen.append(row)
            except (OSError, ValueError) as error:
                self.left_out.append((shown(dataset.files[row]), getattr(error, "reason", None) or str(error)))
            if len(chosen) == limit:
                break
        if not chosen:
            raise ValueError(f"{name}: none of the {len(digests)} photos can be read; the first: {self.left_out[0][1]}")
        self.rows = np.array(chosen)
        self.pixels = np.stack(photos)
        self.photos = _Changed(self.pixels, preprocess) if preprocess else self.pixels
        self.n = len(digests)

    def name_of(self, row):
        return shown(self.dataset.files[row])


class _Changed:
    """Photos that are preprocessed when they are asked for: in float32 all at once would fill the memory."""

    def __init__(self, pixels, preprocess):
        self.pixels, self.preprocess = pixels, preprocess

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, rows):
        return np.asarray(self.preprocess(self.pixels[rows].astype(np.float32)), np.float32)


class _Small(Dataset):
    """Small copies of photos in memory, to be looked at by `find_duplicates`."""

    def image(self, index, *, at_least=None):
        return self.metadata["picture"][index]

    def subset(self, rows):
        part = super().subset(rows)
        return _Small(part.name, part.files, part.labels, part.class_names, part.card, part.metadata)


class _Batches:
    """Photos from a `tf.data.Dataset`."""

    def __init__(self, name, data, size, preprocess, limit):
        self.name, self.left_out = name, []
        names = getattr(data, "class_names", None)
        self.class_names = tuple(map(str, names)) if names is not None else None
        one = self._read(data, limit)
        self.digests, self.labels, self.dataset, kept = one
        self.n = len(self.digests)
        self.rows = np.array(sorted(kept, key=self.digests.__getitem__))
        self.photos = np.stack([kept[row] for row in self.rows])
        low, high = np.percentile(self.photos, (0.1, 99.9))
        self.pixels = np.clip((self.photos - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
        self.changes = None
        if name == "test":
            two = self._read(data, 0)
            self.changes = (two[0], two[2])

    def _read(self, data, limit):
        digests, labels, small, kept = [], [], [], {}
        for batch in data:
            photos, y = np.asarray(batch[0], np.float32), np.asarray(batch[1])
            if photos.ndim != 4 or photos.shape[-1] != 3:
                raise ValueError(f"{self.name}: photos have shape {photos.shape}; expected batches (n, height, width, 3)")
            if y.ndim == 2:
                y = y.argmax(axis=1) if y.shape[1] > 1 else y[:, 0]
            if y.shape != photos.shape[:1] or not np.array_equal(y, np.round(y)) or y.min() < 0:
                raise ValueError(f"{self.name}: labels of shape {y.shape}; expected whole numbers from 0, (n,), or one-hot, (n, classes)")
            labels += y.astype(np.int64).tolist()
            for photo in photos:
                digests.append(hashlib.sha256(photo.tobytes()).hexdigest())
                small.append(_as_picture(photo))
                if limit:
                    kept[len(digests) - 1] = photo
            if len(kept) > 2 * limit:
                kept = {row: kept[row] for row in sorted(kept, key=digests.__getitem__)[:limit]}
        if not digests:
            raise ValueError(f"{self.name}: the tf.data.Dataset is empty")
        kept = {row: kept[row] for row in sorted(kept, key=digests.__getitem__)[:limit]}
        labels = np.array(labels)
        classes = tuple(map(str, range(labels.max() + 1)))
        files = tuple(Path(f"{self.name}[{row}]") for row in range(len(digests)))
        pictures = np.empty(len(small), object)  # not one array: batches may differ in size
        for row, picture in enumerate(small):
            pictures[row] = picture
        metadata = {"sha256": np.array(digests), "picture": pictures}
        return digests, labels, _Small(self.name, files, labels, classes, None, metadata), kept

    def name_of(self, row):
        return f"{self.name}[{row}]"


def _as_picture(photo):
    """A photo in any range as small uint8 RGB: copies are found whatever their brightness and contrast."""
    step = max(1, min(photo.shape[:2]) // _SMALL)
    photo = photo[::step, ::step]
    low, high = float(photo.min()), float(photo.max())
    if low >= 0 and 1 < high <= 255:
        return np.round(photo).astype(np.uint8)
    return np.round((photo - low) / max(high - low, 1e-6) * 255).astype(np.uint8)


# --- the checks -----------------------------------------------------------------------------------------------------------


@cache
def _texts():
    return tomllib.loads(Path(__file__).with_name("audit.toml").read_text("utf-8"))


class _Check:
    """All checks of one model on two sides; each adds what it finds."""

    def __init__(self, model, train, test):
        self.model, self.train, self.test = model, train, test
        self.findings, self.checked, self.pictures = [], [], {}

    def all(self):
        self._outputs()
        for check in (self._frozen, self._flags, self._input, self._passes, self._overlap, self._classes, self._answers):
            check()
        places = [*_SEVERITIES, *_texts()]
        found = sorted(self.findings, key=lambda one: (places.index(one.severity), places.index(one.check), one.fingerprint))
        left_out = tuple(dict.fromkeys([*self.train.left_out, *self.test.left_out]))
        return Audit(tuple(found), tuple(dict.fromkeys(self.checked)), self.train.n, self.test.n, left_out, self.pictures)

    def _found(self, check, evidence, *, photos=(), side=None, subject=(), severity=None):
        """Add a finding. `subject`: what else than the check tells it from others, the same on every machine."""
        text = _texts()[check]
        mark = hashlib.sha256("\n".join([check, *map(str, subject)]).encode()).hexdigest()[:12]
        self.findings.append(Finding(
            check, severity or text["severity"], text["what"].format(**evidence), evidence, text["why"].format(**evidence),
            text["mend"].format(**evidence), f"notebooks/16_trap_lab.ipynb#{text['section']}",
            tuple(side.name_of(row) for row in photos) if side else (), mark,
        ))  # fmt: skip
        if side:
            self.pictures[mark] = [_png(side.dataset.image(row)) for row in list(photos)[:_SHOWN]]

    def _few(self, side):
        return np.asarray(side.photos[: min(_FEW, len(side.photos))], np.float32)

    # --- what comes out

    def _outputs(self):
        import keras

        self.checked += ["not_finite", "constant_output", "dead_outputs", "random_predictions", "batch_dependence"]
        model, few = self.model, self._few(self.test)
        first = probes.say(model, few)
        if first.ndim != 2:
            raise ValueError(f"the model gives outputs of shape {first.shape}; expected one output, (n, classes)")
        k, labels = first.shape[1], max(self.train.labels.max(), self.test.labels.max()) + 1
        classes = max(labels, *(len(side.class_names or ()) for side in (self.train, self.test)))
        self.one_output = k == 1 and classes <= 2
        if k < classes and not self.one_output:
            raise ValueError(f"the model has {k} outputs, but there are {classes} classes; give the data that it was trained for")
        self.said = probes.run(model, self.test.photos)
        finite = np.isfinite(self.said).all(axis=1)
        self.usable, self.untrained = bool(finite.all()), False
        if not self.usable:
            bad = self.test.rows[~finite]
            self._found("not_finite", {"n": len(bad), "total": len(finite)}, photos=bad, side=self.test)
            return
        if k > max(classes, 2):
            self._found("too_many_outputs", {"outputs": k, "classes": int(classes)})
        size = float(np.abs(first).max())
        half = keras.backend.standardize_dtype(getattr(model, "compute_dtype", "float32")) != "float32"
        limit = (5e-2 if half else 2e-3) * size  # how far float arithmetic alone may be off with another batch
        alone = probes.say(model, few[:1])
        apart = max(float(np.abs(said - first[: len(said)]).max()) for said in (alone, self.said[: len(few)]))
        if apart > limit:  # with the same photos beside them, or only with others?
            again = float(np.abs(probes.say(model, few) - first).max())
            self._found("random_predictions" if again > limit else "batch_dependence", {"difference": max(again, apart)})
        spread = np.ptp(self.said, axis=0)
        self.untrained = (kernel := probes.last_kernel(model)) is not None and not kernel.any()
        if self.untrained:
            self._found("untrained_head", {})
        elif len(self.said) > 1 and spread.max() <= 1e-6 * max(size, 1e-6):
            self._found("constant_output", {"n": len(self.said), "difference": float(spread.max())})
            self.usable = False
        elif (dead := int((spread == 0).sum())) and len(self.said) > 1:
            self._found("dead_outputs", {"dead": dead, "outputs": k, "n": len(self.said)})
        self._loss(few)

    def _loss(self, few):
        """Does the loss expect what the model gives?"""
        import keras
        import tensorflow as tf

        self.activation = probes.output_activation(self.model, few)
        loss = getattr(self.model, "loss", None)
        if not getattr(self.model, "compiled", False) or not isinstance(loss, (str, keras.losses.Loss)) and not callable(loss):
            return
        loss = keras.losses.get(loss)
        function, options = getattr(loss, "fn", loss), getattr(loss, "_fn_kwargs", {})
        losses = keras.losses
        if function not in (losses.binary_crossentropy, losses.categorical_crossentropy, losses.sparse_categorical_crossentropy):
            return
        self.checked += ["activation_twice", "activation_missing"]
        logits, k = options.get("from_logits", False), self.said.shape[1]
        if not logits and self.activation == "none":
            self._found("activation_missing", {"loss": function.__name__})
        if not logits or self.activation not in ("softmax", "sigmoid"):
            return
        labels = self.test.labels[self.test.rows[: len(few)]]
        targets = np.float32(labels[:, None] if k == 1 else np.eye(k)[labels])
        targets = labels if function is losses.sparse_categorical_crossentropy else targets

        @tf.function  # as in training: Keras then looks for the logits behind the outputs
        def as_compiled(photos):
            outputs = self.model(photos, training=False)
            value = function(targets, keras.ops.convert_to_tensor(outputs, dtype="float32"), **options)
            return value, outputs

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras says what this check is about
            losses_of_photos, outputs = as_compiled(tf.constant(few))
            plain = tf.constant(np.asarray(outputs, np.float32))
            reference = float(np.mean(function(targets, plain, **{**options, "from_logits": False})))
        value = float(np.mean(losses_of_photos))
        wrong = abs(value - reference) > 1e-3 * max(1, abs(reference))
        evidence = {"activation": self.activation, "loss": value, "reference": reference}
        self._found("activation_twice" if wrong else "activation_twice_rescued", evidence)

    # --- what trains

    def _frozen(self):
        from keras import Model

        if type(self.model).train_step is Model.train_step:  # a step of its own may show the model its photos in another way
            self.checked.append("batchnorm_drift")
            moved = probes.moved_in_training(self.model, self._few(self.train)[:8])
            if moved:
                names = sorted({_plain_name(layer) for layer, _, _ in moved})
                evidence = {
                    "layers": len(moved), "meant": ", ".join(sorted({why for _, why, _ in moved})),
                    "change": max(change for _, _, change in moved), "names": [layer.name for layer, _, _ in moved][:20],
                }  # fmt: skip
                self._found("batchnorm_drift", evidence, subject=names)

    def _flags(self):
        self.checked.append("hidden_trainable")
        if hidden := probes.hidden_flags(self.model):
            self._found("hidden_trainable", {"layers": len(hidden)}, subject=sorted(set(map(_plain_name, hidden))))
        if (pair := probes.flags_and_optimizer(self.model)) is None:
            return
        self.checked += ["frozen_after_compile", "unfrozen_without_compile"]
        known, now = ({id(variable) for variable in part} for part in pair)
        if now and known - now:  # all frozen: a model that is done, and will not be trained
            self._found("frozen_after_compile", {"variables": len(known - now), "of": len(known)})
        if now - known:
            self._found("unfrozen_without_compile", {"variables": len(now - known), "of": len(now)})

    # --- what goes in

    def _input(self):
        for side in (self.test, self.train):
            fit = probes.input_fit(self.model, self._few(side))
            if not fit:
                continue
            self.checked += ["input_range", "preprocessing_twice", "channel_order"]
            given = fit["as given", "RGB"]
            name, order = min(fit, key=fit.__getitem__)
            best = fit[name, order]
            who = {"train": "training"}.get(side.name, side.name)
            evidence = {"side": who, "given": given, "best": best, "change": name, "order": order}
            # On the book's data given photos in the right range have a misfit of 0.03 to 0.41 and every other range fits
            # less well; in a wrong one it is 0.2 to 4, and the right one less than half of it. Colours of photos exchanged:
            # 1.1 to 1.65 times that of the right order.
            if name != "as given" and given > probes.FITS and best < 0.5 * given:
                done_before = name == "times 255" or name.startswith("plus") or name.endswith("undone")
                check = "preprocessing_twice" if done_before and self._scales() else "input_range"
                self._found(check, evidence, subject=[side.name, name])
            elif (swapped := fit.get(("as given", "BGR"), given)) < 0.8 * given or swapped < 0.9 * given and given > 0.05:
                self._found(
                    "channel_order", {**evidence, "best": swapped}, subject=[side.name],
                    severity="fault" if swapped < 0.8 * given else "warning",
                )  # fmt: skip

    def _scales(self):
        import keras

        scaling = (keras.layers.Rescaling, keras.layers.Normalization)
        operations = [operation for part in probes.layers_of(self.model) for operation in getattr(part, "operations", ())]
        arithmetic = {"Subtract", "TrueDivide", "Divide", "Multiply"}  # preprocess_input in a functional model
        return any(isinstance(layer, scaling) for layer in probes.layers_of(self.model)) or any(
            type(operation).__name__ in arithmetic for operation in operations[:6]
        )

    # --- train against test

    def _passes(self):
        if self.test.changes is None:
            return
        self.checked += ["test_reshuffled", "test_augmented", "test_order"]
        digests, again = self.test.changes
        if digests == self.test.digests:
            return
        same = sum((Counter(digests) & Counter(self.test.digests)).values())
        evidence = {"same": same, "n": self.test.n}
        if same == self.test.n == len(digests):
            self._found("test_order", evidence)
            return
        before, train = set(self.test.digests), set(self.train.digests)
        new = [row for row, digest in enumerate(digests) if digest not in before]
        of_train = sum(digests[row] in train for row in new)
        of_test = len({pair.other_row for pair in find_duplicates(self.test.dataset, again.subset(new))})
        augmented = of_test >= len(new) / 2 or same == 0 and of_train == 0
        self._found("test_augmented" if augmented else "test_reshuffled", evidence)

    def _overlap(self):
        self.checked.append("overlap")
        pairs = find_duplicates(self.train.dataset, self.test.dataset)
        if not pairs:
            return
        rows = sorted({pair.other_row for pair in pairs}, key=self.test.digests.__getitem__)
        exact = {pair.other_row for pair in pairs if pair.kind == "exact"}
        evidence = {"copies": len(rows), "n": self.test.n, "exact": len(exact), "near": len(rows) - len(exact)}
        evidence["pairs"] = [[self.train.name_of(pair.row), self.test.name_of(pair.other_row), pair.kind] for pair in pairs[:50]]
        moving = self.test.changes is not None and self.test.changes[0] != self.test.digests
        subject = () if moving else sorted({self.test.digests[row] for row in rows})
        self._found("overlap", evidence, photos=rows, side=self.test, subject=subject)

    def _classes(self):
        names = getattr(self.model, "class_names", None)
        lists = [("the model", tuple(map(str, names)) if names is not None else None)]
        lists += [("the training data", self.train.class_names), ("the test data", self.test.class_names)]
        lists = [(who, names) for who, names in lists if names]
        if len(lists) > 1:
            self.checked.append("class_order")
            for (who, first), (other, second) in pairwise(lists):
                if first != second:
                    evidence = {"first": who, "second": other, "first_names": list(first)[:6], "second_names": list(second)[:6]}
                    self._found("class_order", evidence, subject=[who, other, *first, "/", *second])
        self.checked.append("class_unknown")
        if unknown := sorted(set(self.test.labels.tolist()) - set(self.train.labels.tolist())):
            rows = np.flatnonzero(np.isin(self.test.labels, unknown))
            known = self.test.class_names or tuple(map(str, range(max(unknown) + 1)))
            evidence = {"n": len(rows), "names": ", ".join(known[label] for label in unknown)}
            self._found("class_unknown", evidence, photos=rows, side=self.test, subject=unknown)

    # --- what it says of the test photos

    def _answers(self):
        if not self.usable or self.untrained:
            return
        labels = self.test.labels[self.test.rows]
        if self.one_output:
            said = (self.said[:, 0] > (0 if self.activation == "none" else 0.5)).astype(np.int64)
        else:
            said = self.said.argmax(axis=1)
        right, n = said == labels, len(labels)
        if n < 20 or len(set(labels.tolist())) < 2:
            return
        self.checked += ["one_class", "class_permuted", "worse_than_pixels"]
        if len(set(said.tolist())) == 1:
            others = int((labels != said[0]).sum())
            names = self.test.class_names or tuple(map(str, range(self.said.shape[1] + 1)))
            evidence = {"n": n, "name": names[said[0]], "accuracy": float(right.mean()), "others": others}
            self._found("one_class", evidence, severity="fault" if others >= 10 else "warning")
            return
        self._permuted(said, labels, right)
        self._pixels(labels, right)

    def _permuted(self, said, labels, right):
        """Would the answers be right if classes were exchanged? Found on one half of the photos, counted on the other."""
        from scipy.optimize import linear_sum_assignment

        k = max(int(labels.max()), int(said.max())) + 1
        new = np.empty_like(said)
        for half in (0, 1):
            learn, judge = np.arange(len(said)) % 2 == half, np.arange(len(said)) % 2 != half
            counts = np.zeros((k, k))
            np.add.at(counts, (said[learn], labels[learn]), 1)
            new[judge] = linear_sum_assignment(-(counts + 0.5 * np.eye(k)))[1][said[judge]]  # as it is, where nothing is known
        better = new == labels
        if better.mean() > right.mean() + 0.2 and _beats(better, right, 1e-4):
            evidence = {"accuracy": float(right.mean()), "permuted": float(better.mean()), "n": len(said)}
            self._found("class_permuted", {**evidence, "moved": len(set(said[new != said].tolist()))})

    def _pixels(self, labels, right):
        """Is the network of any use? A head on the photos themselves, small, says how far one gets without it."""
        known = self.train.labels[self.train.rows]
        values, place = np.unique(known, return_inverse=True)
        if len(known) < 20 or len(values) < 2:
            return
        raw = [np.stack([resize_image(photo, _PIXELS).ravel() for photo in side.pixels]) / 255 for side in (self.train, self.test)]
        head = train_head(raw[0], place, strength=0.01)
        pixels = values[head.predict(raw[1])] == labels
        if _beats(pixels, right, 1e-3):
            evidence = {"size": _PIXELS, "pixels": float(pixels.mean()), "accuracy": float(right.mean()), "n": len(labels)}
            self._found("worse_than_pixels", evidence)


def _beats(one, other, level):
    """Is one right so much more often than the other, on the same photos, that chance is ruled out (McNemar's exact test)?"""
    from scipy.stats import binomtest

    more, less = int((one & ~other).sum()), int((other & ~one).sum())
    return more > less and binomtest(more, more + less, 0.5, alternative="greater").pvalue < level


def _plain_name(layer):
    """The name of a layer without the number that Keras adds: another one in each run."""
    return layer.name.rstrip("0123456789").rstrip("_")


def _png(pixels):
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(resize_image(pixels, 64)).save(out, "PNG")
    return out.getvalue()
