"""Any node of RabbitMQ will do, as long as it runs."""

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.parts import rabbitmq


def test_those_that_are_well_are_asked_first(env, make_container):
    found = [
        make_container("rabbitmq-3"),
        make_container("rabbitmq", health="unhealthy"),
        make_container("rabbitmq-2", state="exited"),
        make_container("web"),
    ]
    assert [each.service for each in rabbitmq.running(found)] == ["rabbitmq-3", "rabbitmq"]
    assert rabbitmq.node(env, found).service == "rabbitmq-3"


def test_none_runs(env, make_container):
    with pytest.raises(OpsError, match="rabbitmq is not running in dev"):
        rabbitmq.node(env, [make_container("rabbitmq", state="exited")])


def test_no_password_is_on_a_command_line_and_complaints_are_passed_on(make_container, monkeypatch):
    seen = []

    def exec_(_container, argv, **options):
        seen.append((argv[2:], options["input"]))
        assert options["timeout"] > 60
        return engine.Completed((), 1, "", "error: GET /api/x: HTTP/1.1 404 Not Found\n")

    monkeypatch.setattr(engine, "exec_", exec_)
    with pytest.raises(OpsError, match="RabbitMQ: error: GET /api/x: HTTP/1.1 404"):
        rabbitmq.api(make_container("rabbitmq"), "GET", "/api/x")
    with pytest.raises(OpsError):
        rabbitmq.api(make_container("rabbitmq"), "PUT", "/api/x", '{"é": 1}')
    # Neither waits for the end of an input, which the engine may never pass on.
    assert seen == [(["GET", "/api/x"], None), (["PUT", "/api/x", "9"], '{"é": 1}')]


def test_an_answer_that_got_lost_is_a_sentence(make_container, monkeypatch):
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: engine.Completed((), 0, "", ""))
    with pytest.raises(OpsError, match="RabbitMQ: no answer"):
        rabbitmq.api(make_container("rabbitmq"), "GET", "/api/x")
    assert rabbitmq.api(make_container("rabbitmq"), "DELETE", "/api/x") == ""
