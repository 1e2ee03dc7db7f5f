"""How a client connects: addresses, TLS and tokens, given or found in the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import tenacity

from stagewire import hosts, pb
from stagewire.client import Client, connections, errors
from tests.authorities import HERE, Authority, put
from tests.client.scripted import Hang, Refusal, Registry, bookmark, hello

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ELSEWHERE = "registry.example:50051"
SECRET = "sw_1_secret"


@pytest.fixture(autouse=True)
def _nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STAGEWIRE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = Authority()
    authority.issue(HERE).write(tmp_path)
    put(tmp_path / "ca.crt", authority.pem)
    put(tmp_path / "token", f"{SECRET}\n".encode())
    return {name: tmp_path / name for name in ("ca.crt", "tls.crt", "tls.key", "token")}


def speaks_tls(address: str | None = None, **given: Any) -> bool:
    return connections.settle(address, **given).credentials is not None


def sent(connection: connections.Connection) -> str:
    return dict(connection.token.metadata()).get("authorization", "")


@pytest.mark.parametrize(
    ("address", "target", "encrypted"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051", False),
        ("grpc://registry:50051", "registry:50051", False),
        ("grpcs://registry:50051", "registry:50051", True),
        ("grpcs://registry:50051/", "registry:50051", True),
        ("grpcs://[::1]:50051", "[::1]:50051", True),
        ("dns:///registry:50051", "dns:///registry:50051", False),
        ("unix:///run/registry.sock", "unix:///run/registry.sock", False),
    ],
)
def test_an_address_says_where_and_whether_tls_is_spoken(
    address: str, target: str, encrypted: bool
) -> None:
    found = connections.settle(address)

    assert found.address == target
    assert (found.credentials is not None) == encrypted


@pytest.mark.parametrize(
    "address", ["http://registry:8080", "https://registry", "grpcs://", "grpcs://registry:1/models"]
)
def test_an_address_of_something_else_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no HOST:PORT"):
        connections.settle(address)


def test_tls_is_spoken_where_anything_asks_for_it(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair: dict[str, Any] = {"certificate_file": files["tls.crt"], "key_file": files["tls.key"]}

    assert not speaks_tls()
    assert speaks_tls(tls=True)
    assert speaks_tls(ca_file=files["ca.crt"])
    assert speaks_tls(**pair)
    for name, value in (("TLS", "true"), ("CA_FILE", str(files["ca.crt"]))):
        with monkeypatch.context() as patched:
            patched.setenv(f"STAGEWIRE_{name}", value)
            assert speaks_tls()
            assert not speaks_tls(tls=False)
            assert not speaks_tls("grpc://127.0.0.1:50051")
    with monkeypatch.context() as patched:
        patched.setenv("STAGEWIRE_CA_FILE", str(files["ca.crt"]))
        patched.setenv("STAGEWIRE_TLS", "false")
        assert not speaks_tls()


@pytest.mark.parametrize(
    ("address", "given", "said"),
    [
        ("grpc://registry:1", {"tls": True}, "leave one out"),
        ("grpcs://registry:1", {"tls": False}, "leave one out"),
        ("grpc://registry:1", {"ca_file": "ca.crt"}, "turns TLS off"),
        ("registry:1", {"tls": False, "ca_file": "ca.crt"}, "turns TLS off"),
        ("registry:1", {"certificate_file": "tls.crt"}, "go together"),
        ("registry:1", {"key_file": "tls.key"}, "go together"),
        ("registry:1", {"ca_file": "token"}, "holds no PEM"),
        ("registry:1", {"token": "two words"}, "is no token"),
        ("registry:1", {"token": "caf\u00e9"}, "is no token"),
    ],
)
def test_what_does_not_go_together_is_refused(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, address: str, given: Any, said: str
) -> None:
    monkeypatch.chdir(files["token"].parent)

    with pytest.raises(ValueError, match=said):
        connections.settle(address, **given)


def test_a_word_that_is_neither_yes_nor_no_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGEWIRE_TLS", "maybe")

    with pytest.raises(ValueError, match="STAGEWIRE_TLS is 'maybe'"):
        connections.settle()


def test_a_token_is_found_where_it_is_nearest(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sent(connections.settle()) == ""
    monkeypatch.setenv("STAGEWIRE_TOKEN_FILE", str(files["token"]))
    assert sent(connections.settle()) == f"Bearer {SECRET}"
    monkeypatch.setenv("STAGEWIRE_TOKEN", "text")
    assert sent(connections.settle()) == "Bearer text"
    assert sent(connections.settle(token_file=files["token"])) == f"Bearer {SECRET}"
    assert sent(connections.settle(token="given", token_file=files["token"])) == "Bearer given"
    assert sent(connections.settle(token="")) == ""


@pytest.mark.parametrize(
    "address",
    [
        ELSEWHERE,
        f"dns:///{ELSEWHERE}",
        "10.0.0.7:50051",
        "[2001:db8::1]:50051",
        "ipv4:127.0.0.1:1,10.0.0.7:1",
        # Names may be mapped anywhere.
        "localhost.example:50051",
        "127.0.0.1.example:50051",
    ],
)
def test_a_token_does_not_go_to_another_host_in_clear(
    address: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in ({"token": SECRET}, {"token_file": files["token"]}):
        with pytest.raises(ValueError, match=r"in clear.*grpcs://") as refused:
            connections.settle(address, **given)
        assert SECRET not in str(refused.value)
        assert connections.settle(address, allow_plaintext=True, **given).token
        assert connections.settle(address, tls=True, **given).token
    monkeypatch.setenv("STAGEWIRE_ALLOW_PLAINTEXT", "true")
    assert connections.settle(address, token=SECRET).token


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:50051",
        "localhost:50051",
        "localhost",
        "[::1]:50051",
        "unix:/run/registry.sock",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
    ],
)
def test_a_token_stays_on_this_host_in_clear(address: str) -> None:
    assert hosts.is_here(address)
    assert connections.settle(address, token=SECRET).token


def test_nobody_needs_no_tls_for_another_host() -> None:
    assert not connections.settle(ELSEWHERE).token


def test_a_renewed_token_goes_with_the_next_call_and_the_next_stream(
    registry: Registry, connect: Callable[..., Any], files: dict[str, Path]
) -> None:
    registry.on("GetModel", pb.GetModelResponse())
    registry.streams = [[] for _ in range(5)]
    client = connect(token_file=files["token"])

    def ask() -> list[str | None]:
        client.registry.GetModel(pb.GetModelRequest(model="a"))
        list(client.watch(reconnect=False))
        return [call.metadata.get("authorization") for call in registry.calls[-2:]]

    assert ask() == [f"Bearer {SECRET}"] * 2
    put(files["token"], b"renewed")
    assert ask() == ["Bearer renewed"] * 2
    # Written in place, by whoever is not done yet: what was read last holds.
    files["token"].write_text("")
    assert ask() == ["Bearer renewed"] * 2
    files["token"].unlink()
    assert ask() == ["Bearer renewed"] * 2
    put(files["token"], b"late")
    assert ask() == ["Bearer late"] * 2


def test_the_bare_stubs_carry_the_token_too(registry: Registry) -> None:
    registry.streams = [[]]

    with Client(registry.address, token=SECRET) as client:
        list(client.watches.Watch(pb.WatchRequest(), timeout=5))

    assert registry.calls[-1].metadata["authorization"] == f"Bearer {SECRET}"


def test_a_token_file_that_is_no_use_is_refused_at_once(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()

    with pytest.raises(FileNotFoundError):
        Client(token_file=tmp_path / "none")
    with pytest.raises(ValueError, match="empty is empty"):
        Client(token_file=empty)


EXPIRED = Refusal("UNAUTHENTICATED", "CREDENTIALS_EXPIRED", "the token has expired")
AT_ONCE = tenacity.wait_none()


def test_a_watch_whose_token_ends_waits_for_the_renewed_one(
    registry: Registry, connect: Callable[..., Any], files: dict[str, Path]
) -> None:
    registry.streams = [
        [hello(), bookmark(3), EXPIRED],
        [EXPIRED],
        [hello(), bookmark(4), Hang()],
    ]
    client = connect(token_file=files["token"])

    watch = client.watch(backoff=AT_ONCE)
    assert next(watch).revision == 3
    put(files["token"], b"renewed")
    assert next(watch).revision == 4
    watch.close()

    said = [call.metadata["authorization"] for call in registry.calls]
    assert said[0] == f"Bearer {SECRET}"
    assert said[-1] == "Bearer renewed"


def test_a_watch_that_was_never_let_in_is_refused(
    registry: Registry, connect: Callable[..., Any], files: dict[str, Path]
) -> None:
    registry.streams = [[EXPIRED]]

    with pytest.raises(errors.StagewireError, match="has expired"):
        next(connect(token_file=files["token"]).watch(backoff=AT_ONCE))


def test_a_watch_whose_token_nobody_renews_ends_with_it(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    registry.streams = [[hello(), EXPIRED]]

    with pytest.raises(errors.StagewireError, match="has expired"):
        next(connect(token=SECRET).watch(backoff=AT_ONCE))
