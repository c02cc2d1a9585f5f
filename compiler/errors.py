"""What the compiler says of a user's mistake or an impossible request: one line, exit code 2."""

from __future__ import annotations


class CompilerError(Exception):
    """Base of every error of the compiler that its user can mend."""


class TargetError(CompilerError):
    """A target is unknown, or its TOML file is wrong."""


class ModelFileError(CompilerError):
    """A model's file is missing, damaged, or reaches outside its folder."""


class WriteError(CompilerError):
    """The bundle cannot be written where it should be."""


class OptionError(CompilerError):
    """An option's value, or a file that it names, makes no sense."""
