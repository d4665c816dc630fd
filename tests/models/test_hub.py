import socket

import pytest
from huggingface_hub import constants

from cxrlab.models.hub import is_hub_reachable, offline_if_unreachable


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def port():
    """One on which someone listens: the system answers for who has not accepted yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch, port: int):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with offline_if_unreachable():
        assert not constants.HF_HUB_OFFLINE


def test_the_client_does_not_retry_where_nobody_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(KeyError), offline_if_unreachable():
        assert constants.HF_HUB_OFFLINE
        raise KeyError
    assert not constants.HF_HUB_OFFLINE


def test_behind_a_proxy_the_client_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "https://nowhere.invalid")
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: False)
    assert is_hub_reachable()
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: True)
    assert not is_hub_reachable()


def test_what_was_set_to_offline_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("cxrlab.models.hub.is_hub_reachable", lambda: pytest.fail("it was asked"))
    with offline_if_unreachable():
        assert constants.HF_HUB_OFFLINE
