"""Packages: what is written is read back, what is damaged or unknown is refused with the reason."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from model.errors import InvalidPackage, UnsupportedPackage
from model.label_rule import LabelRule
from model.normalization import Clip, FixedZeroMeanUnitVariance, ScaleLinear, ScaleRange, Step, ZeroMeanUnitVariance
from model.package import RDF_NAME, RDF_NAMES, Package, read_package, tensor_bytes, write_package
from model.tiling import AxisGeometry, Geometry
from tests.foreign import write_foreign_package
from tests.packages import edit, with_variant, write_tiny_package


@pytest.fixture
def tiny(tmp_path: Path) -> Package:
    return write_tiny_package(tmp_path)


RULES: list[tuple[Step, ...]] = [
    (ScaleRange(min_percentile=1, max_percentile=99.8),),
    (ZeroMeanUnitVariance(per_channel=False), Clip(min=-5.0, max=5.0)),
    (FixedZeroMeanUnitVariance(mean=(0.5,), std=(0.25,)),),
    (ScaleLinear(gain=(2.0,), offset=(-0.5,)),),
]


@pytest.mark.parametrize("normalization", RULES)
def test_a_package_reads_back_as_it_was_written(tmp_path: Path, normalization: tuple[Step, ...]) -> None:
    rule = LabelRule(method="watershed", seed_threshold=0.8, min_area_px=12)
    written = write_tiny_package(tmp_path, normalization=normalization, label_rule=rule)
    assert read_package(written.path).spec == written.spec


def test_a_boundary_reads_back_and_is_written_only_where_there_is_one(tmp_path: Path) -> None:
    rule = LabelRule(method="watershed", foreground=(1,), seeds=(1,), boundary=(0,))
    for wanted in (rule, LabelRule()):
        written = write_tiny_package(tmp_path, label_rule=wanted)
        assert read_package(written.path).spec.label_rule == wanted
        rdf = yaml.safe_load((written.path / RDF_NAME).read_text())
        assert ("boundary" in rdf["config"]["unet_service"]["labels"]) == bool(wanted.boundary)


def test_a_padded_net_with_halo_reads_back(tmp_path: Path) -> None:
    axis = AxisGeometry(minimum=34, step=8, shrink=0, halo=8, grid=8)
    written = write_tiny_package(tmp_path, geometry=Geometry(axis, axis))
    assert read_package(written.path).spec.geometry == written.spec.geometry


def test_a_variant_reads_back_and_is_an_attachment_for_everybody_else(tiny: Package) -> None:
    written = with_variant(tiny)
    assert read_package(written.path).spec == written.spec
    assert written.weights("int8") == (tiny.path / "int8.onnx").read_bytes()
    assert written.weights("bf16") == written.weights() == (tiny.path / "weights.onnx").read_bytes()
    rdf = yaml.safe_load((tiny.path / RDF_NAME).read_text())
    assert [entry["source"] for entry in rdf["attachments"]] == ["int8.onnx"]


def test_a_damaged_variant_is_found_out(tiny: Package) -> None:
    written = with_variant(tiny)
    (tiny.path / "int8.onnx").write_bytes(b"other")
    with pytest.raises(InvalidPackage, match=r"int8\.onnx has sha256"):
        written.check_files()


def test_two_variants_of_one_precision_are_refused(tiny: Package) -> None:
    def twice(rdf: dict[str, Any]) -> None:
        rdf["config"]["unet_service"]["variants"] *= 2

    with pytest.raises(InvalidPackage, match="several variants of one precision: int8, int8"):
        read_package(edit(with_variant(tiny), twice))


@pytest.mark.parametrize("limit", [(float("nan"), 0.05), (float("inf"), 0.05), (0.02, 0.05), (0.001, 0.9), (-1.0, 0.0)])
def test_a_limit_that_limits_nothing_is_refused(tiny: Package, limit: tuple[float, float]) -> None:
    def widen(rdf: dict[str, Any]) -> None:
        (variant,) = rdf["config"]["unet_service"]["variants"]
        variant["limit"] = dict(zip(("other_class", "largest_difference"), limit, strict=True))

    with pytest.raises(InvalidPackage, match=r"from 0 to 1|that is another net"):
        read_package(edit(with_variant(tiny), widen))


def test_a_variant_is_no_other_file_of_the_package(tiny: Package) -> None:
    def rename(rdf: dict[str, Any]) -> None:
        rdf["config"]["unet_service"]["variants"][0]["weights"]["source"] = "weights.onnx"

    with pytest.raises(InvalidPackage, match=r"weights\.onnx is both the int8 net and another file"):
        read_package(edit(with_variant(tiny), rename))


def test_a_zip_is_a_package_too(tiny: Package, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    zipped = read_package(write_package(tmp_path / "tiny.zip", tiny.spec, files).path)
    assert zipped.spec == tiny.spec
    assert zipped.weights() == tiny.weights()
    assert zipped.readme() == "# Tiny\n"


@pytest.mark.parametrize("name", RDF_NAMES)
def test_a_description_may_have_any_of_the_names_that_bioimageio_knows(tmp_path: Path, name: str) -> None:
    from bioimageio.spec._internal.io_basics import ALL_BIOIMAGEIO_YAML_NAMES

    assert tuple(ALL_BIOIMAGEIO_YAML_NAMES) == RDF_NAMES
    path = write_foreign_package(tmp_path / "foreign", description=name)
    zipped = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", path))
    assert read_package(path).spec == read_package(zipped).spec
    assert read_package(zipped).spec.name == "foreign"


def test_of_several_descriptions_the_first_by_bioimageios_order_counts(tiny: Package) -> None:
    (tiny.path / "bioimageio.yaml").write_text("type: dataset")
    assert read_package(tiny.path).spec == tiny.spec


def test_what_bioimageio_leaves_out_has_its_default(tiny: Package) -> None:
    """Its tools write no field whose value is the default."""

    def leave_out(rdf: dict[str, Any]) -> None:
        for tensor in (rdf["inputs"][0], rdf["outputs"][0]):
            del tensor["id"], tensor["axes"][3]["id"], tensor["axes"][3]["scale"]
            tensor["axes"][2]["scale"] = 1.0
        for axis in rdf["outputs"][0]["axes"][2:]:
            axis["size"]["tensor_id"] = "input"

    spec = read_package(edit(tiny, leave_out)).spec
    assert (spec.input_name, spec.output_name) == ("input", "output")
    assert spec.geometry == tiny.spec.geometry
    assert spec.pixel_size_um == (1.0, 1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_package_of_format_0_4_is_read_once_the_tool_that_its_refusal_names_has_converted_it(tmp_path: Path) -> None:
    path = write_foreign_package(tmp_path)
    rdf = yaml.safe_load((path / RDF_NAME).read_text())
    (path / "README.md").write_text("# Foreign\n")
    older = {
        "type": "model",
        "format_version": "0.4.10",
        "name": "Foreign",
        "description": "of before",
        "license": "MIT",
        "authors": [{"name": "Somebody"}],
        "cite": [{"text": "a paper", "doi": "10.1007/978-3-319-24574-4_28"}],
        "documentation": "README.md",
        "tags": ["unet"],
        "timestamp": "2024-01-01T00:00:00",
        "inputs": [
            {
                "name": "image",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"min": [1, 1, 16, 16], "step": [0, 0, 8, 8]},
            }
        ],
        "outputs": [
            {
                "name": "probabilities",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": {"reference_tensor": "image", "scale": [1, 0, 1, 1], "offset": [0, 1, 0, 0]},
            }
        ],
        "test_inputs": ["test_input.npy"],
        "test_outputs": ["test_output.npy"],
        "weights": {"onnx": {**rdf["weights"]["onnx"]}},
        "config": {"unet_service": {"labels": {"foreground": [0], "seeds": [0]}}},
    }
    (path / RDF_NAME).write_text(yaml.safe_dump(older))
    with pytest.raises(
        UnsupportedPackage, match=r"format '0\.4\.10'.*`bioimageio update-format PACKAGE --output FILE`"
    ):
        read_package(path)
    program = Path(sys.executable).with_name("bioimageio")
    newer = path / "newer.yaml"
    command = [str(program), "update-format", str(path), "--output", str(newer), "--diff", "false"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    newer.rename(path / RDF_NAME)
    spec = read_package(path).spec
    assert (spec.title, spec.classes) == ("Foreign", ("channel0", "channel1"))
    assert spec.label_rule == LabelRule(foreground=(0,), seeds=(0,))
    read_package(path).golden_pair()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_bioimageio_accepts_what_is_written(tiny: Package) -> None:
    """Hold the frozen model of the service and the specification together."""
    from training.packaging.specification import validate

    validate(tiny.path)


@pytest.mark.parametrize("name", ["weights.onnx", "test_input.npy", "test_output.npy"])
def test_a_changed_byte_is_found(tiny: Package, name: str) -> None:
    file = tiny.path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    package = read_package(tiny.path)
    with pytest.raises(InvalidPackage, match="sha256"):
        _ = package.weights() if name == "weights.onnx" else package.golden_pair()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rdf: rdf.update(format_version="0.4.10"), "format 0.5"),
        (lambda rdf: rdf.update(type="dataset"), "dataset"),
        (lambda rdf: rdf.update(weights={"pytorch_state_dict": {}}), "only ONNX weights"),
        (lambda rdf: rdf["weights"]["onnx"].update(external_data={"source": "x"}), "external data"),
        (lambda rdf: rdf["inputs"].append(rdf["inputs"][0]), "2 inputs"),
        (lambda rdf: rdf["inputs"][0]["axes"].pop(0), "only batch, channel, y, x"),
        (lambda rdf: rdf["inputs"][0]["axes"].append({"type": "space", "id": "z", "size": 3}), "only batch, channel"),
        (lambda rdf: rdf["inputs"][0].update(preprocessing=[{"id": "magic"}]), "magic"),
        (lambda rdf: rdf["outputs"][0].update(postprocessing=[{"id": "binarize"}]), "binarize"),
        (lambda rdf: rdf["outputs"][0]["axes"][2].update(size=99), "must follow"),
        (lambda rdf: rdf["outputs"][0]["axes"][2]["size"].update(offset=-15), "even number"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(
    tiny: Package, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(UnsupportedPackage, match=message):
        read_package(edit(tiny, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rdf: rdf.pop("inputs"), "inputs"),
        (lambda rdf: rdf["config"]["unet_service"]["labels"].update(foreground=[7]), "channel 7"),
        (lambda rdf: rdf["config"]["unet_service"]["labels"].update(threshold=3), "threshold"),
        (lambda rdf: rdf["config"]["unet_service"]["labels"].update(foreground=[]), "foreground"),
        (lambda rdf: rdf["config"]["unet_service"]["labels"].update(boundary=[0]), "components have none"),
        (
            lambda rdf: rdf["config"]["unet_service"]["labels"].update(method="watershed", boundary=[2]),
            "channel 2, the output has 2",
        ),
        (lambda rdf: rdf["weights"]["onnx"].update(source="../../etc/passwd"), "inside the package"),
        (lambda rdf: rdf["weights"]["onnx"].update(source="/etc/passwd"), "inside the package"),
        (lambda rdf: rdf["weights"]["onnx"].update(sha256="abc"), "sha256"),
    ],
)
def test_what_contradicts_itself_is_invalid(
    tiny: Package, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(InvalidPackage, match=message):
        read_package(edit(tiny, change))


def test_a_link_out_of_the_package_is_refused(tiny: Package, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.move(tiny.path / "weights.onnx", outside)
    (tiny.path / "weights.onnx").symlink_to(outside)
    with pytest.raises(InvalidPackage, match="leads out"):
        read_package(tiny.path).weights()


@pytest.mark.parametrize("content", ["", "- a list", "{unclosed", "inputs: 3\ntype: model\nformat_version: 0.5.0"])
def test_nonsense_is_no_package(tmp_path: Path, content: str) -> None:
    (tmp_path / RDF_NAME).write_text(content)
    with pytest.raises(InvalidPackage):
        read_package(tmp_path)


@pytest.mark.parametrize("content", [b"no zip", b"PK\x03\x04 broken"])
def test_a_broken_zip_is_no_package(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.zip"
    file.write_bytes(content)
    with pytest.raises(InvalidPackage, match=r"cannot be read: .*; copy the zip anew"):
        read_package(file)


def test_what_is_no_package_is_refused_with_what_one_is_and_which_was_meant(tiny: Package, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(InvalidPackage, match=re.escape(f"{path} is no package")) as refusal:
            read_package(path)
        assert "a folder or a zip that holds rdf.yaml, bioimageio.yaml or model.yaml: it " in str(refusal.value)
        return str(refusal.value).partition(": it ")[2]

    export = "unet-train export RUN --out PACKAGE writes one from a run"
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == f"is a folder without any of them; {export}"
    assert refused(tmp_path / "typo") == f"is not there; {export}"
    (tmp_path / "notes.txt").write_text("no package")
    assert refused(tmp_path / "notes.txt") == f"is a file, and no zip; {export}"
    above = "name the folder that it lies in, "
    assert refused(tiny.path / "weights.onnx") == f"is a file, and no zip; {above}{tiny.path}"
    (tiny.path / "sub").mkdir()
    assert refused(tiny.path / "sub") == f"is a folder without any of them; {above}{tiny.path}"
    shutil.copytree(tiny.path, tmp_path / ".draft")
    below = "is a folder without any of them; name one of those in it: "
    assert refused(tiny.path.parent) == f"{below}tiny"
    for number in range(6):
        shutil.copytree(tiny.path, tmp_path / f"copy-{number}")
    assert refused(tmp_path) == f"{below}copy-0, copy-1, copy-2, copy-3, copy-4 and 2 more"
    around = shutil.make_archive(str(tmp_path / "around"), "zip", tmp_path, tiny.path.name)
    deeper = "its tiny/rdf.yaml lies too deep: zip the files beside it, not their folder"
    assert refused(Path(around)) == f"is a zip without any of them; {deeper}"


def test_a_missing_file_is_named_when_writing(tiny: Package, tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match=r"weights\.onnx"):
        write_package(tmp_path / "other", tiny.spec, {})


def test_a_golden_pair_of_other_shape_is_invalid(tiny: Package) -> None:
    files = {file.name: file.read_bytes() for file in tiny.path.iterdir() if file.name != RDF_NAME}
    files["test_output.npy"] = tensor_bytes(np.zeros((1, 2, 5, 5), dtype=np.float32))
    write_package(tiny.path, tiny.spec, files)
    with pytest.raises(InvalidPackage, match="test output is"):
        read_package(tiny.path).golden_pair()


def test_a_missing_document_is_found_when_files_are_checked(tiny: Package) -> None:
    read_package(tiny.path).check_files()
    (tiny.path / "README.md").unlink()
    with pytest.raises(InvalidPackage, match=r"README\.md cannot be read"):
        read_package(tiny.path).check_files()


def test_a_description_nested_without_end_is_no_package(tmp_path: Path) -> None:
    (tmp_path / RDF_NAME).write_text("[" * 5000)
    with pytest.raises(InvalidPackage):
        read_package(tmp_path)
