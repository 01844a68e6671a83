"""Whom the page answers, and what it lets a browser load: an ASGI middleware around it."""

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

# Gradio evaluates the templates of its components, and writes styles into elements.
_CONTENT = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _CONTENT.encode()),
    (b"referrer-policy", b"no-referrer"),  # it tells no one where it was
    (b"x-content-type-options", b"nosniff"),
)
# By which gradio would fetch from other servers.
_ELSEWHERE = ("/file=http:", "/file=https:", "/file/http:", "/file/https:", "/proxy=")


class Policy:
    """Refuses what other pages send, and adds to each answer what the browser may load.

    A page of elsewhere that a browser has open may send files to this computer, and a name of
    elsewhere may be made to mean it (DNS rebinding).

    Args:
        app: the ASGI application.
        hosts: names that requests may address; None: any, as where others are let in.
    """

    def __init__(self, app: Callable, hosts: Iterable[str] | None = None):
        self.app = app
        self.hosts = None if hosts is None else {host.strip("[]").lower() for host in hosts}

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable, send: Callable
    ) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif self._is_foreign(scope) and scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": [*_HEADERS]})
            await send({"type": "http.response.body", "body": b"Only for the page itself."})
        elif self._is_foreign(scope):
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, self._sending(send))

    def _is_foreign(self, scope):
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        address = headers.get(b"host", "")
        origin = headers.get(b"origin")
        try:
            host = urlsplit(f"//{address}").hostname or ""
            netloc = None if origin is None else urlsplit(origin).netloc.lower()
        except ValueError:  # brackets that are left open
            return True
        own = self.hosts is None or host in self.hosts
        same = origin is None or netloc == address.lower() != ""
        elsewhere = any(part in scope["path"].lower() for part in _ELSEWHERE)
        return not own or not same or elsewhere

    @staticmethod
    def _sending(send):
        names = {name for name, _ in _HEADERS}

        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                kept = [(n, v) for n, v in message.get("headers", ()) if n.lower() not in names]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        return send_with_policy
