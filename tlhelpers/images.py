"""One file → one RGB array, safely, and one array → the size a network takes.

Explained in notebooks/02_what_a_network_knows.ipynb; hostile files in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import contextlib
import io
import logging
import mmap
import os
import stat
import threading
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

__all__ = ["read_image", "resize_image", "shown", "vary"]

# What is tried at all (an MPO, several pictures, begins as a JPEG): other readers of Pillow start other programs (EPS), or
# read what no camera writes.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
# 67 million pixels, 8,192 × 8,192. A file of a few kB can announce billions: a decompression bomb.
MAX_PIXELS = 2**26
MAX_SCANS = 100  # a progressive JPEG has about ten
_TOO_LARGE = f"more pixels than the {MAX_PIXELS / 1e6:.0f} million that are read here, perhaps a decompression bomb; save it smaller"

_ONE_LARGE = threading.Lock()  # large pictures are decoded one at a time, however many threads read
_BEGINNINGS = (  # of files that often lie among photos and are none
    (b"<!doctype html", "a web page"), (b"<html", "a web page"), (b"<?xml", "an XML or SVG file"), (b"<svg", "an SVG drawing"),
    (b"%pdf", "a PDF"), (b"pk\3\4", "a zip archive"), (b"%!ps", "a PostScript file"), (b"8bps", "a Photoshop file"),
    (b"mz", "a Windows program"), (b"\x7felf", "a program"),
)
_GREYS = ("1", "L", "LA", "La")
_HEIC = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")

# A damaged file makes Pillow warn and log. Whatever matters becomes a ValueError here; and catching warnings around each
# file would not be safe in threads.
for _kind in (UserWarning, Image.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_kind, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


class UnreadablePhoto(ValueError):
    """A file is no photo that can be read; `reason` says why, without the file's name."""

    def __init__(self, path: str | PathLike, reason: str):
        super().__init__(f"{shown(path)}: not a photo that can be read ({reason})")
        self.reason = reason


def read_image(path: str | PathLike, *, at_least: int | None = None) -> np.ndarray:
    """Read one photo as the eye would see it, always as RGB.

    A photo on disk may be turned (EXIF orientation), grey, half transparent, 16 bits deep, made for print (CMYK), or in
    the colours of another screen (ICC profile). A network takes one form only. Transparency is laid over white, colours
    are brought to sRGB, and 16-bit grey is divided by 257, so that 65,535 becomes 255. (Of 16-bit colour Pillow keeps
    the higher byte, which is at most one of 255 steps away from that.) Of several pictures in a file the first counts.

    Args:
        path: file in JPEG, PNG, GIF, BMP, WebP, TIFF or PGM/PPM.
        at_least: side in pixels that you will resize the photo to. A JPEG that is much larger is then decoded at 1/2,
            1/4 or 1/8 of its size, which is several times as fast, and other photos of more than 16 million pixels are
            shrunk, never below twice this side. None gives all pixels.

    Returns:
        uint8 array, (height, width, 3), RGB 0..255.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadablePhoto: (a ValueError) it is no photo that can be read, or has more than 67 million pixels; the message
            names it.

    Example:
        >>> photo = tl.read_image(tl.load_dataset("faces").files[0])
        >>> photo.shape, photo.dtype
        ((112, 92, 3), dtype('uint8'))

    Explained in notebooks/02_what_a_network_knows.ipynb.
    """
    return decode(path, at_least=at_least)[0]


