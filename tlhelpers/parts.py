"""The part of a classifier that trains, and what stands below it.

Explained in notebooks/08_fine_tuning.ipynb and notebooks/09_how_deep.ipynb.
"""

from __future__ import annotations

import contextlib
from functools import partial

import numpy as np

from tlhelpers.backbones import cut_layers_of
from tlhelpers.features import extract_features
from tlhelpers.heads import train_head

__all__ = []  # for `finetuning`; readers meet it as `fine_tune(unfreeze=…)`


class Part:
    """The part of a classifier that trains: `bottom`, from photos to what comes into it; `tail`, from there to logits; and
    `whole`, both. All share the classifier's weights. Without a bottom there is no tail."""

    def __init__(self, classifier, unfreeze):
        import keras

        self.classifier, self.unfreeze = classifier, unfreeze
        self.logits = classifier.get_layer("logits")
        self.size = classifier.input_shape[1]
        layers = list(_layers(classifier))
        self.norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        below, cut_point = _below(classifier, unfreeze)  # a tensor of the classifier, or None: everything trains
        name = getattr(classifier, "backbone_name", None) or classifier.name
        self.whole = keras.Model(classifier.input, self.logits.output)
        self.bottom, self.tail, above = None, None, layers
        if below is not None:
            self.bottom = keras.Model(classifier.input, below, name=f"{name}_to_{cut_point}")  # as in Backbone.cut
            under = {id(layer) for layer in _layers(self.bottom)}
            above = [layer for layer in layers if id(layer) not in under]
            try:
                self.tail = keras.Model(below, self.logits.output)
            except ValueError:  # there is a way around this tensor, as in NASNet: nothing can be computed once
                self.bottom = None
        if unfreeze == "batch_norm":
            above = [*self.norms, self.logits]
        with _flags(layers, above):
            self.variables = [weight for layer in above if not isinstance(layer, keras.Model) for weight in layer.trainable_weights]
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self.variables)
        self.generators = [generator for layer in layers for generator in getattr(layer, "_seed_generators", ())]

    def cut(self, cut_point=None, *, pool=True):
        """What `extract_features` asks a backbone for."""
        return self.bottom

    @contextlib.contextmanager
    def unfrozen(self):
        """While the training lasts: BatchNorm does as in use, whatever the mode; all else may train. Then all is as before."""
        layers = list(_layers(self.classifier))
        with _flags(layers, [layer for layer in layers if layer not in self.norms]):
            yield

    @contextlib.contextmanager
    def folded(self):
        """While a step is traced in which everything trains: a convolution takes in the BatchNorm after it.

        With statistics that stay, BatchNorm is y = scale · x + shift, one of each for a channel. scale · (kernel ∗ x) is
        (scale · kernel) ∗ x, and the gradient finds kernel, scale and offset through it: the same numbers up to rounding, and
        a step takes about three quarters of the time. Where only a part trains, steps are bit for bit those of Keras.
        """
        trained = {id(variable) for variable in self.variables}
        pairs = _pairs(self.whole) if self.tail is None and self.unfreeze != "batch_norm" else []
        pairs = [(convolution, norm) for convolution, norm in pairs if id(convolution.kernel) in trained]
        try:
            for convolution, norm in pairs:
                convolution.call = partial(_convolve, convolution, norm)
                norm.call = _as_it_is
            yield
        finally:
            for layer in (layer for pair in pairs for layer in pair):
                vars(layer).pop("call", None)

    def statistics(self):
        """Name → value, of the BatchNorm layers."""
        return {
            f"{layer.name} {name}": getattr(layer, name).numpy() for layer in self.norms for name in ("moving_mean", "moving_variance")
        }

    def fit_head(self, dataset):
        """Fit the last layer on what comes before it."""
        import keras

        missing = np.flatnonzero(np.bincount(dataset.labels, minlength=len(dataset.class_names)) == 0)
        if len(missing):
            names = ", ".join(dataset.class_names[label] for label in missing)
            raise ValueError(f"{dataset.name}: no training photo of {names}, so a new last layer cannot be fitted; add photos")
        name = getattr(self.classifier, "backbone_name", None) or self.classifier.name
        last = _below(self.classifier, "head")[1]
        features = keras.Model(self.classifier.input, self.logits.input, name=f"{name}_to_{last}")
        head = train_head(extract_features(dataset, _Below(features)), dataset.labels)
        self.logits.set_weights([head.kernel, head.bias])


