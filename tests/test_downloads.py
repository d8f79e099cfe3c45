"""downloads.py: against a server on 127.0.0.1 that behaves as badly as real ones, with processes that are killed."""

import gzip
import hashlib
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlhelpers import downloads

DATA = np.random.default_rng(0).bytes(300_000)
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- the server ---------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """How one request is answered."""

    data: bytes = DATA
    status: int = 200
    ranges: bool = True  # answers a Range with 206, or 416 where nothing lies behind it
    cut: int | None = None  # bytes after which the connection is closed
    length: int | str | None = "true"  # Content-Length: "true", another number, or none
    drip: int = 1 << 20  # bytes sent at a time
    gate: threading.Event | None = None  # what is to happen before the rest (behind `cut`) is sent
    headers: dict = field(default_factory=dict)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        with server.lock:
            server.requests.append((self.path, self.headers.get("Range")))
            plan = server.plans.get(self.path, [Served(b"not here", status=404)])
            served = plan.pop(0) if len(plan) > 1 else plan[0]
        data, status, headers = served.data, served.status, dict(served.headers)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and served.ranges and status == 200:
            start = int(asked[1])
            status = 206 if start < len(data) else 416
            last = f"{start}-{len(data) - 1}" if status == 206 else "*"
            headers.setdefault("Content-Range", f"bytes {last}/{len(data)}")
            data = data[start:]
        if "gzip" in self.headers.get("Accept-Encoding", ""):  # as many servers do when they may
            data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
        if served.length is not None:
            headers["Content-Length"] = len(data) if served.length == "true" else served.length
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        end = len(data) if served.cut is None else served.cut
        try:
            for start in range(0, min(end, len(data)), served.drip):
                self.wfile.write(data[start : min(start + served.drip, end)])
            self.wfile.flush()
            server.sent.set()
            if served.gate is not None:
                served.gate.wait(20)
                self.wfile.write(data[end:])
        except OSError:  # the client has gone away
            pass
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.plans, self.requests, self.sent = threading.Lock(), {}, [], threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def offer(self, *plan, path="/data.bin"):
        """Answer requests for a path by these, one after the other; the last one for ever."""
        self.plans[path] = list(plan)
        return self.address + path

    @property
    def ranges(self):
        return [asked for _, asked in self.requests]

    def handle_error(self, *_):
        pass


def started():
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture
def server():
    server = started()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "_PAUSES", (0, 0, 0))
    return tmp_path / "cache"


@pytest.fixture
def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def got(url, path, data=DATA, size=len(DATA)):
    """Download, see that it is what it should be and that nothing else is left."""
    assert downloads.download(url, path, sha256=sha256(data), size=size) == path
    assert path.read_bytes() == data and left_in(path.parent) == [path.name]
    return True


@pytest.fixture
def path(tmp_path):
    return tmp_path / "here" / "data.bin"


# --- the cache folder ---------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_variable_says_and_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / "a" / "b"))
    assert downloads.cache_dir() == tmp_path / "a" / "b" and (tmp_path / "a" / "b").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("TLHELPERS_CACHE", "~/mine")
    assert downloads.cache_dir() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TLHELPERS_CACHE", "mine")
    assert downloads.cache_dir() == tmp_path / "mine"  # the same after a change of folder


@pytest.mark.skipif(sys.platform != "linux", reason="each platform has its own folder")
def test_without_the_variable_the_cache_is_the_platforms(tmp_path, monkeypatch):
    monkeypatch.delenv("TLHELPERS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads.cache_dir() == tmp_path / "tlhelpers"


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_a_cache_that_cannot_be_made_is_a_sentence(below, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TLHELPERS_CACHE", str(tmp_path / below))
    message = f"{below}: cannot be made the cache folder .*set the environment variable TLHELPERS_CACHE"
    with pytest.raises(OSError, match=message):
        downloads.cache_dir()


# --- one file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("served", "size"),
    [
        (Served(), len(DATA)),
        (Served(), None),
        (Served(length=None), len(DATA)),
        (Served(length=None), None),
        (Served(drip=3_000), len(DATA)),
        # the file is a .gz itself: to unpack it on the way would change its SHA-256
        (Served(headers={"Content-Encoding": "gzip"}), len(DATA)),
    ],
)
def test_a_file_comes_whole_in_one_request_and_silently(server, path, served, size, capfd):
    assert got(server.offer(served), path, size=size)
    assert server.ranges == [None]
    assert capfd.readouterr() == ("", "")
    assert got(server.offer(served), path) and len(server.requests) == 1  # it is there: nobody is asked


def test_a_redirect_is_followed(server, path):
    server.offer(Served())
    assert got(server.offer(Served(b"", 302, headers={"Location": "/data.bin"}), path="/old"), path)


def test_a_file_that_is_there_and_is_another_is_not_touched(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match="data.bin: its SHA-256 is .*; delete this file, then call again"):
        downloads.download(server.offer(Served()), path, sha256=sha256(DATA))
    assert path.read_bytes() == b"mine" and not server.requests


@pytest.mark.parametrize("size", [len(DATA), None])
def test_after_a_broken_connection_it_goes_on_from_there(server, path, size):
    url = server.offer(Served(cut=100_000), Served(cut=50_000), Served(cut=1), Served())
    assert got(url, path, size=size)
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server, path):
    assert got(server.offer(Served(cut=100_000, ranges=False), Served(ranges=False)), path)
    assert server.ranges == [None, "bytes=100000-"]


