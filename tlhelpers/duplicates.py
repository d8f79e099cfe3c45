"""Photos that are there twice: a copy of a training photo in the test set makes every number look better than it is.

A perceptual hash says which few of the many pairs could be copies, and a comparison of their pixels decides.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from PIL import Image

from tlhelpers.datasets import Dataset

__all__ = ["Duplicate", "duplicate_groups", "find_duplicates"]

# Measured on all 9.8 million pairs within solar_cells, faces, textiles and 2,934 photos of flowers, and on 400 photos
# of each, changed in 45 ways. The hash: a photo saved again or resized is at most 8 of 64 bits away from itself, one
# cropped by 3 % at most 6 if the trimmed hash is used; 10 bits nominate 50,000 of 3.4 million pairs of solar cells, and
# 163 of 4.3 million of flowers. The pixels: at most 0.0009 is left unexplained after JPEG 40 (0.0018 of a fabric),
# 0.0007 at a quarter of the size. Photos that are no copies leave 0.0016 and more (two cells of one module, nearly
# symmetric) or 0.0028 (a face, a moment later); compared at 32 pixels 0.0016 and 0.0017, at 16 pixels 0.0009.
_SIDE = 64  # pixels of the small grey pictures that are compared
_SIDES = (32, 16, 8, 4)  # and they at half the side, and so on, to be laid over one another roughly first
_BITS = 10  # bits of 64 of the hash that may differ in a pair that is compared
_TRIM = 0.03  # part of each side that the second hash of a photo leaves out, for copies that were cropped
_FLAT = 1.0  # standard deviation, in grey levels of 255, below which a picture shows nothing that could be compared
_LIKE = (0.25, 0.06)  # part that may be left at a quarter and at half of the side, for a pair to be compared further
_SYMMETRIC = 0.8  # a picture that explains more than this of itself turned or mirrored has little that only it has
_NEAR = {64: (0.0025, 0.0012), 32: (0.0015, 0.0012), 16: (0.0007, 0.0007)}  # part left in a copy, at most; if symmetric
_CLEAR = 0.0006  # part that is left at most where no corner needs to be left out


@dataclass(frozen=True)
class Duplicate:
    """Two photos that are one.

    Attributes:
        row: of the first photo, in the data set.
        other_row: of its copy: in the same data set, or in the other one where two were compared.
        kind: "exact" (same bytes, or same pixels) or "near" (saved again, resized, cropped, brighter, turned, …).
        difference: part of the copy's variation, 0 to 1, that the first photo does not explain; 0 if exact.

    Explained in notebooks/04_your_own_photos.ipynb.
    """

    row: int
    other_row: int
    kind: str
    difference: float


def find_duplicates(dataset: Dataset, other: Dataset | None = None) -> list[Duplicate]:
    """Find photos that are there twice, exactly or nearly.

    Near copies are found when they were saved again, resized, turned by quarters, mirrored, made grey, or changed a
    little in brightness; most of them also when a few per cent were cut off their edges or a small logo covers a
    corner. Two photos of one thing are no copies, however much alike: that they belong together only you know, see
    `split(groups=...)`.

    Args:
        dataset: `Dataset` of n photos.
        other: `Dataset` of m photos to look for copies in, such as the test part; None looks within `dataset`.

    Returns:
        list of `Duplicate`, ordered by row. Within one data set each pair stands there once, row below other_row, and
        of several exact copies the first stands for all: the others are paired with it, and it alone with near copies.
        In `other` every copy is named. Photos that cannot be read are skipped.

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=5, seed=0)
        >>> twice = cells.subset([0, 1, 2, 0])
        >>> tl.find_duplicates(twice)
        [Duplicate(row=0, other_row=3, kind='exact', difference=0.0)]

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    photos = [(dataset, row) for row in range(len(dataset))]
    if other is not None:
        photos += [(other, row) for row in range(len(other))]
    groups, pictures = _read(photos)
    if other is None:
        left = right = [[rows[0]] for rows in groups]
        found = [Duplicate(rows[0], row, "exact", 0.0) for rows in groups for row in rows[1:]]
    else:
        left = [[row for row in rows if row < len(dataset)][:1] for rows in groups]
        right = [[row for row in rows if row >= len(dataset)] for rows in groups]
        found = [Duplicate(one[0], row, "exact", 0.0) for one, rows in zip(left, right) if one for row in rows]
    first, second = (np.flatnonzero([len(rows) > 0 for rows in side]) for side in (left, right))
    for one, two, difference in _near(pictures, first, second, once=other is None):
        one, rows = left[first[one]][0], right[second[two]]
        found += [Duplicate(one, row, "near", difference) for row in rows]
    start = 0 if other is None else len(dataset)
    found = [replace(pair, other_row=pair.other_row - start) for pair in found]
    return sorted(found, key=attrgetter("row", "other_row"))


