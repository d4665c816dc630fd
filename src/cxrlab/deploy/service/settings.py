"""What a service takes, how long it may take for it, and who may ask."""

import ipaddress
import os
from dataclasses import dataclass

from cxrlab.deploy.model import OnUnlike, check_on_unlike
from cxrlab.errors import ConfigError, check_range

TOKEN_VARIABLE = "CXRLAB_TOKEN"
_SHORTEST_TOKEN = 16
_MEGA = 10**6


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Limits of a service, and what it works with.

    Attributes:
        max_file_mb: Size of a file, in millions of bytes.
        max_request_mb: Size of all files of a request together, in millions of bytes.
        max_waiting_mb: Size of all files that are in memory at once, in millions of bytes; who comes later is
            asked to come again.
        max_files: Files of a request.
        max_megapixels: Width times height of an image, in millions.
        decode_seconds: Within which a file must be decoded.
        request_seconds: Within which a request must have arrived, and within as many more be answered.
        num_decoders: Processes that decode; None for one a core, up to four.
        batch_size: Images that go through the network at once, at most.
        on_unlike: What is done with images that are unlike those of the training, or whose DICOM header
            names no chest radiograph: ``warn``, ``reject`` or ``ignore``.

    Raises:
        ConfigError: If a number is out of its range.
    """

    max_file_mb: int = 64
    max_request_mb: int = 256
    max_waiting_mb: int = 1024
    max_files: int = 32
    max_megapixels: int = 40
    decode_seconds: float = 20.0
    request_seconds: float = 120.0
    num_decoders: int | None = None
    batch_size: int = 16
    on_unlike: OnUnlike = "warn"

    def __post_init__(self) -> None:
        for name in ("max_file_mb", "max_files", "num_decoders", "batch_size"):
            check_range(f"service.{name}", getattr(self, name), 1)
        check_range("service.max_megapixels", self.max_megapixels, 1, 134)
        check_range("service.max_request_mb", self.max_request_mb, self.max_file_mb)
        check_range("service.max_waiting_mb", self.max_waiting_mb, self.max_request_mb)
        check_on_unlike(self.on_unlike, "service.on_unlike")
        for name in ("decode_seconds", "request_seconds"):
            check_range(f"service.{name}", getattr(self, name), 0.1)

    @property
    def max_file_bytes(self) -> int:
        """Size of a file."""
        return self.max_file_mb * _MEGA

    @property
    def max_request_bytes(self) -> int:
        """Size of all files of a request."""
        return self.max_request_mb * _MEGA

    @property
    def max_waiting_bytes(self) -> int:
        """Size of all files that are in memory at once."""
        return self.max_waiting_mb * _MEGA

    @property
    def max_pixels(self) -> int:
        """Width times height of an image."""
        return self.max_megapixels * _MEGA

    def count_decoders(self) -> int:
        """Return how many processes decode."""
        return self.num_decoders or max(1, min(4, os.cpu_count() or 1))


def is_loopback(host: str) -> bool:
    """Return whether only programs of this computer reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_token(host: str, token: str | None) -> None:
    """Refuse an address that others reach without a token, and a token that is soon guessed.

    Raises:
        ConfigError: With how to make one.
    """
    make = f'export {TOKEN_VARIABLE}=$(python -c "import secrets; print(secrets.token_urlsafe())")'
    if not token and not is_loopback(host):
        raise ConfigError(
            f"host={host} is reached by other computers, so that requests need a token. Make one: {make}"
        )
    if token and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ConfigError(
            f"The token has {len(token)} signs: it takes {_SHORTEST_TOKEN} at least, ASCII that prints. "
            f"Make one: {make}"
        )
