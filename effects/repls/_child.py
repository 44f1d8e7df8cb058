"""The program of a session's sandboxed process.

    PYTHONHASHSEED=0 python -P -s -S -B -c PROGRAM FOLDER FOLDER SOCKET_FD PLAN

It is started in a session and an empty folder of its own, with no other variable set and nothing
open but a socket to the host. It puts itself into the sandbox that PLAN describes (see
`effects.sandbox._layers`), reads frames (see `_frames`), the first of which brings a file with the
context, does what they ask, one at a time, and ends with the host: when the socket is closed, and
at once when the host dies.

1. Standard library only. This file, its siblings and the modules of the sandbox are loaded as
   top-level modules from their two FOLDERs, which then leave `sys.path`. PROGRAM does no more:
   unlike a script, a module isn't compiled at each start.
2. The start is quick: what only a cell needs is loaded after `ready` was sent, while the host
   waits for a model.
3. A frame that doesn't fit into memory is still taken off the socket: both sides always agree
   on whose turn it is.
4. The sandbox is closed before `ready` is sent, and so before any code of a model is compiled.
   `ready` says what became of each layer; whether that is enough is the host's to decide.
"""

import json
import os
import select
import sys
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or __package__:
    from effects.repls import _fixed, _frames, _limits, _mapped, _session, _stops, _text
    from effects.repls._pace import CHILD_SPIN_S
    from effects.sandbox import _kernel, _layers
else:
    import _fixed
    import _frames
    import _kernel
    import _layers
    import _limits
    import _mapped
    import _session
    import _stops
    import _text
    from _pace import CHILD_SPIN_S

PROGRAM = "import sys; sys.path[:0] = sys.argv[1:3]; import _child; _child.run()"
READ_BYTES = 1 << 16
"""What is read at once; also the size from which a frame gets a buffer of its own."""
EXIT_NOT_STARTED = 70
# Kept here, so that code which puts something else in their place doesn't reach the runtime.
_read, _readv, _write, _exit = os.read, os.readv, os.write, os._exit
MAX_ARENAS = 2
"""Each takes 64 MiB of address space: threads would use up the limit unseen."""


