"""Who may ask, what a browser may do with an answer, and an end for uploads that are refused."""

import asyncio
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxrlab.deploy.service.counters import Counters
from cxrlab.deploy.service.settings import is_loopback

# These show nothing of a model or of a patient; the page asks for the token itself.
_OPEN_PATHS = (
    "/", "/page.js", "/page.css", "/icon.svg", "/docs", "/docs.js", "/openapi.json", "/health",
)  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# How long the rest of a refused upload is read and dropped: a client that is cut off sees no answer.
_LINGER_SECONDS = 10.0


class Guard:
    """ASGI middleware: checks the token and the host, counts requests, and sets headers for browsers.

    Args:
        app: What it stands before.
        counters: Where requests are counted.
        token: That requests must bear; "" where none must.
        is_local: Whether the service is for this computer only: then a page of somebody else's, whose name
            was made to lead here, is refused by the name that it asks for.
    """

    def __init__(self, app: ASGIApp, counters: Counters, token: str = "", *, is_local: bool = True) -> None:
        self._app, self._counters, self._token, self._is_local = app, counters, token, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answered = _Answer(receive, send)
        refused = self._refusal(Headers(scope=scope), scope)
        start = time.perf_counter()
        try:
            await (refused or self._app)(scope, answered.receive, answered.send)
        finally:
            # A path that there is not is counted under one name, or anybody could make the table grow.
            path = getattr(scope.get("route"), "path", "other")
            self._counters.count_request(path, answered.status or 500, time.perf_counter() - start)

    def _refusal(self, headers: Headers, scope: Scope) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._is_local and not is_loopback(_without_port(host)):
            return _error(421, f"This service is for this computer only, and not for {host[:100]!r}.")
        if origin is not None and origin.partition("://")[2] != host:
            return _error(403, "Pages of other sites may not use this service.")
        if self._token and scope["path"] not in _OPEN_PATHS and not self._is_borne(headers):
            detail = "Give the token, as Authorization: Bearer <token>."
            return _error(401, detail, {"WWW-Authenticate": "Bearer"})
        return None

    def _is_borne(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_same = secrets.compare_digest(given.strip().encode(), self._token.encode())
        return is_same and scheme.lower() == "bearer"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _error(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)


class _Answer:
    """The way of a request and its answer: a refused upload is read to its end, into nothing, for a while."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._is_read = False
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_read = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if is_last and not self._is_read and self.status >= 400:
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drop_rest(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._is_read:
                    await self.receive()
        except TimeoutError:
            return
