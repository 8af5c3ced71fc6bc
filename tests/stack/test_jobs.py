"""Scheduled jobs and one-off commands on a real engine: jobs at their times, over their limits, failed, killed, missed;
commands at a terminal and in a pipe.

Every job here is due at every full minute, so one minute shows what becomes of all of them.
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests import metrics as known

from .project import Project, docker, eventually, refused

# By the clock: jobs begin with the minute, and another stack beside would decide how late.
pytestmark = [pytest.mark.story, pytest.mark.alone, pytest.mark.fault]

JOBS = """\
services:
  tick: &job
    extends: {file: infrastructure/service.yml, service: hardened}
    image: ${REDIS_IMAGE}
    entrypoint: [sh, -c]
    command: ["echo ticked"]
    restart: "no"
    networks: [backend]
    labels:
      ops.schedule: "* * * * *"
  fails:
    <<: *job
    command: ["echo no such table; exit 3"]
  overruns:
    <<: *job
    command: ["trap 'exit 143' TERM; sleep 300 & wait"]
    labels:
      ops.schedule: "* * * * *"
      ops.schedule.limit: "5"
  killed:
    <<: *job
    command: ["exec sleep 50"]
  by-hand:
    <<: *job
    command: ["echo by hand; exit 4"]
    labels:
      ops.job: manual
"""
SCHEDULED = ("tick", "fails", "overruns", "killed")


def job(project: Project, name: str) -> dict[str, Any]:
    """A job as `invoke status --json` has it."""
    document = json.loads(project.invoke("status", "--json").stdout)
    return next(each for each in document["jobs"] if each["service"] == name)


def state(project: Project, name: str) -> dict[str, Any]:
    """The state of the container of a service."""
    return json.loads(docker("inspect", "--format", "{{json .State}}", f"{project.name()}-{name}-1"))


def metrics(project: Project) -> dict[str, float]:
    """What Prometheus would read of the scheduler."""
    script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/metrics').read().decode())"
    lines = docker("exec", f"{project.name()}-scheduler-1", "python", "-c", script).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] not in "#")}


def checks(project: Project, code: int) -> dict[str, dict[str, Any]]:
    """What `invoke health` says of the jobs, by service."""
    return {each["target"]: each for each in project.health(code=code)["checks"] if each["name"] == "job"}


def typed(project: Project, *arguments: str, answers: list[tuple[str, str]], code: int = 0) -> str:
    """Run a command at a real terminal; what it showed. answers: what is typed once the terminal shows something."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 120))
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=project.folder,
        env={**os.environ, "TERM": "xterm"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        close_fds=True,
    )
    os.close(follower)
    shown, place, ends = "", 0, time.monotonic() + 60
    pending = list(answers)
    while time.monotonic() < ends:
        if pending and (found := re.compile(pending[0][0]).search(shown, place)):
            place = found.end()
            os.write(leader, f"{pending.pop(0)[1]}\r".encode())
        if select.select([leader], [], [], 0.2)[0]:
            try:
                shown += os.read(leader, 4096).decode(errors="replace")
            except OSError:
                break  # the other end is closed
        elif process.poll() is not None:
            break
    print(f"$ invoke {' '.join(arguments)} (at a terminal)\n{shown}")
    assert process.wait(30) == code
    os.close(leader)
    return shown


# ── scheduled jobs ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_without_a_scheduler_is_refused(dev_stack: Project) -> None:
    (dev_stack.folder / "docker-compose.jobs.yml").write_text(JOBS)
    files = dev_stack.settings()["COMPOSE_FILE"]
    dev_stack.set(COMPOSE_FILE=f"{files}:docker-compose.jobs.yml")
    refused(
        dev_stack.invoke("deploy", code=2), "would never run: there is no scheduler", "docker-compose.scheduler.yml"
    )
    dev_stack.set(COMPOSE_FILE=f"{files}:docker-compose.scheduler.yml:docker-compose.jobs.yml")


def test_schedules_that_cannot_be_meant_are_refused_before_anything_changes(dev_stack: Project) -> None:
    before = dev_stack.containers()
    path = dev_stack.folder / "docker-compose.jobs.yml"
    wrong = JOBS
    for schedule in ("0 3 30 2 *", "0 3 * * funday"):
        wrong = wrong.replace('ops.schedule: "* * * * *"', f'ops.schedule: "{schedule}"', 1)
    path.write_text(wrong)
    # tick's, which fails and killed share, and that of overruns
    refused(
        dev_stack.invoke("deploy", code=2), 'tick: ops.schedule: "0 3 30 2 *" never comes', "is not a cron expression"
    )
    path.write_text(JOBS)
    assert dev_stack.containers() == before


