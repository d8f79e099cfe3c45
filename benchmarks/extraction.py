"""Feature extraction: tlhelpers against keras.Model.predict, ONNX Runtime, OpenVINO and LiteRT, on the same photos.

All contenders read and resize photos with the code of tlhelpers, and reading overlaps with computing for each of them.
Each peer is tried in a few configurations on a part of the photos; its fastest one takes part. Its ratio says how many
times as fast tlhelpers is. Results must agree with plain float32 Keras.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import common
import numpy as np

import tlhelpers as tl

OURS, KERAS = "tlhelpers", "Keras predict"
LARGEST_DIFFERENCE = 1e-3
EXTRA = 'not installed; python -m pip install -e ".[bench]" installs all peers'


# --- two ways to keep the cores busy ------------------------------------------------------------------------------


def all_cores(infer, batch_size, size):
    """One engine works on a batch with all cores, while a thread reads the next ones."""

    def extract(dataset):
        return np.concatenate([infer(batch) for batch in common.batches(dataset, batch_size, size)])[: len(dataset)]

    return extract


def one_core_each(infers, batch_size, size):
    """One engine a core: each reads its photos and computes them, with nothing to wait for."""

    def extract(dataset):
        starts, found = iter(range(0, len(dataset), batch_size)), {}

        def work(infer):
            for start in starts:
                found[start] = infer(common.read(dataset, start, batch_size, size))

        with ThreadPoolExecutor(len(infers)) as pool:
            list(pool.map(work, infers))
        return np.concatenate([found[start] for start in sorted(found)])[: len(dataset)]

    return extract


def ways(make_infers, size, *, batches, own_batches):
    """Configuration → function that builds it. `make_infers(threads, engines, batch_size)` gives a list of functions:
    float32, (batch_size, size, size, 3) → (batch_size, channels)."""
    found = {}
    for batch_size in batches:
        found[f"{common.CORES} threads, batch {batch_size}"] = lambda batch_size=batch_size: all_cores(
            make_infers(common.CORES, 1, batch_size)[0], batch_size, size
        )
    for batch_size in own_batches:
        found[f"{common.CORES} workers × 1 thread, batch {batch_size}"] = lambda batch_size=batch_size: one_core_each(
            make_infers(1, common.CORES, batch_size), batch_size, size
        )
    return found


# --- peers: each converts the network once, and gives its configurations ------------------------------------------


def keras_predict(model, size):
    def build(batch_size):  # from a generator, Keras reads ahead by itself
        return lambda dataset: model.predict(
            ((batch,) for batch in common.batches(dataset, batch_size, size)), verbose=0
        )[: len(dataset)]

    return {f"batch {batch_size}, reading ahead": partial(build, batch_size) for batch_size in (8, 32)}


def onnxruntime(model, size):
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec((None, size, size, 3), tf.float32, name="photos")]
    call = tf.function(lambda photos: model(photos, training=False), input_signature=signature)
    content = tf2onnx.convert.from_function(call, input_signature=signature, opset=17)[0].SerializeToString()

    def make_infers(threads, engines, batch_size, spin=True):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return [lambda batch: session.run(None, {"photos": batch})[0]] * engines  # a session may run in several threads

    found = ways(make_infers, size, batches=(1, 4, 8), own_batches=(1, 4))
    # Threads that spin while they wait take time from the thread that reads.
    resting = ways(partial(make_infers, spin=False), size, batches=(4, 8), own_batches=())
    return found | {f"{name}, no spinning": build for name, build in resting.items()}


def openvino(model, size):
    sys.modules.setdefault("openvino_telemetry", None)  # importing openvino would send a message to its makers
    import openvino

    network = openvino.convert_model(model)

    def make_infers(threads, engines, batch_size):
        network.reshape([batch_size, size, size, 3])
        compiled = openvino.Core().compile_model(network, "CPU", {
            "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": common.CORES, "NUM_STREAMS": engines,
        })
        return [partial(infer, compiled.create_infer_request()) for _ in range(engines)]

    def infer(request, batch):
        return request.infer({0: batch})[0].copy()

    return ways(make_infers, size, batches=(1, 4, 8), own_batches=(1, 4))


def litert(model, size):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    call = tf.function(lambda photos: model(photos, training=False))
    concrete = call.get_concrete_function(tf.TensorSpec((None, size, size, 3), tf.float32))
    frozen = convert_variables_to_constants_v2(concrete)  # without constants the converter loses the weights
    content = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()

    def make_infers(threads, engines, batch_size):
        return [partial(infer, started(threads, batch_size)) for _ in range(engines)]

    def started(threads, batch_size):
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (batch_size, size, size, 3))
        interpreter.allocate_tensors()
        return interpreter

    def infer(interpreter, batch):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return ways(make_infers, size, batches=(1, 4, 8), own_batches=(1, 4))


PEERS = {KERAS: keras_predict, "ONNX Runtime": onnxruntime, "OpenVINO": openvino, "LiteRT": litert}


# --- the benchmark ------------------------------------------------------------------------------------------------


def build(model, size, few):
    """Peer → its configurations, each built and run once: name → (function, seconds to build); and what is missing."""
    found, missing = {}, {}
    for name, peer in PEERS.items():
        common.say(f"building: {name}")
        try:
            configurations, converting = common.seconds_of(lambda: peer(model, size))
        except ModuleNotFoundError as error:
            missing[name] = f"{error.name} is {EXTRA}"
            continue
        found[name] = {}
        for configuration, make in configurations.items():
            extract, making = common.seconds_of(make)
            _, first_call = common.seconds_of(partial(extract, few))
            found[name][configuration] = extract, converting + making + first_call
    return found, missing


def fastest(configurations, few):
    """The configuration that takes least time on a few photos, best of two; and the seconds of each."""
    seconds, _ = common.paired_rounds({name: partial(extract, few) for name, (extract, _) in configurations.items()}, 2)
    least = {name: min(took) for name, took in seconds.items()}
    return min(least, key=least.get), least


def one_set(dataset, backbone, peers, building, args):
    few = dataset.subset(slice(args.tune))
    contenders = {OURS: lambda: tl.extract_features(dataset, backbone, cache=False)}
    rows = {OURS: {"configuration": "as it is", "building_seconds": building}}
    for name, configurations in peers.items():
        common.say(f"{dataset.name}: choosing the configuration of {name}, {len(few)} photos")
        chosen, tried = fastest(configurations, few)
        extract, seconds = configurations[chosen]
        contenders[name] = partial(extract, dataset)
        rows[name] = {"configuration": chosen, "building_seconds": seconds, "tried_seconds": tried}

    common.say(f"{dataset.name}: {len(dataset)} photos")
    # Before the rounds, so that the files are in the memory of the system for the first as for the last.
    reference = np.concatenate([
        backbone.model.predict_on_batch(batch) for batch in common.batches(dataset, 8, backbone.image_size)
    ])[: len(dataset)]
    seconds, features = common.paired_rounds(contenders, args.rounds)
    for name, row in rows.items():
        row |= {
            "seconds": seconds[name],
            "photos_per_second": len(dataset) / median(seconds[name]),
            "difference": float(np.abs(features[name][-1] - reference).max() / np.abs(reference).max()),
            "ratio": common.ratio(seconds[name], seconds[OURS]),
        }
    return {"set": dataset.name, "photos": len(dataset), "contenders": rows}


def bars_of(found):
    bars = []
    for one in found:
        ratios = {name: row["ratio"]["median"] for name, row in one["contenders"].items() if name != OURS}
        bars.append(common.bar(f"{one['set']}: times as fast as {KERAS}", ratios.pop(KERAS), at_least=1.6))
        if ratios:  # the lowest ratio is that of the fastest engine
            name = min(ratios, key=ratios.get)
            what = f"{one['set']}: times as fast as the fastest engine, {name}"
            bars.append(common.bar(what, ratios[name], at_least=0.9))
    worst = max(row["difference"] for one in found for row in one["contenders"].values())
    what = "largest difference from float32 Keras, max|a−b| / max|b|"
    return [*bars, common.bar(what, worst, at_most=LARGEST_DIFFERENCE)]


def work(args):
    sets = common.datasets(args)
    backbone = tl.load_backbone(args.backbone, image_size=args.image_size)
    few = sets[0].subset(slice(8))
    common.say(f"building: {OURS}")
    _, building = common.seconds_of(lambda: tl.extract_features(few, backbone, cache=False))
    peers, missing = build(backbone.model, backbone.image_size, few)
    found = [one_set(dataset, backbone, peers, building, args) for dataset in sets]
    tables = []
    for one in found:
        rows = [
            (
                name, row["configuration"], f"{row['photos_per_second']:.0f}", common.told(row["ratio"]),
                f"{row['building_seconds']:.1f}", f"{row['difference']:.0e}",
            )
            for name, row in one["contenders"].items()
        ]
        columns = (
            "contender", "configuration", "photos/s", "tlhelpers is … times as fast", "building, s", "difference"
        )
        title = f"{one['set']}: {one['photos']} photos, median (least to most) of {args.rounds} rounds"
        tables.append(common.table(title, columns, rows))
    settings = {name: getattr(args, name) for name in ("backbone", "image_size", "photos", "rounds", "tune")}
    return {"settings": settings, "results": found, "missing": missing, "bars": bars_of(found)}, tables


if __name__ == "__main__":
    arguments = common.parser(__doc__, rounds=5, photos=400, sets=("solar_cells", "faces"))
    arguments.add_argument("--tune", type=int, default=64, help="photos on which a peer's configurations are compared")
    common.run(arguments, work)
