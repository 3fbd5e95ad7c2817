"""``unet-train``: plan, preview, fit, cross-validate, evaluate, report, export, quantize, compare."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from model.commands import add_commands
from model.errors import ModelError
from model.interrupts import INTERRUPTED, ended_at_once
from training.errors import TrainingError, Unwritable
from training.writing import is_full, unwritable

_COMMANDS = {
    "plan": "choose a recipe for a folder, say why, and train nothing",
    "preview": "show the first tiles of a run, and what the images hold",
    "fit": "train a net",
    "cross-validate": "train a net for each fold, and score what each held out",
    "evaluate": "score a run, a checkpoint or a package on annotated images",
    "report": "write one HTML file: curves, figures of each image, worst cases",
    "export": "write the best net of a run as a model package",
    "quantize": "add int8 weights to a package, for faster CPUs",
    "compare": "compare a lower precision with fp32 on held-out images",
}
_TRAINS = {"fit", "plan", "cross-validate"}
_NO_MEMORY = (
    "there is not enough memory ({}); crop the images, choose a smaller tile_output_px or schedule.batch, or give the "
    "command more memory"
)
_TUNABLES = "GLIBC_TUNABLES"
# huge pages, and memory that is kept between steps: a page fault for every page of every map of every step costs more
_MALLOC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"hugetlb": 1, "mmap_max": 0, "trim_threshold": 1 << 36, "top_pad": 1 << 28}.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 2 with one message on standard error where it cannot be done.

    Parameters
    ----------
    arguments
        The command line without the program's name; ``sys.argv`` where None.

    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None and not _TRAINS.isdisjoint(given[:1]):
        _restart_with_huge_pages()
    with ended_at_once("unet-train"):
        options = _parser(given).parse_args(given)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    if arguments is None:
        _heed_the_end_of_the_terminal()
    try:
        options.run(options)
    except Unwritable as error:
        sys.stderr.write(f"unet-train {options.command}: {error}{_how_to_go_on(options)}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"unet-train {options.command}: {_told(error, options)}\n")
        return 2
    except (TrainingError, ModelError) as error:
        sys.stderr.write(f"unet-train {options.command}: {error}\n")
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        wanted = str(error).partition("\n")[0] or "no more can be had"
        sys.stderr.write(f"unet-train {options.command}: {_NO_MEMORY.format(wanted)}{_how_to_go_on(options)}\n")
        return 2
    except KeyboardInterrupt:
        nothing = " before the first checkpoint; there is nothing to resume" if options.command == "fit" else ""
        sys.stderr.write(f"\ninterrupted{_how_to_go_on(options) or nothing}\n")
        return INTERRUPTED
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Whether there was no memory, in whatever way Python, NumPy or torch put it."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _told(error: OSError, options: argparse.Namespace) -> str:
    """Say which file or folder a full disk has refused; of other errors what the operating system says."""
    place = error.filename or getattr(options, "out", None) or getattr(options, "package", None)
    if not is_full(error) or place is None:
        return str(error)
    return f"{unwritable(Path(place), error)}{_how_to_go_on(options)}"


def _how_to_go_on(options: argparse.Namespace) -> str:
    """Say how a run that has ended too soon goes on; nothing where there is none to go on with."""
    if options.command == "cross-validate":
        return "; the same command with --resume goes on"
    if options.command != "fit":
        return ""
    from training.runs.run_folder import RunFiles

    if RunFiles(options.out).last.exists():
        without = "" if options.origin is None or options.recipe is not None else " and without --from"
        return f"; the same command with --resume{without} goes on from the newest checkpoint"
    return ""


def _restart_with_huge_pages() -> None:
    """Start this process anew with huge pages for malloc: torch trains 1.3 to 1.9 times as fast on a CPU."""
    if sys.platform == "linux" and _TUNABLES not in os.environ:
        os.environ[_TUNABLES] = _MALLOC
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself, no shell wanted


def _heed_the_end_of_the_terminal() -> None:
    """Take it for Ctrl-C, so that processes that make tiles are ended before this one; torchrun ends its own.

    ``nohup`` switches the signal off, and it stays off.
    """
    if (
        hasattr(signal, "SIGHUP")
        and "TORCHELASTIC_RUN_ID" not in os.environ  # as torch.distributed.is_torchelastic_launched looks
        and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unet-train", description="From annotated images to a model package.")
    add_commands(parser, "training.commands", _COMMANDS, given)
    return parser


if __name__ == "__main__":
    sys.exit(main())
