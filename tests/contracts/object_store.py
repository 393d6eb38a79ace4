"""An object store for tests: moto's S3 in this process, behind a proxy that injects faults."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import logging
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

VARIABLES = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
FAULTS = ("unavailable", "reset", "stall", "cut", "lost")
BUCKET = "bucket"


@contextlib.contextmanager
def s3() -> Iterator[int]:
    """Serve S3 with one empty bucket; yields the port on this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        port = int(server.get_host_and_port()[1])
        _ask(port, "PUT", f"/{BUCKET}", {}, b"")
        yield port
    finally:
        server.stop()


class FaultyWay(socketserver.ThreadingTCPServer):
    """Passes HTTP requests on, one a connection, and lets some of them meet a fault.

    Attributes:
        fault: One of ``FAULTS``, or ``slow``, or nothing.
        every: One of so many requests meets the fault; 1 for all.
        met: How many requests met it.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Way)
        self.behind, self.fault, self.every, self.met = behind, "", 1, 0
        self.stop = threading.Event()
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def set(self, fault: str, every: int = 1) -> None:
        """Let every n-th request from now on meet a fault."""
        self.fault, self.every, self.met, self._numbers = fault, every, 0, itertools.count(1)

    def close(self) -> None:
        """Stop serving."""
        self.stop.set()
        self.shutdown()
        self.server_close()

    def next_fault(self) -> str:
        """Return the fault of the next request, or an empty string."""
        hit = bool(self.fault) and next(self._numbers) % self.every == 0
        self.met += hit
        return self.fault if hit else ""


class _Way(socketserver.StreamRequestHandler):
    server: FaultyWay

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self._pass_on()

    def _pass_on(self) -> None:
        asked = self.rfile.readline().decode()
        if not asked:
            return  # a client that was killed before it asked
        method, path, _ = asked.split(" ", 2)
        headers = dict(http.client.parse_headers(self.rfile).items())
        body = self.rfile.read(int(headers.get("content-length", 0)))
        fault = self.server.next_fault()
        if fault == "unavailable":
            self._say(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        elif fault == "stall":
            self.server.stop.wait(2.0)  # longer than a test's patience with one answer
        elif fault == "reset":
            self._reset()
        else:
            answer = _ask(self.server.behind, method, path, headers, body)
            if fault == "lost":
                self._reset()
            elif fault == "cut":
                self._say(answer[: max(1, len(answer) * 2 // 3)])
            elif fault == "slow":
                for start in range(0, len(answer), 200):
                    self._say(answer[start : start + 200])
                    self.server.stop.wait(0.001)
            else:
                self._say(answer)

    def _say(self, answer: bytes) -> None:
        self.wfile.write(answer)
        self.wfile.flush()

    def _reset(self) -> None:
        """Close with a reset, so that the client sees a broken connection and not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _ask(port: int, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Send one request and return the whole answer as it would come over a connection that is closed after it."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as asked:
        asked.request(method, path, body, {**headers, "connection": "close"})
        found = asked.getresponse()
        content = found.read()
    kept = [f"{name}: {value}" for name, value in found.getheaders() if name.lower() not in _OWN]
    length = found.getheader("content-length") if method == "HEAD" else str(len(content))
    lines = [
        f"HTTP/1.1 {found.status} {found.reason}",
        *kept,
        f"content-length: {length}",
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + content


_OWN = {"content-length", "connection", "transfer-encoding"}
