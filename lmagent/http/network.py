"""The blocking network below httpcore2: sockets whose every wait ends with the call's clocks.

httpcore2 writes and reads HTTP. It opens connections, sends and receives only through the `NetworkBackend` and
`NetworkStream` given to it, and these are ours for three reasons:

- A time-out of httpcore2 holds for one read. Here a read may take what the call's clocks leave, so that a server that
  sends a byte a second ends with the call's deadline.
- h11, which reads HTTP/1.1 for httpcore2, takes 8 us for a chunk of a chunked body, and servers send each event as a
  chunk. `ChunkJoiner` makes one of the many that came together.
- A new connection tries the addresses of a name in turns of 0.25 s (happy eyeballs, RFC 8305).

`ResponseSplitter` hands on no byte past the end of a head or of a body with a known end. So the joiner begins at the
first chunk, and a connection with bytes left over is never used again: they would be taken for the next response.
"""

from __future__ import annotations

import errno
import re
import select
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from itertools import chain, zip_longest
from time import monotonic
from typing import Any, TypeAlias, TypeVar

from httpcore2 import SOCKET_OPTION, NetworkBackend, NetworkStream

from lmagent.core.async_bridge import POLL_INTERVAL
from lmagent.http.base import Clocks, is_done, poll_until

__all__ = [
    "STAGGER",
    "Addresses",
    "ChunkJoiner",
    "Network",
    "ResponseSplitter",
    "SocketStream",
    "addresses_of",
    "readable",
]

STAGGER = 0.25
"""Seconds until the next address of a name is tried beside the one that has not answered."""
T = TypeVar("T")
Addresses: TypeAlias = "list[tuple[Any, ...]]"
"""As `socket.getaddrinfo` gives them."""


class ChunkJoiner:
    """Makes one chunk of the many small ones of a chunked body, in one pass over the bytes.

    Anything but a plain whole chunk (the end, an extension, a fault) is handed on as it came, for h11 to judge.
    """

    __slots__ = ("_end", "_held", "_off", "_owed")

    def __init__(self) -> None:
        self._held: bytes = b""
        """A size line that is not whole."""
        self._owed = 0
        """How many bytes of a chunk that was handed on in part are still to come."""
        self._off = False
        self._end = b""
        """What came from the last chunk on."""

    def feed(self, data: bytes) -> bytes:
        """Return the same bytes of body with fewer chunks around them; only half a size line is kept back."""
        if self._off:
            if self._end:
                self._end = (self._end + data)[:32]
            return data
        if self._owed >= len(data):
            self._owed -= len(data)
            return data
        data, at = self._held + data, self._owed
        self._held, self._owed = b"", 0
        begun = data[:at]
        pieces: list[bytes] = []
        while True:
            line = _SIZE_LINE.match(data, at)
            if line is None and _PART_OF_ONE.match(data, at):
                self._held, data = data[at:], data[:at]
                break
            size = int(line[1], 16) if line else 0
            start = line.end() if line else at
            end = start + size
            if size == 0 or not b"\r\n".startswith(data[end : end + 2]):
                self._off = True  # the end of the body, or something unknown
                self._end = data[at : at + 32] if line and size == 0 else b""
                break
            if end + 2 > len(data):
                self._owed = end + 2 - len(data)
                break
            pieces.append(data[start:end])
            at = end + 2
        if len(pieces) < 2:
            return data
        joined = b"".join(pieces)
        return b"%b%x\r\n%b\r\n%b" % (begun, len(joined), joined, data[at:])

    @property
    def ended(self) -> bool:
        """Whether the last chunk came, without trailers and with nothing after it."""
        return _LAST_CHUNK.fullmatch(self._end) is not None

    def close(self) -> bytes:
        """Return what is kept back, at the end of the connection."""
        held, self._held = self._held, b""
        return held


_SIZE_LINE = re.compile(rb"([0-9a-fA-F]{1,16})\r\n")
_PART_OF_ONE = re.compile(rb"[0-9a-fA-F]{0,16}\r?\Z")
_LAST_CHUNK = re.compile(rb"0{1,16}\r\n\r\n")
_BLANK_LINE = re.compile(rb"\n\r?\n")  # what h11 ends a head at
_INTERIM = re.compile(rb"\S+ 1")
_TRANSFER_ENCODING = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)


