"""Training tiles by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.normalization import fit
from model.stitching import read_tile
from model.tiling import Span, Tile, Window
from training.data.datasets import IGNORE, AnnotatedImage, load_images
from training.data.tiles import (
    PreparedImage,
    TileDataset,
    class_weights,
    object_pixels,
    prepare,
    require_annotated,
    require_tile,
    share_with_objects,
)
from training.errors import NothingToLearn, RecipeError
from training.options import Augmentation
from training.recipe import Recipe, recipe_from


@pytest.fixture
def images(nuclei_folder: Path, tiny_recipe: Recipe) -> list[AnnotatedImage]:
    return load_images(nuclei_folder, tiny_recipe.data, 1, 2)


def dataset(prepared: list[PreparedImage], recipe: Recipe) -> TileDataset:
    return TileDataset(prepared, recipe, np.ones(len(recipe.targets.classes), dtype=np.float32))


def test_shapes_and_types_are_the_nets(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    tile, targets, weights = dataset(prepare(images, tiny_recipe), tiny_recipe)[0]
    assert (tile.shape, tile.dtype) == ((1, 100, 100), torch.float32)
    assert (targets.shape, targets.dtype) == ((60, 60), torch.int64)
    assert (weights.shape, weights.dtype) == ((60, 60), torch.float32)


def test_a_tile_depends_on_seed_and_number_alone(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    one, other = (dataset(prepare(images, tiny_recipe), tiny_recipe) for _ in range(2))
    other[3]
    for ours, theirs in zip(one[11], other[11], strict=True):
        assert torch.equal(ours, theirs)


def test_every_image_comes_once_a_round(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    still = tiny_recipe.model_copy(update={"augmentation": Augmentation()})
    marked = [
        AnnotatedImage(image.stem, np.full_like(image.image_yxc, number), image.labels_yx)
        for number, image in enumerate(images)
    ]
    recipe = recipe_from({**still.model_dump(mode="json"), "normalization": [{"id": "scale_linear"}]}, "marked")
    tiles = dataset(prepare(marked, recipe), recipe)
    rounds = [[round(tiles[start + place][0].mean().item()) for place in range(8)] for start in (0, 8)]
    assert [sorted(order) for order in rounds] == [list(range(8))] * 2
    assert rounds[0] != rounds[1]


def test_an_undeformed_tile_is_what_serving_reads(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    plain = Augmentation(probability=0, rotate=False, flip=False, elastic_px=0, shift_px=0)
    recipe = tiny_recipe.model_copy(update={"augmentation": plain})
    image = images[0]
    tile = dataset(prepare([image], recipe), recipe)[0][0].numpy()
    height, width = image.labels_yx.shape
    margin, empty = 20, Window(Span(0, 0), Span(0, 0))
    served = [
        read_tile(
            image.image_yxc,
            Tile(Window(Span(y - margin, y + 80), Span(x - margin, x + 80)), empty, empty),
            fit(recipe.normalization, image.image_yxc),
        )
        for y in range(height - 59)
        for x in range(width - 59)
    ]
    assert min(float(np.abs(tile - candidate).max()) for candidate in served) < 1e-4


def test_what_is_mirrored_is_not_learnt_from(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    small = AnnotatedImage("small", images[0].image_yxc[:20, :30], images[0].labels_yx[:20, :30])
    plain = Augmentation(probability=0, rotate=False, flip=False, elastic_px=0, shift_px=0)
    recipe = tiny_recipe.model_copy(update={"augmentation": plain})
    _, targets, _ = dataset(prepare([small], recipe), recipe)[0]
    assert int((targets != IGNORE).sum()) == 20 * 30


def test_gaps_between_cells_weigh_more_and_objects_do_not(images: list[AnnotatedImage], tiny_recipe: Recipe) -> None:
    tiles = dataset(prepare(images, tiny_recipe), tiny_recipe)
    targets, weights = (torch.stack(parts) for parts in list(zip(*(tiles[n] for n in range(8)), strict=True))[1:])
    assert set(weights[targets == 1].tolist()) == {1.0}
    assert weights[targets == 0].max() > 2


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 3.0), (1.0, 9.0)])
def test_class_weights_balance_by_the_power_asked_for(tiny_recipe: Recipe, balance: float, ratio: float) -> None:
    labels = np.zeros((10, 10), dtype=np.int32)
    labels[0] = 1
    image = AnnotatedImage("tenth", np.zeros((10, 10, 1), dtype=np.uint8), labels)
    weights = tiny_recipe.weights.model_copy(update={"class_balance": balance})
    background, foreground = class_weights([image], tiny_recipe.model_copy(update={"weights": weights}))
    assert foreground / background == pytest.approx(ratio, rel=1e-5)
    assert 0.9 * background + 0.1 * foreground == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("scheme", "names", "distance_px"),
    [("foreground", ("background", "cell"), 2), ("boundary", ("background", "cell", "rim"), 1)],
)
def test_touching_cells_are_parted_before_distances_are_measured(
    tiny_recipe: Recipe, scheme: str, names: tuple[str, ...], distance_px: int
) -> None:
    """Of the ridge of one pixel between them each cell is one pixel away; without a ridge one of them is not."""
    labels = np.zeros((20, 21), dtype=np.int32)
    labels[5:15, 3:10], labels[5:15, 10:18] = 1, 2
    values = tiny_recipe.model_dump(mode="json") | {"targets": {"scheme": scheme, "classes": names}}
    recipe = recipe_from(values, "touching")
    (prepared,) = prepare([AnnotatedImage("a", np.zeros((20, 21, 1), np.uint8), labels)], recipe)
    weights = recipe.weights
    expected = weights.w0 * np.exp(-(distance_px**2) / (2 * weights.sigma_px**2))
    assert prepared.border_yx[10, 9] == pytest.approx(expected, rel=1e-3)


def test_cells_of_semantic_masks_are_their_connected_components(tiny_recipe: Recipe) -> None:
    labels = np.ones((9, 9), dtype=np.int32)
    labels[:, 4] = 0
    image = AnnotatedImage("wall", np.zeros((9, 9, 1), dtype=np.uint8), labels)
    data = tiny_recipe.data.model_copy(update={"kind": "semantic"})
    (prepared,) = prepare([image], tiny_recipe.model_copy(update={"data": data}))
    assert float(prepared.border_yx[4, 4]) == pytest.approx(10 * np.exp(-(2.0**2) / 50), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"elastic_px": 65.0}, "elastic_px = 65 is too much here: tiles read 100 px; expected 64 or less"),
        ({"blur_px": 33.5}, "blur_px = 33.5 is too much here: tiles read 100 px; expected 33 or less"),
        ({"shift_px": 121.0}, "shift_px = 121 is too much here: the longest image has 120 px; expected 120 or less"),
    ],
)
def test_what_tile_and_images_do_not_allow_is_refused(
    images: list[AnnotatedImage], tiny_recipe: Recipe, values: dict[str, float], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        require_tile(images, tiny_recipe.model_copy(update={"augmentation": Augmentation.model_validate(values)}))
    ((name, value),) = values.items()
    lower = tiny_recipe.model_copy(update={"augmentation": Augmentation.model_validate({name: value - 1})})
    require_tile(images, lower)
    dataset(prepare(images, lower), lower)[0]


def test_tiles_that_would_read_more_than_a_computer_holds_are_refused(
    images: list[AnnotatedImage], tiny_recipe: Recipe
) -> None:
    far = Augmentation(scale=(1 / 16, 1.0))
    recipe = tiny_recipe.model_copy(update={"augmentation": far, "tile_output_px": 2100})
    large = [AnnotatedImage("a", np.zeros((2000, 2000, 1), np.uint8), np.zeros((2000, 2000), np.int32))]
    with pytest.raises(RecipeError, match=r"makes a tile of 2140 px read 34240 px .* expected 32768 px or less"):
        require_tile(large, recipe)


def test_a_run_whose_tiles_show_nothing_annotated_is_refused(tiny_recipe: Recipe) -> None:
    tiny = AnnotatedImage("tiny", np.zeros((4, 4, 1), dtype=np.uint8), np.ones((4, 4), dtype=np.int32))
    shifted = Augmentation(elastic_px=0, shift_px=50)
    schedule = tiny_recipe.schedule.model_copy(update={"seed": 1})
    recipe = tiny_recipe.model_copy(update={"augmentation": shifted, "schedule": schedule})
    tiles = dataset(prepare([tiny], recipe), recipe)
    known = [bool((tiles[number][1] != IGNORE).any()) for number in range(12)]
    first = known.index(True)
    assert first > 0, "some tiles lie beside the image, and are no reason to refuse a run"
    require_annotated([tiny], recipe, first + 1)
    with pytest.raises(NothingToLearn, match=rf"the first {first} tiles of the run hold not one pixel .* = 50 may"):
        require_annotated([tiny], recipe, first)


def test_a_search_for_something_annotated_ends(tiny_recipe: Recipe) -> None:
    unknown = AnnotatedImage("a", np.zeros((90, 90, 1), np.uint8), np.full((90, 90), IGNORE, dtype=np.int32))
    with pytest.raises(NothingToLearn, match="the first 1000 tiles"):
        require_annotated([unknown], tiny_recipe, 10**12)


def sparse(top: int = 4, left: int = 880) -> AnnotatedImage:
    """A large image with one small object, near its corner or elsewhere."""
    labels = np.zeros((800, 900), dtype=np.int32)
    labels[top : top + 6, left : left + 10] = 7
    return AnnotatedImage("sparse", np.random.default_rng(0).integers(0, 255, (800, 900, 1), dtype=np.uint8), labels)


@pytest.mark.parametrize(("top", "left", "turned"), [(4, 880, False), (400, 300, False), (400, 300, True)])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_tiles_is_drawn_around_objects(
    tiny_recipe: Recipe, top: int, left: int, share: float, *, turned: bool
) -> None:
    settings = Augmentation(elastic_px=0, shift_px=0, rotate=turned, foreground_share=share)
    recipe, image = tiny_recipe.model_copy(update={"augmentation": settings}), sparse(top, left)
    tiles = dataset(prepare([image], recipe), recipe)
    targets = [tiles[number][1].numpy() for number in range(100)]
    shown = [target for target in targets if (target > 0).any()]
    assert len(shown) == pytest.approx(100 * share, abs=15)
    assert share_with_objects([image], recipe) == len(shown) / 100
    if top == 400 and share:
        assert len({tuple(np.argwhere(target > 0)[0]) for target in shown}) > len(shown) / 2, "wherever in a tile"


def test_of_large_tiles_fewer_are_looked_at(tiny_recipe: Recipe) -> None:
    image = sparse(400, 300)
    empty = AnnotatedImage("empty", image.image_yxc, np.zeros_like(image.labels_yx))
    recipe = tiny_recipe.model_copy(update={"tile_output_px": 1060})
    looked = 40_000_000 // recipe.tile_input_px**2
    assert looked in {31, 33}, "an odd number of tiles, so that one of two images is looked at more often"
    share = share_with_objects([image, empty], recipe)
    assert round(share * looked) in {looked // 2, looked // 2 + 1}
    assert share * looked == pytest.approx(round(share * looked))


def test_images_without_objects_and_recipes_without_a_share_have_the_tiles_of_before(tiny_recipe: Recipe) -> None:
    image = sparse()
    empty = AnnotatedImage("empty", image.image_yxc, np.zeros_like(image.labels_yx))
    shared = tiny_recipe.model_copy(
        update={"augmentation": tiny_recipe.augmentation.model_copy(update={"foreground_share": 0.5})}
    )
    for one in (empty, image):
        anywhere, around = (dataset(prepare([one], recipe), recipe) for recipe in (tiny_recipe, shared))
        same = [torch.equal(anywhere[number][0], around[number][0]) for number in range(4)]
        assert all(same) == (one is empty)


def test_places_to_draw_tiles_around_are_few_and_strewn_over_all_objects(tiny_recipe: Recipe) -> None:
    labels = np.zeros((400, 400), dtype=np.int32)
    labels[:300], labels[390:] = 1, 2
    image = AnnotatedImage("one", np.zeros((400, 400, 1), dtype=np.uint8), labels)
    assert object_pixels(image, tiny_recipe) is None
    settings = tiny_recipe.augmentation.model_copy(update={"foreground_share": 0.1})
    places = object_pixels(image, tiny_recipe.model_copy(update={"augmentation": settings}))
    assert places is not None
    assert places.size == 65_536
    assert np.bincount(labels.ravel()[places]).tolist() == pytest.approx([0, 65_536 * 30 / 31, 65_536 / 31], abs=2)
