"""engine.py: what LiteRT computes against Keras, for the networks of this book and for those of keras.applications."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from test_keras_backbones import random_backbone

import tlhelpers as tl
from tlhelpers.backbones import Backbone
from tlhelpers.engine import KerasEngine, LiteRTEngine, convert, fingerprint
from tlhelpers.features import predict


def off_by(found, wanted):
    """The largest difference, as part of the largest value."""
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", list(tl.BACKBONES))
def test_every_cut_point_is_what_keras_gives(name, cells):
    backbone = tl.load_backbone(name, image_size=96)
    for pool in ("average", "max", False) if name == "efficientnet_lite0" else (True,):
        model, few = backbone.cut(backbone.cut_points, pool=pool), cells.subset(slice(4))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that Keras had to do it
            found = tl.extract_features(few, backbone, cut_point=list(backbone.cut_points), pool=pool, cache=False)
        for ours, theirs in zip(found, predict(model, few), strict=True):
            assert ours.shape == theirs.shape and off_by(ours, theirs) < 2e-5


@pytest.mark.parametrize("name, size", [
    ("MobileNetV2", 96), ("MobileNetV3Small", 64), ("EfficientNetB0", 64), ("ResNet50V2", 64), ("ConvNeXtTiny", 64),
    ("NASNetMobile", 64),
])
def test_networks_of_keras_applications_are_what_keras_gives(name, size, cells):
    backbone, few = random_backbone(name, size), cells.subset(slice(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that Keras had to do it
        found = tl.extract_features(few, backbone, cache=False)
    assert off_by(found, predict(backbone.cut(), few)) < 1e-4


def test_a_photo_alone_in_company_or_in_another_order_gives_the_same_bits(cells, small, cell_features):
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(tl.extract_features(cells.subset(order), small, cache=False), cell_features[order])
    assert np.array_equal(tl.extract_features(cells.subset([7]), small, cache=False)[0], cell_features[7])


def test_another_process_with_another_number_of_threads_gives_the_same_bits(cell_features, tmp_path):
    code = (
        "import os, sys, numpy as np, tlhelpers as tl;"
        "cells = tl.load_dataset('solar_cells').sample(per_class=10, seed=0);"
        "features = tl.extract_features(cells, tl.load_backbone('efficientnet_lite0', image_size=64), cache=False);"
        "np.save(sys.argv[1], features)"
    )
    one_core = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});" if hasattr(os, "sched_setaffinity") else ""
    subprocess.run([sys.executable, "-c", one_core + code, tmp_path / "features.npy"], check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "features.npy"), cell_features)


def test_a_network_that_litert_cannot_take_is_computed_by_keras(cells):
    import keras

    photos = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(photos)
    x = keras.ops.sort(x, axis=-1) + keras.ops.real(keras.ops.fft2((x, x))[0]) * 0  # LiteRT has no such operation
    model = keras.Model(photos, keras.layers.GlobalAveragePooling2D()(x), name="odd")
    with pytest.raises(ValueError, match="neither a custom op"):
        convert(model)
    four = cells.subset(slice(4))
    backbone = Backbone("odd", model, {"top": model.layers[-2].name}, None)
    with pytest.warns(UserWarning, match=r"odd_to_top: LiteRT cannot run it \(.+\); Keras does") as said:
        found = tl.extract_features(four, backbone)
    assert [warning.filename for warning in said if "LiteRT" in str(warning.message)] == [__file__]
    assert np.array_equal(found, predict(model, four))


def test_a_conversion_with_other_results_is_not_used():
    """A layer that is another one when TensorFlow traces it than when Keras calls it: the converted one is wrong."""
    import keras
    import tensorflow as tf

    class TwoFaced(keras.layers.Layer):
        def call(self, x):
            return x * (1.0 if tf.executing_eagerly() else 1.01)

    photos = keras.Input((16, 16, 3))
    model = keras.Model(photos, keras.layers.GlobalAveragePooling2D()(TwoFaced()(photos)))
    with pytest.raises(ValueError, match="its results differ from those of Keras"):
        convert(model)


def test_on_a_gpu_keras_computes(cells, small, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: ["one"] if kind == "GPU" else [])
    monkeypatch.setattr("tlhelpers.features.convert", None)
    assert np.array_equal(tl.extract_features(cells, small, cache=False), predict(small.cut(), cells))


def test_without_a_standard_error_it_computes_all_the_same():
    code = (
        "import os, sys; sys.stderr = None; os.close(2);"
        "import warnings; warnings.simplefilter('error', UserWarning);"
        "import tlhelpers as tl; small = tl.load_backbone('efficientnet_lite0', image_size=32);"
        "print(tl.extract_features(tl.load_dataset('faces').subset([0, 1]), small, cut_point='stem', cache=False).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.stdout == "(2, 32)\n"


def test_keras_and_litert_agree_through_the_same_doors(cells, small, cell_photos, cell_features):
    keras_engine = KerasEngine(small.cut(["stage_3", "top"]), 4)
    assert keras_engine.batch_size == 4 and not keras_engine.parallel
    maps, top = keras_engine.run(cell_photos[:4].astype(np.uint8))
    assert maps.shape == (4, 40) and off_by(cell_features[:4], top) < 1e-5
    litert = LiteRTEngine(convert(small.cut(["stage_3", "top"])))
    assert litert.batch_size == 1 and litert.parallel and 1 <= litert.workers <= (os.cpu_count() or 1)
    for photo in range(4):
        ours = litert.run(cell_photos[photo : photo + 1].astype(np.uint8))
        assert off_by(ours[0], maps[photo : photo + 1]) < 1e-5 and off_by(ours[1], top[photo : photo + 1]) < 1e-5


def test_a_network_is_known_by_layers_connections_and_weights_not_by_names(small):
    import keras

    def build(first, second, swapped=False, name=None, weight=1.0):
        photos = keras.Input((8, 8, 3), name=name)
        a = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer="ones", name=name and name + "a")(photos)
        b = keras.layers.ReLU(max_value=first)(a)
        c = keras.layers.ReLU(max_value=second)(photos if swapped else b)
        model = keras.Model(photos, keras.layers.Add()([b, c]))
        model.set_weights([model.get_weights()[0] * weight])
        return model

    base = fingerprint(build(1.0, 2.0))
    assert fingerprint(build(1.0, 2.0, name="other")) == base
    others = [build(2.0, 1.0), build(1.0, 2.0, swapped=True), build(1.0, 2.0, weight=1.0000001)]
    assert len({base, *map(fingerprint, others)}) == 4

    photos = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 1, use_bias=False, kernel_initializer="ones")
    for outputs in (photos * 2, photos * 3, photos - 1, 1 - photos, shared(photos), shared(shared(photos))):
        others.append(keras.Model(photos, outputs))
    assert len({base, *map(fingerprint, others)}) == 10
    copy = tl.load_backbone("efficientnet_lite0", image_size=64)
    assert fingerprint(copy.cut()) == fingerprint(small.cut())
    cuts = [None, "stage_7", ["stage_7", "top"], ["top", "stage_7"]]
    keys = {fingerprint(small.cut(cut, pool=pool)) for cut in cuts for pool in ("average", "max", False)}
    assert len(keys) == 12
