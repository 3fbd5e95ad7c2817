"""Shares of images: every image in one of them, whatever the order, and the environments that number them."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch.shard import BadShard, Shard, parse_shard


@given(st.sets(st.text(min_size=1).map(PurePosixPath)), st.integers(1, 9))
def test_every_image_is_in_one_share(names: set[PurePosixPath], count: int) -> None:
    taken = [name for index in range(count) for name in names if Shard(index, count).takes(name)]
    assert sorted(taken) == sorted(names)


def test_shares_are_about_equal_and_the_same_on_every_machine() -> None:
    names = [PurePosixPath(f"plate/{well}.tif") for well in range(4000)]
    sizes = [sum(Shard(index, 8).takes(name) for name in names) for index in range(8)]
    assert min(sizes) > 400
    assert max(sizes) < 600
    # SHA-256 of the name, first eight bytes: pinned, since shards of one array may run under different versions
    assert [Shard(0, 8).takes(name) for name in names[:10]].index(True) == 5


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/8", {}, Shard(2, 8)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, Shard(3, 4)),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"},
            Shard(3, 4),
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            Shard(2, 3),
        ),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}, Shard(7, 8)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "5"}, Shard(5, 8)),
    ],
)
def test_index_and_count_come_from_the_option_or_the_environment(
    text: str, environment: dict[str, str], expected: Shard
) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("8/8", {}, "count from 0 to 7"),
        ("0/0", {}, "shard 0 of 0 does not exist"),
        ("-1/8", {}, "write I/N"),
        ("one", {}, "write I/N"),
        ("auto", {}, "finds neither SLURM_ARRAY_TASK_ID"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, r"auto/N with the Job's spec\.completions"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "shard 2 of 2"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x", "SLURM_ARRAY_TASK_COUNT": "4"}, "not a number"),
        # sbatch --array=3,7: tasks that ran before under another count
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3"},
            "shared among",
        ),
    ],
)
def test_what_is_no_shard_is_explained(text: str, environment: dict[str, str], said: str) -> None:
    with pytest.raises(BadShard, match=said):
        parse_shard(text, environment)
