"""A folder of hostile files, made from a seed: what a reader's folder may hold, and worse.

Files are written by hand wherever their pixels matter (PNG, TIFF, BMP, PGM, colour profiles), so that what a photo
should look like does not come from the library that reads it. For test_hostile, test_folders and test_images.
"""

import contextlib
import itertools
import os
import re
import signal
import stat
import struct
import unicodedata
import zlib
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

CLASSES = ("cats", unicodedata.normalize("NFD", "dögs 🐕"), "third [class]")
LOSSY = {"quality": 95, "subsampling": 0}
JUNK = (".DS_Store", "Thumbs.db", "desktop.ini", "._cat.jpg", "__MACOSX/cat.jpg", ".git/a.png", "@eaDir/b.png")
ORIENTATION = 0x0112  # the EXIF tag
# EXIF's eight values, as CIPA DC-008 defines them: what must be done to the stored pixels to see them upright.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


def without_libtiff(complaints):
    """What stands on standard error, less what libtiff itself writes there of a damaged file, from C, past Python."""
    by_libtiff = re.compile(r"^(tempfile\.tif|JPEGLib|[A-Za-z0-9]+(Decode|SetupState|QTable)): .*\n", re.M)
    return by_libtiff.sub("", complaints)


class Record(NamedTuple):
    """One file of the folder. `expected`: None, or the RGB pixels that it has if it is used, to within `tolerance`."""

    path: Path
    verdict: str  # "good": must be used; "bad": must be named; "either"
    expected: np.ndarray | None
    note: str
    tolerance: int = 0


class Case(NamedTuple):
    """What a `Record` comes from: `data` is what stands in the file, or a function that makes the file at a path."""

    name: str
    verdict: str
    data: object
    expected: np.ndarray | None = None
    tolerance: int = 0
    exact_name: bool = False  # the name is the point: no number before it


