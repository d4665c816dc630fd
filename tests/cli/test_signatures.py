from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest

from cxrlab.cli.validation import check_node, check_value
from cxrlab.errors import ConfigError


class Thing:
    """What the nodes of these tests build."""

    def __init__(
        self, *, rate: float, kind: Literal["a", "b"], size: int = 3, pair: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        self.values = (rate, kind, size, pair)


def lenient(first: int, **others: Any) -> int:
    return first


GOOD = {"_target_": f"{__name__}.Thing", "rate": 0.1, "kind": "a"}


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch):
    """Let the dotted path of this module resolve under pytest's importlib mode."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__(__name__))


def test_what_fits_passes():
    check_node({"a": {"b": [GOOD]}, "c": 3})
    check_node({"x": {**GOOD, "pair": [0.9, 0.99], "rate": 1}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": "fast"}, r"model.rate='fast' does not fit: it takes float"),
        ({"rate": True}, r"model.rate=True does not fit"),
        ({"kind": "c"}, r"model.kind='c' does not fit: it takes one of a, b"),
        ({"size": 1.5}, r"model.size=1.5 does not fit: it takes int"),
        ({"size": None}, r"model.size=None does not fit"),
        ({"pair": [1.0]}, r"model.pair=\[1.0\] does not fit"),
        ({"rat": 0.1}, r"model.rat=0.1 is no parameter of .*Thing, which takes .*Did you mean rate\?"),
    ],
)
def test_a_key_or_value_that_does_not_fit_is_named(change: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        check_node({"model": {**GOOD, **change}})


def test_what_is_missing_is_named_unless_code_supplies_it():
    node = {"_target_": f"{__name__}.Thing", "rate": 0.1}
    with pytest.raises(ConfigError, match=r"model lacks \['kind'\]"):
        check_node({"model": node})
    check_node({"model": {**node, "_partial_": True}})


@pytest.mark.parametrize(
    "target", ["cxrlab.losses.Nothing", "cxrlab.nowhere.Thing", "nowhere", "os.path.sep"]
)
def test_a_target_that_does_not_exist_is_named(target: str):
    with pytest.raises(ConfigError, match=rf"loss._target_={target} does not exist"):
        check_node({"loss": {"_target_": target}})


def test_further_keywords_are_taken_where_the_code_takes_them():
    check_node({"x": {"_target_": f"{__name__}.lenient", "_partial_": True, "anything": 1}})


def test_what_will_be_built_is_checked_by_its_own_signature():
    inner = {"_target_": f"{__name__}.Thing", "rate": "x", "kind": "a"}
    with pytest.raises(ConfigError, match=r"outer.rate.rate='x'"):
        check_node({"outer": {**GOOD, "rate": inner}})


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, float), ([1, 2], Sequence[int]), ("a", str | None), (None, str | None), ({"a": 1}, dict[str, int]),
        ([0.9, 0.999], tuple[float, float]), (len, Callable[..., int]),
    ],
)  # fmt: skip
def test_values_that_fit(value: object, hint: Any):
    check_value(value, hint, "key")
