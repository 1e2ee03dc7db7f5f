"""HTTP/2 as nobody's client writes it: frames byte by byte, and what the server ends them with."""

from __future__ import annotations

import gzip
import random
import socket
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Self

import grpc
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from stagewire import pb
from tests.hostile.barrages import Answer, Gun, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from tests.hostile.targets import Target

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET_MODEL = "/modelregistry.v1.RegistryService/GetModel"
SILENT_SECONDS = 10.0
#: Who says nothing to what is no request has said enough.
_SHORT_SECONDS = 0.05
_STATUSES: dict[str, str] = {str(code.value[0]): code.name for code in grpc.StatusCode}

Headers = list[tuple[str, str]]
Kinded = Callable[["Target"], AbstractContextManager[Gun]]


class Wire:
    """One connection to a gRPC port, over which anything can be sent."""

    def __init__(self, target: Target, *, seconds: float = 0) -> None:
        """Connect, and say nothing yet."""
        host, _, port = target.address.rpartition(":")
        self._target = target
        self._socket = socket.create_connection(
            (host, int(port)), timeout=seconds or SILENT_SECONDS
        )
        self._encoder, self._decoder = Encoder(), Decoder()
        self._stream = -1
        self._said = b""
        self.gone = False

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._socket.close()

    def greet(self, **settings: int) -> Self:
        """Begin as HTTP/2 begins."""
        numbers = {getattr(SettingsFrame, name.upper()): v for name, v in settings.items()}
        return self.send(PREFACE, SettingsFrame(0, settings=numbers))

    def agree(self) -> Self:
        """Take the server's settings, which bind nobody before."""
        while not isinstance(self._next(), SettingsFrame | str):
            pass
        return self.send(SettingsFrame(0, flags=["ACK"]))

    def send(self, *parts: bytes | Frame) -> Self:
        """Send bytes and frames; to who has hung up, nothing."""
        written = b"".join(p if isinstance(p, bytes) else p.serialize() for p in parts)
        try:
            self._socket.sendall(written)
        except OSError:
            self.gone = True
        return self

    def next_stream(self) -> int:
        """Give the next stream's number."""
        self._stream += 2
        return self._stream

    def headers(self, path: str | None = GET_MODEL, **changed: str | None) -> Headers:
        """Give the headers of a call; `changed` may replace them, or with None leave them out."""
        usual = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": self._target.address,
            "te": "trailers",
            "content-type": "application/grpc",
            **dict(self._target.credentials),
        }
        changes = {
            (f":{n}" if f":{n}" in usual else n.replace("_", "-")): v for n, v in changed.items()
        }
        return [(n, v) for n, v in {**usual, **changes}.items() if v is not None]

    def block(self, headers: Headers) -> bytes:
        """Compress headers."""
        return self._encoder.encode(headers)

    def call(self, headers: Headers, body: bytes, *, ends: bool = True) -> int:
        """Send one whole request, and give its stream."""
        stream = self.next_stream()
        block = self.block(headers)
        self.send(
            HeadersFrame(stream, data=block, flags=["END_HEADERS"]),
            *(DataFrame(stream, data=body[at : at + 16_384]) for at in range(0, len(body), 16_384)),
            DataFrame(stream, flags=["END_STREAM"]) if ends else b"",
        )
        return stream

    def ending(self, stream: int | None = None) -> Answer:
        """Read until the stream, or the connection, ends, and give how."""
        said, status = bytearray(), ""
        while True:
            frame = self._next()
            if isinstance(frame, str):
                return Answer(frame, bytes(said))
            if isinstance(frame, GoAwayFrame):
                self.gone = True
                return Answer("GOAWAY", bytes(said) + frame.additional_data)
            if stream is None and isinstance(frame, PingFrame) and "ACK" in frame.flags:
                return Answer("answered", bytes(said))
            if frame.stream_id != stream:
                continue
            if isinstance(frame, RstStreamFrame):
                return Answer(status or "RST_STREAM", bytes(said))
            if isinstance(frame, DataFrame):
                said += frame.data
            if isinstance(frame, HeadersFrame):
                found = dict(self._decoded(frame.data))
                said += "\n".join(found.values()).encode()
                code = found.get("grpc-status")
                status = _STATUSES.get(code, code) if code else f"HTTP {found.get(':status')}"
            if "END_STREAM" in frame.flags:
                return Answer(status or "ended", bytes(said))

    def _decoded(self, block: bytes) -> Sequence[tuple[str, str]]:
        try:
            return [(str(name), str(value)) for name, value in self._decoder.decode(block)]
        except HPACKError:
            return []

    def _next(self) -> Frame | str:
        """Read the next frame, or say how there is none."""
        try:
            head = self._read(9)
            frame, length = Frame.parse_frame_header(memoryview(head))
            frame.parse_body(memoryview(self._read(length)))
        except TimeoutError:
            return "silence"
        except (OSError, EOFError, HyperframeError):
            self.gone = True
            return "closed"
        return frame

    def _read(self, length: int) -> bytes:
        while len(self._said) < length:
            more = self._socket.recv(65_536)
            if not more:
                raise EOFError
            self._said += more
        found, self._said = self._said[:length], self._said[length:]
        return found


