"""Who is the primary, and whether the standby may take over."""

import json

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts import postgres
from ops.parts.postgres import PRIMARY, STANDBY, Node, View

STREAMS = {"state": "streaming", "sync": "sync", "lag": 0}


@pytest.fixture
def make_view(make_container):
    """A view of two nodes under Patroni that are well; anything may be said otherwise."""

    def make(primary=None, standby=None, follower=STREAMS, cluster=None, automatic=True, nodes=None):
        labels = {"ops.stateful": "postgres"} if automatic else {}
        first = Node(
            make_container("postgres-primary", labels=labels),
            PRIMARY,
            timeline=1,
            followers={"postgres-replica": follower} if follower else {},
        )
        second = Node(make_container("postgres-replica", labels=labels), STANDBY, timeline=1, receiving=True)
        members = [{"name": first.name, "role": "leader"}, {"name": second.name, "role": "sync_standby"}]
        return View(nodes(first, second) if nodes else (first, second), cluster or {"members": members})

    return make


def answer(**changes):
    said = {"standby": False, "timeline": 3, "receiver": None, "followers": {"postgres-replica": STREAMS}}
    return engine.Completed((), 0, json.dumps({**said, **changes}), "")


def test_a_node_that_streams_to_a_synchronous_standby_may_hand_over(make_view):
    assert make_view().hazard() == ""
    assert make_view(automatic=False, follower={**STREAMS, "sync": "async"}).hazard() == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"follower": None}, "does not stream"),
        ({"follower": {**STREAMS, "state": "catchup"}}, "does not stream"),
        ({"follower": {**STREAMS, "lag": 1 << 30}}, "1.0 GiB behind"),
        ({"follower": {**STREAMS, "sync": "async"}}, "not synchronous"),
        ({"cluster": {"members": [], "pause": True}}, "paused"),
        ({"cluster": {"members": [{"name": "postgres-replica", "role": "leader"}]}}, "does not hold the lease"),
        ({"nodes": lambda first, _second: (first,)}, "no standby answers"),
        ({"nodes": lambda _first, second: (second,)}, "no node is the primary"),
        ({"nodes": lambda first, _second: (first, first)}, "two nodes take writes"),
    ],
)
def test_why_it_is_not_safe(make_view, changes, words):
    assert words in make_view(**changes).hazard()


def test_patroni_that_does_not_answer_is_a_hazard(make_view):
    assert "etcd or Patroni" in View(make_view().nodes, None).hazard()


def test_the_primary_is_found_by_asking(env, monkeypatch, make_container):
    def exec_(container, *_args, **_options):
        return answer(standby="primary" in container, receiver="streaming")

    monkeypatch.setattr(engine, "exec_", exec_)
    found = [make_container("postgres-primary"), make_container("postgres-replica"), make_container("web")]
    assert postgres.primary(env, found) is found[1]
    assert postgres.roles(env, found) == {"postgres-primary": STANDBY, "postgres-replica": PRIMARY}


def test_of_two_that_take_writes_the_one_with_more_history_counts(env, monkeypatch, make_container):
    monkeypatch.setattr(
        engine, "exec_", lambda container, *_a, **_o: answer(timeline=2 if "replica" in container else 1)
    )
    found = [make_container("postgres-primary"), make_container("postgres-replica")]
    assert postgres.primary(env, found) is found[1]


def test_without_a_primary_it_says_what_the_nodes_say(env, monkeypatch, make_container):
    def exec_(container, *_args, **_options):
        if "primary" in container:
            return engine.Completed((), 2, "", "psql: error: the database system is starting up\n")
        return answer(standby=True)

    monkeypatch.setattr(engine, "exec_", exec_)
    found = [make_container("postgres-primary"), make_container("postgres-replica")]
    with pytest.raises(OpsError) as caught:
        postgres.primary(env, found)
    assert "postgres-primary: psql: error: the database system is starting up; postgres-replica: standby" in str(
        caught.value
    )
    with pytest.raises(OpsError, match="PostgreSQL is not running in dev"):
        postgres.primary(env, [make_container("postgres-primary", state="exited")])


def test_an_order_that_patroni_refuses_is_a_sentence(monkeypatch, make_container):
    refused = "HTTP/1.0 412 Precondition Failed\r\n\r\nno good candidates have been found"
    monkeypatch.setattr(engine, "exec_", lambda *_a, **_o: engine.Completed((), 0, refused, ""))
    with pytest.raises(OpsError, match="refuses: no good candidates have been found"):
        postgres.patroni(make_container("postgres-primary"), "POST", "/switchover", "{}")
