"""The folder of a raw data set: whether it is there, and what to say of it when something in it is not."""

from pathlib import Path

from cxrlab.errors import MissingFileError


def check_root(root: Path) -> None:
    """Refuse a root that is no folder.

    Raises:
        MissingFileError: If ``root`` does not exist, or is a file.
    """
    if not root.exists():
        raise MissingFileError(f"data.root={root} does not exist; set it to the folder of the data set.")
    if not root.is_dir():
        raise MissingFileError(f"data.root={root} is a file; set it to the folder of the data set, unpacked.")


def listing(folder: Path, most: int = 10) -> str:
    """Return the first names in ``folder``, sorted, for a message."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
