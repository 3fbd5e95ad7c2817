"""The end of a process in which a thread hangs, and of one in which none does."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from service.engine.ending import leave_what_hangs

threads = ThreadPoolExecutor(1, thread_name_prefix=sys.argv[1])
threads.submit(int).result()
if sys.argv[2] == "hangs":
    threads.submit(threading.Event().wait)
leave_what_hangs()
print("an orderly end")
"""


@pytest.mark.parametrize(
    ("name", "what", "out", "said"),
    [
        ("unet-codec", "hangs", "", "left behind, still computing: unet-codec_0"),
        ("theirs", "idles", "an orderly end", ""),
    ],
)
def test_a_process_leaves_its_own_threads_behind_and_no_idle_one_of_a_library(
    name: str, what: str, out: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, what], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, out, said)
