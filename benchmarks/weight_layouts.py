"""Which layouts of published weights load: a file of each, of random values, with its names and shapes.

Run ``python benchmarks/weight_layouts.py``; it prints the table of docs/reference/models.md. The largest file
has 2.4 GB; each is removed before the next one is written.
"""

import argparse
import logging
import re
import sys
import tempfile
from pathlib import Path

import torch

from cxrlab.errors import UserError
from cxrlab.models import TimmNetwork

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

from published_layouts import PUBLISHED, Published


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def load(layout: Published, folder: Path) -> tuple[bool, str]:
    """Return whether a layout loads with every weight from the file, and what was said."""
    path = folder / "weights.pth"
    torch.save(layout.state(), path)
    handler = Lines()
    log = logging.getLogger("cxrlab")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        TimmNetwork(
            layout.backbone, num_labels=14, channels=layout.channels, image_size=layout.image_size,
            checkpoint_path=str(path), options=layout.options,
        )  # fmt: skip
    except UserError as error:
        return False, str(error).replace(str(path), "weights.pth")
    finally:
        log.removeHandler(handler)
        path.unlink()
    lines = [line for line in handler.lines if "not of the head" not in line]
    return True, shortened(" ".join(lines).replace(str(path), "weights.pth"))


def shortened(line: str) -> str:
    """Return a line of the log with the first two of the names that it lists."""
    before, bracket, names = line.partition("[")
    listed = names.partition("]")[0].split(", ")
    if not bracket or len(listed) <= 2:
        return line
    more = re.search(r"\] and (\d+) more", names)
    rest = len(listed) - 2 + (int(more[1]) if more else 0)
    return f"{before}{', '.join(listed[:2])} and {rest} more."


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("| layout | model.backbone | loads | what the log says |\n|---|---|---|---|")
    num_loaded = 0
    with tempfile.TemporaryDirectory() as folder:
        for layout in PUBLISHED:
            loads, said = load(layout, Path(folder))
            num_loaded += loads
            options = "".join(f", {name}={value}" for name, value in layout.options.items())
            print(
                f"| {layout.title} | {layout.backbone}{options} | {'yes' if loads else 'no'} | {said} |",
                flush=True,
            )
    print(f"\n{num_loaded} of {len(PUBLISHED)}")


if __name__ == "__main__":
    main()
