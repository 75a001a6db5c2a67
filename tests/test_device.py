"""Another device: a local sshd, a stand-in that speaks adb's command line, 64-bit ARM by qemu."""

import fcntl
import getpass
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mobilenet import cli
from mobilenet.benchmark import benchmark
from mobilenet.device import DeviceError, connect, open_remote
from mobilenet.device.connection import Adb, Ssh
from mobilenet.device.remote import MissingRunner, find_runner
from mobilenet.errors import UsageError
from mobilenet.export import export, read_golden
from mobilenet.runtime import read_artifact
from mobilenet.verify import verify
from test_engine_aarch64 import MISSING, built
from test_engine_c import installed

PROJECT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

__all__ = ["built", "installed"]  # fixtures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.uname().machine != "x86_64" or not shutil.which("cmake"),
        reason="needs cmake and x86-64 Linux",
    ),
]

# `adb -s SERIAL shell WORDS`, push and pull, on a folder of this machine; a shell as Android's
ADB = """#!/bin/sh
root={root}
[ "$1" = -s ] || {{ echo "adb: no devices/emulators found" >&2; exit 1; }}
[ "$2" = emulator-5554 ] || {{ echo "adb: device '$2' not found" >&2; exit 1; }}
verb=$3; shift 3
case $verb in
  shell) exec sh -c "$(printf %s "$*" | sed "s|/data/local/tmp|$root|g")" ;;
  push) cp "$1" "$(printf %s "$2" | sed "s|/data/local/tmp|$root|")" && echo "1 file pushed" ;;
  pull) cp "$(printf %s "$1" | sed "s|/data/local/tmp|$root|")" "$2" && echo "1 file pulled" ;;
  *) echo "adb: unknown command $verb" >&2; exit 1 ;;
esac
"""
# `ssh OPTIONS -- HOST WORDS`: what there is to stand for a host of another architecture
ARM_HOST = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
words=$(printf %s "$*" | sed "s|^uname -srm|echo Linux 6.1 aarch64|; s|^/tmp|qemu-aarch64 /tmp|")
exec sh -c "$words"
"""


@pytest.fixture(autouse=True, scope="module")
def runners(installed: Path) -> Iterator[Path]:
    """A folder with the runner for this machine, linked with the library that C programs get."""
    folder = installed / "runners"
    with (installed / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "runner-x86_64").exists():
            folder.mkdir(exist_ok=True)
            subprocess.run(
                ["bash", PROJECT / "runs" / "engine_runner.sh", installed / "build"],
                env=os.environ | {"PATH": PATH, "MOBILENET_RUNNERS": str(folder)},
                capture_output=True,
                check=True,
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILENET_RUNNERS", str(folder))
        yield folder


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This machine behind an sshd of its own: own port, own keys, ended by its process."""
    sshd = shutil.which("sshd", path=f"{PATH}:/usr/sbin")
    if sshd is None or not shutil.which("ssh-keygen"):
        pytest.skip("needs sshd")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\nUsePAM no\n"
        "StrictModes no\nPermitRootLogin yes\n"
    )
    if os.access("/run", os.W_OK):
        Path("/run/sshd").mkdir(exist_ok=True)  # it wants one, to be run as root
    known = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {known}\n")
    (folder / "config").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\n"
        "GlobalKnownHostsFile /dev/null\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd"], stderr=log)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                pytest.skip(f"sshd does not run here: {(folder / 'log').read_text()}")
            time.sleep(0.05)
        monkeypatch.setenv("MOBILENET_SSH", f"ssh -F {folder}/config")
        yield f"ssh:{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stand-in for adb with one device, whose /data/local/tmp is a folder here."""
    (tmp_path / "phone").mkdir()
    script = tmp_path / "adb"
    script.write_text(ADB.format(root=tmp_path / "phone"))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("MOBILENET_ADB", str(script))
    return "adb:emulator-5554"


@pytest.fixture
def flowers(tmp_path: Path, pictures: list[Path]) -> Path:
    for index, path in enumerate(pictures[:12]):
        folder = tmp_path / "flowers" / ("rose", "iris")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    return tmp_path / "flowers"


# ------------------------------------------------------------------------------------- by ssh


