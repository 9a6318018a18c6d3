"""`fruits app`, asked by programs: what it answers, refuses, keeps and takes up."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from starlette.types import Message

from fruits_assets.definitions import SAMPLE_IMAGES
from fruits_assets.predict import web
from fruits_assets.predict.answer import for_programs
from fruits_assets.predict.live import Live
from fruits_assets.predict.predictor import Predictor
from fruits_assets.resources.erasure import erase
from fruits_assets.resources.lake_reader import LakeReader
from fruits_assets_tests.graph import Graph
from fruits_assets_tests.photos.photo_files import PERSONAL
from fruits_assets_tests.predict.classifiers import a_reference, publish_relabelled
from fruits_assets_tests.predict.servers import Server, serving

pytestmark = pytest.mark.slow

BANANA = SAMPLE_IMAGES / "Banana" / "r_3_100.jpg"


@pytest.fixture(scope="module")
def server(classified: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(classified.lake_root, tmp_path_factory.mktemp("app")) as running:
        yield running


def wide_png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_posted_photo_gets_what_the_predictor_says_without_the_paths_of_others(
    classified: Graph, server: Server
) -> None:
    content = (classified.source / a_reference(classified, "Banana")).read_bytes()
    predictor = Predictor.of(LakeReader(str(classified.lake_root)))
    expected = for_programs(predictor.predict(content), predictor.versions)
    answer = server.ask("/predict", content).json
    similar, of_lake = answer.pop("similar"), expected.pop("similar")
    assert answer == json.loads(json.dumps(expected))
    assert [photo["label"] for photo in similar] == [photo["label"] for photo in of_lake]
    assert "Banana/" not in json.dumps(similar)
    for photo in similar:
        picture = server.ask(photo["picture"])
        assert picture.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(picture.body)) as image:
            assert max(image.size) <= 240
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_pictures_of_photos_are_of_their_pixels(classified: Graph, server: Server) -> None:
    content = (classified.source / a_reference(classified, "Kaki")).read_bytes()
    first = server.ask("/predict", content).json["similar"][0]
    shown = np.asarray(Image.open(io.BytesIO(server.ask(first["picture"]).body)), np.float64)
    original = np.asarray(Image.open(io.BytesIO(content)), np.float64)
    assert shown.shape == original.shape
    assert np.abs(shown - original).mean() < 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file (0 bytes)"),
        (b"<script>alert(1)</script>", "not an image (25 bytes): not JPEG"),
        (BANANA.read_bytes()[:900], "its structure is damaged: its end marker is missing"),
        (wide_png(60_000, 1_000), "60,000 x 1,000 pixels, more than 51,000,000 in all"),
    ],
)
def test_a_bad_file_gets_the_reason_of_the_quarantine(server: Server, content: bytes, reason: str) -> None:
    answer = server.ask("/predict", content)
    assert answer.status == 422
    assert reason in answer.json["reason"]


def test_a_declared_size_beyond_the_limit_is_refused_before_anything_is_sent(server: Server) -> None:
    connection = server.connection()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(web.MAX_UPLOAD_BYTES + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_undeclared_size_is_refused_as_soon_as_it_is_beyond_the_limit(server: Server) -> None:
    part = bytes(1024**2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(web.MAX_UPLOAD_BYTES // len(part) + 1):
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        # It has not ended, and would go on.
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_the_largest_upload_is_taken(server: Server) -> None:
    padded = BANANA.read_bytes().ljust(web.MAX_UPLOAD_BYTES, b"\0")
    answer = server.ask("/predict", padded)
    assert answer.status == 200
    assert answer.json["label"] == server.ask("/predict", BANANA.read_bytes()).json["label"]


def test_an_upload_is_neither_written_nor_logged(server: Server) -> None:
    """Looked at when it is half there: all that the process has open, and its folder of temporary files."""
    before = server.log.read_bytes()
    half = bytes(10 * 1024**2)
    connection = server.connection()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(2 * len(half)))
    connection.endheaders(half)
    files = [os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir()]
    assert [file for file in files if "(deleted)" in file or str(server.scratch) in file] == []
    assert list(server.scratch.iterdir()) == []
    connection.send(half)
    assert connection.getresponse().status == 422
    connection.close()
    assert list(server.scratch.iterdir()) == []
    assert server.log.read_bytes() == before


@pytest.mark.parametrize("name", sorted(PERSONAL))
def test_nothing_of_a_photos_metadata_is_in_the_answer(server: Server, name: str) -> None:
    answer = server.ask("/predict", PERSONAL[name]())
    assert answer.status in (200, 422)
    assert b"JaneDoe" not in answer.body


def test_who_comes_when_all_places_are_taken_is_asked_to_come_again(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(web.MAX_PHOTOS):
            connection = server.connection()
            stack.callback(connection.close)
            connection.putrequest("POST", "/predict")
            connection.putheader("Content-Length", "1000")
            connection.endheaders(b"1")
        answer = eventually(lambda: server.ask("/predict", BANANA.read_bytes()), lambda a: a.status == 503)
        assert answer.headers["retry-after"] == str(web.RETRY_AFTER_S)
        assert answer.json == {"reason": "busy, ask again"}
        assert server.ask("/health").status == 200
    eventually(lambda: server.ask("/predict", BANANA.read_bytes()), lambda a: a.status == 200)


def test_a_photo_that_does_not_arrive_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(web, "MAX_UPLOAD_S", 0.05)
    app = web.create(Live(LakeReader(str(tmp_path))))
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(1000)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    asyncio.run(cast("Coroutine[None, None, None]", app(scope, receive, send)))
    assert sent[0]["status"] == 408


def test_eight_clients_at_once_get_what_each_would_get_alone(classified: Graph, server: Server) -> None:
    photos = [
        (classified.source / path).read_bytes() for path in classified.rows("raw_images")["path"].to_pylist()
    ]
    alone = [server.ask("/predict", photo).json for photo in photos]
    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(lambda photo: server.ask("/predict", photo), photos * 3))
    assert [answer.status for answer in together] == [200] * len(together)
    assert [answer.json for answer in together] == alone * 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_post(server: Server, headers: dict[str, str]) -> None:
    assert server.ask("/predict", BANANA.read_bytes(), headers).status == 403


def test_its_own_page_can_post_and_so_can_a_program(server: Server) -> None:
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert server.ask("/predict", BANANA.read_bytes(), own).status == 200
    assert server.ask("/predict", BANANA.read_bytes()).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("elsewhere.example:8000", 421),
        ("", 421),
        ("localhost", 200),
        ("192.168.1.7:8000", 200),
        ("[::1]:8000", 200),
    ],
)
def test_a_name_that_somebody_else_lets_lead_here_is_refused(server: Server, host: str, status: int) -> None:
    assert server.ask("/version", headers={"Host": host}).status == status


def test_every_answer_keeps_a_browser_from_what_the_page_does_not_do(server: Server) -> None:
    answers = [
        *(server.ask(path) for path in ("/", "/page.js", "/page.css", "/icon.svg", "/health", "/version")),
        *(server.ask(path) for path in ("/none", "/similar/0.jpg", "/predict")),
        server.ask("/predict", BANANA.read_bytes()),
        server.ask("/predict", b"", {"Origin": "null"}),
        server.ask("/", headers={"Host": "elsewhere.example"}),
    ]
    assert [answer.status for answer in answers] == [200] * 6 + [404, 404, 405, 200, 403, 421]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    page = answers[0].body.decode()
    assert f'data-max-bytes="{web.MAX_UPLOAD_BYTES}"' in page
    for inline in ("<style", " style=", " onclick", "javascript:", "//"):
        assert inline not in page


def eventually(ask: Any, is_so: Any) -> Any:
    """The first answer that is as it should become."""
    deadline = time.monotonic() + 60
    while not is_so(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


def test_what_is_published_later_is_taken_up_and_what_is_erased_is_not_shown(
    classified: Graph, tmp_path: Path
) -> None:
    graph = classified.copy(tmp_path)
    photo = a_reference(graph, "Banana")
    content = (graph.source / photo).read_bytes()
    later = graph.lake_root / "fruit_classifier"
    later.rename(tmp_path / "later")
    with serving(graph.lake_root, tmp_path) as server:
        answer = server.ask("/predict", content)
        assert answer.status == 503
        assert str(tmp_path) not in answer.body.decode()
        assert server.ask("/health").status == 503
        assert server.ask("/version").json["versions"] == {}
        assert "Materialize fruit_classifier" in server.log.read_text()

        (tmp_path / "later").rename(later)
        eventually(lambda: server.ask("/health"), lambda a: a.status == 200)
        first = server.ask("/predict", content).json
        assert first["versions"]["fruit_classifier"] == 0
        picture = first["similar"][0]["picture"]
        assert server.ask(picture).status == 200

        publish_relabelled(graph, {first["label"]: "Plantain"})
        second = eventually(
            lambda: server.ask("/predict", content).json, lambda a: a["versions"]["fruit_classifier"] == 1
        )
        assert second["label"] == "Plantain"
        assert server.ask("/version").json["versions"] == second["versions"]

        erase(graph.lake, [photo])
        third = eventually(lambda: server.ask("/predict", content).json, lambda a: a["distance"] > 0.01)
        assert picture not in [similar["picture"] for similar in third["similar"]]
        assert server.ask(picture).status == 404
        assert photo not in server.log.read_text()
