"""The process that serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import gc, resource, sys
from pathlib import Path
from service.server import serve
from service.settings import Settings
from service.telemetry import configure_logging

configure_logging("info", "text")
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, most))
serve(Settings(models_dir=Path(sys.argv[1]), port=0))
print(gc.get_freeze_count(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_a_process_is_set_up_to_serve(tmp_path: Path) -> None:
    """To collect garbage in all modules stops every thread, and with them requests and probes; so do too few files."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "listening" in line:
                break
        process.terminate()
        out, _ = process.communicate(timeout=60)
    frozen, soft, hard = map(int, out.split())
    assert frozen > 50_000
    assert soft == hard
