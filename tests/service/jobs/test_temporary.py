"""Temporary folders of jobs: those of the living stay, those of the killed go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from service.jobs.temporary import occupy, remove_abandoned, share_of_disk

OCCUPY = "import sys; from pathlib import Path; from service.jobs.temporary import occupy; occupy(Path(sys.argv[1])); "


def name(digit: str) -> str:
    return f"unet-jobs-{digit * 16}"


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    killed, living, mine = (tmp_path / name(digit) for digit in "abc")
    lock = occupy(mine)
    subprocess.run([sys.executable, "-c", OCCUPY + "import os; os._exit(9)", killed], check=False)
    (killed / "result").write_bytes(b"abc")
    for other in (tmp_path / name("d"), tmp_path / "unet-jobs-mine"):  # without a lock it is somebody else's
        other.mkdir()
    (tmp_path / name("e")).symlink_to(living)
    waiting = OCCUPY + "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", waiting, living], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert killed.exists()
        left = set(tmp_path.iterdir()) - {killed}
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == left
        process.communicate(b"\n")
    remove_abandoned(tmp_path)
    assert set(tmp_path.iterdir()) == left - {living}
    os.close(lock)
    remove_abandoned(tmp_path)
    assert not mine.exists()


def test_half_of_the_disk_is_left_to_uploads(tmp_path: Path) -> None:
    assert share_of_disk(tmp_path / name("a")) == shutil.disk_usage(tmp_path).total // 2
    assert share_of_disk(tmp_path / "none" / name("a")) >= 1 << 60, "whoever needs it is told then"
