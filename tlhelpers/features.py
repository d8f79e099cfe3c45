"""Each photo through the frozen backbone once.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tlhelpers.images import resize_image

__all__ = ["extract_features", "predict"]


def extract_features(dataset, backbone, *, cut_point=None, pool=True, batch_size=8):
    """Send each photo through the frozen backbone once.

    Args:
        dataset: `Dataset` of n photos; each is squeezed to `backbone.image_size`.
        backbone: `Backbone`; only its weights up to `cut_point` are used.
        cut_point: name from `backbone.cut_points`, or a list of names; None is the last.
        pool: average over the picture's height and width.
        batch_size: photos a step; memory grows with it, results do not change. On a CPU small is fast: what one step
            computes then stays in the processor's cache.

    Returns:
        float32 array, (n, channels) or, with pool=False, (n, height, width, channels); rows in the order of `dataset`.
        For a list of cut points: a list of such arrays.

    Raises:
        ValueError: `cut_point` is not one of `backbone.cut_points`, or the data set is empty.

    Explained in notebooks/03_feature_extraction.ipynb.
    """
    features = predict(backbone.cut(cut_point, pool=pool), dataset, batch_size=batch_size)
    one_of_a_list = not (cut_point is None or isinstance(cut_point, str) or isinstance(features, list))
    return [features] if one_of_a_list else features


def predict(model, dataset, *, batch_size=8):
    """Send each photo of a data set through a Keras model, batch by batch, reading photos as they are needed.

    Args:
        model: `keras.Model`: RGB 0..255, (n, size, size, 3) → one or several outputs.
        dataset: `Dataset` of n photos; each is squeezed to the size that the model takes.
        batch_size: photos a step.

    Returns:
        float32 array, (n, …), or a list of them where the model has several outputs; rows in the order of `dataset`.

    Raises:
        ValueError: the data set is empty, or the model says of no single image size that it takes.

    Explained in notebooks/03_feature_extraction.ipynb.
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
    outputs = [np.empty((len(dataset), *output_shape[1:]), np.float32) for output_shape in output_shapes]

    def read(start):
        """One batch, always of the same shape: another would make TensorFlow trace the model a second time."""
        batch = np.zeros((min(batch_size, len(dataset)), *shape[1:]), np.float32)
        for place, row in enumerate(range(start, min(start + batch_size, len(dataset)))):
            batch[place] = resize_image(dataset.image(row), shape[1])
        return batch

    with ThreadPoolExecutor(1) as reader:  # reads the next batch while the network works on this one
        waiting = reader.submit(read, 0)
        for start in range(0, len(dataset), batch_size):
            batch = waiting.result()
            if start + batch_size < len(dataset):
                waiting = reader.submit(read, start + batch_size)
            results = model.predict_on_batch(batch)
            for output, result in zip(outputs, [results] if single else results):
                output[start : start + batch_size] = result[: len(dataset) - start]
    return outputs[0] if single else outputs
