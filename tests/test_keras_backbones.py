"""backbones.py: the networks of keras.applications, with weights that these tests make and serve themselves."""

import hashlib
import inspect
import re
import socket
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import tlhelpers as tl
from tlhelpers.backbones import KERAS_BACKBONES, _load_keras_backbone, build_keras_network

# Each way to prepare photos: BGR minus means (caffe), −1..1 (tf), ImageNet's means and deviations (torch), inside.
WAYS = {
    "ResNet50": "caffe", "MobileNet": "tf", "DenseNet121": "torch", "EfficientNetB0": "inside", "MobileNetV3Small": "inside",
}


def run(model, photos):
    return np.asarray(model(np.asarray(photos, np.float32), training=False))


def difference(found, wanted):
    """The largest one, as a part of how much the values differ among themselves."""
    assert wanted.std() > 0
    return np.abs(found - wanted).max() / wanted.std()


def photos(size, count=4):
    """Noise, coarse and coloured, so that the channels differ and no map is the same everywhere: RGB 0..255."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (count, 5, 5, 3)) * np.array([1.0, 0.6, 0.3])
    return np.stack([tl.resize_image(photo.astype(np.uint8), size) for photo in coarse]).astype(np.float32)


def enliven(model):
    """Draw weights with which a signal neither fades nor grows from layer to layer (He et al. 2015)."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("kernel") and len(weight.shape) == 4:
            height, width, channels, out = weight.shape
            fan_in = height * width * (1 if out == 1 else channels)  # depthwise: each channel on its own
            weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))


_built = {}


def random_backbone(name, size):
    """A backbone with random weights, the same for the whole file."""
    if (name, size) not in _built:
        _built[name, size] = _load_keras_backbone(name, size, weights=None)
        enliven(_built[name, size].model)
    return _built[name, size]


def application(name, size, **options):
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), **options)


# --- what there is ------------------------------------------------------------------------------------------------


def test_the_table_has_all_networks_of_keras():
    import keras

    there = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert set(KERAS_BACKBONES) == there


@pytest.mark.parametrize("name", [name for name in KERAS_BACKBONES if not name.startswith("MobileNetV3")])
def test_each_network_has_the_size_it_was_trained_for(name):
    import keras

    # Who asks for the last layer at another size, is told, before anything is built or downloaded.
    with pytest.raises(ValueError, match="should be") as error:
        getattr(keras.applications, name)(weights="imagenet", include_top=True, input_shape=(33, 34, 3))
    assert f"({KERAS_BACKBONES[name]}, {KERAS_BACKBONES[name]}, 3)" in str(error.value)


@pytest.mark.parametrize("name", ["MobileNetV9", "RestNet50", "", "efficientnet", 3])
def test_an_unknown_network_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match="no backbone .*'efficientnet_lite0'.* any of keras.applications, such as '"):
        tl.load_backbone(name)


def test_a_misspelt_name_is_answered_with_those_like_it():
    with pytest.raises(ValueError, match="'ResNet50'"):
        tl.load_backbone("RestNet_50")
    with pytest.raises(ValueError, match="'MobileNetV2'"):
        tl.load_backbone("mobilenet_v22")


# --- preprocessing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
def test_preprocessing_is_inside_the_model(name):
    size = 37
    backbone = random_backbone(name, size)
    reference = application(name, size, include_top=False, pooling="avg")
    reference.set_weights(backbone.model.get_weights())
    preprocess_input = sys.modules[type_of(name).__module__].preprocess_input
    wanted = run(reference, preprocess_input(photos(size)))
    assert difference(run(backbone.model, photos(size)), wanted) < 1e-4
    # It is there once: nothing else would give the same.
    others = [photos(size) / 255, preprocess_input(photos(size)[..., ::-1].copy())]
    assert min(difference(run(reference, other), wanted) for other in others) > 0.01
    first = [layer.name for layer in backbone.model.layers[:2]]
    assert (first == ["photos", "preprocessing"]) == (WAYS[name] != "inside")


