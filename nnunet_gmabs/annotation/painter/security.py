"""Who may talk to the painter: only the browser that got its one-time address, and only from the page itself.

Listening on 127.0.0.1 alone does not do it: every page that is open in the same browser can send requests there.
So a session needs a secret from the terminal; Host is checked against DNS rebinding, Origin against other pages'
requests, and the page may load nothing but its own files.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A page of our own instead of a redirect: a Strict cookie is withheld from redirects that another site began,
# such as a terminal that runs in the browser.
WELCOME = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/"><title>Painter</title>'
COME_IN = "Please open the address that `gmabs annotate` printed in its terminal (each address works once)."


class Door:
    """The secrets of one running server.

    Args:
        port: where the server listens.
        announce: told the next one-time address whenever one was used.
    """

    def __init__(self, port: int, announce: Callable[[str], None] = lambda address: None) -> None:
        self.port = port
        self.announce = announce
        self.cookie = f"gmabs_painter_{port}"  # browsers share cookies between the ports of a host
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._session = secrets.token_urlsafe(32)
        self._token = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """The address that lets one browser in, once."""
        return f"http://127.0.0.1:{self.port}/?token={self._token}"

    def exchange(self, token: str) -> bool:
        """Use the one-time token up; False if it is not the one."""
        if not _same(token, self._token):
            return False
        self._token = secrets.token_urlsafe(32)
        self.announce(self.address)
        return True

    def knows(self, headers: Headers) -> bool:
        """The request carries our session's cookie."""
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in cookies and _same(cookies[self.cookie].value, self._session)

    def from_here(self, method: str, headers: Headers) -> bool:
        """Host is ours, and what changes something comes from a page of ours."""
        origin = headers.get("origin")
        if headers.get("host") not in self.hosts:
            return False
        if origin is None:
            return method in ("GET", "HEAD")
        return origin in {f"http://{host}" for host in self.hosts}

    def let_in(self, response: Response) -> Response:
        """Give a response the session's cookie."""
        response.set_cookie(self.cookie, self._session, httponly=True, samesite="strict", path="/")
        return response


class Guard:
    """ASGI middleware: answers what may not pass by itself, and adds the headers to everything.

    Args:
        app: what is guarded.
        door: the secrets.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app = app
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        app = self._answer(scope) or self.app
        await app(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not self.door.from_here(scope["method"], headers):
            return PlainTextResponse("This request did not come from the painter's own page.", 403)
        query = scope["query_string"].decode("ascii", "replace")
        if scope["path"] == "/" and query.startswith("token="):
            if self.door.exchange(query.removeprefix("token=")):
                return self.door.let_in(HTMLResponse(WELCOME))
            if not self.door.knows(headers):
                return PlainTextResponse(f"This address was used already. {COME_IN}", 401)
        return None if self.door.knows(headers) else PlainTextResponse(COME_IN, 401)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("ascii"))
