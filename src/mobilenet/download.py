"""Fetching a file once, whole and checked: resumed, verified, then renamed into place.

Standard library only. A body goes to `<target>.part` and is renamed when its hash holds, so that a
target that exists is complete. `<target>.part.json` keeps the server's validator: a part is only
continued (HTTP Range with If-Range, RFC 9110 13.1.5 and 14.2) while the server still has that file.
"""

import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from .errors import MobilenetError, UsageError
from .progress import say, track

MEBIBYTE = 1 << 20
_READ = 1 << 16
_TIMEOUT = 30.0  # seconds to connect, and between two pieces of a body
_TRIES = 4  # in a row without a byte gained
_RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(MobilenetError):
    """A file that could not be fetched, or is not the file it should be."""


class _Retry(Exception):
    """This try failed in a way that another may not; `wait` is what the server asked for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def cache_folder(kind: str) -> Path:
    """Where fetched files of one `kind` ("weights", "data") are kept; it may not exist yet.

    $MOBILENET_CACHE, else $XDG_CACHE_HOME/mobilenet, else ~/.cache/mobilenet.
    """
    own = os.environ.get("MOBILENET_CACHE")
    root = Path(own).expanduser() if own else user_cache() / "mobilenet"
    return root / kind


def user_cache() -> Path:
    """The user's cache folder, where other tools keep theirs too."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def hash_mismatch(path: Path, *, sha256: str | None = None, md5: str | None = None) -> str | None:
    """What is wrong with a file's hash, or None where every hash given holds.

    `sha256` may be its first digits only, as torchvision and timm put them into file names.
    """
    for name, expected in (("sha256", sha256), ("md5", md5)):
        if expected:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, name).hexdigest()
            if not found.startswith(expected.lower()):
                return f"its {name} is {found}, expected {expected}"
    return None


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    desc: str,
    pause: float = 1.0,
) -> Path:
    """Download `url` to `target` unless it is there already, and return `target`.

    Resumes a broken download, tries again with growing pauses (from `pause` seconds), checks the
    hashes that are given (`sha256` may be its first digits), and holds a lock so that processes
    that want the same file fetch it once. Raises DownloadError (URL, reason, mend).
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: expected a URL that starts with http:// or https://")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            if target.exists():
                wrong = hash_mismatch(target, sha256=sha256, md5=md5)
                if wrong is None:
                    return target
                say(f"{target}: {wrong}; it is fetched again")
            part = target.with_name(target.name + ".part")
            resumed = _download(url, part, desc=desc, pause=pause)
            wrong = hash_mismatch(part, sha256=sha256, md5=md5)
            if wrong and resumed:  # the earlier piece may be the damaged one
                _discard(part)
                _download(url, part, desc=desc, pause=pause)
                wrong = hash_mismatch(part, sha256=sha256, md5=md5)
            if wrong:
                _discard(part)
                raise _failure(url, target, f"the file that came is not the right one: {wrong}")
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(target)
            _validator_file(part).unlink(missing_ok=True)
            return target
    except OSError as error:
        raise DownloadError(
            f"{url}: cannot write {target}: {error.strerror or error}; make room there, or choose "
            "another folder with the environment variable MOBILENET_CACHE"
        ) from error


def _failure(url: str, target: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"{url}: {reason}; try again later, or fetch the file by other means and put it at {target}"
    )


def _download(url: str, part: Path, *, desc: str, pause: float) -> bool:
    """Complete `part`; returns whether a piece that was there before was built upon."""
    furthest = failures = 0
    while True:
        have = _size(part)
        furthest = max(furthest, have)
        try:
            _try_once(url, part, desc=desc)
            return have > 0
        except _Retry as error:
            failures = 1 if _size(part) > furthest else failures + 1
            if failures >= _TRIES:
                raise _failure(url, _target_of(part), f"{error} ({failures} tries)") from None
            wait = max(error.wait, pause * 2 ** (failures - 1))
            say(f"{url}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _target_of(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(".part"))


def _try_once(url: str, part: Path, *, desc: str) -> None:
    """One request; raises _Retry where another may do better, DownloadError where it cannot."""
    have = _size(part)
    validator = _read_validator(part, url) if have else None
    headers = {"User-Agent": "mobilenet", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        )
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, part, have)
        return
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise _Retry(f"no answer: {getattr(error, 'reason', None) or error}") from None
    with response:
        _receive(response, url, part, have, desc)


def _refused(error: urllib.error.HTTPError, part: Path, have: int) -> None:
    """Judge an HTTP error: return where `part` is already whole, else raise."""
    if error.code == 416 and have:  # nothing behind what we have: whole, or another file by now
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return
        _discard(part)
        raise _Retry("the file on the server is shorter than the piece that was here")
    reason = f"the server answered {error.code} {error.reason}"
    if error.code in _RETRY_STATUS:
        asked = error.headers.get("Retry-After", "")
        raise _Retry(reason, wait=min(float(asked), 60.0) if asked.isdigit() else 0.0)
    raise _failure(error.url or "", _target_of(part), reason)


def _receive(response: HTTPResponse, url: str, part: Path, have: int, desc: str) -> None:
    """Append the body to `part`, or start it anew where the server sends the whole file."""
    if response.status == 206:
        first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if first != str(have):
            _discard(part)
            raise _Retry("the server sent another piece than the one asked for")
    else:
        have = 0
        _write_validator(part, url, response)
    length = response.headers.get("Content-Length")
    body = int(length) if length else None
    if not sys.stderr.isatty():
        size = f" ({(have + body) / 1e6:.1f} MB)" if body is not None else ""
        say(f"fetching {url}{size}" + (f", from {have / 1e6:.1f} MB on" if have else ""))
    with part.open("ab" if have else "wb") as file:
        pieces = _copy(response, file)
        for _ in track(pieces, total=body and -(-body // MEBIBYTE), desc=desc, unit="MiB"):
            pass
        received = file.tell() - have
    if body is not None and received < body:
        raise _Retry(f"the connection broke after {have + received} of {have + body} bytes")


def _copy(response: HTTPResponse, file: BinaryIO) -> Iterator[None]:
    """Write the body as it comes; yields once a mebibyte, for a bar to count."""
    counted = 0
    while True:
        try:
            piece = response.read1(_READ)
        except (HTTPException, OSError) as error:
            raise _Retry(f"the connection broke: {error or type(error).__name__}") from None
        if not piece:
            return
        file.write(piece)
        counted += len(piece)
        if counted >= MEBIBYTE:
            counted -= MEBIBYTE
            yield


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_file(part).unlink(missing_ok=True)


def _write_validator(part: Path, url: str, response: HTTPResponse) -> None:
    """Keep what proves later that the server still has the same file. Weak ETags prove nothing."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else response.headers.get("Last-Modified")
    _validator_file(part).unlink(missing_ok=True)
    if strong:
        _validator_file(part).write_text(json.dumps({"url": url, "validator": strong}))


def _read_validator(part: Path, url: str) -> str | None:
    try:
        kept = json.loads(_validator_file(part).read_text())
        return kept["validator"] if kept["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file that exists only meanwhile; it dies with its process."""
    told = False
    while True:
        file = path.open("a+b")
        if _try_lock(file) and _still_there(file, path):
            break
        file.close()
        if not told:
            say(f"{path}: another process is fetching this file; waiting for it")
            told = True
        time.sleep(0.1)
    try:
        yield
    finally:
        if sys.platform != "win32":  # there an open file cannot be removed: it stays
            path.unlink(missing_ok=True)
        file.close()


def _still_there(file: BinaryIO, path: Path) -> bool:
    """Whether the locked file is still the one of that name, not one its last holder removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: BinaryIO) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
