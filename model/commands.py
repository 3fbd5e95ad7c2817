"""Programs of several commands, of which one at a time is imported: all together take seconds, and one is wanted."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module


def add_commands(
    parser: argparse.ArgumentParser, package: str, purposes: Mapping[str, str], arguments: Sequence[str]
) -> None:
    """Add commands to a program, with the options of the one that is called.

    Parameters
    ----------
    parser
        Of the program; what it parses has ``command``, the name.
    package
        Holds a module for each command, with ``declare(parser)``, which adds the options and a default for ``run``.
    purposes
        A line on each command by its name; a dash in it is an underscore in that of the module.
    arguments
        The command line without the program's name, which begins with the command.

    """
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, purpose in purposes.items():
        command = commands.add_parser(name, help=purpose)
        if arguments[:1] == [name]:
            with _uncollected():
                module = import_module(f"{package}.{name.replace('-', '_')}")
            module.declare(command)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector, where it runs, from looking again and again through modules, which stay to the end.

    A command starts in a twentieth less of CPU time.
    """
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()