def make_hostile_folder(folder, n=1000, seed=0):
    """Fill a folder with three classes of hostile files, and good photos among them.

    Args:
        folder: to be made; must not exist.
        n: number of files: about 500 made by hand, of every kind, then files that are cut, flipped and random.
        seed: the same seed gives the same files.

    Returns:
        list of n `Record`. The last two are a fourth class, without a photo. Beside them lies `JUNK`, to be ignored.
    """
    folder, rng = Path(folder), np.random.default_rng(seed)
    kinds = whole_files(rng)
    cuts, flips, noises = cut(rng, kinds), flipped(rng, kinds), noise(rng)
    damaged = (case for four in zip(cuts, flips, cuts, noises) for case in four)
    handmade = (modes(rng), large(rng), turned(rng), profiles(rng), names(rng), links(rng), wrong(rng), bombs(rng))
    folder.mkdir()
    records = []
    for number, case in enumerate(itertools.chain(*handmade, damaged)):
        # Each class gets its share of each kind; some lie deeper.
        home = folder / CLASSES[number % 3] / ("", f"box {number % 7}", "a/b/c/d/e/f/g")[number // 3 % 3]
        path = home / (case.name if case.exact_name else f"{number:04d} {case.name}")
        if len(records) >= n - 2:
            path, case = folder / "fourth" / f"{number}.jpg", Case("a class without a photo", "bad", b"no photo")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            case.data(path) if callable(case.data) else path.write_bytes(case.data)
        except OSError:  # a name or a kind of file that this system does not allow
            continue
        records.append(Record(path, case.verdict, case.expected, case.name, case.tolerance))
        if len(records) == n:
            break
    for junk in JUNK:
        (folder / CLASSES[0] / junk).parent.mkdir(exist_ok=True)
        (folder / CLASSES[0] / junk).write_bytes(b"junk")
    return records


@contextlib.contextmanager
def deadline(seconds):
    """Waiting for ever becomes a failure."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"it is still busy after {seconds} seconds"))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- writing files by hand ------------------------------------------------------------------------------------------


def picture(rng, height=24, width=36):
    """Soft colours of unequal sides, so that every turn shows: uint8, (height, width, 3)."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, 3)).astype(np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def over_white(colour, alpha):
    """Transparency laid over white, as the formula has it."""
    part = np.asarray(alpha, dtype=float)[..., None] / 255
    return colour * part + 255 * (1 - part)


def rgb(grey):
    """Three equal channels."""
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def saved(image, kind, **options):
    """The bytes of a file that Pillow writes."""
    file = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    """One piece of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *chunks, interlace=0):
    """A PNG from rows of packed bytes; `colour` is 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    squeeze = zlib.compressobj()
    data = b"".join(squeeze.compress(b"\0" + bytes(row)) for row in rows) + squeeze.flush()
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def interlaced(image):
    """A PNG whose pixels come in Adam7's seven passes."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = [row.tobytes() for top, left, down, right in passes for row in image[top::down, left::right]]
    return png(image.shape[1], image.shape[0], 8, 2, rows, interlace=1)


def tiff(pixels, order="<", squeeze=False, tile=None, pieces=None, loop=False, **tags):
    """A TIFF of one strip, or of tiles with `tile` pixels a side; `tags` (t259=…) come on top or replace."""
    height, width, samples = pixels.shape
    if pieces is None:
        pieces = [pixels]
        if tile:
            padded = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)))
            pieces = [padded[y : y + tile, x : x + tile] for y in range(0, height, tile) for x in range(0, width, tile)]
        pieces = [piece.astype(piece.dtype.newbyteorder(order)).tobytes() for piece in pieces]
        pieces = [zlib.compress(piece) for piece in pieces] if squeeze else pieces
    starts = np.cumsum([8, *map(len, pieces)]).tolist()
    entries = {256: [width], 257: [height], 258: [8 * pixels.itemsize] * samples, 259: [8 if squeeze else 1]}
    entries |= {262: [2 if samples > 2 else 1], 277: [samples]}
    entries |= {338: [2]} if samples in (2, 4) and "t262" not in tags else {}  # the last is transparency
    if tile:
        entries |= {322: [tile], 323: [tile], 324: starts[:-1], 325: [len(piece) for piece in pieces]}
    else:
        entries |= {273: starts[:-1], 278: [height], 279: [len(piece) for piece in pieces]}
    entries |= {int(tag[1:]): values for tag, values in tags.items()}
    directory, beyond = b"", b""
    far = starts[-1] + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        kind, code = (3, "H") if max(values) < 65536 else (4, "I")
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(data) > 4:
            data, beyond = struct.pack(order + "I", far + len(beyond)), beyond + data
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    magic = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, starts[-1])
    following = struct.pack(order + "I", starts[-1] if loop else 0)
    return magic + b"".join(pieces) + struct.pack(order + "H", len(entries)) + directory + following + beyond


def bmp(width, height, data, bits=24, squeeze=0, palette=b""):
    """A Windows bitmap; a negative height means that the first row is the top one."""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, squeeze, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def resized_header(jpeg, width, height):
    """A JPEG whose header lies about its size."""
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def many_scans(side, scans):
    """A small progressive JPEG that makes its reader walk over the whole, large picture again and again."""

    def segment(kind, data):
        return b"\xff" + bytes([kind]) + struct.pack(">H", len(data) + 2) + data

    def huffman(place, symbol):  # one symbol, one bit: 0
        return segment(0xC4, bytes([place, 1, *[0] * 15, symbol]))

    blocks = (side // 8) ** 2
    head = b"\xff\xd8" + segment(0xDB, bytes([0, *[1] * 64]))
    head += segment(0xC2, struct.pack(">BHHBBBB", 8, side, side, 1, 1, 17, 0))
    head += huffman(0x00, 0x00) + huffman(0x10, 0xE0)
    first = segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0])) + bytes(blocks // 8 + 1)
    skipped = f"0{16383:014b}" * -(-blocks // 32767)  # runs of 32,767 blocks
    skipped += "1" * (-len(skipped) % 8)
    bits = int(skipped, 2).to_bytes(len(skipped) // 8).replace(b"\xff", b"\xff\0")
    return head + first + (segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0])) + bits) * scans + b"\xff\xd9"


# --- colour profiles, and what they mean, without LittleCMS ---------------------------------------------------------

# Columns: what red, green and blue are in the profile's space of colours (XYZ under D50 light).
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])


def to_srgb(xyz):
    """XYZ under D50 light, 0..1 → sRGB, 0..255."""
    linear = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def icc(space, kind, tags, lab=False):
    """A profile (version 2.4) from its tags."""
    def fixed(values):
        return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))

    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed([0.9642, 1, 0.8249]), **tags}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytes(4) + struct.pack(">I", 0x02400000) + kind + space + (b"Lab " if lab else b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed([0.9642, 1, 0.8249]) + bytes(48)
    return struct.pack(">I", 4 + len(head) + len(table) + len(body)) + head + table + body


def rgb_profile(matrix, gamma):
    """Three colours and one curve. The curve is kept in 256ths, so gamma 2.2 is 563/256."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))
    colours = {name: b"XYZ \0\0\0\0" + struct.pack(">3i", *np.rint(65536 * column).astype(int))
               for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T)}
    return icc(b"RGB ", b"mntr", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def through_rgb(image, matrix, gamma):
    """What `rgb_profile` makes of a picture."""
    return to_srgb((image / 255) ** (round(256 * gamma) / 256) @ matrix.T)


def grey_profile(gamma):
    return icc(b"GRAY", b"mntr", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))})


def through_grey(grey, gamma):
    """What `grey_profile` makes of a grey picture."""
    return to_srgb(((grey / 255) ** (round(256 * gamma) / 256))[..., None] * SRGB.sum(axis=1))


def cmyk_profile():
    """Inks whose colour is a straight line in Lab (see `through_cmyk`): any interpolation gives the same."""
    corners = np.array(list(itertools.product((0, 1), repeat=4)))
    lab = np.rint(lab_of(corners) * [2.55, 1, 1] + [0, 128, 128]).astype(np.uint8)
    line = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    return icc(b"CMYK", b"prtr", {b"A2B0": table + line * 4 + lab.tobytes() + line * 3}, lab=True)


def lab_of(inks):
    """Inks 0..1 → Lab: each ink darkens, magenta against cyan is red against green."""
    cyan, magenta, yellow, black = np.moveaxis(np.asarray(inks, float), -1, 0)
    return np.stack([100 - 25 * (cyan + magenta + yellow + black), 20 * (magenta - cyan), 20 * (yellow - black)], -1)


def lab_to_srgb(lab):
    """Lab under D50 light → sRGB, 0..255."""
    middle = (lab[..., 0] + 16) / 116
    f = np.stack([middle + lab[..., 1] / 500, middle, middle - lab[..., 2] / 200], -1)
    return to_srgb(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1, 0.8249])


