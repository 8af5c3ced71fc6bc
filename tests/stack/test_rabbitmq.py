"""RabbitMQ is killed: what was confirmed is there, every mail goes once, and of three nodes one may go."""

from __future__ import annotations

import pytest

from . import rabbit_faults as rabbit
from .project import Project, eventually

pytestmark = [pytest.mark.story, pytest.mark.fault]


def test_deploy(project: Project) -> None:
    project.invoke("deploy")


def test_every_mail_goes_once_although_the_broker_is_killed(project: Project) -> None:
    assert set(rabbit.mails(project, items=60, kills=1).values()) == {1}


def test_what_was_confirmed_survives_a_kill(project: Project) -> None:
    outcome = rabbit.publishing(project, 1)
    assert outcome.taken > 500
    assert outcome.lost == 0, outcome


def test_what_was_only_sent_does_not(project: Project) -> None:
    """The control: a count of 0 means something only beside one that is not."""
    assert rabbit.publishing(project, 1, "--unconfirmed").lost > 0


def test_one_more_file_makes_it_three_nodes_and_queues_spread(project: Project) -> None:
    files = project.settings()["COMPOSE_FILE"]
    project.set(
        COMPOSE_FILE=files.replace("rabbitmq.yml", "rabbitmq.yml:docker-compose.rabbitmq-cluster.yml"),
        RABBITMQ_HOSTS=",".join(rabbit.NODES),
    )
    project.invoke("deploy", "--yes")
    eventually(lambda: rabbit.copies(project) == 3, 60, "three copies of every queue")
    report = project.health()
    (broker,) = [check for check in report["checks"] if check["target"] == "rabbitmq" and check["name"] == "rabbitmq"]
    assert broker["detail"] == "no alarms, 3 of 3 nodes run"


def test_of_three_nodes_one_may_go(project: Project) -> None:
    outcome = rabbit.publishing(project, 1, victims=rabbit.NODES)
    assert outcome.lost == 0, outcome
    assert outcome.taken > 500
