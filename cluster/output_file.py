"""Files that a command writes at its end: whether it can is known before the work begins."""

from pathlib import Path

from cluster.errors import ConfigError


def prepare_output_file(path: Path | None) -> None:
    """Make the file's directory, before minutes or a paid session go into what will be written.

    Raises:
        ConfigError: if the path is a directory, or its own cannot be made.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"cannot write {path}: it is a directory; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name a file in a directory of yours") from error
