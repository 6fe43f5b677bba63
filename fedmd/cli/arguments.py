"""Command-line arguments whose mistakes are one sentence."""

import argparse
from typing import NoReturn

from fedmd.config import ConfigError


class Arguments(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of printing its usage."""

    def __init__(self, command: str, usage: str) -> None:
        super().__init__(prog=command, add_help=False, allow_abbrev=False)
        self._command, self._usage = command, usage

    def error(self, message: str) -> NoReturn:
        """Called by argparse for whatever is wrong."""
        raise ConfigError(f"{message}; usage: {self._command} {self._usage}.")
