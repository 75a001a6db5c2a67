"""An export in a virtual environment of its own, where its converter clashes with nothing.

The environment is made on first use, in the cache, one for each target, and spoken to by files and
the command line: this process imports nothing of it.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..download import cache_folder
from ..errors import ExportError
from ..progress import say
from .artifact import Artifact

# the extras beside "train" that make and run a target's file
EXTRAS = {
    "onnx": "onnx",
    "openvino": "openvino",
    "litert": "litert",
    "executorch": "executorch",
    "coreml": "coreml",
    "ncnn": "ncnn",
    "engine": "onnx",
    "web": "onnx",
}
PIP = "MOBILENET_PIP"  # further options of pip install, such as an index with torch for CPUs
_COMPLETE = "complete"  # written last
_SAID = 12  # lines of what failed


def export_isolated(to: str, arguments: list[str]) -> Artifact:
    """Run `mobilenet export` with these arguments in the environment of a target.

    What it prints on stderr is passed on. Raises ExportError where the environment cannot be made,
    or with what the verb says where that fails; KeyboardInterrupt ends both.
    """
    python = environment(to)
    command = [str(python), "-m", "mobilenet.cli", "export", *arguments, "--json"]
    hidden = {"PYTHONPATH", "PYTHONHOME"}
    surroundings = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env=surroundings, cwd=Path.cwd()
    )
    if done.returncode:
        raise ExportError(
            f"the export in {python.parent.parent} failed with exit code {done.returncode}; what "
            "it said stands above"
        )
    try:
        return _artifact(json.loads(done.stdout))
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{shlex.join(command)} did not print an artifact: {error}") from None


def environment(to: str) -> Path:
    """The Python of a target's environment, which is made where it is not there yet.

    Made aside and renamed when it is complete, so that an interrupted one is never used.
    """
    requirement = _requirement(EXTRAS[to])
    options = shlex.split(os.environ.get(PIP, ""))
    stated = json.dumps([requirement, options, sys.version_info[:2], version("mobilenet")])
    folder = (
        cache_folder("environments") / f"{to}-{hashlib.sha256(stated.encode()).hexdigest()[:12]}"
    )
    python = _python(folder)
    if (folder / _COMPLETE).exists():
        return python
    say(f"{to}: making an environment of its own in {folder}: {requirement}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    try:
        _run([sys.executable, "-m", "venv", str(part)])
        pip = [str(_python(part)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *options, requirement])
        (part / _COMPLETE).write_text(f"{stated}\n", encoding="utf-8")
        if folder.exists():  # one that was left incomplete, or made meanwhile
            if (folder / _COMPLETE).exists():
                return python
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return python


def _requirement(extra: str) -> str:
    """This very package with the extra: from the sources that it was installed from, or by its
    version."""
    extras = f"mobilenet[train,{extra}]"
    stated = distribution("mobilenet").read_text("direct_url.json")
    if stated is None:
        return f"{extras}=={version('mobilenet')}"
    return f"{extras} @ {json.loads(stated)['url']}"


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_SAID:])
        raise ExportError(
            f"the environment cannot be made: {shlex.join(command)} failed:\n{said}\n"
            f"options of pip may be given in {PIP}, such as --index-url"
        )


def _artifact(content: dict[str, Any]) -> Artifact:
    fallback = content["fallback"]
    paths = {
        "path": Path(content["path"]),
        "file": Path(content["file"]),
        "fallback": None if fallback is None else Path(fallback),
    }
    return Artifact(**{**content, **paths})