def ink(cmyk):
    """Inks 0..255 without a profile → RGB, 0..255."""
    return (255.0 - cmyk[..., :3]) * (255.0 - cmyk[..., 3:]) / 255


# --- good photos ----------------------------------------------------------------------------------------------------


def modes(rng):
    """Every way to store a photo, and the pixels it stands for."""
    image = picture(rng)
    height, width, _ = image.shape
    grey, alpha = image[..., 0], image[..., 1]
    grey_alpha, colour_alpha = np.stack([grey, alpha], -1), np.dstack([image, alpha])
    deep = rng.integers(0, 65536, (height, width, 4)).astype(np.uint16)
    level, deep_alpha = np.rint(deep / 257), np.rint(deep[..., 3] / 257)
    bits, few = grey > 127, grey // 64
    palette = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    packed2 = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 6:].ravel()) for row in few]
    cmyk = np.dstack([image, 255 - alpha // 2])

    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        yield Case(f"rgb.{kind}", "good", saved(image, kind), image)
        yield Case(f"grey.{kind}", "good", saved(grey, kind), rgb(grey))
        yield Case(f"bits.{kind}", "good", saved(Image.fromarray(bits), kind), rgb(255 * bits))
    yield Case("again.png", "good", saved(image, "PNG"), image)
    yield Case("rgb.jpg", "good", saved(image, "JPEG", **LOSSY), image, 12)
    yield Case("progressive.jpeg", "good", saved(image, "JPEG", progressive=True, **LOSSY), image, 12)
    yield Case("grey.JPG", "good", saved(grey, "JPEG", **LOSSY), rgb(grey), 12)
    second = {"save_all": True, "append_images": [Image.new("RGB", (9, 9))]}
    yield Case("two.jpg", "good", saved(image, "MPO", **second, **LOSSY), image, 12)
    yield Case("lossless.webp", "good", saved(image, "WEBP", lossless=True), image)
    flat = np.full((height, width, 3), [200, 100, 50], np.uint8)
    yield Case("lossy.webp", "good", saved(flat, "WEBP", quality=90), flat, 6)
    moving = {"save_all": True, "append_images": [Image.new("RGB", (width, height))]}
    yield Case("moving.webp", "good", saved(image, "WEBP", lossless=True, **moving), image)
    yield Case("moving.png", "good", saved(image, "PNG", **moving), image)
    wanted = over_white(image, alpha)
    yield Case("see-through.webp", "good", saved(colour_alpha, "WEBP", lossless=True, exact=True), wanted, 1)
    yield Case("rgba.png", "good", saved(colour_alpha, "PNG"), wanted, 1)
    yield Case("rgba.tif", "good", tiff(colour_alpha), wanted, 1)
    yield Case("la.png", "good", saved(Image.fromarray(grey_alpha, "LA"), "PNG"), over_white(rgb(grey), alpha), 1)
    yield Case("la.tif", "good", tiff(grey_alpha), over_white(rgb(grey), alpha), 1)
    colours = chunk(b"PLTE", palette.tobytes())
    yield Case("palette.png", "good", png(width, height, 2, 3, packed2, colours), palette[few])
    clear = chunk(b"tRNS", bytes([0, 128]))  # for the first two colours; the others are solid
    wanted = over_white(palette[few], np.array([0, 128, 255, 255])[few])
    yield Case("palette see-through.png", "good", png(width, height, 2, 3, packed2, colours, clear), wanted, 1)
    yield Case("2 bits.png", "good", png(width, height, 2, 0, packed2), rgb(few * 85))
    key = chunk(b"tRNS", struct.pack(">3H", *image[3, 4]))
    wanted = np.where((image == image[3, 4]).all(axis=-1, keepdims=True), 255, image)
    yield Case("one clear colour.png", "good", png(width, height, 8, 2, image, key), wanted)
    key, wanted = chunk(b"tRNS", struct.pack(">H", grey[2, 2])), rgb(np.where(grey == grey[2, 2], 255, grey))
    yield Case("one clear grey.png", "good", png(width, height, 8, 0, grey, key), wanted)
    table = [257 * int(colour) for colour in np.pad(palette, ((0, 252), (0, 0))).T.ravel()]
    pa = tiff(np.stack([few, alpha], -1), t262=[3], t320=table, t338=[2])
    yield Case("pa.tif", "either", pa, over_white(palette[few], alpha), 1)
    yield Case("palette.gif", "good", saved(paletted(few, palette), "GIF"), palette[few])
    wanted = np.where(few[..., None] == 1, 255, palette[few])
    yield Case("see-through.gif", "good", saved(paletted(few, palette), "GIF", transparency=1), wanted)
    moving = {"save_all": True, "append_images": [paletted(3 - few, palette)]}
    yield Case("moving.GIF", "good", saved(paletted(few, palette), "GIF", **moving), palette[few])
    blue_first = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in few[::-1]) + b"\0\1"
    yield Case("runs.bmp", "good", bmp(width, height, runs, 8, 1, blue_first), palette[few])
    yield Case("top first.bmp", "good", bmp(width, -height, image[..., ::-1].tobytes()), image)

    yield Case("interlaced.png", "good", interlaced(image), image)
    big = deep.astype(">u2")
    yield Case("16 bits.png", "good", png(width, height, 16, 0, big[..., 0].copy()), rgb(level[..., 0]))
    yield Case("16 bits rgb.png", "good", png(width, height, 16, 2, big[..., :3].copy()), level[..., :3], 1)
    yield Case("16 bits rgba.png", "good", png(width, height, 16, 6, big), over_white(level[..., :3], deep_alpha), 2)
    two = big[..., 2:].copy()
    wanted = over_white(rgb(level[..., 2]), deep_alpha)
    yield Case("16 bits la.png", "good", png(width, height, 16, 4, two), wanted, 2)
    key, wanted = chunk(b"tRNS", big[5, 5, :1].tobytes()), np.where(deep[..., 0] == deep[5, 5, 0], 255, level[..., 0])
    first = big[..., 0].copy()
    yield Case("16 bits, one clear.png", "either", png(width, height, 16, 0, first, key), rgb(wanted))
    for order, name in (("<", "little"), (">", "big")):
        yield Case(f"16 bits {name}.tif", "good", tiff(deep[..., :1], order), rgb(level[..., 0]))
        yield Case(f"16 bits {name} rgb.tiff", "good", tiff(deep[..., :3], order), level[..., :3], 1)
        yield Case(f"16 bits {name} rgba.tiff", "either", tiff(deep, order), over_white(level[..., :3], deep_alpha), 2)
        yield Case(f"{name}.tif", "good", tiff(image, order), image)
        yield Case(f"{name} squeezed.tif", "good", tiff(image, order, squeeze=True), image)
        yield Case(f"{name} tiles.tif", "good", tiff(image, order, squeeze=True, tile=16), image)
        yield Case(f"16 bits {name} squeezed.tif", "good", tiff(deep[..., :1], order, squeeze=True), rgb(level[..., 0]))
    yield Case("16 bits.pgm", "good", b"P5 # deep\n36 24\n65535\n" + first.tobytes(), rgb(level[..., 0]))
    yield Case("16 bits.ppm", "good", b"P6 36 24 65535\n" + big[..., :3].tobytes(), level[..., :3], 1)
    ten = deep[..., 0] // 64
    wanted = rgb(np.rint(ten / 1023 * 255))
    yield Case("10 bits.pgm", "good", b"P5 36 24 1023\n" + ten.astype(">u2").tobytes(), wanted, 1)
    plain = " ".join(map(str, [*image.ravel()[:-1], 7])).encode()
    yield Case("plain.pnm", "good", b"P3\n# a remark\n36 24\n255\n" + plain, last_is(image, 7))
    for order in "<>":
        yield Case("white is zero.tif", "good", tiff(grey[..., None], order, t262=[0]), rgb(255 - grey))
        wanted = rgb(255 - level[..., 0])
        yield Case("white is zero, 16 bits.tif", "either", tiff(deep[..., :1], order, t262=[0]), wanted, 1)
    for squeeze in ("tiff_lzw", "packbits", "tiff_adobe_deflate"):
        yield Case(f"{squeeze}.tif", "good", saved(image, "TIFF", compression=squeeze), image)
    yield Case("fax.tif", "good", saved(Image.fromarray(bits), "TIFF", compression="group4"), rgb(255 * bits))
    yield Case("jpeg.tif", "either", saved(flat, "TIFF", compression="jpeg"), flat, 6)
    yield Case("cmyk.tif", "good", tiff(cmyk, t262=[5]), ink(cmyk), 1)
    yield Case("adobe cmyk.jpg", "good", saved(Image.fromarray(cmyk, "CMYK"), "JPEG", **LOSSY), ink(cmyk), 16)
    yield Case("ycck.jpg", "good", ycck(cmyk), ink(cmyk), 16)
    ycbcr = Image.fromarray(image).convert("YCbCr")
    yield Case("ycbcr.tif", "either", saved(ycbcr, "TIFF"), image, 4)
    lab = np.dstack([100 + grey // 2, alpha // 12 - 10.0, image[..., 2] // 12 - 10.0])
    signed = lab.astype(np.int8).astype(np.uint8)
    signed[..., 0] = lab[..., 0]
    yield Case("lab.tif", "either", tiff(signed, t262=[8]), lab_to_srgb(lab * [100 / 255, 1, 1]), 4)
    yield Case("32 bits.tif", "bad", saved(deep[..., 0].astype(np.int32), "TIFF"))
    yield Case("unsigned 32 bits.tif", "bad", tiff(deep[..., :1].astype(np.uint32)))
    yield Case("float.tif", "bad", saved(deep[..., 0].astype(np.float32), "TIFF"))
    yield Case("float.pgm", "bad", b"Pf\n%d %d\n-1.0\n" % (width, height) + deep[..., 0].astype("<f4").tobytes())
    for tall, wide in ((1, 1), (1, 5000), (5000, 1), (2, 3)):
        thin = rng.integers(0, 256, (tall, wide, 3)).astype(np.uint8)
        for kind in ("PNG", "BMP", "TIFF", "PPM"):
            yield Case(f"{tall} by {wide}.{kind}", "good", saved(thin, kind), thin)


def large(rng):
    """Photos of 67,108,864 pixels: just not too many."""
    side, deepest = 8192, np.broadcast_to(np.uint8(100), (8192, 8192, 3))
    row = np.full((side, 4), [200, 100, 50, 128], np.uint8).tobytes()
    wanted = np.broadcast_to(np.rint(over_white(np.float64([[200, 100, 50]]), [128])), (side, side, 3))
    yield Case("large.png", "good", png(side, side, 8, 6, itertools.repeat(row, side)), wanted, 1)
    row = struct.pack(">H", 25700) * side
    yield Case("large and deep.png", "good", png(side, side, 16, 0, itertools.repeat(row, side)), deepest)


def paletted(indices, palette):
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    return image


def last_is(image, value):
    image = image.copy()
    image[-1, -1, -1] = value
    return image


def ycck(cmyk):
    """Adobe's other way to store inks: cyan, magenta, yellow as if they were red, green, blue, turned into YCbCr."""
    ycc = np.array(Image.fromarray(cmyk[..., :3].copy()).convert("YCbCr"))
    jpeg = bytearray(saved(Image.fromarray(np.dstack([255 - ycc, cmyk[..., 3]]), "CMYK"), "JPEG", **LOSSY))
    jpeg[jpeg.index(b"Adobe") + 11] = 2  # the transform that its marker names
    return bytes(jpeg)


def turned(rng):
    """Photos that lie on their side and say so, and photos that say nonsense."""
    image = picture(rng)
    kinds = {"png": ("PNG", {}, 0), "webp": ("WEBP", {"lossless": True}, 0), "jpg": ("JPEG", LOSSY, 12)}
    for value, upright in UPRIGHT.items():
        yield Case(f"turned {value}.tif", "good", tiff(image, t274=[value]), upright(image))
        for suffix, (kind, options, off) in kinds.items():
            data = saved(image, kind, exif=exif(value), **options)
            yield Case(f"turned {value}.{suffix}", "good", data, upright(image), off)
    tags = (b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"", rng.bytes(50), exif(6)[6:-9])
    values = [b"Exif\0\0" + data for data in tags] + [exif(value) for value in (0, 9, 65535)]
    for number, value in enumerate(values):
        for suffix, (kind, options, off) in kinds.items():
            data = saved(image, kind, exif=value, **options)
            yield Case(f"damaged exif {number}.{suffix}", "good", data, image, off)


def exif(orientation):
    """EXIF data of one entry, by hand."""
    entry = struct.pack(">HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return b"Exif\0\0MM\0*\0\0\0\x08\0\1" + entry + bytes(4)


def profiles(rng):
    """Photos in other colours than sRGB, and profiles that are no use."""
    image = picture(rng)
    grey, alpha, inks = image[..., 0], image[..., 2], picture(rng)[..., [0, 1, 2, 0]] // 3
    p3 = rgb_profile(DISPLAY_P3, 2.2)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    useless = (p3[:200], rng.bytes(300), p3[:128] + rng.bytes(len(p3) - 128), b"\0", cmyk_profile(), grey_profile(1.0))
    spaces = {"p3": (DISPLAY_P3, 2.2), "adobe": (ADOBE, 2.2), "swapped": (SRGB[:, [1, 2, 0]], 2.2), "dark": (SRGB, 1.8)}
    ways = {"png": ("PNG", {}, 0), "webp": ("WEBP", {"lossless": True}, 0), "tif": ("TIFF", {}, 0)}
    ways["jpg"] = ("JPEG", {"quality": 100, "subsampling": 0}, 12)
    for suffix, (kind, options, off) in ways.items():
        if suffix == "jpg":  # soft colours: what JPEG loses would grow in strong ones
            image, grey = image // 3 + 85, grey // 3 + 85

        def file(pixels, profile):
            return saved(pixels, kind, icc_profile=profile, **options)

        for name, space in spaces.items():
            wanted = through_rgb(image, *space)
            yield Case(f"{name}.{suffix}", "good", file(image, rgb_profile(*space)), wanted, off + 3)
        yield Case(f"srgb.{suffix}", "good", file(image, own), image, off)
        for number, profile in enumerate(useless):
            yield Case(f"useless profile {number}.{suffix}", "good", file(image, profile), image, off)
        if suffix != "webp":  # which knows colour only
            wanted = through_grey(grey, 1.4)
            yield Case(f"grey profile.{suffix}", "good", file(grey, grey_profile(1.4)), wanted, off + 3)
            yield Case(f"grey with rgb profile.{suffix}", "good", file(grey, p3), rgb(grey), off)
        if suffix in ("tif", "jpg"):
            data = file(Image.fromarray(inks, "CMYK"), cmyk_profile())
            yield Case(f"inks.{suffix}", "good", data, lab_to_srgb(lab_of(inks / 255)), off + 4)
    image = picture(rng)
    through = through_rgb(image, DISPLAY_P3, 2.2)
    clear = np.dstack([image, alpha])
    yield Case("p3 see-through.png", "good", saved(clear, "PNG", icc_profile=p3), over_white(through, alpha), 4)
    few, palette = image[..., 0] // 64, image[3, :28:9]
    wanted = through_rgb(palette, DISPLAY_P3, 2.2)[few]
    yield Case("p3 palette.png", "good", saved(paletted(few, palette), "PNG", icc_profile=p3), wanted, 3)
    inside = chunk(b"iCCP", b"p3\0\0" + zlib.compress(p3))
    yield Case("p3 16 bits.png", "good", png(36, 24, 16, 2, image.astype(">u2") * 257, inside), through, 4)
    squeezed = zlib.compress(p3)
    bomb = zlib.compress(bytes(100_000_000))
    for data in (b"\0\0" + squeezed[:-20], b"\0\0nonsense", b"no end", b"\0\x07" + squeezed, b"\0\0" + bomb):
        yield Case("damaged profile.png", "either", png(36, 24, 8, 2, image, chunk(b"iCCP", b"p3" + data)), image)


# --- names, links, and what is no photo -----------------------------------------------------------------------------

NAMES = (
    "new\nline.png", "tab\t.png", "\r.png", "\x1b[31mred\x1b[0m.png", "\x1b]0;title\x07.png", "\x7f\x01.png", "[1].png",
    "[red]markup[/red].png", "*.png", "?.png", " .png", " lead.png", "trail .png", "-rf.png", "-", "~.png", "#.png",
    "$(touch x).png", "%s%n%d.png", "{0}{name}.png", "a;b&c|d.png", "quote'\".png", "back\\slash.png", "CON.png",
    "null.png", "two..dots.png", "photo.png.png", "photo.PnG", "photo", "no suffix at all", "cat 🐈‍⬛.png", "猫.png",
    "é.png", "e\u0301.png",
    "\u202egnp.png", "\u2028line.png", "\ufeffbom.png", "n" * 246 + ".png", "🐈" * 60 + ".png", "folder.jpg/photo.png",
    "x" * 200 + "/" + "y" * 200 + "/z.png", "/".join(["deep"] * 60) + "/p.png",
    os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"\xff\xfe\x80"), os.fsdecode(b"half \xf0\x9f\x90.png"),
)


def names(rng):
    """Good photos, and bad ones, whose names are the difficulty."""
    image = picture(rng, 12, 9)
    data = saved(image, "PNG")
    for name in NAMES:
        yield Case(name, "good", data, image, exact_name=True)
        name = "x" + name.replace("n" * 4, "").replace("🐈" * 2, "")  # not too long with one more
        yield Case(name, "bad", data[: len(data) // 2], exact_name=True)
    for name in (".hidden.png", "..png", ".png", ".jpg", ".hidden/photo.png"):
        yield Case(name, "bad", data, exact_name=True)
    for suffix in ("dat", "img", "apng", "mpo", "png~", "png.bak", "\u202egnp.cat"):
        yield Case(f"photo.{suffix}", "either", data, image)


def links(rng):
    """Links, pipes, sockets, devices; large files of nothing; a file that nobody may read."""
    image = picture(rng)
    data = saved(image, "PNG")

    def make(action, start=b""):
        def at(path):
            if start:
                path.write_bytes(start)
            action(path)
        return at

    def with_hole(start):
        return make(lambda path: os.truncate(path, 3 * 2**30), start)

    def with_target(path):
        (path.parent / ".git").mkdir(exist_ok=True)
        (path.parent / ".git" / "hidden target.png").write_bytes(data)  # found through the link only
        path.symlink_to(".git/hidden target.png")

    yield Case("link.png", "good", with_target, image)
    targets = {"nowhere.png": "nowhere", "itself.png": "itself.png", "zeros.png": "/dev/zero", "in.jpg": "/dev/stdin",
               "loop": ".", "loop.jpg": "..", "text.jpg": "/etc/passwd"}
    for name, target in targets.items():
        yield Case(name, "bad", lambda path, target=target: path.symlink_to(target), exact_name=True)
    yield Case("pipe.png", "bad", lambda path: os.mkfifo(path))
    yield Case("socket.jpg", "bad", lambda path: os.mknod(path, stat.S_IFSOCK | 0o600))
    yield Case("hole.jpg", "bad", with_hole(b"\0"))
    yield Case("hole.pgm", "bad", with_hole(b"P5 60000 50000 255\n"))
    yield Case("photo and hole.jpg", "either", with_hole(saved(image, "JPEG", **LOSSY)), image, 12)
    yield Case("photo and hole.png", "either", with_hole(data), image)
    yield Case("closed.png", "either", make(lambda path: path.chmod(0), data), image)


def wrong(rng):
    """Files that are not what their names say."""
    image = picture(rng)
    photos = {kind: saved(image, kind) for kind in ("PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")}
    photos["JPEG"] = saved(image, "JPEG", **LOSSY)
    for content, suffix in [*itertools.permutations(photos, 2), ("PNG", "jpg"), ("PNG", "jfif"), ("WEBP", "JPG")]:
        yield Case(f"is {content}.{suffix}", "bad", photos[content])
    same = {"jfif": "JPEG", "jpe": "JPEG", "tif": "TIFF", "pnm": "PPM", "pgm": "PPM", "pbm": "PPM"}
    for suffix, content in same.items():
        yield Case(f"is {content}.{suffix}", "good", photos[content], image, 12 if content == "JPEG" else 0)
    for suffix, data in others(rng, image).items():
        yield Case(f"true.{suffix}", "bad", data)
        yield Case(f"{suffix}.jpg", "bad", data)
    for suffix in ("jpg", "png", "gif", "bmp", "webp", "tif", "pgm", "txt"):
        yield Case(f"empty.{suffix}", "bad", b"")
        yield Case(f"one byte.{suffix}", "bad", b"\xff")
        yield Case(f"zeros.{suffix}", "bad", bytes(1000))


def others(rng, image):
    """Files that are no photos, or photos of a kind that is not read: suffix → bytes."""
    return {
        "html": b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>Not found</body></html>",
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        "pdf": b"%PDF-1.7\n1 0 obj <</Type/Catalog>> endobj\n%%EOF",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file pop\n",
        "zip": b"PK\3\4" + rng.bytes(200),
        "exe": b"MZ" + rng.bytes(300),
        "gz": b"\x1f\x8b" + rng.bytes(60),
        "heic": struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + rng.bytes(500),
        "avif": struct.pack(">I", 28) + b"ftypavif\0\0\0\0avifmif1miaf" + rng.bytes(300),
        "mp4": struct.pack(">I", 24) + b"ftypmp42\0\0\0\0mp42isom" + rng.bytes(99),
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(300),
        "ico": b"\0\0\1\0\1\0" + rng.bytes(60),
        "jp2": saved(image, "JPEG2000"),
        "tga": saved(image, "TGA"),
        "pcx": saved(image, "PCX"),
        "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #ff0000", "a"};',
        "txt": "Grüße\n".encode(),
        "csv": b"file,label\na.jpg,cat\n",
        "py": b"raise SystemExit\n",
    }


def bombs(rng):
    """Small files that ask for much memory or much time."""
    image = picture(rng)
    whole, jpeg, slow = png(36, 24, 8, 2, image), saved(image, "JPEG", **LOSSY), saved(image, "JPEG", progressive=True)
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    yield Case("header.png", "bad", whole[:8] + chunk(b"IHDR", header) + whole[33:])
    yield Case("zeros.png", "bad", png(20000, 20000, 1, 0, itertools.repeat(bytes(2500), 20000)))
    yield Case("just too large.png", "bad", png(8192, 8193, 1, 0, itertools.repeat(bytes(1024), 8193)))
    yield Case("wide.png", "bad", png(2**31 - 1, 1, 1, 0, [bytes(100)]))
    yield Case("nothing.png", "bad", png(0, 0, 8, 2, []))
    for kind, start in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")):
        text = chunk(kind, start + zlib.compress(bytes(100_000_000), 9))
        yield Case("text.png", "either", png(36, 24, 8, 2, image, text), image)
    yield Case("many texts.png", "either", png(36, 24, 8, 2, image, *[chunk(b"tEXt", b"a\0b")] * 50_000), image)
    yield Case("progressive.jpg", "bad", resized_header(slow, 30000, 30000))
    yield Case("baseline.jpg", "bad", resized_header(jpeg, 65535, 65535))
    yield Case("many scans.jpg", "bad", many_scans(8192, 4000))  # 300 kB, a minute
    yield Case("many comments.jpg", "either", jpeg[:2] + b"\xff\xfe\0\3a" * 200_000 + jpeg[2:], image, 12)
    gif = saved(Image.fromarray(image[..., 0]), "GIF")
    comment = b"!\xfe" + b"\1a" * 100_000 + b"\0"
    frame = b",\0\0\0\0" + struct.pack("<HH", 36, 24)
    yield Case("screen.gif", "bad", gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:])
    yield Case("frame.gif", "bad", gif.replace(frame, b",\0\0\0\0" + struct.pack("<HH", 10000, 10000)))
    yield Case("comment.gif", "either", gif.replace(frame, comment + frame), rgb(image[..., 0]))
    moving = saved(image, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (36, 24))])
    yield Case("canvas.webp", "bad", moving[:24] + b"\xfe\xff\xff\xfe\xff\0" + moving[30:])
    yield Case("large.webp", "bad", saved(Image.new("RGB", (16383, 4500)), "WEBP", lossless=True, quality=0, method=0))
    for size in ((2**31 - 1, 2**31 - 1), (-36, 24), (36, -(2**31)), (0, 24), (36, 0), (36, 2**20), (2**16, 2**16)):
        yield Case("size.bmp", "bad", bmp(*size, bytes(36 * 24 * 3)))
    yield Case("few runs.bmp", "bad", bmp(8000, 8000, b"\xff\0\0\1", 8, 1, bytes(1024)))
    for start in (
        b"P5 60000 60000 255\n", b"P2 60000 60000 255\n1 2 3", b"P6 8192 8192 255\n", b"P4 90000 90000\n",
        b"P5 0 0 255\n", b"P5 -9 9 255\n", b"P5 9 9 0\n" + bytes(81), b"P5 8000 8000 " + b"9" * 30 + b"\n",
        b"P3 9 9 255\n" + b"9" * 100_000, b"P2 9 9 255\n" + b"256 " * 81,
        b"P5 # " + b"x" * 100_000, b"P5 " + b" " * 100_000, b"P5 " + b"9" * 100_000,
    ):
        yield Case("lie.pgm", "bad", start)
    bad = {"huge": {"t256": [60000], "t257": [60000]}, "far": {"t273": [2**32 - 1]}, "samples": {"t277": [65535]},
           "bits": {"t258": [65535] * 3}, "squeeze": {"t259": [99]}, "no side": {"t256": [0]}}
    odd = {"huge strip": {"t279": [2**32 - 1]}, "no rows": {"t278": [0]}, "old jpeg": {"t259": [6]},
           "fax": {"t259": [3]}, "jpeg": {"t259": [7]}, "lzw": {"t259": [5]}, "deflate": {"t259": [8]},
           "palette": {"t262": [3]}, "planes": {"t284": [2]},
           "floats": {"t339": [3, 3, 3]}, "order": {"t266": [2]}, "predictor": {"t317": [3]}}
    right = {"rows": {"t278": [2**32 - 1]}, "private": {"t65000": list(range(65536)) * 4},
             "many": {f"t{tag}": [1] for tag in range(1000, 3000)}, "loop": {"loop": True}}
    for verdict, kinds in (("bad", bad), ("either", odd), ("either", right)):
        for name, tags in kinds.items():
            yield Case(f"{name}.tif", verdict, tiff(image, **tags), image if kinds is right else None)
    squeeze = zlib.compressobj(1)
    zeros = b"".join(squeeze.compress(bytes(2**24)) for _ in range(96)) + squeeze.flush()  # 1.5 GiB
    black = np.zeros((16, 16, 1), np.uint8)
    for _ in range(4):  # more than one at a time is too much for the memory
        yield Case("tile of zeros.tif", "either", tiff(black, tile=40000, pieces=[zeros], t259=[8]), rgb(black[..., 0]))
    yield Case("strip of zeros.tif", "either", tiff(black, pieces=[zeros], t259=[8]), rgb(black[..., 0]))


# --- damage ---------------------------------------------------------------------------------------------------------


def whole_files(rng):
    """Photos to be damaged: name → bytes and the pixels of the whole file, read by Pillow where they are lossy."""
    image, deep = picture(rng), rng.integers(0, 65536, (24, 36)).astype(np.uint16)
    few, palette = image[..., 0] // 64, rng.integers(0, 256, (4, 3)).astype(np.uint8)
    moving, second = {"save_all": True, "append_images": [Image.new("RGB", (36, 24))]}, paletted(3 - few, palette)
    cmyk = Image.fromarray(np.dstack([image, image[..., 0]]), "CMYK")
    plain = " ".join(map(str, [*image.ravel()[:-1], 7])).encode()  # one digit at the end: half a number is a number
    last = image.copy()
    last[-1, -1, -1] = 7
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in few[::-1]) + b"\0\1"
    blue_first = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    lossy = {
        "baseline.jpg": saved(image, "JPEG"), "progressive.jpg": saved(image, "JPEG", progressive=True),
        "grey.jpg": saved(image[..., 0], "JPEG"), "inks.jpg": saved(cmyk, "JPEG"), "lossy.webp": saved(image, "WEBP"),
        "restarts.jpg": saved(image, "JPEG", restart_marker_blocks=1),
        "jpeg.tif": saved(image, "TIFF", compression="jpeg"),
    }
    kinds = {name: (data, np.asarray(Image.open(BytesIO(data)).convert("RGB"))) for name, data in lossy.items()}
    return kinds | {
        "turned.jpg": (saved(image, "JPEG", exif=exif(6)), np.rot90(kinds["baseline.jpg"][1], -1)),
        "rgb.png": (png(36, 24, 8, 2, image), image), "interlaced.png": (interlaced(image), image),
        "deep.png": (png(36, 24, 16, 0, deep.astype(">u2")), rgb(np.rint(deep / 257))),
        "palette.png": (saved(paletted(few, palette), "PNG"), palette[few]),
        "palette.gif": (saved(paletted(few, palette), "GIF"), palette[few]),
        "moving.gif": (saved(paletted(few, palette), "GIF", save_all=True, append_images=[second]), palette[few]),
        "rgb.bmp": (saved(image, "BMP"), image), "runs.bmp": (bmp(36, 24, runs, 8, 1, blue_first), palette[few]),
        "lossless.webp": (saved(image, "WEBP", lossless=True), image),
        "moving.webp": (saved(image, "WEBP", lossless=True, **moving), image),
        "raw.tif": (saved(image, "TIFF"), image), "lzw.tif": (saved(image, "TIFF", compression="tiff_lzw"), image),
        "deflate.tif": (tiff(image, squeeze=True), image), "tiles.tif": (tiff(image, tile=16), image),
        "big.tif": (tiff(image, ">"), image), "deep.tif": (tiff(deep[..., None], ">"), rgb(np.rint(deep / 257))),
        "grey.pgm": (saved(image[..., 0], "PPM"), rgb(image[..., 0])), "rgb.ppm": (saved(image, "PPM"), image),
        "plain.ppm": (b"P3\n36 24\n255\n" + plain, last),
    }


