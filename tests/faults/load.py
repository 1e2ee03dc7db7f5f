"""Writers that never lose count: each write has its own request_id and is repeated until known."""

from __future__ import annotations

import random
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import grpc
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub
from modelregistry.v1.stage_service_pb2_grpc import StageServiceStub

from stagewire import pb
from tests.faults.recordings import WriteRecord

if TYPE_CHECKING:
    from collections.abc import Callable

#: After these nobody knows whether the write was made; after CONTENTION it was not.
UNKNOWN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
AGAIN = {grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED}
SPACES = ("default", "risk")
NAMES = tuple(f"{team}-{number}" for team in ("risk", "churn") for number in range(4))
STAGES = ("Staging", "Production", "Archived", "production", "None")


class Writer(threading.Thread):
    """One client that writes at random, each write with its own request_id."""

    def __init__(self, channel: grpc.Channel, seed: int, *, pause_seconds: float = 0.005) -> None:
        super().__init__(name=f"writer-{seed}")
        self._random = random.Random(seed)
        self._registry = RegistryServiceStub(channel)
        self._stages = StageServiceStub(channel)
        self._pause_seconds = pause_seconds
        self._halted = threading.Event()
        self._abandoned = threading.Event()
        self._ids: list[str] = []
        self.records: list[WriteRecord] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._halted.is_set():
                self._write(*self._something())
                self._halted.wait(self._pause_seconds)
        except BaseException as error:  # noqa: BLE001  # told by `stop`
            self.failure = error

    def abandon(self) -> None:
        """Have it end, also with a write at hand of which nothing is known."""
        self._abandoned.set()
        self._halted.set()

    def stop(self) -> None:
        """End it after the write at hand is known, and raise what it stumbled over."""
        self._halted.set()
        self.join(30)
        assert not self.is_alive(), self.name
        if self.failure is not None:
            raise self.failure

    def _write(self, call: Callable[..., Any], request: Any) -> None:
        request.request_id = uuid.uuid4().hex
        record = WriteRecord(request.request_id, time.monotonic())
        self.records.append(record)
        answer = self._settle(call, request, record)
        if answer is None:
            return
        record.acknowledged = time.monotonic()
        record.answers.append(answer)
        self._learn(answer)
        if self._random.random() < 0.1:
            repeated = self._settle(call, request, WriteRecord("", 0))
            if repeated is None:
                record.refusal = "a repetition was refused"
            else:
                record.answers.append(repeated)

    def _settle(self, call: Callable[..., Any], request: Any, record: WriteRecord) -> Any:
        """Repeat one request until it is known what became of it; None for a refusal."""
        while True:
            record.attempts += 1
            try:
                return call(request, timeout=5, wait_for_ready=True)
            except grpc.RpcError as error:
                code = error.code()
                if code in UNKNOWN or code in AGAIN:
                    # Not a wait for anything: only no tight loop against a server that is gone.
                    if self._abandoned.wait(0.02):
                        raise
                    continue
                record.refusal = f"{code.name}: {error.details()}"
                return None

    def _learn(self, answer: Any) -> None:
        if isinstance(answer, (pb.CreateModelResponse, pb.DeleteModelResponse)):
            self._ids.append(answer.model.id)

    def _something(self) -> tuple[Callable[..., Any], Any]:
        """Make up a request, mostly of a kind that succeeds."""
        chance = self._random
        space, name, number = chance.choice(SPACES), chance.choice(NAMES), chance.randint(1, 6)
        named: dict[str, Any] = {"namespace": space, "model": name}
        numbered = {**named, "version": number}
        registry, stages = self._registry, self._stages
        tags = {"n": str(chance.randint(1, 9))}
        makers: dict[Callable[[], tuple[Callable[..., Any], Any]], int] = {
            lambda: (
                registry.CreateModel,
                pb.CreateModelRequest(
                    namespace=space,
                    model=pb.Model(name=name, description="é" * chance.choice((0, 10, 2000))),
                ),
            ): 8,
            lambda: (
                registry.CreateModelVersion,
                pb.CreateModelVersionRequest(
                    **named, version=pb.ModelVersion(source="s3://b", params={"lr": str(number)})
                ),
            ): 20,
            lambda: (
                stages.TransitionStage,
                pb.TransitionStageRequest(
                    **numbered,
                    stage=chance.choice(STAGES),
                    displace=chance.choice(tuple(pb.Displacement.values())),
                    leave_other_stages=chance.random() < 0.5,
                    reason="load",
                ),
            ): 25,
            lambda: (
                stages.RollbackStage,
                pb.RollbackStageRequest(**named, stage="Production"),
            ): 7,
            lambda: (
                stages.RemoveFromStage,
                pb.RemoveFromStageRequest(**numbered, stage="Production"),
            ): 4,
            lambda: (
                stages.BatchTransitionStages,
                pb.BatchTransitionStagesRequest(
                    namespace=space,
                    transitions=[
                        pb.Transition(model=other, version=number, stage=chance.choice(STAGES))
                        for other in sorted({name, chance.choice(NAMES)})
                    ],
                ),
            ): 6,
            lambda: (
                registry.SetModelVersionTags,
                pb.SetModelVersionTagsRequest(**numbered, tags=tags),
            ): 8,
            lambda: (registry.SetModelTags, pb.SetModelTagsRequest(**named, tags=tags)): 4,
            lambda: (
                registry.SetAlias,
                pb.SetAliasRequest(
                    **numbered, alias=chance.choice(("champion", "b")), reassign=True
                ),
            ): 6,
            lambda: (
                registry.DeleteModelVersion,
                pb.DeleteModelVersionRequest(**numbered, force=True),
            ): 3,
            lambda: (
                registry.UndeleteModelVersion,
                pb.UndeleteModelVersionRequest(**numbered),
            ): 2,
            lambda: (
                registry.RenameModel,
                pb.RenameModelRequest(**named, new_name=chance.choice(NAMES)),
            ): 3,
            lambda: (registry.DeleteModel, pb.DeleteModelRequest(**named, force=True)): 2,
            lambda: (
                registry.UndeleteModel,
                pb.UndeleteModelRequest(
                    namespace=space, model_id=chance.choice(self._ids or ["unknown"])
                ),
            ): 2,
        }
        (make,) = chance.choices(tuple(makers), tuple(makers.values()))
        return make()
