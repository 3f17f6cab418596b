"""A transparent TCP proxy that takes the minutes of every C-STORE passing through it.

It stands between a sender and a receiver, forwards every byte unchanged, and reads along to say what really crossed the
wire and when: the witness of "nothing is sent twice in different bytes" and the door-keeper of crash windows ("the
archive has answered, the node does not know it yet").
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from tests.wiretap import Association, Event, Minutes, Moment, Reader, Store

CHUNK_BYTES = 1 << 18
CutPoint = Literal["data set", "before response", "after response"]


class _Cut(Exception):
    """The proxy was asked to cut this connection here."""


@dataclass
class _Cutting:
    """Cut the next `associations` associations at `point` of their `store`-th C-STORE."""

    store: int
    point: CutPoint
    associations: int


@dataclass
class RecordingProxy:
    """Forward `127.0.0.1:port` to `target` and record every C-STORE in between. Use as a context manager.

    `on_request_complete(store)` and `on_response(store)` are called before the last PDU of the request, or the
    response, is forwarded; an exception in one of them cuts the connection and is raised again when the context ends.
    Raises nothing about what passes: a stream that is not DICOM is forwarded all the same and named in `faults`.
    """

    target: tuple[str, int]
    listen_port: int = 0
    on_request_complete: Callable[[Store], None] | None = None
    on_response: Callable[[Store], None] | None = None
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._minutes = Minutes()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._running = threading.Event()
        self._running.set()
        self._hold: float | threading.Event | None = None
        self._cutting: _Cutting | None = None
        self._callback_error: BaseException | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.associations = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", self.listen_port), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closing.set()
        self._running.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for connection in self._sockets:
                _shut(connection)
        for thread in list(self._threads):
            thread.join(timeout=10)
        if self._callback_error is not None and error is None:
            raise self._callback_error

    def hold_response(self, until: float | threading.Event | None) -> None:
        """Delay every C-STORE response from now on: seconds, or until an event is set; None ends it for later ones."""
        self._hold = until

    def cut_after(self, store: int, point: CutPoint = "after response", *, associations: int = 1) -> None:
        """Cut the next `associations` associations at the `store`-th C-STORE (1-based) of each.

        "data set": half of its first piece has been forwarded; "before response": the receiver has answered and the
        sender will not learn it; "after response": the sender has the answer.
        """
        self._cutting = _Cutting(store, point, associations)

    def pause(self) -> None:
        """Forward nothing until `resume()`, in either direction; connections stay open and are accepted."""
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    def stores(self) -> list[Store]:
        """Every C-STORE seen so far, by the time its request began."""
        return self._minutes.all()

    def wait_for(self, condition: Callable[[list[Store]], bool], timeout: float) -> list[Store]:
        """The records as soon as they fulfil `condition`; TimeoutError after `timeout` seconds."""
        return self._minutes.wait_for(condition, timeout)

    def _spawn(self, function: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        with self._lock:
            self._threads = [*(running for running in self._threads if running.is_alive()), thread]
            thread.start()
        return thread

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.associations += 1
            self._spawn(self._serve, client, Association(self._minutes, self.associations))

    def _serve(self, client: socket.socket, association: Association) -> None:
        try:
            upstream = socket.create_connection(self.target, timeout=10)
        except OSError as error:
            self.faults.append(f"association {association.number}: target: {error}")
            _reset(client)
            return
        upstream.settimeout(None)
        pair = {client, upstream}
        with self._lock:
            self._sockets |= pair
        if self._closing.is_set():
            _shut(client)
            _shut(upstream)
        for connection in pair:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = self._spawn(self._pump, upstream, client, Reader(association, to_target=False))
        self._pump(client, upstream, Reader(association, to_target=True))
        back.join()
        with self._lock:
            self._sockets -= pair
        for connection in pair:
            _reset(connection) if association.is_cut else connection.close()

    def _pump(self, source: socket.socket, sink: socket.socket, reader: Reader) -> None:
        """Forward until the source ends; pass on an end as an end and a reset as a reset."""
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            while count := source.recv_into(buffer):
                self._forward(buffer[:count], sink, reader)
            sink.shutdown(socket.SHUT_WR)
        except (OSError, _Cut):
            reader.association.is_cut = True
            _shut(source)
            _shut(sink)

    def _forward(self, chunk: memoryview, sink: socket.socket, reader: Reader) -> None:
        moment = Moment.now()
        self._running.wait()
        was_read = reader.fault is None
        events = reader.feed(chunk, moment)
        if was_read and reader.fault:
            self.faults.append(reader.fault)
        sent = 0
        for event in events:
            before = max(sent, event.offset)
            sink.sendall(chunk[sent:before])
            self._act(event, reader.association)
            sent = max(before, event.end)
            if event.kind == "response":
                self._forward_response(event, chunk[before:sent], sink)
                self._cut_here(event, reader.association, "after response")
            else:
                sink.sendall(chunk[before:sent])
        sink.sendall(chunk[sent:])

    def _forward_response(self, event: Event, response: memoryview, sink: socket.socket) -> None:
        # Noted first, so that a sender that has its answer always finds it in the minutes.
        self._minutes.amend(event.store, response_forwarded=Moment.now())
        try:
            sink.sendall(response)
        except OSError:
            self._minutes.amend(event.store, response_forwarded=None)
            raise

    def _act(self, event: Event, association: Association) -> None:
        callback = {"request": self.on_request_complete, "response": self.on_response}.get(event.kind)
        if callback is not None:
            try:
                callback(self._minutes[event.store])
            except BaseException as error:  # a test's assertion: it must reach the test, not die with this thread
                self._callback_error = self._callback_error or error
                raise _Cut from error
        if event.kind == "response":
            self._wait_for_hold()
            self._cut_here(event, association, "before response")
        elif event.kind == "data set":
            self._cut_here(event, association, "data set")

    def _cut_here(self, event: Event, association: Association, point: CutPoint) -> None:
        cutting = self._cutting
        if cutting is None or cutting.point != point:
            return
        with self._lock:
            of_this = [store.number for store in self._minutes.all() if store.association == association.number]
            if cutting.associations == 0 or of_this.index(event.store) + 1 != cutting.store:
                return
            cutting.associations -= 1
        raise _Cut

    def _wait_for_hold(self) -> None:
        hold = self._hold  # another thread may end it at any moment
        if isinstance(hold, threading.Event):
            while not (hold.wait(0.05) or self._closing.is_set()):
                pass
        elif hold is not None:
            self._closing.wait(hold)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """Close with a TCP reset, as a killed process or a cut cable's firewall does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
