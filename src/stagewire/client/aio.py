"""The asynchronous client: as `Client`, for one event loop."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING

import grpc.aio
from modelregistry.v1.access_service_pb2_grpc import AccessServiceStub
from modelregistry.v1.audit_service_pb2_grpc import AuditServiceStub
from modelregistry.v1.configuration_service_pb2_grpc import ConfigurationServiceStub
from modelregistry.v1.deployment_service_pb2_grpc import DeploymentServiceStub
from modelregistry.v1.metrics_service_pb2_grpc import MetricsServiceStub
from modelregistry.v1.namespace_service_pb2_grpc import NamespaceServiceStub
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub
from modelregistry.v1.stage_service_pb2_grpc import StageServiceStub
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub
from modelregistry.v1.webhook_service_pb2_grpc import WebhookServiceStub

from stagewire import pb
from stagewire.client import connections, errors, interceptors, requests, statuses
from stagewire.client.follower import BACKOFF, Follower
from stagewire.client.history import History
from stagewire.client.watch import AsyncWatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import tenacity


class AsyncClient:
    """One connection to a registry, for the tasks of the event loop it is made in.

    Everything is as in `Client`, awaited.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        namespace: str = "",
        token: str | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
        certificate_file: str | Path | None = None,
        key_file: str | Path | None = None,
        tls: bool | None = None,
        allow_plaintext: bool | None = None,
        timeout_seconds: float = 30.0,
        on_history_lost: Callable[[errors.HistoryLost], object] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Prepare the channel; it connects with the first call.

        Raises OSError for a file that can't be read, ValueError for what can't be connected so.
        """
        connection = connections.settle(
            address,
            token=token,
            token_file=token_file,
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            tls=tls,
            allow_plaintext=allow_plaintext,
            credentials=credentials,
        )
        self.address = connection.address
        self.namespace = namespace
        self._history = History()
        self._begun: weakref.WeakSet[AsyncWatch] = weakref.WeakSet()
        self._token = connection.token
        outgoing = interceptors.Outgoing(
            self._history, namespace=namespace, on_history_lost=on_history_lost
        )
        channel = connection.open_async(
            interceptors.AsyncUnaryCalls(
                outgoing, timeout_seconds=timeout_seconds, token=self._token
            ),
            interceptors.AsyncStreams(self._token),
        )
        self._channel = channel
        self.registry = RegistryServiceStub(channel)
        self.namespaces = NamespaceServiceStub(channel)
        self.stages = StageServiceStub(channel)
        self.metrics = MetricsServiceStub(channel)
        self.deployments = DeploymentServiceStub(channel)
        self.configuration = ConfigurationServiceStub(channel)
        self.audit = AuditServiceStub(channel)
        self.webhooks = WebhookServiceStub(channel)
        self.access = AccessServiceStub(channel)
        self.watches = WatchServiceStub(channel)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close the connection, ending calls and watches that still run."""
        for watch in list(self._begun):
            watch.close()
        await self._channel.close()

    @property
    def last_seen_revision(self) -> int:
        """The highest revision seen, which no read answers below."""
        return self._history.mark.revision

    async def resolve(
        self,
        model: str,
        *,
        version: int = 0,
        stage: str = "",
        alias: str = "",
        include_metrics: bool = False,
    ) -> pb.ModelVersion:
        """Return the version that a number, a stage, an alias or none of them (the newest) means.

        `model` may be a `models:/` URI instead. Refuses as ResolveModelVersion.
        """
        return (
            await self.registry.ResolveModelVersion(
                requests.resolve(
                    model,
                    version=version,
                    stage=stage,
                    alias=alias,
                    include_metrics=include_metrics,
                )
            )
        ).version

    async def create_version(
        self,
        model: str,
        *,
        source: str = "",
        metrics: requests.Metrics = (),
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        lineage: pb.Lineage | None = None,
        signature: str = "",
        flavors: Iterable[str] = (),
        description: str = "",
        reason: str = "",
        create_model: bool = True,
    ) -> pb.ModelVersion:
        """Register the next version of a model, and the model when there is none.

        Refuses as CreateModelVersion, and as CreateModel for the model.
        """
        request = requests.create_version(
            model,
            source=source,
            metrics=metrics,
            tags=tags,
            params=params,
            lineage=lineage,
            signature=signature,
            flavors=flavors,
            description=description,
            reason=reason,
        )
        try:
            return (await self.registry.CreateModelVersion(request)).version
        except errors.ModelNotFound:
            if not create_model:
                raise
        with contextlib.suppress(errors.ModelExists):
            await self.registry.CreateModel(
                pb.CreateModelRequest(model=pb.Model(name=model), reason=reason)
            )
        return (await self.registry.CreateModelVersion(request)).version

    async def promote(
        self,
        model: str,
        version: int,
        stage: str,
        *,
        displace: pb.Displacement.ValueType = pb.DISPLACEMENT_UNSPECIFIED,
        leave_other_stages: bool = False,
        expected_revision: int = 0,
        reason: str = "",
    ) -> pb.TransitionStageResponse:
        """Move a version into a stage; the answer says whom that displaced.

        Refuses as TransitionStage.
        """
        return await self.stages.TransitionStage(
            pb.TransitionStageRequest(
                model=model,
                version=version,
                stage=stage,
                displace=displace,
                leave_other_stages=leave_other_stages,
                expected_revision=expected_revision,
                reason=reason,
            )
        )

    async def rollback(
        self, model: str, stage: str, *, reason: str = ""
    ) -> pb.RollbackStageResponse:
        """Restore the holders that a stage had before its last change. Refuses as RollbackStage."""
        return await self.stages.RollbackStage(
            pb.RollbackStageRequest(model=model, stage=stage, reason=reason)
        )

    async def log_metrics(
        self,
        model: str,
        version: int,
        metrics: requests.Metrics,
        *,
        step: int = 0,
        dataset: str = "",
    ) -> int:
        """Add points to a version's metrics; return how many were new. Refuses as LogMetrics."""
        return (
            await self.metrics.LogMetrics(
                requests.log_metrics(model, version, metrics, step=step, dataset=dataset)
            )
        ).logged

    async def export(
        self, *, namespaces: Iterable[str] = (), with_log: bool = False
    ) -> AsyncIterator[pb.ExportRegistryResponse]:
        """Read everything at one revision, a part at a time. Refuses as ExportRegistry."""
        request = pb.ExportRegistryRequest(namespaces=namespaces, with_log=with_log)
        try:
            async for part in self.configuration.ExportRegistry(request):
                yield part
        except grpc.RpcError as error:
            raise statuses.of(error) from None

    def watch(
        self,
        filter: pb.WatchFilter | None = None,  # noqa: A002 - the field's name in the contract
        *,
        models: Iterable[str] = (),
        model_prefix: str = "",
        stages: Iterable[str] = (),
        namespaces: Iterable[str] = (),
        kinds: Iterable[pb.ChangeKind.ValueType | str] = (),
        cursor: bytes = b"",
        start: str = "snapshot",
        snapshot_on_reset: bool = True,
        reconnect: bool = True,
        backoff: tenacity.wait.wait_base = BACKOFF,
    ) -> AsyncWatch:
        """Follow what matches the filter, from `cursor`, else from `start`, for ever.

        `start` is "snapshot" (the present state first), "beginning" (the whole log) or "now".
        Without `snapshot_on_reset` a cursor that can't be resumed is refused as Watch says.
        """
        request = requests.watch(
            filter,
            models=models,
            model_prefix=model_prefix,
            stages=stages,
            namespaces=namespaces,
            kinds=kinds,
            cursor=cursor,
            start=start,
            snapshot_on_reset=snapshot_on_reset,
            namespace=self.namespace,
        )
        watch = AsyncWatch(
            self.watches.Watch,
            Follower(self._history, request, backoff=backoff, is_renewed=self._token.is_renewed),
            reconnect=reconnect,
        )
        self._begun.add(watch)
        return watch
