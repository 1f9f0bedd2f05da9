"""The error tree. A user can act on every one of these; anything else that escapes is a bug.

TrajDiffusionError
├── BadInput (ValueError)     what the user handed in does not fit
│   ├── BadFile               a file is not what its reader expects
│   │   └── BadRecord         one record inside a file is broken
│   ├── BadScene              a scene breaks an invariant, or cannot be simulated
│   ├── BadRollouts           rollouts do not fit their scene, or their file is broken
│   ├── BadCheckpoint         a checkpoint is truncated, foreign or of another version
│   └── BadConfig             a configuration key or value is unknown
├── HostError (RuntimeError)  a simulator refused or died
├── MissingExtra (ImportError) an optional package is absent; the message names the command that installs it
│   └── MissingSource         ... or its source, where no registry has it
└── TrainingDiverged (RuntimeError) the loss became NaN or infinite; the batch was saved

Each message says what was found, where, and what would fit. ValueError itself stays for wrong arguments.
"""


class TrajDiffusionError(Exception):
    """Base of every error that this package raises on purpose."""


class BadInput(TrajDiffusionError, ValueError):
    """What was handed in does not fit."""


class BadFile(BadInput):
    """A file is not what its reader expects."""


class BadRecord(BadFile):
    """One record inside a file is broken."""


class BadScene(BadInput):
    """A scene breaks an invariant, or cannot be simulated."""


class BadRollouts(BadInput):
    """Rollouts do not fit their scene, or their file is broken."""


class BadCheckpoint(BadInput):
    """A checkpoint is truncated, foreign, or of another version."""


class BadConfig(BadInput):
    """A configuration key or value is unknown."""


class HostError(TrajDiffusionError, RuntimeError):
    """A simulator refused a command or died."""


class MissingExtra(TrajDiffusionError, ImportError):
    """An optional package is absent."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed: pip install 'traj-diffusion[{extra}]'"
        )


class MissingSource(MissingExtra):
    """An optional package is absent that no registry has, so no extra can install it."""

    def __init__(self, package: str, source: str) -> None:
        ImportError.__init__(
            self, f"This needs the package {package!r}, which no registry has: install it from its source, {source}"
        )


class TrainingDiverged(TrajDiffusionError, RuntimeError):
    """The loss became NaN or infinite."""
