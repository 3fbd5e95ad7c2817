"""``unet-service`` in this process: exit status, what is written, what is said."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.cli import main
from tests.images import disc, png
from tests.packages import write_tiny_package


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages and two images, and an environment that names the packages."""
    write_tiny_package(tmp_path / "packages")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(png(disc()))
    (images / "b.png").write_bytes(png(disc(50, 70)))
    monkeypatch.setenv("UNET_MODELS_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("UNET_BACKEND", "cpu")
    return tmp_path


def test_one_image_becomes_one_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = workplace / "mask.png"
    assert main(["segment", str(workplace / "images" / "a.png"), "-o", str(out)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.where(disc() > 110, 255, 0))
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_a_folder_becomes_a_folder_and_a_bad_file_sets_the_status(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "images" / "bad.tif").write_text("text")
    out = workplace / "out"
    arguments = ["segment", str(workplace / "images"), "-o", str(out), "--output", "labels", "--format", "tiff"]
    assert main(arguments) == 1
    assert sorted(path.name for path in out.iterdir()) == ["a_labels.tif", "b_labels.tif"]
    assert "bad.tif: the body is no known image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "2"], "threshold is '2'"),
        (["--format", "gif"], "format 'gif' does not exist"),
        (["--backend", "gpu"], "UNET_BACKEND (--backend) is 'gpu'"),
    ],
)
def test_a_wrong_call_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["segment", str(workplace / "images"), "-o", str(workplace / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (workplace / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("q.xyz", [], "give --format"),
        ("q.png", ["--format", "tiff"], "a name for png, the format asked for is tiff"),
    ],
)
def test_a_result_file_that_does_not_go_with_the_format_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, options: list[str], said: str
) -> None:
    out = workplace / name
    assert main(["segment", str(workplace / "images" / "a.png"), "-o", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_port_that_is_taken_is_named_with_status_1(workplace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "service.cli", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"unet-service: cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_setting_ends_serve_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNET_PORT", "seventy")
    assert main(["serve"]) == 2
    assert "UNET_PORT (--port) is 'seventy'" in capsys.readouterr().err


def test_models_prints_a_table_and_what_is_not_served(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["tiny@1.0.0", "grey", "background,object"]
    (workplace / "packages" / "broken.zip").write_bytes(b"")
    assert main(["models"]) == 1
    assert "broken.zip is not served" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("nope", "is no folder"), ("images", "holds no model package")])
def test_models_of_what_holds_none_is_explained_with_status_2(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    assert main(["models", "--models-dir", str(workplace / name)]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert not shown.out


def test_check_says_what_a_package_serves(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(workplace / "packages" / "tiny")]) == 0
    shown = capsys.readouterr().out
    assert "tiny@1.0.0" in shown
    assert "CPUExecutionProvider" in shown


def test_check_refuses_a_package_whose_weights_were_changed(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "packages" / "tiny" / "weights.onnx").write_bytes(b"")
    assert main(["check", str(workplace / "packages" / "tiny")]) == 1
    assert "refused" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_a_failure_per_image(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", str(workplace / "images" / "a.png"), "-o", str(workplace / "m.png")]
    assert main([*arguments, "--url", "http://127.0.0.1:9"]) == 1
    assert "is the service running?" in capsys.readouterr().err
