"""HTTP/1.1 as nobody's client writes it: heads, bodies and targets byte by byte."""

from __future__ import annotations

import gzip
import json
import random
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from tests.hostile import visits
from tests.hostile.barrages import Answer, Gun, Kind
from tests.hostile.visits import REFUSALS, Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.hostile.targets import Target

_GET = b"/api/2.0/mlflow/registered-models/get?name=churn"
_CREATE = b"/api/2.0/mlflow/registered-models/create"
_SET_TAG = b"/api/2.0/mlflow/registered-models/set-tag"
_TAG = b'{"name": "churn", "key": "team", "value": "risk"}'
_SHORT_SECONDS = 0.3
#: What a second request says that was hidden in the first one's body.
_HIDDEN = b"GET /version HTTP/1.1\r\nhost: hidden\r\n\r\n"


class Writer(visits.Writer):
    """Writes requests whose heads are what they are told to be."""

    def raw(
        self, first: bytes, *headers: bytes, body: bytes = b"", ending: bytes = b"\r\n"
    ) -> bytes:
        """Write a request with these lines, and what every request has to say here."""
        said = [f"{name}: {value}".encode() for name, value in self.credentials]
        if not any(header.lower().startswith(b"host") for header in headers):
            said.append(b"host: " + self.host.encode())
        return ending.join((first, *said, *headers)) + ending * 2 + body


def _each(
    requests: Callable[[Writer], Sequence[bytes]], *, seconds: float = 0
) -> Callable[[Target], AbstractContextManager[Gun]]:
    """Send one request after the other, each over a connection of its own."""

    @contextmanager
    def aim(target: Target) -> Iterator[Gun]:
        # In no order, so that the first ones are like all.
        written = list(requests(Writer(target)))
        random.Random(0).shuffle(written)

        def shoot(number: int) -> Answer:
            with visits.connection(target, seconds=seconds) as asks:
                return asks.ask(written[number % len(written)])

        yield shoot

    return aim


