"""A folder of one's own photos, one subfolder a class: what can be used, and what not and why.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from tlhelpers.images import UnreadablePhoto, decode, shown

__all__ = ["FolderContents", "photos_below", "scan_folder"]

# What systems leave behind in folders of photos. All else that is not used is named.
_JUNK = {".ds_store", "thumbs.db", "desktop.ini", "__macosx", ".ipynb_checkpoints", ".git", "@eadir"}
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}
_KINDS = {  # suffix → what its content has to be
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    ".mpo": ("MPO", "JPEG"), ".png": ("PNG",), ".gif": ("GIF",), ".bmp": ("BMP",), ".webp": ("WEBP",),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)), **dict.fromkeys((".pbm", ".pgm", ".ppm", ".pnm"), ("PPM",)),
}


@dataclass(frozen=True)
class FolderContents:
    """What `scan_folder` found.

    Attributes:
        files: n paths of photos that were read from the first to the last byte.
        labels: n ints, indices into `class_names`.
        class_names: k names, those of the class folders.
        subfolders: n texts: the folder of each photo, seen from the class folders ("cats/tom"). A photo that lies
            directly in its class folder has its own path there: nothing is known of what it belongs to.
        sha256: n texts, of the files' bytes, in hexadecimal.
        left_out: (path, reason) of everything that cannot be used.

    Explained in notebooks/04_your_own_photos.ipynb.
    """

    files: Sequence[Path]
    labels: Sequence[int]
    class_names: Sequence[str]
    subfolders: Sequence[str]
    sha256: Sequence[str]
    left_out: Sequence[tuple[Path, str]]


def scan_folder(
    folder: str | PathLike, *, class_names: Sequence[str] | None = None, progress: Callable[[int, int], object] | None = None
) -> FolderContents:
    """Find the photos of a folder, one subfolder a class, and read each once to see whether it can be used.

    Args:
        folder: it has one subfolder a class; what lies below a class folder, however deep, is of that class.
        class_names: the classes to expect, in this order; the folder may lack some of them, but have no others. None
            takes the names of the subfolders, sorted.
        progress: function that is called with (number of files read, number of all) now and then; None calls nothing.

    Returns:
        `FolderContents`.

    Raises:
        ValueError: there are no photos, or fewer than two classes, or the subfolders are no classes.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name, photo in (("cats", "chelsea"), ("cups", "coffee")):
        ...         (Path(folder) / name).mkdir()
        ...         tl.plots.photo_grid([tl.load_photo(photo)]).savefig(Path(folder) / name / "one.png")
        ...     _ = (Path(folder) / "cups" / "notes.txt").write_text("no photo")
        ...     contents = tl.folders.scan_folder(folder)
        >>> contents.class_names, len(contents.files), [(path.name, reason) for path, reason in contents.left_out]
        (('cats', 'cups'), 2, [('notes.txt', 'no photo in a format that is read here; convert it to JPEG or PNG')])

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)}: there is no such folder")
    if class_names is not None and len(set(class_names)) < max(2, len(class_names)):
        raise ValueError(f"class_names is {class_names}; expected two names or more, all different")
    left_out, class_folders, beside = _top_level(folder, class_names)
    if class_names is None:
        _refuse_a_split_folder(folder, class_folders)
    visited = {_identity(folder), *map(_identity, class_folders.values())}
    found, of_class = [], []  # found: paths; of_class: names, row by row
    for name, class_folder in class_folders.items():
        mine = []
        for path, reason in _walk(class_folder, visited, folder):
            left_out.append((path, reason)) if reason else mine.append(path)
        mine.sort(key=os.fsencode)
        found += mine
        of_class += [name] * len(mine)
    verdicts = _read_all(found, progress)
    left_out += [(path, reason) for path, (reason, _) in zip(found, verdicts) if reason]
    used = [row for row, (reason, _) in enumerate(verdicts) if not reason]
    counts, all_counts = Counter(of_class[row] for row in used), Counter(of_class)
    for name in class_folders:
        if not counts[name]:
            files = f"none of its {all_counts[name]:,} files is a photo that can be used" if all_counts[name] else "it is empty"
            left_out.append((class_folders[name], f"left out as a class: {files}"))
    left_out.sort(key=lambda pair: os.fsencode(pair[0]))
    if class_names is None:
        class_names = [name for name in class_folders if counts[name]]
    _refuse_too_little(folder, counts, class_folders, beside, left_out, expected=class_names)
    place = {name: label for label, name in enumerate(class_names)}
    return FolderContents(
        files=tuple(found[row] for row in used),
        labels=[place[of_class[row]] for row in used],
        class_names=tuple(class_names),
        subfolders=[_subfolder(found[row], class_folders[of_class[row]], of_class[row]) for row in used],
        sha256=[verdicts[row][1] for row in used],
        left_out=tuple(left_out),
    )