def test_an_answer_with_another_range_than_asked_for_is_not_believed(server, path):
    odd = Served(headers={"Content-Range": f"bytes 7-{len(DATA) - 1}/{len(DATA)}"})
    assert got(server.offer(Served(cut=100_000), odd, Served()), path)
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_break_that_no_length_betrays_is_noticed(server, path):
    assert got(server.offer(Served(cut=100_000, length=None), Served(length=None)), path)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_connection_that_breaks_for_ever_ends_with_a_sentence_and_keeps_what_came(server, path):
    url = server.offer(Served(cut=100_000), *[Served(cut=0)] * 3, Served())
    with pytest.raises(ConnectionError, match="broke off.*0.1 MB are kept, and the next call goes on from") as caught:
        downloads.download(url, path, sha256=sha256(DATA), size=len(DATA))
    for said in (url, '"solar_cells", "faces", "textiles"', "tl.load_dataset(FOLDER)", f"the file by hand at {path}"):
        assert said in str(caught.value)
    assert left_in(path.parent) == ["data.bin.part"]
    assert got(url, path) and server.ranges[-1] == "bytes=100000-"


def test_a_connection_that_breaks_often_but_brings_much_is_not_given_up(server, path):
    data = DATA * 30
    assert got(server.offer(*[Served(data, cut=1_000_000)] * 8, Served(data)), path, data, len(data))
    assert len(server.requests) == 9


def test_a_length_that_is_more_than_what_comes_is_no_trouble_if_the_sum_is_right(server, path):
    with pytest.raises(ValueError, match=r"the file there has 301,000 bytes, expected 300,000"):
        downloads.download(server.offer(Served(length=301_000)), path, sha256=sha256(DATA), size=len(DATA))
    assert got(server.offer(Served(length=301_000)), path, size=None)


def test_an_internal_error_of_the_server_is_tried_again(server, path):
    assert got(server.offer(Served(b"sorry", 503), Served(b"sorry", 500), Served()), path)
    with pytest.raises(ConnectionError, match="the server answered 500"):
        downloads.download(server.offer(Served(b"", 500)), path.with_name("x"), sha256=sha256(DATA))