class Wire:
    """The socket to the host: frames. The process ends when the host is gone.

    The socket doesn't block, so that looking for a frame before sleeping costs one system call.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""
        self._spins = False
        """Whether the host said that its next frame comes soon."""
        self._mark = bytes(_frames.MARK_BYTES)
        """That of the host's last frame, which the answer must bear."""
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._in, self._out = _polled(fd, select.POLLIN), _polled(fd, select.POLLOUT)
        # A forked copy must not keep the socket open, nor speak on it.
        os.register_at_fork(after_in_child=self._forget)

    def read(self) -> dict[str, Any]:
        """The next frame."""
        if self._spins and not self._rest:
            self._rest = self._spin()
        while len(self._rest) < _frames.HEADER_BYTES:
            self._rest += self._receive(READ_BYTES)
        start = _frames.HEADER_BYTES
        size = int.from_bytes(self._rest[: _frames.LENGTH_BYTES], "big")
        self._mark = self._rest[_frames.LENGTH_BYTES : start]
        end = start + size
        if size > READ_BYTES and end > len(self._rest):
            payload: bytes | bytearray = self._read_large(size)
        else:
            while len(self._rest) < end:
                self._rest += self._receive(READ_BYTES)
            payload, self._rest = self._rest[start:end], self._rest[end:]
        message: dict[str, Any] = _frames.decode(payload)
        self._spins = message.get("spin", False)
        return message

    def read_first(self) -> tuple[dict[str, Any], int]:
        """The first frame, and the descriptor that comes with it."""
        line: Any = __import__("_socket").socket(fileno=self._fd)
        self._in()
        self._rest, extra, _, _ = line.recvmsg(READ_BYTES, 64)
        line.detach()
        if not self._rest:
            _exit(0)
        return self.read(), int.from_bytes(extra[0][2][:4], sys.byteorder)

    def write(self, message: dict[str, Any]) -> None:
        """Answer the last frame; what makes the answer too long for the host is left out."""
        frame = _frames.encode(message, self._mark)
        if len(frame) > _frames.MAX_FRAME_BYTES:
            frame = _frames.encode(fitting(message), self._mark)
        self._send(frame)

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a frame and wait for the next one."""
        frame = _frames.encode(message, self._mark)
        if len(frame) > _frames.MAX_FRAME_BYTES:
            raise ValueError(
                f"the prompts of this call have {len(frame)} bytes together, more than the "
                f"{_frames.MAX_FRAME_BYTES} that can be sent: ask in smaller batches"
            )
        self._send(frame)
        return self.read()

    def _send(self, frame: bytes) -> None:
        try:
            sent = self._sent(frame)
            with memoryview(frame) as view:
                while sent < len(frame):
                    self._out()
                    sent += self._sent(view[sent:])
        except (BrokenPipeError, ConnectionResetError):
            _exit(0)

    def _sent(self, data: "bytes | memoryview") -> int:
        try:
            return _write(self._fd, data)
        except BlockingIOError:
            return 0

    def _read_large(self, size: int) -> bytearray:
        """A payload of which only a part has arrived, without copies of the rest."""
        got, self._rest = self._rest[_frames.HEADER_BYTES :], b""
        try:
            payload = bytearray(size)
        except MemoryError:
            left = size - len(got)
            while left:
                left -= len(self._receive(min(left, READ_BYTES)))
            raise
        payload[: len(got)] = got
        with memoryview(payload) as view:
            filled = len(got)
            while filled < size:
                try:
                    count = _readv(self._fd, [view[filled:]])
                except BlockingIOError:
                    self._in()
                    continue
                if not count:
                    _exit(0)
                filled += count
        return payload

    def _spin(self) -> bytes:
        """What comes within a moment; nothing if nothing does."""
        end_s = perf_counter() + CHILD_SPIN_S
        fd = self._fd
        while perf_counter() < end_s:
            try:
                data = _read(fd, READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                _exit(0)
            return data
        return b""

    def _receive(self, size: int) -> bytes:
        while True:
            self._in()
            try:
                data = _read(self._fd, size)
            except BlockingIOError:  # code has read it: it harms but its own cell
                continue
            if not data:
                _exit(0)
            return data

    def _forget(self) -> None:
        os.close(self._fd)
        self._fd = -1


def _polled(fd: int, what: int) -> Callable[[], Any]:
    """What sleeps until the descriptor can be read, or written."""
    waiting = select.poll()
    waiting.register(fd, what)
    return waiting.poll


def run() -> NoReturn:
    """What PROGRAM calls."""
    del sys.path[:2]
    layers = _layers.Layers(json.loads(sys.argv[4]))
    layers.enter()
    main(Wire(int(sys.argv[3])), layers)


def main(wire: Wire, layers: "_layers.Layers") -> NoReturn:
    """Start a session and serve it until the host is gone."""
    try:
        init, context_fd = wire.read_first()
        guard = _limits.Guard(init["cell_timeout_s"])
        calendar = _fixed.install(init["seed"]) if init["seed"] else None
        asking = calendar if init["asks_clock"] else None
        os.environ.clear()  # the interpreter itself sets LC_CTYPE in a C locale
        sys.argv[:] = sys.orig_argv[:] = [""]
        view = view_of(context_fd, init["context"], guard)
        stops = _stops.Stops(wire.ask)
        session = _session.Session(view, guard, stops.ask, **init["session"], calendar=asking)
        _kernel.use_few_arenas(MAX_ARENAS)
        layers.lock(lambda tasks: _limits.limit_process(init["scratch_bytes"], tasks))
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
        wire.write({"t": "failed", "message": told})
        os._exit(EXIT_NOT_STARTED)
    wire.write({"t": "ready", "layers": layers.found})
    prepare()
    layout = init["context"]
    room_bytes = _mapped.room_bytes(layout["chars"], layout["width"])
    guard.limit_memory(layers.used_bytes(), init["memory_bytes"], room_bytes)
    while True:
        frame = wire.read()
        if frame["t"] == "run":
            stops.begin_cell()
            result = session.run(frame["code"], frame["watch"], frame.get("history"))
            wire.write({"t": "end", **result})
        else:
            wire.write({"t": "value", **session.read(frame["name"])})


def view_of(fd: int, layout: dict[str, int], guard: "_limits.Guard") -> "_text.TextView":
    """The context in a file (see `_sealed`), which is closed here. A long one is mapped."""
    chars, width, shape_bytes = layout["chars"], layout["width"], layout["shape_bytes"]
    end = chars * width
    if chars < _mapped.LAZY_CHARS:
        data: Any = os.pread(fd, end, 0)
        text: Any = _mapped.decoded(data, width)
    else:
        mmap: Any = __import__("mmap")
        data = memoryview(mmap.mmap(fd, end, access=mmap.ACCESS_READ))
        text = _mapped.MappedText(data, width, guard.with_room)
    shape = json.loads(os.pread(fd, shape_bytes, end))
    os.close(fd)
    spans = [(start, end) for start, end in shape["spans"]]
    return _text.TextView(text, spans, shape["kind"], shape["names"])


def prepare() -> None:
    """Load what cells will need."""
    __import__("_ast")
    __import__("traceback")  # and linecache with it


def fitting(message: dict[str, Any]) -> dict[str, Any]:
    """What is sent in place of an answer that is too long for the host."""
    if message["t"] == "end":
        # In JSON a character takes 6 bytes at most.
        final = message["final"] and {**message["final"], "data": None}
        output = message["out"][: _frames.MAX_FRAME_BYTES // 8]
        return {**message, "out": output, "watched": {}, "final": final}
    problem = "it is too long to hand over: make it shorter"
    return {"t": "value", "text": None, "error": problem, "names": []}