def decode(path: str | PathLike, *, at_least: int | None = None) -> tuple[np.ndarray, str]:
    """`read_image`, and what kind of file it was: (uint8 array, "JPEG" or another of `FORMATS`)."""
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFDIR
    except OSError as error:  # no permission, or a link that leads in a circle
        raise UnreadablePhoto(path, f"{error.strerror}; look at its permissions") from error
    if stat.S_ISDIR(mode):
        raise FileNotFoundError(
            f"{shown(path)}: there is no such file; check the path, or that it is a file and not a folder"
        )
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise UnreadablePhoto(path, "a pipe, socket or device, and no file")
    try:
        with Image.open(path, formats=FORMATS) as file:
            _look_before_decoding(file, path)
            if at_least is not None:
                file.draft(None, (2 * at_least, 2 * at_least))
            large = file.width * file.height > MAX_PIXELS // 4
            with _ONE_LARGE if large else contextlib.nullcontext():
                white_is_zero = isinstance(file, TiffImageFile) and file.tag_v2.get(262) == 0
                photo = _upright(file)
                if large and at_least is not None and photo.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
                    # What follows makes several copies: of a large picture that will be small, from the small one.
                    photo = photo.reduce(max(1, min(photo.size) // (2 * at_least)))
                return _to_rgb(photo, white_is_zero), str(file.format)
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = _what_it_is(path)
        elif isinstance(error, Image.DecompressionBombError):
            reason = _TOO_LARGE
        elif "truncated" in reason.lower():
            reason = f"cut off: {reason}; copy it again"
        raise UnreadablePhoto(path, reason) from error


def resize_image(image: np.ndarray, size: int, *, crop: bool = False) -> np.ndarray:
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

    Example:
        >>> tl.resize_image(tl.load_photo("chelsea"), 224).shape
        (224, 224, 3)

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


# What may be done to photos → the variants that there are then, as `vary` numbers them.
VARIANTS = {"none": (0,), "mirror": (0, 4), "turns_and_flips": tuple(range(8))}


def vary(photo: np.ndarray, variant: int) -> np.ndarray:
    """One of the eight ways to lay a square photo: quarter turns, and the mirror images of these.

    Args:
        photo: array, (size, size, …).
        variant: 0 is the photo as it is, 1 to 3 are so many quarter turns to the left, 4 to 7 the mirror images (left to
            right) of 0 to 3.

    Returns:
        array of the same shape, a copy.

    Example:
        >>> tl.images.vary(np.array([[1, 2], [3, 4]]), 4)
        array([[2, 1],
               [4, 3]])

    Explained in notebooks/08_fine_tuning.ipynb.
    """
    turned = np.rot90(photo, variant % 4)
    return np.array(turned[:, ::-1] if variant >= 4 else turned)


def shown(path: str | PathLike) -> str:
    """A file name as one line that can be printed anywhere.

    A name may hold line breaks, commands to the terminal, or bytes that are no text: they are written as escapes.

    Args:
        path: file or folder.

    Returns:
        str, printable, that UTF-8 can encode.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """The same text, with escapes in place of what cannot be printed or would do something to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _upright(file):
    """The decoded picture, turned as its EXIF says; where the EXIF is damaged, as it is stored."""
    file.load()
    try:
        return ImageOps.exif_transpose(file) if file.getexif().get(0x0112, 1) != 1 else file
    except Exception:  # anything may stand in a damaged EXIF; the pixels are whole
        return file


def _look_before_decoding(file, path):
    """Raise an error where a small file would take much memory or time, or where checksums are wrong, before it is decoded."""
    if file.width * file.height > MAX_PIXELS:
        raise ValueError(f"{file.width:,} × {file.height:,}, {_TOO_LARGE}")
    if file.format == "TIFF" and file.tag_v2.get(322, 1) * file.tag_v2.get(323, 1) > MAX_PIXELS:
        raise ValueError("its tiles are larger than any picture may be")
    if file.format == "PPM" and file.tile[0][0] != "raw" and file.width * file.height > MAX_PIXELS // 16:
        raise ValueError("a PGM or PPM of a rare kind that takes very long to read")
    if file.format == "PNG":  # Pillow does not compare the checksums of pixels as it decodes them
        with Image.open(path, formats=("PNG",)) as again:
            again.verify()
    if file.format == "JPEG" and file.info.get("progressive"):
        with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place = -1
            for _ in range(MAX_SCANS + 1):  # each goes over the whole picture once more
                place = data.find(b"\xff\xda", place + 1)
                if place < 0:
                    return
        raise ValueError(f"a progressive JPEG of more than {MAX_SCANS} scans")


def _to_rgb(photo, white_is_zero=False):
    if photo.mode.startswith("I;16") or photo.mode == "I" and photo.format == "PPM":
        level = np.rint(np.arange(65536) / 257).astype(np.uint8)
        if white_is_zero:
            level = level[::-1]
        deep = np.asarray(photo)
        grey = level[deep]
        if isinstance(clear := photo.info.get("transparency"), int):  # one grey that is transparent
            grey[deep == clear] = 255
        return np.repeat(grey[..., None], 3, axis=2)
    if photo.mode in ("I", "F"):
        raise ValueError("32-bit or signed numbers, whose range nobody knows; save it with 8 or 16 bits")
    mode, alpha = photo.mode, None
    if photo.has_transparency_data:
        photo = photo if mode == "RGBA" else photo.convert("RGBA")
        alpha = photo.getchannel("A")
    rgb = _to_srgb(photo, mode)
    if alpha is not None:
        rgb.paste("white", mask=ImageOps.invert(alpha))
    return np.asarray(rgb)


def _to_srgb(photo, mode):
    """RGB in the colours of sRGB; a profile that is broken, or of another kind than the file's `mode`, counts as none."""
    if profile := photo.info.get("icc_profile"):
        from PIL import ImageCms

        with contextlib.suppress(Exception):  # profiles are small programs, and damaged ones fail in any way
            profile = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            space = profile.profile.xcolor_space.strip()
            plain = None
            if space == "GRAY" and mode in _GREYS:
                plain = photo.getchannel("R") if photo.mode == "RGBA" else photo.convert("L")
            elif space == "CMYK" and mode == "CMYK":
                plain = photo
            elif space == "RGB" and mode not in (*_GREYS, "CMYK") and "sRGB" not in (profile.profile.profile_description or ""):
                plain = photo.convert("RGB")
            if plain is not None:
                return ImageCms.profileToProfile(plain, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return photo if photo.mode == "RGB" else photo.convert("RGB")


def _what_it_is(path):
    """A guess for the message, where it is no photo."""
    with open(path, "rb") as file:
        beginning = file.read(512)
    if not beginning:
        return "the file is empty"
    if beginning[4:8] == b"ftyp" and beginning[8:12] not in _HEIC:
        return "a video, or a photo in a format that is not read here"
    if beginning[4:8] == b"ftyp":
        return "HEIC, the format of recent phones; export it as JPEG, and let the phone save JPEG ('most compatible')"
    text = beginning.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    unknown = "no photo in a format that is read here; convert it to JPEG or PNG"
    return next((f"it is {kind}" for begin, kind in _BEGINNINGS if text.startswith(begin)), unknown)
