"""Small measurements on a Keras model of anybody: what it expects, what moves in it, what comes out of it.

Each takes a model and a few photos, as the model gets them, and gives numbers; what they mean is for `audit` to say. All
are made inside `unchanged`, which puts everything back.

Explained in notebooks/16_trap_lab.ipynb.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

__all__ = ["RANGES", "input_fit", "moved_in_training", "unchanged"]

_MEAN, _DEVIATION = np.array([[123.68, 116.779, 103.939], [58.395, 57.12, 57.375]], np.float32)  # of ImageNet, RGB 0..255

#: What the photos may lack or have had too much of: name → how photos as given become photos as they would fit.
RANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as given": lambda x: x,
    "divided by 255": lambda x: x / 255,
    "divided by 127.5, less 1": lambda x: x / 127.5 - 1,
    "times 255": lambda x: x * 255,
    "plus 1, times 127.5": lambda x: (x + 1) * 127.5,
    "times 2, less 1": lambda x: 2 * x - 1,
    "plus 1, divided by 2": lambda x: (x + 1) / 2,
    "less the mean of ImageNet": lambda x: x - _MEAN,
    "plus the mean of ImageNet": lambda x: x + _MEAN,
    "times 255, less the mean of ImageNet": lambda x: x * 255 - _MEAN,
    "plus 1, times 127.5, less the mean of ImageNet": lambda x: (x + 1) * 127.5 - _MEAN,
    "standardised as in ImageNet": lambda x: (x - _MEAN) / _DEVIATION,
    "with the standardisation of ImageNet undone": lambda x: x * _DEVIATION + _MEAN,
}
FITS = 0.15  # misfit up to which no other range is tried
_LOOKED_AT = 3  # BatchNorm layers nearest to the photo: further up, what came in wrong has been evened out


class _Enough(BaseException):
    """What was to be heard has been heard. No Exception: Keras would catch that, and wrap it."""


def layers_of(model):
    """All layers of a model, also those inside its parts, each once."""
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def variables_of(model):
    """All that a model can change: weights, statistics, random states; of the optimiser and of the metrics too."""
    found = [*model.variables, *model.metrics_variables]
    if getattr(model, "optimizer", None) is not None:
        found += model.optimizer.variables
    for layer in layers_of(model):  # a layer may keep a seed generator that its model does not list
        found += layer.variables
    return list({id(variable): variable for variable in found}.values())


@contextlib.contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """What is done to a model inside this block leaves no trace, also when the block ends with an error.

    Args:
        model: `keras.Model`, built. Its variables are put back bit for bit: weights, statistics, the states of its random
            numbers, and those of its optimiser and metrics; so are the flags `trainable`.

    Returns:
        Context manager.

    Example:
        >>> keras = __import__("keras")
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> with tl.probes.unchanged(model):
        ...     _ = model(np.full((4, 2), 5, np.float32), training=True)
        ...     inside = model.layers[0].moving_mean.numpy().max()
        >>> bool(inside > 0), float(model.layers[0].moving_mean.numpy().max())
        (True, 0.0)

    Explained in notebooks/16_trap_lab.ipynb.
    """
    before = [(variable, np.array(variable.numpy())) for variable in variables_of(model)]
    flags = [(layer, layer._trainable) for layer in layers_of(model)]
    own = [(variable, variable.trainable) for variable, _ in before]
    try:
        yield
    finally:
        for layer, flag in flags:
            if layer._trainable != flag:
                layer._trainable = flag  # this layer alone: the property would hand the flag down
        for variable, flag in own:
            if variable.trainable != flag:
                variable.trainable = flag
        for variable, value in before:
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)


@contextlib.contextmanager
def _listening(layers, hear):
    """While this lasts, hear(layer, inputs, outputs) is called whenever one of these layers has computed something."""

    import tensorflow as tf

    def wrapped(layer, call):
        def call_and_tell(*args, **options):
            outputs = call(*args, **options)
            inputs = args[0] if args else next(iter(options.values()))
            if not tf.is_symbolic_tensor(outputs):  # a model may make a graph of a part of it: there is nothing to hear
                hear(layer, inputs, outputs)
            return outputs

        return call_and_tell

    try:
        for layer in layers:  # past Keras, which keeps a list of what is set
            object.__setattr__(layer, "call", wrapped(layer, layer.call))
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("call", None)


def run(model, photos, batch_size=16):
    """What a model in use says of photos: float32 array, (n, k). The last batch is filled up, so that one graph does."""
    import tensorflow as tf

    step = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    said = []
    for start in range(0, len(photos), batch_size):
        rows = np.arange(start, start + batch_size) % len(photos)
        outputs = step(tf.constant(np.asarray(photos[rows], np.float32)))
        said.append(np.asarray(outputs, np.float32)[: min(batch_size, len(photos) - start)])
    return np.concatenate(said)


def say(model, photos):
    """The same for few photos, step by step without a graph."""
    import tensorflow as tf

    return np.asarray(model(tf.constant(np.asarray(photos, np.float32)), training=False), np.float32)


# --- what the model expects ---------------------------------------------------------------------------------------------


def input_fit(model: keras.Model, photos: np.ndarray) -> dict[tuple[str, str], float]:
    """How well photos, changed in several ways, fit the statistics that a model has kept from its training.

    A BatchNorm layer keeps mean and variance of what it saw in training. Photos in another range, or with red and blue
    exchanged, give it something else. Looked at are the three layers nearest to the photo. Of each channel it is counted how
    far the normal distribution of what arrives is from the one that is kept (Kullback-Leibler divergence d, in nats);
    log(1 + d) is averaged over channels, so that a few dead ones do not decide.

    Args:
        model: `keras.Model`.
        photos: float32 array, (n, height, width, 3), as the model gets them.

    Returns:
        (name in `RANGES`, "RGB" or "BGR") → misfit, 0 or more; the first entry is the photos as given. Other ranges are
        tried where that is above 0.15. "BGR" is measured for the range that fits best, and for photos with colour. Empty where
        the model has no BatchNorm layer with statistics from a training.

    Raises:
        ValueError: `photos` is not such an array.

    Source: BatchNorm's kept statistics: Ioffe and Szegedy 2015, arXiv:1502.03167.

    Example:
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=4, seed=0)
        >>> fit = tl.probes.input_fit(backbone.model, cells.images(64) / np.float32(255))
        >>> min(fit, key=fit.get)
        ('times 255', 'RGB')

    Explained in notebooks/16_trap_lab.ipynb.
    """
    photos = np.asarray(photos, np.float32)
    if photos.ndim != 4 or photos.shape[-1] != 3 or not len(photos):
        raise ValueError(f"photos has shape {photos.shape}; expected (n, height, width, 3), n at least 1")
    fit: dict[tuple[str, str], float] = {}
    for name, change in RANGES.items():
        if (misfit := _misfit(model, change(photos))) is None:
            return {}
        fit[name, "RGB"] = misfit
        if misfit <= FITS and name == "as given":
            break
    best = min(fit, key=lambda key: fit[key])[0]
    if np.ptp(photos, axis=-1).max() > 0:
        for name in dict.fromkeys(("as given", best)):
            back = "plus the mean" in name or "undone" in name  # the mean is put on in the order in which it was taken off
            swapped = RANGES[name](photos[..., ::-1]) if back else RANGES[name](photos)[..., ::-1]
            fit[name, "BGR"] = _misfit(model, swapped)
    return fit


def _misfit(model, photos):
    import keras
    import tensorflow as tf

    norms = [layer for layer in layers_of(model) if isinstance(layer, keras.layers.BatchNormalization) and _has_learned(layer)]
    found = []

    def hear(layer, inputs, outputs):
        axes = [axis for axis in range(len(inputs.shape)) if axis != layer.axis % len(inputs.shape)]
        mean, variance = (value.numpy().astype(np.float64) for value in tf.nn.moments(tf.cast(inputs, tf.float32), axes))
        variance += layer.epsilon
        kept, kept_variance = layer.moving_mean.numpy(), layer.moving_variance.numpy() + layer.epsilon
        away = (np.log(kept_variance / variance) + (variance + (mean - kept) ** 2) / kept_variance - 1) / 2
        found.append(float(np.log1p(np.maximum(away, 0)).mean()))
        if len(found) == min(_LOOKED_AT, len(norms)):
            raise _Enough

    with _listening(norms, hear), contextlib.suppress(_Enough):
        say(model, photos)
    return float(np.mean(found)) if found else None


def _has_learned(norm):
    """A layer that has never seen a training keeps mean 0 and variance 1."""
    return bool(norm.built and (norm.moving_mean.numpy().any() or (norm.moving_variance.numpy() != 1).any()))


# --- what comes out of it -------------------------------------------------------------------------------------------------


def output_activation(model, photos):
    """What stands at the end: "softmax", "sigmoid", "none" (the outputs are logits), or None where that cannot be known.

    Measured where outputs tell it, else read off the layer, however deep inside, whose output is that of the model.
    """
    import keras

    heard = []

    def hear(layer, inputs, outputs):
        if len(getattr(outputs, "shape", ())) == 2:
            heard.append((layer, np.asarray(outputs, np.float32)))

    with _listening([layer for layer in layers_of(model) if len(list(layer._flatten_layers())) == 1], hear):
        said = say(model, photos)
    total = said.sum(axis=1)
    if said.shape[1] > 1 and said.min() >= 0 and np.abs(total - 1).max() < 1e-2:
        return "softmax"
    if said.min() < 0 or said.max() > 1:
        return "none"
    for layer, outputs in reversed(heard):
        if not np.array_equal(outputs, said):
            break  # something that is no layer has changed it since
        activation = getattr(layer, "activation", None)
        if isinstance(layer, keras.layers.Softmax) or activation is keras.activations.softmax:
            return "softmax"
        if activation is keras.activations.sigmoid:
            return "sigmoid"
        if activation is keras.activations.linear and isinstance(layer, keras.layers.Dense):
            return "none"
    return None


def last_kernel(model):
    """The kernel of the last Dense layer, or None."""
    import keras

    dense = [layer for layer in layers_of(model) if isinstance(layer, keras.layers.Dense) and layer.built]
    fitting = [layer for layer in dense if layer.kernel.shape[-1] == model_outputs(model)] or dense
    return fitting[-1].kernel.numpy() if fitting else None


def model_outputs(model):
    try:
        return model.output_shape[-1]
    except (AttributeError, TypeError, IndexError):  # a subclassed model need not say
        return None


# --- what moves in training -----------------------------------------------------------------------------------------------


def meant_frozen(model):
    """id of each layer that is meant to stay as it is → why.

    "trainable=False" where the layer says so, "trainable=False above it" where a part that it belongs to says so,
    "training=False" where it, or such a part, is called so in a functional model.
    """
    found = {}
    for part in layers_of(model):
        inside = [layer for layer in part._flatten_layers() if layer is not part]
        if not part.trainable:
            found[id(part)] = "trainable=False"
            found.update((id(layer), "trainable=False above it") for layer in inside if layer.trainable)
        for operation in getattr(part, "operations", ()):
            nodes = enumerate(operation._inbound_nodes)
            # of the calls of an operation, those that belong to this model: a base may be called elsewhere as well
            called = [node for number, node in nodes if f"{id(operation)}_ib-{number}" in part._nodes]
            if any(node.arguments.kwargs.get("training") is False for node in called) and hasattr(operation, "_flatten_layers"):
                for layer in operation._flatten_layers():
                    found.setdefault(id(layer), "training=False")
    return found


def moved_in_training(model: keras.Model, photos: np.ndarray) -> list[tuple[Any, str, float]]:
    """Which layers that are meant to be frozen change their state when the model sees photos as `fit` shows them.

    No gradient is needed for that: statistics are renewed by looking. Call it inside `unchanged`.

    Args:
        model: `keras.Model`.
        photos: float32 array, (n, height, width, 3), as the model gets them; n at least 2.

    Returns:
        list of (layer, why it is meant to be frozen, largest change of its state in one batch).

    Example:
        >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
        >>> classifier = tl.build_classifier(backbone, ["functional", "defective"])
        >>> photos = np.zeros((2, 64, 64, 3), np.float32)
        >>> tl.probes.moved_in_training(classifier, photos)
        []

    Explained in notebooks/16_trap_lab.ipynb.
    """
    import tensorflow as tf

    frozen = meant_frozen(model)
    watched = [
        (layer, variable, variable.numpy())
        for layer in layers_of(model) if id(layer) in frozen
        for variable in layer._non_trainable_variables if "seed" not in variable.name
    ]  # fmt: skip
    model(tf.constant(np.asarray(photos, np.float32)), training=True)
    moved: dict[int, tuple[Any, str, float]] = {}
    for layer, variable, before in watched:
        change = float(np.abs(variable.numpy().astype(np.float64) - before).max(initial=0))
        if change > 0:
            moved[id(layer)] = layer, frozen[id(layer)], max(change, moved[id(layer)][2] if id(layer) in moved else 0)
    return list(moved.values())


def flags_and_optimizer(model):
    """Variables that were to be trained when the optimiser was made, and are to be trained now; None if there is none yet."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or not optimizer.built or not hasattr(optimizer, "_trainable_variables"):
        return None
    return list(optimizer._trainable_variables), list(model.trainable_variables)


def hidden_flags(model):
    """Layers with weights and trainable=True, inside a part with trainable=False: they do not train."""
    frozen = meant_frozen(model)
    return [layer for layer in layers_of(model) if frozen.get(id(layer)) == "trainable=False above it" and layer._trainable_variables]
