"""Labels that are probably wrong become a page with their radiographs, for a person to look at."""

import io
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image
from rich.console import Console
from rich.progress import track

import cxrlab
from cxrlab.data.decode import decode
from cxrlab.errors import UserError
from cxrlab.evaluation.label_errors import LabelError
from cxrlab.files import RunDir, write_text
from cxrlab.metrics.predictions import PredictionTable
from cxrlab.report import text
from cxrlab.report.formatting import count, counted, number
from cxrlab.report.html import pages
from cxrlab.report.model_info import Session
from cxrlab.report.panels import Shown, embedded
from cxrlab.report.tables import Cell, Row, Table

log = logging.getLogger(__name__)

_SIDE = 320  # pixels of a picture's side
_QUALITY = 80
_MOST_BYTES = 4_700_000  # of the pictures of a page, as they stand in it

_CAVEATS = (
    "A doubtful label is not a wrong one: the networks may be mistaken, and on rare findings they often "
    "are. Look at each image, better without knowing label and prediction.",
    "Corrections follow the networks' doubts, so what they and the labels share is never looked at. Do not "
    "correct a test part by this list and then evaluate networks on it: it would flatter them. Let readers "
    "read all of it, or a sample drawn without looking at predictions.",
)
_HOW = {
    "labels": "A label is doubtful where networks that have not seen the image are surer of the contrary "
    "than they are on average of images labelled so, and as many are listed as this makes likely (confident "
    "learning, Northcutt and others 2021, package cleanlab). Unknown labels are left out.",
    "pictures": "The most doubtful labels first. The probability is that of a network which did not train "
    "on the patient.",
}
_STEPS = (
    "Fill in the column corrected of label_errors.csv: 1 present, 0 absent, unknown; empty keeps the label.",
    "cxrlab review predictions=<the same> corrections=<label_errors.csv> writes labels.csv: all images with "
    "the labels after correction.",
    "cxrlab train data=table data.root=<the images> data.reader.tables=<labels.csv> trains on it. State in "
    "the paper how many labels were changed, by whom, and that a network chose which were looked at.",
)


def write_label_errors(
    table: PredictionTable,
    errors: Sequence[LabelError],
    folder: Path,
    *,
    root: Path | None,
    images: bool,
    per_label: int,
    session: Session,
) -> Path:
    """Write the page and return its path.

    Args:
        table: The predictions.
        errors: What is doubtful in it.
        folder: Where to; it exists.
        root: Folder of the images; None leaves pictures out.
        images: Whether radiographs, and names of images, may stand on the page.
        per_label: Pictures of each label and side, at most.
        session: How it was made.

    Raises:
        OSError: If it cannot be written.
    """
    groups, num_left_out = _groups(table, errors, root, per_label) if images and root is not None else ([], 0)
    sections = {
        "labels": "Doubtful labels",
        "pictures": "The images",
        "next": "What to do",
        "repeat": "How to repeat it",
    }
    if not groups:
        del sections["pictures"]
    page = pages().get_template("review.html.jinja").render(
        title=f"Label errors among {counted(len(table), 'image')}",
        headline=_headline(table, errors),
        caveats=_CAVEATS,
        how_to_read=_HOW,
        counts=_counts(table, errors),
        groups=groups,
        left_out=f"{counted(num_left_out, 'image')} are left out." if num_left_out else "",
        steps=_STEPS,
        records=text.records({"": session}, names=images),
        names_left_out="" if images else text.NAMES_LEFT_OUT,
        version=cxrlab.__version__,
        sections=list(sections.items()),
    )  # fmt: skip
    path = RunDir(folder).report
    write_text(path, page)
    return path


def _headline(table: PredictionTable, errors: Sequence[LabelError]) -> str:
    num_known = int(table.known.sum())
    num_images = len({error.row for error in errors})
    if not errors:
        return f"None of {num_known:,} labels is doubtful by predictions of networks that had not seen the "
        "image."
    return (
        f"{len(errors):,} of {num_known:,} labels, in {counted(num_images, 'image')}, are doubtful by "
        "predictions of networks that had not seen the image."
    )


def _counts(table: PredictionTable, errors: Sequence[LabelError]) -> Table:
    found = Counter((error.label, error.given) for error in errors)
    rows = []
    for column, label in enumerate(table.labels):
        positives, negatives = (int((table.targets[:, column] == value).sum()) for value in (1, 0))
        shares = [
            Cell(count(found[label, given]), f"of {total:,}")
            for given, total in ((1, positives), (0, negatives))
        ]
        rows.append(Row(label, shares))
    return Table(["Label", "Labelled present, doubtful", "Labelled absent, doubtful"], rows)


def _groups(
    table: PredictionTable, errors: Sequence[LabelError], root: Path, per_label: int
) -> tuple[list[tuple[str, list[Shown], list[Shown]]], int]:
    """Return the pictures of each label, labelled absent and present, and how many were left out."""
    chosen: dict[tuple[str, int], list[LabelError]] = {}
    for error in errors:
        side = chosen.setdefault((error.label, error.given), [])
        if len(side) < per_label:
            side.append(error)
    # One rank after another, so that a page that is full lacks the least doubtful of every label.
    ranked = sorted((rank, key) for key, side in chosen.items() for rank in range(len(side)))
    shown: dict[tuple[str, int], list[Shown]] = {key: [] for key in chosen}
    room, num_left_out = _MOST_BYTES, 0
    for rank, key in track(ranked, "Pictures", console=Console(stderr=True), transient=True):
        picture = _picture(table, chosen[key][rank], root)
        if picture is None or len(picture.source) > room:
            num_left_out += 1
            continue
        room -= len(picture.source)
        shown[key].append(picture)
    groups = [(label, shown.get((label, 0), []), shown.get((label, 1), [])) for label in table.labels]
    return [group for group in groups if group[1] or group[2]], num_left_out


def _picture(table: PredictionTable, error: LabelError, root: Path) -> Shown | None:
    name = str(table.images[error.row])
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        log.warning("The image %s is left out: it lies outside %s.", name, root)
        return None
    try:
        pixels = decode(root / name, image_size=_SIDE, channels=1, resize="pad")
    except UserError as error_of_file:
        log.warning("%s", error_of_file)
        return None
    memory = io.BytesIO()
    Image.fromarray(pixels[0]).save(memory, "JPEG", quality=_QUALITY, optimize=True)
    given = "present" if error.given else "absent"
    words = f"Labelled {given}, predicted {number(error.probability, 2)}."
    return Shown(embedded(memory.getvalue()), words, name)
