"""What a receipt notes of how an image was read is said, not only kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli import main
from tests.images import disc
from tests.packages import write_tiny_package

GREY = "three equal channels read as one grey channel"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images of equal channels, and a grey one of which there is nothing to be noted."""
    monkeypatch.setenv("UNET_MODELS_DIR", str(write_tiny_package(tmp_path / "packages" / "tiny").path))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "cab":
        Image.fromarray(np.stack([disc()] * 3, axis=-1)).save(folder / f"{name}.png")
    Image.fromarray(disc()).save(folder / "grey.png")
    return folder


def test_a_note_of_one_image_is_said(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "grey.png"):
        assert main(["segment", str(images / name), "-o", str(images.parent / "mask.png")]) == 0
    assert capsys.readouterr().err == f"note on {images / 'a.png'}: {GREY}\n"


def test_a_note_of_many_images_is_said_once(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["segment", str(images), "-o", str(images.parent / "out")]
    assert main(call) == 0
    assert capsys.readouterr().err == f"note on {images / 'a.png'} and 2 more: {GREY}\n"
    assert main(call) == 0
    assert not capsys.readouterr().err, "nothing has been read"


def test_notes_that_differ_in_their_figures_are_said_once_and_those_of_most_images_first(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 12):
        image = (disc() * 10.0 ** -(8 + number)).astype(np.float32)
        np.save(images / f"{number:02d}.npy", image)
    assert main(["segment", str(images), "-o", str(images.parent / "out"), "--format", "npy"]) == 0
    most, equal = capsys.readouterr().err.splitlines()
    assert most.startswith(f"note on {images / '01.npy'} and 10 more, with other figures: ")
    assert "hardly anything stands out" in most
    assert equal == f"note on {images / 'a.png'} and 2 more: {GREY}"
