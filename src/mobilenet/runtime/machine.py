"""The machine that numbers are measured on: what must be said beside every one of them."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# what decides how fast convolutions run, as the kernel spells it on x86 and on ARM
# fmt: off
INSTRUCTION_SETS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni",
    "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The CPU and its state at one moment. `affinity` lists the cores this process may use;
    `governor`, `mhz` and `load` (one minute) are None where the system does not tell."""

    cpu: str
    architecture: str
    cores: int
    affinity: tuple[int, ...]
    instruction_sets: tuple[str, ...]
    governor: str | None
    mhz: float | None
    load: float | None
    system: str
    python: str


def inspect_machine() -> Machine:
    """Describe this machine now."""
    info = _cpu_info()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    cores = os.cpu_count() or 1
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(cores)
    mhz = info.get("cpu MHz")
    return Machine(
        cpu=info.get("model name") or info.get("Model") or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=cores,
        affinity=tuple(sorted(affinity)),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        governor=_governor(),
        mhz=float(mhz) if mhz else None,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _cpu_info() -> dict[str, str]:
    """The first core's lines of /proc/cpuinfo; a board's "Model" line is at its very end."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key.strip(), value.strip())
    return found


def _governor() -> str | None:
    try:
        return Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return None
