"""The script for QuPath, run by Groovy with stand-ins of the classes that it uses, against a running service."""

from __future__ import annotations

import json
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tifffile

from service.client import Client
from tests.clients.conftest import (
    BUSY,
    CLIENTS,
    IMAGE,
    REFUSALS_TO_THE_END,
    SECRET,
    KeptGroovy,
    gate,
    losing_proxy,
    refusal,
    with_key,
)
from tests.live import LiveServer

SCRIPT = CLIENTS / "qupath" / "segment_unet.groovy"
BOX = (100, 40, 200, 150)  # x, y, width, height of the annotation


def run(
    kept_groovy: KeptGroovy,
    image: Path,
    *options: str,
    box: tuple[int, ...] | None = BOX,
    z: int = 0,
    script: Path = SCRIPT,
) -> dict[str, Any]:
    """Run the script twice on an image with one annotation, selected where ``box`` is given; what is there then."""
    driver = image.parent / "driver.groovy"
    driver.write_text(f"""
        import groovy.json.JsonOutput
        import qupath.lib.objects.PathObject
        import qupath.lib.objects.PathRoi
        import qupath.lib.scripting.QP
        def image = ij.IJ.openImage('{image}')
        QP.server = [image: image, path: 'image', width: image.width, height: image.height,
                     nZSlices: {{ image.NSlices }}, nTimepoints: {{ image.NFrames }}]
        def shape = new java.awt.Rectangle({", ".join(map(str, box or BOX))})
        def annotation = new PathObject(kind: 'annotation', roi: new PathRoi(shape: shape, z: {z}))
        annotation.addChildObjects([new PathObject(kind: 'annotation', name: 'inner', roi: annotation.roi)])
        QP.root.addChildObjects([annotation])
        QP.selected = {"[annotation]" if box else "[]"}
        2.times {{
            def binding = new Binding({json.dumps(list(options))} as String[])
            new GroovyShell(this.class.classLoader, binding).evaluate(new File('{script}'))
        }}
        def told = {{ it.childObjects.collect {{ [kind: it.kind, x: it.ROI.boundsX, y: it.ROI.boundsY,
            width: it.ROI.boundsWidth, height: it.ROI.boundsHeight, z: it.ROI.z] }} }}
        println('told' + JsonOutput.toJson([root: told(QP.root), annotation: told(annotation), updates: QP.updates]))
    """)
    done = kept_groovy.run(driver)
    line = next((line for line in done.stdout.splitlines() if line.startswith("told")), "")
    assert line, done.stdout + done.stderr
    assert kept_groovy.left_behind() == []
    found: dict[str, Any] = json.loads(line.removeprefix("told"))
    return found


def boxes(objects: list[dict[str, Any]]) -> list[tuple[float, ...]]:
    return sorted((one["x"], one["y"], one["width"], one["height"]) for one in objects if one["kind"] == "detection")