class _Below:
    """A model in the place of a backbone that is cut somewhere."""

    def __init__(self, model):
        self.model = model

    def cut(self, cut_point=None, *, pool=True):
        return self.model


def _pairs(model):
    """(convolution, the BatchNorm that alone takes what it gives), for those that can be one convolution."""
    import keras

    takers, givers = {}, {}
    for layer in _layers(model):
        for node in layer._inbound_nodes:  # more than one where a layer is used more than once
            for tensor in node.input_tensors:
                takers.setdefault(id(tensor), []).append(layer)
        if type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) and len(layer._inbound_nodes) == 1:
            givers[id(layer.output)] = layer
    found = [(givers[tensor], layers[0]) for tensor, layers in takers.items() if tensor in givers and len(layers) == 1]
    return [
        (convolution, norm) for convolution, norm in found
        if isinstance(norm, keras.layers.BatchNormalization) and len(norm._inbound_nodes) == 1 and norm.scale and norm.center
        and norm.axis in (-1, 3)
        and convolution.data_format == "channels_last" and not convolution.use_bias and convolution.activation is keras.activations.linear
    ]  # fmt: skip


def _convolve(convolution, norm, inputs):
    """What the two layers give, one after the other."""
    import keras
    import tensorflow as tf

    scale = norm.gamma.value * tf.math.rsqrt(norm.moving_variance.value + norm.epsilon)
    shift = norm.beta.value - norm.moving_mean.value * scale
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    apply = keras.ops.depthwise_conv if depthwise else keras.ops.conv
    kernel = convolution.kernel.value * (tf.reshape(scale, convolution.kernel.shape[2:]) if depthwise else scale)
    outputs = apply(
        inputs, kernel, strides=convolution.strides, padding=convolution.padding, dilation_rate=convolution.dilation_rate
    )  # fmt: skip
    return tf.nn.bias_add(outputs, shift)


def _as_it_is(inputs, training=None, mask=None):
    return inputs


def _layers(model):
    """All layers, those of models within the model as well."""
    import keras

    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


@contextlib.contextmanager
def _flags(layers, trainable):
    """`layer.trainable` True for some layers, False for all others, for a while."""
    import keras

    ids = {id(layer) for layer in trainable}
    # A model sets the flag of all layers within it: their own come after it, in the order of _layers.
    before = [(layer, layer.trainable) for layer in layers]
    try:
        for layer in layers:
            if not isinstance(layer, keras.Model):
                layer.trainable = id(layer) in ids
        yield
    finally:
        for layer, flag in before:
            if not isinstance(layer, keras.Model):
                layer.trainable = flag


def _below(classifier, unfreeze):
    """The tensor below the part that trains, and the name of this cut point; (None, None) where that is the whole network."""
    if unfreeze in ("all", "batch_norm"):
        return None, None
    try:
        cut_layers = cut_layers_of(classifier)
    except ValueError:  # no layer of its own has weights and maps
        cut_layers = {}
    names = list(cut_layers)
    if unfreeze == "head":
        return classifier.get_layer("logits").input, (names or ["features"])[-1]
    if len(names) < 2:
        raise ValueError(
            f"unfreeze is {unfreeze!r}, but the network in this classifier is a single layer, which cannot be cut: take 'head', "
            "'all' or 'batch_norm', or make the classifier with build_classifier"
        )
    wanted = ("stage_7" if "stem" in names else "top") if unfreeze == "last_stage" else unfreeze
    if wanted not in names:
        raise ValueError(
            f"unfreeze is {unfreeze!r}; expected 'head', 'last_stage', 'all', 'batch_norm' or one of {', '.join(names)}: this "
            "stage and all above"
        )
    place = names.index(wanted)
    if place == 0:
        return None, None
    operations = {operation.name: operation for operation in classifier.operations}
    return operations[cut_layers[names[place - 1]]].output, names[place - 1]
