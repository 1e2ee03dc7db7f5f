"""Orders: what an executor is asked to do, in words that a script understands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from google.protobuf import json_format

if TYPE_CHECKING:
    from stagewire import pb

Action = Literal["deploy", "withdraw"]


@dataclass(frozen=True, slots=True)
class Order:
    """Run this version, or none.

    An executor may get the same order twice, after a crash or a failure, and must then end up
    where it would have after one. `version` is 0 and `source` empty for a withdrawal;
    `previous_version` is what runs now, 0 if nothing does.
    """

    action: Action
    target: str
    namespace: str
    model: str
    model_id: str
    stage: str
    version: int
    previous_version: int
    source: str
    content_digest: str
    revision: int
    model_version: pb.ModelVersion | None

    def as_json(self) -> dict[str, Any]:
        """Return the order for JSON, the version's fields named as in the contract."""
        return {
            **self._plain(),
            "model_version": None
            if self.model_version is None
            else json_format.MessageToDict(self.model_version, preserving_proto_field_name=True),
        }

    def as_environment(self) -> dict[str, str]:
        """Return the order as variables: STAGEWIRE_ACTION, STAGEWIRE_VERSION and so on."""
        return {f"STAGEWIRE_{name.upper()}": str(value) for name, value in self._plain().items()}

    def _plain(self) -> dict[str, str | int]:
        names = [field.name for field in fields(self) if field.name != "model_version"]
        return {name: getattr(self, name) for name in names}


class Rejected(Exception):
    """Raised by an executor that will not carry out an order, now or later."""


class Interrupted(Exception):
    """Raised by an executor that was ended half-way: nobody knows what runs now."""


#: Carries out an order, or raises: `Rejected` to refuse it for good, else to be asked again.
#: After `Interrupted` what ran before is asked for again too; after the rest it still runs.
Executor = Callable[[Order], object]
