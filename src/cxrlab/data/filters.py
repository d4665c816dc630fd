"""Which images of a data set are used at all: by view, sex, age or any other covariate, and by boxes."""

import functools
import logging
from collections.abc import Callable, Sequence

import pandas as pd

from cxrlab.data.manifest import COVARIATE, Manifest
from cxrlab.errors import ConfigError, DataError

# A value; several, of which one must be met; [least, most] for numbers; None for all images.
Choice = str | float | Sequence[str | float | None] | None

_MOST_NAMED = 10

_log = logging.getLogger(__name__)


def apply_filters(
    manifest: Manifest,
    *,
    view: str | list[str] | None = None,
    sex: str | list[str] | None = None,
    age: list[float | None] | None = None,
    boxes: bool = False,
    **others: Choice,
) -> Manifest:
    """Return the rows of a manifest that pass every filter; None filters nothing.

    An image whose covariate is unknown passes no filter of that covariate. What each filter leaves is logged.

    Args:
        manifest: What a reader returned.
        view: View to keep, such as "PA", or several.
        sex: Sex to keep, as the data set writes it.
        age: Least and most years to keep, both included; None for no bound.
        boxes: Keep only images with a box.
        others: The same for any other covariate: a value, several, or [least, most] where it is in numbers.

    Raises:
        ConfigError: If the data set lacks a covariate, or the value nowhere occurs, a range is none, or boxes
            are asked of a data set that has none.
        DataError: If no image is left.

    Example:
        >>> from pathlib import Path
        >>> table = pd.DataFrame({"image": ["a", "b"], "patient": ["1", "2"], "split": ""})
        >>> manifest = Manifest(Path("/data"), table.assign(**{"covariate/view": ["PA", "AP"]}))
        >>> apply_filters(manifest, view="PA").table["image"].tolist()
        ['a']
    """
    choices: dict[str, Choice] = {"view": view, "sex": sex, "age": age, **others}
    masks = {
        f"data.filter.{name}={_written(choice)}": _mask(manifest, name, choice)
        for name, choice in choices.items()
        if choice is not None
    }
    if boxes:
        masks["data.filter.boxes=true"] = _with_box(manifest)
    return _filtered(manifest, masks)


def filter_words(filter: Callable[[Manifest], Manifest]) -> str:
    """Return what a filter keeps, in the words of the command line; empty where it cannot be told.

    Args:
        filter: Such as ``apply_filters`` with some of its arguments given.

    Example:
        >>> filter_words(functools.partial(apply_filters, view="PA", sex=None, age=[18, None]))
        'view=PA, age=[18,null]'
    """
    choices = filter.keywords if isinstance(filter, functools.partial) else {}
    return ", ".join(
        f"{name}={'true' if choice is True else _written(choice)}"
        for name, choice in choices.items()
        if choice is not None and choice is not False
    )


def _filtered(manifest: Manifest, masks: dict[str, "pd.Series[bool]"]) -> Manifest:
    """Apply one filter after the other, and tell how many images each took away."""
    if not masks:
        return manifest
    kept = pd.Series(data=True, index=manifest.table.index)
    counts = [len(manifest)]
    for mask in masks.values():
        kept &= mask
        counts.append(int(kept.sum()))
    removed = [
        f"{key} removed {before - after}"
        for key, before, after in zip(masks, counts, counts[1:], strict=False)
    ]
    if not counts[-1]:
        raise DataError(f"No image of {manifest.root} is left of {len(manifest)}: {', '.join(removed)}.")
    _log.info(f"{counts[-1]} of {counts[0]} images are left: {', '.join(removed)}")
    return manifest.rows(kept)


def _mask(manifest: Manifest, name: str, choice: Choice) -> "pd.Series[bool]":
    key = f"data.filter.{name}={_written(choice)}"
    if name not in manifest.covariates:
        raise ConfigError(
            f"{key}: this data set has no covariate {name!r}; it has {manifest.covariates or 'none'}."
        )
    values = manifest.table[COVARIATE + name]
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return _mask_of_numbers(values, choice, key)
    kept = [str(value) for value in ([choice] if isinstance(choice, str | float | int) else choice or [])]
    words = values.where(values.notna(), "").astype(str)
    _check_seen(kept, sorted(set(words) - {""}), key)
    return words.isin(kept)


def _mask_of_numbers(values: "pd.Series[float]", choice: Choice, key: str) -> "pd.Series[bool]":
    if isinstance(choice, float | int) and not isinstance(choice, bool):
        _check_seen([choice], sorted(values.dropna().unique().tolist()), key)
        return values == choice
    ends = list(choice) if isinstance(choice, list | tuple) else []
    numbers = [end for end in ends if isinstance(end, float | int) and not isinstance(end, bool)]
    if len(ends) != 2 or len(numbers) + ends.count(None) != 2:
        raise ConfigError(f"{key}: give a number, or a range [least, most], such as [18,90] or [18,null].")
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise ConfigError(f"{key}: the first end of the range is above the second.")
    passed = values.notna()
    if ends[0] is not None:
        passed &= values >= ends[0]
    return passed if ends[1] is None else passed & (values <= ends[1])


def _check_seen(chosen: Sequence[str | float], existing: Sequence[str | float], key: str) -> None:
    unseen = [value for value in chosen if value not in existing]
    if unseen:
        more = f" and {len(existing) - _MOST_NAMED} more" if len(existing) > _MOST_NAMED else ""
        raise ConfigError(f"{key}: no image has {unseen}; there are {list(existing[:_MOST_NAMED])}{more}.")
    if not chosen:
        raise ConfigError(f"{key} names nothing. Write null to keep all images.")


def _with_box(manifest: Manifest) -> "pd.Series[bool]":
    if manifest.boxes.empty:
        raise ConfigError(f"data.filter.boxes=true: no image of {manifest.root} has a box.")
    return manifest.table["image"].isin(manifest.boxes["image"])


def _written(choice: Choice) -> str:
    """Return a choice as one writes it on the command line."""
    if isinstance(choice, list | tuple):
        return f"[{','.join(_written(value) for value in choice)}]"
    return "null" if choice is None else str(choice)
