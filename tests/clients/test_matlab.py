"""``segment_unet.m``, run by GNU Octave against a running service."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.client import Client
from tests.clients.conftest import IMAGE, Cells, Program
from tests.live import LiveServer


def answer(octave: Program, code: str) -> list[str]:
    """What ``code`` displays."""
    done = octave.run("--eval", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_file_gives_the_labels_that_the_service_gives(
    octave: Program, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    code = f"""
        [labels, receipt] = segment_unet('{cells.path}', 'url', '{server.url}/');
        file = fopen('{tmp_path}/labels.raw', 'w'); fwrite(file, labels', class(labels)); fclose(file);
        disp(class(labels)), disp(size(labels)), disp(receipt.input.dtype), disp(receipt.model.name)
    """
    assert answer(octave, code) == ["uint16", "256", "384", "uint16", "tiny"]
    labels = np.fromfile(tmp_path / "labels.raw", np.uint16).reshape(256, 384)
    np.testing.assert_array_equal(labels, cells.labels)
    assert octave.left_behind() == []


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "uint32", "int32", "single", "double"])
def test_an_array_of_each_class_is_sent_as_it_is(octave: Program, server: LiveServer, kind: str) -> None:
    code = f"""
        image = zeros(40, 70, '{kind}'); image(5:20, 30:60) = 120;
        mask = segment_unet(image, 'url', '{server.url}', 'output', 'mask');
        [~, receipt] = segment_unet(image, 'url', '{server.url}', 'mirror', true);
        disp(class(mask)), disp(isequal(mask > 0, image > 0)), disp(receipt.input.dtype), disp(receipt.tiles.views)
    """
    names = {"single": "float32", "double": "float64"}
    assert answer(octave, code) == ["uint8", "1", names.get(kind, kind), "8"]


def test_planes_and_classes_come_as_further_dimensions(
    octave: Program, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    with Client(server.url) as client:
        expected = client.segment_array(IMAGE, output="probabilities")
    code = f"""
        p = segment_unet('{cells.path}', 'url', '{server.url}', 'output', 'probabilities');
        disp(class(p)), disp(size(p)), printf('%.9g %.9g', p(32, 30, 2), p(10, 300, 1))
    """
    *shape, disc, ground = answer(octave, code)
    assert shape == ["single", "256", "384", "2"]
    assert [float(disc), float(ground)] == pytest.approx([expected[1, 31, 29], expected[0, 9, 299]])


@pytest.mark.parametrize(
    ("call", "identifier", "words"),
    [
        ("ones(9), 'url', URL, 'model', 'no such & model'", "refused", "no model 'no such & model' is served"),
        ("ones(9), 'url', URL, 'threshold', 7", "refused", "threshold is '7', it should be less than 1"),
        ("ones(9), 'url', 'http://127.0.0.1:1'", "unreachable", "no service answers"),
        ("true(9), 'url', URL", "class", "an image of class logical cannot be sent"),
        ("'nowhere.tif', 'url', URL", "file", "there is no file 'nowhere.tif'"),
        ("ones(9), 'treshold', 0.5", "options", "there is no option 'treshold'"),
    ],
)
def test_a_refusal_is_an_error_with_its_words(
    octave: Program, server: LiveServer, call: str, identifier: str, words: str
) -> None:
    call = call.replace("URL", f"'{server.url}'")
    done = octave.run(
        "--eval", f"try\nsegment_unet({call});\ncatch failure\ndisp(failure.identifier)\ndisp(failure.message)\nend"
    )
    assert f"segment_unet:{identifier}" in done.stdout
    assert words in done.stdout
    assert octave.left_behind() == []