def duplicate_groups(dataset: Dataset) -> np.ndarray:
    """Number the photos so that copies of one another have the same number.

    Args:
        dataset: `Dataset` of n photos.

    Returns:
        int64 array, (n,), for `dataset.split(groups=...)`: 0 for the first photo and its copies, and so on. Copies of
        copies belong together; a photo that cannot be read is alone.

    Example:
        >>> cells = tl.load_dataset("solar_cells").sample(per_class=5, seed=0)
        >>> tl.duplicate_groups(cells.subset([0, 1, 2, 0]))
        array([0, 1, 2, 0])

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.array([(pair.row, pair.other_row) for pair in find_duplicates(dataset)], dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(dataset), len(dataset)))
    groups = connected_components(links, directed=False)[1] if len(dataset) else []
    return np.asarray(groups, dtype=np.int64)


# --- reading: each different picture once ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Picture:
    """What is kept of a photo: its small grey form, its hashes, and how small it is."""

    greys: dict  # side → float16, (side, side), for 64 pixels and each half of it; mean 0, standard deviation 1
    hashes: np.ndarray  # uint64, (8, 2): as it is and seven times turned or mirrored; whole and trimmed
    side: int  # shorter side in pixels; 0 where the picture is too flat to be compared
    symmetric: bool  # much like itself turned or mirrored


def _read(photos):
    """Group photos of the same bytes or pixels: lists of places in `photos`, and one `_Picture` for each list."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as readers:  # Pillow and hashlib let other threads work
        by_bytes, by_pixels = {}, {}
        for place, digest in enumerate(readers.map(_digest_of_file, photos)):
            if digest is not None:
                by_bytes.setdefault(digest, []).append(place)
        groups = list(by_bytes.values())
        for group, read in zip(groups, readers.map(_picture, [photos[group[0]] for group in groups])):
            if read is not None:
                digest, picture = read
                by_pixels.setdefault(digest, (picture, []))[1].extend(group)
    return [sorted(group) for _, group in by_pixels.values()], [picture for picture, _ in by_pixels.values()]


