from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy._core._multiarray_umath import __cpu_dispatch__  # type: ignore[import-not-found,unused-ignore]
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.synthetic import NucleiScene, SceneError, main, render_nuclei, write_dataset

Labels = NDArray[np.uint16 | np.uint32]


def touching_share(labels_yx: Labels) -> float:
    """Share of the nuclei that have a pixel of another one as 4-neighbour."""
    touching: set[int] = set()
    for one, other in ((labels_yx[1:], labels_yx[:-1]), (labels_yx[:, 1:], labels_yx[:, :-1])):
        border = (one != other) & (one > 0) & (other > 0)
        touching.update(one[border].tolist(), other[border].tolist())
    return len(touching) / int(labels_yx.max())


def digest(array: NDArray[np.generic]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


scenes = st.builds(
    NucleiScene,
    size_yx=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    coverage=st.floats(0, 0.5),
    touching=st.floats(0, 1),
    overlap=st.floats(0, 0.5),
    irregularity=st.floats(0, 1),
)


@given(scene=scenes, seed=st.integers(0, 2**63))
@settings(max_examples=40)
def test_every_label_is_one_connected_piece_numbered_without_gaps(scene: NucleiScene, seed: int) -> None:
    image_yx, labels_yx = render_nuclei(scene, seed)
    assert image_yx.shape == labels_yx.shape == scene.size_yx
    present = np.unique(labels_yx[labels_yx > 0])
    assert present.tolist() == list(range(1, len(present) + 1))
    for index, window in enumerate(ndimage.find_objects(labels_yx.astype(np.int32)), start=1):
        assert ndimage.label(labels_yx[window] == index)[1] == 1


@given(seed=st.integers(0, 2**32), bit_depth=st.sampled_from([8, 12, 16]))
@settings(max_examples=10)
def test_same_seed_gives_same_bytes(seed: int, bit_depth: int) -> None:
    scene = NucleiScene(size_yx=(97, 130), bit_depth=bit_depth)
    first, second = render_nuclei(scene, seed), render_nuclei(scene, seed)
    assert [digest(array) for array in first] == [digest(array) for array in second]


def test_another_seed_gives_another_picture() -> None:
    scene = NucleiScene()
    one, other = render_nuclei(scene, 1), render_nuclei(scene, 2)
    assert digest(one[0]) != digest(other[0])
    assert digest(one[1]) != digest(other[1])


def test_bytes_are_those_of_the_release() -> None:
    """The demo's numbers are quoted: a change here is a change there."""
    image_yx, labels_yx = render_nuclei(NucleiScene(size_yx=(256, 256), chromocentres=3.0), 7)
    assert (digest(image_yx)[:16], digest(labels_yx)[:16]) == ("21288b0060729db2", "6a546fea9df0cdda")


def test_bytes_do_not_depend_on_the_cpu(tmp_path: Path) -> None:
    """Without its vector instructions NumPy rounds exp, cos and arctan2 differently: the pictures stay the same."""
    names = ("native.tif", "plain.tif")
    environments = (os.environ, os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(__cpu_dispatch__)})
    for name, environment in zip(names, environments, strict=True):
        command = [sys.executable, "-m", "training.synthetic", "--single", str(tmp_path / name), "--size", "512", "512"]
        subprocess.run(command, check=True, env=environment)
    native, plain = ((tmp_path / name).read_bytes() for name in names)
    assert native == plain


def test_camera_does_not_move_the_nuclei() -> None:
    scene = NucleiScene(size_yx=(200, 160), bit_depth=16)
    retaken = replace(scene, bit_depth=8, photons=50.0, read_noise=9.0, blur_px=2.0, shading=0.0, exposure=0.2)
    image_yx, labels_yx = render_nuclei(scene, 3)
    image_retaken_yx, labels_retaken_yx = render_nuclei(retaken, 3)
    np.testing.assert_array_equal(labels_yx, labels_retaken_yx)
    assert [image_yx.dtype.name, image_retaken_yx.dtype.name] == ["uint16", "uint8"]


