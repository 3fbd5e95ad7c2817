"""unet-train report: one file with the run's own figures, curves, worst cases, and every text escaped."""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.label_rule import LabelRule
from model.tiling import AxisGeometry, Geometry
from training.cli import main
from training.commands.report import command_of, declare
from training.data.datasets import IGNORE, AnnotatedImage
from training.evaluation.evaluate import Evaluation, ImageFigures
from training.evaluation.prediction import Predictor, net_predictor
from training.learning.trainer import train
from training.measures.foreground import Overlap
from training.measures.objects import Matches, match_objects
from training.recipe import Recipe
from training.report.cases import overlay, show_case, unmatched, worst_rows
from training.report.charts import Series, histogram, line_chart, number, ticks
from training.report.page import table_of, title_of
from training.report.pictures import FOUND, REFERENCE
from training.report.run_log import best_point, read_log
from training.runs.checkpoint import load_checkpoint
from training.runs.state import fresh_state
from training.scoring import Scoring


class Page(HTMLParser):
    """What a page holds: texts, tables by caption, and every link."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.alts: list[str | None] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links.extend(value for name, value in attrs if name in {"src", "href"} and value is not None)
        if tag == "img":
            self.alts.append(values.get("alt"))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, name: str, columns: int) -> list[str]:
        """The only row of so many columns that begins with ``name``."""
        (found,) = [row for row in self.rows if row and row[0].strip() == name and len(row) == columns]
        return [cell.strip() for cell in found]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    """Folder with two folds of one recipe, ``a`` and ``b``."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "tile_output_px": 60,
            "net": {"base_width": 4, "depth": 2},
            "schedule": {"optimizer": "adamw", "learning_rate": 0.01, "steps": 12, "validate_every": 4, "keep": "last"},
        }
    )
    for name, fold in (("a", "1/2"), ("b", "2/2")):
        train(recipe.with_fold(fold), nuclei_folder, folder / name, workers=0)
    return folder


@pytest.fixture(scope="module")
def written(runs: Path, nuclei_folder: Path) -> Path:
    out = runs / "report.html"
    arguments = ["report", str(runs / "a"), "--data", str(nuclei_folder), "--out", str(out), "--worst", "2"]
    assert main(arguments) == 0
    return out


def test_the_figures_are_those_that_the_run_was_left_with(runs: Path, written: Path) -> None:
    figures = load_checkpoint(runs / "a" / "best.pt").figures
    page = Page(written)
    shown = page.row("a", 2 + len(figures))
    assert [float(cell) for cell in shown[2:]] == pytest.approx(list(figures.values()), abs=6e-5)
    assert shown[1] == "4"


def test_the_report_says_what_was_trained(runs: Path, written: Path, nuclei_folder: Path) -> None:
    page = Page(written)
    row = page.row("a", 11)
    assert row[2:8] == ["tiny", "4", "4", "fold 1/2 by hash", "0", "12"]
    assert f"unet-train fit --recipe tiny --data {nuclei_folder} --out {runs / 'a'} --fold 1/2" in page.text
    assert (
        f"unet-train report {runs / 'a'} --data {nuclei_folder} --out {written} --split validation --worst 2"
        in page.text
    )


def test_the_command_that_a_report_quotes_makes_it_again() -> None:
    parser = argparse.ArgumentParser()
    declare(parser)
    words = ["run", "--data", "my images", "--out", "a.html", "--split", "all", "--worst", "2"]
    words += ["--recipe", "b.toml", "--device", "cuda"]
    options = parser.parse_args(words)
    assert shlex.split(command_of(options)) == ["unet-train", "report", *words]