def cut(rng, kinds):
    """Photos that break off: near their start, near their end, anywhere. What still decodes must be the whole photo."""
    for turn in itertools.count():
        for name, (data, image) in kinds.items():
            length = (len(data) - 1 - turn // 3, int(rng.integers(1, len(data))), int(rng.integers(1, 120)))[turn % 3]
            sure = length < len(data) // 4 and not name.startswith("moving")
            yield Case(f"{length} bytes of {name}", "bad" if sure else "either", data[:length], image)


def flipped(rng, kinds):
    """Photos with one wrong byte in their first 150. PNG has checksums, so that a wrong one need never be believed."""
    for name, (data, image) in itertools.chain.from_iterable(itertools.repeat(kinds.items())):
        checked = name.endswith(".png")
        at = int(rng.integers(0, len(data) if checked else min(150, len(data))))
        wrong = bytearray(data)
        wrong[at] ^= int(rng.integers(1, 256))
        yield Case(f"byte {at} of {name}", "either", bytes(wrong), image if checked else None)


def noise(rng):
    """Random bytes, some with a photo's first bytes before them."""
    starts = {"jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0", "png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF89a", "bmp": b"BM",
              "webp": b"RIFF\xff\0\0\0WEBPVP8 ", "tif": b"II*\0\x08\0\0\0", "pgm": b"P5 9 9 255\n", "jpeg": b"\xff\xd8"}
    for suffix in itertools.cycle(starts):
        data = rng.bytes(int(rng.integers(1, 3000)))
        yield Case(f"random.{suffix}", "bad", data)
        yield Case(f"random after magic.{suffix}", "either", starts[suffix] + data)
