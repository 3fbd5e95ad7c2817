"""The simulated fleet against closed forms of queueing theory and the autoscaler's own rules."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fleet import main, variants
from benchmarks.fleet_autoscaler import Autoscaler, Hpa, Policy, desired
from benchmarks.fleet_load import DAY_S, Load, arrivals
from benchmarks.fleet_model import Fleet, simulate
from benchmarks.fleet_trace import apart, read_trace, replay


def poisson(rate: float, mpx: float | None, seed: int = 1) -> Iterator[tuple[float, float]]:
    """Poisson arrivals of images of ``mpx``, or of exponential sizes with mean 1."""
    random = np.random.default_rng(seed)
    t_s = 0.0
    while True:
        t_s += random.exponential(1 / rate)
        yield t_s, mpx or random.exponential()


def erlang_c(servers: int, offered: float) -> float:
    """Probability to wait in M/M/c (Erlang, 1917)."""
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(offered**k / math.factorial(k) for k in range(servers)) + last)


def fixed(replicas: int) -> Hpa:
    return Hpa(min_replicas=replicas, max_replicas=replicas)


BARE = Fleet(mpx_per_s=1.0, overhead_s=0.0, max_backlog_s=1e9, dispatch="work")
LONG_S = 60_000.0


@pytest.mark.parametrize("use", [0.5, 0.8])
def test_one_replica_and_equal_images_wait_as_m_d_1(use: float) -> None:
    outcome = simulate(BARE, fixed(1), poisson(use, 1.0), LONG_S)
    assert np.mean(outcome.waits_s) == pytest.approx(use / (2 * (1 - use)), rel=0.06)
    assert outcome.use == pytest.approx(use, rel=0.02)


@pytest.mark.parametrize(("servers", "use"), [(1, 0.7), (3, 0.8), (10, 0.9)])
def test_c_replicas_and_exponential_images_wait_as_m_m_c(servers: int, use: float) -> None:
    outcome = simulate(BARE, fixed(servers), poisson(servers * use, None), 200_000.0 / servers)
    waiting = erlang_c(servers, servers * use)
    assert np.mean(outcome.waits_s) == pytest.approx(waiting / (servers * (1 - use)), rel=0.12)
    assert np.mean(np.asarray(outcome.waits_s) > 0) == pytest.approx(waiting, rel=0.06)


def test_random_dispatch_is_as_many_single_queues() -> None:
    fleet = Fleet(mpx_per_s=1.0, overhead_s=0.0, max_backlog_s=1e9, dispatch="random")
    outcome = simulate(fleet, fixed(4), poisson(4 * 0.6, 1.0), LONG_S / 2)
    assert np.mean(outcome.waits_s) == pytest.approx(0.6 / (2 * 0.4), rel=0.1)


def test_fewest_connections_wait_between_the_ideal_and_chance() -> None:
    means = []
    for dispatch in ("work", "connections", "random"):
        fleet = Fleet(mpx_per_s=1.0, overhead_s=0.0, max_backlog_s=1e9, dispatch=dispatch)
        means.append(float(np.mean(simulate(fleet, fixed(4), poisson(3.4, None), LONG_S / 4).waits_s)))
    assert means == sorted(means)
    assert means[1] < means[2] / 3


def test_overload_is_refused_at_the_rate_of_a_full_queue_and_nothing_is_lost() -> None:
    """Twice the load and no patience: half is refused, no accepted image waits beyond the limit."""
    fleet = Fleet(mpx_per_s=1.0, overhead_s=0.0, max_backlog_s=20.0, patience_s=0.0)
    outcome = simulate(fleet, fixed(2), poisson(4.0, 1.0), 20_000.0)
    total = outcome.accepted + outcome.gave_up
    assert outcome.gave_up / total == pytest.approx(0.5, rel=0.03)
    assert outcome.gave_up == outcome.refused
    assert max(outcome.waits_s) <= 20.0
    assert outcome.use == pytest.approx(1.0, abs=0.01)


def test_a_wave_makes_the_fleet_grow_and_shrink_and_patient_clients_get_all() -> None:
    images = ((index * 0.02, 1.0) for index in range(3000))
    outcome = simulate(
        Fleet(mpx_per_s=2.0),
        Hpa(min_replicas=1, max_replicas=30, down_window_s=120, down=(Policy(percent=100),)),
        images,
        2400,
        every_s=15,
    )
    counts = [sample.replicas for sample in outcome.samples]
    assert counts[0] == counts[-1] == 1
    assert 8 <= max(counts) <= 30
    assert (outcome.accepted, outcome.gave_up) == (3000, 0)


@pytest.mark.parametrize(
    ("current", "ready", "unready", "total", "expected"),
    [
        (2, 2, 0, 40.0, 4),  # 20 s each, target 10
        (10, 10, 0, 105.0, 10),  # 1.05 is within the tolerance
        (10, 10, 0, 115.0, 12),
        (4, 4, 0, 0.0, 0),
        (5, 1, 4, 90.0, 9),  # four that start count as idle: 90 / 50 > 1
        (5, 1, 4, 40.0, 5),  # 40 / 50 turns the decision round: wait for them
        (5, 4, 1, 0.0, 1),  # one that starts counts as on target before the fleet shrinks
        (3, 0, 3, 0.0, 3),  # nobody reports
    ],
)
def test_the_count_follows_the_controllers_rules(
    current: int, ready: int, unready: int, total: float, expected: int
) -> None:
    assert desired(current, ready, unready, total, target=10.0, tolerance=0.1) == expected


def test_growth_is_held_by_the_policy_that_allows_most() -> None:
    loop = Autoscaler(Hpa(up=(Policy(percent=100, period_s=60), Policy(pods=4, period_s=60)), max_replicas=1000))
    counts = [1]
    for step in range(1, 13):
        counts.append(loop.wanted(step * 15.0, counts[-1], counts[-1], 0, counts[-1] * 1e6))
    assert counts == [1, 5, 5, 5, 5, 10, 10, 10, 10, 20, 20, 20, 20]


def test_the_fleet_shrinks_to_the_largest_recommendation_of_its_window() -> None:
    loop = Autoscaler(Hpa(target_s=10.0, min_replicas=1, down_window_s=60.0, down=(Policy(percent=100),)))
    backlogs = {15: 80.0, 30: 40.0, 45: 0.0, 60: 0.0, 75: 0.0, 90: 0.0, 105: 0.0}
    counts = {at: loop.wanted(at, 8, 8, 0, backlog) for at, backlog in backlogs.items()}
    assert counts == {15: 8, 30: 8, 45: 8, 60: 8, 75: 4, 90: 1, 105: 1}


def test_a_day_has_its_hours_its_sizes_and_its_bursts() -> None:
    load = Load(images_per_s=2.0, night=0.25, bursts_per_day=8, burst_images=500)
    images = list(arrivals(load, DAY_S))
    times = [t_s for t_s, _ in images]
    assert times == sorted(times)
    plain = [t_s for t_s, _ in arrivals(Load(images_per_s=2.0, night=0.25, bursts_per_day=0), DAY_S)]
    assert len(plain) == pytest.approx(2 * DAY_S, rel=0.01)
    assert (len(images) - len(plain)) % 500 < 2000
    by_hour = np.histogram(plain, bins=24, range=(0, DAY_S))[0]
    assert by_hour[14:16].mean() / by_hour[2:4].mean() == pytest.approx(4.0, rel=0.1)
    assert np.mean([mpx for _, mpx in images]) == pytest.approx(load.mean_mpx, rel=0.02)
    assert next(islice(arrivals(load, DAY_S), 5, None)) == images[5]


def test_the_command_prints_a_table_draws_and_takes_a_trace(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{t},{1 + t // 60},{t / 10},{t * 2},0,{t * 3}" for t in range(0, 240, 15)]
    trace.write_text("\n".join(["t_s,replicas,backlog_s,accepted,refused,mpx", *rows]) + "\n")
    command = [sys.executable, "-m", "benchmarks.fleet", "--hours=0.2", "--images-per-s=1", f"--plots={tmp_path}"]
    done = subprocess.run(
        [*command, f"--trace={trace}", f"--json={tmp_path / 'out.json'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "machine-hours per million" in done.stdout
    assert "against the trace" in done.stdout
    assert {path.name for path in tmp_path.glob("*.png")} == {"fleet-day.png", "fleet-trace.png"}
    assert json.loads((tmp_path / "out.json").read_text())["gave_up"] == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--mpx-per-s=0", "--mpx-per-s is 0, it should be greater than or equal to 0.001"),
        ("--mpx-per-s=-1", "--mpx-per-s is -1, it should be greater than or equal to 0.001"),
        ("--mpx-per-s=1e-320", "--mpx-per-s is 1e-320, it should be greater than or equal to 0.001"),
        ("--mpx-per-s=fast", "--mpx-per-s is fast, it should be a valid number"),
        ("--overhead-s=1e308", "--overhead-s is 1e308, it should be less than or equal to 1000000000"),
        ("--mpx-per-s=nan", "--mpx-per-s is nan, it should be a finite number"),
        ("--start-s=-1", "--start-s is -1, it should be greater than or equal to 0"),
        ("--target-s=0", "--target-s is 0, it should be greater than or equal to 0.001"),
        ("--sync-s=1e-9", "--sync-s is 1e-9, it should be greater than or equal to 1"),
        ("--min-replicas=0", "--min-replicas is 0, it should be greater than or equal to 1"),
        ("--min-replicas=2.5", "--min-replicas is 2.5, it should be a valid integer"),
        ("--max-replicas=100000", "--max-replicas is 100000, it should be less than or equal to 10000"),
        ("--min-replicas=60", "--min-replicas is 60, --max-replicas 50; lower the one or raise the other"),
        ("--dispatch=foo", "--dispatch is foo, it should be 'connections', 'random' or 'work'"),
        ("--night=2", "--night is 2, it should be less than or equal to 1"),
        ("--hours=0", "--hours is 0, it should be greater than or equal to 0.1"),
        ("--hours=1e9", "--hours is 1e9, it should be less than or equal to 168"),
        ("--burst-images=0", "--burst-images is 0, it should be greater than or equal to 1"),
        ("--images-per-s=1e6", "make 8.64e+10 images in --hours 24, the limit is 5000000; lower one of them"),
        ("--bursts-per-day=1e6", "make 1.54e+09 images in --hours 24, the limit is 5000000; lower one of them"),
        ("--seed=-1", "--seed is -1, it should be greater than or equal to 0"),
        ("--up=0/15", "'0/15' is no policy; write 2/15 or 100%/15, numbers from 1 to 9999"),
        ("--down=1/0", "'1/0' is no policy; write 2/15 or 100%/15, numbers from 1 to 9999"),
        ("--trace=/no/trace", "argument --trace: /no/trace: No such file or directory; name another"),
        ("--plots=/dev/null", "argument --plots: /dev/null: File exists; name another"),
        ("--json=/no/out.json", "argument --json: /no/out.json: No such file or directory; name another"),
    ],
)
def test_an_impossible_option_is_named_with_its_limit(
    option: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal([option], monkeypatch, capsys)


def test_each_row_of_a_sweep_changes_one_thing_of_pods_or_autoscaler() -> None:
    rows = variants(Fleet(), Hpa())
    plain = asdict(Fleet()) | asdict(Hpa())
    for name, fleet, hpa in rows:
        changed = {key for key, value in (asdict(fleet) | asdict(hpa)).items() if value != plain[key]}
        assert changed == {name.split()[0]}
    assert "start_s 60" in [name for name, _, _ in rows]


def test_a_sweep_wants_room_for_its_replicas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(["--sweep", "--max-replicas=3"], monkeypatch, capsys)
    assert "a row of --sweep: --min-replicas is 4, --max-replicas 3; lower the one or raise the other" in said


def test_a_trace_that_is_none_is_told_before_the_day_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time,pods\n1,2\n")
    said = refusal([f"--trace={trace}"], monkeypatch, capsys)
    assert f"--trace: {trace}: line 1: the columns are time,pods; a trace has t_s,replicas,backlog_s" in said


def test_a_time_without_images_has_no_price(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--hours=0.1", "--images-per-s=0", "--bursts-per-day=0", "--dollars-per-hour=1"]
    monkeypatch.setattr("sys.argv", ["fleet", *options])
    main()
    assert "163.4 computing, no image came to pay for\n" in capsys.readouterr().out


def refusal(options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of options that it refuses: a line of usage, a line of reason, and no table."""
    monkeypatch.setattr("sys.argv", ["fleet", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.count("\n") == 2
    return told.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("20,1,nan,5,0,5", "line 3: backlog_s is nan; write a number from 0 to 1e+12"),
        ("20,1,,5,0,5", "line 3: backlog_s is ''; write a number"),
        ("20,1", "line 3: backlog_s is ''; write a number"),
        ("20,1,0,\xff,0,5", r"line 3: accepted is '\\xff'; write a number"),
        ("20,1,0,5,0,5,5", "line 3: there are 7 cells; write 6, decimals with a point"),
        ("20,1.5,0,5,0,5", "line 3: replicas is 1.5; write a whole number"),
        ("20,1,0,5,0,1e300", "line 3: mpx is 1e300; write a number from 0 to 1e+12"),
        ("20,1,0,1000000000000,0,5", "line 3: accepted is 1000000000000, the limit is 5000000; take a shorter part"),
        ("20,1,0,4,0,5", "line 3: mpx rises from 4 to 5, accepted stays 4; count an image and its size in the same"),
        (f"20,1,0,5,0,{5:0200000}", "line 3: field larger than field limit"),
        ("20,-1,0,5,0,5", "line 3: replicas is -1; write a number from 0"),
        ("10,1,0,5,0,5", "line 3: t_s is 10 after 10; sort the lines by time, each time once"),
        ("20,1,0,3,0,5", "line 3: accepted falls from 4 to 3; count since the start"),
        ("20,1,0,5,0,3", "line 3: mpx falls from 4 to 3; count since the start"),
        ("2e7,1,0,5,0,5", "line 3: t_s is 2e+07, the limit is 604800 (a week); write seconds since the start"),
    ],
)
def test_a_trace_that_no_run_can_have_written_is_refused_by_line(tmp_path: Path, line: str, said: str) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(f"t_s,replicas,backlog_s,accepted,refused,mpx\n10,1,0,4,0,4\n{line}\n", encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_trace(trace)


def test_a_trace_as_spreadsheets_write_it_is_read(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,replicas,backlog_s,accepted,refused,mpx\n0,1,0,0,0,0\n10,1,0,4,0,4\n", encoding="utf-8-sig")
    assert [sample.accepted for sample in read_trace(trace)] == [0, 4]


def test_a_trace_of_one_row_is_none(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,replicas,backlog_s,accepted,refused,mpx\n10,1,0,4,0,4\n")
    with pytest.raises(ValueError, match="1 rows, a trace has 2 or more"):
        read_trace(trace)


def test_it_follows_the_cluster_test() -> None:
    """The command that docs/scaling.md shows, on the trace beside it."""
    seen = read_trace(Path(__file__).parents[2] / "benchmarks" / "traces" / "cluster.csv")
    fleet = Fleet(mpx_per_s=0.35, overhead_s=0.01, start_s=12, drain_s=10, dispatch="random")
    hpa = Hpa(2, 1, 3, down_window_s=10, down=(Policy(pods=1, period_s=5),), sync_s=2, metric_lag_s=0)
    for seed in range(3):
        simulated = simulate(fleet, hpa, replay(seen), seen[-1].t_s, every_s=1.0, seed=seed).samples
        assert apart(seen, simulated, "replicas") < 0.3
        assert apart(seen, simulated, "backlog_s") < 1.2
        assert max(sample.replicas for sample in simulated) == max(sample.replicas for sample in seen) == 3
        assert simulated[-1].replicas == seen[-1].replicas == 1
