"""The process that serves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import gc, sys
from pathlib import Path
from service.server import serve
from service.settings import Settings
from service.telemetry import configure_logging

configure_logging("info", "text")
serve(Settings(models_dir=Path(sys.argv[1]), port=0))
print(gc.get_freeze_count())
"""


def test_what_modules_hold_is_left_out_of_garbage_collections(tmp_path: Path) -> None:
    """To go through it all stops every thread, and with them requests and probes."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "listening" in line:
                break
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert int(out) > 50_000
