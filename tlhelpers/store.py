"""Features kept on disk: one row a photo, found again by what is in the photo.

Below the cache folder, `features/photos.sqlite` knows which file has which content (by path, size, time and place on the
disk), and `features/<network>/` holds one network's features: `rows-….bin`, rows of one length, memory-mapped, and
`index.sqlite`, which names that file and says whose row is where. A row counts once the index says so, in the same
transaction that gave it its place: a process that is killed leaves at most bytes behind the last row, which the next one
writes over. A place is never given twice, so that a row once handed out stays what it was. SQLite's lock lets one process
write at a time; any number may read.

Explained in notebooks/03_feature_extraction.ipynb.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import stat
import time
import uuid
import zlib
from pathlib import Path

import numpy as np

__all__ = []  # for `features`; readers meet the cache as `extract_features(cache=…)` and `tlhelpers cache`

_SETTLED = 2.0  # seconds: a file changed less than that ago may change again without its time showing it
_SOME = 500  # names in one question to SQLite
_MAPPED = 2**22  # bytes: less is copied, as each memory map holds a file open
_PATIENCE = 5.0  # seconds to wait for another process that writes


def kept(folder):
    """What there is below the folder `features`: list of (name of a network's store, rows in it, its size in bytes)."""
    found = []
    for index in sorted(Path(folder).glob("*/index.sqlite")):
        rows = size = 0
        with contextlib.suppress(OSError, sqlite3.Error):  # damaged, or just being made or deleted
            size = sum(path.stat().st_size for path in (index, *index.parent.glob("rows-*.bin")))
            with contextlib.closing(sqlite3.connect(index, timeout=_PATIENCE)) as database:
                rows = database.execute("SELECT COUNT(*) FROM places WHERE LENGTH(key) = 32").fetchone()[0]
        found.append((index.parent.name, rows, size))
    return found


def look(path):
    """What a file is at this moment.

    Returns:
        (str that changes with the file, SHA-256 of its content in bytes, whether it was changed long enough ago for the next
        change to show in the str); or None where there is no such file, it cannot be read, or is none (a pipe, a device).
    """
    try:
        status, now = os.stat(path), time.time()
        if not stat.S_ISREG(status.st_mode):
            return None
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
    return _sign(status), content, now - max(status.st_mtime, status.st_ctime) > _SETTLED


def same(path, looked):
    """`looked`, from before the file was read, if the file is still what it was then; else None."""
    try:
        if looked is None or _sign(os.stat(path)) != looked[0]:
            return None
    except OSError:
        return None
    again = looked if looked[2] else look(path)  # None where it has gone meanwhile
    return looked if again is not None and again[1] == looked[1] else None


def _sign(status):
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}"


def _name(path):
    return os.fsencode(Path(path).absolute())


@contextlib.contextmanager
def _transaction(database):
    """Nothing that was changed inside counts before all of it does."""
    database.execute("BEGIN IMMEDIATE")  # waits for another process that writes
    try:
        yield
        database.execute("COMMIT")
    finally:  # after an error, or Ctrl-C
        if database.in_transaction:
            database.execute("ROLLBACK")


def _open(path, *tables):
    """A database with these tables; one that is damaged is begun anew: all that it knows can be found out again."""
    for again in (True, False):
        database = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        try:
            for table in tables:
                database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
            return database
        except sqlite3.DatabaseError as error:
            database.close()
            # locked, read-only or no space is not its fault
            if isinstance(error, sqlite3.OperationalError) or not again:
                raise
            path.unlink(missing_ok=True)


def _ask(database, question, keys):
    """Rows that answer `question`, which has a {} for the keys, for any number of keys."""
    keys = list(dict.fromkeys(keys))
    for start in range(0, len(keys), _SOME):
        some = keys[start : start + _SOME]
        yield from database.execute(question.format(",".join("?" * len(some))), some)


