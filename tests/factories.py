"""Short ways to make what a test is not about, and to look where no RPC does."""

from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from google.protobuf.field_mask_pb2 import FieldMask

from stagewire import errors, pb
from stagewire.callers import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stagewire.service.registry import Registry

MODEL = "churn"


def model(registry: Registry, name: str = MODEL, *, namespace: str = "", **fields: Any) -> pb.Model:
    """Register a model."""
    request = pb.CreateModelRequest(namespace=namespace, model=pb.Model(name=name, **fields))
    return registry.CreateModel(request, ANONYMOUS).model


def version(
    registry: Registry,
    name: str = MODEL,
    *,
    namespace: str = "",
    metrics: Sequence[pb.Metric] = (),
    **fields: Any,
) -> pb.ModelVersion:
    """Register the next version of a model."""
    request = pb.CreateModelVersionRequest(
        namespace=namespace, model=name, version=pb.ModelVersion(**fields), metrics=metrics
    )
    return registry.CreateModelVersion(request, ANONYMOUS).version


def describe(registry: Registry, name: str, number: int, text: str) -> pb.ModelVersion:
    """Give a version a description."""
    request = pb.UpdateModelVersionRequest(
        model=name,
        version=number,
        update=pb.ModelVersionUpdate(description=text),
        update_mask=FieldMask(paths=["description"]),
    )
    return registry.UpdateModelVersion(request, ANONYMOUS).version


def versions(registry: Registry, count: int, name: str = MODEL) -> list[pb.ModelVersion]:
    """Register a model with so many versions."""
    model(registry, name)
    return [version(registry, name) for _ in range(count)]


def promote(
    registry: Registry, number: int, stage: str = "Production", *, name: str = MODEL, **fields: Any
) -> pb.TransitionStageResponse:
    """Move a version into a stage."""
    request = pb.TransitionStageRequest(model=name, version=number, stage=stage, **fields)
    return registry.TransitionStage(request, ANONYMOUS)


def rollback(
    registry: Registry, stage: str = "Production", *, name: str = MODEL, **fields: Any
) -> pb.RollbackStageResponse:
    """Roll a stage back."""
    return registry.RollbackStage(
        pb.RollbackStageRequest(model=name, stage=stage, **fields), ANONYMOUS
    )


def alias(
    registry: Registry, number: int, text: str = "champion", *, name: str = MODEL, **fields: Any
) -> pb.SetAliasResponse:
    """Point an alias at a version."""
    request = pb.SetAliasRequest(model=name, version=number, alias=text, **fields)
    return registry.SetAlias(request, ANONYMOUS)


def stage(registry: Registry, name: str, *, namespace: str = "", **fields: Any) -> pb.Stage:
    """Define a stage."""
    request = pb.CreateStageRequest(namespace=namespace, stage=pb.Stage(name=name, **fields))
    return registry.CreateStage(request, ANONYMOUS).stage


def rename(registry: Registry, name: str, new_name: str) -> pb.Model:
    """Give a model another name."""
    request = pb.RenameModelRequest(model=name, new_name=new_name)
    return registry.RenameModel(request, ANONYMOUS).model


def delete(registry: Registry, name: str = MODEL, *, force: bool = False) -> pb.Model:
    """Delete a model."""
    request = pb.DeleteModelRequest(model=name, force=force)
    return registry.DeleteModel(request, ANONYMOUS).model


def undelete(registry: Registry, model_id: str) -> pb.Model:
    """Bring a deleted model back."""
    return registry.UndeleteModel(pb.UndeleteModelRequest(model_id=model_id), ANONYMOUS).model


def delete_version(
    registry: Registry, number: int, name: str = MODEL, *, force: bool = False
) -> pb.ModelVersion:
    """Delete a version."""
    request = pb.DeleteModelVersionRequest(model=name, version=number, force=force)
    return registry.DeleteModelVersion(request, ANONYMOUS).version


def webhook(
    registry: Registry, *events: str, url: str = "https://hooks.example/in", **fields: Any
) -> pb.Webhook:
    """Create a webhook, for everything unless events are named."""
    wanted = pb.Webhook(name="ci", url=url, events=events or ["*"], **fields)
    return registry.CreateWebhook(pb.CreateWebhookRequest(webhook=wanted), ANONYMOUS).webhook


def hand_out_sessions(registry: Registry, count: int = 10) -> None:
    """Have sessions up to this one handed out, as if so many streams had been opened."""
    registry.database.next_sessions(count)


def found(registry: Registry, name: str = MODEL, *, namespace: str = "") -> pb.GetModelResponse:
    """Read a model with what its stages and aliases hold."""
    return registry.GetModel(pb.GetModelRequest(namespace=namespace, model=name), ANONYMOUS)


def numbered(
    registry: Registry, number: int, name: str = MODEL, *, include_metrics: bool = False
) -> pb.ModelVersion:
    """Read a version."""
    request = pb.GetModelVersionRequest(model=name, version=number, include_metrics=include_metrics)
    return registry.GetModelVersion(request, ANONYMOUS).version


def holders(registry: Registry, stage: str = "Production", name: str = MODEL) -> list[int]:
    """Read the numbers in a stage."""
    held = {held.stage: list(held.versions) for held in found(registry, name).stages}
    return held.get(stage, [])


def head(registry: Registry) -> int:
    """Read the log's newest revision."""
    return registry.GetHead(pb.GetHeadRequest(), ANONYMOUS).revision


def last_event(registry: Registry, *, namespace: str = "*") -> pb.Event:
    """Read the log's newest event."""
    request = pb.ListEventsRequest(namespace=namespace, page_size=1)
    return registry.ListEvents(request, ANONYMOUS).events[0]


class Refused:
    """The refusal that a block of `refused` ended with."""

    error: errors.RegistryError


@contextlib.contextmanager
def refused(reason: str) -> Iterator[Refused]:
    """Expect a refusal with this reason."""
    caught = Refused()
    with pytest.raises(errors.RegistryError) as info:
        yield caught
    caught.error = info.value
    assert info.value.reason == reason, info.value.message


def sql(database_url: str, statement: str, **values: Any) -> list[Any]:
    """Run SQL behind the registry's back, as an operator could, and give its rows."""
    engine = sa.create_engine(
        database_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.pool.NullPool
    )
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return list(result.all()) if result.returns_rows else []


def eventually(claim: Callable[[], object], *, seconds: float = 10) -> None:
    """Wait until a claim holds."""
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not become so in time"
        time.sleep(0.01)


def without_looking_for_garbage(work: Callable[[], object], *, times: int) -> int:
    """Do something so often, and tell how many bytes more are held after it: what is in circles."""
    # What is made once, is not what is looked for.
    work()
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        gc.enable()
