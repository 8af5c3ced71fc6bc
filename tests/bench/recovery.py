"""What backups cost, what comes back from them, and what becomes of damaged and interrupted ones.

    python -m tests.bench.recovery [--only costs slowdown moments offsite damage full kills failover] [--rows 5000000]

A pair of servers and the containers of the part `backup`, without the rest of a stack (_recovery_site.py); each part of
it prints a table for RESULTS.md with its control in the same run.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench._recovery_site import IMAGE, POSTGRES, Failed, Site, docker, site, wait
from tests.bench.rollouts import noted, table
from tests.stack import targets

MIB = 1 << 20
ASK = Path(__file__).with_name("_recovery_ask.py")
V1, V2 = "/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu.stat"
# Nanoseconds that a container has taken so far.
USAGE = f"(cat {V1} || awk '/^usage_usec/ {{print $2 * 1000}}' {V2}) 2>&-"
NEWEST = "select coalesce(max(extract(epoch from at)), 0) || '|' || count(*) from beats"


# ── what all of them need ─────────────────────────────────────────────────────────────────────────────────────────────


def roles(place: Site) -> None:
    """The role that the stack's servers have for backups."""
    place.sql("""
        create role backup login replication;
        grant pg_read_all_data, pg_monitor to backup;
        grant execute on function pg_wal_replay_pause(), pg_wal_replay_resume() to backup;
        create table beats (id bigserial primary key, at timestamptz not null default clock_timestamp())""")


