"""Data that comes over the network: checked, resumed where it broke off, and whole or not at all.

Nothing here runs unless you ask for a data set that is not a package from pip. What has come once is in `cache_dir()`.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import threading
import time
import zlib
from os import PathLike
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote, urlsplit

import numpy as np

__all__ = ["FLOWERS", "cache_dir", "download", "fetch_archive", "fetch_tfds", "read_tfds"]

#: TensorFlow's flower_photos, for `fetch_archive`: flower_photos/<class>/*.jpg and flower_photos/LICENSE.txt (CC BY).
#: Length and SHA-256 are those that TensorFlow Datasets checks (tf_flowers/checksums.tsv).
FLOWERS = {
    "url": "https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
    "sha256": "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    "size": 228_813_984,
    "max_bytes": 300_000_000,
}

_TIMEOUT = (10, 30)  # seconds to connect, and seconds without a single byte
_PAUSES = (0.5, 1, 2)  # seconds before each further attempt; a connection that brings 1 MB gets them all back
_LIMIT = 20_000_000_000  # bytes, where nobody said how long the file is
_WITHOUT = (
    'Without a network, the packaged data sets ("solar_cells", "faces", "textiles") and your own photos, '
    "tl.load_dataset(FOLDER), work"
)


def cache_dir() -> Path:
    """Find the folder that keeps what was downloaded, and make it if there is none.

    Returns:
        `Path`: the environment variable TLHELPERS_CACHE, else the platform's folder for caches.

    Raises:
        OSError: the folder cannot be made, or is a file; the message names it.

    Example:
        >>> tl.cache_dir().is_dir()
        True

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    import platformdirs

    given = os.environ.get("TLHELPERS_CACHE")
    folder = Path(given or platformdirs.user_cache_dir("tlhelpers", appauthor=False))
    try:
        folder = folder.expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no user to expand ~ to
        reason = "it is a file" if folder.is_file() else getattr(error, "strerror", None) or error
        raise OSError(
            f"{folder}: cannot be made the cache folder ({reason}); set the environment variable TLHELPERS_CACHE to a "
            "folder that you may write to"
        ) from error
    return folder


def download(url: str, path: str | PathLike, *, sha256: str, size: int | None = None) -> Path:
    """Download one file, whole or not at all.

    What comes is kept in `path` + ".part" until it is whole and has the right SHA-256. After a break, a Ctrl-C or a
    power cut, the next call goes on from there. A progress bar stands on standard error if that is a terminal.

    Args:
        url: address, http or https.
        path: where the file shall be. If it is there already, and right, nothing is downloaded.
        sha256: SHA-256 of the whole file, 64 hexadecimal digits.
        size: its length in bytes, if you know it; nothing longer is written, and room on the disk is looked for first.

    Returns:
        `Path` of the file.

    Raises:
        ConnectionError: the server cannot be reached or refuses; the message says what to do instead.
        ValueError: what is at the address, or at `path`, is not the file with this SHA-256.
        OSError: the disk is full.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path), _progress_bar(path.name) as report:
        return _download(url, path, sha256, size, report)


def fetch_archive(name: str, url: str, *, sha256: str, size: int, max_bytes: int, max_files: int = 20_000) -> Path:
    """Download a .tar.gz and unpack it into the cache, once; then no request is made any more.

    Two processes at once are both right: one waits for the other. Only plain files and folders are unpacked. The
    archive is deleted afterwards; without a network you may put it by hand where the message says.

    Args:
        name: what to call its folder in the cache.
        url: address of the archive.
        sha256: SHA-256 of the archive.
        size: length of the archive in bytes.
        max_bytes: bytes that it may take, unpacked.
        max_files: files and folders that it may hold.

    Returns:
        `Path` of the folder with what was in the archive.

    Raises:
        ConnectionError: see `download`.
        ValueError: the archive is not the one expected, or holds what an archive of photos should not: links, devices,
            paths that lead out of the folder, too much. The message names it; nothing is left behind.
        OSError: the disk is full.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    folder = cache_dir() / "datasets" / f"{name}-{sha256[:8]}"
    archive = folder.with_name(f"{folder.name}.tar.gz")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not folder.is_dir():  # another process may have made it while this one waited
                with _progress_bar(name) as report:
                    _download(url, archive, sha256, size, report)
                try:
                    with _whole_or_nothing(folder) as unpacked:
                        _unpack(archive, unpacked, max_bytes, max_files)
                except ValueError:
                    archive.unlink()  # it would be refused the next time, too
                    raise
    with contextlib.suppress(OSError):  # also if a process was killed just before it came here
        archive.unlink()
    return folder


