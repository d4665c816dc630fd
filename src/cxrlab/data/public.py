"""Public data sets by the names of ``conf/data``, and which of them hold images of which others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

RADIOGRAPHS = frozenset(
    {
        "brax", "chestmnist", "chestx_det10", "chexpert", "chexpert_plus", "covid_radiography", "covidx",
        "cxr_lt", "cxr_lt_2023", "mimic", "montgomery", "nih", "nih_chexnet", "nih_course", "nih_cxr_lt",
        "nih_expert", "nih_google", "nih_sample", "openi", "padchest", "pneumonia", "pneumoniamnist",
        "rexgradient", "rsna", "shenzhen", "siim", "tbx11k", "vindr",
    }
)  # fmt: skip
"""Names of data sets of chest radiographs."""

PUBLIC = RADIOGRAPHS | {"malaria", "synthetic"}
"""Names that may be told; any other may be that of somebody's folder or file."""

UNDER_AGREEMENT = frozenset(
    {
        "brax",
        "chexpert",
        "chexpert_plus",
        "cxr_lt",
        "cxr_lt_2023",
        "mimic",
        "padchest",
        "rexgradient",
        "vindr",
    }
)
"""Data sets given only to those who agreed not to pass them on, so that no target of theirs may be either."""

# Options of conf/data that read the images of another one.
_SAME = {
    "chexpert_full": "chexpert",
    "mimic_negbio": "mimic",
    "pneumonia_classes": "pneumonia",
    "rsna_classes": "rsna",
    "rsna_nih": "rsna",
    "vindr_physionet": "vindr",
}

WITHOUT_PARTS = frozenset(
    {"brax", "covid_radiography", "montgomery", "openi", "padchest", "rsna", "shenzhen", "siim"}
)
"""Data sets that nobody published parts of: what was seen of one is drawn from what is evaluated of it."""

EVERY = "all"
"""In place of parts: images of all of a data set."""

