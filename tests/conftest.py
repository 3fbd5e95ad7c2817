"""What all tests share: where real images are, and that nothing skips silently in CI."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

PROJECT = Path(__file__).resolve().parents[1]

# no test may fail because the machine is busy
settings.register_profile("project", settings(), deadline=None)
settings.load_profile("project")

# many send the same image again and again, and want the net to run for it: those that do not set it themselves
os.environ["UNET_REPEAT_MB"] = "0"

# none speaks TLS with the world, and to read the machine's authorities takes every client longer than a request
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = os.devnull

# shells switch interrupts off for what they start in the background, and all that is started by it would have none
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What thousands of tests are made of stays until the end; no collector looks through all of it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Nets as small as those of tests are slower in torch with more threads, most of all beside other work."""
    if torch := sys.modules.get("torch"):  # where no test collected needs it, it stays away
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def kept_speeds_hold() -> Iterator[None]:
    """Speeds that one test has measured serve the others: on a busy machine they would be measured again and again."""
    planning = sys.modules.get("service.engine.packages.planning")
    with pytest.MonkeyPatch.context() as patch:
        if planning:
            patch.setattr(planning, "_MOST_DRIFT", math.inf)
        yield


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the machine reaches a test, no test its cache; ONNX Runtime sends no telemetry."""
    kept = {"UNET_REPEAT_MB", "UNET_TEST_DATA", "UNET_TEST_NO_SKIP", "UNET_TEST_KUBECONFIG"}
    for name in list(os.environ):
        if name.startswith("UNET_") and name not in kept:
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("UNET_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "speeds"))


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a command under test makes of logging ends with its test: else the next one's ``caplog`` hears nothing."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("", "unet", "training")}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """No garbage collector runs meanwhile: what is in a reference cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of real images; a test that asks for it skips where there is none."""
    root = Path(os.environ.get("UNET_TEST_DATA", PROJECT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real images at {root}; name their folder in UNET_TEST_DATA")
    return root


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI (UNET_TEST_NO_SKIP=1) a skip is a failure, save for a missing GPU, cluster or real images.

    A lab's programs are not to be had for each version of Python, and have environments of their own there; where they
    are installed, their tests do not skip.
    """
    report = yield
    excused = {"gpu", "data", "cluster", "program"} & {marker.name for marker in item.iter_markers()}
    if os.environ.get("UNET_TEST_NO_SKIP") and report.skipped and not hasattr(report, "wasxfail") and not excused:
        report.outcome = "failed"
        report.longrepr = f"skipped, but nothing may skip here: {report.longrepr}"
    return report
