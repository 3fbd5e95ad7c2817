"""``unet-service describe``: results tell how they were made, and the command that it gives makes them again."""

from __future__ import annotations

import json
import shlex
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from service.cli import main
from service.formats import ENCODERS
from service.formats.embedded import embedded_receipt
from service.methods import Made, made_alike
from tests.images import disc, png, tiff
from tests.packages import write_tiny_package

ONE = "1 object of 1 image\n"
SHORT = {
    "service": "0.1.0",
    "input": {},
    "tiles": {},
    "model": {"name": "tiny", "version": "1.0.0"},
    "output": {"kind": "mask"},
    "shortened": True,
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with packages and an image."""
    write_tiny_package(tmp_path / "packages")
    (tmp_path / "a.png").write_bytes(png(disc()))
    (tmp_path / "stack.tif").write_bytes(
        tiff(np.stack([disc(), disc(radius=9)])[:, np.newaxis], imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    )
    monkeypatch.setenv("UNET_MODELS_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result_in(folder: Path) -> Path:
    [result] = (path for path in folder.iterdir() if path.name != ".unet")
    return result


def content(result: Path) -> object:
    """All that a result holds but its receipt: plans of tiles differ by the speed of the machine."""
    match result.suffix:
        case ".tif":
            return tifffile.imread(result).tolist()
        case ".png":
            return np.asarray(Image.open(result)).tolist()
        case ".geojson":
            return json.loads(result.read_bytes())["features"]
        case _:
            return result.read_bytes()


def described(capsys: pytest.CaptureFixture[str], *results: Path | str, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["describe", *map(str, results)]) == status
    return tuple(capsys.readouterr())  # type: ignore[return-value]


@pytest.mark.parametrize("format_name", [*ENCODERS, "ome-zarr"])
def test_every_result_in_a_folder_is_described(
    workplace: Path, capsys: pytest.CaptureFixture[str], format_name: str
) -> None:
    assert main(["segment", "a.png", "-o", "out/", "--output", "labels", "--format", format_name]) == 0
    said, errors = described(capsys, result_in(workplace / "out"))
    assert not errors
    assert said.startswith(ONE)
    assert "unet-service 0.1.0 and the model package tiny 1.0.0 (SHA-256 " in said
    assert f"--format {format_name} " in said
    assert described(capsys, "out")[0] == said
    result_in(workplace / "out").rename(workplace / "alone")
    carries = format_name in {"png", "tiff", "rle", "coco", "geojson", "ome-zarr"}
    alone, errors = described(capsys, "alone", status=0 if carries else 1)
    assert alone == (said if carries else "")
    assert carries != ("alone has no receipt: " in errors)


@pytest.mark.parametrize(
    ("image", "asked", "told"),
    [
        (
            "a.png",
            "--output labels --format tiff --threshold 0.6 --min-area 5 --min-score 0.2",
            "Objects were found by the package's rule with a threshold of 0.6, a smallest area of 5 px, a least mean "
            "probability of 0.2 in place of its own.",
        ),
        ("a.png", "--output probabilities --format tiff", "The results are the probabilities of its classes."),
        ("a.png", "--output mask --format tiff --mirror --scale 0.5", "resampled by 0.5, and its output back. Prob"),
        ("a.png", "--output labels --format geojson --origin 20,40.5 --downsample 4 --pixel-size 0.5,0.25", "Objects"),
        (
            "stack.tif",
            "--output labels --format tiff --link 0.3",
            "have one number where their intersection over union is at least 0.3.",
        ),
        (
            "stack.tif",
            "--output mask --format npy --scale auto --axes CYX --channel 1",
            "The net saw channel 1, counted from 0. For the net images were resampled by 1, and its output back. "
            "Pixels were classified by the package's rule.",
        ),
    ],
)
def test_the_command_makes_the_same_again(
    workplace: Path, capsys: pytest.CaptureFixture[str], image: str, asked: str, told: str
) -> None:
    assert main(["segment", image, "-o", "first/", *asked.split()]) == 0
    said, errors = described(capsys, "first")
    assert told in said
    assert not errors
    [again] = (line.removeprefix("Again: ") for line in said.splitlines() if line.startswith("Again: "))
    program, *command = shlex.split(again)
    assert program == "unet-service"
    assert main([{"IMAGES": image, "RESULTS": "second/"}.get(part, part) for part in command]) == 0
    first, second = (result_in(workplace / folder) for folder in ("first", "second"))
    assert second.name == first.name
    assert content(second) == content(first)
    receipts = [embedded_receipt(result) or {} for result in (first, second)]
    assert receipts[0].get("output") == receipts[1].get("output")


def test_what_was_made_alike_is_described_together(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b.png", "c.png"):
        (workplace / name).write_bytes(png(disc(height=50)))
    assert main(["segment", "a.png", "b.png", "c.png", "-o", "out", "--output", "labels", "--format", "npy"]) == 0
    assert main(["segment", "stack.tif", "-o", "stacks/", "--format", "tiff"]) == 0
    first, second = described(capsys, "out", "stacks")[0].split("\n\nmask of 1 image")
    assert first.startswith("3 objects of 3 images\n")
    assert second.startswith(" of 2 planes in all\n")


def test_what_a_package_says_and_receipts_note_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "wide.tif").write_bytes(tiff(disc(), resolution=(5000, 5000), resolutionunit="CENTIMETER"))
    assert main(["segment", "wide.tif", "-o", "out/", "--format", "tiff"]) == 0
    said, _ = described(capsys, "out")
    assert "Cite:  Ronneberger, Fischer, Brox" in said
    assert "doi:10.1007/978-3-319-24574-4_28" in said
    assert "Note:  1 image: " in said


def test_how_far_a_lower_precision_stands_from_fp32_is_told() -> None:
    receipt = {
        "service": "0.1.0",
        "input": {},
        "tiles": {},
        "model": {"name": "nuclei", "version": "1.3.0", "sha256": "0a9c"},
        "provider": "OpenVINO 2026.4.1 CPU",
        "precision": "int8",
        "output": {"kind": "mask", "format": "png", "channel": 1, "channel_name": "DAPI"},
        "agreement": {"other_class": 0.00018, "largest_difference": 0.027},
    }
    assert Made([receipt]).paragraph() == (
        "Images were segmented with unet-service 0.1.0 and the model package nuclei 1.3.0 (SHA-256 0a9c), which ran in "
        "int8 on OpenVINO 2026.4.1 CPU. On the package's test image, compared with fp32: another class in 0.018% of "
        "pixels, probabilities differ by up to 0.027. The net saw channel 1 (DAPI), counted from 0. Pixels were "
        "classified by the package's rule."
    )
    assert len(made_alike([receipt, {**receipt, "precision": "fp32"}, dict(receipt)])) == 2


def test_files_without_a_receipt_are_named_and_the_others_described(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", "a.png", "-o", "mask.png"]) == 0
    assert main(["segment", "a.png", "-o", "mask.npy", "--format", "npy"]) == 0
    said, errors = described(capsys, "a.png", "mask.npy", "gone.tif", "mask.png", status=1)
    assert said.startswith("mask of 1 image\n")
    [of_image, of_npy, of_gone] = errors.splitlines()
    assert "a.png has no receipt: " in of_image
    assert "mask.npy has no receipt: " in of_npy
    assert "gone.tif cannot be read: No such file or directory" in of_gone
    assert "there is nothing to describe" in described(capsys, "a.png", status=1)[1]


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b'{"receipt": {"service": 1}}',
        b'{"info": [], "receipt": "text"}',
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"unet-receipt\x00{") + chunk(b"IDAT", b""),
        b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"Comment\x00x") + b"\xff\xff\xff\xfftEXtunet",
        b"II*\x00",
        b"II*\x00\x08\x00\x00\x00\x00\x00",
        b"MM no TIFF at all",
        b'{"a":' * 50_000,
        json.dumps({**SHORT, "output": "mask"}).encode(),
        json.dumps({**SHORT, "model": {"name": "a"}}).encode(),
        json.dumps({"receipt": {**SHORT, "input": []}}).encode(),
        json.dumps({"info": {"receipt": {**SHORT, "tiles": 3}}}).encode(),
        b'{"receipt": [1], "receipt": {"service": ',
    ],
)
def test_broken_and_foreign_files_have_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert embedded_receipt(tmp_path / "file") is None


def test_a_long_document_is_read_at_its_ends(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).integers(0, 2, (200, 200), np.uint8) * 255
    (workplace / "noise.png").write_bytes(png(noise))
    monkeypatch.setattr("service.formats.embedded._END_BYTES", 1500)
    for format_name in ("rle", "coco", "geojson"):
        assert main(["segment", "noise.png", "-o", format_name, "--output", "labels", "--format", format_name]) == 0
        result = result_in(workplace / format_name)
        assert result.stat().st_size > 20_000
        receipt = embedded_receipt(result)
        assert receipt is not None
        assert receipt["output"]["format"] == format_name


def test_the_header_of_an_answer_is_a_receipt(tmp_path: Path) -> None:
    (tmp_path / "header").write_text(" " + json.dumps(SHORT))
    assert embedded_receipt(tmp_path / "header") == SHORT


def test_records_of_unfinished_results_are_left_out(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "a.png", "stack.tif", "-o", "out", "--format", "npy"]) == 0
    first, _ = sorted((workplace / "out" / ".unet" / "receipts").iterdir())
    record = json.loads(first.read_bytes())
    del record["finished"]
    first.write_text(json.dumps({**record, "before": None}))
    (first.parent / "broken.json").write_text("{")
    assert described(capsys, "out")[0].startswith("mask of 1 image of 2 planes in all\n")
