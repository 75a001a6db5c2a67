"""What a run writes down of how it was made, and whether one is the same."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ..checkpoint import Saved, read_model_json
from ..errors import CheckpointError

_MODULES = {"pillow": "PIL"}


def command_line(out: Path) -> str:
    """The command line that made the run, where it was one."""
    if Path(sys.argv[0]).name != "mobilenet":
        return f"mobilenet.train(..., out={str(out)!r})"
    return shlex.join(["mobilenet", *(word for word in sys.argv[1:] if word != "--resume")])


def versions() -> dict[str, str]:
    packages = ("mobilenet", "torch", "numpy", "pillow", "simplejpeg", "safetensors")
    return {name: version(name) for name in packages if find_spec(_MODULES.get(name, name))}


def revision() -> str | None:
    """The git revision of this package's own checkout, None where it is installed."""
    here = Path(__file__).parent
    answer = subprocess.run(
        ["git", "-C", str(here), "log", "-1", "--format=%H", "--", str(here)],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def require_same(out: Path, fingerprint: str) -> None:
    """Raise CheckpointError for a finished run with other options or data."""
    if read_model_json(out)["provenance"].get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{out}: holds a finished run with other options or data; choose another --out"
        )


def require_same_checkpoint(saved: Saved, out: Path, fingerprint: str) -> None:
    """Raise CheckpointError for a checkpoint of a run with other options or data."""
    if saved.scalars.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{out}: its checkpoints are of a run with other options or data; "
            "resume with the options it began with, or choose another --out"
        )
