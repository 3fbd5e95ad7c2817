"""The module in CellProfiler itself, without a window, where it is installed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from service.client import Client
from tests.clients.conftest import CLIENTS, IMAGE, SECRET, Program, losing_proxy, with_key
from tests.clients.test_document import example
from tests.live import LiveServer

PIPELINE = CLIENTS / "cellprofiler" / "segment_unet.cppipe"
EXAMPLE = "Address of the service:http://127.0.0.1:8000\n"
UNEVEN = IMAGE + (np.indices(IMAGE.shape).sum(axis=0) % 7).astype(np.uint16) * 9

pytestmark = pytest.mark.program


class Run:
    """Runs the example pipeline, changed as a user would change it, over the images of a folder."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.images, self.output = program.folder / "images", program.folder / "results"
        self.images.mkdir()
        (program.folder / "clients").symlink_to(CLIENTS)

    def __call__(self, url: str, *changes: tuple[str, str]) -> str:
        """Log of a run that ends well, started as the document says.

        Raises
        ------
        RuntimeError
            With the log, where it does not.

        """
        pipeline = PIPELINE.read_text()
        for old, new in ((EXAMPLE, f"Address of the service:{url}\n"), *changes):
            assert pipeline.count(old) == 1, old
            pipeline = pipeline.replace(old, new)
        (self.program.folder / PIPELINE.name).write_text(pipeline)
        ended = self.program.run(example("cellprofiler -c"))
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        return ended.stderr

    def labels(self, stem: str) -> NDArray[np.uint16]:
        labels: NDArray[np.uint16] = tifffile.imread(self.output / f"{stem}_labels.tiff")
        return labels

    def table(self, name: str) -> list[dict[str, str]]:
        with (self.output / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def run(cellprofiler: Program) -> Run:
    return Run(cellprofiler)


def test_objects_of_each_image_are_those_of_its_file(run: Run, locked: LiveServer, server: LiveServer) -> None:
    files = {"of 16 bit": UNEVEN, "of 8 bit": (IMAGE // 200).astype(np.uint8)}
    for stem, image in files.items():
        tifffile.imwrite(run.images / f"{stem}.tif", image, compression="zlib")
    run(with_key(locked.url, SECRET))
    with Client(server.url) as client:
        for stem in files:
            expected = client.segment_array(tifffile.imread(run.images / f"{stem}.tif"), output="labels")
            assert expected.max() == 24
            np.testing.assert_array_equal(run.labels(stem), expected)
    assert [row["Count_Nuclei"] for row in run.table("Image")] == ["24.0", "24.0"]
    areas = [float(row["AreaShape_Area"]) for row in run.table("Nuclei") if row["ImageNumber"] == "1"]
    first = run.labels(Path(run.table("Image")[0]["FileName_DNA"]).stem)
    assert areas == np.bincount(first.ravel())[1:].tolist()


def test_pixels_arrive_as_they_were_acquired(run: Run, server: LiveServer) -> None:
    every_value = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(run.images / "values.tif", every_value)
    with losing_proxy(server, []) as proxy:
        run(proxy.url)
    arrived = np.load(io.BytesIO(proxy.sent[0]))
    assert arrived.dtype == np.uint16
    np.testing.assert_array_equal(arrived, every_value)


def test_a_volume_has_one_number_for_an_object(run: Run, server: LiveServer) -> None:
    planes = np.stack([UNEVEN, UNEVEN, np.zeros_like(UNEVEN), UNEVEN, UNEVEN])
    tifffile.imwrite(run.images / "volume.tif", planes, photometric="minisblack")
    linked = ("Link objects of a volume from:\n", "Link objects of a volume from:0.25\n")
    run(server.url, ("Process as 3D?:No", "Process as 3D?:Yes"), linked)
    with Client(server.url) as client:
        expected = client.segment_array(planes, output="labels", link=0.25)
    assert expected.max() == 48
    np.testing.assert_array_equal(run.labels("volume"), expected)
    assert len(run.table("Nuclei")) == 48


def test_a_refusal_ends_the_run_in_its_words(run: Run, server: LiveServer) -> None:
    tifffile.imwrite(run.images / "cells.tif", IMAGE)
    smallest = ("Smallest object, px:\n", "Smallest object, px:-1\n")
    with pytest.raises(RuntimeError, match="Refused: min_area is '-1', it should be greater than or equal to 0"):
        run(server.url, smallest)
    assert not [*run.output.glob("*.tiff")]