def photos_below(folder: str | PathLike) -> list[tuple[Path, str | None]]:
    """Every file below a folder, however deep, that may be a photo. None is opened.

    Args:
        folder: path.

    Returns:
        list of (path, None), or (path, reason) of what cannot be used; sorted.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    return sorted(_walk(Path(folder), {_identity(folder)}, folder), key=lambda pair: os.fsencode(pair[0]))


def _top_level(folder, class_names):
    """left_out so far, name → class folder, and the files that lie beside the class folders."""
    left_out, folders, beside = [], {}, []
    for path, kind in _entries(folder):
        if kind != "folder":
            left_out.append((path, "it lies beside the class folders, not in one" if kind == "file" else kind))
            beside += [path] if kind == "file" else []
            continue
        if _leads_back(path, folder):
            left_out.append((path, "a link to a folder that is read already"))
            continue
        name = unicodedata.normalize("NFC", shown(path.name))
        if name in folders:
            raise ValueError(f"{shown(folder)}: two folders are called {name} (written in two ways); rename one of them")
        if class_names is not None and name not in class_names:
            raise ValueError(
                f"{shown(path)}: the classifier knows no class {name!r}; it knows {', '.join(map(repr, class_names))}: rename "
                "the folder, or move it elsewhere"
            )
        folders[name] = path
    identities = {}
    for name, path in list(folders.items()):  # two names that lead to one folder
        first = identities.setdefault(_identity(path), name)
        if first != name:
            left_out.append((path, f"a link to a folder that is read already ({first})"))
            del folders[name]
    return left_out, folders, beside


def _leads_back(path, root):
    """Is it a link to a folder that is read in its own place, or that holds all of it? What it holds is of another class."""
    if not path.is_symlink():
        return False
    real, root = path.resolve(), Path(root).resolve()
    return real == root or root in real.parents or real in root.parents


def _walk(folder, visited, root):
    """(path, None) of each file below a folder, (path, reason) of what cannot be used; each folder only once."""
    waiting = [folder]
    while waiting:
        for path, kind in _entries(waiting.pop()):
            if kind == "file":
                yield path, None
            elif kind == "folder":
                identity = _identity(path)
                if identity in visited or _leads_back(path, root):
                    yield path, "a link to a folder that is read already"
                else:
                    visited.add(identity)
                    waiting.append(path)
            else:
                yield path, kind


def _entries(folder):
    """(path, "file", "folder" or a reason why neither) of all in one folder that is no junk, sorted by name."""
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except OSError as error:
        return [(folder, f"this folder cannot be opened ({error.strerror})")]
    entries = []
    for name in names:
        path = folder / name
        if name.lower() in _JUNK or name.startswith("._"):
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            what = "a link that leads nowhere" if path.is_symlink() else "it cannot be looked at"
            entries.append((path, f"{what} ({error.strerror})"))
            continue
        if name.startswith("."):
            kind = "hidden: its name begins with a dot"
        elif stat.S_ISDIR(mode):
            kind = "folder"
        else:
            kind = "file" if stat.S_ISREG(mode) else "no file, but a pipe, socket or device"
        entries.append((path, kind))
    return entries


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _read_all(paths, progress):
    """(reason, SHA-256) of each path; the reason is None where the photo can be used."""
    verdicts = []
    workers = min(4, os.cpu_count() or 1)  # memory grows with them
    with ThreadPoolExecutor(workers) as pool:
        try:
            for verdict in pool.map(_verdict, paths):
                verdicts.append(verdict)
                if progress and (len(verdicts) % 16 == 0 or len(verdicts) == len(paths)):
                    progress(len(verdicts), len(paths))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return verdicts


def _verdict(path):
    try:
        kind = decode(path, at_least=1)[1]  # a JPEG at an eighth: read to its end, but quickly
        if kind not in _KINDS.get(path.suffix.lower(), (kind,)):
            return f"a {kind} photo, but its name ends in {path.suffix}; rename it to what it is", None
        with open(path, "rb") as file:
            return None, hashlib.file_digest(file, "sha256").hexdigest()
    except UnreadablePhoto as error:
        return error.reason, None
    except OSError as error:  # it went away meanwhile
        return error.strerror or "it is no longer there", None


def _refuse_a_split_folder(folder, class_folders):
    names = {name.lower() for name in class_folders}
    if len(names) > 1 and names <= _PARTS and all(_subfolders_of(path) for path in class_folders.values()):
        train, test, *_ = sorted(class_folders, key=lambda name: (not name.lower().startswith("train"), name))
        raise ValueError(
            f"{shown(folder)}: its subfolders {', '.join(class_folders)} are no classes but parts of a split; load each part on "
            f"its own, or: tlhelpers fit {shown(folder / train)} --test {shown(folder / test)}"
        )


def _refuse_too_little(folder, counts, class_folders, beside, left_out, *, expected):
    if not sum(counts.values()):
        if not class_folders and beside:
            why = f"{len(beside):,} files lie in it directly; make one subfolder a class and move the photos there"
        elif left_out:
            of_files = [pair for pair in left_out if pair[0] not in class_folders.values()]
            path, reason = (of_files or left_out)[0]
            why = f"{len(left_out):,} files or folders were left out, the first: {shown(path)}: {reason}"
        else:
            why = "it is empty; expected one subfolder a class, with photos in it"
        raise ValueError(f"{shown(folder)}: there are no photos that can be used: {why}")
    if len(expected) < 2:
        (name,) = expected
        inner = _subfolders_of(class_folders[name])
        advice = (
            f"are {', '.join(map(shown, inner[:4]))} the classes? Then give {shown(class_folders[name])}"
            if len(inner) > 1 else "expected one subfolder a class, two or more"
        )
        raise ValueError(f"{shown(folder)}: it holds one class, {name}, and there is nothing to tell apart; {advice}")


def _subfolders_of(folder):
    return [path.name for path, kind in _entries(folder) if kind == "folder"]


def _subfolder(path, class_folder, name):
    inside = path.relative_to(class_folder)
    return shown(Path(name, inside if inside.parent == Path() else inside.parent).as_posix())
