"""Which class of a data set says that nothing is found, by its name."""

from collections.abc import Sequence

from cxrlab.data.readers._folder_images import words_of

_HEALTHY = frozenset(
    ["normal", "normals", "healthy", "health", "negative", "negatives", "neg", "control", "controls", "ctrl",
     "uninfected", "noninfected", "unaffected", "undiseased", "benign", "absent", "absence", "none",
     "nofinding", "nofindings", "unremarkable", "clear", "clean", "normale", "normales", "normalny",
     "normaal", "gesund", "gesunde", "gesunder", "kontrolle", "kontrollen", "negativ", "unauffallig", "sano",
     "sana", "sanos", "sanas", "sain", "saine", "sains", "saines", "negatif", "negatifs", "temoin", "temoins",
     "negativo", "negativos", "negativa", "saudavel", "saudaveis", "sani", "gezond", "saglikli", "kontrol",
     "zdrowy", "zdrowe", "frisk", "friska", "норма", "нормальные", "здоровые", "здоровыи", "здоров",
     "正常", "健康", "阴性", "対照", "陰性", "정상", "음성", "سليم", "طبيعي"]
)  # fmt: skip
# Before what is not there; those at the end of a name say the same of what stands before them.
_NEGATIONS = frozenset(
    ["no", "non", "not", "without", "un", "kein", "keine", "keinen", "nicht", "ohne", "sin", "sans", "pas",
     "sem", "nao", "senza", "geen", "utan", "uden", "bez", "无", "没有"]
)  # fmt: skip
_AFTER = frozenset(["no", "free", "false", "0"])


def is_healthy(name: str) -> bool:
    """Tell of a class's name whether it says that nothing is found.

    Example:
        >>> names = ("Normal", "no_finding", "Non-TB", "Négatif", "abnormal", "0", "1")
        >>> [name for name in names if is_healthy(name)]
        ['Normal', 'no_finding', 'Non-TB', 'Négatif', '0']
    """
    words = words_of(name)
    if not words or words in (["0"], ["false"], ["no"], ["n"]):
        return bool(words)
    is_negated = words[0] in _NEGATIONS and len(words) > 1
    names_health = bool(_HEALTHY.intersection(words[1:] if is_negated else words))
    if is_negated:
        return not names_health or words[1:2] in (["finding"], ["findings"])
    return names_health or (words[0].startswith("non") and len(words[0]) > 4)


def healthy_of(names: Sequence[str]) -> list[str]:
    """Return which of two names say that nothing is found, be it only beside the other (un-infected)."""
    healthy = [name for name in names if is_healthy(name)]
    if len(healthy) > 1:  # pneumonia that is not COVID, beside Normal
        plainly = [name for name in healthy if _HEALTHY.issuperset(words_of(name))]
        return plainly if len(plainly) == 1 else healthy
    if healthy:
        return healthy
    plain = {name: "".join(words_of(name)) for name in names}
    healthy = [
        name
        for name in names
        if any(
            sign in plain[name] and plain[name].replace(sign, "", 1) == other
            for sign in _NEGATIONS
            for other in plain.values()
        )
    ]
    return healthy or [name for name in names if _is_negated_at_the_end(name)]


def _is_negated_at_the_end(name: str) -> bool:
    """Tell whether a name ends with a negation: ``pneumonia_no``, ``TB-``, ``disease free``, ``class_0``."""
    words = words_of(name)
    return bool(words) and (name.endswith("-") or (len(words) > 1 and words[-1] in _AFTER))
