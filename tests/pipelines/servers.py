"""An HTTP server on loopback, and wrong ways for it to answer."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


def send(request: BaseHTTPRequestHandler, body: bytes, length: int = -1, **headers: str) -> None:
    """An ordinary answer; length: what the header says instead of the body's length."""
    request.send_response(200)
    request.send_header("Content-Length", str(len(body) if length < 0 else length))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def silent(request: BaseHTTPRequestHandler, body: bytes) -> None:
    time.sleep(4)


def trickling(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, b"", len(body))
    for number in range(20):  # one byte a fifth of a second: never idle
        request.wfile.write(body[number : number + 1])
        time.sleep(0.2)


def trickling_headers(request: BaseHTTPRequestHandler, body: bytes) -> None:
    for number in range(20):
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" if not number else b"x")
        request.wfile.flush()
        time.sleep(0.2)


def stopping(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body[:10], len(body))
    request.wfile.flush()
    time.sleep(4)


def endless(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_response(200)
    request.end_headers()  # without a length: until the connection closes
    for _ in range(1 << 14):
        request.wfile.write(bytes(1 << 16))


def lying(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body[:-1] + bytes([body[-1] ^ 255]))


def longer(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body + bytes(1 << 27))


def short(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body[:-1])


def cut(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body[:-1], len(body))


def resetting(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, body[:100], len(body))
    linger = struct.pack("ii", 1, 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.connection.close()


def compressed(request: BaseHTTPRequestHandler, body: bytes) -> None:
    send(request, gzip.compress(body), Content_Encoding="gzip")


def failing(request: BaseHTTPRequestHandler, body: bytes) -> None:
    request.send_error(503)


class Server(ThreadingHTTPServer):
    """Serves a folder, and answers for files with `suffix` as `answer` does.

    served: names of the files that were asked for; times: how often `answer` is used.
    """

    daemon_threads = True

    def __init__(self, folder: Path, suffix: str = "", answer: Answer = send) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.suffix, self.answer = folder, suffix, answer
        self.served: list[str] = []
        self.times = 1 << 30

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Clients leave early here."""


class Handler(BaseHTTPRequestHandler):
    """One request to a `Server`."""

    server: Server

    def do_GET(self) -> None:
        server, path = self.server, self.server.folder / self.path.lstrip("/")
        server.served.append(path.name)
        if not path.is_file():
            return self.send_error(404)
        own = bool(server.suffix) and path.name.endswith(server.suffix) and server.times > 0
        if own:
            server.times -= 1
        (server.answer if own else send)(self, path.read_bytes())
        return None

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def serving(*arguments: object) -> Iterator[Server]:
    with Server(*arguments) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def redirect(target: Callable[[], str]) -> Answer:
    def answer(request: BaseHTTPRequestHandler, body: bytes) -> None:
        request.send_response(302)
        request.send_header("Location", target() + request.path)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer
