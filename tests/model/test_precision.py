"""Precision: bf16 only where it agrees with fp32, never unnoticed, never in place of what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model import precision
from model.agreement import LIMIT, Agreement, agreement
from model.errors import BackendUnavailable, InvalidPackage, ModelError, UnsupportedPackage
from model.package import RDF_NAME, Package, tensor_bytes, write_package
from model.precision import open_checked
from model.session import Backend, SessionOptions, has_bf16, has_fast_int8, open_session
from tests.packages import expected_foreground, threshold_net, with_variant, write_tiny_package

AUTO, BF16 = (SessionOptions("openvino", precision, threads=1) for precision in ("auto", "bf16"))


def with_gain(folder: Path, gain: float, golden_gain: float, values: tuple[float, float] = (0.0, 1.0)) -> Package:
    """The threshold net with another slope, the golden output of a slope, and a test image of noise between values."""
    package = write_tiny_package(folder, normalization=())
    files = {file.name: file.read_bytes() for file in package.path.iterdir() if file.name != RDF_NAME}
    raw = np.random.default_rng(0).uniform(*values, package.golden_pair()[0].shape).astype(np.float32)
    files["test_input.npy"] = tensor_bytes(raw)
    foreground = expected_foreground(raw[0, :, 8:-8, 8:-8], golden_gain)
    files["weights.onnx"] = threshold_net(gain=gain)
    files["test_output.npy"] = tensor_bytes(np.stack([1 - foreground, foreground])[np.newaxis].astype(np.float32))
    return write_package(package.path, package.spec, files)


def test_agreement_counts_classes_and_finds_the_largest_difference() -> None:
    reference = np.zeros((1, 2, 2, 5), dtype=np.float32)
    reference[:, 0] = 1
    other = reference.copy()
    other[0, :, 0, 0] = 0.4, 0.6
    found = agreement(other, reference)
    assert [found.other_class, found.largest_difference] == pytest.approx([0.1, 0.6])
    assert agreement(reference, reference) == Agreement(0.0, 0.0)


def test_agreement_of_one_channel_is_about_one_half() -> None:
    reference = np.full((1, 1, 1, 4), 0.49, dtype=np.float32)
    other = np.array([0.48, 0.51, 0.49, 0.45], dtype=np.float32).reshape(1, 1, 1, 4)
    found = agreement(other, reference)
    assert [found.other_class, found.largest_difference] == pytest.approx([0.25, 0.04])


def test_nan_agrees_with_nothing() -> None:
    nan = np.full((1, 2, 3, 3), np.nan, dtype=np.float32)
    assert not agreement(nan, np.zeros_like(nan)).within(LIMIT)


def test_a_gentle_net_runs_in_bf16_where_the_cpu_has_it(tmp_path: Path) -> None:
    opened = open_checked(with_gain(tmp_path, 1.0, 1.0, values=(0.6, 0.9)), AUTO)
    assert opened.self_test_difference < 1e-5
    if has_bf16("openvino"):
        assert opened.session.precision == "bf16"
        assert opened.agreement is not None
        assert 1e-5 < opened.agreement.largest_difference < 0.05
    else:
        assert opened.session.precision == "fp32"
        assert opened.agreement is None


def test_a_net_that_rounding_upsets_runs_in_fp32_or_not_at_all(tmp_path: Path) -> None:
    package = with_gain(tmp_path, 600.0, 600.0)
    opened = open_checked(package, AUTO)
    assert (opened.session.precision, opened.agreement) == ("fp32", None)
    with pytest.raises(
        UnsupportedPackage if has_bf16("openvino") else BackendUnavailable, match="choose precision auto or fp32"
    ):
        open_checked(package, BF16)


def test_a_precision_that_a_backend_lacks_names_the_backend_that_has_it(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"fp16: backend openvino has none, .*; choose backend cpu, or"):
        open_checked(write_tiny_package(tmp_path / "package"), SessionOptions("openvino", "fp16"))


@pytest.mark.parametrize("options", [AUTO, SessionOptions("cpu", "auto"), SessionOptions("openvino", "fp32")])
def test_the_golden_pair_is_held_against_fp32_whatever_runs(tmp_path: Path, options: SessionOptions) -> None:
    # 1.02 instead of 1: bf16's own rounding would hide it, fp32 does not
    with pytest.raises(InvalidPackage, match="do not do what the package says"):
        open_checked(with_gain(tmp_path, 1.02, 1.0), options)


def test_a_backend_without_bf16_refuses_it_and_takes_fp32_for_auto(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    with pytest.raises(BackendUnavailable, match="backend cpu has none"):
        open_checked(package, SessionOptions("cpu", "bf16"))
    opened = open_checked(package, SessionOptions("cpu", "auto"))
    assert (opened.session.precision, opened.agreement) == ("fp32", None)


def test_openvino_computes_fp32_unless_told_otherwise(tmp_path: Path) -> None:
    session = open_session(write_tiny_package(tmp_path), SessionOptions("openvino"))
    tiles = np.random.default_rng(0).random((1, 1, 50, 50), dtype=np.float32)
    assert session.precision == "fp32"
    np.testing.assert_allclose(session.run(tiles)[0, 1], expected_foreground(tiles[0, :, 8:-8, 8:-8]), atol=1e-5)


INT8 = [SessionOptions(backend, "int8", threads=1) for backend in ("cpu", "openvino")]


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_auto_takes_int8_first_where_it_is_fast(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = with_variant(write_tiny_package(tmp_path), gain=19.9)
    monkeypatch.setattr(precision, "has_fast_int8", lambda _backend: True)
    opened = open_checked(package, SessionOptions(backend, "auto", threads=1))
    assert opened.session.precision == "int8"
    assert opened.agreement is not None
    assert 0 < opened.agreement.largest_difference < 0.01  # it is the other graph that runs
    monkeypatch.setattr(precision, "has_fast_int8", lambda _backend: False)
    assert open_checked(package, SessionOptions(backend, "auto", threads=1)).session.precision != "int8"


@pytest.mark.parametrize(
    ("backend", "instructions", "machine", "fast"),
    [
        ("cpu", True, "x86_64", True),
        ("cpu", False, "x86_64", False),
        ("openvino", False, "x86_64", True),
        ("openvino", False, "aarch64", False),
        ("openvino", True, "aarch64", True),
    ],
)
def test_int8_is_fast_with_instructions_for_it_and_on_openvino_without_on_x86(
    monkeypatch: pytest.MonkeyPatch, backend: str, instructions: bool, machine: str, fast: bool
) -> None:
    monkeypatch.setattr("model.session.cpu_has_int8", lambda: instructions)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_fast_int8(backend) is fast


@pytest.mark.parametrize("options", INT8, ids=lambda options: options.backend)
def test_int8_beyond_the_packages_limit_runs_only_where_nothing_was_asked(
    tmp_path: Path, options: SessionOptions
) -> None:
    package = with_variant(write_tiny_package(tmp_path), gain=19.9, limit=Agreement(0.0, 1e-6))
    with pytest.raises(UnsupportedPackage, match=r"int8 does not agree with fp32 .* the limits are 0\.00% and 1e-06"):
        open_checked(package, options)
    opened = open_checked(package, replace(options, precision="auto"))
    assert opened.session.precision != "int8"


def test_a_package_may_allow_int8_more_than_bf16(tmp_path: Path) -> None:
    package = with_variant(write_tiny_package(tmp_path), gain=14.0, limit=Agreement(0.0, 0.2))
    opened = open_checked(package, INT8[0])
    assert opened.agreement is not None
    assert LIMIT.largest_difference < opened.agreement.largest_difference < 0.2


@pytest.mark.parametrize("options", INT8, ids=lambda options: options.backend)
def test_int8_of_a_package_without_it_is_refused_with_the_remedy(tmp_path: Path, options: SessionOptions) -> None:
    with pytest.raises(UnsupportedPackage, match="the package has none; add it with unet-train quantize"):
        open_checked(write_tiny_package(tmp_path), options)


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
@pytest.mark.parametrize(
    "weights", [b"", threshold_net(channels=2), threshold_net(shrink=24)], ids=["empty", "channels", "other crop"]
)
def test_a_variant_that_does_not_run_takes_nothing_down(
    tmp_path: Path, backend: Backend, weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_fast_int8", lambda _backend: True)
    package = with_variant(write_tiny_package(tmp_path), weights=weights)
    opened = open_checked(package, SessionOptions(backend, "auto", threads=1))
    assert opened.session.precision != "int8"
    with pytest.raises(ModelError):
        open_checked(package, SessionOptions(backend, "int8", threads=1))


def test_shapes_that_differ_are_never_compared() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement(np.zeros((1, 2, 1, 1), np.float32), np.zeros((1, 2, 4, 4), np.float32))
