"""A command that lacks memory says so in one line, whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training.cli import main


@pytest.mark.parametrize("ask", [np.empty, torch.empty])
@pytest.mark.parametrize(
    ("has_checkpoint", "end"), [(True, "goes on from the newest checkpoint\n"), (False, "memory\n")]
)
def test_a_lack_of_memory_is_said_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    ask: Callable[[int], object],
    has_checkpoint: bool,
    end: str,
) -> None:
    def greedy(*_: object, **__: object) -> None:
        if has_checkpoint:
            (tmp_path / "last.pt").touch()
        ask(1 << 58)  # more than any process can address

    monkeypatch.setattr("training.commands.fit.train", greedy)
    assert main(["fit", "--recipe", "synthetic", "--data", "/nowhere", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "there is not enough memory (" in message
    assert "choose a smaller tile_output_px" in message
    assert message.endswith(end)
    assert message.count("\n") == 1


def test_other_errors_of_torch_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.commands.fit.train", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["fit", "--recipe", "synthetic", "--data", "/nowhere", "--out", str(tmp_path)])