def test_images_that_several_nets_score_are_counted_once(
    runs: Path, nuclei_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", str(runs / "a"), str(runs / "b"), "--data", str(nuclei_folder), "--worst", "0"]
    assert main([*arguments, "--split", "all", "--out", str(tmp_path / "all.html")]) == 0
    assert capsys.readouterr().out.endswith("all.html: 8 images scored by 2 nets\n")


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_masks_of_classes_that_are_read_as_objects_are_told(
    runs: Path, nuclei_folder: Path, tmp_path: Path, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    for path in (data / "labels").iterdir():
        Image.fromarray(((np.asarray(Image.open(path)) > 0) * 255).astype(np.uint8)).save(path)
    out = [] if command == "evaluate" else ["--out", str(tmp_path / "report.html"), "--worst", "0"]
    assert main([command, str(runs / "a"), "--data", str(data), *out]) == 0
    (told,) = (message for message in caplog.messages if message.startswith("Objects in many separate pieces ("))
    assert 'data.kind = "semantic"' in told
    if out:
        assert "a: Objects in many separate pieces (" in Page(tmp_path / "report.html").text
    caplog.clear()
    assert main([command, str(runs / "a"), "--data", str(nuclei_folder), *out]) == 0
    assert not any("separate pieces" in message for message in caplog.messages)


def test_folds_of_masks_of_classes_that_are_read_as_objects_are_told(
    runs: Path, nuclei_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_folder, data)
    for path in (data / "labels").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).save(path)
    assert main(["evaluate", str(runs / "a"), str(runs / "b"), "--data", str(data)]) == 0
    assert sum(message.startswith("Objects in many separate pieces (") for message in caplog.messages) == 2


def test_another_recipe_reads_the_folder_and_is_not_told_as_the_one_that_trained(
    runs: Path, nuclei_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text('name = "other"\n[schedule]\nseed = 77\n[data]\nfold = [2, 2]\n')
    out = tmp_path / "report.html"
    arguments = ["report", str(runs / "a"), "--data", str(nuclei_folder), "--out", str(out), "--worst", "0"]
    assert main([*arguments, "--split", "all", "--recipe", str(tmp_path / "other.toml")]) == 0
    page = Page(out)
    assert page.row("a", 11)[2:8] == ["tiny", "4", "4", "fold 1/2 by hash", "0", "12"]
    assert "--recipe tiny " in page.text


def test_every_image_every_curve_and_the_worst_cases_are_shown(written: Path) -> None:
    page = Page(written)
    assert len([row for row in page.rows if row and row[0].startswith("nuclei-")]) == 4
    assert page.tags.count("article") == 2
    assert page.tags.count("img") == 4
    # loss, rate and the figures of a validation; then a histogram of each share
    assert page.tags.count("svg") >= 2 + 7 + 6
    assert "Validation: AP@0.5" in page.text


def test_the_report_asks_no_other_machine_and_can_be_read_aloud(written: Path) -> None:
    page = Page(written)
    assert [link for link in page.links if not link.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\(", written.read_text())
    assert all(page.alts)
    assert page.tags.count("caption") == page.tags.count("table")
    assert written.read_text().count('scope="col"') > 20
    for svg in re.findall(r"<svg.*?</svg>", written.read_text(), re.DOTALL):
        assert ET.fromstring(svg).get("aria-label")  # noqa: S314 - our own file


def test_folds_are_pooled(runs: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    arguments = ["report", str(runs / "a"), str(runs / "b"), "--data", str(nuclei_folder), "--out", str(out)]
    assert main([*arguments, "--worst", "1"]) == 0
    page = Page(out)
    ious = [load_checkpoint(runs / name / "best.pt").figures["iou"] for name in ("a", "b")]
    mean, _, pooled = (float(cell) for cell in page.row("IoU", 4)[1:])
    assert mean == pooled == pytest.approx(sum(ious) / 2, abs=6e-5)  # folds of equal size
    assert len([row for row in page.rows if row and row[0].startswith("nuclei-")]) == 8
    assert "was trained on" not in page.text.replace("What was trained", "")


def test_images_that_the_net_was_trained_on_are_told(runs: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    arguments = ["report", str(runs / "a"), "--data", str(nuclei_folder), "--out", str(out), "--worst", "0"]
    assert main([*arguments, "--split", "all"]) == 0
    page = Page(out)
    assert "a was trained on 4 of the 8 images that it is scored on" in page.text
    assert "img" not in page.tags


def test_texts_of_files_are_escaped(runs: Path, nuclei_folder: Path, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&\"'"
    data, run = tmp_path / "data", tmp_path / "<b>run</b>"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True)
        for place, file in enumerate(sorted((nuclei_folder / part).iterdir())):
            # no file name holds a slash
            shutil.copy(file, data / part / f"{place}{evil.replace('/', '')}{file.suffix}")
    shutil.copytree(runs / "a", run)
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 99, "minutes": 1, "loss": 1, "lr": 1, "validation": {evil: 0.5}}) + "\n")
    out = tmp_path / "report.html"
    arguments = ["report", str(run), "--data", str(data), "--out", str(out), "--split", "all", "--worst", "1"]
    assert main(arguments) == 0
    page = Page(out)
    assert page.tags.count("script") == 1  # the page's own
    assert "<b>run</b>" not in out.read_text()
    assert evil in page.text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["/nowhere"], "/nowhere"),
        (["a", "a"], "a run is named twice"),
        (["a", "--worst", "-1"], "--worst -1 is no number of images"),
        (["a", "--out", "."], "is a folder; name the file"),
        (["a", "--device", "tpu"], "no device 'tpu'"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(
    runs: Path, nuclei_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    out = runs / "never.html"
    targets = [str(runs / one) if one == "a" else one for one in arguments]
    assert main(["report", "--data", str(nuclei_folder), "--out", str(out), *targets]) == 2
    assert reason in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_a_log_of_a_killed_run_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = [
        {"step": 2, "loss": 0.9, "lr": 0.1, "validation": None},
        {"step": 4, "loss": 0.8, "lr": 0.1, "validation": {"iou": 0.4}},
        {"step": 2, "loss": 0.7, "lr": 0.1},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 6, "lo')
    log = read_log(file)
    assert log.series("x", "loss") == Series("x", [2.0, 4.0], [0.7, 0.8])
    assert log.series("x", "iou") == Series("x", [4.0], [0.4])
    assert log.figures() == ["iou"]
    assert read_log(tmp_path / "none").entries == ()


@pytest.mark.parametrize(("figure", "best"), [("iou", (2, 0.9)), ("loss", (3, 0.1)), ("warping_error", (3, 0.1))])
def test_the_best_of_an_error_is_the_lowest(figure: str, best: tuple[float, float]) -> None:
    assert best_point([Series("a", [1, 2], [0.3, 0.9]), Series("b", [3], [0.1])], figure) == best


def objects() -> NDArray[np.int32]:
    labels = np.zeros((40, 40), dtype=np.int32)
    labels[2:12, 2:12], labels[20:30, 2:12], labels[2:12, 20:30] = 4, 7, 9
    return labels


def test_missed_and_false_objects_are_named() -> None:
    found = np.zeros((40, 40), dtype=np.int32)
    found[2:12, 2:11], found[20:24, 2:12], found[32:38, 32:38] = 1, 2, 5
    assert unmatched(found, objects()) == ([7, 9], [2, 5])


def test_of_an_object_found_as_two_halves_one_is_false() -> None:
    reference, found = np.zeros((12, 12), dtype=np.int32), np.zeros((12, 12), dtype=np.int32)
    reference[2:10, 2:10] = 3
    found[2:10, 2:6], found[2:10, 6:10] = 1, 2
    missed, false = unmatched(found, reference)
    assert (missed, len(false)) == ([], 1)
    assert match_objects(found, reference, [0.5]) == [Matches(1, 1, 0)]


@given(st.integers(0, 2**32 - 1))
def test_as_many_are_missed_and_false_as_the_figures_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = np.kron(rng.integers(0, 6, (5, 5)), np.ones((3, 3), dtype=np.int64)).astype(np.int32)
    found = np.where(rng.random(reference.shape) < 0.3, 0, reference).astype(np.int32)
    reference[rng.random(reference.shape) < 0.05] = IGNORE
    missed, false = unmatched(found, reference)
    (matches,) = match_objects(found, reference, [0.5])
    assert (len(missed), len(false)) == (matches.false_negatives, matches.false_positives)


def test_marks_lie_on_the_objects_that_they_are_for() -> None:
    image = AnnotatedImage("one", np.zeros((40, 40, 1), dtype=np.uint8), objects())
    found = np.zeros((40, 40), dtype=np.int32)
    found[2:12, 2:12], found[32:38, 32:38] = 1, 2
    picture = overlay(image, found, [7, 9], [2])
    scale = picture.shape[0] // 40
    centre = round(34.5 * scale)  # of pixels 32 to 37, the nearest whole one
    assert tuple(picture[centre, centre].tolist()) == FOUND
    plain = overlay(image, found, [], [])
    changed = (picture != plain).any(axis=-1)
    assert changed[20 * scale : 30 * scale, 2 * scale : 12 * scale].any()  # missed
    assert not changed[: 12 * scale, : 12 * scale].any()  # found


def test_numbers_far_above_the_size_of_the_image_make_no_other_case(tiny_recipe: Recipe) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (40, 40, 1), dtype=np.uint8)
    predictor = net_predictor(fresh_state(tiny_recipe, "cpu").scored_net, tiny_recipe)
    first, second = (
        show_case(AnnotatedImage("one", grey, labels), row("one", 0.5), predictor, instances=True)
        for labels in (objects(), objects() * np.int32(200_000_000))  # a table by number would take 14 GB
    )
    assert (first.missed, first.false) == (second.missed, second.false)
    assert first.missed
    np.testing.assert_array_equal(first.overlay, second.overlay)


def test_differing_pixels_of_classes_are_tinted() -> None:
    image = AnnotatedImage("one", np.zeros((40, 40, 1), dtype=np.uint8), (objects() > 0).astype(np.int32))
    picture = overlay(image, np.zeros((40, 40), dtype=np.int32), None, None)
    scale = picture.shape[0] // 40
    tint = picture[7 * scale, 7 * scale].astype(float) / np.array(REFERENCE)
    assert tint == pytest.approx([0.4] * 3, abs=0.02)
    assert picture[38 * scale, 38 * scale].tolist() == [0, 0, 0]


def row(stem: str, iou: float, ap: float | None = None) -> ImageFigures:
    precisions = None if ap is None else dict.fromkeys(map(str, (0.5, 0.6, 0.7, 0.8, 0.9)), ap)
    return ImageFigures(stem, {"foreground": Overlap(round(10 * iou), 10)}, None, None, precisions)


def test_the_worst_images_come_first_by_the_figure_that_the_recipe_names() -> None:
    rows = (row("good", 0.9, 0.1), row("bad", 0.5, 0.8), row("middle", 0.6, 0.3))
    assert [found.stem for found in worst_rows(Evaluation(rows), 2)] == ["middle", "good"]
    by_iou = Evaluation(rows, Scoring(choose_by="iou"))
    assert [found.stem for found in worst_rows(by_iou, 9)] == ["bad", "middle", "good"]


def test_pixels_of_the_wrong_class_are_tinted(tiny_recipe: Recipe) -> None:
    classes = ("background", "cell", "ring")
    rule = LabelRule(foreground=(1, 2), seeds=(1, 2))
    wanted = np.zeros((40, 40), dtype=np.int32)
    wanted[4:20, 4:20], wanted[24:36, 24:36] = 1, 2
    image = AnnotatedImage("one", np.zeros((40, 40, 1), dtype=np.uint8), wanted)

    def say_cell(tiles_bcyx: NDArray[np.float32]) -> NDArray[np.float32]:
        likely = np.zeros((len(tiles_bcyx), 3, 40, 40), dtype=np.float32)
        likely[:, 1, 4:20, 4:20] = likely[:, 1, 24:36, 24:36] = 1
        return likely

    whole = AxisGeometry(minimum=40, step=40, shrink=0, halo=0, grid=40)
    predictor = Predictor(say_cell, (), Geometry(whole, whole), rule, classes)
    case = show_case(image, row("one", 0.5), predictor, instances=False)
    scale = case.overlay.shape[0] // 40
    assert (case.missed, case.false) == (None, None)
    assert case.overlay[30 * scale, 30 * scale].any(), "ring, and cell was said"
    assert not case.overlay[12 * scale, 12 * scale].any(), "cell, as was said"


def test_figures_of_classes_are_called_by_them() -> None:
    assert (title_of("iou@ring_cell"), title_of("iou"), title_of("ap@0.5")) == ("IoU ring_cell", "IoU", "AP@0.5")


def test_a_table_has_a_column_for_whatever_is_measured() -> None:
    table = table_of([{"image": "x", "new_error": 0.00035, "ap": {"0.5": 1.0}, "n": 3}, {"image": "y", "n": None}], "t")
    assert table.columns == ("image", "new error", "AP@0.5", "n")
    assert [cell.text for cell in table.rows[0]] == ["x", "0.000350", "1.0000", "3"]
    assert [cell.text for cell in table.rows[1]] == ["y", "-", "-", "-"]
    assert table.numeric == (False, True, True, True)
    assert table.rows[0][2].bar == 1.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.123456, "0.1235"),
        (1234.56, "1235"),
        (2.5e-5, "2.5e-5"),
        (1e8, "1.0e8"),
        (math.nan, "-"),
    ],
)
def test_numbers_have_as_many_digits_as_tell_something(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_lie_inside_and_are_neither_few_nor_many(low: float, width: float) -> None:
    found = ticks(low, low + width)
    assert 2 <= len(found) <= 8
    slack = width * 1e-6 + abs(low) * 1e-9
    assert all(low - slack <= tick <= low + width + slack for tick in found)
    assert np.allclose(np.diff(found), np.diff(found)[0])


def test_a_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    svg = ET.fromstring(line_chart([Series("<a>", [0, 10], [1, 3])], title="T", x_label="<s>"))  # noqa: S314
    (line,) = svg.iter("polyline")
    points = [point.split(",") for point in line.get("points", "").split()]
    (x0, y0), (x1, y1) = [(float(x), float(y)) for x, y in points]
    assert x0 < x1
    assert y0 > y1  # down is up in SVG
    assert svg.get("aria-label") == "T. <a>: 1 to 3"


def test_numbers_that_are_none_are_left_out_of_a_chart() -> None:
    svg = line_chart([Series("a", [0, 1, 2], [1, math.nan, 2])], title="T", x_label="s")
    assert "nan" not in svg
    assert "nothing to draw" in line_chart([Series("a", [0], [math.nan])], title="T", x_label="s")
    assert "nothing to draw" in line_chart([Series("a", [0], [0.0])], title="T", x_label="s", logarithmic=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    svg = ET.fromstring(histogram(values, title="T", x_label="x"))  # noqa: S314
    counts = [int((bar.findtext("title") or "").rsplit(": ", 1)[1]) for bar in svg.iter("rect")]
    assert sum(counts) == len(values)