def fetch_tfds(name: str) -> Path:
    """Bring an image-classification set of TensorFlow Datasets into the cache as files, once.

    The photos are not encoded anew: each file holds the bytes that the data set holds. TensorFlow Datasets downloads
    and prepares with code that comes with it; what that leaves (two to three times the data) is deleted at the end.

    Args:
        name: as in TensorFlow's catalogue: "beans", "cifar10_corrupted/fog_1", "mnist:3.0.1".

    Returns:
        `Path` of a folder for `read_tfds`: `<split>/<label>_<class>/<row>.<jpg or png>` and `tfds.json`.

    Raises:
        ModuleNotFoundError: the package is not installed; the message gives the line that installs it.
        ValueError: there is no such data set, it is not one of photos with one label each, or it cannot be prepared.
        ConnectionError: see `download`.
        OSError: the disk is full.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    if not re.fullmatch(r"\w+(/[\w.\-]+)?(:[\d.*]+)?", name):
        raise ValueError(f'{name!r} is no name of a data set; expected the form "beans", "name/config" or "name:1.0.0"')
    folder = cache_dir() / "tfds" / quote(name, safe="")  # "/" and ":" cannot be part of a folder's name everywhere
    work = folder.with_name(f"{folder.name}.work")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not folder.is_dir():
                builder, image, label = _prepare_tfds(name, work)
                with _whole_or_nothing(folder) as exported:
                    _export_tfds(builder, image, label, exported)
    shutil.rmtree(work, ignore_errors=True)
    return folder


def read_tfds(folder: str | PathLike) -> tuple[tuple[Path, ...], np.ndarray, tuple[str, ...], np.ndarray, dict]:
    """List what `fetch_tfds` brought.

    Args:
        folder: what `fetch_tfds` returned.

    Returns:
        five values, in this order.

        - files: tuple of n paths, split by split, in the order of TensorFlow Datasets.
        - labels: int64 array, (n,); `labels[i]` is an index into `class_names`.
        - class_names: tuple of k names.
        - splits: array of n names: "train", "test", …
        - info: dict with `name`, `version`, `description`, `homepage`, `licence`, `citation` (as the data set gives them,
          perhaps empty) and `splits`: name → number of `photos`, and of those `left_out` as they have no label.

    Explained in notebooks/04_your_own_photos.ipynb.
    """
    info = json.loads((Path(folder) / "tfds.json").read_text(encoding="utf-8"))
    files, labels, splits = [], [], []
    for split in info["splits"]:
        mine = [(path, int(path.parent.name.split("_")[0])) for path in (Path(folder) / split).glob("*/*")]
        for path, label in sorted(mine, key=lambda pair: int(pair[0].stem)):
            files.append(path)
            labels.append(label)
            splits.append(split)
    return tuple(files), np.array(labels, dtype=np.int64), tuple(info["class_names"]), np.array(splits), info


# --- one file ------------------------------------------------------------------------------------------------------


class _Broken(Exception):
    """An answer that is worth another attempt."""


def _download(url, path, sha256, size, report):
    """`download`, for one process at a time. `report` is called with bytes that are there, and bytes in all or None."""
    if path.exists():
        found = _sha256(path)
        if found != sha256:
            raise ValueError(f"{path}: its SHA-256 is {found}, expected {sha256}; delete this file, then call again")
        return path
    part = path.with_name(f"{path.name}.part")
    for _ in range(2):
        in_pieces = _receive(url, path, part, size, report)
        found = _sha256(part)
        if found == sha256:
            os.replace(part, path)
            return path
        part.unlink()
        if not in_pieces:
            break  # pieces of two versions of a file make neither, so pieces get a second chance
    raise ValueError(
        f"{url}: what came has the SHA-256 {found}, expected {sha256}: the file at this address has changed, or was "
        f"damaged on its way; nothing of it was kept. {_WITHOUT}"
    )


def _receive(url, path, part, size, report):
    """Fill `part` until it is as long as it should be; returns whether it was pieced together from several answers."""
    import requests
    import urllib3

    part.touch()
    furthest = part.stat().st_size
    in_pieces = furthest > 0
    failures = 0
    while True:
        have = part.stat().st_size
        if size is not None and have > size:
            os.truncate(part, 0)
            have = 0
        if size is not None and have == size:
            return in_pieces
        in_pieces |= have > 0
        try:
            if size is not None and shutil.disk_usage(part.parent).free < size - have:
                raise OSError(errno.ENOSPC, "no room")
            _request(url, part, have, size, report)
            return in_pieces and have > 0
        except (requests.RequestException, urllib3.exceptions.HTTPError, _Broken) as error:
            have = part.stat().st_size
            if have >= furthest + 1_000_000:
                furthest, failures = have, 0
            if failures == len(_PAUSES) or isinstance(error, ValueError):  # ValueError: no address at all
                kept = f"; {have / 1e6:,.1f} MB are kept, and the next call goes on from there" if have else ""
                raise ConnectionError(
                    f"{url}: cannot be downloaded ({_reason(error)}){kept}. {_instead(path)}"
                ) from error
            time.sleep(_PAUSES[failures])
            failures += 1
        except OSError as error:
            _say_if_full(error, path, f"{size / 1e6:,.1f} MB" if size else "more than there is")
            raise


def _request(url, part, have, size, report):
    """Make one request and write what comes behind the first `have` bytes of `part`."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if have and answer.status_code == 416:  # there is nothing behind what we have
            if size is None and sent and sent[2] == str(have):
                return
            os.truncate(part, 0)
            raise _Broken("the server's file is shorter than what came before")
        if 400 <= answer.status_code < 500:
            raise ConnectionError(f"{url}: the server answered {answer.status_code} {answer.reason}. {_instead(part)}")
        if answer.status_code == 206 and have and sent and sent[1] == str(have):
            total = None if sent[2] == "*" else int(sent[2])
        elif answer.status_code == 200:  # all of it, whether or not a part was asked for
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            have = 0
        else:
            os.truncate(part, 0)
            raise _Broken(f"the server answered {answer.status_code} {answer.reason}")
        if size is not None and total not in (None, size):
            raise ValueError(
                f"{url}: the file there has {total:,} bytes, expected {size:,}: it has changed, or what answers is a "
                f"login page of your network. {_instead(part)}"
            )
        with open(part, "ab" if have else "wb") as file:
            for chunk in answer.raw.stream(1 << 16, decode_content=False):
                chunk = chunk[: (size or _LIMIT) - have]
                file.write(chunk)
                have += len(chunk)
                report(have, size or total)
                if not chunk:  # longer than it may be; the SHA-256 says the rest
                    break
        if size is not None and have < size:
            raise _Broken("the connection broke off")