Shot = Callable[[Wire, int], Answer]


def message(data: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Frame a gRPC message, which may claim another length than it has."""
    claimed = len(data) if length is None else length
    return bytes([flag]) + claimed.to_bytes(4, "big") + data


_VALID = message(pb.GetModelRequest(model="churn").SerializeToString())


def _fresh(shoot: Shot, *, seconds: float = 0) -> Kinded:
    """Use a connection once."""

    @contextmanager
    def aim(target: Target) -> Iterator[Gun]:
        def gun(number: int) -> Answer:
            with Wire(target, seconds=seconds) as wire:
                return shoot(wire, number)

        yield gun

    return aim


def _kept(shoot: Shot) -> Kinded:
    """Use a connection until the server ends it."""

    @contextmanager
    def aim(target: Target) -> Iterator[Gun]:
        wire = Wire(target).greet().agree()

        def gun(number: int) -> Answer:
            nonlocal wire
            if wire.gone:
                wire.__exit__(None, None, None)
                wire = Wire(target).greet().agree()
            return shoot(wire, number)

        with suppress(OSError):
            yield gun
        wire.__exit__(None, None, None)

    return aim


def _rapid_reset(wire: Wire, number: int) -> Answer:
    for _ in range(_RESETS):
        stream = wire.call(wire.headers(), _VALID)
        wire.send(RstStreamFrame(stream, error_code=8))
    return wire.send(PingFrame(0, opaque_data=number.to_bytes(8, "big"))).ending()


def _continuations(wire: Wire, number: int) -> Answer:
    wire.greet()
    stream = wire.next_stream()
    wire.send(HeadersFrame(stream, data=wire.block(wire.headers()), flags=[]))
    sizes = (0, 1, 100, 4_000)
    block = wire.block([("x", "y" * sizes[number % len(sizes)])])
    wire.send(*(ContinuationFrame(stream, data=block) for _ in range(100)))
    # Either they end at last, or something else comes instead of their end.
    if number % 8 < len(sizes):
        wire.send(ContinuationFrame(stream, flags=["END_HEADERS"]))
        wire.send(DataFrame(stream, data=_VALID, flags=["END_STREAM"]))
    return wire.send(PingFrame(0)).ending(stream)


def _metadata(wire: Wire, number: int) -> Answer:
    more: tuple[Headers, ...] = (
        [("x", "y" * 9_000)],
        [("x", "y" * 20_000)],
        [("x", "y" * 60_000)],
        [("x" * 20_000, "y")],
        [(f"x{place}", "y") for place in range(1_000)],
        [("x", "y")] * 2_000,
        [("x-bin", "no base64 !")],
        [("x-bin", "A" * 15_000)],
        [("X-Upper", "y")],
        [("x\0", "y")],
        [("x", "y\r\nz: a")],
        [("x", "\x7f\x01")],
        [("grpc-timeout", "99999999999S")],
        [("grpc-timeout", "-1S")],
        [("grpc-timeout", "1x")],
        [("grpc-timeout", "0n")],
        [("grpc-encoding", "x" * 1_000)],
        [("grpc-accept-encoding", "gzip," * 1_000)],
        [("x-request-id", "../../etc/passwd")],
        [("x-request-id", "\x1b[2J" * 1_000)],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("content-length", "5")],
        [("host", "elsewhere")],
        [(":path", GET_MODEL)],
        [(":status", "200")],
        [("", "")],
    )
    stream = wire.next_stream()
    block = wire.block([*wire.headers(), *more[number % len(more)]])
    first, *rest = [block[at : at + 16_384] for at in range(0, len(block), 16_384)]
    wire.send(
        HeadersFrame(stream, data=first, flags=[] if rest else ["END_HEADERS"]),
        *(
            ContinuationFrame(stream, data=part, flags=["END_HEADERS"] if part is rest[-1] else [])
            for part in rest
        ),
        DataFrame(stream, data=_VALID, flags=["END_STREAM"]),
    )
    return wire.ending(stream)


_PATHS = (
    *("modelregistry.v1.RegistryService/GetModel", "//", "", "/", "*", GET_MODEL + "/"),
    *("/" + GET_MODEL, GET_MODEL.lower(), GET_MODEL.upper(), GET_MODEL + "?x=y"),
    *(GET_MODEL + "#x", GET_MODEL.replace("/G", "//G"), GET_MODEL.replace("/G", "/%47")),
    *(GET_MODEL.replace("/G", "%2fG"), "/./" + GET_MODEL[1:], "/x/.." + GET_MODEL),
    *(GET_MODEL.replace("/G", "/../RegistryService/G"), GET_MODEL + "\0", GET_MODEL + " "),
    *(" " + GET_MODEL, GET_MODEL + ";x", GET_MODEL.replace("/", "\\"), "/GetModel"),
    *("/RegistryService/GetModel", "/modelregistry.v1.RegistryService/", "/a" * 4_000),
    *("/modelregistry.v1.RegistryService", "/modelregistry.v1.RegistryService/NoSuchThing"),
    *("/modelregistry.v1.AuditService/GetModel", "/modelregistry.v2.RegistryService/GetModel"),
    *("/modelregistry.v1.RegistryService/__class__", "/modelregistry.v1.RegistryService/_service"),
    *("http://127.0.0.1" + GET_MODEL, "/grpc.health.v1.Health/check", "/grpc.health.v1.Health"),
    *("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/grpc.channelz.v1.Channelz/GetServers"),
)


def _paths(wire: Wire, number: int) -> Answer:
    return wire.ending(wire.call(wire.headers(_PATHS[number % len(_PATHS)]), _VALID))


def _pseudo(wire: Wire, number: int) -> Answer:
    changes: tuple[dict[str, str | None], ...] = (
        {"content_type": "application/json"},
        {"content_type": "text/html"},
        {"content_type": None},
        {"content_type": "application/grpc-web"},
        {"content_type": "application/grpc+json"},
        {"content_type": "application/grpcx"},
        {"content_type": "APPLICATION/GRPC"},
        {"te": None},
        {"te": "gzip"},
        {"method": "GET"},
        {"method": "PUT"},
        {"method": "OPTIONS"},
        {"method": "CONNECT"},
        {"method": None},
        {"scheme": "https"},
        {"scheme": "file"},
        {"scheme": None},
        {"path": None},
        {"authority": None},
        {"authority": "../../etc/passwd"},
        {"authority": "user:word@elsewhere:1"},
        {"authority": ""},
    )
    return wire.ending(wire.call(wire.headers(**changes[number % len(changes)]), _VALID))


_ZEROS = gzip.compress(bytes(64 << 20), compresslevel=9)
_TWICE = gzip.compress(_ZEROS)


def _bombs(wire: Wire, number: int) -> Answer:
    valid = _VALID[5:]
    bombs: tuple[tuple[str | None, bytes], ...] = (
        ("gzip", message(_ZEROS, flag=1)),
        ("gzip", message(_TWICE, flag=1)),
        ("deflate", message(zlib.compress(bytes(32 << 20), 9), flag=1)),
        ("gzip", message(gzip.compress(valid)[:-9], flag=1)),
        ("gzip", message(b"no gzip at all", flag=1)),
        ("gzip", message(gzip.compress(valid) * 2_000, flag=1)),
        ("snappy", message(_ZEROS, flag=1)),
        (None, message(_ZEROS, flag=1)),
        ("identity", message(valid, flag=1)),
        ("gzip", message(valid)),
        ("gzip,gzip", message(_TWICE, flag=1)),
    )
    encoding, body = bombs[number % len(bombs)]
    return wire.ending(wire.call(wire.headers(grpc_encoding=encoding), body))


def _lengths(wire: Wire, number: int) -> Answer:
    valid = _VALID[5:]
    bodies = (
        message(valid, length=len(valid) + 1),
        message(valid, length=len(valid) - 1),
        message(valid, length=5 << 20),
        message(valid, length=2**32 - 1),
        message(bytes(1_000), length=(4 << 20) + 1),
        message(valid, flag=2),
        message(valid, flag=255),
        message(valid)[:3],
        message(valid)[:-1],
        message(valid) * 2,
        message(valid) * 1_000,
        message(b"") * 1_000,
        b"",
        b"\0",
        message(valid) + b"\0",
    )
    # Some wait for more that never comes: a deadline is what ends them.
    headers = wire.headers(grpc_timeout="30m")
    return wire.ending(wire.call(headers, bodies[number % len(bodies)]))


def _nested(levels: int, *, group: bool) -> bytes:
    """Nest an unknown field so often, as groups or as messages."""
    if group:
        return b"\xa3\x06" * levels + b"\xa4\x06" * levels
    body = b""
    for _ in range(levels):
        length = len(body)
        size = bytearray()
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        body = b"\xa2\x06" + bytes([*size, length]) + body
    return body


_OCTETS = (
    *(_nested(levels, group=group) for levels in (50, 99, 101, 5_000) for group in (True, False)),
    _nested(1_000_000, group=True),
    b"\xa3\x06" * 1_000_000,
    b"\xa4\x06",
    b"\x0a\xff\xff\xff\xff\x0f",
    b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80" * 20,
    b"\x00",
    b"\x07",
    b"\x0a\x05churn" * 100_000,
    b"\x12\x05churn\x12\x02\xff\xfe",
    b"\x98\x06\x01" * 1_000_000,
    b"\xa2\x06\x00" * 1_000_000,
    bytes(1_000_000),
)


def _octets(wire: Wire, number: int) -> Answer:
    chance = random.Random(number)
    rpcs = (
        *("RegistryService/GetModel", "RegistryService/CreateModelVersion"),
        *("ConfigurationService/ImportRegistry", "DeploymentService/ReportStatus"),
    )
    path = f"/modelregistry.v1.{rpcs[number % len(rpcs)]}"
    odd = number // len(rpcs)
    octets = chance.randbytes(chance.randrange(200))
    data = octets if odd % 2 else _OCTETS[odd // 2 % len(_OCTETS)]
    return wire.ending(wire.call(wire.headers(path), message(data)))


def _odd_frames(wire: Wire, number: int) -> Answer:
    chance = random.Random(number)
    wire.greet()
    stream = chance.choice((0, 1, 1, 2, 3, 2**31 - 1))
    block = wire.block(wire.headers())
    frames: tuple[Frame | bytes, ...] = (
        DataFrame(1, data=b"x"),
        HeadersFrame(2, data=block, flags=["END_HEADERS"]),
        HeadersFrame(1, data=b"\xff" * 100, flags=["END_HEADERS", "END_STREAM"]),
        HeadersFrame(1, data=b"\x3f\xff\xff\xff\xff\xff\xff\x0f", flags=["END_HEADERS"]),
        ContinuationFrame(1, data=block, flags=["END_HEADERS"]),
        RstStreamFrame(1, error_code=0),
        PushPromiseFrame(1, promised_stream_id=2, data=block, flags=["END_HEADERS"]),
        PriorityFrame(1, depends_on=1, stream_weight=0),
        SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 1}),
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**32 - 1}),
        SettingsFrame(0, settings={SettingsFrame.ENABLE_PUSH: 7}),
        SettingsFrame(0, settings={SettingsFrame.HEADER_TABLE_SIZE: 2**32 - 1}),
        WindowUpdateFrame(0, window_increment=2**31 - 1),
        WindowUpdateFrame(1, window_increment=1),
        b"\0\0\4\x08\0\0\0\0\0\0\0\0\0",
        b"\0\0\1\x06\0\0\0\0\0x",
        b"\xff\xff\xff\x00\0\0\0\0\1",
        b"\0\0\0\xee\xff\x7f\xff\xff\xff",
        b"\0\0\5\x04\0\0\0\0\0abcde",
        GoAwayFrame(0, last_stream_id=2**31 - 1, additional_data=b"x" * 10_000),
        bytes([0, chance.randrange(4), chance.randrange(256), chance.randrange(12)])
        + bytes([chance.randrange(256)])
        + stream.to_bytes(4, "big")
        + chance.randbytes(1_024),
    )
    wire.send(*(frames[(number + place) % len(frames)] for place in range(chance.randrange(1, 4))))
    return wire.send(PingFrame(0)).ending()


def _windows(wire: Wire, number: int) -> Answer:
    body = message(pb.ListEventsRequest().SerializeToString())
    path = "/modelregistry.v1.AuditService/ListEvents"
    game = number % 5
    wire.greet(initial_window_size=1 if game == 1 else 0 if game == 0 else 65_535)
    if game in (0, 1):
        # Asked for, and never taken.
        for _ in range(20):
            wire.call(wire.headers(path), body)
        return wire.send(PingFrame(0)).ending()
    stream = wire.call(wire.headers(path), body, ends=False)
    increments = {2: [2**31 - 1, 2**31 - 1], 3: [1] * 500, 4: []}[game]
    wire.send(*(WindowUpdateFrame(stream, window_increment=step) for step in increments))
    if game == 4:
        wire.send(b"\0\0\4\x08\0" + stream.to_bytes(4, "big") + bytes(4))
    return wire.send(DataFrame(stream, flags=["END_STREAM"])).ending(stream)


def _floods(wire: Wire, number: int) -> Answer:
    wire.greet()
    stream = wire.next_stream()
    begun = HeadersFrame(stream, data=wire.block(wire.headers()), flags=["END_HEADERS"])
    flood: tuple[tuple[Frame | bytes, ...], ...] = (
        (PingFrame(0),) * 500,
        (SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}),) * 500,
        (SettingsFrame(0),) * 500,
        (begun, *(DataFrame(stream),) * 500),
        (begun, *(DataFrame(stream, data=b"", pad_length=255, flags=["PADDED"]),) * 500),
        (begun, *(PriorityFrame(stream, depends_on=stream + 2, stream_weight=1),) * 500),
        (begun, *(WindowUpdateFrame(stream, window_increment=1),) * 500),
        (begun, *(RstStreamFrame(stream, error_code=8),) * 500),
        (b"\0\0\0\xee\0\0\0\0\0",) * 500,
    )
    return wire.send(*flood[number % len(flood)], PingFrame(0, opaque_data=b"thisone!")).ending()


def _left(wire: Wire, number: int) -> Answer:
    wire.greet()
    bodies = (b"", _VALID[:3], _VALID[:-1], _VALID)
    for _ in range(_STREAMS):
        wire.call(wire.headers(), bodies[number % len(bodies)], ends=number % 8 < len(bodies))
    return wire.send(PingFrame(0)).ending()


#: A TLS client's first words, as far as they matter here.
_HELLO = bytes.fromhex("16030100 f8 010000f4 0303".replace(" ", "")) + bytes(200)
_STRANGERS = (
    *(_HELLO, b"", b"\0", PREFACE[:10], PREFACE, PREFACE * 2, PREFACE + bytes(9), b"\xff" * 1_000),
    *(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\n", b"CONNECT x:1 HTTP/1.1\r\n\r\n"),
    *(b"POST /modelregistry.v1.RegistryService/GetModel HTTP/1.1\r\nhost: x\r\n\r\n",),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"SSH-2.0-x\r\n", b"\x05\x01\x00", b"EHLO x\r\n"),
    *(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + PREFACE, b"\r\n\r\n" + PREFACE, b"a" * 100_000),
)


def _strangers(wire: Wire, number: int) -> Answer:
    return wire.send(_STRANGERS[number % len(_STRANGERS)]).ending()


_RESETS = 20
_STREAMS = 20
#: At once: gRPC lets who sends nonsense wait up to a second for its refusal.
_AT_ONCE = 16

_LIVES = frozenset({"answered", "GOAWAY", "closed"})
#: What gRPC itself ends with what is no call.
_NO_CALL = frozenset(
    {
        *("UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "INVALID_ARGUMENT"),
        *("UNAUTHENTICATED", "RST_STREAM", "GOAWAY", "closed"),
    }
)
_CALL = _NO_CALL | {"OK", "NOT_FOUND", "DEADLINE_EXCEEDED"}


def kinds() -> list[Kind]:
    """List the kinds of hostile connections."""
    kept: tuple[tuple[str, frozenset[str], Shot], ...] = (
        ("gRPC: rapid reset", _LIVES, _rapid_reset),
        ("gRPC: odd, large and many metadata", _CALL, _metadata),
        ("gRPC: paths that are no method's", _NO_CALL, _paths),
        ("gRPC: odd methods, types and authorities", _CALL, _pseudo),
        ("gRPC: compressed bombs", _CALL, _bombs),
        ("gRPC: lengths that are wrong", _CALL, _lengths),
        ("gRPC: no protobuf, or deeply nested", _CALL, _octets),
    )
    fresh: tuple[tuple[str, frozenset[str], Shot], ...] = (
        ("gRPC: floods of CONTINUATION", _CALL, _continuations),
        ("gRPC: frames out of order", _LIVES, _odd_frames),
        ("gRPC: games with windows", _CALL | _LIVES, _windows),
        ("gRPC: floods of small frames", _LIVES, _floods),
    )
    return [
        *(Kind(name, codes, _kept(shoot), at_once=_AT_ONCE) for name, codes, shoot in kept),
        *(Kind(name, codes, _fresh(shoot), at_once=_AT_ONCE) for name, codes, shoot in fresh),
        # One after the other: calls that begin faster than they can be looked at are a backlog,
        # whose memory gRPC bounds by what may be pending, and which would hide a leak.
        Kind("gRPC: streams begun and left", _LIVES, _fresh(_left)),
        Kind(
            "gRPC: what is no HTTP/2",
            frozenset({"closed", "GOAWAY", "silence"}),
            _fresh(_strangers, seconds=_SHORT_SECONDS),
            at_once=_AT_ONCE,
        ),
    ]
