"""The scripts for ImageJ and Fiji, run by ImageJ and by Groovy against a running service."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import httpx
import numpy as np
import pytest
import roifile
import tifffile

from service.client import Client
from service.formats.result import OutputKind
from tests.clients.conftest import (
    BUSY,
    CLIENTS,
    IMAGE,
    LOSSES_OF_A_JOB,
    LOST_JOBS,
    PIXEL_UM,
    REFUSALS_TO_THE_END,
    SECRET,
    Cells,
    KeptGroovy,
    Program,
    assert_asked_as_a_job,
    gate,
    losing_proxy,
    of_a_replica_that_has_ended,
    refusal,
    refusals_of_a_proxy,
    with_key,
)
from tests.live import LiveServer

MACRO = CLIENTS / "imagej" / "segment_unet.ijm"
SCRIPT = CLIENTS / "imagej" / "segment_unet.groovy"


def assert_calibrated_labels(path: Path, cells: Cells) -> None:
    with tifffile.TiffFile(path) as file:
        np.testing.assert_array_equal(file.asarray(), cells.labels)
        assert file.pages[0].dtype == np.uint16
        assert file.imagej_metadata is not None
        assert file.imagej_metadata["unit"] in {"micron", "microns"}
    assert pixel_size(path) == pytest.approx(PIXEL_UM, rel=1e-5)


def pixel_size(path: Path) -> float:
    """Width of a pixel in the unit of the file."""
    with tifffile.TiffFile(path) as file:
        numerator, denominator = file.pages[0].tags["XResolution"].value
    return float(denominator / numerator)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """An image that is accepted as a job, and found to be useless by it."""
    image = IMAGE.astype(np.float32)
    image[3, 4] = np.nan
    tifffile.imwrite(tmp_path / "broken.tif", image, imagej=True)
    return tmp_path / "broken.tif"


@dataclass(frozen=True, slots=True)
class Script:
    """One of the scripts, and what runs it."""

    program: Program | KeptGroovy
    file: Path

    def run(self, **options: object) -> subprocess.CompletedProcess[str]:
        arguments: list[str | Path]
        if self.is_macro:
            arguments = ["-b", self.file, " ".join(f"{name}=[{value}]" for name, value in options.items())]
        else:
            arguments = [self.file, *(f"{name}={value}" for name, value in options.items())]
        done = self.program.run(*arguments)
        assert self.program.left_behind() == []
        return done

    @property
    def is_macro(self) -> bool:
        return self.file.suffix == MACRO.suffix

    def save(self, saved: Path, **options: object) -> None:
        """Run it to its end."""
        done = self.run(save=saved, **options)
        assert saved.exists(), done.stdout + done.stderr
        assert self.is_macro or done.returncode == 0

    def refuse(self, **options: object) -> str:
        """Run it to a refusal; returns what it says."""
        done = self.run(**options)
        assert self.is_macro or done.returncode == 1
        return done.stdout


@pytest.fixture(params=[MACRO, SCRIPT], ids=["macro", "groovy"])
def script(request: pytest.FixtureRequest) -> Script:
    return Script(request.getfixturevalue("imagej" if request.param == MACRO else "kept_groovy"), request.param)


def test_calibrated_labels_and_their_outlines_are_saved(
    request: pytest.FixtureRequest, script: Script, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    if not script.is_macro:  # whose window for the outlines keeps no program of its own alive
        script = replace(script, program=request.getfixturevalue("groovy"))
    saved = tmp_path / "my labels.tif"
    script.save(saved, url=f"{server.url}/", image=cells.path, rois="true")
    assert_calibrated_labels(saved, cells)
    assert saved.with_suffix(".zip").read_bytes() == cells.rois


def test_the_key_is_given_in_the_address(script: Script, locked: LiveServer, cells: Cells, tmp_path: Path) -> None:
    saved = tmp_path / "labels.tif"
    script.save(saved, url=with_key(locked.url, SECRET), image=cells.path)
    assert_calibrated_labels(saved, cells)


@pytest.mark.parametrize("losses", [("half", "nothing"), BUSY], ids=["broken off", "busy"])
def test_it_is_asked_again_where_an_answer_broke_off_and_as_long_as_a_busy_service_says_when(
    script: Script, server: LiveServer, cells: Cells, tmp_path: Path, losses: Sequence[str | httpx.Response]
) -> None:
    saved = tmp_path / "labels.tif"
    with losing_proxy(server, losses) as proxy:
        script.save(saved, url=proxy.url, image=cells.path)
    assert_calibrated_labels(saved, cells)
    assert len(proxy.asked) == len(losses) + 1


@pytest.mark.parametrize("losses", REFUSALS_TO_THE_END)
def test_what_is_refused_for_good_or_for_too_long_is_given_up(
    script: Script, server: LiveServer, cells: Cells, losses: list[httpx.Response]
) -> None:
    with losing_proxy(server, losses) as proxy:
        assert "it is refused" in script.refuse(url=proxy.url, image=cells.path)
    assert len(proxy.asked) == len(losses)


def test_patience_with_a_service_that_hangs_ends(
    script: Script, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    hasty = tmp_path / f"hasty{script.file.suffix}"
    text, found = re.subn(r"\bPATIENCE_S = 600\b", "PATIENCE_S = 3", script.file.read_text())
    assert found == 1
    hasty.write_text(text)
    with losing_proxy(server, repeat(refusal(504, "1"))) as proxy:
        assert "it is refused" in replace(script, file=hasty).refuse(url=proxy.url, image=cells.path)
    assert 2 <= len(proxy.asked) <= 4


def test_where_no_answer_is_whole_it_is_given_up(script: Script, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, repeat("half")) as proxy:
        said = script.refuse(url=proxy.url, image=cells.path)
    how = r"(.|\n)*curl: \(18\)" if script.is_macro else r": \d+ of \d+ bytes came"
    assert re.search(f"The answer of {proxy.url} broke off 4 times{how}", said)
    assert len(proxy.asked) == 4


def test_slices_are_channels_where_axes_say_so(script: Script, server: LiveServer, tmp_path: Path) -> None:
    image, saved = tmp_path / "image.tif", tmp_path / "labels.tif"
    tifffile.imwrite(image, np.stack([np.zeros_like(IMAGE), IMAGE]), imagej=True, metadata={"axes": "ZYX"})
    script.save(saved, url=server.url, image=image, axes="CYX", channel=1)
    labels = tifffile.imread(saved)
    assert labels.shape == IMAGE.shape
    assert labels.max() == 24


def test_slices_are_no_channels_to_choose_among(script: Script, server: LiveServer, tmp_path: Path) -> None:
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, np.stack([IMAGE] * 3), imagej=True, metadata={"axes": "ZYX"})
    assert "channel 1 is asked for, the image has 1; use 0" in script.refuse(url=server.url, image=image, channel=1)


def test_the_result_has_the_pixel_size_that_is_asked_for(
    script: Script, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    saved = tmp_path / "labels.tif"
    script.save(saved, url=server.url, image=cells.path, pixel_size=0.65)
    assert pixel_size(saved) == pytest.approx(0.65, rel=1e-5)


def test_a_folder_that_is_missing_is_told_before_the_work(script: Script, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, []) as proxy:
        said = script.refuse(url=proxy.url, image=cells.path, save="/no/such folder/labels.tif")
    assert "save is '/no/such folder/labels.tif', which cannot be written" in said
    assert proxy.asked == []


def test_the_result_of_a_job_is_taken(script: Script, server: LiveServer, cells: Cells, tmp_path: Path) -> None:
    saved = tmp_path / "labels.tif"
    with losing_proxy(server, LOSSES_OF_A_JOB) as proxy:
        script.save(saved, url=proxy.url, image=cells.path, respond_async="true")
    assert_calibrated_labels(saved, cells)
    assert_asked_as_a_job(proxy)


def test_a_job_whose_replica_has_ended_is_sent_again(
    script: Script, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    saved = tmp_path / "labels.tif"
    with losing_proxy(server, LOST_JOBS) as proxy:
        script.save(saved, url=proxy.url, image=cells.path, respond_async="true")
    assert_calibrated_labels(saved, cells)
    assert [path.startswith("/segment?") for path in proxy.asked] == [True, False] * 3


def test_a_job_that_is_lost_each_time_is_given_up(script: Script, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, (*LOST_JOBS, "none", of_a_replica_that_has_ended("draining"))) as proxy:
        assert "it is lost" in script.refuse(url=proxy.url, image=cells.path, respond_async="true")
    assert len(proxy.asked) == 6


def test_the_macro_gives_up_on_a_service_that_is_silent(imagej: Program, cells: Cells, tmp_path: Path) -> None:
    hasty = tmp_path / "hasty.ijm"
    text, found = re.subn(r"\bSILENCE_S = 600\b", "SILENCE_S = 2", MACRO.read_text())
    assert found == 1
    hasty.write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = imagej.run("-b", hasty, f"url={url} image=[{cells.path}]")
    assert f"No service answers at {url}: curl: (28)" in done.stdout


def test_why_a_job_failed_is_shown(script: Script, server: LiveServer, broken: Path) -> None:
    assert "NaN" in script.refuse(url=server.url, image=broken, respond_async="true")


def test_the_macro_leaves_the_image_of_the_macro_that_calls_it_as_it_was(
    imagej: Program, server: LiveServer, tmp_path: Path
) -> None:
    image, told = tmp_path / "stack.tif", tmp_path / "told.txt"
    tifffile.imwrite(
        image,
        np.stack([IMAGE, np.flip(IMAGE), IMAGE]),
        imagej=True,
        resolution=(1 / 325, 1 / 325),
        metadata={"axes": "ZYX", "unit": "nm", "spacing": 900},
    )
    caller = tmp_path / "caller.ijm"
    caller.write_text(f"""
        open("{image}");
        source = getImageID();
        makeRectangle(10, 20, 50, 60);
        runMacro("{MACRO}", "url={server.url} rois=true link=1");
        Stack.getStatistics(pixels, mean, least, most);
        getVoxelSize(width, height, depth, unit);
        text = getTitle() + "|" + nSlices + "|" + width + "|" + depth + "|" + unit;
        text = text + "|" + roiManager("count") + "|" + nImages + "|" + most;
        selectImage(source);
        getSelectionBounds(x, y, w, h);
        text = text + "|" + getTitle() + "|" + x + "," + y + "," + w + "," + h + "|" + nSlices;
        File.saveString(text, "{told}");
        roiManager("reset");
        close("*");
        run("Quit");
    """)
    done = imagej.run("-m", caller)
    assert told.exists(), done.stdout + done.stderr
    # the flipped discs lie a pixel beside the others, so that none is linked and numbers run through the stack
    assert told.read_text().strip() == "stack-labels|3|325|900|nm|72|2|72|stack.tif|10,20,50,60|3"
    assert imagej.left_behind() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("threshold=7", "threshold is '7', it should be less than 1"),
        ("mirror=often", "mirror is 'often', it should be true or false"),
        ("rois=1", "rois is '1', it should be true or false"),
        ("min_aera=3000", "There is no option min_aera; there are url, image"),
        ("image=/data/my cells.tif", "'cells.tif' is no option"),
        ("model=[no end", "The value of model begins with [, and no ] ends it"),
        ("scale=half", "scale is 'half'"),
        ("link=2", "link is '2', it should be less than or equal to 1"),
        ("model=[no such & model]", "no model 'no such & model' is served; there are tiny@1.0.0"),
        ("pixel_size=0.5,wide", "pixel_size is '0.5,wide'"),
        ("timeout=-1", "timeout is '-1'"),
        ("output=probabilities rois=true", "Probabilities have no outlines"),
    ],
)
def test_the_macro_shows_the_words_of_a_refusal(
    imagej: Program, server: LiveServer, cells: Cells, options: str, words: str
) -> None:
    done = imagej.run("-b", MACRO, f"url={server.url} image=[{cells.path}] {options}")
    assert words in done.stdout
    assert imagej.left_behind() == []


def test_the_macro_names_a_service_that_does_not_answer_without_its_password(imagej: Program, cells: Cells) -> None:
    done = imagej.run("-b", MACRO, f"url=http://alice:secret@127.0.0.1:1 image=[{cells.path}]")
    assert "No service answers at http://127.0.0.1:1" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert imagej.left_behind() == []


@refusals_of_a_proxy
def test_the_macro_explains_the_answers_of_a_proxy(
    imagej: Program, cells: Cells, status: int, user: str, words: str
) -> None:
    with gate(status) as url:
        done = imagej.run("-b", MACRO, f"url={url.replace('://', '://' + user)} image=[{cells.path}]")
    assert f"{url} {words}" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_the_macro_says_what_the_service_says_of_a_key(imagej: Program, locked: LiveServer, cells: Cells) -> None:
    done = imagej.run("-b", MACRO, f"url={with_key(locked.url, 'secret-secret-secret')} image=[{cells.path}]")
    assert "the key is none of the 1 that are known" in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("model", ["[the service's default]", "tiny@1.0.0"], ids=["default", "by name"])
def test_the_macro_offers_the_models_of_the_service(
    groovy: Program, server: LiveServer, cells: Cells, tmp_path: Path, model: str
) -> None:
    # a thread with this name reads dialogs from a macro's options, as when ImageJ plays a recorded macro; an option
    # that a choice does not offer ends the macro
    driver = tmp_path / "driver.groovy"
    driver.write_text(f"""
        new ij.ImageJ(ij.ImageJ.NO_SHOW)
        ij.IJ.openImage('{cells.path}').show()
        Thread.currentThread().name = 'Run$_driver'
        ij.Macro.options = "service={server.url} model={model} result=labels smallest=3 pixel=0.5 seconds=50"
        new ij.macro.Interpreter().run(new File('{MACRO}').text, '')
        println(['told', ij.IJ.image.title, ij.IJ.image.statistics.max as int].join('|'))
        System.exit(0)
    """)
    preferences = tmp_path / ".imagej"
    preferences.mkdir()
    (preferences / "IJ_Prefs.txt").write_text(f".unet.url={server.url}\n")
    done = groovy.run(driver)
    assert "told|my cells-labels|24" in done.stdout, done.stdout + done.stderr


def test_the_macro_names_channels_in_any_script(imagej: Program, server: LiveServer, tmp_path: Path) -> None:
    image, saved, caller = tmp_path / "image.tif", tmp_path / "labels.tif", tmp_path / "caller.ijm"
    channels = np.stack([np.zeros_like(IMAGE), IMAGE])
    tifffile.imwrite(image, channels, imagej=True, metadata={"axes": "CYX", "Labels": ["Tub", "βTub"]})
    options = f'"url={server.url} image=[{image}] save=[{saved}] channel=" + fromCharCode(0x3b2) + "Tub"'
    caller.write_text(f'runMacro("{MACRO}", {options});')
    done = imagej.run("-b", caller)
    assert saved.exists(), done.stdout + done.stderr
    assert tifffile.imread(saved).max() == 24


def test_the_groovy_script_takes_the_active_image_and_its_dialog(
    groovy: Program, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    # a thread with this name reads dialogs from a macro's options, as when Fiji plays a recorded macro; an option that
    # a choice does not offer ends the macro
    (tmp_path / ".imagej").mkdir()
    (tmp_path / ".imagej" / "IJ_Prefs.txt").write_text(f".unet.url={server.url}\n")
    outlines = tmp_path / "outlines.zip"
    driver = tmp_path / "driver.groovy"
    driver.write_text(f"""
        new ij.ImageJ(ij.ImageJ.NO_SHOW)
        ij.IJ.openImage('{cells.path}').show()
        Thread.currentThread().name = 'Run$_driver'
        ij.Macro.options = 'service={server.url} model=tiny@1.0.0 result=labels smallest=3 pixel=0.5 seconds=50 ' +
            'outlines mean'
        new GroovyShell(new Binding()).evaluate(new File('{SCRIPT}'))
        def result = ij.IJ.image
        def scale = result.calibration
        def pixels = [result.statistics.max, result.bitDepth]
        println(['told', result.title, *pixels, scale.pixelWidth.round(6), scale.unit].join('|'))
        ij.plugin.frame.RoiManager.roiManager.with {{ deselect(); runCommand('save', '{outlines}') }}
        System.exit(0)
    """)
    done = groovy.run(driver)
    told = next((line for line in done.stdout.splitlines() if line.startswith("told")), done.stdout + done.stderr)
    assert told == "told|my cells-labels|24.0|16|0.5|micron"
    assert len(roifile.roiread(outlines)) == 24


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("threshold=7",), "threshold is '7', it should be less than 1"),
        (("mirror=often",), "mirror is 'often'"),
        (("scale=half",), "scale is 'half'"),
        (("link=2",), "link is '2', it should be less than or equal to 1"),
        (("pixel_size=0.5,wide",), "pixel_size is '0.5,wide'"),
        (("timeout=-1",), "timeout is '-1'"),
        (("treshold=0.5",), "There is no option treshold"),
        (("rois=1",), "rois is '1', it should be true or false"),
        (("url=http://127.0.0.1:1",), "No service answers at http://127.0.0.1:1"),
        (("url=http://127.0.0.1:99999",), "No service answers at http://127.0.0.1:99999: port out of range"),
        (("url=127.0.0.1:8000",), "url is '127.0.0.1:8000', it should begin with http:// or https://"),
        (("url=alice:secret@host",), "url is 'host', it should begin with http:// or https://"),
        (("url=https://alice:100%@host",), "In the user name or password for https://host a % stands alone"),
        (("image=nowhere.tif",), "image is 'nowhere.tif', which ImageJ cannot open"),
        (("image=",), "No image is open"),
    ],
    ids=[
        "by the service",
        "by the service too",
        "by the service for a scale",
        "by the service for a link",
        "by the service for a size",
        "by the service for a time",
        "by the script",
        "neither true nor false",
        "nobody there",
        "no such port",
        "no address",
        "no address that is shown",
        "no encoding",
        "no such file",
        "no image",
    ],
)
def test_the_groovy_script_shows_the_words_of_a_refusal(
    kept_groovy: KeptGroovy, server: LiveServer, cells: Cells, options: tuple[str, ...], words: str
) -> None:
    done = kept_groovy.run(SCRIPT, f"url={server.url}", f"image={cells.path}", *options)
    assert words in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("key", [None, "secret-secret-secret"], ids=["no key", "another key"])
def test_the_groovy_script_says_that_the_service_wants_a_key(
    kept_groovy: KeptGroovy, locked: LiveServer, cells: Cells, key: str | None
) -> None:
    done = kept_groovy.run(SCRIPT, f"url={with_key(locked.url, key) if key else locked.url}", f"image={cells.path}")
    words = "does not know the user and password, or the key" if key else "wants user and password, or a key"
    assert f"{locked.url} {words}" in done.stdout
    assert "secret" not in done.stdout + done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (403, {}, "knows who asks, and does not allow it (403)"),
        (308, {"Location": "https://secret@else/segment"}, "answers 308 and names https://else/segment"),
        (418, {}, "The service answers 418: <h1>no</h1>"),
    ],
    ids=["forbidden", "moved", "anything else"],
)
def test_the_groovy_script_explains_the_answers_of_a_proxy(
    kept_groovy: KeptGroovy, cells: Cells, status: int, headers: dict[str, str], words: str
) -> None:
    with gate(status, **headers) as url:
        done = kept_groovy.run(SCRIPT, f"url={with_key(url, 'secret')}", f"image={cells.path}")
    assert words in done.stdout
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("output", ["labels", "mask", "probabilities"])
@pytest.mark.parametrize("axes", ["YX", "ZYX", "TZYX"])
def test_the_groovy_script_keeps_every_plane_and_its_place(
    kept_groovy: KeptGroovy, server: LiveServer, tmp_path: Path, axes: str, output: OutputKind
) -> None:
    image, saved, expected = tmp_path / "image.tif", tmp_path / "saved.tif", tmp_path / "expected.tif"
    shape = {"T": 3, "Z": 2}
    planes = [np.roll(IMAGE, 7 * index, axis=0) for index in range(6)]
    stack = np.stack(planes).reshape(3, 2, *IMAGE.shape)[(0,) * (4 - len(axes))]
    tifffile.imwrite(image, stack, imagej=True, metadata={"axes": axes, "finterval": 2.5})
    with Client(server.url) as client:
        expected.write_bytes(client.segment(image, output=output, format="tiff"))
    done = kept_groovy.run(SCRIPT, f"url={server.url}", f"image={image}", f"output={output}", f"save={saved}")
    assert done.returncode == 0, done.stdout + done.stderr
    with tifffile.TiffFile(saved) as file, tifffile.TiffFile(expected) as straight:
        np.testing.assert_array_equal(file.asarray(), straight.asarray())
        assert file.series[0].axes == straight.series[0].axes
        assert file.asarray().shape[: len(axes) - 2] == tuple(shape[axis] for axis in axes[:-2])


def test_the_groovy_script_sends_all_of_a_virtual_stack(groovy: Program, server: LiveServer, tmp_path: Path) -> None:
    image, driver = tmp_path / "image.tif", tmp_path / "driver.groovy"
    tifffile.imwrite(image, np.stack([IMAGE, np.flip(IMAGE)]), imagej=True, metadata={"axes": "ZYX"})
    driver.write_text(f"""
        ij.ImagePlus image = ij.IJ.openVirtual('{image}')
        image.setRoi(10, 20, 50, 60)
        ij.WindowManager.tempCurrentImage = image
        println "virtual|${{image.stack.isVirtual()}}"
        Runtime.runtime.addShutdownHook {{ println "selected|${{image.roi.bounds.width}}" }}
        def binding = new Binding(['url={server.url}', 'save={tmp_path}/labels.tif'] as String[])
        new GroovyShell(binding).evaluate(new File('{SCRIPT}'))
    """)
    done = groovy.run(driver)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "virtual|true\n" in done.stdout
    assert "selected|50.0\n" in done.stdout
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.shape == (2, *IMAGE.shape)
    assert [plane.max() for plane in labels] == [24, 24]


def test_the_groovy_script_names_https_where_a_server_speaks_http(
    kept_groovy: KeptGroovy, server: LiveServer, cells: Cells
) -> None:
    secure = server.url.replace("http:", "https:")
    done = kept_groovy.run(SCRIPT, f"url={secure}", f"image={cells.path}")
    assert f"No service answers at {secure}" in done.stdout
    assert "https:// where it should be http://" in done.stdout
    assert done.returncode == 1


def test_the_groovy_script_gives_up_on_a_service_that_is_silent(groovy: Program, cells: Cells, tmp_path: Path) -> None:
    # a connection of Java's own kind whose time is up at once
    driver = tmp_path / "driver.groovy"
    driver.write_text(f"""
        class Silent extends HttpURLConnection {{
            Silent(URL url) {{ super(url) }}
            void connect() {{ println "told|$connectTimeout|$readTimeout" }}
            void disconnect() {{}}
            boolean usingProxy() {{ false }}
            OutputStream getOutputStream() {{ OutputStream.nullOutputStream() }}
            InputStream getInputStream() {{ throw new SocketTimeoutException('Read timed out') }}
        }}
        URL.setURLStreamHandlerFactory({{ it == 'http' ? new URLStreamHandler() {{
            protected URLConnection openConnection(URL url) {{ new Silent(url) }}
        }} : null }} as URLStreamHandlerFactory)
        def binding = new Binding(['url=http://127.0.0.1:8000', 'image={cells.path}'] as String[])
        new GroovyShell(binding).evaluate(new File('{SCRIPT}'))
    """)
    done = groovy.run(driver)
    assert [line for line in done.stdout.splitlines() if line.startswith("told")] == ["told|10000|600000"], done.stderr
    assert "http://127.0.0.1:8000 has not answered within 600 s" in done.stdout
    assert done.returncode == 1
