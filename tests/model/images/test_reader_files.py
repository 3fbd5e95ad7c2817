"""Every image file of other projects' test suites is read correctly or refused, and nothing else happens."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from model.images import FormatError, ImageHeader, ReadLimits, open_image
from model.images.image import WIDENED
from tests.memory import peak_kib, reset_peak

LIMITS = ReadLimits(max_pixels=1 << 28, max_bytes=1 << 30)
REFUSED_THOUGH_TIFFFILE_READS = {
    "image-tiff/tests/fuzz_images/oor_panic/colormap-shl-overflow.tiff": "directory of TIFF page 1",
    "image-tiff/tests/images/cmyk-3c-8b.tiff": "SEPARATED",
    "pillow/Tests/images/hopper_webp.tif": "WEBP",
    "pillow/Tests/images/old-style-jpeg-compression-no-samplesperpixel.tif": "OJPEG",
    "pillow/Tests/images/separate_planar_extra_samples.tiff": "strip 1 of 2",
    "pillow/Tests/images/tiff_tiled_cmyk_jpeg.tif": "SEPARATED",
}


def read(path: Path) -> tuple[ImageHeader, list[NDArray[Any]]]:
    with path.open("rb") as file, open_image(file, LIMITS) as reader:
        return reader.header, [reader.read_plane(i) for i in range(reader.header.planes)]


def manifest(data_root: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((data_root / "reader-files" / "manifest.json").read_text())
    return entries


@pytest.mark.data
def test_every_file_is_read_as_declared_or_refused(data_root: Path, subtests: pytest.Subtests) -> None:
    files = [path for path in sorted((data_root / "reader-files").rglob("*")) if path.suffix not in {"", ".json"}]
    assert len(files) > 100
    reset_peak()
    before_kib = peak_kib()
    for path in files:
        with subtests.test(path.name):
            began = time.perf_counter()
            try:
                header, planes = read(path)
            except FormatError:
                pass
            else:
                assert len(planes) == header.planes == np.prod(header.stack_shape, dtype=int)
                assert len(header.stack_axes) == len(header.stack_shape)
                assert {plane.dtype for plane in planes} == {header.dtype}
                assert {plane.shape for plane in planes} == {(*header.size_yx, header.channels)}
            assert time.perf_counter() - began < 10
    assert peak_kib() - before_kib < 1 << 20


@pytest.mark.data
def test_what_tifffile_reads_is_read_or_refused_for_a_stated_reason(data_root: Path, subtests: pytest.Subtests) -> None:
    readable = [entry for entry in manifest(data_root) if entry["tifffile"] == "ok"]
    assert len(readable) > 80
    for entry in readable:
        with subtests.test(entry["file"]):
            path = data_root / "reader-files" / entry["file"]
            if reason := REFUSED_THOUGH_TIFFFILE_READS.get(entry["file"]):
                with pytest.raises(FormatError, match=reason):
                    read(path)
                continue
            header, planes = read(path)
            stored = np.dtype(np.uint8 if any("palette" in note for note in header.notes) else entry["dtype"])
            assert header.dtype == WIDENED.get(stored, stored)
            if not any(word in note for note in header.notes for word in ("palette", "alpha", "inverted")):
                expected = tifffile.imread(path, key=0, _multifile=False)
                expected = expected * np.uint8(255) if expected.dtype == np.bool_ else expected
                expected = np.moveaxis(expected, 0, -1) if expected.shape[1:] == header.size_yx else expected
                samples = expected.shape[-1] if expected.ndim == 3 else 1
                np.testing.assert_array_equal(planes[0][..., :samples], expected.reshape(*header.size_yx, samples))


@pytest.mark.data
def test_what_pillow_refuses_as_truncated_is_refused(data_root: Path, subtests: pytest.Subtests) -> None:
    for name in ("broken_data_stream.png", "truncated_end_chunk.png"):
        with subtests.test(name), pytest.raises(FormatError, match="end chunk"):
            read(data_root / "reader-files" / "pillow/Tests/images" / name)
    with pytest.raises(FormatError, match="truncated"):
        read(data_root / "reader-files" / "libvips/test/test-suite/images/truncated.jpg")
    with pytest.raises(FormatError, match="strip 3 of 8"):
        read(data_root / "reader-files" / "generated/broken_truncated_half_deflate.tif")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "axes", "shape", "channels", "pixel_size_um"),
    [
        ("generated/phase_5d_TCZYX.ome.tif", "TZ", (2, 3), 2, None),
        ("exampletiffs/ometiff_testdata/singles/multi-channel-z-series.ome.tif", "Z", (5,), 3, None),
        ("viv/packages/loaders/tests/fixtures/multi-channel.ome.tif", "", (), 3, None),
        ("neubias/image_data/xyc_16bit__nup_nuclei.tif", "", (), 2, None),
        ("neubias/image_data/xyz_8bit_binary__spots.tif", "Z", (17,), 1, (0.0941, 0.0941)),
        ("neubias/image_data/xy_8bit__nup_bgsubtracted.tif", "", (), 1, (0.2636, 0.2636)),
        ("exampletiffs/shapes_tiled_multi.tif", "I", (3,), 3, None),
    ],
)
def test_stacks_and_calibration_of_lab_files(
    *,
    data_root: Path,
    name: str,
    axes: str,
    shape: tuple[int, ...],
    channels: int,
    pixel_size_um: tuple[float, float] | None,
) -> None:
    header, _ = read(data_root / "reader-files" / name)
    assert (header.stack_axes, header.stack_shape, header.channels) == (axes, shape, channels)
    assert header.pixel_size_um == (None if pixel_size_um is None else pytest.approx(pixel_size_um, rel=1e-3))


@pytest.mark.data
def test_any_prefix_of_a_real_tiff_is_refused_or_read_whole(data_root: Path) -> None:
    """Whatever is cut off, nothing is filled in."""
    path = data_root / "reader-files" / "exampletiffs" / "shapes_lzw_tiled.tif"
    data = path.read_bytes()
    whole = read(path)[1][0]
    for length in range(0, len(data), 97):
        try:
            with open_image(io.BytesIO(data[:length]), LIMITS) as reader:
                plane = reader.read_plane(0)
        except FormatError:
            continue
        np.testing.assert_array_equal(plane, whole)
