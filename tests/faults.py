"""Disks that fail, processes that die and power that goes, in place of `durable.os_calls`."""

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from mobilenet import durable
from mobilenet.durable import SystemCalls

NEVER = 1 << 60


class Crash(BaseException):
    """The process is dead from here on."""


class CountedCalls(SystemCalls):
    """Notes each call; subclasses say what happens at the one with the number `at`."""

    def __init__(self, at: int = NEVER) -> None:
        self.at = at
        self.names: list[str] = []

    def reached(self, name: str) -> bool:
        """Note a call; whether it is the one to fail."""
        self.names.append(name)
        return len(self.names) - 1 == self.at

    def at_fault(self) -> None:
        """Raise what the failing call raises."""

    def write(self, descriptor: int, data: memoryview) -> int:
        if self.reached("write"):
            super().write(descriptor, data[: len(data) // 2])
            self.at_fault()
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        if self.reached("fsync"):
            self.at_fault()
        super().fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        if self.reached("replace"):
            self.at_fault()
        super().replace(source, target)

    def make_dir(self, folder: Path) -> None:
        if self.reached("make_dir"):
            self.at_fault()
        super().make_dir(folder)

    def remove(self, path: Path) -> None:
        if self.reached("remove"):
            self.at_fault()
        super().remove(path)

    def remove_dir(self, folder: Path) -> None:
        if self.reached("remove_dir"):
            self.at_fault()
        super().remove_dir(folder)

    def fsync_dir(self, folder: Path) -> None:
        if self.reached("fsync_dir"):
            self.at_fault()
        super().fsync_dir(folder)


class FailingCalls(CountedCalls):
    """One call fails with `number`, and the others after it succeed."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__(at)
        self.number = number

    def at_fault(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


class FullDisk(FailingCalls):
    """From the call `at` on nothing can be written; removing still works."""

    def __init__(self, at: int) -> None:
        super().__init__(at, errno.ENOSPC)

    def reached(self, name: str) -> bool:
        super().reached(name)
        return len(self.names) - 1 >= self.at and name in ("write", "fsync", "replace", "make_dir")


class KilledCalls(CountedCalls):
    """At the call `at` the process dies: no later call, of a clean-up say, does anything."""

    def reached(self, name: str) -> bool:
        super().reached(name)
        return len(self.names) - 1 >= self.at

    def at_fault(self) -> None:
        raise Crash


class ShortWrites(CountedCalls):
    """The system takes a third of what it is given."""

    def write(self, descriptor: int, data: memoryview) -> int:
        self.reached("write")
        return SystemCalls.write(self, descriptor, data[: len(data) // 3 + 1])


class PowerLoss(KilledCalls):
    """A kill that also loses what had not been synced; `survivors` writes what a disk may hold.

    Renames, new names and removals of a folder last once it has been synced, contents once their
    file has; before that each may have reached the disk or not.
    """

    def __init__(self, root: Path, at: int = NEVER) -> None:
        super().__init__(at)
        self.root = root
        self.contents: dict[int, bytes] = {}  # synced, by inode
        self.entries: dict[Path, dict[str, int | None]] = {}  # synced; None is a folder
        self.pending: dict[Path, list[dict[str, int | str | None]]] = {}
        self.pins: dict[int, int] = {}  # open descriptors: their inodes are not used again
        for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
            self.entries[folder] = self._list(folder)
            for path in folder.iterdir():
                if path.is_file():
                    self.contents[self._pin(path)] = path.read_bytes()

    def close(self) -> None:
        for descriptor in self.pins.values():
            os.close(descriptor)

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        inode = os.fstat(descriptor).st_ino
        path = next(p for p in self.root.rglob("*") if p.is_file() and p.stat().st_ino == inode)
        self.contents[self._pin(path)] = path.read_bytes()

    def fsync_dir(self, folder: Path) -> None:
        super().fsync_dir(folder)
        self.entries[folder] = self._list(folder)
        self.pending[folder] = []

    def replace(self, source: Path, target: Path) -> None:
        inode = self._pin(source)
        super().replace(source, target)
        self._note(source.parent, {source.name: "gone", target.name: inode})

    def make_dir(self, folder: Path) -> None:
        super().make_dir(folder)
        self.entries[folder], self.pending[folder] = {}, []
        self._note(folder.parent, {folder.name: None})

    def remove(self, path: Path) -> None:
        super().remove(path)
        self._note(path.parent, {path.name: "gone"})

    def remove_dir(self, folder: Path) -> None:
        super().remove_dir(folder)
        self._note(folder.parent, {folder.name: "gone"})

    def survivors(self, target: Path, chance: random.Random, share: float) -> None:
        """Write into `target` a state that the disk may be in, if each unsynced change of a
        folder has reached it with probability `share`, and no unsynced content has."""
        self._restore(self.root, target, chance, share)

    def _restore(self, folder: Path, target: Path, chance: random.Random, share: float) -> None:
        target.mkdir()
        names = dict(self.entries.get(folder, {}))
        for change in self.pending.get(folder, []):
            if chance.random() < share:
                for name, entry in change.items():
                    if entry == "gone":
                        names.pop(name, None)
                    else:
                        assert not isinstance(entry, str)
                        names[name] = entry
        for name, inode in names.items():
            if inode is None:
                self._restore(folder / name, target / name, chance, share)
            else:
                synced = self.contents.get(inode)
                (target / name).write_bytes(self._torn(inode) if synced is None else synced)

    def _torn(self, inode: int) -> bytes:
        """What is left of a file that was never synced: its length, and zeros."""
        return bytes(os.fstat(self.pins[inode]).st_size)

    def _note(self, folder: Path, change: dict[str, int | str | None]) -> None:
        self.pending.setdefault(folder, []).append(change)

    def _pin(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self.pins:
            self.pins[inode] = os.open(path, os.O_RDONLY)
        return inode

    def _list(self, folder: Path) -> dict[str, int | None]:
        return {p.name: None if p.is_dir() else self._pin(p) for p in folder.iterdir()}


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def installed(calls: SystemCalls) -> Iterator[None]:
    """Use `calls` within the block."""
    with patch.object(durable, "os_calls", calls):
        yield
