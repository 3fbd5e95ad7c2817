"""Packages that are damaged, or made to do harm: refused with the reason, at once, and nothing else happens."""

from __future__ import annotations

import io
import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.errors import InvalidPackage, ModelError
from model.package import RDF_NAME, Package, read_package, tensor_bytes, write_package
from service.cli import main
from tests.packages import edit, write_tiny_package


@pytest.fixture
def tiny(tmp_path: Path) -> Package:
    return write_tiny_package(tmp_path / "packages")


@contextmanager
def little_memory() -> Iterator[None]:
    """Let the process have 2 GiB of addresses more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused_for(path: Path) -> str:
    try:
        package = read_package(path)
        package.check_files()
        package.golden_pair()
    except ModelError as error:
        return str(error)
    pytest.fail(f"{path} is not refused")


def described(package: Package, key: str, text: str) -> Path:
    """Give a member of the description a value as YAML text."""
    file = package.path / RDF_NAME
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join([*lines, f"{key}: {text}", ""]))
    return package.path


BOMB = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
)


@pytest.mark.parametrize("key", ["name", "license", "format_version", "tags", "unknown"])
def test_references_that_grow_without_bounds_are_not_followed(tiny: Package, key: str) -> None:
    path = described(tiny, key, "*a8")
    file = path / RDF_NAME
    file.write_text(f"{BOMB}\n{file.read_text()}")
    with little_memory():
        assert "has more than 1048576 bytes once its references are followed" in refused_for(path)


def test_merges_that_grow_without_bounds_are_not_made(tiny: Package) -> None:
    lines = ["l0: &l0 {k: v}", *(f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 10)}]}}" for n in range(1, 12))]
    file = tiny.path / RDF_NAME
    file.write_text("\n".join([*lines, file.read_text()]))
    assert "it merges mappings (<<), which is not followed; write them out" in refused_for(tiny.path)


@pytest.mark.parametrize("text", ["x,", "[],", "a: b,", "*a,"])
def test_a_million_small_things_are_not_read(tiny: Package, text: str) -> None:
    brackets = "{}" if ":" in text else "[]"
    path = described(tiny, "unknown", f"[&a b, {brackets[0]}{text * (900_000 // len(text))}{brackets[1]}]")
    assert "it has 20001 keys, values and lists or more, the limit is 20000" in refused_for(path)


def test_lists_deep_in_each_other_end_in_a_refusal(tiny: Package) -> None:
    assert "recursion" in refused_for(described(tiny, "unknown", "[" * 500_000))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("&s [*s]", "Circular"),
        ("!!binary aGVsbG8=", "holds a bytes, which is no plain value"),
        ("!!set {a, b}", "holds a set"),
        ('"\\ud800"', "surrogates not allowed"),
        ("!!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_what_json_cannot_tell_is_refused_before_it_breaks_every_list(tiny: Package, text: str, said: str) -> None:
    assert said in refused_for(described(tiny, "unknown", text))


def test_dates_and_numbers_for_text_are_taken(tiny: Package) -> None:
    described(tiny, "timestamp", "2026-01-31")
    assert read_package(described(tiny, "version", "1.5")).spec.version == "1.5"


def test_titles_are_one_line_that_steers_no_terminal(tiny: Package) -> None:
    assert read_package(described(tiny, "name", '"a\\e[2Jb\\nc"')).spec.title == "a [2Jb c"


@pytest.mark.parametrize("tensor", ["inputs", "outputs"])
def test_text_is_no_list_of_names(tiny: Package, tensor: str) -> None:
    path = edit(tiny, lambda rdf: rdf[tensor][0]["axes"][1].update(channel_names="ab"))
    assert "'ab' stands where a list of names is expected" in refused_for(path)


@pytest.mark.parametrize("value", [10**30, 1 << 21, float("inf"), float("nan"), 16.0, "16", None, [16]])
@pytest.mark.parametrize("key", ["min", "step"])
def test_sizes_that_are_none_are_refused(tiny: Package, key: str, value: object) -> None:
    path = edit(tiny, lambda rdf: rdf["inputs"][0]["axes"][2]["size"].update({key: value}))
    assert refused_for(path)


@pytest.mark.parametrize("value", [10**30, float("inf"), float("nan"), "x"])
@pytest.mark.parametrize("key", ["halo", "scale"])
def test_other_numbers_that_are_none_are_refused(tiny: Package, key: str, value: object) -> None:
    def change(rdf: dict[str, Any]) -> None:
        for tensor in ("inputs", "outputs"):
            rdf[tensor][0]["axes"][2][key] = value

    assert refused_for(edit(tiny, change))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("absolute_tolerance", float("inf")),
        ("absolute_tolerance", 0.5),
        ("relative_tolerance", 1.0),
        ("mismatched_elements_per_million", 10**4000),
        ("mismatched_elements_per_million", 500_000),
    ],
)
def test_a_tolerance_that_lets_any_net_pass_is_refused(tiny: Package, key: str, value: float) -> None:
    def change(rdf: dict[str, Any]) -> None:
        rdf["config"]["bioimageio"]["reproducibility_tolerance"][0][key] = value

    assert "less than or equal to" in refused_for(edit(tiny, change))


@pytest.mark.parametrize(
    "value",
    [
        [0, 20.5, 49.5],
        [-7.5, 20.5, 49.5],
        [7.5, float("nan"), 49.5],
        [7.5, 20.5, float("inf")],
        [7.5, 20.5, 10**30],
        [7.5, 20.5, 10**4000],
        [20.5, 7.5, 49.5],
        [7.5, 49.5, 20.5],
        [7.5, 20.5],
        [7.5, 20.5, 49.5, 60.0],
        ["7.5", "20.5", "49.5"],
        [True, True, True],
        [None, None, None],
        {"5": 7.5, "50": 20.5, "95": 49.5},
        20.5,
        "7.5",
        [],
    ],
    ids=str,
)
def test_diameters_that_are_none_are_refused(tiny: Package, value: object) -> None:
    path = edit(tiny, lambda rdf: rdf["config"]["unet_service"].update(object_diameter_px=value))
    assert "object_diameter_px" in refused_for(path)


@pytest.mark.parametrize("value", [[8, 20, 50], [20.5, 20.5, 20.5], None])
def test_diameters_may_be_whole_equal_or_left_out(tiny: Package, value: list[float] | None) -> None:
    path = edit(tiny, lambda rdf: rdf["config"]["unet_service"].update(object_diameter_px=value))
    found = read_package(path).spec.object_diameter_px
    assert found == (None if value is None else tuple(map(float, value)))


def zipped(folder: Path, compression: int, **instead: bytes) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in folder.iterdir():
            archive.writestr(file.name, instead.get(file.name.replace(".", "_"), file.read_bytes()))
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("command", ["check", "models"])
def test_a_zip_with_flipped_bytes_is_refused(
    tiny: Package, compression: int, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = zipped(tiny.path, compression)
    with zipfile.ZipFile(path) as archive:
        found = archive.getinfo("weights.onnx")
    content = bytearray(path.read_bytes())
    at = found.header_offset + 30 + len(found.filename) + found.compress_size // 2
    for place in range(at - 8, at + 8):
        content[place] ^= 0xFF
    path.write_bytes(content)
    assert "cannot be read" in refused_for(path)
    (tiny.path / RDF_NAME).unlink()
    call = ["check", str(path)] if command == "check" else ["models", "--models-dir", str(path.parent)]
    assert main([*call, "--backend", "cpu"]) in {1, 2}
    assert "weights.onnx cannot be read" in capsys.readouterr().err


def test_files_that_swell_are_not_unpacked(tiny: Package) -> None:
    path = zipped(tiny.path, zipfile.ZIP_DEFLATED, rdf_yaml=b" " * (64 << 20))
    with little_memory():
        assert "rdf.yaml has 67108864 bytes, the limit for such a file is 1048576" in refused_for(path)
    path = zipped(tiny.path, zipfile.ZIP_DEFLATED, README_md=b" " * (64 << 20))
    with pytest.raises(InvalidPackage, match="has 67108864 bytes, the limit for such a file is 4194304"):
        read_package(path).readme()


@pytest.mark.parametrize("feigned", [None, 1 << 30])
def test_weights_that_swell_are_not_unpacked(tiny: Package, feigned: int | None) -> None:
    path = zipped(tiny.path, zipfile.ZIP_DEFLATED, weights_onnx=bytes(100 << 20))
    if feigned is not None:  # the packed size that the directory at the zip's end gives
        content = bytearray(path.read_bytes())
        at = content.rindex(b"weights.onnx") - 46 + 20
        content[at : at + 4] = feigned.to_bytes(4, "little")
        path.write_bytes(content)
    refused = refused_for(path)
    assert "weights.onnx has 104857600 bytes" in refused
    assert "the limit above 67108864 is 20 times as many. If they are meant, unpack the zip to a folder" in refused


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tiny: Package) -> None:
    (tiny.path / "weights.onnx").unlink()
    os.mkfifo(tiny.path / "weights.onnx")
    assert "'weights.onnx' is no file" in refused_for(tiny.path)


def test_a_name_with_a_zero_byte_is_refused(tiny: Package) -> None:
    path = edit(tiny, lambda rdf: rdf.update(documentation={"source": "a\0b"}))
    assert "cannot be read: embedded null byte" in refused_for(path)


def header(text: str) -> bytes:
    """``.npy`` bytes with a header of one's own."""
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1000000000, 1000000000), }"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, (((("),
        header("("),
        tensor_bytes(np.zeros((1, 1, 8, 8), np.float32))[:-9],
    ],
)
def test_a_broken_test_tensor_is_refused(tiny: Package, content: bytes) -> None:
    files = {**tiny.own_files(), "test_input.npy": content}
    with little_memory():
        assert "test_input.npy is no numeric .npy tensor" in refused_for(
            write_package(tiny.path, tiny.spec, files).path
        )


def test_an_object_array_is_not_unpickled(tiny: Package) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    files = {**tiny.own_files(), "test_input.npy": buffer.getvalue()}
    assert "is no numeric .npy tensor" in refused_for(write_package(tiny.path, tiny.spec, files).path)
