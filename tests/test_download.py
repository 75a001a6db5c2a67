"""Downloads against a local server that cuts, lies, stalls, forgets Range and changes its file."""

import hashlib
import multiprocessing
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mobilenet import download
from mobilenet.download import DownloadError, cache_folder, fetch, hash_mismatch
from mobilenet.errors import UsageError

BODY = bytes(range(256)) * 5000  # 1.28 MB
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Site:
    """What the server has and how it misbehaves; `requests` are the Range headers that came."""

    body: bytes = BODY
    etag: str | None = '"one"'
    ranges: bool = True
    chunked: bool = False
    cuts: list[int] = field(default_factory=list)  # bytes after which a request's body breaks off
    refusals: list[int] = field(default_factory=list)  # statuses that are answered first
    requests: list[str | None] = field(default_factory=list)
    delay: float = 0.0
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.requests.append(wanted)
        if site.refusals:
            return self.refuse(site.refusals.pop(0))
        start = 0
        if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(site.body):
                return self.refuse(416, f"bytes */{len(site.body)}")
        self.send_response(206 if start else 200)
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}"
            )
        if site.etag:
            self.send_header("ETag", site.etag)
        body = site.body[start:]
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(site.delay)
        cut = site.cuts.pop(0) if site.cuts else None
        sent = body if cut is None else body[:cut]
        if site.chunked:
            sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if cut is None else b"")
        self.wfile.write(sent)
        if cut is not None:
            self.close_connection = True
        return None

    def refuse(self, status: int, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def get(site: Site, target: Path, *, sha256: str | None = SHA256, md5: str | None = None) -> Path:
    return fetch(site.url, target, sha256=sha256, md5=md5, desc="weights", pause=0.01)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_fetches_once_and_leaves_nothing_else(site: Site, tmp_path: Path, chunked: bool) -> None:
    site.chunked = chunked
    target = tmp_path / "deep" / "weights.bin"
    assert get(site, target) == target
    assert get(site, target).read_bytes() == BODY
    assert site.requests == [None]
    assert leftovers(target.parent) == ["weights.bin"]


@pytest.mark.parametrize("chunked", [False, True])
def test_broken_connections_are_resumed(site: Site, tmp_path: Path, chunked: bool) -> None:
    site.chunked = chunked
    site.cuts = [400_000, 1, 500_000]
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert site.requests == [None, "bytes=400000-", "bytes=400001-", "bytes=900001-"]


def test_a_later_call_continues_an_earlier_one(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="broke after 300000 of 1280000"):
        get(site, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    site.requests.clear()
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert site.requests == ["bytes=300000-"]


def test_a_complete_part_needs_no_further_byte(site: Site, tmp_path: Path) -> None:
    site.cuts = [len(BODY) - 1, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(site, tmp_path / "w")
    with (tmp_path / "w.part").open("ab") as part:
        part.write(BODY[-1:])
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert site.requests[-1] == f"bytes={len(BODY)}-"


def test_a_changed_file_is_not_spliced(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(site, tmp_path / "w", sha256=None)
    site.body, site.etag = BODY[::-1], '"two"'
    assert get(site, tmp_path / "w", sha256=None).read_bytes() == BODY[::-1]


def test_a_file_that_became_shorter_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(site, tmp_path / "w", sha256=None)
    site.body = BODY[:1000]  # under the same ETag, so that the server answers 416
    assert get(site, tmp_path / "w", sha256=None).read_bytes() == BODY[:1000]


@pytest.mark.parametrize(("etag", "ranges"), [(None, True), ('W/"one"', True), ('"one"', False)])
def test_what_cannot_be_resumed_starts_anew(
    site: Site, tmp_path: Path, etag: str | None, ranges: bool
) -> None:
    site.etag, site.ranges, site.cuts = etag, ranges, [300_000, 500_000]
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert len(site.requests) == 3
    asked = ["bytes=300000-", "bytes=500000-"] if etag == '"one"' else []
    assert [wanted for wanted in site.requests if wanted] == asked


def test_a_server_that_always_cuts_is_given_up(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts = False, [500_000, 400_000] * 10
    with pytest.raises(DownloadError, match="broke after"):
        get(site, tmp_path / "w")


def test_a_damaged_earlier_piece_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        get(site, tmp_path / "w")
    (tmp_path / "w.part").write_bytes(bytes(300_000))
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert site.requests[-2:] == ["bytes=300000-", None]


def test_wrong_content_is_refused(site: Site, tmp_path: Path) -> None:
    site.body = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="not the right one: its sha256 is") as caught:
        get(site, tmp_path / "w")
    assert site.url in str(caught.value)
    assert f"put it at {tmp_path / 'w'}" in str(caught.value)
    assert leftovers(tmp_path) == []


def test_hashes_may_be_prefixes_and_md5(site: Site, tmp_path: Path) -> None:
    target = get(site, tmp_path / "w", sha256=SHA256[:8].upper(), md5=hashlib.md5(BODY).hexdigest())
    assert hash_mismatch(target, sha256=SHA256) is None
    assert hash_mismatch(target, sha256="0" + SHA256[1:8]) is not None
    assert hash_mismatch(target, sha256=SHA256, md5="00") is not None


def test_a_wrong_file_in_place_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"old")
    assert get(site, tmp_path / "w").read_bytes() == BODY


def test_404_is_final_and_503_is_not(site: Site, tmp_path: Path) -> None:
    site.refusals = [503, 429]
    assert get(site, tmp_path / "w").read_bytes() == BODY
    site.refusals, site.requests = [404], []
    with pytest.raises(DownloadError, match="404 Not Found"):
        get(site, tmp_path / "other")
    assert len(site.requests) == 1


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(DownloadError, match=r"no answer: .*refused"):
        fetch("http://127.0.0.1:9/w", tmp_path / "w", desc="w", pause=0.01)


def test_a_stalled_server_is_left(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.2)
    site.delay = 1.0
    with pytest.raises(DownloadError, match="timed out"):
        get(site, tmp_path / "w")


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="http"):
        fetch("file:///etc/hostname", tmp_path / "w", desc="w")


def test_an_unwritable_folder_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write .*MOBILENET_CACHE"):
        get(site, tmp_path / "file" / "w")


def _fetch_in_process(url: str, target: Path) -> None:
    fetch(url, target, sha256=SHA256, desc="w", pause=0.01)


def test_processes_share_one_download(site: Site, tmp_path: Path) -> None:
    site.delay = 1.0
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_fetch_in_process, args=(site.url, tmp_path / "w")) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert site.requests == [None]
    assert leftovers(tmp_path) == ["w"]


def test_the_lock_of_a_dead_process_does_not_block(site: Site, tmp_path: Path) -> None:
    (tmp_path / "w.lock").touch()
    assert get(site, tmp_path / "w").read_bytes() == BODY
    assert leftovers(tmp_path) == ["w"]


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOBILENET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("weights") == tmp_path / ".cache" / "mobilenet" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("data") == tmp_path / "xdg" / "mobilenet" / "data"
    monkeypatch.setenv("MOBILENET_CACHE", str(tmp_path / "own"))
    assert cache_folder("data") == tmp_path / "own" / "data"
