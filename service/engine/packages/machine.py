"""What this process runs on: for benchmarks to print, and for measured speeds to be kept under."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.session import gpu_names
from service.engine.resources import available_cpus

_CPUINFO = Path("/proc/cpuinfo")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino")


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU, memory, GPUs and runtimes.

    Parameters
    ----------
    cpu
        Model name, as the kernel gives it.
    cpus
        CPUs that this process may keep busy.
    memory_bytes
        Physical memory of the machine.
    gpus
        Name of each NVIDIA GPU.
    runtimes
        Version by distribution, for those that are installed.

    """

    cpu: str
    cpus: int
    memory_bytes: int
    gpus: tuple[str, ...]
    runtimes: dict[str, str]

    def as_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        runtimes = ", ".join(f"{name} {number}" for name, number in self.runtimes.items())
        gpus = "".join(f", {name}" for name in self.gpus)
        return f"{self.cpu}, {self.cpus} CPUs, {self.memory_bytes / 2**30:.0f} GiB{gpus}; {runtimes}"


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(_cpu_model(), available_cpus(), memory, gpu_names(), runtime_versions())


def runtime_versions() -> dict[str, str]:
    """Version of each inference runtime that is installed."""
    found = {}
    for name in _RUNTIMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str:
    """Model name with family, model and stepping: virtual machines call different CPUs by one name."""
    try:
        lines = [line.partition(":") for line in _CPUINFO.read_text().split("\n\n", maxsplit=1)[0].splitlines()]
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    name = fields.get("model name") or platform.processor() or platform.machine()
    numbers = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    return f"{name} ({'/'.join(numbers)})" if numbers else name
