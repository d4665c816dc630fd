"""The address that a service listens on, and the server that answers there."""

import errno
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cxrlab.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from fastapi import FastAPI

_PACKAGES = ("fastapi", "uvicorn", "python_multipart")
_STOP_SECONDS = 5
# Whoever comes while so many are answered is asked to come again.
_MOST_CONNECTIONS = 512


def require_packages() -> None:
    """Refuse to go on without the packages of a service.

    Raises:
        MissingPackageError: With how to install them.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingPackageError(f"cxrlab serve needs {missing[0]}: pip install 'cxrlab[serve]'")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that an address that cannot be had is told before anything is loaded.

    Args:
        host: Name or number of an address of this computer.
        port: 0 for one that is free.

    Raises:
        ConfigError: If there is no such address, or the port is in use, or needs rights.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host={host} is no address: {error}. Such as host=127.0.0.1.") from error
    server = socket.socket(kind, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(address)
        server.listen(_MOST_CONNECTIONS)
    except OSError as error:
        server.close()
        raise ConfigError(_not_bound(host, port, error)) from error
    return server


def _not_bound(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port={port} is in use: something listens on {host} there. Choose another; 0 takes a free one."
        )
    if error.errno == errno.EACCES:
        return f"port={port} needs an administrator's rights. Choose one above 1023."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host={host} is no address of this computer. Such as host=127.0.0.1."
    return f"host={host} port={port} cannot be listened on: {error}."


def address_of(server: socket.socket) -> str:
    """Return the address that a browser takes."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(app: "FastAPI", server: socket.socket) -> bool:
    """Answer requests until Ctrl-C or SIGTERM.

    Returns:
        Whether it was started at all; where it was not, the log says why.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    service = uvicorn.Server(config)
    service.run(sockets=[server])
    return service.started