@pytest.mark.parametrize("seed", range(3))
def test_no_nuclei_touch_when_none_shall(seed: int) -> None:
    _, labels_yx = render_nuclei(NucleiScene(size_yx=(512, 512), touching=0.0, coverage=0.3), seed)
    assert labels_yx.max() > 50
    assert touching_share(labels_yx) == 0


@pytest.mark.parametrize("seed", range(3))
def test_nuclei_touch_when_they_shall(seed: int) -> None:
    scene = NucleiScene(size_yx=(512, 512))
    shares = [touching_share(render_nuclei(replace(scene, touching=share), seed)[1]) for share in (0.1, 0.4, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] > 0.05
    assert shares[2] > 0.95


@pytest.mark.parametrize("coverage", [0.05, 0.15, 0.3])
def test_nuclei_cover_the_share_asked_for(coverage: float) -> None:
    _, labels_yx = render_nuclei(NucleiScene(size_yx=(768, 768), coverage=coverage), 5)
    assert float(np.mean(labels_yx > 0)) == pytest.approx(coverage, rel=0.25)


def test_no_coverage_gives_an_empty_picture() -> None:
    image_yx, labels_yx = render_nuclei(NucleiScene(coverage=0.0), 0)
    assert labels_yx.max() == 0
    assert image_yx.std() > 0


def test_radii_lie_in_the_range_asked_for() -> None:
    """Away from the border and without neighbours, where nothing is cut off."""
    scene = NucleiScene(size_yx=(512, 512), radius_px=(9.0, 12.0), touching=0.0, mitotic=0.0)
    _, labels_yx = render_nuclei(scene, 2)
    inner = np.setdiff1d(
        np.arange(1, labels_yx.max() + 1), [*labels_yx[[0, -1]].ravel(), *labels_yx[:, [0, -1]].ravel()]
    )
    radii = np.sqrt(np.bincount(labels_yx.ravel())[inner] / np.pi)
    assert len(radii) > 30
    assert radii.min() > 8.5
    assert radii.max() < 12.8


@pytest.mark.parametrize(
    ("bit_depth", "dtype", "least_levels"), [(8, np.uint8, 60), (12, np.uint16, 500), (16, np.uint16, 5000)]
)
def test_bit_depth_is_used(bit_depth: int, dtype: type[np.generic], least_levels: int) -> None:
    image_yx, _ = render_nuclei(NucleiScene(bit_depth=bit_depth), 0)
    assert image_yx.dtype == dtype
    assert image_yx.max() < 2**bit_depth
    assert len(np.unique(image_yx)) > least_levels


@pytest.mark.parametrize("seed", range(4))
def test_each_nucleus_is_brighter_than_the_background(seed: int) -> None:
    image_yx, labels_yx = render_nuclei(NucleiScene(size_yx=(384, 384)), seed)
    background = image_yx[labels_yx == 0]
    nuclei = np.array(ndimage.mean(image_yx, labels_yx, np.arange(1, labels_yx.max() + 1)))
    assert np.median(nuclei) > 4 * np.median(background)
    assert nuclei.min() > np.median(background) + 2 * background.std()


def test_fewer_photons_give_more_noise() -> None:
    """In an even, empty field the relative variance is that of Poisson's law, 1 over the photons."""
    scene = NucleiScene(
        coverage=0.0, debris_per_megapixel=0.0, shading=0.0, background=1.0, read_noise=0.0, dark_offset=0.0
    )
    image_yx, _ = render_nuclei(replace(scene, photons=100.0), 0)
    assert image_yx.std() / image_yx.mean() == pytest.approx(0.1, rel=0.02)


def test_shading_darkens_the_corners() -> None:
    scene = NucleiScene(coverage=0.0, debris_per_megapixel=0.0, background=1.0, shading=0.6)
    image_yx, _ = render_nuclei(scene, 0)
    corners = np.mean(
        [image_yx[y, x].mean() for y in (slice(16), slice(-16, None)) for x in (slice(16), slice(-16, None))]
    )
    assert corners < 0.7 * image_yx[112:144, 112:144].mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coverage": 0.6}, "coverage is 0.6; give a number from 0 to 0.5"),
        ({"touching": -0.1}, "touching is -0.1"),
        ({"blur_px": float("nan")}, "blur_px is nan"),
        ({"size_yx": (0, 5)}, r"size_yx is \(0, 5\)"),
        ({"radius_px": (9.0, 4.0)}, "radius_px is .*smallest first"),
        ({"photons": 0.0}, "photons is 0.0"),
        ({"exposure": 1.5}, "exposure is 1.5"),
        ({"bit_depth": 10}, "bit_depth is 10; give 8, 12 or 16"),
    ],
)
def test_value_out_of_range_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(SceneError, match=message):
        replace(NucleiScene(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("bit_depth", "suffix"), [(8, ".png"), (16, ".tif")])
def test_dataset_pairs_pictures_and_labels_by_name(tmp_path: Path, bit_depth: int, suffix: str) -> None:
    write_dataset(tmp_path, 3, NucleiScene(size_yx=(96, 80), bit_depth=bit_depth), 0)
    images, labels = sorted((tmp_path / "images").iterdir()), sorted((tmp_path / "labels").iterdir())
    assert [path.name for path in images] == [f"nuclei-000{index}{suffix}" for index in range(3)]
    assert [path.stem for path in images] == [path.stem for path in labels]
    image_yx = np.asarray(Image.open(images[0])) if suffix == ".png" else tifffile.imread(images[0])
    labels_yx = np.asarray(Image.open(labels[0]))
    assert image_yx.shape == labels_yx.shape == (96, 80)
    assert [image_yx.dtype.name, labels_yx.dtype.name] == [f"uint{bit_depth}", "uint16"]
    assert image_yx[labels_yx > 0].mean() > 2 * image_yx[labels_yx == 0].mean()


def test_longer_dataset_begins_with_the_shorter_one(tmp_path: Path) -> None:
    scene = NucleiScene(size_yx=(64, 64))
    write_dataset(tmp_path / "short", 2, scene, 4)
    write_dataset(tmp_path / "long", 3, scene, 4)
    short, long = (sorted((tmp_path / name / "images").iterdir()) for name in ("short", "long"))
    assert [path.read_bytes() for path in short] == [path.read_bytes() for path in long[:2]]
    assert long[2].read_bytes() != long[1].read_bytes()


def test_dataset_of_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="count is 0; ask for at least 1"):
        write_dataset(tmp_path, 0, NucleiScene(), 0)


