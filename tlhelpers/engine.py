"""A frozen network, made ready to run as fast as this machine can.

On a processor without a GPU that is LiteRT: BatchNorm is folded into the convolutions, weights are constants, and each core
has an interpreter of its own, which takes one photo at a time. What comes out for a photo then does not depend on other photos.
On a GPU, and for a network that LiteRT cannot take, it is Keras, batch by batch.

Source: LiteRT (TensorFlow Lite) with XNNPACK. Benchmarks against other engines: benchmarks/extraction.py.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

__all__ = ["convert", "fingerprint"]

_TOLERANCE = 1e-3  # largest difference to Keras, as part of the largest value: a conversion that is off by more is not used
_MOST_WEIGHTS = 2**30  # bytes in all interpreters together


class KerasEngine:
    """The model as it is, batch by batch, in the thread that asks; `workers` threads read photos meanwhile.

    Args:
        model: `keras.Model`.
        batch_size: photos a step.
    """

    parallel = False

    def __init__(self, model, batch_size):
        self.workers = self.ahead = min(_cores() + 1, 8)
        # Always of the same shape: another would make TensorFlow trace the model a second time. Never of one photo, which
        # TensorFlow computes in another way, with other last digits.
        self.batch_size = max(2, batch_size)
        self._model = model

    def run(self, photos):
        """What the model gives for photos, uint8, (batch_size, size, size, 3): one array for each of its outputs."""
        results = self._model.predict_on_batch(photos.astype(np.float32))
        return results if isinstance(results, list) else [results]


class LiteRTEngine:
    """A converted model, one photo at a time, in as many threads as there are interpreters: each reads a photo, then computes.

    One thread more, which would read meanwhile, takes 4 % longer: it pushes a computing one off its core.

    Args:
        flatbuffer: what `convert` returned.
    """

    parallel = True
    batch_size = 1

    def __init__(self, flatbuffer):
        from ai_edge_litert.interpreter import Interpreter

        count = max(1, min(_cores(), 16, _MOST_WEIGHTS // len(flatbuffer)))
        self.workers, self.ahead = count, 16 * count
        self._free = queue.LifoQueue()
        with quiet():  # it says that it uses XNNPACK
            for _ in range(count):
                interpreter = Interpreter(model_content=flatbuffer, num_threads=max(1, _cores() // count))
                interpreter.allocate_tensors()
                self._free.put(interpreter)
            self._input = interpreter.get_input_details()[0]["index"]
            self._outputs = [output["index"] for output in interpreter.get_output_details()]

    def run(self, photos):
        """What the model gives for one photo, uint8, (1, size, size, 3): one array for each of its outputs."""
        interpreter = self._free.get()
        try:
            interpreter.tensor(self._input)()[:] = photos  # turned into float32 on their way into its memory
            interpreter.invoke()
            return [interpreter.get_tensor(output) for output in self._outputs]
        finally:
            self._free.put(interpreter)


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_gpu():
    """Whether TensorFlow computes on a GPU here."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def convert(model: keras.Model) -> bytes:
    """Bring a model into the form that LiteRT runs.

    Args:
        model: `keras.Model`: (n, size, size, 3) → one or several outputs; its weights are copied.

    Returns:
        bytes.

    Raises:
        ValueError: LiteRT cannot take it, or gives other results than Keras does.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    photo = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape[1:]), np.uint8)
    try:
        function = tf.function(lambda photos: model(photos, training=False), autograph=False)
        frozen = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec(photo.shape, tf.float32)))
        # The newer interface of the same converter prints pages, or loses the weights of a Keras 3 model.
        converter = tf.compat.v1.lite.TFLiteConverter(frozen.graph.as_graph_def(), frozen.inputs, frozen.outputs)
        with quiet():  # where it fails, it says so at length; the error has it, too
            flatbuffer = converter.convert()
        found, wanted = LiteRTEngine(flatbuffer).run(photo), model(photo.astype(np.float32), training=False)
    except Exception as error:  # a converter can fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(lines[0][:200]) from error
    for ours, theirs in zip(found, wanted if isinstance(wanted, list) else [wanted], strict=True):
        if not np.abs(ours - theirs).max() <= _TOLERANCE * np.abs(theirs).max():
            raise ValueError("its results differ from those of Keras")
    return flatbuffer


def fingerprint(model: keras.Model) -> str:
    """What tells this network from any other, whatever its layers are called.

    Args:
        model: `keras.Model`, functional.

    Returns:
        str, hexadecimal: a hash of layers, connections and weights, and of the versions of all that computes with them.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    import keras

    versions = [version(name) for name in ("keras", "tensorflow", "ai-edge-litert")]
    key = hashlib.sha256(f"{versions} {on_gpu()} {model.input_shape} {model.output_shape}".encode())
    place: dict = {}
    weights = {id(weight): index for index, weight in enumerate(model.weights)}

    def number(value):
        """A tensor is known by the step it comes from; all else by what it says of itself."""
        if isinstance(value, keras.KerasTensor):
            history = value._keras_history
            return place[id(history.operation), history.node_index], history.tensor_index
        return repr(value)

    # from the photo to the top, each call of each layer: one that is called twice has two nodes
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            operation = node.operation
            place[id(operation), operation._inbound_nodes.index(node)] = len(place)
            called = keras.tree.map_structure(number, (node.arguments.args, node.arguments.kwargs))
            settings = sorted((operation.get_config() | {"name": ""}).items())
            own = [weights.get(id(weight)) for weight in getattr(operation, "weights", ())]
            key.update(repr((type(operation).__name__, called, settings, own)).encode())
    key.update(repr([number(tensor) for tensor in model.outputs]).encode())
    for weight in model.weights:
        key.update(weight.numpy().tobytes())
    return key.hexdigest()[:24]


_ONE_QUIET = threading.Lock()


@contextmanager
def quiet():
    """Standard error closed for a moment, for C++ code that greets, past Python."""
    with _ONE_QUIET:
        try:
            sys.stderr.flush()
            kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        except (AttributeError, OSError, ValueError):  # there is no standard error
            yield
            return
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
