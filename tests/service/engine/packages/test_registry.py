"""The registry: which packages are served, under which names, and what is refused."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from model.package import ZOO
from model.session import SessionOptions
from service.engine.errors import NotReady, UnknownModel
from service.engine.packages.finding import find_packages, locate_package
from service.engine.packages.planning import PlanLimits
from service.engine.packages.registry import Registry, load_registry
from tests.foreign import write_foreign_package
from tests.packages import edit, write_tiny_package
from tests.permissions import open_to_all, shut

CPU = SessionOptions(backend="cpu", threads=1)


def load(*folders: Path, default: str | None = None) -> Registry:
    return load_registry(folders, default, CPU, PlanLimits(1 << 28))


def with_versions(folder: Path, *versions: str) -> None:
    for version in versions:
        package = write_tiny_package(folder / "made", name="cells", version=version)
        shutil.move(package.path, folder / f"cells-{version}")
    shutil.rmtree(folder / "made")


def test_a_name_means_its_highest_version(tmp_path: Path) -> None:
    with_versions(tmp_path, "1.9.0", "1.10.0", "1.10.0-rc1", "1.2")
    registry = load(tmp_path)
    assert registry.get("cells").package.spec.version == "1.10.0"
    assert registry.get("cells@1.9.0").package.spec.version == "1.9.0"
    assert registry.get(None).package.spec.version == "1.10.0"


def test_an_unknown_name_lists_what_there_is(tmp_path: Path) -> None:
    write_tiny_package(tmp_path)
    with pytest.raises(UnknownModel, match=r"'cells'.*tiny@1\.0\.0"):
        load(tmp_path).get("cells")


def test_the_same_version_twice_is_served_once(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    shutil.copytree(package.path, tmp_path / "tiny-copy")
    registry = load(tmp_path)
    assert len(registry.models) == 1
    assert "tiny already" in registry.refused["tiny-copy"]


def test_several_folders_are_served_together(tmp_path: Path) -> None:
    write_tiny_package(tmp_path / "a", name="one")
    write_tiny_package(tmp_path / "b", name="two")
    registry = load(tmp_path / "a", tmp_path / "b")
    assert [entry.package.spec.name for entry in registry.models] == ["one", "two"]
    assert locate_package((tmp_path / "a", tmp_path / "b"), "two") == tmp_path / "b" / "two"
    assert registry.refused == {}


def test_entries_of_one_name_in_two_folders_are_called_by_folder_and_name(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    write_tiny_package(a)
    write_tiny_package(b)
    for folder in (a, b):
        (folder / "broken.zip").write_bytes(b"")
    registry = load(a, b)
    assert [entry.package.path for entry in registry.models] == [a / "tiny"]
    assert registry.refused.keys() == {f"{b}/tiny", f"{a}/broken.zip", f"{b}/broken.zip"}
    assert registry.refused[f"{b}/tiny"] == f"tiny@1.0.0 is served from {a}/tiny already"


def test_a_folder_that_is_named_but_not_there_does_not_go_unnoticed(tmp_path: Path) -> None:
    write_tiny_package(tmp_path / "a")
    registry = load(tmp_path / "a", tmp_path / "b")
    assert len(registry.models) == 1
    assert registry.problem is None
    assert "is no folder; correct UNET_MODELS_DIR" in registry.refused[str(tmp_path / "b")]


@pytest.mark.parametrize("reference", ["nuclei", "nuclei@9.9"])
def test_an_unknown_model_that_ships_says_how_to_have_it(tmp_path: Path, reference: str) -> None:
    write_tiny_package(tmp_path)
    with pytest.raises(UnknownModel, match=r"there are tiny@1\.0\.0; nuclei ships.*add zoo to UNET_MODELS_DIR$"):
        load(tmp_path).get(reference)
    with pytest.raises(UnknownModel, match=r"add zoo to UNET_MODELS_DIR$"):
        locate_package((tmp_path,), reference)
    with pytest.raises(UnknownModel, match=r"there are [^;]*$"):
        locate_package((tmp_path, ZOO), "nuclei@9.9")


def test_own_packages_and_those_that_ship_are_served_together(tmp_path: Path) -> None:
    write_tiny_package(tmp_path)
    folders = (tmp_path, ZOO)
    assert set(find_packages(folders)) == {"tiny", "nuclei", "phase-t98g"}
    assert locate_package(folders, "nuclei") == ZOO / "nuclei"
    assert locate_package(folders, "tiny") == tmp_path / "tiny"


def test_a_package_itself_may_be_named_be_it_a_folder_or_a_zip(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path, name="cells")
    zipped = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", package.path))
    assert find_packages((package.path,)) == {"cells": package.path}
    assert find_packages((zipped,)) == {"zipped.zip": zipped}
    assert find_packages((package.path, tmp_path)) == {"cells": package.path, "zipped.zip": zipped}


def test_a_rule_that_is_taken_from_names_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_foreign_package(tmp_path / "foreign")
    assert [entry.package.spec.name for entry in load(tmp_path).models] == ["foreign"]
    assert any("foreign@1: the package has no label rule" in record.message for record in caplog.records)


def test_what_a_killed_export_has_left_is_not_served(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path)
    shutil.copytree(package.path, tmp_path / ".tiny-x1y2.old")
    registry = load(tmp_path)
    assert [entry.package.path.name for entry in registry.models] == ["tiny"]
    assert registry.refused == {}


def test_a_zip_is_one_whatever_the_case_of_its_suffix(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "made", name="cells")
    (tmp_path / "served").mkdir()
    Path(shutil.make_archive(str(tmp_path / "cells"), "zip", package.path)).rename(tmp_path / "served" / "CELLS.ZIP")
    assert [entry.package.spec.name for entry in load(tmp_path / "served").models] == ["cells"]


@pytest.mark.parametrize("content", ["[" * 5000, "type: model", "\x00"])
def test_one_broken_package_does_not_keep_the_others_from_being_served(tmp_path: Path, content: str) -> None:
    write_tiny_package(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "rdf.yaml").write_text(content)
    registry = load(tmp_path)
    assert [entry.package.spec.name for entry in registry.models] == ["tiny"]
    assert list(registry.refused) == ["broken"]


def test_a_folder_that_may_not_be_looked_into_does_not_keep_the_others_from_being_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``lost+found`` of every ext4 volume; root may look everywhere, so the refusal is played."""
    write_tiny_package(tmp_path)
    (tmp_path / "lost+found").mkdir()
    is_file = Path.is_file

    def refusing(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    registry = load(tmp_path)
    assert [entry.package.spec.name for entry in registry.models] == ["tiny"]


@pytest.mark.parametrize("kind", ["another user's", "impossible"])
def test_a_folder_of_packages_that_cannot_be_read_does_not_keep_the_others_from_being_served(kind: str) -> None:
    with open_to_all() as place:
        write_tiny_package(place / "a", name="one")
        write_tiny_package(place / "b", name="two")
        other = place / ("b" if kind == "another user's" else "b" * 300)
        with shut(place / "b"):
            registry = load(other, place / "a")
            assert find_packages((other, place / "a")) == {"one": place / "a" / "one"}
            nothing = load(other)
    assert [entry.package.spec.name for entry in registry.models] == ["one"]
    assert "it cannot be looked into: [Errno " in registry.refused[str(other)]
    assert "or take it out of UNET_MODELS_DIR" in registry.refused[str(other)]
    with pytest.raises(NotReady, match=r"cannot be looked into: .* point UNET_MODELS_DIR"):
        nothing.get(None)


def test_a_test_input_that_no_tile_may_be_as_large_as_is_not_run(tmp_path: Path) -> None:
    for name, per_pixel in (("small", 80_000), ("large", 200_000)):
        package = write_tiny_package(tmp_path, name=name)
        edit(package, lambda rdf: rdf["config"]["unet_service"].update(activation_bytes_per_pixel=per_pixel))  # noqa: B023
    registry = load(tmp_path)
    assert [model.package.spec.name for model in registry.models] == ["small"]
    assert (
        "34 x 42 px needs 286 MB while the net runs, 200000 bytes a pixel, the limit is 268 MB"
        in (registry.refused["large"])
    )


def test_packages_that_ship_are_served_within_the_least_budget() -> None:
    registry = load_registry(None, None, CPU, PlanLimits(int(0.4 * (128 << 20))))
    assert len(registry.models) == 2
    assert registry.refused == {}


def test_a_default_that_is_refused_leaves_no_default(tmp_path: Path) -> None:
    write_tiny_package(tmp_path)
    registry = load(tmp_path, default="cells")
    with pytest.raises(NotReady, match="cells"):
        registry.get(None)


@pytest.mark.parametrize(("folder", "found"), [(".", "holds none"), ("nowhere", "is no folder")])
def test_a_folder_without_packages_is_named_in_answers_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str, found: str
) -> None:
    with pytest.raises(NotReady, match=f"{found}; point UNET_MODELS_DIR"):
        load(tmp_path / folder).get(None)
    assert [record.levelname for record in caplog.records if found in record.message] == ["ERROR"]
