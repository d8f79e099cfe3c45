"""Features kept on disk: one row a photo, found again by what is in the photo.

Below the cache folder, `features/photos.sqlite` knows which file has which content (by path, size and time), and
`features/<network>/` holds one network's features: `rows.bin`, rows of one length, memory-mapped, and `index.sqlite`, which
says whose row is where. A row counts once the index says so, in the same transaction that gave it its place: a process that
is killed leaves at most bytes behind the last row, which the next one writes over. SQLite's lock lets one process write at a
time; any number may read.

Explained in notebooks/04_your_own_photos.ipynb.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

__all__ = ["KnownFiles", "RowStore", "digest", "kept"]

_SETTLED = 2.0  # seconds: a file changed less than that ago may change again without its time showing it
_SOME = 500  # names in one question to SQLite


def digest(path):
    """SHA-256 of a file's content, bytes; OSError where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def kept(folder):
    """What there is below the folder `features`: list of (name of a network's store, rows in it, its size in bytes)."""
    found = []
    for index in sorted(Path(folder).glob("*/index.sqlite")):
        try:
            with closing(sqlite3.connect(index, timeout=60)) as database:
                rows = database.execute("SELECT COUNT(*) FROM places").fetchone()[0]
        except sqlite3.Error:  # damaged, or just being made
            rows = 0
        found.append((index.parent.name, rows, sum(path.stat().st_size for path in index.parent.iterdir())))
    return found


@contextmanager
def _transaction(database):
    """Nothing that was changed inside counts before all of it does."""
    database.execute("BEGIN IMMEDIATE")  # waits for another process that writes
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _open(path, table, rows=None):
    """A database with this table; one that is damaged is begun anew, with its file of rows: all can be found out again."""
    for again in (True, False):
        database = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            database.execute(f"CREATE TABLE IF NOT EXISTS {table} WITHOUT ROWID")
            return database
        except sqlite3.OperationalError:  # locked for a minute, read-only, no space: not its fault
            database.close()
            raise
        except sqlite3.DatabaseError:
            database.close()
            if not again:
                raise
            for damaged in filter(None, (path, rows)):
                damaged.unlink(missing_ok=True)


def _ask(database, question, keys):
    """Rows that answer `question`, which has a {} for the keys, for any number of keys."""
    for start in range(0, len(keys), _SOME):
        some = keys[start : start + _SOME]
        yield from database.execute(question.format(",".join("?" * len(some))), some)


class KnownFiles:
    """What files hold, without reading them again.

    Args:
        folder: where `photos.sqlite` is or will be.
    """

    def __init__(self, folder):
        self._database = _open(
            Path(folder) / "photos.sqlite",
            "photos (path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, changed INTEGER, digest BLOB)",
        )

    def close(self):
        self._database.close()

    def digests(self, paths):
        """SHA-256 of each file, bytes, or None where it is not known or the file has changed since; list of n."""
        keys = [os.fsencode(os.path.abspath(path)) for path in paths]
        question = "SELECT path, size, modified, changed, digest FROM photos WHERE path IN ({})"
        known = {path: rest for path, *rest in _ask(self._database, question, list(dict.fromkeys(keys)))}
        found = []
        for path, key in zip(paths, keys):
            *then, digest = known.get(key, (None,))
            found.append(digest if digest is not None and then == list(signature(path) or ()) else None)
        return found

    def remember(self, seen):
        """Write down what files hold.

        Args:
            seen: list of (path, signature as it was before the file was read, SHA-256 in bytes).
        """
        rows = [
            (os.fsencode(os.path.abspath(path)), *signature, digest)
            for path, signature, digest in seen if signature is not None and settled(signature)
        ]
        with _transaction(self._database):
            self._database.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)", rows)


def signature(path):
    """Size in bytes, and times of the last change of content and of anything, in nanoseconds; None without such a file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def settled(signature):
    """Whether a file with this signature was last changed long enough ago for the next change to show in it."""
    return time.time() - max(signature[1:]) / 1e9 > _SETTLED


class RowStore:
    """Rows of numbers, one for each key, in a file that is memory-mapped.

    Args:
        folder: of this store alone; made where there is none.
        length: numbers in a row.
        dtype: of the numbers, float32 or float16.
    """

    def __init__(self, folder, length, dtype):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._length, self._dtype = length, np.dtype(dtype)
        self._bytes = length * self._dtype.itemsize
        self._database = _open(
            folder / "index.sqlite", "places (key BLOB PRIMARY KEY, place INTEGER UNIQUE, checksum INTEGER)",
            folder / "rows.bin",
        )
        number = os.open(folder / "rows.bin", os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._file = os.fdopen(number, "r+b", buffering=0)

    def close(self):
        self._database.close()
        self._file.close()

    def __len__(self):
        return self._database.execute("SELECT COUNT(*) FROM places").fetchone()[0]

    def find(self, keys):
        """Where the rows of these keys are: int64 array, (n,), −1 where there is none, or a damaged one."""
        question = "SELECT key, place, checksum FROM places WHERE key IN ({})"
        known = {key: rest for key, *rest in _ask(self._database, question, list(dict.fromkeys(filter(None, keys))))}
        rows, broken = self._map(), []
        for key, (place, checksum) in list(known.items()):
            if place >= len(rows) or zlib.crc32(rows[place]) != checksum:
                broken.append((key, place))
                del known[key]
        if broken:  # not by a killed process: by a disk, or by somebody
            with _transaction(self._database):
                self._database.executemany("DELETE FROM places WHERE key = ? AND place = ?", broken)
        return np.array([known[key][0] if key in known else -1 for key in keys], dtype=np.int64)

    def read(self, places):
        """Rows at these places: (n, length). Where they lie one behind the other, a memory map that is read as it is used.

        What is written into it stays in memory and does not reach the file.
        """
        rows = self._map()
        places = np.asarray(places, dtype=np.int64)
        if len(places) and np.array_equal(places, np.arange(places[0], places[0] + len(places))):
            return rows[places[0] : places[0] + len(places)]
        return np.asarray(rows)[places]

    def add(self, keys, rows):
        """Keep rows, (n, length), under these keys; a key that is there keeps its row. All of them count, or none.

        Raises:
            OSError: they cannot be written: no space, or no permission.
        """
        keys = list(keys)
        rows = np.ascontiguousarray(rows, self._dtype)
        try:
            with _transaction(self._database):
                question = "SELECT key FROM places WHERE key IN ({})"
                there = {key for key, in _ask(self._database, question, keys)}
                new = {key: row for key, row in zip(keys, rows) if key not in there}
                if not new:
                    return
                place = self._database.execute("SELECT IFNULL(MAX(place) + 1, 0) FROM places").fetchone()[0]
                block = memoryview(np.stack(list(new.values()))).cast("B")
                written = 0
                self._file.seek(place * self._bytes)
                while written < len(block):
                    written += self._file.write(block[written:])
                os.fsync(self._file.fileno())  # the row before the index that names it, also where power fails
                self._database.executemany(
                    "INSERT INTO places VALUES (?, ?, ?)",
                    [(key, place + number, zlib.crc32(row)) for number, (key, row) in enumerate(new.items())],
                )
        except sqlite3.Error as error:
            raise OSError(f"{error}") from error

    def _map(self):
        whole = os.fstat(self._file.fileno()).st_size // self._bytes
        if not whole:
            return np.empty((0, self._length), self._dtype)
        return np.memmap(self._file, self._dtype, "c", shape=(whole, self._length))
