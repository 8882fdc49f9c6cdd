"""What can go wrong for a user: one line each, with the exit code the command line returns for it."""


class AttnprobeError(Exception):
    """Base of all errors that are the user's to mend. The message is one line; ``hint`` says what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(AttnprobeError, ValueError):
    """A setting is unknown, of the wrong type, or impossible."""

    exit_code = 2


class RunError(AttnprobeError):
    """A run could not be carried out: no such device, a full disk, a loss that is not a number."""

    exit_code = 1


class ArtifactError(AttnprobeError):
    """A file (data, checkpoint, run directory) is missing, damaged, of another version, or not what it should be."""

    exit_code = 3


class NotApplicableError(AttnprobeError):
    """A probe has no meaning for this model or this data."""

    exit_code = 4
