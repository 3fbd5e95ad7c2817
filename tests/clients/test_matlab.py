"""``segment_unet.m``, run by GNU Octave against a running service."""

from __future__ import annotations

import shutil
import socket
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.client import Client
from tests.clients.conftest import (
    BUSY,
    CLIENTS,
    IMAGE,
    LOSSES_OF_A_JOB,
    LOST_JOBS,
    REFUSALS_TO_THE_END,
    SECRET,
    Cells,
    Program,
    assert_asked_as_a_job,
    assert_no_other_server_is_heard,
    gate,
    losing_proxy,
    of_a_replica_that_has_ended,
    refusal,
    refusals_of_a_proxy,
    with_key,
)
from tests.live import LiveServer


def answer(octave: Program, code: str) -> list[str]:
    """What ``code`` displays."""
    done = octave.run("--eval", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def words_of_a_failure(octave: Program, code: str) -> str:
    """The message of the error that ``code`` ends with."""
    return " ".join(answer(octave, f"try, {code}; catch failure, disp(failure.message), end"))


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
        [~, receipt] = segment_unet(image, 'url', '{server.url}', 'mirror', true, 'scale', 0.5);
        disp(class(mask)), disp(isequal(mask > 0, image > 0)), disp(receipt.input.dtype), disp(receipt.tiles.views)
        disp(receipt.output.scale)
    """
    names = {"single": "float32", "double": "float64"}
    assert answer(octave, code) == ["uint8", "1", names.get(kind, kind), "8", "0.5000"]


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
    ("image", "part"),
    [
        ("stack", np.s_[:]),
        ("stack(:, 31:34, :)", np.s_[:, :, 30:34]),
        ("permute(stack(:, :, 1:3), [1 2 4 3])", np.s_[:3]),
    ],
    ids=["planes", "planes four pixels wide", "three planes"],
)
def test_a_stack_comes_back_with_its_planes_in_order(
    octave: Program, server: LiveServer, tmp_path: Path, image: str, part: Any
) -> None:
    shifted = np.stack([np.roll(IMAGE, (7 * index, 13 * index), axis=(0, 1)) for index in range(6)])
    (tmp_path / "stack.raw").write_bytes(shifted.tobytes())
    with Client(server.url) as client:
        expected = client.segment_array(shifted[part][..., np.newaxis], output="labels", link=0.2)
    code = f"""
        file = fopen('{tmp_path}/stack.raw'); stack = fread(file, Inf, '*uint16'); fclose(file);
        stack = permute(reshape(stack, 384, 256, 6), [2 1 3]);
        labels = segment_unet({image}, 'url', '{server.url}', 'link', 0.2);
        disp(size(labels))
        file = fopen('{tmp_path}/labels.raw', 'w'); fwrite(file, permute(labels, [2 1 3]), 'uint16'); fclose(file);
    """
    assert answer(octave, code) == [str(length) for length in (*expected.shape[1:], len(expected))]
    labels = np.fromfile(tmp_path / "labels.raw", np.uint16).reshape(expected.shape)
    assert expected[-1].any()
    np.testing.assert_array_equal(labels, expected)


def test_a_stack_of_colours_comes_back_with_classes_before_planes(octave: Program, server: LiveServer) -> None:
    code = f"""
        image = zeros(40, 70, 3, 6, 'uint8'); image(5:20, 30:60, 2, :) = 120; image(1, 1, 2, 5) = 120;
        options = {{'url', '{server.url}', 'channel', 1, 'output'}};
        p = segment_unet(image, options{{:}}, 'probabilities');
        mask = segment_unet(image, options{{:}}, 'mask');
        printf('%d ', size(p)), disp(isequal(squeeze(p(:, :, 2, :)) > 0.5, mask > 0))
        printf('%d ', size(mask)), disp(isequal(mask > 0, squeeze(image(:, :, 2, :)) > 0))
    """
    assert answer(octave, code) == ["40", "70", "2", "6", "1", "40", "70", "6", "1"]


def test_an_empty_value_counts_as_not_given(octave: Program, server: LiveServer) -> None:
    code = f"""
        [labels, receipt] = segment_unet(120 * ones(40, 70), 'url', '{server.url}', 'model', '', 'min_area', [], ...
          'output', '');
        disp(class(labels)), disp(receipt.model.name)
    """
    assert answer(octave, code) == ["uint16", "tiny"]


def test_pixel_size_and_timeout_reach_the_service(octave: Program, server: LiveServer) -> None:
    code = f"""
        labels = segment_unet(120 * ones(40, 70), 'url', '{server.url}', 'pixel_size', [0.65 0.5], 'timeout', 60);
        disp(size(labels))
        for options = {{{{'pixel_size', [0.5 0]}}, {{'timeout', -1}}}}
          try, segment_unet(ones(9), 'url', '{server.url}', options{{1}}{{:}});
          catch failure, disp(failure.message), end
        end
    """
    height, width, *said = answer(octave, code)
    assert (height, width) == ("40", "70")
    assert "pixel_size is '0.5,0'" in " ".join(said)
    assert "timeout is '-1'" in " ".join(said)


def test_the_key_is_given_in_the_address(octave: Program, locked: LiveServer, cells: Cells) -> None:
    code = f"disp(max(segment_unet('{cells.path}', 'url', '{with_key(locked.url, SECRET)}')(:)))"
    assert answer(octave, code) == ["24"]


@refusals_of_a_proxy
def test_the_answers_of_a_proxy_are_explained(octave: Program, status: int, user: str, words: str) -> None:
    with gate(status) as url:
        address = url.replace("://", "://" + user)
        said = answer(
            octave, f"try, segment_unet(ones(9), 'url', '{address}'); catch failure, disp(failure.message), end"
        )
    assert " ".join(said).startswith(f"{url} {words}")
    assert "secret" not in " ".join(said)


def test_an_answer_that_broke_off_is_asked_for_again(octave: Program, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, ["half", "nothing"]) as proxy:
        code = f"disp(max(segment_unet('{cells.path}', 'url', '{proxy.url}')(:)))"
        assert answer(octave, code) == ["24"]
    assert len(proxy.asked) == 3


def test_a_busy_service_is_asked_again_as_long_as_it_says_when(
    octave: Program, server: LiveServer, cells: Cells
) -> None:
    with losing_proxy(server, BUSY) as proxy:
        code = f"disp(max(segment_unet('{cells.path}', 'url', '{proxy.url}')(:)))"
        assert answer(octave, code) == ["24"]
    assert len(proxy.asked) == len(BUSY) + 1


@pytest.mark.parametrize("losses", REFUSALS_TO_THE_END)
def test_what_is_refused_for_good_or_for_too_long_is_not_asked_for_again(
    octave: Program, server: LiveServer, cells: Cells, losses: list[httpx.Response]
) -> None:
    with losing_proxy(server, losses) as proxy:
        code = f"try, segment_unet('{cells.path}', 'url', '{proxy.url}'); catch failure, disp(failure.message), end"
        assert " ".join(answer(octave, code)) == "it is refused"
    assert len(proxy.asked) == len(losses)


def test_a_service_that_hangs_is_not_asked_for_ever(
    octave: Program, server: LiveServer, cells: Cells, tmp_path: Path
) -> None:
    hasty = (CLIENTS / "matlab" / "segment_unet.m").read_text()
    (tmp_path / "segment_unet.m").write_text(hasty.replace("patience_s = 600;", "patience_s = 3;"))
    with losing_proxy(server, repeat(refusal(504, "1"))) as proxy:
        code = f"try, segment_unet('{cells.path}', 'url', '{proxy.url}'); catch failure, disp(failure.message), end"
        assert " ".join(answer(octave, code)) == "it is refused"
    assert 2 <= len(proxy.asked) <= 4


@pytest.mark.parametrize("name", ["~/cells.tif", "here.tif", "there.tif"], ids=["home", "folder", "load path"])
def test_a_file_is_found_at_home_in_the_folder_and_on_the_load_path(
    octave: Program, server: LiveServer, cells: Cells, tmp_path: Path, name: str
) -> None:
    (tmp_path / "path").mkdir()
    for file in ("cells.tif", "here.tif", "path/there.tif"):
        shutil.copy(cells.path, tmp_path / file)
    code = f"addpath('{tmp_path}/path'), disp(max(segment_unet('{name}', 'url', '{server.url}')(:)))"
    assert answer(octave, code) == ["24"]


def test_the_result_of_a_job_is_that_of_a_request(octave: Program, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, LOSSES_OF_A_JOB) as proxy:
        code = f"""
            [labels, receipt] = segment_unet('{cells.path}', 'url', '{proxy.url}', 'respond_async', true);
            disp(isequal(labels, segment_unet('{cells.path}', 'url', '{server.url}'))), disp(receipt.output.objects)
        """
        assert answer(octave, code) == ["1", "24"]
    assert_asked_as_a_job(proxy)
    assert octave.left_behind() == []


def test_a_job_whose_replica_has_ended_is_sent_again(octave: Program, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, LOST_JOBS) as proxy:
        code = f"disp(max(segment_unet('{cells.path}', 'url', '{proxy.url}', 'respond_async', true)(:)))"
        assert answer(octave, code) == ["24"]
    assert [path.startswith("/segment?") for path in proxy.asked] == [True, False] * 3


def test_a_job_that_is_lost_each_time_is_given_up(octave: Program, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, (*LOST_JOBS, "none", of_a_replica_that_has_ended("draining"))) as proxy:
        code = f"segment_unet('{cells.path}', 'url', '{proxy.url}', 'respond_async', true);"
        assert words_of_a_failure(octave, code) == "it is lost"
    assert len(proxy.asked) == 6


def test_only_the_service_is_heard(octave: Program) -> None:
    def ask(url: str) -> None:
        raise RuntimeError(words_of_a_failure(octave, f"segment_unet(ones(9), 'url', '{url}')"))

    assert_no_other_server_is_heard(ask)


def test_a_service_that_is_silent_is_given_up(octave: Program, tmp_path: Path) -> None:
    hasty = (CLIENTS / "matlab" / "segment_unet.m").read_text()
    assert hasty.count("silence_s = 600;") == 1
    (tmp_path / "segment_unet.m").write_text(hasty.replace("silence_s = 600;", "silence_s = 2;"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code = f"segment_unet(ones(9), 'url', 'http://127.0.0.1:{silent.getsockname()[1]}')"
        assert words_of_a_failure(octave, code).startswith("no service answers: curl: (28)")


def test_a_job_that_fails_is_an_error_with_its_words(octave: Program, server: LiveServer) -> None:
    code = f"""
        image = ones(40, 70); image(3, 4) = NaN;
        try, segment_unet(image, 'url', '{server.url}', 'respond_async', true);
        catch failure, disp(failure.identifier), disp(failure.message), end
    """
    identifier, *words = answer(octave, code)
    assert identifier == "segment_unet:refused"
    assert "NaN" in " ".join(words)


def test_no_answer_that_is_whole_is_an_error(octave: Program, server: LiveServer, cells: Cells) -> None:
    with losing_proxy(server, repeat("half")) as proxy:
        code = f"""
            try, segment_unet('{cells.path}', 'url', '{proxy.url}');
            catch failure, disp(failure.identifier), disp(failure.message), end
        """
        said = answer(octave, code)
    assert said[0] == "segment_unet:incomplete"
    assert " ".join(said[1:]).startswith(
        "the answer broke off 4 times; see the log of the service, and try again: curl: (18)"
    )
    assert len(proxy.asked) == 4
    assert octave.left_behind() == []


@pytest.mark.parametrize(
    ("call", "identifier", "words"),
    [
        ("ones(9), 'url', URL, 'model', 'no such & model'", "refused", "no model 'no such & model' is served"),
        ("ones(9), 'url', URL, 'threshold', 7", "refused", "threshold is '7', it should be less than 1"),
        ("ones(9), 'url', 'http://127.0.0.1:1'", "unreachable", "no service answers"),
        ("true(9), 'url', URL", "class", "an image of class logical cannot be sent"),
        ("ones(9, 8, 5, 7), 'url', URL", "shape", "9 x 8 x 5 x 7"),
        ("ones(9, 8, 1, 7, 2), 'url', URL", "shape", "9 x 8 x 1 x 7 x 2"),
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