def test_a_deploy_makes_jobs_and_starts_none(dev_stack: Project) -> None:
    # Early in a minute, so that nothing is due before it was looked at.
    eventually(lambda: datetime.now(UTC).second < 5, 60, "a minute begins")
    plan = dev_stack.invoke("deploy", "--plan").stdout
    assert re.search(r"schedule\s+tick", plan) and "by-hand" not in plan
    dev_stack.invoke("deploy")
    made = dev_stack.containers()
    assert {f"{dev_stack.name()}-{name}-1" for name in SCHEDULED} <= made.keys()
    assert f"{dev_stack.name()}-by-hand-1" not in made
    assert "nothing to change" in dev_stack.invoke("deploy").stdout


def test_each_job_at_its_time(dev_stack: Project) -> None:
    eventually(lambda: state(dev_stack, "killed")["Running"], 90, "the jobs were started")
    docker("kill", f"{dev_stack.name()}-killed-1")
    began = datetime.fromisoformat(state(dev_stack, "tick")["StartedAt"][:19]).second
    assert began <= 3, f"it began {began} s after the full minute"
    eventually(lambda: not state(dev_stack, "overruns")["Running"], 30, "the one that takes too long was stopped")
    eventually(lambda: docker("logs", f"{dev_stack.name()}-tick-1").endswith("ticked"), 30, "it ticked")
    found = checks(dev_stack, code=1)
    assert (found["tick"]["status"], found["tick"]["detail"][:9]) == ("ok", "succeeded")
    assert "failed with exit code 3" in found["fails"]["detail"]
    assert "failed with exit code 137" in found["killed"]["detail"]
    assert "it was stopped after its limit of 5 s" in found["overruns"]["detail"]
    assert {each["status"] for name, each in found.items() if name != "tick"} == {"fail"}
    assert all("next run 20" in each["detail"] for each in found.values())


def test_the_metrics_say_the_same(dev_stack: Project) -> None:
    eventually(lambda: metrics(dev_stack)['scheduled_job_last_exit_code{service="fails"}'] == 3, 15, "it was seen")
    found = metrics(dev_stack)
    assert found["scheduler_engine_up"] == 1
    assert found['scheduled_job_last_exit_code{service="tick"}'] == 0
    assert found['scheduled_job_last_exit_code{service="killed"}'] == 137
    assert found['scheduled_job_overruns_total{service="overruns"}'] >= 1
    assert 4 < found['scheduled_job_last_duration_seconds{service="overruns"}'] < 20
    assert 0 < found['scheduled_job_next_run_timestamp_seconds{service="tick"}'] - time.time() <= 60
    names = {name.partition("{")[0] for name in found if name.startswith("schedule")}
    assert names == known.load()["scheduler"].names, "tests/metrics/scheduler.txt, by which rules are checked"


def test_the_scheduler_can_do_nothing_else_with_the_engine(dev_stack: Project) -> None:
    web = next(each for name, each in dev_stack.containers().items() if "-web-" in name)
    tick = dev_stack.containers()[f"{dev_stack.name()}-tick-1"]
    asked = [
        *(("GET", f"/v1.44/containers/{web}/json"), ("POST", f"/v1.44/containers/{web}/stop")),
        *(("POST", f"/v1.44/containers/{tick}/exec"), ("POST", "/v1.44/containers/create"), ("GET", "/v1.44/info")),
        *(
            ("DELETE", f"/v1.44/containers/{tick}"),
            ("POST", f"/v1.44/containers/{tick}/attach"),
            ("GET", "/v1.44/events"),
        ),
        *(("GET", f"/v1.44/containers/{tick}/../{web}/json"), ("POST", f"/v1.44/containers/{tick}%2f..%2f{web}/stop")),
        ("GET", f"/v1.44/containers/{tick}/json"),
    ]
    script = (
        "import http.client, json, sys\n"
        "def ask(method, path):\n"
        "    c = http.client.HTTPConnection('engine-proxy', 2375, timeout=10); c.request(method, path)\n"
        "    return c.getresponse().status\n"
        "print(json.dumps([ask(*each) for each in json.loads(sys.argv[1])]))\n"
        "c = http.client.HTTPConnection('engine-proxy', 2375)\n"
        "c.request('GET', '/v1.44/containers/json?all=1&filters={}'); print(len(json.loads(c.getresponse().read())))"
    )
    said = docker("exec", f"{dev_stack.name()}-scheduler-1", "python", "-c", script, json.dumps(asked)).splitlines()
    assert json.loads(said[0]) == [403] * 10 + [200]
    assert int(said[1]) == len(SCHEDULED)


