import errno
import random
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from faults import (
    CountedCalls,
    Crash,
    FailingCalls,
    FullDisk,
    KilledCalls,
    PowerLoss,
    ShortWrites,
    installed,
    names,
)
from mobilenet.durable import make_folder, move, remove, remove_folder, write_atomically
from mobilenet.errors import CheckpointError

OLD = b"old content"
NEW = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "folder" / "file.bin"
    file.parent.mkdir()
    file.write_bytes(OLD)
    return file


def calls_of_a_write(path: Path) -> list[str]:
    calls = CountedCalls()
    with installed(calls):
        write_atomically(path, OLD)
    return calls.names


def test_writes_bytes_and_functions(path: Path) -> None:
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW

    def write_parts(file: BinaryIO) -> None:
        file.write(NEW[:1000])
        file.write(memoryview(NEW)[1000:])
        file.seek(0)
        file.write(b"head")

    write_atomically(str(path), write_parts)
    assert path.read_bytes() == b"head" + NEW[4:]
    write_atomically(path, b"")
    assert path.read_bytes() == b""
    assert names(path.parent) == [path.name]


def test_steps_are_taken_in_the_order_that_survives(path: Path) -> None:
    assert calls_of_a_write(path) == ["write", "fsync", "replace", "fsync_dir"]


def test_permissions_are_those_of_an_ordinary_new_file(path: Path) -> None:
    write_atomically(path, NEW)
    ordinary = path.with_name("ordinary")
    ordinary.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_short_writes_are_continued(path: Path) -> None:
    calls = ShortWrites()
    with installed(calls):
        write_atomically(path, NEW)
    assert path.read_bytes() == NEW
    assert calls.names.count("write") > 3


def test_a_write_of_nothing_is_an_error_rather_than_a_loop(path: Path) -> None:
    class Stuck(CountedCalls):
        def write(self, descriptor: int, data: memoryview) -> int:
            return 0

    with installed(Stuck()), pytest.raises(CheckpointError, match="nothing was written"):
        write_atomically(path, NEW)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_failure_at_each_call_leaves_the_earlier_file(path: Path, number: int) -> None:
    for at, name in enumerate(calls_of_a_write(path)):
        with installed(FailingCalls(at, number)), pytest.raises(CheckpointError) as caught:
            write_atomically(path, NEW)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == (NEW if name == "fsync_dir" else OLD)
        assert names(path.parent) == [path.name]
        write_atomically(path, OLD)


def test_a_full_disk_is_named_with_the_space_that_is_left(path: Path) -> None:
    with (
        installed(FullDisk(0)),
        pytest.raises(CheckpointError, match=r"file\.bin: the disk is full \(\d+\.\d MB free\)"),
    ):
        write_atomically(path, NEW)
    assert names(path.parent) == [path.name]


def test_kill_at_each_call_leaves_old_or_new_and_the_next_write_cleans_up(path: Path) -> None:
    for at, name in enumerate(calls_of_a_write(path)):
        with installed(KilledCalls(at)), pytest.raises(Crash):
            write_atomically(path, NEW)
        assert path.read_bytes() == (NEW if name == "fsync_dir" else OLD)
        assert len(names(path.parent)) == (1 if name == "fsync_dir" else 2)
        write_atomically(path.with_name("another"), OLD)
        assert names(path.parent) == ["another", path.name]
        path.with_name("another").unlink()
        write_atomically(path, OLD)


def test_power_loss_at_each_call_leaves_old_or_new(path: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    for at in range(len(calls_of_a_write(path))):
        calls = PowerLoss(path.parent, at)
        with installed(calls), pytest.raises(Crash):
            write_atomically(path, NEW)
        for share in (0.0, 0.5, 1.0):
            disk = tmp_path / "disk"
            calls.survivors(disk, chance, share)
            assert (disk / path.name).read_bytes() in (OLD, NEW)
            remove_folder(disk, first="")
        calls.close()
        write_atomically(path, OLD)


def test_what_was_written_outlives_a_power_loss(path: Path, tmp_path: Path) -> None:
    calls = PowerLoss(path.parent)
    with installed(calls):
        write_atomically(path, NEW)
    calls.survivors(tmp_path / "disk", random.Random(0), 0.0)
    calls.close()
    assert (tmp_path / "disk" / path.name).read_bytes() == NEW


def test_an_error_of_the_writing_function_leaves_the_earlier_file(path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        write_atomically(path, fail)
    assert path.read_bytes() == OLD
    assert names(path.parent) == [path.name]


def test_a_file_that_another_writer_has_open_is_no_leftover(path: Path) -> None:
    other = path.with_name("other")

    def write_meanwhile(file: BinaryIO) -> None:
        file.write(b"first ")
        write_atomically(other, NEW)
        file.write(b"last")

    write_atomically(path, write_meanwhile)
    assert path.read_bytes() == b"first last"
    assert other.read_bytes() == NEW


def test_a_file_system_without_locks_is_written_but_not_cleaned(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    with installed(KilledCalls(2)), pytest.raises(Crash):
        write_atomically(path, NEW)
    monkeypatch.setattr("fcntl.flock", refuse)
    write_atomically(path, NEW)
    assert path.read_bytes() == NEW
    assert len(names(path.parent)) == 2


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file or directory"):
        write_atomically(tmp_path / "missing" / "file", NEW)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="folder: cannot be written"):
        write_atomically(tmp_path / "folder", NEW)
    assert names(tmp_path) == ["folder"]


def test_make_folder_syncs_each_parent(tmp_path: Path) -> None:
    calls = CountedCalls()
    with installed(calls):
        make_folder(tmp_path / "a" / "b")
    assert calls.names == ["make_dir", "fsync_dir"] * 2
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(CheckpointError, match=r"file.*Not a directory"):
            make_folder(folder)


def test_a_folder_that_another_process_has_just_made_is_taken(tmp_path: Path) -> None:
    class Raced(CountedCalls):
        def make_dir(self, folder: Path) -> None:
            folder.mkdir()
            super().make_dir(folder)

    with installed(Raced()):
        make_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_move_replaces_and_remove_is_content_with_nothing(path: Path) -> None:
    source = path.with_name("source")
    source.write_bytes(NEW)
    move(source, path)
    assert path.read_bytes() == NEW
    with pytest.raises(CheckpointError, match="No such file"):
        move(source, path)
    remove(path)
    remove(path)
    assert names(path.parent) == []


def test_remove_folder_begins_with_the_file_that_makes_it_count(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    expected = ["remove", "fsync_dir", "remove", "remove", "remove_dir"]
    for at in range(len(expected)):
        make_folder(folder)
        for name in ("a", "manifest", "z"):
            (folder / name).touch()
        calls = KilledCalls(at)
        with installed(calls), pytest.raises(Crash):
            remove_folder(folder, first="manifest")
        assert calls.names == expected[: at + 1]
        assert (folder / "manifest").exists() == (at == 0)
        remove_folder(folder, first="manifest")
        assert not folder.exists()


def test_remove_folder_does_not_descend(tmp_path: Path) -> None:
    (tmp_path / "folder" / "theirs").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="folder: cannot be written"):
        remove_folder(tmp_path / "folder", first="manifest")
    assert (tmp_path / "folder" / "theirs").is_dir()