class KnownFiles:
    """What files hold, without reading them again.

    Args:
        folder: where `photos.sqlite` is or will be.
    """

    def __init__(self, folder):
        self._database = _open(Path(folder) / "photos.sqlite", "files (path BLOB PRIMARY KEY, sign TEXT, digest BLOB)")

    def close(self):
        self._database.close()

    def digests(self, paths):
        """SHA-256 of each file, bytes, or None where it is not known or the file has changed since; list of n."""
        names, found = [_name(path) for path in paths], []
        question = "SELECT path, sign, digest FROM files WHERE path IN ({})"
        known = {path: rest for path, *rest in _ask(self._database, question, names)}
        for path, name in zip(paths, names):
            sign, digest = known.get(name, (None, None))
            with contextlib.suppress(OSError):
                digest = digest if sign is not None and _sign(os.stat(path)) == sign else None
                found.append(digest)
                continue
            found.append(None)
        return found

    def remember(self, looked):
        """Write down what files hold: list of (path, what `look` said of it)."""
        rows = [(_name(path), sign, digest) for path, (sign, digest, settled) in looked if settled]
        if rows:
            with _transaction(self._database):
                self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)


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
            folder / "index.sqlite", "places (key BLOB PRIMARY KEY, place INTEGER UNIQUE, checksum INTEGER)", "file (name TEXT)"
        )
        try:
            with _transaction(self._database):
                name = self._database.execute("SELECT name FROM file").fetchone()
                if name is None:  # a new index, and a file of its own: another may still be mapped somewhere
                    name = (f"rows-{uuid.uuid4().hex}.bin",)
                    self._database.execute("INSERT INTO file VALUES (?)", name)
                    for old in folder.glob("rows-*.bin"):
                        with contextlib.suppress(OSError):
                            old.unlink()
                number = os.open(folder / name[0], os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        except BaseException:
            self._database.close()
            raise
        self._file = os.fdopen(number, "r+b", buffering=0)

    def close(self):
        self._database.close()
        self._file.close()

    def __len__(self):
        return self._database.execute("SELECT COUNT(*) FROM places WHERE LENGTH(key) = 32").fetchone()[0]

    def find(self, keys):
        """Where the rows of these keys, 32 bytes each, are: int64 array, (n,), −1 where there is none, or a damaged one."""
        question = "SELECT key, place, checksum FROM places WHERE key IN ({})"
        known = {key: rest for key, *rest in _ask(self._database, question, filter(None, keys))}
        rows, broken = self._map(), []
        for key, (place, checksum) in list(known.items()):
            if place >= len(rows) or zlib.crc32(rows[place]) != checksum:
                broken.append((key, place))
                del known[key]
        if broken:  # not by a killed process: by a disk, or by somebody; their places stay taken
            with _transaction(self._database):
                self._database.executemany("UPDATE places SET key = randomblob(16) WHERE key = ? AND place = ?", broken)
        return np.array([known[key][0] if key in known else -1 for key in keys], dtype=np.int64)

    def read(self, places):
        """Rows at these places: (n, length). Many that lie one behind the other are a memory map, read as it is used.

        What is written into it stays in memory and does not reach the file.
        """
        rows, places = self._map(), np.asarray(places, dtype=np.int64)
        if len(places) * self._bytes >= _MAPPED and (np.diff(places) == 1).all():
            first = places[0] if len(places) else 0
            return rows[first : first + len(places)]
        return np.asarray(rows)[places]

    def add(self, keys, rows):
        """Keep rows, (n, length), under these keys; a key that is there keeps its row. All of them count, or none."""
        rows = np.ascontiguousarray(rows, self._dtype)
        with _transaction(self._database):
            there = {key for key, in _ask(self._database, "SELECT key FROM places WHERE key IN ({})", keys)}
            new = {key: row for key, row in zip(keys, rows) if key not in there}
            if not new:
                return
            place = self._database.execute("SELECT IFNULL(MAX(place) + 1, 0) FROM places").fetchone()[0]
            block, written = memoryview(np.stack(list(new.values()))).cast("B"), 0
            self._file.seek(place * self._bytes)
            while written < len(block):
                written += self._file.write(block[written:])
            os.fsync(self._file.fileno())  # the row before the index that names it, also where power fails
            self._database.executemany(
                "INSERT INTO places VALUES (?, ?, ?)",
                [(key, place + number, zlib.crc32(row)) for number, (key, row) in enumerate(new.items())],
            )

    def _map(self):
        whole = os.fstat(self._file.fileno()).st_size // self._bytes
        if not whole:
            return np.empty((0, self._length), self._dtype)
        return np.memmap(self._file, self._dtype, "c", shape=(whole, self._length))