def expected(url: str, image: np.ndarray[Any, Any], inside: tuple[int, ...] | None) -> list[tuple[float, ...]]:
    """Bounds of what the service finds in the whole image, of those whose centre lies inside."""
    with Client(url) as client:
        labels = client.segment_array(image, output="labels")
    found = []
    for label in range(1, labels.max() + 1):
        y, x = np.nonzero(labels == label)
        bounds = (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        centre = (bounds[0] + bounds[2] / 2, bounds[1] + bounds[3] / 2)
        if inside is None or all(
            low <= at < low + length for at, low, length in zip(centre, inside[:2], inside[2:], strict=True)
        ):
            found.append(tuple(map(float, bounds)))
    return sorted(found)


def test_objects_of_an_annotation_lie_where_they_are_in_the_image(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    found = run(kept_groovy, image, f"url={server.url}/")
    assert boxes(found["annotation"]) == expected(server.url, IMAGE, BOX)
    assert [one["kind"] for one in found["annotation"]].count("annotation") == 1, "only detections are replaced"
    assert boxes(found["root"]) == []
    assert found["updates"] == 2


def test_an_object_that_reaches_beyond_the_margin_is_whole_and_of_one_annotation_alone(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path
) -> None:
    image_yx = np.zeros((256, 384), np.uint16)
    image_yx[60:80, 120:370] = 40_000  # its centre within
    image_yx[100:120, 240:380] = 40_000  # its centre beyond, but not that of what a margin of 32 px shows of it
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, image_yx, imagej=True)
    assert expected(server.url, image_yx, BOX) == [(120.0, 60.0, 250.0, 20.0)]
    found = run(kept_groovy, image, f"url={server.url}")
    assert boxes(found["annotation"]) == [(120.0, 60.0, 250.0, 20.0)]


def test_downsampled_objects_of_one_channel_of_a_plane_lie_there_too(
    kept_groovy: KeptGroovy, locked: LiveServer, server: LiveServer, tmp_path: Path
) -> None:
    image = tmp_path / "image.tif"
    double = np.kron(IMAGE, np.ones((2, 2), np.uint16))
    stack = np.zeros((2, 3, *double.shape), np.uint16)
    stack[1, 2] = double
    tifffile.imwrite(image, stack, imagej=True, metadata={"axes": "ZCYX"})
    box = tuple(2 * length for length in BOX)
    options = (f"url={with_key(locked.url, SECRET)}", "downsample=2", "channel=2")
    found = run(kept_groovy, image, *options, box=box, z=1)
    assert boxes(found["annotation"]) == [
        tuple(2 * length for length in one) for one in expected(server.url, IMAGE, BOX)
    ]
    assert {one["z"] for one in found["annotation"]} == {1}


def test_without_an_annotation_every_plane_is_segmented(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, np.stack([IMAGE, np.flip(IMAGE)]), imagej=True, metadata={"axes": "ZYX"})
    found = run(kept_groovy, image, f"url={server.url}", box=None)
    planes = [[one for one in found["root"] if one["z"] == z] for z in (0, 1)]
    assert boxes(planes[0]) == expected(server.url, IMAGE, None)
    assert boxes(planes[1]) == expected(server.url, np.flip(IMAGE), None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("threshold=7",), "threshold is '7', it should be less than 1"),
        (("downsample=0",), "downsample is '0', it should be a number from 0.01"),
        (("treshold=0.5",), "There is no option treshold"),
        (("url=http://alice:secret@127.0.0.1:1",), "No service answers at http://127.0.0.1:1"),
        (("url=alice:secret@host",), "url is 'host', it should begin with http:// or https://"),
    ],
    ids=["by the service", "by the script", "no such option", "nobody there", "no address"],
)
def test_a_refusal_is_an_error_with_its_words(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    with pytest.raises(AssertionError) as failure:
        run(kept_groovy, image, f"url={server.url}", *options)
    assert words in str(failure.value)


def test_the_service_says_that_it_wants_a_key(kept_groovy: KeptGroovy, locked: LiveServer, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    with pytest.raises(AssertionError, match="no key was sent"):
        run(kept_groovy, image, f"url={locked.url}")


def test_only_the_service_is_heard(kept_groovy: KeptGroovy, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    with gate(200) as url, pytest.raises(AssertionError, match=f"{url} is another server, or a page to log in: give"):
        run(kept_groovy, image, f"url={url}")


def test_a_busy_service_is_asked_again_as_long_as_it_says_when(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    with losing_proxy(server, BUSY) as proxy:
        found = run(kept_groovy, image, f"url={proxy.url}")
    assert boxes(found["annotation"]) == expected(server.url, IMAGE, BOX)
    assert len(proxy.asked) == len(BUSY) + 2, "the script runs twice"


@pytest.mark.parametrize("losses", REFUSALS_TO_THE_END)
def test_what_is_refused_for_good_or_for_too_long_is_not_asked_for_again(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path, losses: list[httpx.Response]
) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, IMAGE, imagej=True)
    with losing_proxy(server, losses) as proxy, pytest.raises(AssertionError, match="it is refused"):
        run(kept_groovy, image, f"url={proxy.url}")
    assert len(proxy.asked) == len(losses)


def test_a_service_that_hangs_is_not_asked_for_ever(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path
) -> None:
    image, hasty = tmp_path / "image.tif", tmp_path / "hasty.groovy"
    tifffile.imwrite(image, IMAGE, imagej=True)
    hasty.write_text(SCRIPT.read_text().replace("PATIENCE_S = 600 ", "PATIENCE_S = 3 "))
    refusals = repeat(refusal(504, "1"))
    with losing_proxy(server, refusals) as proxy, pytest.raises(AssertionError, match="it is refused"):
        run(kept_groovy, image, f"url={proxy.url}", script=hasty)
    assert 2 <= len(proxy.asked) <= 4