# ── one-off commands, while the scheduler is away ─────────────────────────────────────────────────────────────────────


def test_a_one_off_container_is_no_replica(dev_stack: Project) -> None:
    process = dev_stack.start("run", "web", "--", "sh", "-c", "trap exit TERM; sleep 60 & wait")
    try:
        eventually(lambda: "run beside web by " in dev_stack.invoke("status").stdout, 30, "it is shown")
        (name,) = [each for each in dev_stack.containers() if "-web-run-" in each]
        inspected = json.loads(docker("inspect", name))[0]
        aliases = [
            each for network in inspected["NetworkSettings"]["Networks"].values() for each in network["DNSNames"]
        ]
        assert not {"web", "web.serving"} & set(aliases)
        assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "no"
        assert "nothing to change" in dev_stack.invoke("deploy").stdout
        assert dev_stack.invoke("scale", "web", "1").returncode == 0
    finally:
        process.terminate()
        process.wait(30)
    eventually(lambda: not [each for each in dev_stack.containers() if "-web-run-" in each], 30, "it is removed")


def test_the_scheduler_goes_away(dev_stack: Project) -> None:
    docker("stop", f"{dev_stack.name()}-scheduler-1")


def test_a_command_in_a_pipe(dev_stack: Project) -> None:
    done = dev_stack.invoke("run", "api", "--", "python", "-c", "import sys; print(sys.stdin.read() * 2); sys.exit(7)",
                            stdin="a  'b'", code=7)  # fmt: skip
    assert done.stdout == "a  'b'a  'b'\n"
    # only our own output and that of the command: a program may read it
    assert dev_stack.invoke("run", "api", "--", "sh", "-c", "echo out; echo err >&2").stdout == "out\n"


def test_a_job_by_hand(dev_stack: Project) -> None:
    done = dev_stack.invoke("run", "by-hand", code=4)
    assert done.stdout == "by hand\n"


def test_a_shell_and_clients_in_a_pipe(dev_stack: Project) -> None:
    assert dev_stack.invoke("shell", "api", stdin="echo $((40 + 2)); exit 5\n", code=5).stdout == "42\n"
    assert "42" in dev_stack.invoke("psql", stdin="SELECT 40 + 2;\n").stdout
    asked = dev_stack.invoke("psql", "--", "--tuples-only", "--command", "SELECT pg_is_in_recovery(), 'a  b'")
    assert asked.stdout.split("|")[0].strip() == "f" and "a  b" in asked.stdout
    refused(dev_stack.invoke("psql", "appdbb", code=2), 'no database "appdbb"', "Did you mean appdb?")
    assert dev_stack.invoke("redis-cli", "--", "ROLE").stdout.splitlines()[0] == "master"
    assert dev_stack.invoke("redis-cli", stdin="SET greeting 'a  b'\nGET greeting\n").stdout == "OK\na  b\n"


