"""Fine-tuning: a package's net comes back into torch, its recipe is inherited, and what it knows is kept and moved."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from model.label_rule import LabelRule
from model.normalization import FixedZeroMeanUnitVariance, ScaleLinear, ScaleRange, Step
from model.package import RDF_NAMES, read_package, write_package
from model.tiling import valid_unet_geometry
from model.unet import UNet
from tests.packages import write_tiny_package
from training.choosing.choose import choose_weights
from training.choosing.choose_size import Budget
from training.choosing.finetune import inherit, open_origin, package_checkpoint, size_caution
from training.cli import main
from training.data.datasets import AnnotatedImage, load_images
from training.data.survey import survey_folder
from training.data.survey_objects import Guess
from training.errors import CheckpointError, ForeignPackage
from training.evaluation.evaluate import evaluate_images
from training.evaluation.targets import open_predictor
from training.learning.trainer import train
from training.options import Data, Targets, Weights
from training.packaging.onnx_graph import to_onnx
from training.packaging.onnx_weights import read_unet
from training.recipe import Recipe, recipe_from
from training.runs.checkpoint import Checkpoint
from training.runs.state import fresh_state, require_fitting_net
from training.scene import NucleiScene
from training.scoring import Scoring
from training.synthetic import write_dataset

ZOO = Path(__file__).resolve().parents[2] / "model" / "zoo" / "nuclei"

# libraries that the exporter calls, not ours: torch's pytree and torchvision's absence, bioimageio's open files
exports = pytest.mark.filterwarnings(
    "ignore::FutureWarning",
    "ignore::DeprecationWarning",
    "ignore::UserWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def figure(target: Path, images: list[AnnotatedImage], name: str) -> float:
    """Mean figure of a run or a package over images."""
    predictor, _ = open_predictor(target, None, "cpu")
    return evaluate_images(images, predictor, instances=True).means()[name]


def invert(folder: Path) -> None:
    """Turn bright objects on a dark ground into dark ones on a bright ground."""
    for path in (folder / "images").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@pytest.fixture(scope="module")
def zoo() -> Checkpoint:
    return package_checkpoint(read_package(ZOO))


def budget(steps: int = 10) -> Budget:
    return Budget(None, steps, 20.0, "cpu", (False, "not here"), lambda _: 1.0)


def test_a_shipped_package_comes_back_as_the_net_that_made_it(zoo: Checkpoint) -> None:
    recipe = zoo.read_recipe()
    assert (recipe.net.base_width, recipe.net.depth, recipe.net.downscale, recipe.name) == (32, 4, 1, "nuclei")
    assert recipe.targets.scheme == "boundary"
    graph = onnx.load_from_string(read_package(ZOO).weights()).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    np.testing.assert_array_equal(zoo.net["up.2.conv.2.weight"].numpy(), stored["0.up.2.conv.2.weight_fp16"])


def test_the_names_in_the_graph_do_not_matter() -> None:
    graph = onnx.load_from_string(read_package(ZOO).weights())
    for node in graph.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = f"v{abs(hash(name))}" if name not in {"image", "probabilities", ""} else name
    for tensor in graph.graph.initializer:
        tensor.name = f"v{abs(hash(tensor.name))}"
    renamed, plain = (read_unet(weights, "x") for weights in (graph.SerializeToString(), read_package(ZOO).weights()))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in renamed.state_dict().items())


def test_a_package_of_another_net_is_refused(tmp_path: Path) -> None:
    package = write_tiny_package(tmp_path / "tiny")
    with pytest.raises(
        ForeignPackage, match="not the U-Net that is trained here: it has 1 convolutions and 0 poolings"
    ):
        open_origin(package.path)


def test_weights_that_do_not_give_the_golden_output_are_refused(tmp_path: Path) -> None:
    package = read_package(ZOO)
    _, output = package.golden_pair()
    for file in ZOO.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    np.save(tmp_path / "test_output.npy", np.clip(output + 0.01, 0, 1))
    description = tmp_path / "rdf.yaml"
    hashed = package.spec.test_output.sha256
    assert hashed is not None
    description.write_text(description.read_text().replace(f"sha256: {hashed}", ""))
    with pytest.raises(ForeignPackage, match="differ on torch"):
        open_origin(tmp_path)


@pytest.mark.parametrize("name", RDF_NAMES)
def test_a_description_may_have_any_of_its_names(tmp_path: Path, name: str) -> None:
    for file in ZOO.iterdir():
        (tmp_path / (name if file.name == "rdf.yaml" else file.name)).write_bytes(file.read_bytes())
    assert open_origin(tmp_path).net.read_recipe().name == "nuclei"


def test_what_is_no_beginning_is_said(tmp_path: Path) -> None:
    with pytest.raises(ForeignPackage, match="nothing to begin with: expected a run's folder"):
        open_origin(tmp_path)


def test_limits_of_the_label_rule_follow_the_images(zoo: Checkpoint, nuclei_folder: Path) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    smallest = int(survey.objects.small_area_px / 2)
    for inherited, chosen in ((smallest // 2 - 1, smallest // 2 - 1), (smallest, smallest // 2)):
        limits = {"min_seed_px": inherited, "min_seed_share": 0.1, "min_score": 0.75}
        origin = zoo.read_recipe()
        origin = origin.model_copy(update={"labels": origin.labels.model_copy(update=limits)})
        labels = inherit(origin, survey, data, budget(500), "mine").recipe.labels
        assert (labels.min_seed_px, labels.min_seed_share, labels.min_score) == (chosen, 0.1, 0.0)


def test_the_recipe_is_inherited_with_a_gentler_schedule(zoo: Checkpoint, nuclei_folder: Path) -> None:
    origin = zoo.read_recipe()
    survey, data, _ = survey_folder(nuclei_folder)
    plan = inherit(origin, survey, data, budget(500), "mine")
    recipe = plan.recipe
    assert (recipe.net, recipe.targets, recipe.normalization) == (origin.net, origin.targets, origin.normalization)
    assert recipe.augmentation == origin.augmentation.model_copy(update={"shift_px": 12.0})
    assert "shift_px 12: the smallest image has 96 x 120 px" in plan.as_text()
    smallest = int(survey.objects.small_area_px / 2)
    limits = {"min_area_px": smallest, "min_seed_px": min(origin.labels.min_seed_px, smallest // 2), "min_score": 0.0}
    assert recipe.labels == origin.labels.model_copy(update=limits)
    assert recipe.schedule.learning_rate < origin.schedule.learning_rate
    assert (recipe.schedule.steps, recipe.schedule.warmup_steps, recipe.name) == (500, 50, "nuclei-mine")
    assert recipe.data.include is None, "the folder is not the package's"
    assert "inherited: normalization, weight map, loss, augmentation" in plan.as_text()


def test_what_cannot_be_inherited_is_chosen_and_said(zoo: Checkpoint, nuclei_folder: Path) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    classes = replace(survey, guess=Guess("semantic", (0, 255), "two values"), channels=3)
    semantic = data.model_copy(update={"kind": "semantic", "class_values": (0, 255)})
    plan = inherit(zoo.read_recipe(), classes, semantic, budget(), "mine")
    assert plan.recipe.targets.classes == ("background", "foreground")
    assert (plan.recipe.labels.method, plan.recipe.net.in_channels) == ("components", 3)
    assert "the head begins anew: scheme boundary cannot be inherited" in plan.as_text()
    assert "the first convolution begins anew: 3 channels here, 1 there" in plan.as_text()


def bars(*widths: int) -> NDArray[np.int32]:
    """Mask of ten numbered bars of each width."""
    tops = np.cumsum([4, *(width + 3 for width in widths for _ in range(10))])
    mask = np.zeros((int(tops[-1]), 40), dtype=np.int32)
    for number, (top, end) in enumerate(pairwise(tops.tolist()), start=1):
        mask[top : end - 3, 5:35] = number
    return mask


def test_a_scheme_that_cannot_find_these_objects_is_not_inherited(zoo: Checkpoint, nuclei_folder: Path) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    origin = zoo.read_recipe().model_copy(update={"weights": Weights(w0=7.0)})
    plan = inherit(origin, replace(survey, masks_yx=(bars(2, 9),)), data, budget(), "mine")
    assert (plan.recipe.targets.scheme, plan.recipe.labels.seeds) == ("contact", (1,))
    lost = "by scheme boundary, 1 px wide, 10 of 20 objects have no interior, or one in pieces"
    assert f"the head begins anew: {lost}" in plan.as_text()
    assert plan.recipe.weights == choose_weights(survey)[0]
    assert "weight map w0" in plan.as_text()
    assert "inherited: normalization, loss, augmentation" in plan.as_text()
    kept = inherit(origin, replace(survey, masks_yx=(bars(9),)), data, budget(), "mine")
    assert (kept.recipe.targets, kept.recipe.weights) == (origin.targets, origin.weights)


def test_a_boundary_that_is_too_wide_for_these_objects_is_inherited_narrower(
    zoo: Checkpoint, nuclei_folder: Path
) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    origin = zoo.read_recipe()
    origin = origin.model_copy(update={"targets": origin.targets.model_copy(update={"boundary_px": 5})})
    plan = inherit(origin, replace(survey, masks_yx=(bars(6, 20),)), data, budget(), "mine")
    assert (plan.recipe.targets.classes, plan.recipe.targets.boundary_px) == (origin.targets.classes, 1)
    assert plan.recipe.labels.min_seed_share == origin.labels.min_seed_share
    assert (plan.recipe.weights, plan.recipe.scoring) == (origin.weights, origin.scoring)
    assert "boundary_px 1: by scheme boundary, 5 px wide, 10 of 20 objects have no interior" in plan.as_text()
    assert "begins anew" not in plan.as_text()


def test_a_scheme_that_finds_as_many_as_any_is_inherited(zoo: Checkpoint, nuclei_folder: Path) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    pairs = np.arange(1, 41, dtype=np.int32)[:, None] * np.ones((1, 40), dtype=np.int32)  # rows that touch
    plan = inherit(zoo.read_recipe(), replace(survey, masks_yx=(pairs,)), data, budget(), "mine")
    assert plan.recipe.targets == zoo.read_recipe().targets


def test_classes_of_one_image_bring_no_weight_map_for_others(zoo: Checkpoint, nuclei_folder: Path) -> None:
    survey, _, _ = survey_folder(nuclei_folder)
    classes = replace(survey, guess=Guess("semantic", (0, 1, 2), "three values"), class_shares=(0.5, 0.3, 0.2))
    data = Data(kind="semantic", class_values=(0, 1, 2))
    plan = inherit(zoo.read_recipe(), classes, data, budget(), "mine")
    assert zoo.read_recipe().weights.w0 > 0
    assert plan.recipe.weights.w0 == 0
    assert "weight map none: several classes" in plan.as_text()


@pytest.mark.parametrize(("across", "told"), [(20.0, False), (38.0, False), (90.0, True), (9.0, True), (0.0, False)])
def test_objects_of_quite_another_size_than_the_net_has_learnt_are_told(
    zoo: Checkpoint, nuclei_folder: Path, across: float, *, told: bool
) -> None:
    survey, _, _ = survey_folder(nuclei_folder)
    survey = replace(survey, objects=replace(survey.objects, diameter_px=(across, across, across)))
    learnt = zoo.object_diameter_px
    assert learnt is not None
    assert learnt == read_package(ZOO).spec.object_diameter_px
    caution = size_caution(learnt, survey)
    assert (caution is not None) == told
    if caution is not None:
        assert caution.title.startswith(f"Objects {across:.0f} px across (median)")
        assert f"Scale images and masks by {learnt[1] / across:.2g}" in caution.advice
    assert size_caution(None, survey) is None


@exports
def test_the_plan_of_a_fine_tuning_tells_objects_of_another_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        size = 90 if index else 100
        disc = np.hypot(*(np.indices((160, 160)) - 80)) < size / 2
        for kind, plane in (("images", 200 * disc + 20), ("labels", disc * 7)):
            (tmp_path / "large" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane.astype(np.uint8)).save(tmp_path / "large" / kind / f"{index}.png")
    arguments = ["plan", "--data", str(tmp_path / "large"), "--set", "data.kind=instances", "--steps", "1"]
    assert main([*arguments, "--from", "nuclei"]) == 0
    assert any(message.startswith("Objects 90 px across (median)") for message in caplog.messages)


THREE = (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("steps", "channels", "inherited"),
    [
        ((FixedZeroMeanUnitVariance(mean=THREE, std=THREE),), 3, True),
        ((FixedZeroMeanUnitVariance(mean=THREE, std=THREE),), 1, False),
        ((ScaleRange(), ScaleLinear(gain=(2.0,), offset=THREE)), 2, False),
        ((ScaleRange(), ScaleLinear(gain=(2.0,), offset=(0.5,))), 2, True),
    ],
)
def test_constants_of_each_channel_are_inherited_by_as_many_channels_only(
    zoo: Checkpoint, nuclei_folder: Path, steps: tuple[Step, ...], channels: int, inherited: bool
) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    origin = zoo.read_recipe().model_copy(update={"normalization": steps})
    plan = inherit(origin, replace(survey, channels=channels), data, budget(), "mine")
    assert plan.recipe.normalization == (steps if inherited else Recipe(name="any").normalization)
    assert ("inherited: normalization, weight map" in plan.as_text()) == inherited
    said = f"normalization by default: that of nuclei has constants for 3 channels, here are {channels}"
    assert (said in plan.as_text()) != inherited


@pytest.mark.parametrize(
    ("kind", "scheme", "inherited"),
    [("instances", "boundary", True), ("semantic", "boundary", False), ("semantic", "foreground", False)],
)
def test_scoring_is_inherited_with_the_targets(
    zoo: Checkpoint, nuclei_folder: Path, kind: Literal["instances", "semantic"], scheme: str, *, inherited: bool
) -> None:
    survey, data, _ = survey_folder(nuclei_folder)
    if kind == "semantic":
        survey = replace(survey, guess=Guess("semantic", (0, 255), "two values"))
        data = data.model_copy(update={"kind": "semantic", "class_values": (0, 255)})
    scoring = Scoring(measures=("seg",), choose_by="seg", mirror=True)
    origin = zoo.read_recipe().model_copy(update={"scoring": scoring})
    if scheme == "foreground":  # fits semantic masks of two values, but SEG does not
        targets, labels = Targets(), LabelRule()
        origin = origin.model_copy(update={"targets": targets, "labels": labels})
    plan = inherit(origin, survey, data, budget(), "mine")
    assert plan.recipe.scoring == (scoring if inherited else Scoring())
    assert ("augmentation, scoring" in plan.as_text()) == inherited
    assert ("scoring by default: that of nuclei is for other classes or masks" in plan.as_text()) != inherited


def test_the_suffix_of_a_zip_may_be_upper_case(tmp_path: Path) -> None:
    files = read_package(ZOO).own_files()
    package = write_package(tmp_path / "NUCLEI.ZIP", read_package(ZOO).spec.model_copy(update={"variants": ()}), files)
    assert package.path.is_file()
    assert open_origin(package.path).net.read_recipe().name == "nuclei"


def test_layers_for_other_classes_and_channels_begin_anew(zoo: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="training")
    recipe = zoo.read_recipe()
    other: Recipe = recipe_from(
        {
            "name": "other",
            "tile_output_px": 4,
            "net": recipe.net.model_copy(update={"in_channels": 3}).model_dump(),
            "targets": {"scheme": "foreground", "classes": ["background", "cell"]},
            "schedule": {"ema": 0.9},
        },
        "other",
    )
    state = fresh_state(other, "cpu")
    fresh = {name: value.clone() for name, value in state.net.state_dict().items()}
    state.adopt(zoo, other)
    ours = state.net.state_dict()
    anew = {name for name in ours if torch.equal(ours[name], fresh[name]) and ours[name].any()}
    assert anew == {"head.weight", "down.0.0.weight"}
    assert torch.equal(ours["down.3.0.weight"], zoo.net["down.3.0.weight"])
    assert torch.equal(state.scored_net.state_dict()["down.3.0.weight"], zoo.net["down.3.0.weight"])
    assert "the head begins anew: its classes were background, interior, boundary" in caplog.text
    assert "it took 1 channels, now it takes 3" in caplog.text


def test_a_recipe_with_batch_normalisation_cannot_begin_with_a_package(zoo: Checkpoint) -> None:
    recipe = zoo.read_recipe()
    normalised = recipe.model_copy(update={"net": recipe.net.model_copy(update={"batch_norm": True})})
    with pytest.raises(CheckpointError, match=r"net\.batch_norm = false"):
        require_fitting_net(zoo, normalised)


@exports
@pytest.mark.slow
def test_a_package_learns_a_new_kind_from_four_images(
    tmp_path: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = recipe_from(
        {
            "name": "small",
            "tile_output_px": 84,
            "data": {"validation_fraction": 0.0},
            "net": {"base_width": 8, "depth": 2, "dropout": 0.0, "batch_norm": True},
            "targets": {"scheme": "boundary", "classes": ["background", "interior", "boundary"]},
            "weights": {"class_balance": 0.0},
            "augmentation": {"elastic_px": 3.0},
            "schedule": {"optimizer": "adamw", "learning_rate": 0.004, "steps": 120, "decay": "cosine", "ema": 0.9},
            "labels": {"method": "watershed", "foreground": [1, 2], "min_area_px": 20},
        },
        "small",
    )
    train(recipe, nuclei_folder, tmp_path / "first", workers=0)
    package = tmp_path / "small.zip"
    assert main(["export", str(tmp_path / "first"), "--out", str(package)]) == 0
    compare = ["compare", str(package), "--data", str(nuclei_folder), "--split", "all", "--precision", "fp16"]
    assert main([*compare, "--backend", "cpu"]) == 0
    assert "8 images that it is judged by, 8 taught it" in caplog.text

    scene = NucleiScene(size_yx=(96, 120), bit_depth=8, radius_px=(6.0, 10.0))
    write_dataset(tmp_path / "new", 4, scene, seed=7)
    write_dataset(tmp_path / "held", 3, scene, seed=8)
    invert(tmp_path / "new")
    bright = load_images(tmp_path / "held", Data(), 1, 2)
    assert figure(package, bright, "ap@0.5") > 0.5, "it has learned its own kind"
    invert(tmp_path / "held")
    dark = load_images(tmp_path / "held", Data(), 1, 2)
    before = figure(package, dark, "iou")
    run = tmp_path / "second"
    arguments = ["fit", "--from", str(package), "--data", str(tmp_path / "new"), "--out", str(run), "--steps", "100"]
    assert main([*arguments, "--workers", "0"]) == 0
    assert "net of small: base width 8, depth 2" in capsys.readouterr().out
    assert before < 0.3, "bright nuclei are all that it knows"
    assert figure(run, dark, "iou") > 0.6


@exports
@pytest.mark.slow
def test_a_net_of_blocks_with_batch_normalisation_comes_back_folded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(base_width=4, depth=2, classes=3, in_channels=2, downscale=2, batch_norm=True)
    net(torch.rand(2, 2, 96, 96))  # running statistics that are not those of a fresh net
    plain = net.folded()
    weights = to_onnx(torch.nn.Sequential(plain, torch.nn.Softmax(dim=1)), valid_unet_geometry(2, 2).y, 2)
    back = read_unet(weights, "x")
    assert (back.depth, back.downscale, back.in_channels, back.classes) == (2, 2, 2, 3)
    tile = torch.rand(1, 2, 96, 96)
    with torch.inference_mode():
        assert torch.allclose(back(tile), plain(tile), atol=1e-2), "but for the rounding to fp16"


@pytest.mark.slow
def test_fine_tuning_keeps_what_the_shipped_package_knows(tmp_path: Path) -> None:
    scene = NucleiScene(size_yx=(128, 128), bit_depth=8)
    write_dataset(tmp_path / "few", 3, scene, seed=1)
    write_dataset(tmp_path / "held", 4, scene, seed=2)
    held = load_images(tmp_path / "held", Data(), 1, 2)
    before = figure(ZOO, held, "ap@0.5")
    arguments = ["fit", "--from", str(ZOO), "--data", str(tmp_path / "few"), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--steps", "12", "--workers", "0"]) == 0
    assert before > 0.6
    assert figure(tmp_path / "run", held, "ap@0.5") > before - 0.05


def test_a_net_with_padding_is_foreign() -> None:
    graph = onnx.load_from_string(read_package(ZOO).weights())
    first = next(node for node in graph.graph.node if node.op_type == "Conv")
    (pads,) = [attribute for attribute in first.attribute if attribute.name == "pads"]
    pads.ints[:] = [1, 1, 1, 1]
    with pytest.raises(ForeignPackage, match="padded"):
        read_unet(graph.SerializeToString(), "x")
    with pytest.raises(ForeignPackage, match="no ONNX graph"):
        read_unet(b"\x08nonsense", "x")
