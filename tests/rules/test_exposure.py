"""Who can reach an address, and what the server refuses to listen on."""

from __future__ import annotations

import pytest

from stagewire.server import exposure
from stagewire.server.exposure import Exposed

OF_THIS_HOST = [
    "127.0.0.1:50051",
    "127.9.8.7:0",
    "localhost:50051",
    "[::1]:50051",
    "unix:/run/stagewire.sock",
    "unix-abstract:stagewire",
    "",
]
BEYOND = [
    "0.0.0.0:50051",
    "[::]:50051",
    ":8080",
    "10.0.0.7:50051",
    "registry:50051",
    "localhost.example.com:50051",
    # Might be mapped, might be written for another parser: not certainly this host.
    "127.1:50051",
    "[::ffff:10.0.0.7]:50051",
    "*:50051",
]


@pytest.mark.parametrize("address", OF_THIS_HOST)
def test_who_is_on_this_host_needs_neither_tls_nor_a_name(address: str) -> None:
    exposure.refuse_plaintext([address], encrypted=False, allowed=False)
    exposure.refuse_anonymous([address], authenticates=False, allowed=False)

    assert exposure.reachable([address]) == []


@pytest.mark.parametrize("address", BEYOND)
def test_an_address_that_others_may_reach_is_refused_without_tls(address: str) -> None:
    with pytest.raises(Exposed, match=r"--tls-certificate-file.*--allow-plaintext"):
        exposure.refuse_plaintext(["127.0.0.1:1", address], encrypted=False, allowed=False)

    exposure.refuse_plaintext([address], encrypted=True, allowed=False)
    exposure.refuse_plaintext([address], encrypted=False, allowed=True)


@pytest.mark.parametrize("address", BEYOND)
def test_an_address_that_others_may_reach_is_refused_without_access_control(address: str) -> None:
    with pytest.raises(Exposed, match="--allow-anonymous"):
        exposure.refuse_anonymous([address, ""], authenticates=False, allowed=False)

    exposure.refuse_anonymous([address], authenticates=True, allowed=False)
    exposure.refuse_anonymous([address], authenticates=False, allowed=True)


def test_a_refusal_names_the_addresses_that_are_meant() -> None:
    with pytest.raises(Exposed) as refused:
        exposure.refuse_plaintext(
            ["0.0.0.0:1", "127.0.0.1:2", "[::]:3"], encrypted=False, allowed=False
        )

    assert "0.0.0.0:1 and [::]:3 can" in str(refused.value)
    assert "127.0.0.1:2" not in str(refused.value)
