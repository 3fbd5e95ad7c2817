"""OME-TIFFs that hold a part of what their metadata describe: their planes, sizes and names are those of the part."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import tifffile

from tests.model.images.tiffs import ramp, read

PAGES = ramp(4, 8, 9)
NAMES = ("DAPI", "GFP", "Cy5")


def ome_tiff(sizes: Mapping[str, int], planes: Sequence[Mapping[str, int]], *, elsewhere: str = "") -> bytes:
    """Pages that the metadata describe as these planes, and as many others ``elsewhere``."""
    size = " ".join(f'Size{letter}="{length}"' for letter, length in sizes.items())
    channels = "".join(f'<Channel Name="{name}"/>' for name in NAMES[: sizes["C"]])
    blocks = "".join(
        f'<TiffData IFD="{page}" PlaneCount="1" {" ".join(f"""First{axis}="{at}" """ for axis, at in plane.items())}>'
        '<UUID FileName="here.ome.tif">urn:uuid:1</UUID></TiffData>'
        for page, plane in enumerate(planes)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME UUID="urn:uuid:1"><Image><Pixels DimensionOrder="XYZCT" SizeX="9" '
        f'SizeY="8" {size} Type="uint16" PhysicalSizeX="0.25" PhysicalSizeY="0.5" PhysicalSizeZ="2" '
        f'SignificantBits="12">{channels}{blocks}{elsewhere}</Pixels></Image></OME>'
    )
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, _ in enumerate(planes):
            description = xml if page == 0 else None
            writer.write(PAGES[page], metadata=None, description=description, contiguous=False)
    return file.getvalue()


OTHERS = '<TiffData IFD="0" PlaneCount="1" FirstC="0" FirstZ="0"><UUID FileName="x.tif">urn:uuid:2</UUID></TiffData>'


@pytest.mark.parametrize("elsewhere", ["", OTHERS])
def test_a_file_of_several_is_read_as_the_channels_and_slices_that_it_holds(elsewhere: str) -> None:
    planes = [{"C": c, "Z": z} for z in (1, 2) for c in (1, 2)]
    header, pixels = read(ome_tiff({"Z": 4, "C": 3, "T": 1}, planes, elsewhere=elsewhere))
    assert (header.stack_axes, header.stack_shape, header.channel_names) == ("Z", (2,), ("GFP", "Cy5"))
    assert (header.pixel_size_um, header.spacing_um, header.bits) == ((0.5, 0.25), 2.0, 12)
    assert header.notes == ("8 of the planes that the OME-XML describes are in other files, or missing: left out",)
    np.testing.assert_array_equal(pixels, np.moveaxis(PAGES.reshape(2, 2, 8, 9), 1, -1))


def test_a_stack_that_misses_its_last_planes_is_read_up_to_these() -> None:
    header, pixels = read(ome_tiff({"Z": 5, "C": 1, "T": 1}, [{"Z": z} for z in range(4)]))
    assert (header.stack_axes, header.stack_shape, header.channel_names) == ("Z", (4,), ("DAPI",))
    assert header.pixel_size_um == (0.5, 0.25)
    np.testing.assert_array_equal(pixels[..., 0], PAGES)


def test_pages_that_are_no_stack_keep_the_size_of_their_pixels() -> None:
    header, pixels = read(ome_tiff({"Z": 2, "C": 2, "T": 1}, [{}, {"Z": 1}, {"C": 1}]))
    assert (header.stack_axes, header.stack_shape) == ("I", (3,))
    assert header.pixel_size_um == (0.5, 0.25)
    assert header.notes == (
        "the OME-XML describes 4 planes, the 3 of them in this file make no stack; the pages are read as they stand",
    )
    np.testing.assert_array_equal(pixels[..., 0], PAGES[:3])


def test_a_file_that_is_not_among_those_described_keeps_the_size_of_its_pixels() -> None:
    data = ome_tiff({"Z": 2, "C": 1, "T": 1}, [{}, {"Z": 1}]).replace(
        b'<OME UUID="urn:uuid:1">', b'<OME UUID="urn:uuid:3">'
    )
    header, _ = read(data)
    assert (header.stack_shape, header.pixel_size_um) == ((2,), (0.5, 0.25))
    assert any("the 0 of them in this file make no stack" in note for note in header.notes)


def test_a_file_without_a_name_is_none_of_several() -> None:
    data = ome_tiff({"Z": 2, "C": 1, "T": 1}, [{}, {"Z": 1}], elsewhere=OTHERS)
    header, pixels = read(data.replace(b'<OME UUID="urn:uuid:1">', b"<OME>".ljust(23)))
    assert (header.stack_axes, header.pixel_size_um) == ("I", (0.5, 0.25))
    assert any("names 2 files, and not which of them this one is" in note for note in header.notes)
    np.testing.assert_array_equal(pixels[..., 0], PAGES[:2])