def _instead(path):
    path = str(path).removesuffix(".part")
    return f"Check the network and call again. {_WITHOUT}; or put the file by hand at {path}"


def _reason(error):
    """The cause in a few words: what requests says is half a page."""
    import requests

    if isinstance(error, (_Broken, ValueError)):
        return str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection to the server"
    if isinstance(error, requests.exceptions.ProxyError):
        return "no connection to the proxy"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "the server does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return "the connection broke off"


def _say_if_full(error, path, needed):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise OSError(
            f"{path}: the disk is full; {needed} are needed. Make room, or set the environment variable "
            "TLHELPERS_CACHE to a folder on another disk, then call again"
        ) from error


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _watched():
    """Is there anybody to see a progress bar?"""
    from rich.console import Console

    return sys.stderr.isatty() or Console(stderr=True).is_jupyter


@contextlib.contextmanager
def _progress_bar(name):
    """Gives a function of (bytes that are there, bytes in all or None) that draws them."""
    from rich import progress
    from rich.console import Console

    columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn()]
    columns += [progress.TransferSpeedColumn(), progress.TimeRemainingColumn()]
    with progress.Progress(*columns, console=Console(stderr=True), disable=not _watched()) as bar:
        tasks = []

        def report(have, total):
            if not tasks:  # only now: what an earlier call brought must not count as speed
                tasks.append(bar.add_task(f"downloading {name}", total=total, completed=have))
            bar.update(tasks[0], completed=have, total=total)

        yield report


@contextlib.contextmanager
def _locked(path):
    """One process at a time; the others wait. The system takes the lock from a process that is killed."""
    from filelock import FileLock, Timeout

    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.name}: another process is downloading it; waiting until that is done", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _whole_or_nothing(folder):
    """A folder to fill, which gets its name when it is full; what a killed process left of it is cleared away."""
    filling = folder.with_name(f"{folder.name}.partial")
    if filling.exists():
        shutil.rmtree(filling)
    try:
        filling.mkdir()
        yield filling
        os.replace(filling, folder)
    except BaseException as error:
        shutil.rmtree(filling, ignore_errors=True)
        if isinstance(error, OSError):
            _say_if_full(error, folder, "about as many bytes as were downloaded, once more,")
        raise