def test_a_file_that_is_not_there_is_asked_for_once(server, path):
    message = r"/none: the server answered 404 Not Found\. .*solar_cells.* by hand at .*data\.bin$"
    with pytest.raises(ConnectionError, match=message):
        downloads.download(server.address + "/none", path, sha256=sha256(DATA))
    assert server.requests == [("/none", None)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x", "nonsense", "http://", "file:///etc/hosts"])
def test_no_server_is_a_sentence_with_what_to_do_instead(url, closed_port, path):
    message = 'cannot be downloaded .*Without a network.*"solar_cells".* by hand at .*data.bin'
    with pytest.raises(ConnectionError, match=message):
        downloads.download(url.format(port=closed_port), path, sha256=sha256(DATA), size=9)


@pytest.mark.parametrize("cut", [0, 100_000])
def test_a_server_that_falls_silent_does_not_hold_it_up(server, path, cut, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT", (1, 0.1))
    gate = threading.Event()
    url = server.offer(Served(cut=cut, gate=gate), Served())
    assert got(url, path)
    with pytest.raises(ConnectionError, match="the server does not answer in time"):
        downloads.download(server.offer(Served(cut=0, gate=gate)), path.with_name("x"), sha256=sha256(DATA))
    gate.set()


def test_a_server_that_accepts_and_never_answers_does_not_hold_it_up(path, monkeypatch):
    monkeypatch.setattr(downloads, "_TIMEOUT", (1, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as one:
        with pytest.raises(ConnectionError, match="the server does not answer in time"):
            downloads.download(f"http://127.0.0.1:{one.getsockname()[1]}/", path, sha256=sha256(DATA))


# --- what came is not what it should be ---------------------------------------------------------------------------


def test_a_wrong_sum_leaves_nothing_behind(server, path):
    url = server.offer(Served(DATA[::-1]))
    with pytest.raises(ValueError, match=f"what came has the SHA-256 {sha256(DATA[::-1])}, expected {sha256(DATA)}"):
        downloads.download(url, path, sha256=sha256(DATA), size=len(DATA))
    assert left_in(path.parent) == [] and len(server.requests) == 1


def test_a_file_that_changed_between_two_pieces_is_fetched_anew(server, path):
    assert got(server.offer(Served(DATA[::-1], cut=100_000), Served()), path)
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_wrong_sum_in_pieces_gets_one_second_chance(server, path):
    wrong = DATA[::-1]
    url = server.offer(Served(wrong, cut=100_000), Served(wrong), Served(wrong, cut=7), Served(wrong))
    with pytest.raises(ValueError, match="what came has the SHA-256"):
        downloads.download(url, path, sha256=sha256(DATA), size=len(DATA))
    assert server.ranges == [None, "bytes=100000-", None, "bytes=7-"] and left_in(path.parent) == []


@pytest.mark.parametrize("size", [len(DATA), None])
@pytest.mark.parametrize("part", [b"junk", DATA[:-1], DATA, b"j" * len(DATA), DATA + b"more"], ids=len)
def test_whatever_lies_in_the_part_the_file_comes_right(server, path, part, size):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(part)
    assert got(server.offer(Served()), path, size=size)
    if part in (DATA, DATA[:-1]):
        assert len(server.requests) == (0 if part == DATA and size else 1)
    if size and len(part) > size:
        assert server.ranges == [None]


def test_a_login_page_in_place_of_the_file_is_recognised_and_costs_no_part(server, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").write_bytes(DATA[:1000])
    url = server.offer(Served(b"<html></html>", ranges=False))
    with pytest.raises(ValueError, match="has 13 bytes, expected 300,000: .*a login page of your network"):
        downloads.download(url, path, sha256=sha256(DATA), size=len(DATA))
    assert path.with_name("data.bin.part").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("size", [1000, None])
def test_no_more_is_written_than_the_file_may_have(server, path, size, monkeypatch):
    monkeypatch.setattr(downloads, "_LIMIT", 1000)
    url, expected = server.offer(Served(DATA * 30, length=None)), sha256(DATA[:1000])
    downloads.download(url, path, sha256=expected, size=size)  # of an endless answer, the first 1,000 bytes
    assert path.read_bytes() == DATA[:1000]


def test_a_disk_that_is_too_small_is_noticed_before_anything_comes(server, path):
    with pytest.raises(OSError, match=r"the disk is full; 10,000,000,000,000\.0 MB are needed.*TLHELPERS_CACHE"):
        downloads.download(server.offer(Served()), path, sha256=sha256(DATA), size=10**19)
    assert not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_on_the_way_is_a_sentence(server, path):
    path.parent.mkdir()
    path.with_name("data.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="data.bin: the disk is full; 0.3 MB are needed"):
        downloads.download(server.offer(Served()), path, sha256=sha256(DATA), size=len(DATA))


# --- other processes ----------------------------------------------------------------------------------------------


def process(code, cache, *arguments, **options):
    environment = os.environ | {"TLHELPERS_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, **options)


DOWNLOAD = """
import sys
from tlhelpers import downloads
url, path, sha256, size = sys.argv[1:]
print(downloads.download(url, path, sha256=sha256, size=int(size)))
"""


@POSIX
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_process_stopped_in_the_middle_leaves_a_part_that_is_continued(server, path, cache, sign):
    gate = threading.Event()
    url = server.offer(Served(cut=200_000, gate=gate), Served())
    child = process(DOWNLOAD, cache, url, str(path), sha256(DATA), str(len(DATA)))
    part = path.with_name("data.bin.part")
    server.sent.wait(20)
    while child.poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    child.send_signal(sign)
    child.communicate(timeout=20)
    gate.set()
    kept = part.stat().st_size
    assert child.returncode != 0 and 0 < kept <= 200_000 and not path.exists()
    assert got(url, path)
    assert server.ranges == [None, f"bytes={kept}-"]


@POSIX
def test_on_a_terminal_there_is_a_bar(server, path, cache):
    import pty

    ours, theirs = pty.openpty()
    url = server.offer(Served(drip=50_000))
    child = process(DOWNLOAD, cache, url, str(path), sha256(DATA), str(len(DATA)), stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # the other end is closed
        pass
    assert child.communicate(timeout=20)[0].strip() == str(path)
    assert b"downloading data.bin" in seen and b"300.0/300.0 kB" in seen
    os.close(ours)


# --- archives -----------------------------------------------------------------------------------------------------

FILES = {f"photos/{kind}/{number:02d}.jpg": bytes([number]) * 700 for kind in ("cats", "dogs") for number in range(6)}
FILES["photos/LICENSE.txt"] = b"CC BY"


def archive_of(files=FILES, members=(), **options):
    """A .tar.gz of name → content, and of further `TarInfo`s."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", **options) as tar:
        for name, content in files.items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
        for one in members:
            tar.addfile(one, io.BytesIO(bytes(one.size)))
    return out.getvalue()


def entry(name, kind, **attributes):
    one = tarfile.TarInfo(name)
    one.type = kind
    for key, value in attributes.items():
        setattr(one, key, value)
    return one


ARCHIVE = archive_of()


def fetch(server, data=ARCHIVE, plan=None, **limits):
    url = server.offer(*(plan or [Served(data)]), path="/photos.tgz")
    return downloads.fetch_archive(
        "photos", url, sha256=sha256(data), size=len(data), **{"max_bytes": 100_000, "max_files": 50} | limits
    )


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_is_unpacked_once_and_then_nobody_is_asked(server, cache):
    folder = fetch(server)
    assert content(folder) == FILES and cache in folder.parents
    assert left_in(folder.parent) == [folder.name]  # no archive, nothing in part
    server.shutdown()
    assert fetch(server) == folder and len(server.requests) == 1


def test_another_version_of_an_archive_is_another_folder(server):
    other = archive_of({"photos/one.jpg": b"1"})
    assert content(fetch(server)) == FILES and content(fetch(server, other)) == {"photos/one.jpg": b"1"}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_every_kind_of_tar_are_unpacked(server, form):
    files = {f"./photos/{'long' * 20}/{'name' * 22}.jpg": b"photo"}
    data = archive_of(files, [entry("./", tarfile.DIRTYPE), entry("./empty", tarfile.DIRTYPE, mode=0)], format=form)
    folder = fetch(server, data)
    assert content(folder) == {name[2:]: one for name, one in files.items()}
    assert list((folder / "empty").iterdir()) == []


def test_an_archive_put_by_hand_needs_no_network(server, cache, closed_port):
    arguments = {"sha256": sha256(ARCHIVE), "size": len(ARCHIVE), "max_bytes": 100_000}
    with pytest.raises(ConnectionError) as caught:
        downloads.fetch_archive("photos", f"http://127.0.0.1:{closed_port}/", **arguments)
    Path(re.search(r"by hand at (.*)$", str(caught.value))[1]).write_bytes(ARCHIVE)
    assert content(downloads.fetch_archive("photos", f"http://127.0.0.1:{closed_port}/", **arguments)) == FILES


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (entry("../out.jpg", tarfile.REGTYPE, size=3), "leads out of the folder"),
        (entry("photos/../../out.jpg", tarfile.REGTYPE, size=3), "leads out of the folder"),
        (entry("..", tarfile.DIRTYPE), "leads out of the folder"),
        (entry(".", tarfile.REGTYPE), "leads out of the folder"),
        (entry("/tmp/out.jpg", tarfile.REGTYPE, size=3), "not a plain path"),
        (entry("C:/out.jpg", tarfile.REGTYPE, size=3), "not a plain path"),
        (entry("C:out.jpg", tarfile.REGTYPE, size=3), "not a plain path"),
        (entry("..\\out.jpg", tarfile.REGTYPE, size=3), "not a plain path"),
        (entry("\\\\host\\share\\out.jpg", tarfile.REGTYPE, size=3), "not a plain path"),
        (entry("photos/link", tarfile.SYMTYPE, linkname="../../.."), "a link"),
        (entry("photos/link", tarfile.SYMTYPE, linkname="cats"), "a link"),
        (entry("photos/link", tarfile.LNKTYPE, linkname="photos/LICENSE.txt"), "a link"),
        (entry("photos/pipe", tarfile.FIFOTYPE), "neither a plain file nor a folder"),
        (entry("photos/null", tarfile.CHRTYPE, devmajor=1, devminor=3), "neither a plain file nor a folder"),
        (entry("photos/disk", tarfile.BLKTYPE, devmajor=8), "neither a plain file nor a folder"),
        (entry("photos/LICENSE.txt", tarfile.REGTYPE, size=3), "is there twice"),
        (entry("photos/LICENSE.txt/deeper", tarfile.REGTYPE, size=3), "is there twice"),
        (entry("photos/LICENSE.txt", tarfile.DIRTYPE), "is there twice"),
    ],
)
def test_what_an_archive_of_photos_should_not_hold_is_refused_by_name(server, cache, member, message):
    with pytest.raises(ValueError, match=message) as caught:
        fetch(server, archive_of(members=[member]))
    assert repr(member.name) in str(caught.value)
    assert left_in(cache / "datasets") == [] and not (cache.parent / "out.jpg").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (archive_of({f"{number}.jpg": b"" for number in range(51)}), "'50.jpg': more than 50 files and folders"),
        (archive_of({"bomb.jpg": bytes(200_000)}), "takes more than .* bytes unpacked"),
        (archive_of({f"{number}.jpg": bytes(4_000) for number in range(40)}), "takes more than .* bytes unpacked"),
        (gzip.compress(bytes(30_000_000)), "there is nothing in it"),  # nothing but the end of an archive, for ever
        (archive_of(members=[entry("x" * 200_000, tarfile.REGTYPE)]), "takes more than"),  # a name as a bomb
        (ARCHIVE[:200], "not a .tar.gz that can be unpacked"),
        (b"PK\x03\x04 a zip", "not a .tar.gz that can be unpacked"),
        (gzip.compress(b"no tar" * 200), "not a .tar.gz that can be unpacked"),
    ],
    ids=["count", "one large", "many", "zeros", "name", "truncated", "zip", "no tar"],
)
def test_bombs_and_archives_that_are_none_leave_nothing_behind(server, cache, data, message):
    with pytest.raises(ValueError, match=message):
        fetch(server, data)
    assert left_in(cache / "datasets") == []


FETCH = """
import sys
from tlhelpers import downloads
url, sha256, size = sys.argv[1:]
folder = downloads.fetch_archive("photos", url, sha256=sha256, size=int(size), max_bytes=100_000)
print(folder, len([path for path in folder.rglob("*") if path.is_file()]))
"""


def test_two_processes_at_once_are_both_right_and_one_of_them_downloads(server, cache):
    gate = threading.Event()
    url = server.offer(Served(ARCHIVE, cut=100, gate=gate), path="/photos.tgz")
    arguments = (url, sha256(ARCHIVE), str(len(ARCHIVE)))
    first = process(FETCH, cache, *arguments)
    assert server.sent.wait(20)
    second = process(FETCH, cache, *arguments)
    assert "another process is downloading it" in second.stderr.readline()
    gate.set()
    outputs = [child.communicate(timeout=20)[0] for child in (first, second)]
    assert outputs[0] == outputs[1] and outputs[0].endswith(f" {len(FILES)}\n")
    assert len(server.requests) == 1


KILLED_EVERYWHERE = """
import os, shutil, signal, sys
import requests, rich.progress, filelock, platformdirs  # imported once, not in each child
from tlhelpers import downloads

url, sha256, size = sys.argv[1:]
cache = os.environ["TLHELPERS_CACHE"]

def fetch():
    return downloads.fetch_archive("photos", url, sha256=sha256, size=int(size), max_bytes=100_000)

def kill_at(moment):
    '''Die at the n-th time that something in the cache is opened, made, renamed or deleted.'''
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if arguments and str(arguments[0]).startswith(cache) and not str(arguments[0]).endswith(".lock"):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

moment, killed, states = 0, True, set()
while killed:
    moment += 1
    shutil.rmtree(cache, ignore_errors=True)
    child = os.fork()
    if child == 0:
        kill_at(moment)
        fetch()
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    state = os.listdir(os.path.join(cache, "datasets")) if os.path.isdir(os.path.join(cache, "datasets")) else []
    states.add(" ".join(sorted(name.partition(".")[2] for name in state if not name.endswith(".lock"))))
    folder = fetch()
    files = {str(path.relative_to(folder)): len(path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    left = sorted(name for name in os.listdir(folder.parent) if not name.endswith(".lock"))
    if left != [folder.name] or len(files) != 13 or sum(files.values()) != 12 * 700 + 5:
        sys.exit(f"killed at moment {moment}: {left} {files}")
print(moment)
print(sorted(states))
"""


@POSIX
def test_killed_at_any_moment_the_next_call_is_right_and_clears_up(server, cache):
    url = server.offer(Served(ARCHIVE), path="/photos.tgz")
    child = process(KILLED_EVERYWHERE, cache, url, sha256(ARCHIVE), str(len(ARCHIVE)))
    out, err = child.communicate(timeout=50)
    assert child.returncode == 0, err
    moments, states = out.splitlines()
    assert int(moments) > 2 * len(FILES)
    # seen: the download in part, the archive alone, half unpacked, and unpacked with the archive not yet deleted
    for state in ("tar.gz.part", "tar.gz", "partial tar.gz", " tar.gz"):
        assert repr(state) in states


def test_flowers_are_fetched_as_they_are_served(server, monkeypatch):
    """The address, the sum and the limits are a table that is handed over as it is."""
    files = {f"flower_photos/{name}": b"x" for name in ("roses/1.jpg", "tulips/1.jpg", "LICENSE.txt")}
    data = archive_of(files)
    assert downloads.FLOWERS["url"].startswith("https://") and len(downloads.FLOWERS["sha256"]) == 64
    url = server.offer(Served(data), path="/flower_photos.tgz")
    for key, value in {"url": url, "sha256": sha256(data), "size": len(data)}.items():
        monkeypatch.setitem(downloads.FLOWERS, key, value)
    folder = downloads.fetch_archive("flowers", **downloads.FLOWERS)
    assert content(folder) == files


def test_the_sum_of_the_flowers_is_the_one_that_tensorflow_datasets_checks():
    tfds = pytest.importorskip("tensorflow_datasets")
    table = Path(tfds.__file__).parent / "datasets" / "tf_flowers" / "checksums.tsv"
    address, size, expected, _ = table.read_text().split()
    assert (downloads.FLOWERS["size"], downloads.FLOWERS["sha256"]) == (int(size), expected)
    assert downloads.FLOWERS["url"].endswith(address.removeprefix("http://"))


# --- TensorFlow Datasets ------------------------------------------------------------------------------------------

BUILDERS = '''
import numpy as np
import tensorflow_datasets as tfds


class Loopback(tfds.core.GeneratorBasedBuilder):
    """Photos from a server on this machine."""

    VERSION = tfds.core.Version("1.2.3")
    FEATURES = {
        "picture": tfds.features.Image(), "kind": tfds.features.ClassLabel(names=["a/b", "..", "größe 2"]),
        "note": tfds.features.Text(),
    }
    KEYS = None
    FILE = "photos.tgz"

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(self.FEATURES), supervised_keys=self.KEYS,
            description=self.__doc__, homepage="https://example.org/loopback", citation="@misc{loopback}",
            license="CC0",
        )

    def _split_generators(self, dl_manager):
        folder = dl_manager.download_and_extract("ADDRESS/" + self.FILE)
        return {split: self._generate_examples(folder / split) for split in ("train", "test")}

    def _generate_examples(self, folder):
        for path in sorted(folder.iterdir()):
            label = int(path.stem.split("_")[1])
            example = {"picture": path, "kind": label, "note": "n", "image": path, "mask": path, "label": label}
            yield path.name, {key: example[key] for key in self.FEATURES}


class LoopbackKeys(Loopback):
    """Two photos a row: the supervised keys say which."""

    FEATURES = {
        "image": tfds.features.Image(), "mask": tfds.features.Image(),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    KEYS = ("image", "label")
    FILE = "unregistered.tgz"


class LoopbackTwo(LoopbackKeys):
    """Two photos a row, and nothing says which."""

    KEYS = None


class LoopbackText(Loopback):
    """No photos."""

    FEATURES = {"note": tfds.features.Text(), "kind": Loopback.FEATURES["kind"]}


class LoopbackFloat(Loopback):
    """Numbers that only look like photos."""

    FEATURES = {"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.float32), "kind": Loopback.FEATURES["kind"]}


class LoopbackManual(Loopback):
    """Photos that everybody has to ask for."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "ask the authors"

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.manual_dir)}


class LoopbackGone(Loopback):
    """A server that is not there."""

    FILE = "gone.tgz"


class LoopbackGoneUnregistered(Loopback):
    """The same, and no sum is known."""

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download_and_extract("http://127.0.0.1:CLOSED/x.tgz"))}
'''


def photo(number, kind):
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 7 + number, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


# name → content; the label stands behind "_", and -1 is a label that is kept secret
PHOTOS = {f"train/{number}_{number % 3}.jpg": photo(number, "JPEG") for number in range(7)}
PHOTOS |= {"test/0_2.png": photo(20, "PNG"), "test/1_-1.jpg": photo(21, "JPEG"), "test/2_0.png": photo(22, "PNG")}


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    """A server, and builders of TensorFlow Datasets that download from it."""
    pytest.importorskip("tensorflow_datasets")
    server, data = started(), archive_of(PHOTOS)
    server.photos = data
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        closed = one.getsockname()[1]
    path = tmp_path_factory.mktemp("builders")
    folder = path / "loopback_builders"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    code = BUILDERS.replace("ADDRESS", server.address).replace("CLOSED", str(closed))
    (folder / "sets.py").write_text(code, encoding="utf-8")
    files = ("photos.tgz", "gone.tgz")
    registered = [f"{server.address}/{name}\t{len(data)}\t{sha256(data)}\t{name}" for name in files]
    (folder / "checksums.tsv").write_text("\n".join(registered) + "\n")
    sys.path.insert(0, str(path))
    importlib.import_module("loopback_builders.sets")  # which makes the builders known by their names
    yield server
    sys.path.remove(str(path))
    server.shutdown()
    server.server_close()


@pytest.fixture
def offered(loopback):
    loopback.requests.clear()
    loopback.plans.clear()
    loopback.offer(Served(loopback.photos), path="/photos.tgz")
    loopback.offer(Served(loopback.photos), path="/unregistered.tgz")
    return loopback


def test_a_set_of_tensorflow_datasets_becomes_files_with_the_bytes_it_holds(offered, cache, capfd):
    offered.offer(Served(offered.photos, cut=500), Served(offered.photos), path="/photos.tgz")
    folder = downloads.fetch_tfds("loopback")
    assert offered.ranges == [None, "bytes=500-"]  # resumed, which TensorFlow Datasets does not do by itself
    out, err = capfd.readouterr()
    assert out == "" and "Downloading" not in err
    files, labels, class_names, splits, info = downloads.read_tfds(folder)
    assert class_names == ("a/b", "..", "größe 2")
    assert labels.dtype == np.int64 and len(files) == len(labels) == len(splits) == 9
    found = sorted((split, path.read_bytes(), label) for split, path, label in zip(splits, files, labels))
    labelled = {Path(name): data for name, data in PHOTOS.items() if "-1" not in name}
    assert found == sorted((path.parent.name, data, int(path.stem[-1])) for path, data in labelled.items())
    assert all(path.suffix == (".jpg" if path.read_bytes()[:2] == b"\xff\xd8" else ".png") for path in files)
    assert info["splits"] == {"test": {"photos": 2, "left_out": 1}, "train": {"photos": 7, "left_out": 0}}
    assert {key: info[key] for key in ("name", "version", "licence", "citation", "homepage", "description")} == {
        "name": "loopback", "version": "1.2.3", "licence": "CC0", "citation": "@misc{loopback}",
        "homepage": "https://example.org/loopback", "description": "Photos from a server on this machine.",
    }
    assert left_in(cache / "tfds") == ["loopback"]  # neither archive nor TFRecords


def test_the_rows_stand_in_the_order_of_tensorflow_datasets(offered, tmp_path):
    import tensorflow_datasets as tfds

    files, labels, _, splits, _ = downloads.read_tfds(downloads.fetch_tfds("loopback"))
    builder = tfds.builder("loopback", data_dir=tmp_path / "data")
    builder.download_and_prepare()
    expected = [row for split in ("test", "train") for row in builder.as_dataset(split=split).as_numpy_iterator()]
    expected = [row for row in expected if row["kind"] >= 0]
    assert labels.tolist() == [row["kind"] for row in expected]
    for path, row in zip(files, expected):
        difference = np.asarray(Image.open(path)).astype(int) - row["picture"]
        assert np.abs(difference).max() < 9  # two JPEG decoders; from one of these photos to another it is 200


def test_the_second_call_asks_nobody_and_imports_nothing(offered, cache):
    folder = downloads.fetch_tfds("loopback")
    assert len(offered.requests) == 1
    code = "import sys; from tlhelpers import downloads; print(downloads.fetch_tfds('loopback')); "
    code += "print({'tensorflow_datasets', 'tensorflow', 'requests'} & set(sys.modules))"
    out, err = process(code, cache).communicate(timeout=20)
    assert out.splitlines() == [str(folder), "set()"], err
    assert len(offered.requests) == 1


def test_supervised_keys_say_which_photo_and_a_file_without_a_known_sum_is_taken(offered):
    _, labels, class_names, _, _ = downloads.read_tfds(downloads.fetch_tfds("loopback_keys"))
    assert len(labels) == 9 and class_names == ("0", "1", "2")


def test_a_version_can_be_asked_for(offered, cache):
    assert len(downloads.read_tfds(downloads.fetch_tfds("loopback:1.2.3"))[0]) == 9
    assert left_in(cache / "tfds") == ["loopback%3A1.2.3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loopback_text", r"'loopback_text' is not a data set .*\(note, kind\), 0 are photos and 1 are classes"),
        ("loopback_two", r"\(image, mask, label\), 2 are photos and 1 are classes"),
        ("loopback_float", r"0 are photos and 1 are classes"),
        ("no_such_set", r"knows no data set 'no_such_set'; tensorflow_datasets.list_builders\(\)"),
        ("loopback:9.9.9", "cannot load 'loopback:9.9.9': .*9.9.9"),
        ("loopback/no_config", "cannot load 'loopback/no_config': .*no_config"),
        ("huggingface:mnist", "no name of a data set"),
        ("../../loopback", "no name of a data set"),
        ("loopback_manual", "cannot prepare 'loopback_manual': .*ask the authors"),
    ],
)
def test_what_is_no_set_of_photos_with_one_label_each_is_refused(offered, cache, name, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        downloads.fetch_tfds(name)
    assert not offered.requests
    assert not (cache / "tfds" / name).exists()


def test_without_a_network_it_ends_soon_and_says_what_to_do(offered, cache):
    with pytest.raises(ConnectionError, match='gone.tgz: the server answered 404.*"solar_cells"'):
        downloads.fetch_tfds("loopback_gone")
    with pytest.raises(ConnectionError, match='x.tgz: cannot be downloaded .*no connection.*"solar_cells"'):
        downloads.fetch_tfds("loopback_gone_unregistered")


def test_a_break_in_the_middle_is_continued_by_the_next_call(offered, cache):
    offered.offer(*[Served(offered.photos, cut=500), *[Served(offered.photos, cut=0)] * 3], path="/photos.tgz")
    with pytest.raises(ConnectionError, match="the connection broke off"):
        downloads.fetch_tfds("loopback")
    assert not (cache / "tfds" / "loopback").exists()
    offered.requests.clear()
    offered.offer(Served(offered.photos), path="/photos.tgz")
    assert len(downloads.read_tfds(downloads.fetch_tfds("loopback"))[0]) == 9
    assert offered.ranges == ["bytes=500-"] and left_in(cache / "tfds") == ["loopback"]


def test_a_full_export_is_put_in_place_of_one_that_was_killed(offered, cache):
    half = cache / "tfds" / "loopback.partial" / "train"
    half.mkdir(parents=True)
    (half / "half.jpg").write_bytes(b"")
    folder = downloads.fetch_tfds("loopback")
    assert len(list(folder.rglob("*.*g"))) == 9 and left_in(cache / "tfds") == ["loopback"]
    assert json.loads((folder / "tfds.json").read_text(encoding="utf-8"))["name"] == "loopback"


def test_the_package_that_is_not_there_is_named_with_the_line_that_installs_it(cache):
    code = "import sys; sys.modules['tensorflow_datasets'] = None; from tlhelpers import downloads; "
    code += "downloads.fetch_tfds('mnist')"
    _, err = process(code, cache).communicate(timeout=20)
    assert "ModuleNotFoundError" in err and "python -m pip install tensorflow-datasets" in err
