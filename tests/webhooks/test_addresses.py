"""Where webhooks may lead: nowhere that is not everybody's, whatever a name server says when."""

from __future__ import annotations

import ipaddress
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from stagewire.hooks import Vault
from stagewire.server import addresses
from stagewire.server.addresses import AddressRefused, CheckedNetwork
from stagewire.server.posting import Post
from stagewire.service.deliveries import Letter, Outcome
from stagewire.service.happenings import Happening
from tests.factories import refused
from tests.receivers import Receiver, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HOST = "hooks.example"

NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104  # an address to refuse, not to bind
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "168.63.129.16",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2606:4700::5efe:7f00:1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_that_is_not_everybodys_is_refused(text: str) -> None:
    assert not addresses.is_public(ipaddress.ip_address(text))
    with pytest.raises(AddressRefused):
        addresses.check(HOST, [text])


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_let_through(text: str) -> None:
    addresses.check(HOST, [text])


def test_one_bad_address_among_good_ones_refuses_the_host() -> None:
    with pytest.raises(AddressRefused):
        addresses.check(HOST, ["8.8.8.8", "127.0.0.1"])


def test_an_interface_of_this_host_is_refused() -> None:
    with pytest.raises(AddressRefused):
        addresses.check(HOST, ["fe80::1%eth0"])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "::1", "0"],
)
def test_other_spellings_of_this_host_are_refused_at_creation(host: str) -> None:
    with refused("WEBHOOK_ADDRESS_REFUSED"):
        addresses.refuse_host(host)


def test_a_name_that_leads_nowhere_may_still_come() -> None:
    addresses.refuse_host("nowhere.invalid")
    addresses.refuse_host("a" * 300)
    addresses.refuse_host("..")


class Names:
    """A name server whose answers change from one question to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        return list(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


def letter(url: str) -> Letter:
    from datetime import UTC, datetime

    return Letter(
        id="1",
        webhook_id="w",
        url=url,
        format=1,
        secret=None,
        namespace="default",
        log_id="l",
        revision=1,
        place=0,
        time=datetime.now(tz=UTC),
        happening=Happening("registered_model.created", ("churn",), {"name": "churn"}),
    )


async def posted(url: str, names: Callable[[str, int], list[str]], **settings: Any) -> Outcome:
    trusted = settings.pop("trusted", None)
    network = CheckedNetwork(look_up=names, **settings)
    post = Post(Vault(), timeout_seconds=2, most=4, network=network, trusted=trusted)
    try:
        return await post.deliver(letter(url))
    finally:
        await post.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as listening:
        yield listening


async def test_a_name_whose_answers_change_is_judged_by_the_one_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A public address at creation, this host's own at delivery.
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    monkeypatch.setattr(addresses, "look_up", names)
    addresses.refuse_host(HOST)

    outcome = await posted(f"http://{HOST}:{receiver.port}/", names)

    assert outcome.error == "address"
    assert not receiver.posts


async def test_a_name_is_looked_up_once_for_each_attempt(receiver: Receiver) -> None:
    # Judged good, and bad for whoever would ask again.
    names = Names(["127.0.0.1"], ["192.0.2.1"])

    outcome = await posted(f"http://{HOST}:{receiver.port}/", names, allows_private=True)

    assert outcome.delivered
    assert names.asked == [HOST]
    assert receiver.posts[0].headers["host"] == f"{HOST}:{receiver.port}"


async def test_a_connection_is_not_kept_for_the_next_attempt(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"])
    network = CheckedNetwork(look_up=names, allows_private=True)
    post = Post(Vault(), timeout_seconds=2, most=4, network=network)

    for _ in range(2):
        assert (await post.deliver(letter(f"http://{HOST}:{receiver.port}/"))).delivered
    await post.close()

    assert names.asked == [HOST, HOST]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def speaking_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_tls_is_spoken_with_the_name_at_the_address_that_was_judged(
    authority: trustme.CA,
) -> None:
    asked: list[str | None] = []
    tls = speaking_tls(authority, HOST)
    tls.sni_callback = lambda _socket, name, _context: asked.append(name)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with Receiver(tls=tls) as receiver:
        url = f"https://{HOST}:{receiver.port}/"
        outcome = await posted(url, Names(["127.0.0.1"]), allows_private=True, trusted=trusted)

    assert outcome.delivered
    assert asked == [HOST]
    assert receiver.posts[0].headers["host"] == f"{HOST}:{receiver.port}"


@pytest.mark.parametrize("name", ["other.example", "127.0.0.1"])
async def test_a_certificate_of_another_name_is_refused(authority: trustme.CA, name: str) -> None:
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with Receiver(tls=speaking_tls(authority, name)) as receiver:
        url = f"https://{HOST}:{receiver.port}/"
        outcome = await posted(url, Names(["127.0.0.1"]), allows_private=True, trusted=trusted)

    assert outcome.error == "tls"
    assert not receiver.posts


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: trustme.CA) -> None:
    with Receiver(tls=speaking_tls(authority, HOST)) as receiver:
        url = f"https://{HOST}:{receiver.port}/"
        outcome = await posted(url, Names(["127.0.0.1"]), allows_private=True)

    assert outcome.error == "tls"


async def test_a_body_without_end_is_not_read(receiver: Receiver) -> None:
    receiver.answer = lambda _post: Reply(200, body=b"x" * 50_000_000)

    outcome = await posted(
        f"http://{HOST}:{receiver.port}/", Names(["127.0.0.1"]), allows_private=True
    )

    assert outcome.delivered


async def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver) -> None:
    names = Names(["::1", "127.0.0.1"])

    outcome = await posted(f"http://{HOST}:{receiver.port}/", names, allows_private=True)

    assert outcome.delivered


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("-5", 0.0), ("soon", None), ("Thu, 01 Jan 1970", None)]
)
async def test_retry_after_is_read_where_it_is_one(
    receiver: Receiver, said: str, seconds: float | None
) -> None:
    receiver.answer = lambda _post: Reply(503, {"Retry-After": said})

    outcome = await posted(
        f"http://{HOST}:{receiver.port}/", Names(["127.0.0.1"]), allows_private=True
    )

    if seconds is None:
        assert outcome.retry_after_seconds in {None, 0.0}
    else:
        assert outcome.retry_after_seconds == seconds