def _smuggled(writer: Writer) -> list[bytes]:
    post = b"POST " + _SET_TAG + b" HTTP/1.1"
    json_ = b"content-type: application/json"
    size = str(len(_TAG)).encode()
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(_TAG), _TAG)
    heads: tuple[tuple[bytes, ...], ...] = (
        (b"content-length: " + size, b"content-length: 0"),
        (b"content-length: 0", b"content-length: " + size),
        (b"content-length: " + size, b"content-length: " + size),
        (b"content-length: " + size + b", " + size,),
        (b"content-length: " + size, b"transfer-encoding: chunked"),
        (b"transfer-encoding: chunked", b"content-length: 4"),
        (b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
        (b"transfer-encoding: chunked, identity",),
        (b"transfer-encoding: identity, chunked",),
        (b"transfer-encoding: gzip, chunked",),
        (b"transfer-encoding: xchunked",),
        (b"transfer-encoding:\tchunked",),
        (b"transfer-encoding : chunked",),
        (b"transfer-encoding: chunked\x0b",),
        (b'transfer-encoding: "chunked"',),
        (b"transfer-encoding:\r\n chunked",),
        (b"transfer_encoding: chunked", b"content-length: 0"),
        (b"x: y\nTransfer-Encoding: chunked",),
        (b"x: y\rTransfer-Encoding: chunked",),
        (b"x: y\0z", b"content-length: 0"),
        (b"content-length: +" + size,),
        (b"content-length: -1",),
        (b"content-length: 0x1f",),
        (b"content-length: 1e1",),
        (b"content-length: ",),
        (b"content-length: 99999999999999999999999999",),
        (b"content-length: " + b"0" * 5_000 + size,),
        (b"content-length : " + size,),
        (b" content-length: " + size,),
        (b"content-length: \xd9\xa1",),
    )
    bodies = (_TAG, chunked, chunked + _HIDDEN, _TAG + _HIDDEN)
    return [writer.raw(post, json_, *head, body=body) for head in heads for body in bodies]


def _chunks(writer: Writer) -> list[bytes]:
    post = b"POST " + _SET_TAG + b" HTTP/1.1"
    heads = (b"content-type: application/json", b"transfer-encoding: chunked")
    last = b"0\r\n\r\n"
    whole = b"%x\r\n%s\r\n" % (len(_TAG), _TAG)
    bodies = (
        b"".join(b"1\r\n%c\r\n" % octet for octet in _TAG) + last,
        b"1\r\n \r\n" * 50_000 + whole + last,
        (b"10000\r\n" + b" " * 65_536 + b"\r\n") * 80 + last,
        b"FFFFFFFFFFFFFFFF\r\n" + _TAG,
        b"FFFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\n" + _TAG,
        b"-1\r\n" + _TAG,
        b"0x1\r\n{\r\n" + last,
        b" 1\r\n{\r\n" + last,
        b"1 \r\n{\r\n" + last,
        b"1;" + b"x" * 100_000 + b"\r\n{\r\n" + last,
        b"1;x=y\r\n{\r\n" * 1_000 + last,
        b"1\n{\n0\n\n",
        b"1\r\n{}\r\n" + last,
        b"zz\r\n",
        b"\r\n",
        whole + b"0\r\nx: y\r\n\r\n",
        whole + b"0\r\ncontent-length: 5\r\nhost: hidden\r\n\r\n",
        whole + b"0\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
        whole + b"0\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    )
    return [writer.raw(post, *heads, body=body) for body in bodies]


def _heads(writer: Writer) -> list[bytes]:
    get = b"GET " + _GET + b" HTTP/1.1"
    firsts = (
        b"GET " + b"/a" * 40_000 + b" HTTP/1.1",
        b"GET " + _GET + b"&x=" + b"y" * 60_000 + b" HTTP/1.1",
        b"GET" * 30_000,
        b"G" * 100_000 + b" / HTTP/1.1",
        get + b" ",
        get.replace(b" ", b"\t"),
        get.replace(b"GET ", b"GET  "),
        b"GET " + _GET,
        b"GET " + _GET + b" HTTP/0.9",
        b"GET " + _GET + b" HTTP/1.0",
        b"GET " + _GET + b" HTTP/1.9",
        b"GET " + _GET + b" HTTP/2.0",
        b"GET " + _GET + b" HTTP/9999999.1",
        b"GET " + _GET + b" http/1.1",
        b"\r\n\r\n" + get,
        b"\0" + get,
        b"PRI * HTTP/2.0",
        bytes.fromhex("16030100f8010000f40303") + bytes(300),
        b"\xff\xfe" + get,
        b"",
    )
    headers: tuple[tuple[bytes, ...], ...] = (
        (b"x: " + b"y" * 70_000,),
        (b"x" * 70_000 + b": y",),
        *(((b"x%d: y" % place),) * 1 for place in range(2)),
        tuple(b"x%d: y" % place for place in range(5_000)),
        (b"x: y",) * 9_000,
        (b"cookie: a=b",) * 1_000,
        (b"cookie: " + b"a=b; " * 10_000,),
        (b"no colon",),
        (b": empty",),
        (b"x\0y: z",),
        (b"x: \0",),
        (b"x y: z",),
        (b"x: y\r\n folded",),
        (b"x: \x1b[2J",),
        (b"x: " + bytes(range(128, 256)),),
        (b"host: a", b"host: b"),
        (b"host: ",),
        (b"host: ../../etc/passwd",),
        (b"host: user:word@elsewhere",),
        (b"host: [::1",),
        (b"host: a:99999999",),
        (b"host: " + b"a." * 20_000,),
        (b"hosts: none", b"host : a"),
        (b"connection: close, keep-alive, upgrade, host",),
        (b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-key: x"),
        (b"upgrade: h2c", b"connection: upgrade, http2-settings", b"http2-settings: AAAA"),
        (b"expect: 100-continue", b"content-length: 0"),
        (b"expect: 999-nonsense", b"content-length: 0"),
        (b"range: bytes=0-,0-,0-" + b",0-" * 1_000,),
        (b"accept-encoding: " + b"gzip," * 5_000,),
        (b"accept-language: " + b"a" * 30_000 + b"!",),
        (b"if-modified-since: " + b"x" * 1_000,),
        (b"x-forwarded-for: " + b"1.1.1.1, " * 5_000,),
        (b'forwarded: for="[' + b":" * 5_000,),
        (b"idempotency-key: " + b"k" * 1_000,),
        (b"x-mlflow-workspace: ../../etc",),
        (b"x-mlflow-workspace: " + b"\xff" * 1_000,),
        (b"authorization: Basic !!!",),
        (b"authorization: Bearer " + b"a" * 10_000,),
        (b"authorization: " + b"Basic " * 1_000,),
        (b"authorization: a", b"authorization: b"),
    )
    found = [writer.raw(first) for first in firsts]
    found += [writer.raw(get, *head) for head in headers]
    return [*found, *(writer.raw(get, ending=ending) for ending in (b"\n", b"\r", b"\n\r"))]


_TARGETS = (
    *(
        b"//api/2.0/mlflow/registered-models/get?name=churn",
        b"/api/2.0/mlflow//registered-models/get",
    ),
    *(b"/api/2.0/mlflow/../mlflow/registered-models/get", b"/api/2.0/mlflow/../..", b"/.", b"/.."),
    *(b"/api%2f2.0%2fmlflow%2fregistered-models%2fget", b"/%61pi/2.0/mlflow/registered-models/get"),
    *(b"/api/2.0/mlflow/registered-models/get/", b"/api/2.0/mlflow/registered-models/get;x=y"),
    *(b"/api/2.0/mlflow/registered-models/get#x", b"/api/2.0/mlflow/registered-models/%67et"),
    *(b"/API/2.0/MLFLOW/registered-models/get", b"/api/2.0/mlflow/registered-models/get%00"),
    *(b"/api/2.0/mlflow/registered-models/get%20", b"/api\\2.0\\mlflow\\registered-models\\get"),
    *(b"/health/..%2fapi/2.0/mlflow/registered-models/get", b"/health/", b"/health?x", b"/health#"),
    *(b"/%68ealth", b"//health", b"/health;x", b"/./health", b"/HEALTH", b"/version/../health"),
    *(b"http://elsewhere/api/2.0/mlflow/registered-models/get?name=churn", b"http://elsewhere"),
    *(b"https://127.0.0.1/health", b"file:///etc/passwd", b"ftp://x/y", b"*", b"elsewhere:80", b""),
    *(b"http:///", b"http://[", b"http://user:word@elsewhere/health", b"/?" + b"a=b&" * 10_000),
    *(b"/api/2.0/mlflow/registered-models/get?" + b"name=churn&" * 3_000, b"/?" + b"%" * 1_000),
    *(b"/api/2.0/mlflow/registered-models/get?name", b"/api/2.0/mlflow/registered-models/get?=&&;"),
    *(b"/api/2.0/mlflow/registered-models/search?max_results=" + b"9" * 10_000,),
    *(b"/api/2.0/mlflow/registered-models/search?max_results=%D9%A1",),
    *(
        b"/api/2.0/mlflow/registered-models/search?max_results=1e3",
        b"/\xff",
        b"/%ff%fe",
        b"/\xc3\xa9",
    ),
    *(b"/api/2.0/mlflow/registered-models/search?max_results=-1", b"/%c0%ae%c0%ae/", b"/a b"),
    *(b"/api/2.0/mlflow/webhooks/" + b"a" * 30_000, b"/api/2.0/mlflow/webhooks/a%2fb"),
    *(b"/api/2.0/mlflow/webhooks/..", b"/api/2.0/mlflow/webhooks/%2e%2e%2f", b"/get-artifact"),
    *(b"/api/3.0/mlflow/workspaces/..%2f..", b"/ajax-api/3.0/mlflow/workspaces/%00"),
)
_METHODS = (
    *(
        b"HEAD",
        b"OPTIONS",
        b"TRACE",
        b"CONNECT",
        b"PUT",
        b"PATCH",
        b"DELETE",
        b"get",
        b"Get",
        b"PRI",
    ),
    *(
        b"PROPFIND",
        b"DEBUG",
        b"A" * 5_000,
        b"GE\0T",
        b"G ET",
        b"\xff",
        b"",
        b"GET\r\nx:",
        b"M-SEARCH",
    ),
)


def _targets(writer: Writer) -> list[bytes]:
    return [writer.raw(b"GET " + target + b" HTTP/1.1") for target in _TARGETS]


def _methods(writer: Writer) -> list[bytes]:
    paths = (_GET, _CREATE, b"/health", b"/", b"/model-versions/get-artifact", b"*")
    return [
        writer.raw(method + b" " + path + b" HTTP/1.1", b"content-length: 0")
        for method in _METHODS
        for path in paths
    ]


_DEEP = 100_000
_NAME = b'{"name": "churn", '
#: Each is the whole body of a request.
_BODIES: tuple[bytes, ...] = (
    *(b"", b"{", b"null", b"[]", b"1", b'"x"', b"true", b"{}", b"NaN", b"\xff\xfe{\0}\0", b"\0"),
    *(b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP, b'{"name":' * _DEEP, b"[" * 900 + b"]" * 900),
    *(b'{"name":' * 500 + b"1" + b"}" * 500, b'{"a":' * 990 + b"1" + b"}" * 990),
    *(b'{"name": ' + b"[" * depth + b"]" * depth + b"}" for depth in (10, 500, 980, 1_020, 5_000)),
    *(b'{"tags": ' + b"[" * depth + b"]" * depth + b"}" for depth in (10, 500, 980, 1_020)),
    *(b'{"event": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}" for depth in (10, 500, 980)),
    *(
        b'{"name": %s}' % number
        for number in (b"1", b"-0", b"1e999", b"-1e999", b"NaN", b"Infinity")
    ),
    *(b'{"version": %s}' % (b"9" * digits) for digits in (18, 19, 30, 4_299, 4_301, 100_000)),
    *(
        _NAME + b'"version": %s}' % n
        for n in (b"1.0", b"1e3", b"true", b"[1]", b'"1e3"', b'"\xd9\xa1"')
    ),
    *(_NAME + b'"version": "%s"}' % (b"9" * digits) for digits in (10, 19, 4_301, 100_000)),
    *(
        _NAME + b'"version": "%s"}' % text
        for text in (b"-1", b"0", b" 1", b"1_0", b"+1", b"0x1", b"")
    ),
    b'{"name": "a", "name": "churn"}',
    b'{"name": "churn", "name": null, "name": ["x"]}',
    b"{" + b'"name": "churn", ' * 100_000 + b'"key": "a"}',
    b"{" + b", ".join(b'"k%d": 1' % place for place in range(100_000)) + b"}",
    *(
        b'{"%s": "\\ud800", "name": "churn"}' % word
        for word in (b"name", b"key", b"value", b"\\udfff")
    ),
    *(_NAME + b'"stage": "%s", "version": "1"}' % text for text in (b"\\ud800", b"\\udc00\\ud800")),
    b'{"name": "churn", "status": "\\ud800", "url": "https://127.0.0.1:1/", "events": [{}]}',
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [{"entity": "\\ud800"}]}',
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [{"entity": {"a": ["\\ud800"]}}]}',
    b'{"name": "hook", "url": "https://127.0.0.1:1/\\ud800", "events": [{"entity": 1}]}',
    b'{"name": "\\ud800", "url": "https://127.0.0.1:1/", "events": [{"entity": 1, "action": 1}]}',
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [{"entity": %s}]}' % (b"9" * 5_000),
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [{"entity": -1, "action": 1e400}]}',
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [%s{}]}' % (b"{}, " * 100_000),
    b'{"name": "hook", "url": "https://127.0.0.1:1/", "events": [null]}',
    b'{"name": "churn", "tags": [%s]}' % b", ".join([b'{"key": "a", "value": "b"}'] * 50_000),
    b'{"name": "churn", "tags": [{"key": {}, "value": []}, null, 1]}',
    b'{"name": "churn", "tags": {"key": "a"}}',
    b'{"name": "churn", "stages": [%s]}' % b", ".join([b'"Production"'] * 100_000),
    b'{"name": "churn", "stages": [[["Production"]]]}',
    b'{"name": "churn", "version": "1", "stage": "%s"}' % ("a" + "\u0315\u0300" * 500_000).encode(),
    b'{"name": "%s", "new_name": "x"}' % ("a" + "\u0315\u0300" * 500_000).encode(),
    b'{"name": "churn", "stages": ["%s"]}' % ("a" + "\u0315\u0300" * 500_000).encode(),
    b'{"name": "churn", "key": "%s", "value": "b"}' % (b"a/../" * 200_000),
    b'{"name": "%s"}' % (b"a/" * 1_000_000),
    b'{"name": "%s"}' % (b"\\u0000" * 100_000),
    b'{"name": "churn", "description": "%s"}' % (b"\\n" * 1_000_000),
    b'{"name": "churn", "description": "%s"}' % (b"x" * 4_100_000),
    b'{"name": "churn", "source": "%s"}' % (b"%25" * 300_000),
    b'{"name": "churn", "source": "%s"}' % (b"%252e" * 2_000),
    b'{"name": "churn", "source": "s3://%s"}' % (b"[" * 100_000),
    b'"' + json.dumps('{"name": "churn"}').encode().replace(b'"', b'\\"') + b'"',
    b'"' + b"\\" * 100_000,
    b'"' * 100_000,
    b'{"__class__": "x", "__proto__": {}, "name": {"$ne": null}}',
    b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    b"name: !!python/object/apply:os.system [id]",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93",
    b"name=churn&new_name=x",
)
_WRITES = (
    *((b"POST", f"/registered-models/{name}".encode()) for name in ("create", "rename", "set-tag")),
    (b"POST", b"/registered-models/get-latest-versions"),
    (b"PATCH", b"/registered-models/update"),
    (b"POST", b"/model-versions/create"),
    (b"POST", b"/model-versions/transition-stage"),
    (b"POST", b"/webhooks"),
    (b"DELETE", b"/model-versions/delete-tag"),
)