@pytest.mark.parametrize(
    ("arguments", "answers", "words"),
    [
        (("shell", "api"), [(r"[$#] ", "tty; echo $((40 + 2)); exit")], ("/dev/pts/", "42")),
        (("shell", "api", "--new"), [(r"[$#] ", "tty; echo $((40 + 2)); exit")], ("/dev/pts/", "42")),
        (
            ("run", "api", "--", "python", "-q"),
            [(">>> ", "import sys; sys.stdin.isatty(), 40 + 2"), (">>> ", "exit()")],
            ("(True, 42)",),
        ),
        (("psql",), [(r"=# ", "SELECT 40 + 2 AS answer;"), (r"=# ", r"\q")], ("answer", "42")),
        # it draws its prompt anew with every key
        (("redis-cli",), [("6379> ", "INCRBY answers 42"), (r"\(integer\) 42", "exit")], ("(integer) 42",)),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_at_a_terminal(
    dev_stack: Project, arguments: tuple[str, ...], answers: list[tuple[str, str]], words: tuple[str, ...]
) -> None:
    shown = typed(dev_stack, *arguments, answers=answers)
    for word in words:
        assert word in shown


def test_what_cannot_be_run_is_a_sentence(dev_stack: Project) -> None:
    refused(dev_stack.invoke("run", "apii", "--", "ls", code=2), 'no service "apii"', "Did you mean api?")
    refused(dev_stack.invoke("run", "postgres-primary", "--", "bash", code=2), "must not run beside it")
    refused(dev_stack.invoke("shell", "tick", code=3), "tick does not run in dev", "--new")
    refused(dev_stack.invoke("psql", "--env", "staging", code=3), "staging is not running")


# ── what was missed ───────────────────────────────────────────────────────────────────────────────────────────────────


def missed(project: Project) -> Callable[[], bool]:
    return lambda: job(project, "tick")["result"].startswith("missed its time")


def test_what_was_missed_is_known_while_the_scheduler_is_away(dev_stack: Project) -> None:
    eventually(missed(dev_stack), 150, "a minute passed, and the time that it may be late")
    found = checks(dev_stack, code=1)
    assert (found["tick"]["status"], "the scheduler was not running" in found["tick"]["detail"]) == ("warn", True)


def test_what_was_missed_is_known_to_the_metrics_and_not_made_up_for(dev_stack: Project) -> None:
    eventually(lambda: 15 < datetime.now(UTC).second < 40, 60, "the middle of a minute")
    started = state(dev_stack, "tick")["StartedAt"]
    due = time.time() // 60 * 60
    docker("start", f"{dev_stack.name()}-scheduler-1")
    eventually(lambda: state(dev_stack, "scheduler")["Health"]["Status"] == "healthy", 30, "the scheduler is back")
    # The last full minute is within the minute of grace: that run is made. Those before it are what was missed.
    last_start = 'scheduled_job_last_start_timestamp_seconds{service="tick"}'
    eventually(lambda: metrics(dev_stack).get(last_start, 0) >= due, 15, "the run that is in time was made, and seen")
    assert metrics(dev_stack)['scheduled_job_missed_total{service="tick"}'] == 1
    assert state(dev_stack, "tick")["StartedAt"] > started


# ── hooks and the webhook ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def webhook(dev_stack: Project) -> Iterator[list[dict[str, Any]]]:
    """What was posted to the webhook of dev."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    secret = dev_stack.folder / "config/dev/secrets/DEPLOY_WEBHOOK_URL"
    secret.unlink(missing_ok=True)
    secret.write_text(f"http://127.0.0.1:{server.server_address[1]}/services/secret-part\n")
    try:
        yield posted
    finally:
        server.shutdown()
        secret.write_text("")


def hook(project: Project, name: str, text: str) -> None:
    path = project.folder / "hooks" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_hook_refuses_a_deploy_and_the_webhook_is_told_of_one_that_is_made(
    dev_stack: Project, webhook: list[dict[str, Any]]
) -> None:
    """What changes is a job: its container is made anew, and the removed label changes another one."""
    path = dev_stack.folder / "docker-compose.jobs.yml"
    before = dev_stack.containers()[f"{dev_stack.name()}-fails-1"]
    path.write_text(JOBS.replace("exit 3", "exit 0").replace('      ops.schedule.limit: "5"\n', ""))
    hook(dev_stack, "pre-deploy", 'echo "no deploy of $STACK_SERVICES today"; exit 1')
    hook(dev_stack, "post-deploy", 'echo "release $STACK_RELEASE $STACK_RESULT in $STACK_ENV"')
    assert "hooks: pre-deploy, post-deploy" in dev_stack.invoke("deploy", "--plan").stdout
    said = dev_stack.invoke("deploy", code=3)
    refused(said, "no deploy of fails overruns today", "Nothing was changed, because hooks/pre-deploy failed")
    assert dev_stack.containers()[f"{dev_stack.name()}-fails-1"] == before
    assert webhook == []
    hook(dev_stack, "pre-deploy", "exit 0")
    done = dev_stack.invoke("deploy")
    assert re.search(r"fails\s+scheduled", done.stdout)
    assert re.search(r"release \d+ deployed in dev", done.stdout)
    assert dev_stack.containers()[f"{dev_stack.name()}-fails-1"] != before
    assert [each["event"] for each in webhook] == ["started", "succeeded"]
    assert webhook[1]["services"] == ["fails", "overruns"]
    assert "secret-part" not in done.stdout + done.stderr
