"""Define the compiler's errors that its user can fix: each prints as one line, and the exit code is 2."""

from __future__ import annotations

from hyps.runtime.errors import HypsError


class CompilerError(HypsError):
    """Base of every compiler error that the user can fix."""


class TargetError(CompilerError):
    """A target is unknown, or its TOML file is wrong."""


class ModelFileError(CompilerError):
    """A model's file is missing, damaged, or reaches outside its folder."""


class WriteError(CompilerError):
    """A file or folder cannot be written where the user wants it."""


class OptionError(CompilerError):
    """An option's value, or a file that it names, cannot be used."""
