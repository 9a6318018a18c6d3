"""`fruits app`: a web page that tells what fruit is on a photo.

A photo is read into memory, looked at and forgotten: it is not written anywhere, and nothing of it is logged.
How much of that happens at once is bounded; whoever comes on top of it is asked to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fruits_assets.photos.formats import UnusableImageError
from fruits_assets.predict.answer import for_programs
from fruits_assets.predict.live import Live
from fruits_assets.resources.files import LakeError
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets.settings import LakeSettings, from_environment

MAX_UPLOAD_BYTES = 32 * 1024**2
MAX_UPLOAD_S = 120.0  # of the largest photo, at 2 Mbit/s
# Photos that are arriving, waiting or looked at: together at most half a gigabyte.
MAX_PHOTOS = 16
# Each may take some hundred megabytes with the largest picture that is accepted.
MAX_WORKERS = 4
RETRY_AFTER_S = 2
_MAX_CONNECTIONS = 200

_PAGE = Path(__file__).with_name("page")
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class App:
    """What is answered to whom asks for which path."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._n_photos = 0
        self._workers = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "photo")

    async def predict(self, request: Request) -> Response:
        """The bytes of an image file are the body; what is on it is the answer."""
        refuse_other_sites(request.headers)
        with self._place():
            content = await _body(request)
            answer = asyncio.get_running_loop().run_in_executor(self._workers, self._answer, content)
            del content
            return JSONResponse(await answer)

    async def similar(self, request: Request) -> Response:
        """A small picture of a photo of the lake that the classifier knows."""
        jpeg = await asyncio.to_thread(self._jpeg, request.path_params["sha256"])
        if jpeg is None:
            raise HTTPException(404, "there is no such photo, or no longer")
        return Response(jpeg, media_type="image/jpeg")

    async def health(self, request: Request) -> Response:
        """Whether there is a classifier."""
        is_ready = bool(await asyncio.to_thread(self._versions))
        return JSONResponse({"status": "ok" if is_ready else "no classifier"}, 200 if is_ready else 503)

    async def version(self, request: Request) -> Response:
        """Of this program, and of what it answers by."""
        versions = await asyncio.to_thread(self._versions)
        return JSONResponse({"fruits_assets": metadata.version("fruits-assets"), "versions": versions})

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places that there are for photos."""
        if self._n_photos >= MAX_PHOTOS:
            raise _busy()
        self._n_photos += 1
        try:
            yield
        finally:
            self._n_photos -= 1

    def _answer(self, content: bytes) -> dict[str, Any]:
        try:
            published = self._live.now()
            predictor = published.predictor
            answer = for_programs(predictor.predict(content), predictor.versions)
        except LakeError:
            # What the lake is called is for the log only.
            raise HTTPException(503, "there is no classifier yet; the log of this server says why") from None
        except UnusableImageError as error:
            raise HTTPException(422, str(error)) from None
        except MemoryError:
            raise _busy() from None
        # The paths of other people's photos are nobody's business.
        answer["similar"] = [
            {"label": photo["label"], "picture": f"/similar/{photo['sha256']}.jpg"}
            for photo in answer["similar"]
            if photo["sha256"] in published.photos
        ]
        return answer

    def _jpeg(self, sha256: str) -> bytes | None:
        try:
            return self._live.now().photos.jpeg(sha256)
        except LakeError:
            return None

    def _versions(self) -> Mapping[str, int]:
        try:
            return self._live.now().predictor.versions
        except LakeError:
            return {}


def create(live: Live, names: Collection[str] = ()) -> ASGIApp:
    """The application.

    Args:
        names: of hosts under which it is reached, beside `localhost` and any address.
    """
    app = App(live)
    routes = [
        *(Route(path, _file(*file)) for path, file in _FILES.items()),
        Route("/predict", app.predict, methods=["POST"]),
        Route("/similar/{sha256}.jpg", app.similar),
        Route("/health", app.health),
        Route("/version", app.version),
    ]
    return _guarded(Starlette(routes=routes, exception_handlers={HTTPException: _as_json}), names)


def refuse_other_sites(headers: Headers) -> None:
    """Let no page of another site post here: a browser says where a request is from, other programs do not.

    Raises:
        HTTPException: it is from elsewhere.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != headers.get("host")):
        raise HTTPException(403, "a page of another site may not send photos here")


async def _body(request: Request) -> bytes:
    """The whole body, refused as soon as it is too large or too slow.

    Raises:
        HTTPException: it is.
    """
    too_large = HTTPException(413, f"more than {MAX_UPLOAD_BYTES // 1024**2} MB")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_UPLOAD_BYTES:
        raise too_large
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(MAX_UPLOAD_S):
            async for part in request.stream():
                n_bytes += len(part)
                if n_bytes > MAX_UPLOAD_BYTES:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the photo has not arrived within {MAX_UPLOAD_S:.0f} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the photo has not arrived as a whole") from None
    return b"".join(parts)


def _busy() -> HTTPException:
    return HTTPException(503, "busy, ask again", {"Retry-After": str(RETRY_AFTER_S)})


def _as_json(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"reason": error.detail}, error.status_code, error.headers)


def _file(name: str, media_type: str) -> Any:
    content = (_PAGE / name).read_bytes()

    async def page(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return page


def _guarded(app: ASGIApp, names: Collection[str]) -> ASGIApp:
    """Headers that keep a browser from doing what the page does not do, on whatever is answered."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] == "http" and not _is_own(Headers(scope=scope).get("host", ""), names):
            refusal = JSONResponse({"reason": "not a name of this server; see fruits app --help"}, 421)
            await refusal(scope, receive, send_with_headers)
        else:
            await app(scope, receive, send_with_headers)

    return guarded


def _is_own(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is ours: a site can have its own name lead here, but not an address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", *names):
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def main(arguments: Sequence[str]) -> int:
    """Serve until interrupted; returns the exit status."""
    parser = argparse.ArgumentParser("fruits app", description="A page that tells what fruit is on a photo.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument(
        "--name", action="append", default=[], help="a host name under which it is reached, if not an address"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listening = socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    live = Live(LakeReader(from_environment(LakeSettings).lake))
    with suppress(LakeError):  # which is in the log by then; the next run may mend it
        live.now()
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"What fruit is this? http://{host}:{listening.getsockname()[1]}", flush=True)
    config = uvicorn.Config(
        create(live, options.name),
        access_log=False,  # who asks is not kept
        log_level="warning",
        server_header=False,
        ws="none",
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        return 130
    return 0
