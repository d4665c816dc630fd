"""Codes of findings as hospital systems know them: SNOMED CT where a label has one, else a scheme of ours."""

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

PRIVATE_SCHEME = "99CXRLAB"  # schemes of one's own begin with 99 (DICOM PS3.16, chapter 8)

_LONGEST_CODE, _LONGEST_MEANING = 16, 64  # of the value representations SH and LO

_SNOMED = {
    "atelectasis": ("46621007", "Atelectasis"),
    "cardiomegaly": ("8186001", "Cardiomegaly"),
    "consolidation": ("95436008", "Lung consolidation"),
    "covid": ("840539006", "COVID-19"),
    "covid 19": ("840539006", "COVID-19"),
    "edema": ("19242006", "Pulmonary edema"),
    "pulmonary edema": ("19242006", "Pulmonary edema"),
    "effusion": ("60046008", "Pleural effusion"),
    "pleural effusion": ("60046008", "Pleural effusion"),
    "emphysema": ("87433001", "Pulmonary emphysema"),
    "fibrosis": ("51615001", "Pulmonary fibrosis"),
    "pulmonary fibrosis": ("51615001", "Pulmonary fibrosis"),
    "mass": ("309529002", "Lung mass"),
    "nodule": ("786838002", "Nodule of lung"),
    "pneumonia": ("233604007", "Pneumonia"),
    "pneumothorax": ("36118008", "Pneumothorax"),
    "tuberculosis": ("154283005", "Pulmonary tuberculosis"),
}


def finding_code(label: str) -> "CodedConcept":
    """Return the code of a label of a chest radiograph.

    Only labels whose names say the same as a concept are mapped; of all others, such as infiltration or lung
    opacity, the label itself is the meaning, in the scheme ``99CXRLAB``.

    Args:
        label: As the model has it, such as ``Pleural_Effusion``.

    Example:
        >>> code = finding_code("Pleural_Effusion")
        >>> code.scheme_designator, code.value, code.meaning
        ('SCT', '60046008', 'Pleural effusion')
        >>> finding_code("Infiltration").scheme_designator
        '99CXRLAB'
    """
    from highdicom.sr import CodedConcept

    words = " ".join(re.split(r"[\s_-]+", label.strip().lower()))
    if words in _SNOMED:
        value, meaning = _SNOMED[words]
        return CodedConcept(value, "SCT", meaning)
    return _private_code(label)


def _private_code(meaning: str) -> "CodedConcept":
    """Return a code of our scheme: the text itself where it is short and plain, else digits made of it."""
    from highdicom.sr import CodedConcept

    is_plain = len(meaning) <= _LONGEST_CODE and re.fullmatch(r"[\w .+-]+", meaning, re.ASCII)
    value = meaning if is_plain else hashlib.sha256(meaning.encode()).hexdigest()[:_LONGEST_CODE]
    return CodedConcept(value, PRIVATE_SCHEME, meaning.replace("\\", "/")[:_LONGEST_MEANING])
