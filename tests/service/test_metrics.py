"""Metrics: each point once, the latest of each key by step, then time, then value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests.factories import delete_version, head, model, numbered, refused, version, versions

if TYPE_CHECKING:
    from stagewire.service.registry import Registry


def point(value: float, *, key: str = "auc", at: int = 1_000, **fields: Any) -> pb.Metric:
    return pb.Metric(key=key, value=value, time=Timestamp(seconds=at), **fields)


def log(registry: Registry, *points: pb.Metric, number: int = 1) -> int:
    request = pb.LogMetricsRequest(model="churn", version=number, metrics=points)
    return registry.LogMetrics(request, ANONYMOUS).logged


def listed(registry: Registry, **fields: Any) -> list[pb.Metric]:
    request = pb.ListMetricsRequest(model="churn", **fields)
    return list(registry.ListMetrics(request, ANONYMOUS).metrics)


def latest(registry: Registry) -> list[pb.Metric]:
    return list(numbered(registry, 1, include_metrics=True).metrics)


def test_a_point_sent_again_is_counted_once(registry: Registry) -> None:
    versions(registry, 1)

    first = log(registry, point(0.5), point(0.6, step=1))
    again = log(registry, point(0.5), point(0.6, step=1), point(0.7, step=2))

    assert (first, again) == (2, 1)
    assert len(listed(registry, version=1)) == 3


def test_points_that_differ_in_anything_are_two(registry: Registry) -> None:
    versions(registry, 1)

    logged = log(
        registry,
        point(0.5),
        point(0.6),
        point(0.5, step=1),
        point(0.5, at=1_001),
        point(0.5, dataset="test"),
        point(0.5, key="f1"),
        point(math.nan),
        point(math.inf),
        point(-math.inf),
    )

    assert logged == len(listed(registry, version=1)) == 9


def test_there_is_one_nan_and_one_zero(registry: Registry) -> None:
    versions(registry, 1)

    assert log(registry, point(math.nan), point(-math.nan), point(0.0), point(-0.0)) == 2


def test_nan_and_infinities_come_back_as_such(registry: Registry) -> None:
    versions(registry, 1)
    log(registry, point(math.nan, key="a"), point(math.inf, key="b"), point(-math.inf, key="c"))

    values = [m.value for m in listed(registry, version=1)]

    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_a_point_without_time_gets_the_servers(registry: Registry) -> None:
    versions(registry, 1)
    log(registry, pb.Metric(key="auc", value=1))

    assert listed(registry, version=1)[0].time.seconds > 1_700_000_000


def test_times_are_kept_to_the_microsecond_also_before_1970(registry: Registry) -> None:
    versions(registry, 1)
    times = [Timestamp(seconds=-5, nanos=123_456_000), Timestamp(seconds=5, nanos=1_000)]
    log(registry, *(pb.Metric(key="auc", value=1, time=time) for time in times))

    assert [m.time for m in listed(registry, version=1)] == times


def test_the_latest_is_the_highest_step_then_time_then_value(registry: Registry) -> None:
    versions(registry, 1)

    log(registry, point(0.9, step=1, at=9))
    log(registry, point(0.1, step=2, at=1))
    by_step = latest(registry)
    log(registry, point(0.2, step=2, at=5), point(0.3, step=2, at=4))
    by_time = latest(registry)
    log(
        registry, point(0.4, step=2, at=5), point(math.nan, step=2, at=5), point(0.05, step=2, at=5)
    )
    by_value = latest(registry)

    assert [[m.value for m in found] for found in (by_step, by_time, by_value)] == [
        [0.1],
        [0.2],
        [0.4],
    ]


def test_a_late_point_of_an_earlier_step_does_not_become_the_latest(registry: Registry) -> None:
    versions(registry, 1)
    log(registry, point(0.1, step=10))

    log(registry, point(0.9, step=9, at=9_999))

    assert [m.value for m in latest(registry)] == [0.1]


def test_any_number_beats_nan_at_one_step_and_time(registry: Registry) -> None:
    versions(registry, 1)
    log(registry, point(math.nan))

    log(registry, point(-math.inf))

    assert [m.value for m in latest(registry)] == [-math.inf]


def test_each_dataset_has_a_latest_of_its_own(registry: Registry) -> None:
    versions(registry, 1)

    log(registry, point(0.1, dataset="train"), point(0.2, dataset="test"), point(0.3))

    assert [(m.dataset, m.value) for m in latest(registry)] == [
        ("", 0.3),
        ("test", 0.2),
        ("train", 0.1),
    ]


def test_points_of_a_version_are_listed_over_its_steps_in_pages(registry: Registry) -> None:
    versions(registry, 1)
    log(registry, *(point(s / 10, step=s) for s in (3, 1, 2)), point(9, key="aaa"))
    seen: list[tuple[str, int]] = []
    token = ""

    while True:
        request = pb.ListMetricsRequest(model="churn", version=1, page_size=2, page_token=token)
        page = registry.ListMetrics(request, ANONYMOUS)
        seen += [(m.key, m.step) for m in page.metrics]
        token = page.next_page_token
        if not token:
            break

    assert seen == [("aaa", 0), ("auc", 1), ("auc", 2), ("auc", 3)]
    assert [m.step for m in listed(registry, version=1, key="auc")] == [1, 2, 3]


def test_the_latest_points_are_listed_over_the_living_versions(registry: Registry) -> None:
    versions(registry, 3)
    for number in (1, 2, 3):
        log(registry, point(number, step=1), point(number * 10, step=2), number=number)
    delete_version(registry, 2)

    shown = listed(registry, key="auc")

    assert [(m.version, m.value) for m in shown] == [(1, 10), (3, 30)]


def test_metrics_take_no_revision(registry: Registry) -> None:
    made = versions(registry, 1)[0]

    log(registry, point(0.5))

    assert head(registry) == made.revision
    assert numbered(registry, 1) == made


def test_metrics_of_a_new_version_are_points_like_others(registry: Registry) -> None:
    model(registry)
    version(registry, metrics=[point(0.5)])

    assert log(registry, point(0.5)) == 0


def test_many_points_go_in_one_call(registry: Registry) -> None:
    versions(registry, 1)

    assert log(registry, *(point(1, step=s) for s in range(10_000))) == 10_000
    with refused("INVALID_FIELD"):
        log(registry, *(point(1, step=s) for s in range(10_001)))


def test_what_is_not_there_is_refused(registry: Registry) -> None:
    versions(registry, 1)

    with refused("VERSION_NOT_FOUND"):
        log(registry, point(1), number=2)
    with refused("VERSION_NOT_FOUND"):
        listed(registry, version=2)
    with refused("NAMESPACE_NOT_FOUND"):
        listed(registry, namespace="nowhere")
    with refused("INVALID_PAGE_TOKEN"):
        listed(registry, page_token="x")
    with refused("INVALID_FIELD"):
        log(registry)
    with refused("INVALID_FIELD"):
        log(registry, point(1, key=""))
