"""Settings: one table, the same in code, help and documentation; typos and bad values do not pass in silence."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from model.package import ZOO
from service.settings import (
    InvalidSettings,
    Settings,
    add_options,
    default_text,
    load_settings,
    option_name,
    unknown_variables,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
FIELDS = list(Settings.model_fields)


def parsed(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return vars(parser.parse_args(arguments))


def test_the_documentation_lists_every_setting_and_no_other() -> None:
    assert re.findall(r"^\| `UNET_(\w+)`", DOCUMENT, re.MULTILINE) == [name.upper() for name in FIELDS]


@pytest.mark.parametrize("name", FIELDS)
def test_a_row_of_the_documentation_says_what_the_code_says(name: str) -> None:
    info = Settings.model_fields[name]
    default = f"`{default_text(info)}`" if default_text(info) else "empty"
    assert f"| `UNET_{name.upper()}` | `{option_name(name)}` | {default} | {info.description} |" in DOCUMENT


@pytest.mark.parametrize("name", FIELDS)
def test_help_shows_option_variable_and_meaning(name: str) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    assert option_name(name) in text
    assert f"UNET_{name.upper()}]" in text
    assert " ".join((Settings.model_fields[name].description or "").split()) in text


def test_an_option_beats_its_variable_and_a_variable_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNET_PORT", "81")
    monkeypatch.setenv("UNET_MAX_BODY_MB", "7")
    settings = load_settings(parsed("--port", "82", "--require-gpu"))
    assert (settings.port, settings.max_body_mb, settings.require_gpu, settings.spool_mb) == (82, 7, True, 16)


def test_a_variable_set_to_nothing_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNET_DEFAULT_MODEL", "")
    assert load_settings({}).default_model is None


def test_every_bad_value_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNET_DEADLINE_S", "inf")
    with pytest.raises(InvalidSettings) as refusal:
        load_settings({"port": "70000", "backend": "gpu"})
    text = str(refusal.value)
    assert "UNET_PORT (--port) is '70000': input should be less than or equal to 65535" in text
    assert "'auto', 'cuda', 'tensorrt', 'openvino' or 'cpu'" in text
    assert "UNET_DEADLINE_S (--deadline-s) is 'inf'" in text


def test_a_misspelt_variable_is_reported_with_the_likely_one() -> None:
    environment = {"UNET_MODEL_DIR": "/models", "UNET_XYZ": "1", "UNET_PORT": "1", "PATH": "/bin", "UNET_TEST_DATA": ""}
    assert unknown_variables(environment) == [
        "UNET_MODEL_DIR is no setting; did you mean UNET_MODELS_DIR?",
        "UNET_XYZ is no setting",
    ]


@pytest.mark.parametrize(
    ("text", "folders"),
    [
        ("/packages", [Path("/packages")]),
        ("zoo", [ZOO]),
        ("./zoo", [Path("zoo")]),
        (os.pathsep.join(["/packages", "zoo"]), [Path("/packages"), ZOO]),
        (os.pathsep.join(["zoo", "", "a b/c", "a b/c/"]), [ZOO, Path("a b/c")]),
    ],
)
def test_folders_of_packages_are_separated_as_in_path(
    text: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({"models_dir": text}).models_dir == tuple(folders)
    monkeypatch.setenv("UNET_MODELS_DIR", text)
    assert load_settings({}).models_dir == tuple(folders)


def test_a_path_given_in_python_is_one_folder_whatever_its_name(tmp_path: Path) -> None:
    odd = tmp_path / f"a{os.pathsep}zoo"
    assert load_settings({"models_dir": odd}).models_dir == (odd,)


def test_separators_without_a_folder_are_refused() -> None:
    with pytest.raises(InvalidSettings, match=r"--models-dir\) is .*: input should name a folder of packages, or zoo"):
        load_settings({"models_dir": os.pathsep})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "meant"), [("0", "0"), ("0,1", "0,1"), (" 1, 0 ", "1,0"), ("all", "all"), (" all ", "all"), ("007", "7")]
)
def test_devices_are_numbers_or_all(text: str, meant: str) -> None:
    assert load_settings({"devices": text}).devices == meant


@pytest.mark.parametrize("text", ["", "1 2", "-1", "0,", "gpu", "all,0", "ALL"])
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match=r"--devices\) is .*: input should be numbers of GPUs"):
        load_settings({"devices": text})


@pytest.mark.parametrize("text", ["0,0", "00,0"])
def test_a_device_named_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match="name each GPU once"):
        load_settings({"devices": text})


@pytest.mark.parametrize(
    ("text", "meant"), [("", ""), ("/", ""), ("/unet", "/unet"), ("/unet/", "/unet"), ("/a/b-1//", "/a/b-1")]
)
def test_a_path_prefix_ends_without_a_slash(text: str, meant: str) -> None:
    assert load_settings({"root_path": text}).root_path == meant


@pytest.mark.parametrize("text", ["unet", "//elsewhere", "/a//b", "/a b", "/a?b", "/a#b", "/\\b", " /a", "http://a/b"])
def test_other_path_prefixes_are_refused(text: str) -> None:
    with pytest.raises(InvalidSettings, match=r"--root-path\) is .*: input should begin with one /"):
        load_settings({"root_path": text})