def type_of(name):
    import keras

    return getattr(keras.applications, name)


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        ("ResNet50", lambda x: x[..., ::-1] - [103.939, 116.779, 123.68]),
        ("MobileNet", lambda x: x / 127.5 - 1),
        ("DenseNet121", lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
    ],
)
def test_preprocessing_is_the_published_one(name, rgb):
    import keras

    model = random_backbone(name, 37).model
    prepared = keras.Model(model.input, model.get_layer("preprocessing").output)
    assert np.allclose(run(prepared, photos(37)), rgb(photos(37)), atol=1e-4)


def test_preprocessing_that_is_no_scaling_is_refused(monkeypatch):
    from keras.src.applications import mobilenet

    monkeypatch.setattr(mobilenet, "preprocess_input", lambda x, data_format: np.sqrt(x))
    with pytest.raises(ValueError, match="MobileNet: this version of Keras prepares photos in a way that is not known"):
        build_keras_network("MobileNet", 32, weights=None)


# --- cut points ---------------------------------------------------------------------------------------------------

SIDES = {  # the size of the photo, and what is left of it at each cut point
    ("MobileNetV2", 75): [38, 19, 10, 5, 3],
    ("MobileNetV3Small", 37): [19, 10, 5, 3, 2],  # has 1×1 maps in side paths
    ("ResNet50", 37): [19, 10, 5, 3, 2],
    ("Xception", 75): [37, 35, 18, 9, 5, 3],
    ("VGG16", 37): [37, 18, 9, 4, 2, 1],
    ("ConvNeXtTiny", 37): [9, 4, 2, 1],  # cut at sums that are no layers
}


@pytest.mark.parametrize(("name", "size"), SIDES)
def test_there_is_a_cut_point_at_each_size_of_maps(name, size):
    backbone = random_backbone(name, size)
    sides = SIDES[name, size]
    assert backbone.cut_points == (*(f"stage_{number}" for number in range(1, len(sides))), "top")
    shapes = [backbone.cut(cut_point, pool=False).output_shape for cut_point in backbone.cut_points]
    assert [shape[:3] for shape in shapes] == [(None, side, side) for side in sides]
    pooled = [backbone.cut(cut_point).output_shape for cut_point in backbone.cut_points]
    assert pooled == [(None, shape[3]) for shape in shapes]


@pytest.mark.parametrize(("name", "size"), SIDES)
def test_the_network_can_be_put_together_again_at_each_cut_point(name, size):
    import keras

    backbone = random_backbone(name, size)
    whole = run(backbone.model, photos(size))
    operations = {operation.name: operation for operation in backbone.model.operations}
    for cut_point in backbone.cut_points:
        maps = operations[backbone.cut_layers[cut_point]].output
        upper = keras.Model(maps, backbone.model.output)  # Keras refuses, if anything by-passes this place
        assert difference(run(upper, run(backbone.cut(cut_point, pool=False), photos(size))), whole) < 1e-4


@pytest.mark.parametrize(("name", "size"), SIDES)
def test_no_later_layer_of_the_same_size_would_do(name, size):
    import keras

    backbone = random_backbone(name, size)
    names = [operation.name for operation in backbone.model.operations]
    for cut_point in backbone.cut_points[:-1]:
        side = backbone.cut(cut_point, pool=False).output_shape[1]
        later = backbone.model.operations[names.index(backbone.cut_layers[cut_point]) + 1 :]
        for operation in later:
            shape = getattr(operation.output, "shape", ())
            if len(shape) == 4 and shape[1] == side and not isinstance(operation, keras.layers.ZeroPadding2D):
                with pytest.raises(ValueError, match="not connected"):
                    keras.Model(operation.output, backbone.model.output)


def test_a_network_with_side_paths_everywhere_is_cut_at_the_last_layer_of_each_size():
    backbone = random_backbone("NASNetMobile", 37)
    sides = [backbone.cut(cut_point, pool=False).output_shape[1] for cut_point in backbone.cut_points]
    assert sides == [18, 9, 5, 3, 2]
    assert np.isfinite(run(backbone.cut("stage_3"), photos(37))).all()


