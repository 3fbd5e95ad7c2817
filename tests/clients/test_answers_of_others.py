"""Scripts for ImageJ and Fiji where a 200 is no result, or one that ImageJ cannot open."""

from __future__ import annotations

import io
from dataclasses import replace

import httpx
import numpy as np
import pytest
import tifffile

from tests.clients.conftest import CLIENTS, Cells, Program, losing_proxy
from tests.live import LiveServer

MACRO = CLIENTS / "imagej" / "segment_unet.ijm"
SCRIPT = CLIENTS / "imagej" / "segment_unet.groovy"
LOGIN = httpx.Response(200, headers={"Content-Type": "text/html"}, content=b"<html>Please log in</html>")


@pytest.fixture
def in_tiles(cells: Cells) -> httpx.Response:
    """A result as the service gives it of very large images, in tiles, which ImageJ does not open."""
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, np.asarray(cells.labels, np.uint16), tile=(16, 16))
    return httpx.Response(200, headers={"Content-Type": "image/tiff", "X-UNet-Receipt": "{}"}, content=tiff.getvalue())


def test_the_macro_takes_no_page_to_log_in_for_labels(imagej: Program, server: LiveServer, cells: Cells) -> None:
    saved = imagej.folder / "saved.tif"
    with losing_proxy(server, [LOGIN]) as proxy:
        done = imagej.run("-b", MACRO, f"url={proxy.url} image=[{cells.path}] save=[{saved}]")
    assert "is another server, or a page to log in" in done.stdout
    assert not saved.exists()
    assert imagej.left_behind() == []


def test_the_macro_keeps_a_result_that_imagej_cannot_open(
    imagej: Program, server: LiveServer, cells: Cells, in_tiles: httpx.Response
) -> None:
    saved = imagej.folder / "saved.tif"
    with losing_proxy(server, [in_tiles]) as proxy:
        done = imagej.run("-b", MACRO, f"url={proxy.url} image=[{cells.path}] save=[{saved}]")
    assert "ImageJ cannot open the result" in done.stdout
    assert not saved.exists(), "it would be the image itself"
    (kept,) = imagej.left_behind()
    assert (imagej.temporary / kept).read_bytes() == in_tiles.content


def test_the_groovy_script_takes_no_page_to_log_in_for_labels(
    groovy: Program, server: LiveServer, cells: Cells
) -> None:
    with losing_proxy(server, [LOGIN]) as proxy:
        done = groovy.run(SCRIPT, f"url={proxy.url}", f"image={cells.path}", f"save={groovy.folder / 'saved.tif'}")
    assert done.returncode == 1
    assert "is another server, or a page to log in" in done.stdout + done.stderr


def test_the_groovy_script_keeps_a_result_that_imagej_cannot_open(
    groovy: Program, server: LiveServer, cells: Cells, in_tiles: httpx.Response
) -> None:
    with losing_proxy(server, [in_tiles]) as proxy:
        done = groovy.run(SCRIPT, f"url={proxy.url}", f"image={cells.path}", f"save={groovy.folder / 'saved.tif'}")
    assert done.returncode == 1
    assert "ImageJ cannot open the result" in done.stdout + done.stderr
    (kept,) = groovy.left_behind()
    assert (groovy.temporary / kept).read_bytes() == in_tiles.content


def test_the_groovy_script_saves_labels_and_outlines_where_there_is_no_screen(
    groovy: Program, server: LiveServer, cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    saved = groovy.folder / "saved.tif"
    done = replace(groovy, screen="").run(
        SCRIPT, f"url={server.url}", f"image={cells.path}", f"save={saved}", "rois=true"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    np.testing.assert_array_equal(tifffile.imread(saved), cells.labels)
    assert saved.with_suffix(".zip").read_bytes() == cells.rois
