"""A frozen network, made ready to run as fast as this machine can.

On a processor without a GPU that is LiteRT: BatchNorm is folded into the convolutions, weights are constants, and each core
sends photos through an interpreter of its own, one at a time. What comes out for a photo then depends on nothing but the photo.
On a GPU, and for a network that LiteRT cannot take, it is Keras, batch by batch.

Source: LiteRT (TensorFlow Lite) with XNNPACK. Benchmarks against other engines: benchmarks/extraction.py.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import warnings
from contextlib import contextmanager
from importlib.metadata import version

import numpy as np

__all__ = ["KerasEngine", "LiteRTEngine", "convert", "fingerprint"]

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
        self.workers = min(_cores() + 1, 8)  # they only read photos
        # Always of the same shape: another would make TensorFlow trace the model a second time. Never of one photo, which
        # TensorFlow computes in another way, with other last digits.
        self.batch_size = max(2, batch_size)
        self._model = model

    def run(self, photos):
        """What the model gives for photos, float32, (batch_size, size, size, 3): one array for each of its outputs."""
        results = self._model.predict_on_batch(photos)
        return results if isinstance(results, list) else [results]


class LiteRTEngine:
    """A converted model, one photo at a time, in as many threads at once as `workers` says.

    Args:
        flatbuffer: what `convert` returned.
    """

    parallel = True
    batch_size = 1

    def __init__(self, flatbuffer):
        self._flatbuffer = flatbuffer
        self.workers = max(1, min(_cores(), 16, _MOST_WEIGHTS // len(flatbuffer)))
        self._threads = max(1, _cores() // self.workers)
        self._mine = threading.local()

    def run(self, photos):
        """What the model gives for one photo, float32, (1, size, size, 3): one array for each of its outputs."""
        if not hasattr(self._mine, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            with _quiet():  # it says that it uses XNNPACK
                self._mine.interpreter = Interpreter(model_content=self._flatbuffer, num_threads=self._threads)
                self._mine.interpreter.allocate_tensors()
        interpreter = self._mine.interpreter
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], photos)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def convert(model):
    """Bring a model into the form that LiteRT runs.

    Args:
        model: `keras.Model`: (n, size, size, 3) → one or several outputs; its weights are copied.

    Returns:
        bytes; or None where Keras is the better engine (there is a GPU), or the only one (a warning says why).

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if tf.config.list_physical_devices("GPU"):
        return None
    photo = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape[1:])).astype(np.float32)
    try:
        function = tf.function(lambda photos: model(photos, training=False), autograph=False)
        frozen = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec(photo.shape, tf.float32)))
        # The newer interface of the same converter prints pages, or loses the weights of a Keras 3 model.
        flatbuffer = tf.compat.v1.lite.TFLiteConverter(frozen.graph.as_graph_def(), frozen.inputs, frozen.outputs).convert()
        wanted = model(photo, training=False)
        for ours, theirs in zip(LiteRTEngine(flatbuffer).run(photo), wanted if isinstance(wanted, list) else [wanted], strict=True):
            if not np.abs(ours - theirs).max() <= _TOLERANCE * np.abs(theirs).max():
                raise ValueError("its results differ from those of Keras")
        return flatbuffer
    except Exception as error:  # a converter can fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        warnings.warn(f"{model.name}: LiteRT cannot run it ({lines[0][:200]}); Keras does, which is slower", stacklevel=2)
        return None


def fingerprint(model):
    """What tells this network from any other, whatever its layers are called.

    Args:
        model: `keras.Model`, functional.

    Returns:
        str, hexadecimal: a hash of layers, connections and weights, and of the versions of all that computes with them.
    """
    versions = [version(name) for name in ("tlhelpers", "keras", "tensorflow", "pillow", "ai-edge-litert")]
    key = hashlib.sha256(f"{versions} {model.input_shape} {model.output_shape}".encode())
    place = {id(operation): number for number, operation in enumerate(model.operations)}
    for operation in model.operations:
        inputs = [
            (place[id(tensor._keras_history.operation)], tensor._keras_history.tensor_index)
            for tensor in operation._inbound_nodes[0].input_tensors
        ]
        settings = sorted((operation.get_config() | {"name": ""}).items())
        key.update(repr((type(operation).__name__, inputs, settings)).encode())
    key.update(repr([place[id(tensor._keras_history.operation)] for tensor in model.outputs]).encode())
    for weight in model.weights:
        key.update(weight.numpy().tobytes())
    return key.hexdigest()[:24]


_ONE_QUIET = threading.Lock()


@contextmanager
def _quiet():
    """Standard error closed for a moment, for C code that greets."""
    with _ONE_QUIET:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
