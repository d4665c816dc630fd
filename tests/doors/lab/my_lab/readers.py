from pathlib import Path

import pandas as pd

from cxrlab import Manifest


def read(root: Path, finding: str = "Bright") -> Manifest:
    """Return a manifest from one CSV file of the lab's own."""
    table = pd.read_csv(Path(root) / "index.csv", dtype={"who": str})
    return Manifest(
        root=Path(root),
        name="my lab",
        table=pd.DataFrame(
            {
                "image": table["file"],
                "patient": table["who"],
                "split": "",
                "covariate/view": table["view"],
                f"label/{finding}": table["bright"].astype(float),
            }
        ),
    )
