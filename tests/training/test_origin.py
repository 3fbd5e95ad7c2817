"""A fine-tuned run knows what its net has learnt before, validates on other images, and says where it cannot."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from model.package import Package, read_package
from training.choosing.finetune import open_origin
from training.cli import main
from training.data.datasets import AnnotatedImage, load_images
from training.data.origin import Origin, copies_told, name_digest, package_origin
from training.data.splits import validation_stems
from training.learning.trainer import train
from training.options import Data, Schedule
from training.packaging.card import run_card
from training.recipe import Recipe
from training.runs.checkpoint import Checkpoint, load_checkpoint

ZOO = Path(__file__).resolve().parents[2] / "model" / "zoo" / "nuclei"
FOLD = "2/4"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    """A run that held out the second fourth of the images."""
    recipe = Recipe.model_validate(
        {"name": "tiny", "tile_output_px": 60, "net": {"base_width": 4, "depth": 2}, "schedule": {"steps": 1}}
    )
    folder = tmp_path_factory.mktemp("origin") / "first"
    train(recipe.with_fold(FOLD), nuclei_folder, folder, workers=0)
    return folder


@pytest.fixture(scope="module")
def second(first: Path, nuclei_folder: Path) -> Path:
    """A run that began with the first, and validates on images that the first was trained on: the user asked for it."""
    recipe = load_checkpoint(first / "best.pt").read_recipe().with_fold("1/4")
    train(recipe, nuclei_folder, first.parent / "second", beginning=open_origin(first), workers=0)
    return first.parent / "second"


def card_of(checkpoint: Checkpoint, version: str = "1.0.0") -> tuple[str, Package]:
    """README of a run's package, and a package that says the same of its training."""
    recipe = checkpoint.read_recipe()
    card = run_card(checkpoint, recipe, version=version, author="A", license_text="MIT", command="fit")
    shipped = read_package(ZOO)
    update = {"facts": card.facts, "name": card.name, "version": version}
    return card.readme, replace(shipped, spec=shipped.spec.model_copy(update=update))


def fit(*arguments: object) -> int:
    return main(["fit", *map(str, arguments), "--workers", "0"])


