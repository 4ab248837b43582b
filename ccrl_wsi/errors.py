"""What can go wrong, by name. Every message says what, where and what to do next."""


class CcrlError(Exception):
    """The parent of every error this package raises on purpose."""


class ConfigError(CcrlError):
    """A setting, an option or the output folder does not allow the run. Exit code 2."""


class SlideError(CcrlError):
    """A slide cannot be opened, read or measured."""


class ModelError(CcrlError):
    """A network's weights are missing, foreign or damaged."""


class StoreError(CcrlError):
    """A result on disk is missing, damaged or of another version."""


class ClusterError(CcrlError):
    """Cells cannot be clustered as asked, or a codebook does not fit them."""


class EvaluationError(CcrlError):
    """Embeddings cannot be scored: labels, classes or cells are missing."""


class LabelError(CcrlError):
    """Labels of people cannot be read, or fit no cell."""


class RunStopped(CcrlError):
    """The work cannot go on: a scheduler is gone, a folder was taken over. Exit code 1."""


class StorageError(CcrlError):
    """An object store cannot be reached, refuses access, or has no driver here."""
