"""Writing files that survive a crash: a temporary file, fsync, rename, fsync of the folder.

After a kill or a power cut at any moment a path holds either its earlier content or the new one,
never a mixture. The order is that of Pillai et al., "All File Systems Are Not Created Equal"
(OSDI 2014): data before the rename that publishes it, the folder after.
"""

import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .errors import CheckpointError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

try:
    import fcntl
except ImportError:  # Windows, where an open file can be neither removed nor renamed
    fcntl = None

_SUFFIX = ".mobilenet-tmp"


class SystemCalls:
    """Every call that changes the disk, in one place, so that a test can fail each in turn."""

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        source.replace(target)

    def make_dir(self, folder: Path) -> None:
        folder.mkdir()

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_dir(self, folder: Path) -> None:
        folder.rmdir()

    def fsync_dir(self, folder: Path) -> None:
        if os.name == "nt":  # folders cannot be opened there; NTFS journals renames itself
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # some network file systems cannot do it at all, as against failing to
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


os_calls = SystemCalls()


def write_atomically(path: str | Path, data: bytes | Callable[[BinaryIO], None]) -> None:
    """Replace the content of `path` at once: by `data`, or by what `data` writes into the file.

    The file handed to a function is unbuffered. Leftovers of killed processes in the folder are
    removed first. Raises CheckpointError where the system refuses: the earlier content is then
    untouched, unless only the last step failed, the fsync of the folder.
    """
    path = Path(path)
    try:
        _remove_leftovers(path.parent)
        temporary, file = _create_temporary(path.parent)
        try:
            if callable(data):
                data(file)
            else:
                file.write(data)
            os_calls.fsync(file.fileno())
            if fcntl is None:
                file.close()
            os_calls.replace(temporary, path)
        except BaseException:
            file.close()
            with suppress(OSError):
                os_calls.remove(temporary)
            raise
        finally:
            file.close()  # only now: the lock on it keeps other processes from removing it
        os_calls.fsync_dir(path.parent)
    except OSError as error:
        raise _failure(path, error) from error


def move(source: Path, target: Path) -> None:
    """Rename a file within its folder, replacing `target`. Raises CheckpointError."""
    try:
        os_calls.replace(source, target)
        os_calls.fsync_dir(target.parent)
    except OSError as error:
        raise _failure(target, error) from error


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, unless they are there. Raises CheckpointError."""
    try:
        if folder.is_dir():
            return
        make_folder(folder.parent)
        with suppress(FileExistsError):  # another process may be as quick
            os_calls.make_dir(folder)
        os_calls.fsync_dir(folder.parent)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise _failure(folder, error) from error


def remove(path: Path) -> None:
    """Remove a file, unless it is gone. Raises CheckpointError."""
    try:
        with suppress(FileNotFoundError):
            os_calls.remove(path)
    except OSError as error:
        raise _failure(path, error) from error


def remove_folder(folder: Path, *, first: str) -> None:
    """Remove a folder of files, the file called `first` before the others.

    Raises CheckpointError, also where the folder holds folders.
    """
    try:
        names = {path.name for path in folder.iterdir()}
        if first in names:
            os_calls.remove(folder / first)
            os_calls.fsync_dir(folder)
        for name in sorted(names - {first}):
            os_calls.remove(folder / name)
        os_calls.remove_dir(folder)
    except OSError as error:
        raise _failure(folder, error) from error


class _File(io.FileIO):
    """An unbuffered file whose `write` writes everything or raises."""

    def write(self, data: "ReadableBuffer", /) -> int:
        left = memoryview(data).cast("B")
        total = len(left)
        while left:
            written = os_calls.write(self.fileno(), left)
            if written <= 0:
                raise OSError(errno.EIO, "nothing was written")
            left = left[written:]
        return total


def _create_temporary(folder: Path) -> tuple[Path, _File]:
    """A new locked file in `folder`: the lock ends with this process, however it ends."""
    while True:
        path = folder / f".{secrets.token_hex(8)}{_SUFFIX}"
        file = _File(path, "xb")
        _lock(file, wait=True)
        # another process may have taken it for a leftover before it was locked
        if fcntl is None or os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.endswith(_SUFFIX):
            with suppress(OSError), path.open("rb") as file:  # in use, or not ours to remove
                _lock(file, wait=False)
                os_calls.remove(path)


def _lock(file: io.FileIO | BinaryIO, *, wait: bool) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        # a file system without locks: write all the same, but take nothing for a leftover
        if not wait:
            raise


def _failure(path: Path, error: OSError) -> CheckpointError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = ""
        with suppress(OSError):
            folder = next(p for p in (path.parent, *path.parents) if p.exists())
            free = f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB free)"
        return CheckpointError(f"{path}: the disk is full{free}: make room, then go on from here")
    return CheckpointError(f"{path}: cannot be written: {error.strerror or error}")