class ResponseSplitter:
    """Divides what a connection receives so that a body is joined from its first chunk, and counts what is received, so
    that bytes after the end of a response are noticed."""

    __slots__ = ("_begun", "_joiner", "_left", "_part", "held")

    def __init__(self) -> None:
        self.held = b""
        """Received, and for the next read."""
        self._part = "head"
        self._begun = b""
        """A head of which the end has not come."""
        self._left = 0
        """How many bytes of a body of known length are still to come."""
        self._joiner = ChunkJoiner()

    def pass_through(self) -> None:
        """Hand on everything as it comes from now on: this is not HTTP/1.1."""
        self._part = "all"

    def pass_handshake(self) -> None:
        """Hand on everything as it comes: a proxy's handshake comes before the response, whose end is then unknown."""
        self._part = "unknown"

    def start_head(self) -> None:
        """A response begins."""
        if self._part != "all":
            self._part, self._begun, self._left = "head", b"", 0

    def start_body(self, headers: Mapping[str, str]) -> None:
        """The head has been read and had these headers."""
        if self._part == "body":
            self._left += int(headers.get("content-length", 0))

    def feed(self, data: bytes) -> bytes:
        """Take received bytes; return those to hand on now, perhaps none."""
        part = self._part
        if part == "chunks":
            return self._joiner.feed(data)
        if part == "head":
            return self._head(data)
        self._left -= len(data)
        return data

    def _head(self, data: bytes) -> bytes:
        begun = self._begun
        whole = begun + data
        match = _BLANK_LINE.search(whole, max(len(begun) - 2, 0))
        if match is None:
            self._begun = whole
            return data
        end = match.end()
        if _INTERIM.match(whole):  # another head follows
            self._begun = b""
            self.held = whole[end:]
            return data[: end - len(begun)]
        cut = end - len(begun)
        if _TRANSFER_ENCODING.search(whole, 0, end):
            self._part, self._joiner = "chunks", ChunkJoiner()
            return data[:cut] + self._joiner.feed(data[cut:])
        self._part, self._left = "body", cut - len(data)
        return data

    def close(self) -> bytes:
        """Return what is kept back, at the end of the connection."""
        return self._joiner.close()

    @property
    def clean(self) -> bool:
        """Whether the response came to its end with no byte after it."""
        part = self._part
        return self._joiner.ended if part == "chunks" else part == "all" or (part == "body" and self._left == 0)


def readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read: then the peer has closed it, or it is out of step."""
    if sock.fileno() < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])


class SocketStream(NetworkStream):
    """One connected socket. Raises `RequestTimeout` and `OSError`."""

    def __init__(self, sock: socket.socket, clocks: Clocks) -> None:
        self.splitter = ResponseSplitter()
        self._clocks = clocks
        self._socket = sock
        self._timeout = -1.0
        self._unsent: list[bytes] = []

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is to be sent; return what there is, waiting for it. Empty at the end."""
        if self._unsent:
            self._send()
        splitter = self.splitter
        while True:
            data = splitter.held
            if data:
                splitter.held = b""
            else:
                data = self._in_time(self._socket.recv, max_bytes)
                if not data:
                    self._clocks.ended = True
                    return splitter.close()
                self._clocks.received = True
            data = splitter.feed(data)
            if data:
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Keep `buffer` until the next read, so that head and body leave together."""
        if buffer:
            self._unsent.append(buffer)

    def _send(self) -> None:
        # No name for the bytes: they hold the key, and a traceback may show what names hold.
        rest = memoryview(b"".join(self._unsent))
        self._unsent.clear()
        try:
            while rest:
                rest = rest[self._in_time(self._socket.send, rest) :]
        except ConnectionError:
            if self._clocks.reused:
                raise
            # A server may refuse a request before it has read all of it: then its response is there to be read.

    def _in_time(self, operation: Callable[[Any], T], argument: Any) -> T:
        """Do one thing to the socket, waiting in short sleeps so that a Ctrl-C is heard."""
        clocks = self._clocks
        wait = clocks.idle
        while True:
            part = min(clocks.left(wait), POLL_INTERVAL)
            if part != self._timeout:  # a system call
                self._socket.settimeout(part)
                self._timeout = part
            try:
                return operation(argument)
            except TimeoutError as error:
                wait -= part
                if wait <= 0:
                    raise clocks.too_long(error) from error

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> SocketStream:
        """Return the stream inside TLS."""
        clocks = self._clocks
        try:
            self._socket.settimeout(clocks.left_to_connect())
            # The result replaces the socket also where the handshake fails: `wrap_socket` detaches what it is given.
            self._socket = ssl_context.wrap_socket(
                self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._socket.do_handshake()
            self._timeout = -1.0
        except TimeoutError as error:
            raise clocks.too_long(error, "connect") from error
        self.splitter = ResponseSplitter()
        if self._socket.selected_alpn_protocol() == "h2":
            self.splitter.pass_through()
        return self

    def get_extra_info(self, info: str) -> Any:
        """Return the TLS object, from which httpcore2 reads what protocol was agreed on."""
        return self._socket if info == "ssl_object" and isinstance(self._socket, ssl.SSLSocket) else None

    def alive(self) -> bool:
        """Whether the peer has kept the idle connection open."""
        return not readable(self._socket)

    def close(self) -> None:
        """Close at once."""
        self._socket.close()


class Network(NetworkBackend):
    """The backend of one connection: it opens one stream and keeps it at hand."""

    def __init__(self, *, handshake: bool = False) -> None:
        self.clocks = Clocks()
        self.stream: SocketStream | None = None
        self._handshake = handshake
        """Whether it leads to a SOCKS proxy."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> SocketStream:
        """Return a new connection; one connect clock covers the name, all its addresses and the TLS handshake.

        Raises:
            RequestTimeout: Which `connect`, or `total`.
            OSError: Refused, unreachable, unknown name.
        """
        clocks = self.clocks
        clocks.start_connecting()
        try:
            found = addresses_of(host, port)
            if not poll_until(lambda seconds: is_done(found, seconds), clocks.left_to_connect()):
                raise TimeoutError
            sock = _reached(found.result(), clocks)
        except TimeoutError as error:
            raise clocks.too_long(error, "connect") from error
        self.stream = SocketStream(sock, clocks)
        if self._handshake:
            self.stream.splitter.pass_handshake()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.stream


