"""One file → one RGB array, and one array → the size a network takes.

Explained in notebooks/02_what_a_network_knows.ipynb.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["read_image", "resize_image"]


def read_image(path):
    """Read one photo as the eye would see it, always as RGB.

    A photo on disk may be turned (EXIF orientation), grey, half transparent or 16 bits deep. A network takes one
    form only. Transparency is laid over white; 16-bit grey is divided by 257, so that 65,535 becomes 255.

    Args:
        path: file in a format that Pillow reads (JPEG, PNG, PGM, …).

    Returns:
        uint8 array, (height, width, 3), RGB 0..255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no photo that can be read; the message names it.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the path, or that it is a file and not a folder")
    try:
        with Image.open(path) as file:
            photo = ImageOps.exif_transpose(file)
            if photo.mode.startswith("I;16") or photo.mode == "I":
                grey = np.asarray(photo, dtype=np.int64)
                return np.repeat(np.clip(np.rint(grey / 257), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
            if photo.has_transparency_data:
                photo = photo.convert("RGBA")
                photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
            return np.asarray(photo.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a photo that can be read ({error}); convert it to JPEG or PNG") from error


def resize_image(image, size, *, crop=False):
    """Bring one photo to the square that a network takes (bilinear, averaging where it shrinks).

    Args:
        image: uint8 array, (height, width, 3).
        size: side of the square in pixels.
        crop: False squeezes the whole photo into the square, so that nothing at its edge is lost; True cuts the
            square from the middle, so that nothing is squeezed.

    Returns:
        uint8 array, (size, size, 3).

    Raises:
        ValueError: `image` is not an RGB photo of 8 bits, or `size` is below 1.

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"image has shape {image.shape} and dtype {image.dtype}; expected (height, width, 3) and uint8, as "
            "read_image returns it"
        )
    if size < 1:
        raise ValueError(f"size is {size}; expected a side in pixels, 1 or more")
    height, width = image.shape[:2]
    side = min(height, width)
    if crop:  # before resizing, so that nothing from outside the square bleeds into its edge
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
