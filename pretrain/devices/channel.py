"""What processes say to one another: lines of JSON over TCP, each with bytes behind it if need be.

Arrays that are trained travel by the collective operations of JAX; here it is a few words a step, and now and then all
numbers of a method. Each side says at least every few seconds that it lives, so one that was killed, cut off or
frozen is noticed by the others within :data:`SILENCE_SECONDS`, usually at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from mri_transfer.storage.files import to_json

HEARTBEAT_SECONDS, SILENCE_SECONDS = 5.0, 30.0
# A line that is longer comes from another program.
LONGEST_LINE = 1 << 20
MOST_BYTES = 1 << 36
PIECE = 1 << 20  # bytes that are sent at once; each has its own time limit

Message = dict[str, Any]


class Connection:
    """One end of a connection; several threads may send, one receives.

    Args:
        sock: connected.
        silence: seconds without a word after which the other side counts as gone.
    """

    def __init__(self, sock: socket.socket, silence: float = SILENCE_SECONDS):
        sock.settimeout(silence)
        # Words are short, and each is waited for.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock, self._file, self._lock = sock, sock.makefile("rb"), threading.Lock()

    def wait_for(self, silence: float) -> None:
        """Seconds without a word after which the other side counts as gone, from here on."""
        self._sock.settimeout(silence)

    def send(self, message: Message, payload: bytes = b"") -> None:
        """Send JSON values, and bytes.

        Raises:
            OSError: the other side is gone.
        """
        line = to_json({**message, "bytes": len(payload)}, indent=None).encode() + b"\n"
        with self._lock:
            self._sock.sendall(line)
            for start in range(0, len(payload), PIECE):
                self._sock.sendall(payload[start : start + PIECE])

    def receive(self, most: int = MOST_BYTES) -> tuple[Message, bytes]:
        """The next message, and the bytes that came with it, `most` of them.

        Raises:
            OSError: the other side is gone, says nothing any more, or is no program of ours.
        """
        line = self._file.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ConnectionError("closed")
        try:
            message = json.loads(line)
            size = int(message.pop("bytes"))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConnectionError("not a message of this program") from error
        if not 0 <= size <= most:
            raise ConnectionError("not a message of this program")
        payload = self._file.read(size) if size else b""
        if len(payload) != size:
            raise ConnectionError("closed")
        return message, payload

    def close(self) -> None:
        """Both directions; the other side sees the end."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class Watch:
    """Keeps connections alive from threads of its own, and hands over what comes in.

    Args:
        connections: by the number of the process at the other end.
        heard: given (process, message, payload) of every message but the beats, in a thread of that connection.
        lost: given (process) when the other end is gone, once for each.
        pulse: called twice a second; what it returns, if anything, is sent to all.
        beat: seconds between two signs of life.
    """

    def __init__(
        self,
        connections: dict[int, Connection],
        heard: Callable[[int, Message, bytes], None],
        lost: Callable[[int], None],
        pulse: Callable[[], Message | None] = lambda: None,
        beat: float = HEARTBEAT_SECONDS,
    ):
        self.connections, self._heard, self._lost, self._pulse, self._beat = (
            connections,
            heard,
            lost,
            pulse,
            beat,
        )
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, name="alive", daemon=True)]
        self._threads += [
            threading.Thread(target=self._listen, args=(process,), name=f"process {process}", daemon=True)
            for process in connections
        ]
        for thread in self._threads:
            thread.start()

    def _listen(self, process: int) -> None:
        while not self._over.is_set():
            try:
                message, payload = self.connections[process].receive()
            except OSError:
                break
            if message.get("say") != "alive":
                self._heard(process, message, payload)
        if not self._over.is_set():
            self._lost(process)

    def _live(self) -> None:
        waited = 0.0
        pause = min(0.5, self._beat)
        while not self._over.wait(pause):
            waited += pause
            said = self._pulse()
            if said is None and waited < self._beat:
                continue
            waited = 0.0
            for connection in self.connections.values():
                with contextlib.suppress(OSError):  # the thread that listens finds out, and tells
                    connection.send(said or {"say": "alive"})

    def send(self, message: Message, payload: bytes = b"") -> None:
        """To all; one that is gone is told of by `lost`."""
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                connection.send(message, payload)

    def release(self) -> None:
        """From here on nobody is missed."""
        self._over.set()

    def close(self) -> None:
        """End all connections."""
        self.release()
        for connection in self.connections.values():
            connection.close()


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """Named arrays as bytes."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpacked(payload: bytes) -> dict[str, np.ndarray]:
    """What :func:`packed` was given."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
