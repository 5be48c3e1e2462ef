"""What stands before the service: the token, the size and pace of bodies, who may change something, and the clock."""

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from recbole_hllm.serving.service.metrics import Metrics
from recbole_hllm.serving.service.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# For everybody: the page, which asks for the token, the pages of the interface, and what balancers ask.
OPEN = ("/", "/docs", "/openapi.json", "/health")
# Names of this machine by which it asks itself, with any port.
_LOCAL = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
# Of whole bodies.
_SECONDS = 30.0
_UNAUTHORIZED, _FORBIDDEN, _TIMEOUT, _TOO_LARGE = 401, 403, 408, 413


class Guard:
    """Lets requests through to an application.

    Args:
        app: the application.
        metrics: counts answers.
        max_body: bytes of a body.
        token: that clients send; None: everybody is let through.
        paths: of the application, for the metrics; all others are counted as one.
        local: the service listens for its own machine alone. Then, without a token, it answers by that machine's names
            alone: a page of another site may let its own name lead there, and the browser takes both for one site.
    """

    def __init__(
        self, app: App, metrics: Metrics, max_body: int, token: str | None, paths: tuple[str, ...], local: bool = False
    ) -> None:
        self._app, self._metrics, self._max_body, self._paths = app, metrics, max_body, paths
        self._local = local and token is None
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._refuse_strangers(scope)
            await self._app(scope, await self._whole(scope, receive), watched)
        except Refusal as refusal:
            await _answer(refusal, watched)
        finally:
            path = self._path(scope["path"])
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other"
            self._metrics.requests.labels(method, path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begin)

    def _refuse_strangers(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._local and not _LOCAL.fullmatch(headers.get(b"host", b"")):
            message = (
                "this service has no token, and answers only as localhost, 127.0.0.1 or [::1]; to ask it by another "
                "name, start it with a token (--token-file), or with another --host"
            )
            raise Refusal(_FORBIDDEN, message)
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2] != headers.get(b"host"):
            raise Refusal(_FORBIDDEN, "a page of another site may not ask this service")
        if self._expected is None or scope["path"] in OPEN:
            return
        if not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            message = "this service needs its token: send the header 'Authorization: Bearer TOKEN'"
            raise Refusal(_UNAUTHORIZED, message, headers={"WWW-Authenticate": "Bearer"})

    async def _whole(self, scope: Scope, receive: Receive) -> Receive:
        """What gives the whole body at once."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        too_large = Refusal(_TOO_LARGE, f"the body is larger than {self._max_body:,} bytes (--max-body); send less")
        if announced.isdigit() and int(announced) > self._max_body:
            raise too_large
        try:
            body = await asyncio.wait_for(self._body(receive, too_large), _SECONDS)
        except asyncio.TimeoutError:
            raise Refusal(_TIMEOUT, f"the body did not come within {_SECONDS:g} seconds; send it again") from None
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def given() -> Message:
            nonlocal whole
            message, whole = whole, None
            return await receive() if message is None else message

        return given

    async def _body(self, receive: Receive, too_large: Refusal) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise too_large
            more = message.get("more_body", False)
        return bytes(body)

    def _path(self, path: str) -> str:
        if path in self._paths:
            return path
        return "/items/{item}" if path.startswith("/items/") else "other"


async def _answer(refusal: Refusal, send: Send) -> None:
    headers = {"content-type": "application/json", **refusal.headers}
    sent = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": sent})
    await send({"type": "http.response.body", "body": json.dumps(refusal.body).encode()})
