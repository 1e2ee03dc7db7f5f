"""Every message and enum of the contract under one name: `pb.Model`, `pb.WatchRequest`."""

from modelregistry.v1.access_service_pb2 import *
from modelregistry.v1.audit_service_pb2 import *
from modelregistry.v1.configuration_service_pb2 import *
from modelregistry.v1.deployment_service_pb2 import *
from modelregistry.v1.error_reason_pb2 import *
from modelregistry.v1.limits_pb2 import *
from modelregistry.v1.metrics_service_pb2 import *
from modelregistry.v1.namespace_service_pb2 import *
from modelregistry.v1.registry_service_pb2 import *
from modelregistry.v1.stage_service_pb2 import *
from modelregistry.v1.watch_service_pb2 import *
from modelregistry.v1.webhook_service_pb2 import *