def data(place: Site, rows: int) -> None:
    """pgbench's tables, and about as much again of text."""
    name = f"{place.name}-{place.primary}"
    docker("exec", name, "pgbench", "-h", "127.0.0.1", "-U", "postgres", "-q", "-i", "-s", str(max(1, rows // 125_000)))
    place.sql(f"""
        create table documents as
            select i as id, 1 as version, md5(i::text) || repeat(substr(md5((i * 7)::text), 1, 8), 4) as body
            from generate_series(1, {rows}) i;
        alter table documents add primary key (id)""")


def change(place: Site, rows: int) -> None:
    """5 % of one table and 2,000 transactions all over another."""
    place.sql(f"update documents set version = version + 1 where id <= {rows // 20}")
    docker("exec", f"{place.name}-{place.primary}", "pgbench", "-h", "127.0.0.1", "-U", "postgres", "-n", "-t", "2000")


def ready(place: Site, rows: int, *, standby: bool = True, **settings: str) -> None:
    """A pair with data, and a receiver that has shipped."""
    place.up("a")
    roles(place)
    data(place, rows)
    if standby:
        place.follow("b", "a")
    receiver(place, **settings)


def receiver(place: Site, **settings: str) -> None:
    """Start the receiver and wait until it receives."""
    place.start("receive", name="receiver", **settings)
    streaming = "select count(*) from pg_stat_replication where application_name = 'wal-receiver'"
    wait(lambda: place.sql(streaming) == "1", 60, "the receiver receives")


def ask(place: Site, *, entry: str = "latest", moment: str = "", statement: str = NEWEST, where: str = "/backups",
        name: str = "ask", **settings: str) -> dict[str, object]:  # fmt: skip
    """Recover a moment in a container of the part and ask."""
    words = ("run", "--rm", f"--volume={ASK}:/ask.py:ro", *place.options(name, **settings), "--entrypoint", "python3",
             IMAGE, "/ask.py", where, entry, moment, "postgres", statement)  # fmt: skip
    try:
        return dict(json.loads(docker(*words).strip().splitlines()[-1]))
    except Failed as error:
        return {"error": error.said.strip().splitlines()[-1], "kind": "TRACEBACK", "code": error.code}


class Writer:
    """Inserts rows at a rate and notes what was acknowledged: the moments of the rows, by the server's clock."""

    def __init__(self, place: Site, per_second: float, node: str = "") -> None:
        insert = "insert into beats default values returning extract(epoch from at)"
        server = f"host={place.name}-a,{place.name}-b user=postgres target_session_attrs=primary connect_timeout=2"
        loop = (f"while true; do echo '{insert} \\watch {1 / per_second}' | "
                f"psql -Atq '{server}'; sleep 0.1; done")  # fmt: skip
        self._output = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115
        self.name = f"{place.name}-writer"
        subprocess.run(["docker", "rm", "-f", self.name], capture_output=True)
        self._process = subprocess.Popen(
            ["docker", "run", "--rm", "--name", self.name, "--network", place.name, "--entrypoint", "bash", POSTGRES,
             "-c", loop],
            stdout=self._output, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def acknowledged(self) -> list[float]:
        """The moments of the rows that were acknowledged so far."""
        with open(self._output.name) as file:  # noqa: PTH123
            return [float(line) for line in file.read().splitlines() if re.fullmatch(r"\d+\.\d+", line)]

    def end(self) -> list[float]:
        subprocess.run(["docker", "rm", "-f", self.name], capture_output=True)
        self._process.wait()
        return self.acknowledged()


@contextmanager
def load(place: Site) -> Iterator[Callable[[float], float]]:
    """A function that runs pgbench for some seconds, in a container of its own; transactions a second."""

    def run(seconds: float) -> float:
        said = docker("run", "--rm", "--network", place.name, "--entrypoint", "pgbench", POSTGRES, "-h",
                      f"{place.name}-{place.primary}", "-U", "postgres", "-n", "-c", "4", "-T", str(int(seconds)),
                      "--rate", "150", "postgres")  # fmt: skip
        match = re.search(r"tps = ([\d.]+)", said)
        latency = re.search(r"latency average = ([\d.]+)", said)
        assert match and latency, said
        return float(latency[1])

    yield run


def processor(name: str) -> float:
    """Processor seconds of a running container."""
    return int(docker("exec", name, "bash", "-c", USAGE)) / 1e9


def size(place: Site, path: str = "/backups") -> int:
    return int(place.shell(f"du -sb {path} | cut -f1", "size"))


# ── what it costs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def timed(place: Site, *command: str) -> tuple[float, float]:
    """Run a command of the part; seconds, and processor seconds of its container and the server."""
    script = f"{' '.join(command)} >&2; {USAGE}"
    server, began = processor(f"{place.name}-{place.primary}"), time.monotonic()
    own = int(place.shell(script, "timed").split()[-1]) / 1e9
    return time.monotonic() - began, own + processor(f"{place.name}-{place.primary}") - server


def costs(rows: int) -> None:
    """Time, processor and size of a full and an incremental entry, of a verification and a restore."""
    with site("recovery-bench-costs") as place:
        ready(place, rows)
        folder = int(place.sql("select sum(pg_database_size(oid)) from pg_database")) / MIB
        print(f"databases: {folder:.0f} MiB", flush=True)
        lines = []

        def line(words: str, command: tuple[str, ...], repository: str = "/backups") -> float:
            before = size(place, repository)
            seconds, used = timed(place, *command)
            grown = (size(place, repository) - before) / MIB
            lines.append(noted([words, f"{seconds:.1f}", f"{used:.1f}", f"{grown:.0f}"]))
            return seconds

        base = f"pg_basebackup -h {place.name}-a -U postgres --checkpoint fast -Ft"
        line("pg_basebackup, tar, with its WAL (control)", (f"{base} -D /scratch/base -X fetch",), "/scratch")
        line("pg_basebackup, tar, gzip (control)", (f"{base} -D /scratch/gzip -X fetch -z",), "/scratch")
        dump = f"pg_dump -h {place.name}-a -U postgres -Fc -Z zstd -f /scratch/dump postgres"
        line("pg_dump, custom, zstd (control)", (dump,), "/scratch")
        place.shell("rm -rf /scratch/base /scratch/gzip /scratch/dump", "tidy")
        ours = ("python3", "-m", "ops.recovery")
        line("an entry, full", (*ours, "take", "--json"))
        change(place, rows)
        line("an entry, incremental", (*ours, "take", "--json"))
        line("verification of the newest", (*ours, "verify", "--json"))
        found = ask(place, statement="select count(*) || '|' || sum(version) from documents")
        assert found.get("answer") == f"{rows}|{rows + rows // 20}", found
        lines.append(noted(["recovered from both and WAL, server takes writes", f"{found['seconds']:.1f}", "–", "–"]))
        print("\n" + table(("what", "s", "CPU s", "MiB at the target"), lines) + "\n")


def slowdown(rows: int) -> None:
    """How much longer a transaction takes during a backup; the control is a backup with the weight of the servers."""
    with site("recovery-bench-slowdown") as place, load(place) as run:
        ready(place, rows)
        lines = []
        for shares in (place.shares, 0):
            place.shares = shares
            quiet, busy = [], []
            for _ in range(3):
                quiet.append(run(20))
                taking = threading.Thread(target=place.job, args=("take",), kwargs={"name": "load"})
                taking.start()
                busy.append(run(20))
                taking.join()
            ratio = statistics.median(busy) / statistics.median(quiet)
            words = f"cpu_shares {shares}" if shares else "control: as the servers"
            lines.append(
                noted([words, *(", ".join(f"{each:.1f}" for each in some) for some in (quiet, busy)), f"{ratio:.2f}"])
            )
        print("\n" + table(("weight of the backup", "ms alone", "ms during a backup", "medians, ×"), lines) + "\n")


# ── what comes back ───────────────────────────────────────────────────────────────────────────────────────────────────


def moments(rows: int) -> None:
    """A writer at 50 rows a second, the servers' volumes destroyed, 10 random moments recovered."""
    with site("recovery-bench-moments") as place:
        ready(place, rows)
        place.job("take")
        writer = Writer(place, 50)
        began = time.time()
        time.sleep(45)
        change(place, rows)
        place.job("take")
        middle = time.time()
        time.sleep(60)
        written = writer.end()
        for node in ("a", "b"):
            place.destroy(node)
        place.stop("receiver")
        lines = []
        worst = 0.0
        last = written[-1]
        chosen = [random.uniform(began + 1, middle) for _ in range(4)] + [
            random.uniform(middle, last) for _ in range(6)
        ]
        for moment in chosen:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f"{moment % 1:.6f}"[1:] + "+00:00"
            found = ask(place, moment=text)
            if "answer" not in found:
                lines.append(noted([text[11:23], str(found["error"]), "–", "–", "–"]))
                continue
            newest, count = str(found["answer"]).split("|")
            expected = [each for each in written if each <= moment]
            error = abs(float(newest) - expected[-1])
            worst = max(worst, error)
            row = [
                text[11:23],
                str(found["entry"]),
                f"{error:.3f}",
                f"{int(count) - len(expected):+d}",
                f"{found['seconds']:.1f}",
            ]
            lines.append(noted(row))
        print("\n" + table(("moment", "entry", "error, s", "rows", "restore, s"), lines))
        print(f"{len(written)} rows in {last - began:.0f} s; largest error {worst:.3f} s\n")


def offsite(rows: int) -> None:
    """The machine is lost: what the targets off-site have of what was acknowledged."""
    lines = []
    for number in range(4):
        with site("recovery-bench-offsite") as place:
            start = targets.s3 if number % 2 == 0 else targets.sftp
            with start(place.name) as store:
                for key, value in store.secrets.items():
                    (place.folder / "secrets" / key).write_text(value, encoding="utf-8")
                (place.folder / "backup" / "known_hosts").write_text(store.known_hosts, encoding="utf-8")
                place.targets = f"/backups {store.address}"
                ready(place, rows, standby=False)
                place.job("take")
                writer = Writer(place, 50)
                time.sleep(70 + random.uniform(0, 30))
                # everything on the machine ends at once
                for name in ("receiver", "a"):
                    docker("kill", "--signal", "KILL", f"{place.name}-{name}")
                written = writer.end()
                place.stop("receiver")
                place.destroy("a")
                for volume in ("backups", "wal", "cache", "scratch"):
                    mount = f"--volume={place.name}-{volume}:/v"
                    docker(
                        "run",
                        "--rm",
                        "--user=0",
                        mount,
                        "--entrypoint",
                        "find",
                        IMAGE,
                        "/v",
                        "-mindepth",
                        "1",
                        "-delete",
                    )
                found = ask(place, where=store.address, BACKUP_TARGETS=store.address)
                newest, count = str(found.get("answer", "0|0")).split("|")
                lost, missing = written[-1] - float(newest), len(written) - int(count)
                kind = "S3" if number % 2 == 0 else "SFTP"
                lines.append(
                    noted(
                        [
                            kind,
                            f"{lost:.1f}",
                            f"{missing} of {len(written)}",
                            str(found.get("error", found.get("seconds"))),
                        ]
                    )
                )
    print("\n" + table(("target", "missing off-site, s", "rows", "restore, s"), lines) + "\n")


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────────

DAMAGES = """
import os, random, shutil, sys
from pathlib import Path
kind, seed = sys.argv[1], int(sys.argv[2])
random.seed(seed)
root = Path("/backups")
what, _, where = kind.partition(" in ")
folder = root / where
found = sorted(each for each in folder.rglob("*") if each.is_file()) if folder.is_dir() else [folder]
# every byte is as likely to be hit, so that most hits are where the data is
file = random.choices(found, [each.stat().st_size for each in found])[0]
content = file.read_bytes()
file.chmod(0o600)
if what == "bit":
    at = random.randrange(len(content))
    file.write_bytes(content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1:])
elif what == "cut":
    file.write_bytes(content[: random.randrange(1, len(content))])
elif what == "empty":
    file.write_bytes(b"")
elif what == "gone":
    file.unlink()
elif what == "swap":
    other = random.choice([each for each in found if each != file])
    other.chmod(0o600)
    mine, theirs = content, other.read_bytes()
    file.write_bytes(theirs), other.write_bytes(mine)
elif what == "all gone":
    for each in found:
        each.unlink()
print(kind, file, len(content))
"""


def cases() -> Iterator[str]:
    """50 kinds of damage, as DAMAGES reads them."""
    yield from ["bit in backups/data"] * 12
    yield from ["cut in backups/data"] * 6
    yield from ["empty in backups/data"] * 4
    yield from ["gone in backups/data"] * 4
    yield from ["swap in backups/data"] * 3
    yield from ["bit in backups/index", "cut in backups/index", "gone in backups/index"]
    yield from ["bit in backups/snapshots", "empty in backups/snapshots", "swap in backups/snapshots"]
    yield from ["bit in backups/config", "bit in backups/keys", "gone in backups/keys"]
    yield from ["bit in wal/data", "cut in wal/data", "gone in wal/data", "empty in wal/data"]
    yield from ["all gone in wal/snapshots", "all gone in wal/data", "bit in wal/config"]
    yield from ["key", "key", "manifest", "backup"]


# Writes the newest entry's backup of PostgreSQL anew: that of the entry before it, or its own with that one's manifest.
SWAP = """
import io, os, sys, tarfile
from ops.recovery import catalogue, settings
from ops.recovery.repository import Repository
found = settings.read(os.environ)
repository = Repository(found, found.targets[0], "backups")
before, newest = catalogue.entries(repository)[-2:]
def stored(entry):
    sink = open(f"/scratch/{entry.id}.tar", "w+b")
    repository.dump(entry.parts["postgres"].snapshot, "/base.tar", sink)
    sink.seek(0)
    return sink
one, two = stored(before), stored(newest)
if sys.argv[1] == "manifest":
    manifest = tarfile.open(fileobj=one).extractfile("backup_manifest").read()
    with tarfile.open(fileobj=two) as old, tarfile.open("/scratch/made.tar", "w") as new:
        for member in old:
            content = old.extractfile(member) if member.isreg() else None
            if member.name == "backup_manifest":
                member.size, content = len(manifest), io.BytesIO(manifest)
            new.addfile(member, content)
else:
    os.rename(f"/scratch/{before.id}.tar", "/scratch/made.tar")
repository.forget([newest.parts["postgres"].snapshot])
repository.save_output(["cat", "/scratch/made.tar"], "base.tar", catalogue.tags(newest.id, "postgres"))
"""


def damage(rows: int) -> None:
    """50 damaged targets on a machine that has nothing else: what is refused, and what comes back all the same."""
    with site("recovery-bench-damage") as place:
        ready(place, rows, BACKUP_WAL_SECONDS="5")
        place.settings["BACKUP_WAL_SECONDS"] = "5"
        place.job("take")
        change(place, rows)
        place.job("take")
        place.job("verify")
        place.sql("insert into beats select from generate_series(1, 100)")
        time.sleep(12)
        place.stop("receiver")
        statement = "select (select count(*) || '|' || sum(version) from documents) || '|' || count(*) from beats"
        expected = place.sql(statement)
        for node in ("a", "b"):
            place.destroy(node)
        place.shell("cp -a /backups/. /scratch/good", "keep")
        place.fresh = ("wal", "cache")
        control = ask(place, statement=statement)
        assert control.get("answer") == expected, control
        key = place.folder / "secrets" / "BACKUP_KEY"
        right = key.read_text(encoding="utf-8")
        found: dict[str, list[str]] = {}
        samples: dict[str, str] = {}
        for number, case in enumerate(cases()):
            place.shell("chmod -R u+w /backups; rm -rf /backups/*; cp -a /scratch/good/. /backups/", "reset")
            if case == "key":
                key.write_text(f"another {number}", encoding="utf-8")
            elif case in ("manifest", "backup"):
                place.shell(f"python3 - {case} <<'END'\n{SWAP}\nEND", "swap")
            else:
                place.shell(f"python3 - '{case}' {number} <<'END'\n{DAMAGES}\nEND", "damage")
            came = ask(place, statement=statement)
            key.write_text(right, encoding="utf-8")
            if "error" in came:
                verdict = f"refused: {came['kind']}"
                samples.setdefault(f"{case}: {came['kind']}", str(came["error"]))
            elif came["answer"] == expected:
                verdict = "not needed: all came back"
            else:
                verdict = "WRONG"
            print(number, case, verdict, str(came.get("error", came.get("answer")))[:160], flush=True)
            found.setdefault(case, []).append(verdict)
        lines = [
            [case, str(len(each)), ", ".join(f"{each.count(one)} {one}" for one in sorted(set(each)))]
            for case, each in found.items()
        ]
        print("\n" + table(("damage", "times", "what became of it"), lines) + "\n")
        for case, said in samples.items():
            print(f"- {case}: {said[:300]}")


def full(rows: int) -> None:
    """The target is full while an entry is written: an error, and the entry before it is as good as it was."""
    lines = []
    for kind in ("S3", "SFTP"):
        with site("recovery-bench-full") as place:
            start = targets.s3 if kind == "S3" else targets.sftp
            with start(place.name, megabytes=60) as store:
                for key, value in store.secrets.items():
                    (place.folder / "secrets" / key).write_text(value, encoding="utf-8")
                (place.folder / "backup" / "known_hosts").write_text(store.known_hosts, encoding="utf-8")
                place.targets = store.address
                place.settings["BACKUP_WAL_SECONDS"] = "5"
                ready(place, rows)
                place.job("take")
                place.sql(
                    "create table more as select i, md5(i::text) || md5((-i)::text) from generate_series(1, 2000000) i"
                )
                began = time.monotonic()
                try:
                    place.job("take")
                    said = "TAKEN"
                except Failed as error:
                    said = f"exit code {error.code}: {' '.join(error.said.split())[-220:]}"
                seconds = time.monotonic() - began
                place.stop("receiver")
                place.fresh = ("wal", "cache")
                came = ask(place, where=store.address, statement="select count(*) from documents")
                lines.append(noted([kind, f"{seconds:.0f}", said, str(came.get("answer", came.get("error")))]))
    print("\n" + table(("target", "s", "what it said", f"rows of the entry before ({rows})"), lines) + "\n")


# ── kills ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def kills(rows: int, times: int) -> None:
    """SIGKILL of a backup, a verification and a restore at random points; the same command again each time."""
    with site("recovery-bench-kills") as place:
        place.settings["BACKUP_WAL_SECONDS"] = "5"
        ready(place, rows)
        place.job("take")
        lines = []
        commands = {"restore": ["materialize", "latest"], "verify": ["verify", "latest"], "take": ["take"]}
        for what in ("restore", "verify", "take"):
            began = time.monotonic()
            runs: dict[str, Callable[[], object]] = {
                "take": lambda: place.job("take"),
                "verify": lambda: place.job("verify", "latest"),
                "restore": lambda: place.shell("python3 -m ops.recovery materialize latest | tar -t", "job"),
            }
            runs[what]()
            usual = time.monotonic() - began
            works, failures, lost = 0, [], 0
            for _ in range(times):
                before = names(place)
                place.start(*commands[what], name="victim")
                time.sleep(random.uniform(0.3, usual))
                subprocess.run(["docker", "kill", "--signal", "KILL", f"{place.name}-victim"], capture_output=True)
                subprocess.run(["docker", "rm", "--force", f"{place.name}-victim"], capture_output=True)
                lost += len(before - names(place))
                try:
                    runs[what]()
                    works += 1
                except Failed as error:
                    failures.append(" ".join(error.said.split())[-200:])
            left = place.shell("find /scratch -mindepth 1 | head -5 | tr '\\n' ' '", "left").strip()
            lines.append(noted([what, str(times), f"{usual:.1f}", str(lost), f"{works} of {times}", left or "nothing"]))
            for each in failures[:3]:
                print("  ", each)
        came = ask(place)
        print(
            "\n" + table(("killed", "times", "takes, s", "entries lost", "next run worked", "left in scratch"), lines)
        )
        print(f"the newest entry in the end: {came}\n")


def names(place: Site) -> set[str]:
    """Ids of the entries at the target."""
    script = (
        "import os; from ops.recovery import catalogue, settings; from ops.recovery.repository import Repository; "
        "s = settings.read(os.environ); found = catalogue.entries(Repository(s, s.targets[0], 'backups')); "
        "print(*(each.id for each in found))"
    )
    return set(place.shell(f'python3 -c "{script}"', "names").split())


# ── failover ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def failover(rows: int) -> None:
    """The primary is killed in the middle of a backup and the standby promoted; then a switchover, with the same."""
    with site("recovery-bench-failover") as place:
        place.settings["BACKUP_WAL_SECONDS"] = "5"
        ready(place, rows)
        place.job("take")
        lines = []

        def took() -> str:
            try:
                place.job("take")
                return "taken"
            except Failed as error:
                return " ".join(error.said.split())[-200:]

        def compare(words: str, entry: str = "latest") -> None:
            # the writer goes on: what is here now has to be there then
            there = place.sql(NEWEST).split("|")[1]
            place.sql("select pg_switch_wal()")
            time.sleep(15)
            came = ask(place, entry=entry)
            back = str(came["answer"]).split("|")[1] if "answer" in came else str(came["error"])[:200]
            lines.append(noted([words, f"{back}, at least {there} expected", str(came.get("entry", ""))]))

        writer = Writer(place, 50)
        time.sleep(5)
        outcome: list[str] = []
        taking = threading.Thread(target=lambda: outcome.append(took()))
        taking.start()
        time.sleep(3)
        place.destroy("a")
        place.primary = "b"
        place.sql("select pg_promote()")
        taking.join()
        promoted = time.time()
        lines.append(noted(["backup while its primary was killed", outcome[0], ""]))
        time.sleep(10)
        first = sorted(names(place))[0]
        compare("newest moment, from an entry of the old timeline", first)
        lines.append(noted(["the next backup", took(), ""]))
        compare("newest moment, from it")
        place.follow("a", "b")
        time.sleep(5)
        # switchover: the primary ends cleanly, and its standby has everything
        outcome.clear()
        taking = threading.Thread(target=lambda: outcome.append(took()))
        taking.start()
        time.sleep(2)
        docker("stop", "--time", "60", f"{place.name}-b")
        place.primary = "a"
        place.sql("select pg_promote()")
        taking.join()
        lines.append(noted(["backup during a switchover", outcome[0], ""]))
        docker("rm", f"{place.name}-b")
        place.destroy("b")
        time.sleep(5)
        lines.append(noted(["the next backup, without a standby", took(), ""]))
        compare("newest moment, from it")
        compare("newest moment, from the first entry, two timelines back", first)
        writer.end()
        moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(promoted - 15))
        came = ask(place, moment=moment)
        lines.append(
            noted(
                [
                    f"a moment before the failover ({moment[11:19]})",
                    str(came.get("answer", came.get("error"))),
                    str(came.get("entry", "")),
                ]
            )
        )
        print("\n" + table(("what", "outcome", "entry"), lines) + "\n")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "costs": lambda asked: costs(asked.rows),
    "slowdown": lambda asked: slowdown(asked.rows),
    "moments": lambda asked: moments(asked.small),
    "offsite": lambda asked: offsite(asked.small),
    "damage": lambda asked: damage(asked.small),
    "full": lambda asked: full(asked.small),
    "kills": lambda asked: kills(asked.small, asked.kills),
    "failover": lambda asked: failover(asked.small),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the table documents, for costs")
    parser.add_argument("--small", type=int, default=100_000, help="the same for all others")
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    asked = parser.parse_args()
    for part in asked.only:
        print(f"## {part}\n", flush=True)
        PARTS[part](asked)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
