"""The folder that drawn images are written to."""

from pathlib import Path

from cxrlab.errors import OutputError


def make_empty(root: Path) -> None:
    """Make a folder, or take one that is empty.

    Raises:
        OutputError: If it holds anything, or if it or a folder above it is a file.
    """
    if root.is_dir() and any(root.iterdir()):
        raise OutputError(
            f"{root} is not empty, and drawn images are not mixed with others: name a new folder."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{error.filename} is a file, no folder to draw into: name a new folder."
        raise OutputError(message) from error
