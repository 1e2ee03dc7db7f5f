"""Deliveries through a real server to a real receiver: in order, at least once, none lost."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from stagewire import pb
from stagewire.client import Client, errors
from stagewire.store import compaction
from stagewire.store.opening import open_database
from tests.factories import eventually, sql
from tests.receivers import Post, Receiver, Reply
from tests.servers import RunningServer
from tests.webhooks.conftest import NEAR, Hooked


def failing(*statuses: int) -> Callable[[Post], Reply]:
    """Answer with these statuses in turn, then with success."""
    left = list(statuses)
    return lambda _post: Reply(left.pop(0) if left else 200)


def test_events_arrive_in_the_order_of_the_log(hooked: Hooked) -> None:
    hooked.hook("registered_model.created")
    names = [f"m{number}" for number in range(20)]

    hooked.models(*names)

    hooked.receiver.expect(20)
    assert hooked.told() == names
    assert len({post.id for post in hooked.receiver.posts}) == 20


def test_a_webhook_gets_only_what_it_asked_for(hooked: Hooked) -> None:
    hooked.hook("model_version.created", models=["churn"])
    registry = hooked.client.registry
    hooked.models("churn", "fraud")
    for name in ("churn", "fraud", "churn"):
        registry.CreateModelVersion(pb.CreateModelVersionRequest(model=name))

    hooked.receiver.expect(2)

    told = [(post.event, post.json["data"]["version"]) for post in hooked.receiver.taken]
    assert told == [("model_version.created", "1"), ("model_version.created", "2")]


def test_a_prefix_chooses_models(hooked: Hooked) -> None:
    hooked.hook("*", model_prefix="risk-")

    hooked.models("churn", "risk-a", "other", "risk-b")

    hooked.receiver.expect(2)
    assert hooked.told() == ["risk-a", "risk-b"]


def test_mlflows_format_has_mlflows_body_headers_and_signature(hooked: Hooked) -> None:
    hooked.hook("registered_model.created", secret="whsec_not base64: all of it is the key")
    hooked.models("churn")

    post = hooked.receiver.expect(1)[0]

    assert list(post.json) == ["entity", "action", "timestamp", "data"]
    assert (post.json["entity"], post.json["action"]) == ("registered_model", "created")
    assert datetime.fromisoformat(post.json["timestamp"]).tzinfo is not None
    assert post.headers["content-type"] == "application/json"
    said = {
        "webhook-id": post.headers["x-mlflow-delivery-id"],
        "webhook-timestamp": post.headers["x-mlflow-timestamp"],
        "webhook-signature": post.headers["x-mlflow-signature"],
    }
    Verifier(b"whsec_not base64: all of it is the key").verify(post.body, said)
    with pytest.raises(WebhookVerificationError):
        Verifier(b"another").verify(post.body, said)


@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(b"k" * 24).decode(), "any text"])
def test_a_cloud_event_verifies_by_the_standard(hooked: Hooked, secret: str) -> None:
    hooked.hook(format=pb.WEBHOOK_FORMAT_CLOUDEVENTS, secret=secret)
    hooked.models("a b-c")

    post = hooked.receiver.expect(1)[0]

    key = secret if secret.startswith("whsec_") else secret.encode()
    said = Verifier(key).verify(post.body, post.headers)
    assert said["specversion"] == "1.0"
    assert said["id"] == post.headers["webhook-id"]
    assert said["type"] == "stagewire.registered_model.created"
    assert said["subject"] == "models/a%20b-c"
    assert said["source"].endswith("/namespaces/default")
    assert said["time"].endswith("Z")
    assert said["data"]["name"] == "a b-c"
    assert post.headers["content-type"].startswith("application/cloudevents+json")


def test_without_a_secret_nothing_is_signed(hooked: Hooked) -> None:
    hooked.hook()
    hooked.models("churn")

    assert "x-mlflow-signature" not in hooked.receiver.expect(1)[0].headers


def test_a_failure_is_tried_again_under_the_same_id_and_holds_up_the_next(
    hooked: Hooked,
) -> None:
    hooked.receiver.answer = failing(500, 404, 301, 429)
    id_ = hooked.hook("registered_model.created")

    hooked.models("a", "b")

    hooked.receiver.expect(2)
    posts = hooked.receiver.posts
    assert [post.json["data"]["name"] for post in posts] == ["a"] * 5 + ["b"]
    assert len({post.id for post in posts}) == 2
    assert len({post.body for post in posts}) == 2
    eventually(lambda: hooked.get(id_).progress.lag_revisions == 0)
    b, a = hooked.deliveries(id_)
    assert (a.attempts, a.status, a.response_status) == (5, pb.DELIVERY_STATUS_DELIVERED, 200)
    assert b.attempts == 1
    assert not hooked.get(id_).progress.HasField("failing_since_time")


def test_a_failing_webhook_says_what_stands_in_its_way(hooked: Hooked) -> None:
    hooked.receiver.answer = lambda _post: Reply(503, {"Retry-After": "30"})
    id_ = hooked.hook()
    hooked.models("churn")

    eventually(lambda: hooked.get(id_).progress.failed_attempts)

    progress = hooked.get(id_).progress
    assert progress.error == "status"
    assert progress.lag_revisions == 1
    assert progress.HasField("failing_since_time")
    waits = progress.next_attempt_time.seconds - time.time()
    assert 20 < waits <= 31
    retrying = hooked.deliveries(id_, pb.DELIVERY_STATUS_RETRYING)
    assert [(d.response_status, d.error) for d in retrying] == [(503, "status")]
    assert len(hooked.receiver.posts) == 1


def test_a_redirect_is_not_followed(hooked: Hooked) -> None:
    with Receiver() as elsewhere:
        hooked.receiver.answer = lambda _post: Reply(302, {"Location": elsewhere.url})
        hooked.hook()
        hooked.models("churn")

        eventually(lambda: len(hooked.receiver.posts) >= 2)

        assert not elsewhere.posts


def test_a_proxy_of_the_environment_is_not_used(
    serve: Callable[..., Client], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # The client of this test minds proxies, too.
    monkeypatch.setenv("no_grpc_proxy", "127.0.0.1")
    hooked = Hooked(serve(), receiver)
    hooked.hook()

    hooked.models("churn")

    receiver.expect(1)


def test_a_receiver_that_hangs_holds_up_nobody_else(hooked: Hooked) -> None:
    with Receiver() as hanging:
        hanging.answer = lambda _post: Reply(seconds=30)
        slow = hooked.hook(url=hanging.url)
        hooked.hook()
        began = time.monotonic()

        hooked.models("a", "b", "c")

        hooked.receiver.expect(3)
        assert time.monotonic() - began < 1
        eventually(lambda: hooked.get(slow).progress.error == "timeout")
        assert [d.error for d in hooked.deliveries(slow)] == ["timeout"]


def test_a_closed_port_and_an_unknown_name_are_told_apart(hooked: Hooked) -> None:
    with Receiver() as gone:
        closed = hooked.hook(url=gone.url)
    unknown = hooked.hook(url="http://nowhere.invalid/")
    hooked.models("churn")

    eventually(lambda: hooked.get(closed).progress.error == "connect")
    eventually(lambda: hooked.get(unknown).progress.error == "resolve")


def test_what_is_given_up_is_dead_and_the_next_one_goes_on(
    serve: Callable[..., Client], receiver: Receiver
) -> None:
    hooked = Hooked(serve(webhook_give_up_seconds=0.3), receiver)
    receiver.answer = lambda post: Reply(500 if post.json["data"]["name"] == "bad" else 200)
    id_ = hooked.hook("registered_model.created")

    hooked.models("bad", "good")

    receiver.expect(1)
    assert hooked.told() == ["good"]
    dead = hooked.deliveries(id_, pb.DELIVERY_STATUS_DEAD)
    assert [(d.event, d.response_status) for d in dead] == [("registered_model.created", 500)]
    assert dead[0].attempts > 1
    eventually(lambda: hooked.get(id_).progress.dead_letters == 1)


def test_the_dead_are_delivered_once_more_under_their_ids(
    serve: Callable[..., Client], receiver: Receiver
) -> None:
    hooked = Hooked(serve(webhook_give_up_seconds=0.0), receiver)
    receiver.answer = lambda _post: Reply(500)
    id_ = hooked.hook("registered_model.created")
    hooked.models("a", "b", "c")
    eventually(lambda: hooked.get(id_).progress.dead_letters == 3)
    dead = {d.id for d in hooked.deliveries(id_, pb.DELIVERY_STATUS_DEAD)}
    receiver.answer = lambda _post: Reply(200)

    answer = hooked.client.webhooks.RedeliverWebhook(
        pb.RedeliverWebhookRequest(id=id_, dead_since_revision=1)
    )

    assert answer.queued == 3
    receiver.expect(3)
    assert hooked.told() == ["a", "b", "c"]
    assert {post.id for post in receiver.taken} == dead
    eventually(lambda: hooked.get(id_).progress.dead_letters == 0)


def test_what_was_delivered_can_be_delivered_once_more(hooked: Hooked) -> None:
    id_ = hooked.hook("registered_model.created")
    hooked.models("a", "b")
    hooked.receiver.expect(2)
    eventually(lambda: len(hooked.deliveries(id_)) == 2)
    first = hooked.deliveries(id_)[-1]

    hooked.client.webhooks.RedeliverWebhook(
        pb.RedeliverWebhookRequest(id=id_, delivery_id=first.id)
    )

    posts = hooked.receiver.expect(3)
    assert posts[2].id == posts[0].id
    assert posts[2].body == posts[0].body
    eventually(lambda: hooked.deliveries(id_)[-1].attempts == 2)
    assert hooked.deliveries(id_)[-1].status == pb.DELIVERY_STATUS_DELIVERED


def test_a_disabled_webhook_gets_nothing_and_then_all_that_it_missed(hooked: Hooked) -> None:
    id_ = hooked.hook("registered_model.created")
    hooked.models("a")
    hooked.receiver.expect(1)
    # What was received and not yet noted as such would be sent again.
    eventually(lambda: hooked.deliveries(id_, pb.DELIVERY_STATUS_DELIVERED))
    hooked.update(id_, status=pb.WEBHOOK_STATUS_DISABLED)
    hooked.models("b", "c")
    witness = hooked.hook("registered_model.created", url=hooked.receiver.url + "/witness")
    hooked.models("d")
    hooked.receiver.expect(2)
    assert [p.path for p in hooked.receiver.taken] == ["/in", "/in/witness"]
    hooked.client.webhooks.DeleteWebhook(pb.DeleteWebhookRequest(id=witness))

    hooked.update(id_, status=pb.WEBHOOK_STATUS_ACTIVE)

    hooked.receiver.expect(5)
    told = [p.json["data"]["name"] for p in hooked.receiver.taken if p.path == "/in"]
    assert told == ["a", "b", "c", "d"]


def test_a_deleted_webhook_gets_nothing_more(hooked: Hooked) -> None:
    hooked.receiver.answer = lambda _post: Reply(500)
    id_ = hooked.hook()
    hooked.models("a")
    eventually(lambda: hooked.receiver.posts)

    hooked.client.webhooks.DeleteWebhook(pb.DeleteWebhookRequest(id=id_))

    before = len(hooked.receiver.posts)
    hooked.receiver.answer = lambda post: Reply(200 if post.path == "/in/witness" else 500)
    hooked.hook(url=hooked.receiver.url + "/witness")
    hooked.models("b")
    hooked.receiver.expect(1)
    late = [post for post in hooked.receiver.posts[before:] if post.path == "/in"]
    # One attempt may have been on its way.
    assert [post.json["data"]["name"] for post in late] in ([], ["a"])


def test_a_restart_goes_on_where_it_was(
    serve: Callable[..., Client], database_url: str, receiver: Receiver
) -> None:
    receiver.answer = lambda _post: Reply(500)
    with RunningServer(database_url, **NEAR) as server, Client(server.address) as client:
        first = Hooked(client, receiver)
        id_ = first.hook("registered_model.created")
        first.models("a", "b")
        eventually(lambda: first.deliveries(id_))
        failed = first.deliveries(id_)[0]
    receiver.answer = lambda _post: Reply(200)

    hooked = Hooked(serve(), receiver)

    receiver.expect(2)
    assert hooked.told() == ["a", "b"]
    assert receiver.taken[0].id == failed.id


def test_what_was_compacted_away_is_said_to_be_missed(
    serve: Callable[..., Client], database_url: str, receiver: Receiver
) -> None:
    with RunningServer(database_url, **NEAR) as server, Client(server.address) as client:
        first = Hooked(client, receiver)
        id_ = first.hook("registered_model.created", status=pb.WEBHOOK_STATUS_DISABLED)
        first.models("a", "b")
        top = client.watches.GetHead(pb.GetHeadRequest()).revision
    opened = open_database(database_url, readers=1, listens=False)
    for _ in compaction.compact(opened, top):
        pass
    opened.close()
    hooked = Hooked(serve(), receiver)

    hooked.update(id_, status=pb.WEBHOOK_STATUS_ACTIVE)
    hooked.models("c")

    receiver.expect(1)
    assert hooked.told() == ["c"]
    missed = hooked.deliveries(id_, pb.DELIVERY_STATUS_MISSED)
    assert [(d.revision, d.until_revision) for d in missed] == [(top - 1, top)]
    progress = hooked.get(id_).progress
    assert (progress.missed_revisions, progress.last_missed_revision) == (2, top)
    with pytest.raises(errors.StagewireError) as caught:
        hooked.client.webhooks.RedeliverWebhook(
            pb.RedeliverWebhookRequest(id=id_, delivery_id=missed[0].id)
        )
    assert caught.value.reason == "DELIVERY_NOT_FOUND"


def test_what_the_log_no_longer_holds_is_not_delivered_once_more(
    serve: Callable[..., Client], database_url: str, receiver: Receiver
) -> None:
    settings = {**NEAR, "webhook_give_up_seconds": 0.0}
    receiver.answer = lambda _post: Reply(500)
    with RunningServer(database_url, **settings) as server, Client(server.address) as client:
        first = Hooked(client, receiver)
        id_ = first.hook("registered_model.created")
        first.models("a")
        eventually(lambda: first.get(id_).progress.dead_letters == 1)
        dead = first.deliveries(id_)[0]
    opened = open_database(database_url, readers=1, listens=False)
    for _ in compaction.compact(opened, dead.revision):
        pass
    opened.close()
    hooked = Hooked(serve(), receiver)

    with pytest.raises(errors.StagewireError) as caught:
        hooked.client.webhooks.RedeliverWebhook(
            pb.RedeliverWebhookRequest(id=id_, delivery_id=dead.id)
        )
    bulk = hooked.client.webhooks.RedeliverWebhook(
        pb.RedeliverWebhookRequest(id=id_, dead_since_revision=1)
    )

    assert caught.value.reason == "COMPACTED"
    assert (bulk.queued, bulk.compacted) == (0, 1)


def test_the_history_is_kept_to_its_length(
    serve: Callable[..., Client], receiver: Receiver
) -> None:
    hooked = Hooked(serve(webhook_history=10), receiver)
    id_ = hooked.hook("registered_model.created")

    hooked.models(*(f"m{number}" for number in range(205)))

    receiver.expect(205, seconds=60)
    eventually(lambda: len(hooked.deliveries(id_)) <= 110)
    assert len(receiver.taken) == 205


def test_a_test_says_how_the_receiver_answered_and_nothing_of_what(hooked: Hooked) -> None:
    id_ = hooked.hook("model_version.created", secret="hidden")
    request = pb.TestWebhookRequest(id=id_)
    good = hooked.client.webhooks.TestWebhook(request)
    hooked.receiver.answer = lambda _post: Reply(418, body=b"internal secrets")

    bad = hooked.client.webhooks.TestWebhook(request)

    assert (good.success, good.response_status, good.error) == (True, 204, "")
    assert (bad.success, bad.response_status, bad.error) == (False, 418, "status")
    assert b"internal" not in bad.SerializeToString()
    post = hooked.receiver.posts[0]
    assert (post.event, post.json["data"]["source"]) == ("model_version.created", "models:/123")
    assert not hooked.deliveries(id_)


def test_a_lost_key_is_an_error_and_never_an_unsigned_letter(
    serve: Callable[..., Client], receiver: Receiver, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(Fernet.generate_key())
    hooked = Hooked(serve(secrets_key_file=str(keys)), receiver)
    id_ = hooked.hook("registered_model.created", secret="hidden")
    keys.write_bytes(Fernet.generate_key())

    hooked.models("churn")

    eventually(lambda: hooked.get(id_).progress.error == "secret")
    assert not receiver.posts


def test_two_servers_over_one_database_deliver_each_event_once(
    postgres_url: str, receiver: Receiver
) -> None:
    with (
        RunningServer(postgres_url, **NEAR) as one,
        RunningServer(postgres_url, **NEAR) as two,
        Client(one.address) as client,
        Client(two.address) as other,
    ):
        hooked = Hooked(client, receiver)
        ids = [hooked.hook("registered_model.created") for _ in range(4)]
        names = [f"m{number}" for number in range(10)]
        for number, name in enumerate(names):
            Hooked(other if number % 2 else client, receiver).models(name)
        receiver.expect(40)

        assert len({post.id for post in receiver.posts}) == len(receiver.posts) == 40
        eventually(lambda: all(len(hooked.deliveries(id_)) == 10 for id_ in ids))
        holders = sql(postgres_url, "SELECT count(*) FROM webhook_cursors WHERE holder = ''")
        assert holders[0][0] == 0


def test_a_server_that_stops_lets_another_take_over_at_once(
    postgres_url: str, receiver: Receiver
) -> None:
    patient = {**NEAR, "webhook_lease_seconds": 60.0}
    with RunningServer(postgres_url, **patient) as one, Client(one.address) as client:
        Hooked(client, receiver).hook("registered_model.created")
        Hooked(client, receiver).models("a")
        receiver.expect(1)
    with RunningServer(postgres_url, **patient) as two, Client(two.address) as client:
        Hooked(client, receiver).models("b")

        receiver.expect(2)


def test_a_body_is_json_as_python_writes_it(hooked: Hooked) -> None:
    hooked.hook("registered_model.created")
    hooked.models("größe")

    body = hooked.receiver.expect(1)[0].body

    assert body == json.dumps(json.loads(body)).encode()
