"""What every channel of the SDK has: keepalive, balancing, and the retries gRPC itself makes."""

from __future__ import annotations

import json

# Unary calls are retried by the channel: writes carry a request_id, so a second attempt
# returns the first one's answer. Watch is not: only its loop knows the cursor. CANCELLED is among
# the codes for servers that stop: gRPC kills what arrives between its shutdown and the client's
# notice of it, and says so. A call that its caller cancels is not retried.
_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            },
            {
                "name": [{"service": "modelregistry.v1.WatchService", "method": "Watch"}],
                "waitForReady": True,
            },
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
)

OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A watch is idle for most of its life, and a dead peer must still be noticed.
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's own two minutes would let an agent sleep long past a server's return.
    ("grpc.max_reconnect_backoff_ms", 30_000),
    # A full page of versions with long tags is well above gRPC's 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
)
