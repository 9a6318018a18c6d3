"""`fruits app`: a web page that tells what fruit is on a photo.

A photo is read into memory, looked at and forgotten: it is not written anywhere, and neither it nor its name is
logged. How much of that happens at once is bounded; whoever comes on top of it is asked to come again.
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
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
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
from fruits_assets.terminal import native_code_says_nothing

MAX_UPLOAD_BYTES = 32 * 1024**2
MAX_UPLOAD_S = 120.0  # of the largest photo, at 2 Mbit/s
# Photos that are arriving, waiting or looked at: together at most half a gigabyte.
MAX_PHOTOS = 16
# A worker may take 0.9 GB with the largest picture that is accepted.
MAX_WORKERS = 4
RETRY_AFTER_S = 2
_MAX_CONNECTIONS = 200

_PAGE = Path(__file__).with_name("page")
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_SECURITY: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
}


class RefusedError(Exception):
    """What is answered instead of a fruit."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        self.response = JSONResponse({"reason": reason}, status, headers)


class App:
    """The page, and what it asks: `create` makes it an ASGI application."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._n_photos = 0
        self._workers = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "photo")

    async def predict(self, request: Request) -> Response:
        """The bytes of an image file in the body; JSON of what is on it, or the reason why that is not told."""
        try:
            refuse_other_sites(request.headers)
            with self._place():
                content = await _body(request)
                return JSONResponse(await self._in_worker(self._answer, content))
        except RefusedError as refused:
            return refused.response
        except UnusableImageError as error:
            return JSONResponse({"reason": str(error)}, 422)
        except MemoryError:
            return _busy().response

    async def similar(self, request: Request) -> Response:
        """A small picture of a photo of the lake that the classifier knows."""
        try:
            jpeg = await self._in_worker(self._jpeg, request.path_params["sha256"])
        except LakeError:
            jpeg = None
        return Response(jpeg, media_type="image/jpeg") if jpeg else JSONResponse({"reason": "gone"}, 404)

    async def health(self, request: Request) -> Response:
        """Whether there is a classifier."""
        is_ready = bool(await self._in_worker(self._versions))
        return JSONResponse({"status": "ok" if is_ready else "no classifier"}, 200 if is_ready else 503)

    async def version(self, request: Request) -> Response:
        """Of this program, and of what it answers by."""
        versions = await self._in_worker(self._versions)
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

    async def _in_worker(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *arguments)

    def _answer(self, content: bytes) -> dict[str, Any]:
        try:
            published = self._live.now()
        except LakeError:
            # What the lake is called is for the log.
            raise RefusedError(503, "There is no classifier yet; the log of this server says why.") from None
        predictor = published.predictor
        answer = for_programs(predictor.predict(content), predictor.versions)
        answer["similar"] = [
            {"label": photo["label"], "picture": f"/similar/{photo['sha256']}.jpg"}
            for photo in answer["similar"]
            if photo["sha256"] in published.photos
        ]
        return answer

    def _jpeg(self, sha256: str) -> bytes | None:
        return self._live.now().photos.jpeg(sha256)

    def _versions(self) -> Mapping[str, int]:
        try:
            return self._live.now().predictor.versions
        except LakeError:
            return {}


def create(live: Live, names: Collection[str] = ()) -> ASGIApp:
    """The application.

    Args:
        names: under which it may be asked for, beside `localhost` and any address.
    """
    app = App(live)
    routes = [
        *(Route(path, _file(*file)) for path, file in _FILES.items()),
        Route("/predict", app.predict, methods=["POST"]),
        Route("/similar/{sha256}.jpg", app.similar),
        Route("/health", app.health),
        Route("/version", app.version),
    ]
    return _guarded(Starlette(routes=routes), names)
