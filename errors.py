"""What can go wrong in a way that a person can mend, each with its exit code.

Every command prints such an error as one line and leaves with the code (sysexits.h).
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


class SeqlabError(Exception):
    """Base of all errors that are reported in one line instead of a traceback."""

    exit_code = 1


class ConfigError(SeqlabError, ValueError):
    """A config field or an argument is wrong; nothing was compiled or written."""

    exit_code = 64


class DataError(SeqlabError, ValueError):
    """A data file, a tokenizer or a batch is not what it should be."""

    exit_code = 65


class NonFiniteError(SeqlabError):
    """Loss or gradients stayed NaN or infinite for too many steps in a row."""

    exit_code = 70


class StorageError(SeqlabError, OSError):
    """The disk is full, a file cannot be read or written, or no checkpoint is intact."""

    exit_code = 74


class Preempted(SeqlabError):
    """A signal asked the run to stop; its state is saved: put it back in the queue."""

    exit_code = 75


class Unreachable(SeqlabError):
    """Other processes of the run did not come in time; they may the next time."""

    exit_code = 75


def python_command(*words: str) -> str:
    """A command for this interpreter, such as ("train.py", "--help"), as a person types it here.

    The interpreter is its path from the working directory where it lies below it, `python` where
    that is the very one, or else its whole path.
    """
    own = Path(sys.executable or "python")
    found = Path(shutil.which("python") or "nowhere")
    if own.is_relative_to(Path.cwd()):
        name = own.relative_to(Path.cwd())
    elif found.parent == own.parent and os.path.samefile(found, own):
        name = Path("python")  # of the same environment: links of several lead to one file
    else:
        name = own
    return shlex.join([str(name), *words])


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong with it is a ConfigError.

    Args:
        doc: the docstring of the command, shown by --help.
        overrides: whether arguments that the parser does not know are for somebody else, such as
            --config.FIELD=VALUE: they stand in `overrides` of what it reads.
    """

    def __init__(self, doc: str | None, overrides: bool = False) -> None:
        super().__init__(
            description=doc,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._overrides = overrides

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See --help.")

    def read(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The arguments of a command."""
        if not self._overrides:
            return self.parse_args(argv)
        options, others = self.parse_known_args(argv)
        options.overrides = others
        return options

    def run(
        self, work: Callable[[argparse.Namespace], None], argv: Sequence[str] | None = None
    ) -> int:
        """Does the work with the arguments of a command; returns the exit code.

        An error is one line; where the command knows --debug and it was given, it is raised.
        """
        options = argparse.Namespace()
        try:
            options = self.read(argv)
            work(options)
        except SeqlabError as error:
            if getattr(options, "debug", False):
                raise
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        return 0
