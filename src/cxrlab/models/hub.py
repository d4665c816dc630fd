"""The Hugging Face Hub, where timm's weights are: a short question before its client's long retries."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants

_SECONDS = 5.0


def is_hub_reachable() -> bool:
    """Tell whether a connection to the hub opens within five seconds.

    Behind a proxy this cannot be told so: the answer is then yes, and the client finds out by itself.
    """
    address = urlsplit(constants.ENDPOINT)
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    if address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    try:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Let the hub's client answer from its cache alone while the hub cannot be reached.

    It asks five times for each of two files otherwise, with pauses, for almost a minute.
    """
    # The environment variable HF_HUB_OFFLINE is read once, at import; this is what it sets.
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not is_hub_reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