def _bodies(writer: Writer) -> list[bytes]:
    return [
        writer.raw(
            method + b" /api/2.0/mlflow" + path + b" HTTP/1.1",
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            body=body,
        )
        for body in _BODIES
        for method, path in _WRITES
    ]


def _encoded(writer: Writer) -> list[bytes]:
    bomb = gzip.compress(bytes(64 << 20))
    sent: tuple[tuple[bytes, bytes], ...] = (
        (b"content-encoding: gzip", bomb),
        (b"content-encoding: gzip", gzip.compress(_TAG)),
        (b"content-encoding: deflate", bomb),
        (b"content-encoding: br", bomb),
        (b"content-encoding: gzip, gzip, gzip", bomb),
        (b"content-type: application/json; charset=utf-7", _TAG),
        (b"content-type: application/json; charset=" + b"x" * 10_000, _TAG),
        (b"content-type: text/plain", _TAG),
        (b"content-type: multipart/form-data; boundary=x", b"--x\r\n\r\n" * 10_000),
        (b"content-type: application/x-www-form-urlencoded", b"a=b&" * 100_000),
        (b"content-type: ", _TAG),
        (b"x: y", _TAG),
    )
    found = []
    for header, body in sent:
        given = [b"content-length: %d" % len(body), header]
        if not header.startswith((b"content-type", b"x:")):
            given.append(b"content-type: application/json")
        found.append(writer.raw(b"POST " + _SET_TAG + b" HTTP/1.1", *given, body=body))
    return found


