"""What is asked: the registry that every database starts from, and each caller's requests.

A version has a source, a run, a commit, two tags and three parameters. Every caller has a model
of its own. Writes carry a request_id, as the SDK's do.
"""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.callers import ANONYMOUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.service.registry import Registry

CALLERS = 64
WRITERS = 16
VERSIONS = 4
STAGE = "Production"
FAN_OUTS = (100, 1000, 5000)

GET = "/modelregistry.v1.RegistryService/GetModelVersion"
RESOLVE = "/modelregistry.v1.RegistryService/ResolveModelVersion"
CREATE = "/modelregistry.v1.RegistryService/CreateModelVersion"
TRANSITION = "/modelregistry.v1.StageService/TransitionStage"
WATCH = "/modelregistry.v1.WatchService/Watch"


def _version() -> pb.ModelVersion:
    return pb.ModelVersion(
        source="s3://models/churn/8f14e45fceea167a5a36dedd4bea2543/artifacts/model",
        tags={"team": "growth", "validated": "true"},
        params={"learning_rate": "0.05", "max_depth": "8", "n_estimators": "400"},
        lineage=pb.Lineage(
            run_id="8f14e45fceea167a5a36dedd4bea2543",
            git_commit="9c1185a5c5e9fc54612808977ee8f548b2258d31",
        ),
    )


def seed(registry: Registry) -> bytes:
    """Fill a fresh registry; answers a GetModelVersionResponse, serialised, for the echoes."""
    registry.bootstrap()
    read = [f"read-{n:02}" for n in range(CALLERS)]
    moved = [f"move-{n:02}" for n in range(WRITERS)] + [watched(n) for n in FAN_OUTS]
    created = [f"create-{n:02}" for n in range(WRITERS)]
    for name in (*read, *moved, *created):
        request = pb.CreateModelRequest(model=pb.Model(name=name))
        registry.CreateModel(request, ANONYMOUS)
    for name in (*read, *moved):
        for _ in range(VERSIONS if name in read else 2):
            registry.CreateModelVersion(
                pb.CreateModelVersionRequest(model=name, version=_version()), ANONYMOUS
            )
        registry.TransitionStage(
            pb.TransitionStageRequest(model=name, version=1, stage=STAGE), ANONYMOUS
        )
    answer = registry.GetModelVersion(
        pb.GetModelVersionRequest(model=read[0], version=1), ANONYMOUS
    )
    return answer.SerializeToString()


def watched(streams: int) -> str:
    """Name the model that so many streams watch."""
    return f"watched-{streams}"


def own_models(streams: int) -> list[str]:
    """Name a model for each of so many streams; only the first exist, and are changed."""
    return [f"read-{n:02}" for n in range(CALLERS)] + [f"own-{n}" for n in range(CALLERS, streams)]


def gets(*, include_metrics: bool = False) -> list[Iterator[bytes]]:
    """Ask for one version after the other of the caller's model; metrics are the database's."""
    return [
        itertools.cycle(
            [
                pb.GetModelVersionRequest(
                    model=f"read-{n:02}", version=v, include_metrics=include_metrics
                ).SerializeToString()
                for v in range(1, VERSIONS + 1)
            ]
        )
        for n in range(CALLERS)
    ]


def resolves(*, include_metrics: bool = False) -> list[Iterator[bytes]]:
    """Ask what Production of the caller's model is."""
    return [
        itertools.repeat(
            pb.ResolveModelVersionRequest(
                model=f"read-{n:02}", stage=STAGE, include_metrics=include_metrics
            ).SerializeToString()
        )
        for n in range(CALLERS)
    ]


def creates() -> list[Iterator[bytes]]:
    """Register version after version of the caller's model."""
    field = pb.CreateModelVersionRequest.REQUEST_ID_FIELD_NUMBER
    return [
        _identified(
            field,
            pb.CreateModelVersionRequest(
                model=f"create-{n:02}", version=_version()
            ).SerializeToString(),
        )
        for n in range(WRITERS)
    ]


def transitions() -> list[Iterator[bytes]]:
    """Promote the caller's two versions in turn, each archiving the other."""
    return [promotions(f"move-{n:02}") for n in range(WRITERS)]


def promotions(model: str) -> Iterator[bytes]:
    """Promote version 2, then 1, then 2 of a model whose version 1 is in the stage."""
    field = pb.TransitionStageRequest.REQUEST_ID_FIELD_NUMBER
    return _identified(
        field,
        *(
            pb.TransitionStageRequest(
                model=model, version=version, stage=STAGE, leave_other_stages=True
            ).SerializeToString()
            for version in (2, 1)
        ),
    )


def _identified(field: int, *messages: bytes) -> Iterator[bytes]:
    """Repeat messages, each time with a request_id of its own."""
    prefix = secrets.token_hex(10)
    for count, message in enumerate(itertools.cycle(messages)):
        request_id = f"{prefix}{count:012}".encode()
        yield message + bytes([field << 3 | 2, len(request_id)]) + request_id