def test_command_writes_one_picture_and_its_labels(tmp_path: Path) -> None:
    single = tmp_path / "new" / "sample.tif"
    assert main(["--single", str(single), "--size", "120", "90", "--seed", "3", "--bit-depth", "16"]) == 0
    image_yx, labels_yx = render_nuclei(NucleiScene(size_yx=(120, 90)), 3)
    np.testing.assert_array_equal(tifffile.imread(single), image_yx)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "sample-labels.tif"), labels_yx)


def test_command_writes_a_dataset(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path), "--count", "2", "--size", "64", "64", "--bit-depth", "8"]) == 0
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")) == [
        "images/nuclei-0000.png",
        "images/nuclei-0001.png",
        "labels/nuclei-0000.png",
        "labels/nuclei-0001.png",
    ]


def test_command_says_what_is_wrong_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--size", "0", "64"]) == 2
    assert "size_yx is (0, 64); give at least 1 pixel" in capsys.readouterr().err


def test_generator_runs_without_torch() -> None:
    code = "import sys, training.synthetic; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_large_picture_stays_within_a_gigabyte(tmp_path: Path) -> None:
    code = (
        "import sys, training.synthetic as s\n"
        "from tests.memory import peak_kib\n"
        "s.main(['--single', sys.argv[1], '--size', '4096', '4096'])\n"
        "print(peak_kib())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "big.tif")]
    finished = subprocess.run(command, check=True, timeout=240, capture_output=True, text=True)
    assert int(finished.stdout) < 1024**2, "peak resident memory in KiB"
    assert tifffile.imread(tmp_path / "big.tif").shape == (4096, 4096)