def test_verify_by_ssh(
    host: str, small_engine: Path, flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(small_engine, folder)
    run = small_engine.parent / "run"
    here = verify(folder, str(flowers), split="all", run=run, threads=1)
    words = ["verify", folder, flowers, "--split", "all", "--run", run, "--device", host]
    with pytest.raises(SystemExit) as left:
        cli.main([*map(str, words), "--cores", "0", "--json"])
    assert left.value.code == 0, capsys.readouterr().err
    there = json.loads(capsys.readouterr().out)
    assert there["ok"]
    assert there["top1"] == json.loads(json.dumps(here.to_json()["top1"]))
    assert there["comparison"]["agreement"]["value"] == 1
    assert there["golden"]["ok"]
    device = there["device"]
    assert device["device"] == host
    assert device["system"].split()[0] == os.uname().sysname
    assert (device["cores"], device["threads"]) == ("0", 1)
    assert there["runtime"] == f"engine {device['instruction_set']} on {host}"
    # ten golden pictures, ten times each
    assert device["run"]["runs"] == device["prepare_and_run"]["runs"] == 100
    assert 0 < device["run"]["p50_ms"] <= device["run"]["p90_ms"]
    assert device["prepare_and_run"]["p50_ms"] > device["run"]["p50_ms"]
    assert json.loads((folder / "certificate.json").read_text()) == there
    assert list(Path("/tmp").glob("mobilenet-" + "?" * 16)) == []


def test_what_fails_by_ssh_is_said(host: str, small_engine: Path) -> None:
    with pytest.raises(DeviceError, match=r"nothing: No such file"):
        connect(host).pull("/tmp/nothing")
    other = host.rpartition(":")[0] + ":1"
    with pytest.raises(DeviceError, match="Connection refused"):
        connect(other).run(["true"])
    data = read_artifact(small_engine).data
    with (
        open_remote(host, bytes(data), classes=3, threads=1, cores=None) as remote,
        pytest.raises(DeviceError, match="the model's classes are others"),
    ):
        remote.answer(np.zeros((1, 3, 48, 48), np.float32))
    with (
        open_remote(host, b"no model", classes=7, threads=1, cores=None) as remote,
        pytest.raises(DeviceError, match=r"runner: .*model"),
    ):
        remote.answer(np.zeros((1, 3, 48, 48), np.float32))
    with (
        open_remote(host, bytes(data), classes=7, threads=1, cores="900") as remote,
        pytest.raises(DeviceError, match="CORES: cannot run there"),
    ):
        remote.answer(np.zeros((1, 3, 48, 48), np.float32))


# ------------------------------------------------------------------------------------- by adb


def test_verify_by_adb_and_wrong_preparation(
    phone: str, small_engine: Path, flowers: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(small_engine, folder)
    run = small_engine.parent / "run"
    there = verify(folder, str(flowers), split="all", run=run, device=phone)
    assert there.ok, there.problems
    assert f"engine {there.device and there.device.instruction_set} on {phone}" == there.runtime
    assert "from decoded pictures p50" in str(there)
    assert list((tmp_path / "phone").iterdir()) == []  # all is removed
    with pytest.raises(DeviceError, match="device 'other' not found"):
        verify(folder, str(flowers), split="all", run=run, device="adb:other")


def test_int8_has_the_same_bits_there(phone: str, small_run: Path, flowers: Path) -> None:
    out = flowers.parent / "int8"
    made = export(small_run, to="engine", out=out, precision="int8", calibrate=str(flowers))
    golden = read_golden(read_artifact(made.path))
    data = bytes(read_artifact(made.path).data)
    with open_remote(phone, data, classes=7, threads=2, cores=None) as remote:
        prepared, decoded = remote.answer(golden.inputs), remote.answer(golden.images, runs=3)
    assert np.array_equal(prepared.logits, golden.logits)
    assert np.array_equal(decoded.logits, golden.logits)
    assert decoded.seconds.shape == (10, 3, 2)
    assert (prepared.seconds[:, :, 0] < decoded.seconds[:, :, 0].min()).all()


def test_benchmark_on_a_device(phone: str, small_engine: Path) -> None:
    found = benchmark(str(small_engine), device=phone, cores="0", rounds=2, runs=5)
    assert found.ok
    assert {row.configuration for row in found.results} == {"network", "from 640x480 RGB"}
    assert all(row.runs == 10 and row.max_error < 1e-4 for row in found.results)
    assert found.conditions["machine"]["affinity"] == [0]
    assert found.conditions["device"]["device"] == phone
    assert "from 640x480 RGB" in str(found)
    with pytest.raises(UsageError, match="on a device the engine is timed"):
        benchmark(str(small_engine), device=phone, runtime=("torch",))


# ------------------------------------------------------------------------------- 64-bit ARM


@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
def test_on_64_bit_arm(
    built: Path, small_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "ssh"
    script.write_text(ARM_HOST)
    script.chmod(0o700)
    monkeypatch.setenv("MOBILENET_SSH", str(script))
    monkeypatch.setenv("MOBILENET_RUNNERS", str(built))
    golden = read_golden(read_artifact(small_engine))
    data = bytes(read_artifact(small_engine).data)
    with open_remote("ssh:board", data, classes=7, threads=1, cores=None) as remote:
        found = remote.answer(golden.images)
    assert remote.system == "Linux 6.1 aarch64"
    assert found.said["isa"].startswith("neon")
    assert np.abs(found.logits - golden.logits).max() < 1e-4


# -------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    "device",
    ["ssh:", "ssh:-oProxyCommand=x", "ssh:a b", "ssh:host:x", "adb:", "adb:-d", "usb:1", "host"],
)
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        connect(device)


def test_words_are_quoted_and_programs_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOBILENET_SSH", raising=False)
    ssh = connect("ssh:me@host:2222")
    assert isinstance(ssh, Ssh)
    assert ssh.words[0] == "ssh"
    assert ssh.words[-4:] == ("-p", "2222", "--", "me@host")
    monkeypatch.setenv("MOBILENET_ADB", "/no/adb -H there")
    adb = connect("adb:0123")
    assert isinstance(adb, Adb)
    assert adb.words == ("/no/adb", "-H", "there", "-s", "0123")
    with pytest.raises(DeviceError, match="there is no program '/no/adb' here"):
        adb.run(["true"])


def test_what_cannot_run_there(
    small_export: Path, small_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="format 'onnx': on a device runs what was exported for"):
        verify(small_export, "x", device="ssh:host")
    with pytest.raises(UsageError, match="--cores are those of a --device"):
        verify(small_engine, "x", cores="1")
    with pytest.raises(UsageError, match="cores 'all'"):
        verify(small_engine, "x", device="ssh:host", cores="all")
    with pytest.raises(UsageError, match="always the engine"):
        verify(small_engine, "x", device="ssh:host", runtime="onnxruntime")
    monkeypatch.setenv("MOBILENET_RUNNERS", str(tmp_path))
    with pytest.raises(MissingRunner, match="make engine-aarch64"):
        find_runner("aarch64")
