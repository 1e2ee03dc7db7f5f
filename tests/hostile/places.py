"""Every place of the contract where a text can stand, and a request with a text in it there.

Places come from the descriptors, so that a new field is hit without a line here. What surrounds
the text is as good as a request can be, or a refusal of something else would hide the place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from modelregistry.v1 import limits_pb2

from stagewire.server import servicers
from tests.hostile.texts import Text, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, MethodDescriptor
    from google.protobuf.message import Message

_TEXTUAL = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
#: Stands where no text of a `str` may: the bytes are put in its place once all is written.
_PLACEHOLDER = "\x7f"

#: What fields of these names hold, where they have to hold something or are named with their
#: message, unless the text stands there. `#` is another number each time. What would take away
#: the object that all the other requests are about goes as far as it can without doing it.
_USUAL: dict[str, Any] = {
    "CreateModelRequest.namespace": "default",
    "Namespace.name": "space-#",
    "GetNamespaceRequest.name": "default",
    "UpdateNamespaceRequest.name": "default",
    "UpdateNamespaceRequest.update_mask": ["description"],
    "DeleteNamespaceRequest.name": "space-0",
    "Scope.role": 1,
    "Model.id": "00000000-0000-4000-8000-#",
    "Model.name": "made-#",
    "UpdateModelRequest.update_mask": ["description", "owner"],
    "RenameModelRequest.new_name": "renamed-#",
    "RenameModelRequest.expected_revision": 1,
    "DeleteModelRequest.expected_revision": 1,
    "DeleteModelTagsRequest.keys": "key",
    "UpdateModelVersionRequest.update_mask": ["description", "status_message"],
    "DeleteModelVersionRequest.expected_revision": 1,
    "DeleteModelVersionTagsRequest.keys": "key",
    "GetLatestVersionsRequest.stages": "Production",
    "DeleteAliasRequest.expected_revision": 1,
    "Stage.name": "Stage #",
    "CreateStageRequest.validate_only": True,
    "UpdateStageRequest.update_mask": ["description", "displace_to"],
    "DeleteStageRequest.stage": "Archived",
    "RemoveFromStageRequest.expected_revision": 1,
    "ResolveModelVersionRequest.model": "churn",
    "RollbackStageRequest.expected_revision": 1,
    "Metric.key": "auc",
    "Webhook.name": "hook-#",
    "Webhook.url": "https://127.0.0.1:1/hook",
    "Webhook.events": "registered_model.created",
    "CreateWebhookRequest.validate_only": True,
    "UpdateWebhookRequest.update_mask": ["name", "description", "models", "model_prefix"],
    "WebhookUpdate.name": "hook",
    "DeleteWebhookRequest.expected_revision": 1,
    "RedeliverWebhookRequest.delivery_id": "1-0",
    "RegistryRecord.model": ...,
    "NameRecord.name": "churn",
    "TextRecord.text": "a text",
    "CreateGrantRequest.validate_only": True,
    "agent": "gpu-7",
    "alias": "champion",
    "event": "registered_model.created",
    "key": "auc",
    "model": "churn",
    "reason": "because",
    "stage": "Production",
    "subject": "ci",
    "target": "gpu-7/0",
    "target_model": "copied",
    "version": 1,
}
#: What does not go together with the text that stands in the field.
_INSTEAD_OF = {"uri": "model"}


class Place(NamedTuple):
    """One text of an RPC's request: its path from the request on."""

    method: MethodDescriptor
    path: tuple[str, ...]

    @property
    def rpc(self) -> str:
        """Give the RPC's path on the wire."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def __str__(self) -> str:
        """Name it."""
        return f"{self.method.name}:{'.'.join(self.path)}"


def methods() -> list[MethodDescriptor]:
    """List every RPC of the contract."""
    return [method for service in servicers.SERVICES for method in service.methods]


def places() -> list[Place]:
    """List every text and byte string of every request."""
    return [Place(m, path) for m in methods() for path in _texts(m.input_type, ())]


def _texts(of: Descriptor, within: tuple[Descriptor, ...]) -> Iterator[tuple[str, ...]]:
    for field in of.fields:
        if field.type in _TEXTUAL:
            yield (field.name,)
        elif field.message_type is not None and field.message_type not in within:
            for path in _texts(field.message_type, (*within, of)):
                yield (field.name, *path)


class Writer:
    """Writes requests to a registry in which these objects are."""

    def __init__(self, **ids: str) -> None:
        """`ids` are those that the registry gave: `model_id`, `id`, `delivery_id`, `log_id`."""
        self._usual = {**_USUAL, **ids}
        self._count = 0

    def usual(self, method: MethodDescriptor) -> bytes:
        """Write a request in which nothing is hostile."""
        self._count += 1
        written: bytes = self._filled(method.input_type).SerializeToString()
        return written

    def with_text(self, place: Place, text: Text) -> bytes:
        """Write a request with a text at one place."""
        self._count += 1
        request = self._filled(place.method.input_type)
        if place.path[-1] in _INSTEAD_OF:
            request.ClearField(_INSTEAD_OF[place.path[-1]])
        octets = as_bytes(text)
        plain = isinstance(text, str) and text.isprintable()
        stands_in = _PLACEHOLDER * len(octets)
        self._set(request, place.path, octets.decode() if plain else stands_in)
        written: bytes = request.SerializeToString()
        return written if plain else written.replace(stands_in.encode(), octets)

    def _filled(self, of: Descriptor) -> Any:
        message = message_factory.GetMessageClass(of)()
        for field in of.fields:
            self._fill(message, field)
        return message

    def _fill(self, message: Any, field: FieldDescriptor) -> None:
        limit = field.GetOptions().Extensions[limits_pb2.limit]
        name = f"{message.DESCRIPTOR.name}.{field.name}"
        needed = limit.required or limit.min_length or limit.min_items or limit.HasField("min")
        if name not in self._usual and (not needed or _is_alternative(field)):
            return
        value = self._usual.get(name, self._usual.get(field.name))
        inner = field.message_type
        if inner is None:
            if value is not None and field.is_repeated:
                getattr(message, field.name).append(value)
            elif value is not None:
                setattr(message, field.name, self._numbered(value))
        elif inner.GetOptions().map_entry:
            getattr(message, field.name)["key"] = "value"
        elif inner.full_name == "google.protobuf.FieldMask":
            getattr(message, field.name).paths.extend(value)
        elif field.is_repeated:
            getattr(message, field.name).append(self._filled(inner))
        else:
            getattr(message, field.name).CopyFrom(self._filled(inner))

    def _numbered(self, value: Any) -> Any:
        return value.replace("#", f"{self._count:012}") if isinstance(value, str) else value

    def _set(self, message: Any, path: tuple[str, ...], text: str) -> None:
        name, *rest = path
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            held = getattr(message, name)
            inner = field.message_type.fields_by_name["value"]
            if inner.message_type is not None:
                self._set(held["key"], tuple(rest[1:]), text)
            elif rest == ["key"]:
                held[text] = "value"
            else:
                held["key"] = text
        elif field.message_type is not None:
            held = getattr(message, name)
            if field.is_repeated:
                held = held[0] if held else _appended(held, self._filled(field.message_type))
            elif not message.HasField(name):
                held.CopyFrom(self._filled(field.message_type))
            self._set(held, tuple(rest), text)
        else:
            value = text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
            if field.is_repeated:
                del getattr(message, name)[:]
                getattr(message, name).append(value)
            else:
                setattr(message, name, value)


def _appended(held: Any, message: Message) -> Any:
    held.append(message)
    return held[0]


def _is_alternative(field: FieldDescriptor) -> bool:
    """Tell whether a field is one of several of which a message has one."""
    chosen = field.containing_oneof
    return chosen is not None and len(chosen.fields) > 1