_OWN_SPLIT = "all of its images, in parts of their own"
_NO_NAMES = "a selection of its images, of which it is not published which"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where images of a public data set were taken from.

    Attributes:
        data: The data set.
        part: Of it; empty for any.
        of: Whose images they are.
        parts: Of that one's official split that they are of; :data:`EVERY` for all of its images; empty where
            it is not known which.
        note: Which of its images, in words.
        source: Of the fact.
        is_whole: Whether all parts together are all of its images.
    """

    data: str
    part: str = ""
    of: str
    parts: tuple[str, ...] = ()
    note: str
    source: str
    is_whole: bool = False


_RSNA_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json of rsna.org, compared with NIH's two lists"
_GOOGLE_TABLES = "the file names in Google's tables, compared with NIH's two lists"
_MEDMNIST = "Yang et al., Scientific Data 2023"

ORIGINS = (
    Origin(data="rsna", of="nih", parts=("train", "test"), source=_RSNA_MAPPING,
           note="8,196 of its 30,000 images are in NIH's official test list, the others in its train list"),
    Origin(data="siim", of="nih", note=_NO_NAMES, source="Filice et al., J Digit Imaging 33:490, 2020"),
    Origin(data="chestx_det10", of="nih", note=_NO_NAMES, source="Liu, Lian and Yu, arXiv:2006.10550"),
    Origin(data="nih_google", part="train", of="nih", parts=("train",), source=_GOOGLE_TABLES,
           note="its 2,414 images are in NIH's official train list"),
    Origin(data="nih_google", part="test", of="nih", parts=("test",), source=_GOOGLE_TABLES,
           note="its 1,962 images are in NIH's official test list"),
    Origin(data="nih_expert", of="nih", parts=("test",), source="Nabulsi et al., Scientific Reports 2021",
           note="its 810 images are in NIH's official test list"),
    Origin(data="nih_sample", of="nih", parts=("train", "test"), source="its page on Kaggle",
           note="5,606 of its images, drawn at random"),
    Origin(data="nih_cxr_lt", of="nih", note=_OWN_SPLIT, is_whole=True,
           source="Holste et al., MICCAI 2023"),
    Origin(data="nih_chexnet", of="nih", parts=("train", "test"), is_whole=True,
           note="all of its images, in folds by patient that are not NIH's lists",
           source="github.com/jrzech/reproduce-chexnet"),
    Origin(data="nih_course", of="nih", note="a sample of its images",
           source="the course AI for Medical Diagnosis, deeplearning.ai"),
    Origin(data="chestmnist", of="nih", note=_OWN_SPLIT, is_whole=True, source=_MEDMNIST),
    Origin(data="cxr_lt", of="mimic", note=_OWN_SPLIT, is_whole=True,
           source="Lin et al., arXiv:2506.07984"),
    Origin(data="cxr_lt_2023", of="mimic", note=_OWN_SPLIT, is_whole=True,
           source="Holste et al., Medical Image Analysis 2024"),
    Origin(data="chexpert_plus", part="train", of="chexpert", parts=("train",),
           note="the same images with reports", source="Chambon et al., arXiv:2405.19538"),
    Origin(data="chexpert_plus", part="test", of="chexpert", parts=("test",),
           note="the same images with reports", source="Chambon et al., arXiv:2405.19538"),
    Origin(data="pneumoniamnist", part="train", of="pneumonia", parts=("train",), source=_MEDMNIST,
           note="nine tenths of its train folder, made small"),
    Origin(data="pneumoniamnist", part="val", of="pneumonia", parts=("train",), source=_MEDMNIST,
           note="a tenth of its train folder, made small"),
    Origin(data="pneumoniamnist", part="test", of="pneumonia", parts=("test",), source=_MEDMNIST,
           note="its test folder, made small"),
    Origin(data="covidx", of="rsna", note="many of its images without COVID-19",
           source="docs/COVIDx.md of lindawangg/COVID-Net"),
    Origin(data="covid_radiography", of="rsna", parts=(EVERY,),
           note="all of its normal images and those with an opacity", source="Rahman et al., CIBM 2021"),
    Origin(data="covid_radiography", of="pneumonia", note="its viral pneumonias and 1,341 of its normal ones",
           source="Rahman et al., CIBM 2021"),
    Origin(data="covid_radiography", of="padchest", note="2,473 of its images",
           source="Rahman et al., CIBM 2021"),
)  # fmt: skip
"""Facts, each with its source, in the words of ``conf/data``."""


def public_name(name: str, is_named: bool) -> str:
    """Return a name that a person gave (``data.name``) or that of a public data set.

    Any other, which may be that of a folder, becomes empty.
    """
    return name if is_named or name in PUBLIC else ""


def canonical(name: str) -> str:
    """Return the name of the data set whose images an option of ``conf/data`` reads.

    Example:
        >>> canonical("rsna_nih"), canonical("nih")
        ('rsna', 'nih')
    """
    return _SAME.get(name, name)


@dataclass(frozen=True)
class Traced:
    """Images of a data set, traced back to where they were taken from.

    Attributes:
        parts: Of its official split; :data:`EVERY` for all of its images; empty where it is not known which.
        steps: How one comes there, from the set that they were traced from on; none for that set itself.
        is_whole: Whether they are all of its images.
    """

    parts: frozenset[str]
    steps: tuple[Origin, ...] = ()
    is_whole: bool = False


def traced(data: str, parts: Collection[str]) -> Mapping[str, Traced]:
    """Return all data sets whose images those of a data set are.

    Args:
        data: As ``conf/data`` has it; another name is traced to itself alone.
        parts: Of its own official split; :data:`EVERY` for all of it; empty where it is not known which.

    Returns:
        By data set, itself first.

    Example:
        >>> {name: sorted(found.parts) for name, found in traced("nih_google", ["test"]).items()}
        {'nih_google': ['test'], 'nih': ['test']}
        >>> {name: sorted(found.parts) for name, found in traced("covidx", ["train"]).items()}
        {'covidx': ['train'], 'rsna': [], 'nih': []}
    """
    start = canonical(data)
    found = {start: Traced(frozenset(parts), (), is_whole(parts))}
    waiting = [start]
    while waiting:
        name = waiting.pop(0)
        here = found[name]
        for origin in ORIGINS:
            if origin.data != name or not _is_of(origin, here.parts):
                continue
            whole = origin.is_whole and here.is_whole
            is_unknown = not here.parts and bool(here.steps or origin.part)
            parts_there = frozenset[str]() if is_unknown else frozenset([EVERY] if whole else origin.parts)
            if origin.of not in found:
                waiting.append(origin.of)
                found[origin.of] = Traced(parts_there, (*here.steps, origin), whole)
            else:
                earlier = found[origin.of]
                found[origin.of] = replace(earlier, parts=earlier.parts | parts_there)
    return found


def is_whole(parts: Collection[str]) -> bool:
    """Tell whether parts are all of a data set: those of training and of testing, or by their word."""
    return EVERY in parts or {"train", "test"} <= set(parts)


def _is_of(origin: Origin, parts: Collection[str]) -> bool:
    return not origin.part or not parts or EVERY in parts or origin.part in parts
