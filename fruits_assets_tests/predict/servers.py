"""`fruits app` as a process of its own, and what programs ask it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    """Of the server: status, headers, and the body, which is mostly JSON."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """One that is running; `log` has its standard error, `scratch` its temporary files."""

    port: int
    pid: int
    log: Path
    scratch: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Get something, or post a body."""
        connection = self.connection()
        try:
            connection.request("GET" if body is None else "POST", path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()


@contextmanager
def serving(lake: Path, folder: Path) -> Iterator[Server]:
    """A server over a lake, whose log and temporary files are in a folder."""
    scratch, log = folder / "scratch", folder / "app.log"
    scratch.mkdir()
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fruits_assets.command_line", "app", "--port", "0"],
            env={**os.environ, "FRUITS_LAKE": str(lake), "TMPDIR": str(scratch), "PYTHONPATH": str(PROJECT)},
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
    assert process.stdout
    try:
        said = process.stdout.readline()
        assert said.startswith("What fruit is this? http://127.0.0.1:"), log.read_text()
        yield Server(int(said.rsplit(":", 1)[1]), process.pid, log, scratch)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
