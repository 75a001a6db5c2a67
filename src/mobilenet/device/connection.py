"""Ways to a device: ssh, and Android's adb, by their own programs.

What runs there goes through a shell, so every word is quoted; files go through standard input and
output, or through adb's own push and pull.
"""

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import MobilenetError, UsageError

TIMEOUT = 3600.0  # seconds of one command
_CONNECT_SECONDS = 15
# how a device is reached in other words, such as "ssh -F my_config"
SSH, ADB = "MOBILENET_SSH", "MOBILENET_ADB"
_HOST = re.compile(r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.@-]*)(?::(?P<port>\d{1,5}))?")
_SERIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")


class DeviceError(MobilenetError):
    """A device that cannot be reached, or on which something failed."""


class Connection(Protocol):
    """A device. `name` is what the user called it, `scratch` a folder there to write into."""

    @property
    def name(self) -> str: ...

    @property
    def scratch(self) -> str: ...

    def run(self, words: Sequence[str]) -> str:
        """What a command prints there. Raises DeviceError where it fails."""
        ...

    def push(self, data: bytes, path: str) -> None:
        """Write a file there."""
        ...

    def pull(self, path: str) -> bytes:
        """Read a file there."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """A host, as the program ssh reaches it: without questions, by keys and its configuration."""

    name: str
    words: tuple[str, ...]
    scratch: str = "/tmp"

    def run(self, words: Sequence[str]) -> str:
        return self._ssh(words, b"").decode(errors="replace")

    def push(self, data: bytes, path: str) -> None:
        self._ssh(["dd", f"of={path}", "bs=65536"], data)

    def pull(self, path: str) -> bytes:
        return self._ssh(["cat", path], b"")

    def _ssh(self, words: Sequence[str], data: bytes) -> bytes:
        return _finished(self.name, [*self.words, shlex.join(words)], data)


@dataclass(frozen=True, kw_only=True)
class Adb:
    """An Android device that adb lists."""

    name: str
    words: tuple[str, ...]
    scratch: str = "/data/local/tmp"

    def run(self, words: Sequence[str]) -> str:
        found = _finished(self.name, [*self.words, "shell", shlex.join(words)], b"")
        return found.decode(errors="replace").replace("\r\n", "\n")

    def push(self, data: bytes, path: str) -> None:
        with _local(data) as file:
            _finished(self.name, [*self.words, "push", str(file), path], b"")

    def pull(self, path: str) -> bytes:
        with _local(b"") as file:
            _finished(self.name, [*self.words, "pull", path, str(file)], b"")
            return file.read_bytes()


def connect(device: str) -> Connection:
    """The device of a name such as "ssh:user@host:22" or "adb:SERIAL".

    The environment's MOBILENET_SSH and MOBILENET_ADB say which programs to use, with options.
    Raises UsageError for another name.
    """
    kind, _, address = device.partition(":")
    if kind not in _KINDS:
        raise UsageError(f"device {device!r}: expected ssh:[USER@]HOST[:PORT] or adb:SERIAL")
    return _KINDS[kind](device, address)


def _ssh(device: str, address: str) -> Ssh:
    match = _HOST.fullmatch(address)
    if match is None:
        raise UsageError(f"device {device!r}: expected ssh:[USER@]HOST[:PORT]")
    port = ["-p", match["port"]] if match["port"] else []
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", "-T", *port]
    return Ssh(name=device, words=(*_program(SSH, "ssh"), *options, "--", match["host"]))


def _adb(device: str, address: str) -> Adb:
    if _SERIAL.fullmatch(address) is None:
        raise UsageError(f"device {device!r}: expected adb:SERIAL, as adb devices lists it")
    return Adb(name=device, words=(*_program(ADB, "adb"), "-s", address))


_KINDS: Mapping[str, Callable[[str, str], Connection]] = {"ssh": _ssh, "adb": _adb}


def _program(variable: str, default: str) -> list[str]:
    return shlex.split(os.environ.get(variable) or default)


def _finished(device: str, words: Sequence[str], data: bytes) -> bytes:
    try:
        done = subprocess.run(words, input=data, capture_output=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise DeviceError(f"{device}: there is no program {words[0]!r} here") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{device}: no answer for {TIMEOUT:g} seconds") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise DeviceError(f"{device}: {words[-1]}: {reason}")
    return done.stdout


@contextmanager
def _local(data: bytes) -> Iterator[Path]:
    """A file here with some content, while it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(data)
        yield file