@contextmanager
def _left(target: Target) -> Iterator[Gun]:
    """Begin requests, and hang up before they end."""
    written = Writer(target).raw(
        b"POST " + _SET_TAG + b" HTTP/1.1",
        b"content-type: application/json",
        b"content-length: %d" % len(_TAG),
        body=_TAG,
    )

    def shoot(number: int) -> Answer:
        asks = Connection(target.http_address)
        asks.tell(written[: number * 7 % len(written)])
        asks.close()
        return Answer("closed")

    yield shoot


def kinds() -> list[Kind]:
    """List the kinds of hostile requests."""
    codes = REFUSALS | {"200", "closed"}
    # Some promise more than they send, and the server may wait for it.
    waiting = (
        ("HTTP: lengths that contradict", _smuggled),
        ("HTTP: chunks", _chunks),
        ("HTTP: odd, large and many headers", _heads),
        ("HTTP: methods", _methods),
    )
    return [
        *(
            Kind(name, codes | {"silence"}, _each(requests, seconds=_SHORT_SECONDS), at_once=8)
            for name, requests in waiting
        ),
        Kind("HTTP: targets", codes, _each(_targets)),
        Kind("HTTP: bodies", codes, _each(_bodies), few=len(_BODIES) * len(_WRITES)),
        Kind("HTTP: encodings and types", codes, _each(_encoded)),
        Kind("HTTP: requests begun and left", frozenset({"closed"}), _left),
    ]