def test_images_that_the_net_has_not_learnt_are_preferred_for_validation(
    first: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--from", first, "--data", nuclei_folder, "--out", tmp_path / "run", "--steps", 1) == 0
    held_out = set(load_checkpoint(first / "best.pt").split["validation"])
    checkpoint = load_checkpoint(tmp_path / "run" / "best.pt")
    assert checkpoint.split["validation"]
    assert set(checkpoint.split["validation"]) <= held_out
    assert checkpoint.learnt_before() == []
    assert "1 of 8 images; the net to begin with has learnt none of them" in capsys.readouterr().out


def test_validation_images_that_the_net_has_learnt_are_told_in_log_report_and_card(
    first: Path, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe, run = load_checkpoint(first / "best.pt").read_recipe().with_fold("1/4"), tmp_path / "run"
    with caplog.at_level(logging.WARNING, logger="training"):
        train(recipe, nuclei_folder, run, beginning=open_origin(first), workers=0)
    assert f"tiny: of 2 images that it is judged by, 2 taught {first}, which it began with" in caplog.text
    checkpoint = load_checkpoint(run / "best.pt")
    assert checkpoint.learnt_before() == checkpoint.split["validation"]
    readme, _ = card_of(checkpoint)
    assert "first, with which the run began, or a net before it was trained on 2 of these images: the figures" in readme
    assert "The run began with the net of first." in readme
    assert str(first) not in readme
    out = tmp_path / "report.html"
    assert main(["report", str(run), "--data", str(nuclei_folder), "--out", str(out), "--worst", "0"]) == 0
    said = f"{first}, which run began with, or a net before it was trained on 2 of the 2 images that run is scored on"
    assert said in out.read_text()


def test_what_was_learnt_is_passed_on_through_runs_and_packages(
    first: Path, second: Path, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = load_checkpoint(second / "best.pt")
    _, package = card_of(net)
    origin = package_origin(package)
    assert (origin.name, origin.sha256, origin.unknown) == ("tiny@1.0.0", package.sha256, ())
    assert len(origin.seen) == 8, "the images of the second run, and those of the first that it held out"
    third = replace(open_origin(second), origin=origin)
    recipe = net.read_recipe().with_fold("1/4")
    train(recipe, nuclei_folder, tmp_path / "third", beginning=third, workers=0)
    assert "2 taught tiny@1.0.0, which it began with, or a net before that one" in caplog.text
    assert open_origin(tmp_path / "third").origin.seen == origin.seen


def test_a_resumed_run_keeps_its_origin_and_warns_of_nothing(
    second: Path, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(second, tmp_path / "run")
    before = load_checkpoint(second / "last.pt")
    schedule = Schedule(**{**before.read_recipe().schedule.model_dump(), "steps": 1})
    recipe = before.read_recipe().model_copy(update={"schedule": schedule})
    again = train(recipe, nuclei_folder, tmp_path / "run", resume=True, workers=0)
    assert again.origin == before.origin
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_package_that_does_not_say_what_it_has_learnt_is_told(tiny_recipe: Recipe, tmp_path: Path) -> None:
    older = read_package(package_that_has_seen(None, tmp_path))
    origin = package_origin(older)
    assert origin == Origin("nuclei@1.3.0", older.sha256, (), ("nuclei@1.3.0",))
    split = {"training": ["a"], "validation": ["b"]}
    checkpoint = Checkpoint(tiny_recipe.model_dump(mode="json"), 1, 1.0, {}, None, None, split, origin=origin)
    readme, package = card_of(checkpoint)
    assert "It is not known what nuclei@1.3.0, an earlier net of this line, was trained on." in readme
    assert f"The run began with the net of nuclei@1.3.0 (weights {origin.sha256})." in readme
    assert package_origin(package).unknown == ("nuclei@1.3.0",), "and so it is of a net that begins with this one"


@pytest.mark.parametrize("knows", [True, False])
def test_what_judges_a_package_although_it_taught_it_is_said(
    nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, knows: bool
) -> None:
    images = load_images(nuclei_folder, Data(), 1, 3)
    seen = " ".join(image.pixels_digest() for image in images[1:3]) if knows else None
    path = package_that_has_seen(seen, tmp_path)
    (tmp_path / "any.toml").write_text('name = "any"\n')
    asked = [str(path), "--data", str(nuclei_folder), "--split", "all", "--recipe", str(tmp_path / "any.toml")]
    with caplog.at_level(logging.INFO):
        assert main(["report", *asked, "--out", str(tmp_path / "report.html"), "--worst", "0"]) == 0
        report = (tmp_path / "report.html").read_text()
        said = caplog.text
        caplog.clear()
        assert main(["evaluate", *asked]) == 0
    if knows:
        judged = f"nuclei@1.3.0: of {len(images)} images that it is judged by, 2 taught it, or a net before that one"
        assert f"{judged} ({images[1].stem} is the first): their figures flatter" in said
        assert judged in caplog.text
        assert f"was trained on 2 of the {len(images)} images" in report
    else:
        assert "what nuclei@1.3.0 was trained on is not known here" in said
        assert "what nuclei@1.3.0 was trained on is not known here" in caplog.text
        assert "What nuclei@1.3.0 was trained on is not known here" in report


def package_that_has_seen(digests: str | None, folder: Path) -> Path:
    """A copy of the shipped package, of other training images, or of an older version, which does not tell them."""
    path = folder / "package"
    shutil.copytree(ZOO, path)
    description = yaml.safe_load((path / "rdf.yaml").read_text())
    facts = description["config"]["unet_service"]["facts"]
    del facts["seen"]
    if digests is not None:
        facts["seen"] = digests
    (path / "rdf.yaml").write_text(yaml.safe_dump(description, allow_unicode=True))
    return path


def test_images_are_known_by_their_pixels_whatever_their_names_and_labels() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    labels = np.zeros((3, 4), dtype=np.int32)
    one = AnnotatedImage("one", pixels, labels)
    same = (replace(one, stem="renamed"), replace(one, labels_yx=labels + 1))
    others = (replace(one, image_yxc=pixels + 1), replace(one, image_yxc=pixels.astype(np.uint16)))
    assert len(one.pixels_digest()) == 12
    assert {image.pixels_digest() for image in same} == {one.pixels_digest()}
    assert one.pixels_digest() not in {image.pixels_digest() for image in others}
    origin = Origin("net", seen=(one.pixels_digest(),))
    assert origin.seen_among({image.stem: image.pixels_digest() for image in (*same[:1], others[0])}) == ["renamed"]


def test_a_picture_on_both_sides_of_the_split_is_told_in_log_report_and_card(
    first: Path, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "report.html"
    shutil.copytree(nuclei_folder, data)
    net = load_checkpoint(first / "best.pt")
    recipe, copied = net.read_recipe().with_fold("1/3"), net.split["training"][0]
    sides = {name: validation_stems([*net.pixels, name], recipe.data) for name in map("copy-{}".format, range(50))}
    copy = next(name for name, chosen in sides.items() if name in chosen and copied not in chosen)
    for part in ("images", "labels"):
        (file,) = (data / part).glob(f"{copied}.*")
        shutil.copy(file, data / part / f"{copy}{file.suffix}")
    checkpoint = train(recipe, data, run, workers=0)
    assert copied in checkpoint.split["training"]
    said = f"1 of 3 validation images are the same pictures as training images ({copy} is the first): their figures"
    assert said in caplog.text
    assert said in card_of(checkpoint)[0]
    assert main(["report", str(run), "--data", str(data), "--out", str(out), "--worst", "0"]) == 0
    assert said in out.read_text()
    assert "the same pictures" not in card_of(net)[0]
    assert copies_told(checkpoint.split, {}) == "", "an older run keeps no pixels"


def test_an_older_run_knows_its_images_by_their_names(first: Path) -> None:
    older = replace(load_checkpoint(first / "best.pt"), pixels={}, digests={}, origin=None)
    seen = older.begun_with("older").origin.seen
    assert set(seen) == {name_digest(stem) for stem in older.split["training"]}
    stem, held_out = older.split["training"][0], older.split["validation"][0]
    assert older.begun_with("older").origin.seen_among({held_out: "0", stem: "0"}) == [stem]


def test_the_digests_of_many_images_fit_into_a_description(tiny_recipe: Recipe) -> None:
    split = {"training": [f"image-{number}" for number in range(500)], "validation": []}
    _, package = card_of(Checkpoint(tiny_recipe.model_dump(mode="json"), 1, 1.0, {}, None, None, split))
    assert len(package.spec.facts["seen"]) == 500 * 13 - 1
    assert len(package_origin(package).seen) == 500


def test_a_net_of_another_shape_is_refused_before_the_images_are_read(
    first: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ("--from", first, "--recipe", "synthetic", "--data", tmp_path / "no images", "--out", tmp_path / "run")
    assert fit(*arguments) == 2
    assert "the net to begin with is another: its base_width is 4" in capsys.readouterr().err


def test_only_what_a_number_of_steps_repeats_is_called_repeatable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "repeatable with --recipe (without one" in " ".join(capsys.readouterr().out.split())