def _digest_of_file(photo):
    dataset, row = photo
    known = dataset.metadata.get("sha256")
    if known is not None and known[row]:
        return str(known[row])
    try:
        with open(dataset.files[row], "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _picture(photo):
    import imagehash

    dataset, row = photo
    try:
        pixels = dataset.image(row, at_least=_SIDE)  # a large JPEG is decoded small, several times as fast
    except (OSError, ValueError):
        return None
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
    sides = min(pixels.shape[:2])
    grey = Image.fromarray(pixels).convert("L").convert("F").resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(grey)
    spread = float(grey.std())
    if spread < _FLAT:
        return digest, _Picture({}, np.zeros((8, 2), np.uint64), 0, True)
    cut = round(_TRIM * _SIDE)
    hashes = np.empty((8, 2), np.uint64)
    for turn in range(8):
        whole = _turned(grey, turn).astype(np.uint8)
        for trimmed, part in enumerate((whole, whole[cut:-cut, cut:-cut])):
            hashes[turn, trimmed] = np.packbits(imagehash.phash(Image.fromarray(part)).hash).view(np.uint64)[0]
    greys = {_SIDE: (grey - grey.mean()) / spread}
    for side in _SIDES:
        greys[side] = _halved(greys[2 * side])
    small = greys[_SIDE // 2]
    alike = max(np.corrcoef(small.ravel(), _turned(small, turn).ravel())[0, 1] for turn in range(1, 8))
    greys = {side: grey.astype(np.float16) for side, grey in greys.items()}
    return digest, _Picture(greys, hashes, sides, bool(alike > 0 and alike**2 > _SYMMETRIC))


def _halved(grey):
    """A picture at half its side, blurred before: fine lines would leave a pattern that no move can explain."""
    from scipy.ndimage import gaussian_filter

    grey = gaussian_filter(grey, 1)
    return (grey[::2, ::2] + grey[1::2, ::2] + grey[::2, 1::2] + grey[1::2, 1::2]) / 4


def _turned(grey, turn):
    """One of the eight ways a picture can lie: 0 as it is, 1 to 3 quarter turns, 4 to 7 the same mirrored."""
    return np.rot90(grey[:, ::-1] if turn >= 4 else grey, turn % 4)


# --- nominating: few of the many pairs ------------------------------------------------------------------------------


def _near(pictures, first, second, *, once):
    """Pairs of different pictures that are near copies: (index into first, index into second, difference)."""

    def confirmed(nominated):
        one, two, turn, trimmed = nominated
        pairs = [(pictures[first[i]], pictures[second[j]]) for i, j in zip(one, two)]
        differences, sides = _differences(pairs, turn, trimmed)
        limits = [_NEAR[side][mine.symmetric or theirs.symmetric] for side, (mine, theirs) in zip(sides, pairs)]
        return [(i, j, float(d)) for i, j, d, limit in zip(one, two, differences, limits) if d <= limit]

    best = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(confirmed, _nominated(pictures, first, second, once)):
            for i, j, difference in found:
                best[i, j] = min(difference, best.get((i, j), 1.0))
    return [(i, j, difference) for (i, j), difference in best.items()]


def _nominated(pictures, first, second, once):
    """Pairs whose hashes are alike, block by block: indices, how the second is turned, and which parts were alike."""
    seen = np.array([picture.side > 0 for picture in pictures], dtype=bool)
    hashes = np.array([picture.hashes for picture in pictures], dtype=np.uint64).reshape(-1, 8, 2)
    for start in range(0, len(first), 128):
        block = first[start : start + 128]
        allowed = seen[block, None] & seen[None, second] & (block[:, None] != second[None, :])
        if once:
            allowed &= np.arange(start, start + len(block))[:, None] < np.arange(len(second))
        for turn in range(8):
            bits = [
                np.bitwise_count(hashes[block, 0, mine, None] ^ hashes[None, second, turn, theirs])
                for mine, theirs in ((0, 0), (1, 1), (1, 0), (0, 1))
            ]
            one, two = np.nonzero((np.minimum.reduce(bits) <= _BITS) & allowed)
            trimmed = np.argmin([part[one, two] for part in bits], axis=0)
            for part in range(0, len(one), 256):
                part = slice(part, part + 256)
                yield one[part] + start, two[part], turn, trimmed[part]


# --- confirming: lay one picture over the other ---------------------------------------------------------------------


def _differences(pairs, turn, trimmed):
    """Part of the second picture that the first does not explain, once it is laid over it as well as can be.

    Args:
        pairs: list of p pairs of `_Picture`.
        turn: way to turn the second of each.
        trimmed: int array, (p,): 2 where the trimmed first was like the whole second, 3 the other way round.

    Returns:
        float64 array, (p,), 0..1; and the side, in pixels, at which each pair was compared.
    """
    scale = np.choose(trimmed, [1, 1, 1 - 2 * _TRIM, 1 / (1 - 2 * _TRIM)])
    place = np.stack([scale, scale, 0 * scale, 0 * scale], axis=1)
    # A photo of 30 pixels has no detail at 64: pairs are compared at a side that both have.
    smaller = np.array([min(one.side, two.side) for one, two in pairs])
    side = np.where(smaller >= 1.1 * _SIDE, _SIDE, np.where(smaller >= 0.55 * _SIDE, _SIDE // 2, _SIDE // 4))
    result = np.ones(len(pairs))
    for size in np.unique(side):
        rows = np.flatnonzero(side == size)
        for each, steps, like in ((size // 4, 3, _LIKE[0]), (size // 2, 4, _LIKE[1]), (size, 4, 1)):
            mine = np.array([pairs[row][0].greys[each] for row in rows], np.float32).reshape(-1, each, each)
            theirs = [_turned(pairs[row][1].greys[each], turn) for row in rows]
            rest, place[rows] = _lay_over(mine, np.array(theirs, np.float32).reshape(mine.shape), place[rows], steps)
            rows, rest = rows[rest <= like], rest[rest <= like]
        result[rows] = rest
    return result, side


def _lay_over(mine, theirs, place, steps):
    """Move and stretch pictures until they explain others as well as they can (Gauss-Newton).

    Args:
        mine: float32 array, (p, size, size).
        theirs: float32 array, (p, size, size).
        place: float64 array, (p, 4): vertical and horizontal scale, then shift, in halves of the side, to begin with.
        steps: at most.

    Returns:
        float64 array, (p,): part left unexplained; and the places where it is least.
    """
    from scipy.ndimage import gaussian_filter

    count, size = len(mine), mine.shape[1]
    place, best, best_place = place.copy(), np.ones(count), place.copy()
    along = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    targets = gaussian_filter(theirs, (0, 1, 1)).reshape(count, size * size)
    moving = np.arange(count)
    for _ in range(steps if count else 0):
        moved, inside = _moved(mine[moving], place[moving], along)
        # Blurred, a picture's slopes say where it should move; after moving, so that both are equally sharp.
        moved = gaussian_filter(moved, (0, 1, 1))
        down, across = np.gradient(moved, axis=1) * (size / 2), np.gradient(moved, axis=2) * (size / 2)
        # What may differ: brightness, contrast and gamma (a curve), and, if it is little, scale and shift.
        square = moved * moved
        terms = [np.ones_like(moved), moved, square, square * moved]
        terms += [along[:, None] * down, along * across, down, across]
        terms = np.stack(terms, axis=1).reshape(len(moving), len(terms), -1)
        target = targets[moving]
        weights, rest, factors = _explained(terms, target, inside.reshape(len(moving), -1))
        contrast = np.where(np.abs(factors[:, 1:2]) < 0.2, 0.2, factors[:, 1:2])
        move = factors[:, -4:] / contrast
        far = np.abs(move).max(axis=1) * size / 2  # in pixels
        straight = far > 0.5  # too far for slopes to be trusted: count what is explained without moving
        if straight.any():
            rest[straight] = _rest(terms[straight, :-4], target[straight], weights[straight])[0]
        rest[inside.mean(axis=(1, 2)) < 0.6] = 1
        better = rest < best[moving]
        best[moving[better]], best_place[moving[better]] = rest[better], place[moving[better]]
        move = np.clip(move, -0.08, 0.08)
        place[moving, 2:] = np.clip(place[moving, 2:] + place[moving, :2] * move[:, 2:], -0.25, 0.25)
        place[moving, :2] = np.clip(place[moving, :2] * (1 + move[:, :2]), 0.8, 1.25)
        moving = moving[far > 0.1]
        if not len(moving):
            break
    return best, best_place


def _moved(grey, place, along):
    """Pictures read off at scaled and shifted pixels (cubic), and which of those lie inside: both (p, size, size)."""
    size = len(along)
    read, inside = [], []
    for axis in range(2):
        pixel = (place[:, axis, None] * along + place[:, axis + 2, None] + 1) * size / 2 - 0.5
        # Where a picture ends inside the other, the blur would carry its end on over two pixels.
        low = np.where(pixel.min(axis=1) < -0.5, 1.5, -0.5)[:, None]
        high = np.where(pixel.max(axis=1) > size - 0.5, size - 2.5, size - 0.5)[:, None]
        inside.append((pixel >= low) & (pixel <= high))
        far = np.abs(np.clip(pixel, 0, size - 1)[:, :, None] - np.arange(size)).astype(np.float32)
        near = (1.5 * far - 2.5) * far**2 + 1
        weights = np.where(far < 1, near, np.where(far < 2, ((2.5 - 0.5 * far) * far - 4) * far + 2, 0))
        read.append(weights / weights.sum(axis=2, keepdims=True))
    inside = (inside[0][:, :, None] & inside[1][:, None, :]).astype(np.float32)
    return read[0] @ grey @ read[1].transpose(0, 2, 1), inside


def _explained(terms, target, weights):
    """`_rest` without the corner in which most of it lies, under a date or a logo: weights, rest and factors."""
    rest, factors, errors = _rest(terms, target, weights)
    size = int(np.sqrt(target.shape[1]))
    errors = errors.reshape(-1, size, size)
    high, wide = size * 3 // 16, size // 2
    corners = [(slice(None, high), slice(None, wide)), (slice(None, high), slice(-wide, None))]
    corners += [(slice(-high, None), slice(None, wide)), (slice(-high, None), slice(-wide, None))]
    share = np.stack([errors[:, rows, columns].sum(axis=(1, 2)) for rows, columns in corners], axis=1)
    covered = share.max(axis=1) > 0.5 * errors.sum(axis=(1, 2))
    covered &= rest > _CLEAR
    if covered.any():
        weights = weights.reshape(-1, size, size).copy()
        for pair in np.flatnonzero(covered):
            weights[pair][corners[share[pair].argmax()]] = 0
        weights = weights.reshape(len(target), -1)
        rest[covered], factors[covered], _ = _rest(terms[covered], target[covered], weights[covered])
    return weights, rest, factors


def _rest(terms, target, weights):
    """Least squares: part of the variation of targets, (p, pixels), that terms, (p, k, pixels), leave unexplained."""
    weighted = terms * weights[:, None]
    square = (weighted @ terms.transpose(0, 2, 1)).astype(np.float64)
    square += 1e-6 * (1 + np.trace(square, axis1=1, axis2=2)[:, None, None] / terms.shape[1]) * np.eye(terms.shape[1])
    factors = np.linalg.solve(square, (weighted @ target[:, :, None]).astype(np.float64))[:, :, 0]
    errors = weights * (target - (factors[:, None].astype(np.float32) @ terms)[:, 0]) ** 2
    mean = (weights * target).sum(axis=1, keepdims=True) / np.maximum(weights.sum(axis=1, keepdims=True), 1)
    whole = (weights * (target - mean) ** 2).sum(axis=1)
    return (errors.sum(axis=1) / (whole + 1e-6)).astype(np.float64), factors, errors