@pytest.mark.parametrize(("name", "size"), [*SIDES, ("NASNetMobile", 37)])
def test_the_last_cut_point_is_the_whole_network(name, size):
    backbone = random_backbone(name, size)
    whole = run(backbone.model, photos(size))
    assert whole.shape == (4, backbone.feature_size) and np.isfinite(whole).all()
    assert np.array_equal(run(backbone.cut(), photos(size)), whole)
    assert not backbone.model.trainable_weights and not backbone.cut("stage_2").trainable_weights


def test_several_cut_points_at_once_give_what_each_gives():
    backbone = random_backbone("ConvNeXtTiny", 37)
    maps = backbone.cut(["top", "stage_2"])(photos(37), training=False)
    for found, cut_point in zip(maps, ["top", "stage_2"]):
        assert np.allclose(found, run(backbone.cut(cut_point), photos(37)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="ConvNeXtTiny can be cut at stage_1, stage_2, stage_3, top"):
        backbone.cut("stage_4")


@pytest.mark.parametrize(("name", "smallest"), [("Xception", 71), ("InceptionV3", 75)])
def test_photos_that_are_too_small_for_a_network_are_refused(name, smallest):
    with pytest.raises(ValueError, match=f"image_size is 70; {name} takes photos of {smallest} pixels or more"):
        tl.load_backbone(name, image_size=70)


# --- classifiers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "size"), [("ResNet50", 37), ("MobileNetV3Small", 37)])
def test_a_saved_classifier_is_read_by_plain_keras(name, size, tmp_path):
    import keras

    backbone = random_backbone(name, size)
    features = run(backbone.model, photos(size))
    centred = (features - features.mean(axis=0))[:3]
    kernel = (3 * centred / np.square(centred).sum(axis=1, keepdims=True)).T
    head = tl.Head(kernel, -features.mean(axis=0) @ kernel, 1.0)
    classifier = tl.build_classifier(backbone, ("a", "b", "c"), head=head)
    wanted = head.predict_proba(features)
    assert wanted.std() > 0.05 and np.abs(run(classifier, photos(size)) - wanted).max() < 1e-4
    assert [layer.name for layer in classifier.layers if layer.trainable_weights] == ["logits"]
    tl.save_classifier(classifier, tmp_path / "letters.keras")
    again = keras.models.load_model(tmp_path / "letters.keras")
    assert np.abs(run(again, photos(size)) - wanted).max() < 1e-4
    if name == "ResNet50":  # the order of the channels is part of what is saved
        assert np.abs(run(again, photos(size)[..., ::-1]) - wanted).max() > 0.01


def test_a_classifier_has_weights_of_its_own():
    backbone = random_backbone("ConvNeXtTiny", 37)
    before = backbone.model.get_weights()
    classifier = tl.build_classifier(backbone, ("a", "b"))
    names = [operation.name for operation in classifier.operations]
    assert names[:-2] == [operation.name for operation in backbone.model.operations]
    assert set(backbone.cut_layers.values()) <= set(names)
    classifier.set_weights([np.zeros_like(weight) for weight in classifier.get_weights()])
    assert all(np.array_equal(old, new) for old, new in zip(before, backbone.model.get_weights()))


# --- download -----------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves what is in `files`, on the loopback, and keeps a list of what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cut_off = {}, [], False
        self.address = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        if name not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.server.cut_off else data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server in the place of Keras's, and an empty cache folder."""
    from keras.src.applications import efficientnet, mobilenet_v2, mobilenet_v3
    from keras.src.backend import config

    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", server.address)
    monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", server.address)
    monkeypatch.setattr(efficientnet, "BASE_WEIGHTS_PATH", server.address)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


NO_TOP = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
V3 = "weights_mobilenet_v3_small_224_1.0_float"
V3_NO_TOP = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
_files = {}


def weights_file(model, tmp_path):
    """The bytes of a file as keras.applications publishes them."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(tmp_path / "made.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return (tmp_path / "made.h5").read_bytes()


@pytest.fixture
def v2(tmp_path):
    """MobileNetV2 with random weights, and the file they are in; the same for the whole file."""
    if "v2" not in _files:
        model = application("MobileNetV2", 96, include_top=False, pooling="avg")
        enliven(model)
        _files["v2"] = model, weights_file(model, tmp_path)
    return _files["v2"]


def scaled(pixels):
    return pixels / 127.5 - 1


def test_weights_are_downloaded_once(server, v2, tmp_path):
    reference, server.files[NO_TOP] = v2
    backbone = tl.load_backbone("mobilenet_v2", image_size=96)
    assert server.asked == [NO_TOP] and (tmp_path / "models" / NO_TOP).read_bytes() == server.files[NO_TOP]
    assert (backbone.name, backbone.image_size, backbone.feature_size) == ("MobileNetV2", 96, 1280)
    assert repr(backbone).startswith("<Backbone MobileNetV2: RGB 96×96 → 1,280 features; ")
    assert difference(run(backbone.model, photos(96)), run(reference, scaled(photos(96)))) < 1e-4
    assert not backbone.model.trainable_weights
    server.files.clear()
    again = tl.load_backbone("MobileNetV2", image_size=96)
    assert server.asked == [NO_TOP]
    assert np.array_equal(run(again.model, photos(96)), run(backbone.model, photos(96)))


def test_features_of_real_photos(server, v2, cells):
    reference, server.files[NO_TOP] = v2
    few = cells.subset([0, 1, 18, 19])
    features = tl.extract_features(few, tl.load_backbone("MOBILENET-V2", image_size=96))
    wanted = run(reference, scaled(few.images(96).astype(np.float32)))
    assert features.dtype == np.float32 and difference(features, wanted) < 1e-3


def test_an_odd_size_takes_the_weights_of_224_pixels_without_a_word(server, v2, recwarn):
    reference, server.files[NO_TOP.replace("96", "224")] = v2
    backbone = tl.load_backbone("MobileNetV2", image_size=75)
    assert backbone.image_size == 75 and not [w for w in recwarn if "Weights for input shape" in str(w.message)]
    assert all(np.array_equal(a, b) for a, b in zip(backbone.model.get_weights(), reference.get_weights()))


def test_a_file_with_another_hash_than_the_published_one_is_refused(server, tmp_path, monkeypatch):
    from keras.src.applications import mobilenet_v3

    data = weights_file(application("MobileNetV3Small", 32, include_top=False), tmp_path)
    server.files[V3_NO_TOP] = data
    file = re.escape(str(tmp_path / "models" / V3_NO_TOP))
    wanted = f"^{file}: not the file .* for MobileNetV3Small, .* another hash; .*{server.address}.* 'efficientnet_lite0'"
    with pytest.raises(ValueError, match=wanted):
        tl.load_backbone("MobileNetV3Small", image_size=32)
    # From here on, what this test has made is what was published.
    top, _ = mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"]
    monkeypatch.setitem(mobilenet_v3.WEIGHTS_HASHES, "small_224_1.0_float", (top, hashlib.md5(data).hexdigest()))
    (tmp_path / "models" / V3_NO_TOP).unlink()
    server.files[V3_NO_TOP] = data[:-1] + b"x"
    with pytest.raises(ValueError, match=wanted):
        tl.load_backbone("MobileNetV3Small", image_size=32)
    server.files[V3_NO_TOP] = data  # what was refused is asked for again
    assert tl.load_backbone("MobileNetV3Small", image_size=32).feature_size == 576
    assert len(server.asked) == 3


def test_where_nothing_is_served_the_message_says_what_to_do(server, tmp_path):
    with pytest.raises(ConnectionError) as error:
        tl.load_backbone("MobileNetV2", image_size=96)
    message = str(error.value)
    assert message.startswith(f"MobileNetV2: Keras could not download the weights from {server.address}{NO_TOP} (")
    assert "404" in message and "'efficientnet_lite0'" in message
    assert f"save {server.address}{NO_TOP} by hand as {tmp_path / 'models' / NO_TOP}" in message
    assert not list((tmp_path / "models").iterdir())


def test_what_was_saved_by_hand_is_taken(server, v2, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / NO_TOP).write_bytes(v2[1])
    assert tl.load_backbone("MobileNetV2", image_size=96).feature_size == 1280
    assert server.asked == []


def test_without_a_network_the_message_says_what_to_do(server, monkeypatch):
    from keras.src.applications import efficientnet

    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(efficientnet, "BASE_WEIGHTS_PATH", f"http://127.0.0.1:{closed.getsockname()[1]}/")
        with pytest.raises(ConnectionError, match="EfficientNetB0: Keras could not download .*refused.* network connection"):
            tl.load_backbone("EfficientNetB0", image_size=32)


def test_a_download_that_breaks_off_leaves_nothing_behind(server, v2, tmp_path):
    _, server.files[NO_TOP] = v2
    server.cut_off = True
    with pytest.raises(ConnectionError, match="could not download the weights"):
        tl.load_backbone("MobileNetV2", image_size=96)
    assert not list((tmp_path / "models").iterdir())
    server.cut_off = False
    assert tl.load_backbone("MobileNetV2", image_size=96).feature_size == 1280


@pytest.mark.parametrize("damage", ["a page", "half a file", "another network"])
def test_a_file_that_holds_no_weights_of_this_network_is_named(server, v2, tmp_path, damage):
    if damage == "another network":
        data = weights_file(application("MobileNetV3Small", 32, include_top=False), tmp_path)
    else:
        data = b"<html>Please log in</html>" if damage == "a page" else v2[1][: len(v2[1]) // 2]
    server.files[NO_TOP] = data  # Keras knows no hash for this network
    file = re.escape(str(tmp_path / "models" / NO_TOP))
    with pytest.raises(ValueError, match=f"^{file}: not the weights of MobileNetV2, or damaged .*delete this file"):
        tl.load_backbone("MobileNetV2", image_size=96)


def test_the_whole_network_is_a_second_download(server, tmp_path, monkeypatch):
    import keras
    from keras.src.applications import mobilenet_v3

    whole = application("MobileNetV3Small", 224, include_top=True)
    enliven(whole)
    server.files[V3 + ".h5"] = weights_file(whole, tmp_path)
    body = application("MobileNetV3Small", 224, include_top=False, pooling="avg")
    body.set_weights(whole.get_weights()[: len(body.get_weights())])
    server.files[V3_NO_TOP] = weights_file(body, tmp_path)
    hashes = tuple(hashlib.md5(server.files[name]).hexdigest() for name in (V3 + ".h5", V3_NO_TOP))
    monkeypatch.setitem(mobilenet_v3.WEIGHTS_HASHES, "small_224_1.0_float", hashes)
    backbone = tl.load_backbone("mobilenet_v3_small")
    assert backbone.image_size == 224 and server.asked == [V3_NO_TOP]
    probabilities = run(backbone.classifier, photos(224))
    assert server.asked == [V3_NO_TOP, V3 + ".h5"]
    assert backbone.classifier is backbone.classifier and not backbone.classifier.trainable_weights
    assert difference(probabilities, run(whole, photos(224))) < 1e-3
    logits = keras.Model(backbone.classifier.input, backbone.classifier.get_layer("logits").output)
    assert logits.output_shape == (None, 1000) and len(backbone.class_names) == 1000
    powers = np.exp(run(logits, photos(224)))
    assert np.allclose(powers / powers.sum(axis=1, keepdims=True), probabilities, rtol=1e-3)


def test_the_whole_network_takes_no_other_size(server, v2):
    _, server.files[NO_TOP] = v2
    backbone = tl.load_backbone("MobileNetV2", image_size=96)
    with pytest.raises(ValueError, match=r"photos of 96 pixels, but its classifier takes 224: use load_backbone\('Mob"):
        backbone.classifier
    assert server.asked == [NO_TOP]
