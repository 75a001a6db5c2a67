"""Exports in environments of their own, made by pip from a folder of wheels, without a network."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mobilenet import export
from mobilenet.errors import ExportError
from mobilenet.export import isolated

# stands for this package there: it writes what it was given, and an artifact
CLI = """
import json, os, sys
from pathlib import Path
if "--to" not in sys.argv or "fails" in sys.argv[2]:
    print("mobilenet: no such run", file=sys.stderr)
    sys.exit(2)
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir(parents=True)
(out / "arguments.json").write_text(json.dumps([sys.prefix, *sys.argv[1:]]))
import a_converter
print(json.dumps({
    "runtime": a_converter.NAME, "max_error": 0.0, "float_cosine": 1.0, "float_agreement": 1.0,
    "path": str(out), "file": str(out / "model.x"), "format": "ncnn", "precision": "float32",
    "weights": "float32", "bytes": 7, "sha256": "0" * 64, "fallback": None,
}))
"""


def write_wheel(folder: Path, name: str, files: dict[str, str], metadata: str = "") -> None:
    """A pure-Python wheel, version 0.1.0."""
    info = f"{name}-0.1.0.dist-info"
    content = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n{metadata}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-0.1.0-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)
        record = "".join(f"{path},,\n" for path in [*content, f"{info}/RECORD"])
        wheel.writestr(f"{info}/RECORD", record)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip installs from, and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    extras = "Provides-Extra: train\nProvides-Extra: ncnn\n"
    needs = 'Requires-Dist: a_converter; extra == "ncnn"\n'
    package = {"mobilenet/__init__.py": "", "mobilenet/cli.py": CLI}
    write_wheel(folder, "mobilenet", package, extras + needs)
    write_wheel(folder, "a_converter", {"a_converter.py": "NAME = 'theirs'"})
    monkeypatch.setenv("MOBILENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MOBILENET_PIP", f"--no-index --find-links '{folder}'")
    monkeypatch.setattr(isolated, "_requirement", lambda extra: f"mobilenet[train,{extra}]==0.1.0")
    return folder


def test_the_converter_runs_in_an_environment_of_its_own(
    wheels: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = export(
        tmp_path / "my run", to="ncnn", out=tmp_path / "out", weights="float16", isolated=True
    )
    assert (made.format, made.runtime, made.path) == ("ncnn", "theirs", tmp_path / "out")
    prefix, *given = json.loads((tmp_path / "out" / "arguments.json").read_text())
    assert Path(prefix).parent == tmp_path / "cache" / "environments"
    assert prefix != sys.prefix
    assert given == [
        "export", str(tmp_path / "my run"), "--to", "ncnn", "--out", str(tmp_path / "out"),
        "--weights", "float16", "--input", "tensor", "--json",
    ]  # fmt: skip
    assert "making an environment of its own" in capfd.readouterr().err

    shutil.rmtree(wheels)  # the second time nothing is installed
    export(tmp_path / "my run", to="ncnn", out=tmp_path / "again", isolated=True)
    assert "making" not in capfd.readouterr().err
    assert [path.name for path in Path(prefix).parent.iterdir()] == [Path(prefix).name]

    with pytest.raises(ExportError, match="failed with exit code 2"):
        export(tmp_path / "fails", to="ncnn", out=tmp_path / "no", isolated=True)
    assert "no such run" in capfd.readouterr().err


def test_an_environment_that_cannot_be_made_is_not_left(wheels: Path, tmp_path: Path) -> None:
    (wheels / "a_converter-0.1.0-py3-none-any.whl").unlink()
    with pytest.raises(ExportError, match=r"(?s)No matching distribution .*MOBILENET_PIP"):
        export(tmp_path / "run", to="ncnn", out=tmp_path / "out", isolated=True)
    assert not list((tmp_path / "cache" / "environments").iterdir())


def test_the_environment_gets_this_very_package() -> None:
    found = isolated._requirement("ncnn")
    project = Path(__file__).parent.parent
    assert found in (f"mobilenet[train,ncnn] @ {project.as_uri()}", "mobilenet[train,ncnn]==0.1.0")
    dry = [
        sys.executable,
        "-c",
        f"from packaging.requirements import Requirement as R; R({found!r})",
    ]
    subprocess.run(dry, check=True)