_NUMERIC = re.compile(r"[0-9.]+|.*:.*")


def addresses_of(host: str, port: int) -> Future[Addresses]:
    """Return what will be the addresses of `host`, families in turns: there at once for a numeric one.

    A name is looked up in a thread: a slow name server cannot be interrupted, and a thread of the event loop's own
    pool would hold up the end of the loop.
    """
    found: Future[Addresses] = Future()
    found.set_running_or_notify_cancel()  # a caller who gives up must not keep the thread from setting its result

    def look_up() -> None:
        try:
            by_family: dict[int, Addresses] = {}
            for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                by_family.setdefault(each[0], []).append(each)
            turns = chain.from_iterable(zip_longest(*by_family.values()))
            addresses = [each for each in turns if each is not None]
            if not addresses:
                raise OSError("the name has no address")
            found.set_result(addresses)
        except UnicodeError:
            found.set_exception(OSError("the name is not one that can be looked up"))
        except Exception as error:
            found.set_exception(error)

    if _NUMERIC.fullmatch(host):
        look_up()
    else:
        threading.Thread(target=look_up, name="lmagent-name", daemon=True).start()
    return found


_Selector: Callable[[], selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
"""One that needs no file descriptor."""
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY)


def _reached(addresses: Addresses, clocks: Clocks) -> socket.socket:
    """Return a socket connected to the first address that answers. Each is tried `STAGGER` after the one before it,
    or as soon as all before it have failed."""
    failure: OSError = OSError("the name has no address")
    waiting = addresses[::-1]
    next_start = 0.0
    with _Selector() as selector:
        try:
            while waiting or selector.get_map():
                now = monotonic()
                if waiting and (now >= next_start or not selector.get_map()):
                    next_start = now + STAGGER
                    try:
                        _begin(waiting.pop(), selector)
                    except OSError as error:
                        failure = error
                        continue
                part = min(clocks.left_to_connect(), POLL_INTERVAL)
                for key, _ in selector.select(min(part, max(next_start - now, 0)) if waiting else part):
                    sock: Any = key.fileobj
                    selector.unregister(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not code:
                        return sock
                    sock.close()
                    failure = OSError(code, errno.errorcode.get(code, str(code)))
            raise failure
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]


def _begin(address: tuple[Any, ...], selector: selectors.BaseSelector) -> None:
    """Begin to connect to `address`."""
    *kind, _, where = address
    sock = socket.socket(*kind)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(where)
        if code not in _UNDER_WAY:
            raise OSError(code, errno.errorcode.get(code, str(code)))
        selector.register(sock, selectors.EVENT_WRITE)
    except BaseException:
        sock.close()
        raise