# --- archives ------------------------------------------------------------------------------------------------------


class _Unpacked:
    """The inside of a .gz as a stream that ends with an error where a bomb would begin."""

    def __init__(self, file, archive, limit):
        self.file, self.archive, self.limit, self.left = file, archive, limit, limit

    def read(self, length):
        data = self.file.read(min(length, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"{self.archive}: takes more than {self.limit:,} bytes unpacked; nothing of it was kept")
        return data


def _unpack(archive, folder, max_bytes, max_files):
    """Unpack plain files and folders of a .tar.gz into an empty folder."""
    import gzip

    # Each file and folder takes up to two blocks of 512 bytes beside its content, and the end up to 20 more.
    limit = max_bytes + (2 * max_files + 20) * 512
    number = 0
    try:
        with gzip.open(archive) as file, tarfile.open(fileobj=_Unpacked(file, archive, limit), mode="r|") as tar:
            for number, member in enumerate(tar, 1):
                refused = _why_not(member)
                if number > max_files:
                    refused = f"more than {max_files:,} files and folders"
                if refused:
                    raise ValueError(f"{archive}: {member.name!r}: {refused}; nothing of the archive was kept")
                target = folder.joinpath(*PurePosixPath(member.name).parts)
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "xb") as out:
                    shutil.copyfileobj(tar.extractfile(member), out)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{archive}: {member.name!r}: is there twice; nothing of the archive was kept") from error
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive}: not a .tar.gz that can be unpacked ({error})") from error
    if not number:
        raise ValueError(f"{archive}: not a .tar.gz that can be unpacked (there is nothing in it)")


def _why_not(member):
    """Why a member of an archive is refused; None if it is not. What is a path on Windows counts everywhere."""
    name = member.name
    if member.issym() or member.islnk():
        return "a link, which may lead anywhere"
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "neither a plain file nor a folder"
    if name.startswith("/") or PureWindowsPath(name).drive or "\\" in name or ":" in name:
        return "not a plain path below the folder"
    if ".." in PurePosixPath(name).parts or (member.isreg() and not PurePosixPath(name).parts):
        return "a path that leads out of the folder"
    return None


# --- TensorFlow Datasets -------------------------------------------------------------------------------------------


def _prepare_tfds(name, work):
    """Let TensorFlow Datasets download and prepare in the folder `work`: its builder, keys of image and of label."""
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        if error.name != "tensorflow_datasets":
            raise
        raise ModuleNotFoundError(
            f"{name!r} is read with the package tensorflow-datasets, which is not installed; install it with: "
            "python -m pip install tensorflow-datasets"
        ) from error
    # TensorFlow Datasets 4.9.10 asks a package for this that it does not tell pip about (its issue 11212).
    import importlib.resources.abc

    tfds.core.dataset_builder.importlib_resources = importlib.resources
    try:
        builder = tfds.builder(name, data_dir=work / "data")
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"TensorFlow Datasets knows no data set {name!r}; tensorflow_datasets.list_builders() lists those it knows"
        ) from error
    except Exception as error:  # the code of hundreds of authors: it may raise anything
        raise ValueError(f"TensorFlow Datasets cannot load {name!r}: {error}") from error
    image, label = _image_and_label(tfds, builder)
    config = tfds.download.DownloadConfig(
        manual_dir=work.parent / "manual",  # what a reader puts there by hand is not ours to delete
        try_download_gcs=False,
    )
    stopped = threading.Event()
    manager = builder._make_download_manager(download_dir=work / "downloads", download_config=config)
    manager._DownloadManager__downloader = _tfds_downloader(builder.url_infos or {}, work / "files", stopped)
    builder._make_download_manager = lambda **_: manager
    watched = _watched()
    if not watched:
        tfds.disable_progress_bar()
    try:
        # It prints to standard output, where a command's result should stand alone.
        with contextlib.redirect_stdout(sys.stderr if watched else io.StringIO()):
            builder.download_and_prepare(download_config=config)
    except (OSError, ImportError) as error:
        if isinstance(error, OSError):
            _say_if_full(error, work, f"{(builder.info.download_size + builder.info.dataset_size) / 1e6:,.1f} MB")
        raise
    except Exception as error:
        raise ValueError(f"TensorFlow Datasets cannot prepare {name!r}: {error}") from error
    finally:
        stopped.set()
    return builder, image, label


