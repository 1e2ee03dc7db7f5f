"""Every RPC of the contract is a line of `Registry`, and nothing else in it looks like one."""

from __future__ import annotations

import re

from stagewire.service.registry import Registry
from tests.contract import protos

#: Streams are served beside the table: they are cursors on the log, not calls.
STREAMS = {
    method.name for method in protos.methods() if method.server_streaming or method.client_streaming
}
CALLS = {method.name for method in protos.methods()} - STREAMS


def test_watches_and_exports_are_the_only_streams() -> None:
    assert {"Watch", "ExportRegistry"} == STREAMS


def test_rpc_names_are_unique_across_services() -> None:
    names = [method.name for method in protos.methods()]

    assert len(names) == len(set(names))


def test_every_rpc_is_in_the_table() -> None:
    assert {name for name in CALLS if not hasattr(Registry, name)} == set()


def test_the_table_has_no_operation_that_the_contract_lacks() -> None:
    operations = {name for name in vars(Registry) if re.match(r"[A-Z][a-z]", name)}

    assert operations - CALLS == set()