def _image_and_label(tfds, builder):
    """Names of the one feature that is a photo and of the one that is its class."""
    features = builder.info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    masks = (tfds.features.LabeledImage,)
    images = [
        key for key, feature in features.items()
        if isinstance(feature, tfds.features.Image) and not isinstance(feature, masks)
        and np.dtype(feature.np_dtype).kind == "u"  # floats are stored as bytes that only look like a photo
    ]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    keys = builder.info.supervised_keys
    if keys and len(keys) == 2 and keys[0] in images and keys[1] in labels:
        return keys
    if len(images) == len(labels) == 1:
        return images[0], labels[0]
    raise ValueError(
        f"{builder.name!r} is not a data set of photos with one label each: of its features "
        f"({', '.join(features) or 'none with a name'}), {len(images)} are photos and {len(labels)} are classes; "
        "expected one of each"
    )


def _tfds_downloader(known, kept, stopped):
    """A downloader for TensorFlow Datasets that resumes and does not wait for ever.

    Its own tries for minutes where there is no network, and a server that falls silent holds it up for good.

    Args:
        known: address → size and SHA-256, as registered in TensorFlow Datasets.
        kept: folder for what has come in part.
        stopped: event; once it is set, downloads in other threads end.
    """
    from tensorflow_datasets.core.download import downloader

    class Downloader(downloader._Downloader):
        def _sync_download(self, url, destination_path, verify=True):
            info = known.get(url)
            if info is None or not url.startswith("http") or "//drive.google.com/" in url:
                _look_whether_there_is_anybody(url)
                return super()._sync_download(url, destination_path, verify)
            drawn = [0]
            self._pbar_dl_size.update_total(info.size >> 20)

            def report(have, total):
                if stopped.is_set():
                    raise InterruptedError(f"{url}: stopped")
                self._pbar_dl_size.update((have >> 20) - drawn[0])
                drawn[0] = have >> 20

            kept.mkdir(parents=True, exist_ok=True)
            file = _download(url, kept / info.checksum, info.checksum, int(info.size), report)
            path = destination_path / (info.filename or PurePosixPath(urlsplit(url).path).name or "file")
            os.replace(file, path)
            self._pbar_url.update(1)
            return downloader.DownloadResult(path=path, url_info=info)

    return Downloader()


def _look_whether_there_is_anybody(url):
    import requests

    if url.startswith("http"):
        try:
            requests.get(url, stream=True, timeout=_TIMEOUT).close()
        except requests.RequestException as error:
            raise ConnectionError(
                f"{url}: cannot be downloaded ({_reason(error)}). Check the network and call again. {_WITHOUT}"
            ) from error


def _export_tfds(builder, image, label, folder):
    """Write each photo of a prepared data set into a file of its own, byte by byte as it is stored."""
    import tensorflow_datasets as tfds

    info = builder.info
    class_names = info.features[label].names
    width = len(str(len(class_names) - 1))
    # The number makes a folder's name unique and says the label; the rest is for people who look into the folder.
    readable = [re.sub(r"[^0-9A-Za-z-]+", "-", name)[:40] for name in class_names]
    names = [f"{number:0{width}d}_{name}" for number, name in enumerate(readable)]
    counts = {}
    for split in sorted(info.splits):
        counts[split] = {"photos": 0, "left_out": 0}
        for name in names:
            (folder / split / name).mkdir(parents=True)
        decoding = tfds.decode.PartialDecoding({image: True, label: True}, decoders={image: tfds.decode.SkipDecoding()})
        reading = tfds.ReadConfig(try_autocache=False)  # each photo is read once
        rows = builder.as_dataset(split=split, decoders=decoding, shuffle_files=False, read_config=reading)
        for row, example in enumerate(rows.as_numpy_iterator()):
            number = int(example[label])
            if number < 0:  # test photos of competitions, whose labels are kept secret
                counts[split]["left_out"] += 1
                continue
            file = folder / split / names[number] / f"{row:06d}.{_extension(example[image])}"
            file.write_bytes(example[image])
            counts[split]["photos"] += 1
    about = {
        "name": builder.name,
        "version": str(info.version),
        "description": info.description,
        "homepage": info.homepage,
        "licence": info.redistribution_info.license,
        "citation": info.citation,
        "class_names": class_names,
        "splits": counts,
    }
    (folder / "tfds.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def _extension(data):
    """File name extension for a photo, by its first bytes."""
    kinds = {b"\xff\xd8": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp"}
    return next((kind for start, kind in kinds.items() if data.startswith(start)), "img")
