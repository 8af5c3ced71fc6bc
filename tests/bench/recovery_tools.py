"""Which tool makes PostgreSQL's backups: pgBackRest, Barman (streaming), or PostgreSQL's own programs with restic.

    python -m tests.bench.recovery_tools [--rows 5000000] [--only NAME …] [--failover]

Every tool gets a server of its own over a copy of the same data. In turn: a full backup, a change to a part of the
data, an incremental one, the restore of both with the WAL up to the newest. Then a client writes 50 rows a second, the
server is killed and its volume removed, and what was acknowledged is compared with what comes back: from everything
that the tool has (the server died), and from its repository alone (the machine died). pg_basebackup and pg_dump are
the controls. With --failover instead: a standby is promoted after the server was killed and takes over its name; what
each tool then does by itself, without another command. Needs an engine and Debian's packages; no stack.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.rollouts import noted, table
from tests.images import build

POSTGRES = "postgres:18.6"
# Debian's newest, on the server's own image, so that all of them use the same client programs.
IMAGE = "enterprise-stack/recovery-tools"
DOCKERFILE = f"""FROM {POSTGRES}
RUN apt-get update \
    && apt-get install -y --no-install-recommends barman pgbackrest restic python3 procps \
    && mkdir -p /etc/pgbackrest /repository /restored /wal /var/log/pgbackrest \
    && chown 999:999 /etc/pgbackrest /repository /restored /wal /var/log/pgbackrest
"""
PREFIX = "recovery-tools"
PGDATA = "/var/lib/postgresql/18/docker"
SHIP_SECONDS = 30
MIB = 1 << 20
HEAD = ("tool", "server's image", "full: s / CPU s / MiB", "incremental: s / CPU s / MiB", "restore, s",
        "server died: lost, s", "machine died: lost, s")  # fmt: skip
FAILOVER_HEAD = ("tool", "next incremental backup", "rows of before and after that come back")


def docker(*arguments: str, timeout: float = 900) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)[:300]}: {(done.stdout + done.stderr)[-1500:]}")
    return done.stdout


@dataclass
class Figures:
    seconds: float
    processor: float
    size: float

    def __str__(self) -> str:
        return f"{self.seconds:.1f} / {self.processor:.1f} / {self.size / MIB:.0f}"


class Tool:
    """A server and a container with the tool, which has the repository in a volume of its own."""

    name = "pg_basebackup"
    image = POSTGRES
    incremental = False
    settings: tuple[str, ...] = ()
    found = 0  # rows of the client in what was restored last

    def __init__(self) -> None:
        self.server, self.shop = f"{PREFIX}-server", f"{PREFIX}-tool"
        self.volumes = {name: f"{PREFIX}-{name}" for name in ("data", "repository", "wal")}

    def start(self) -> None:
        for volume in self.volumes.values():
            docker("volume", "create", volume)
        copy = f"cp -a {'/from/.'} /to/ && chown 999:999 /repository /wal"
        docker("run", "--rm", "-v", f"{PREFIX}-original:/from:ro", "-v", f"{self.volumes['data']}:/to",
               "-v", f"{self.volumes['repository']}:/repository", "-v", f"{self.volumes['wal']}:/wal",
               "--entrypoint", "bash", IMAGE, "-c", copy)  # fmt: skip
        docker("run", "--detach", "--name", self.shop, "--network", PREFIX, "--user", "999:999", "--init",
               "-v", f"{self.volumes['repository']}:/repository", "-v", f"{self.volumes['wal']}:/wal",
               "--env", "HOME=/tmp", "--env", "PGHOST=server", "--env", "PGUSER=postgres",
               "--entrypoint", "sleep", IMAGE, "infinity")  # fmt: skip
        options = ("shared_buffers=256MB", "max_wal_size=2GB", "summarize_wal=on", *self.settings)
        docker("run", "--detach", "--name", self.server, "--network", PREFIX, "--network-alias", "server",
               "-v", f"{self.volumes['data']}:/var/lib/postgresql", "-v", f"{self.volumes['repository']}:/repository",
               self.image, "postgres", *(word for option in options for word in ("-c", option)))  # fmt: skip
        wait(lambda: self.sh("pg_isready") != "", 60)

    def end(self) -> None:
        for container in (self.server, self.shop):
            subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True)
        for volume in self.volumes.values():
            subprocess.run(["docker", "volume", "rm", volume], capture_output=True)

    def sh(self, script: str) -> str:
        """Run a script beside the tool and return what it says."""
        return docker("exec", self.shop, "bash", "-euo", "pipefail", "-c", script)

    def begin(self, script: str) -> None:
        """Start a script that goes on."""
        docker("exec", "--detach", self.shop, "bash", "-c", script)

    def prepare(self) -> None:
        """What has to be there before the first backup."""

    def full(self) -> None:
        self.sh("pg_basebackup --pgdata /repository/base --format tar --wal-method fetch --checkpoint fast")

    def more(self) -> None:
        """An incremental backup."""

    def restore(self, survivors: bool) -> None:
        """Fill /restored/data, ready to start. survivors: use what lies beside the repository too."""
        self.sh(
            "mkdir -p /restored/data && chmod 700 /restored/data && tar -xf /repository/base/base.tar -C /restored/data"
        )

    def processor(self) -> float:
        """Processor seconds that both containers have taken so far."""
        ask = (
            "cat /sys/fs/cgroup/cpuacct/cpuacct.usage || awk '/^usage_usec/ {print $2 * 1000}' /sys/fs/cgroup/cpu.stat"
        )
        return sum(int(docker("exec", name, "bash", "-c", f"({ask}) 2>&-")) for name in (self.server, self.shop)) / 1e9

    def size(self) -> int:
        return int(self.sh("du -sb /repository").split()[0])

    def measured(self, what: Callable[[], None]) -> Figures:
        size, processor, began = self.size(), self.processor(), time.monotonic()
        what()
        return Figures(time.monotonic() - began, self.processor() - processor, self.size() - size)

    def opened(self, survivors: bool) -> tuple[float, float, str]:
        """Restore and start; seconds, the newest time written, and how many rows the big table has."""
        self.sh("rm -rf /restored/data /restored/staging")
        began = time.monotonic()
        self.restore(survivors)
        self.sh("pg_ctl -D /restored/data -w -t 300 -o '-c archive_mode=off -c listen_addresses= -c port=5433 "
                "-c unix_socket_directories=/tmp -c shared_buffers=256MB' -l /tmp/restored.log start")  # fmt: skip
        ask = "psql -h /tmp -p 5433 -Atc"
        wait(lambda: self.sh(f"{ask} 'select pg_is_in_recovery()'").strip() == "f", 300)
        seconds = time.monotonic() - began
        newest = float(self.sh(f"{ask} 'select coalesce(max(extract(epoch from at)), 0) from beats'"))
        rows = self.sh(f"{ask} 'select count(*), sum(version) from documents'").strip()
        self.found = int(self.sh(f"{ask} 'select count(*) from beats'"))
        self.sh("pg_ctl -D /restored/data -m immediate stop")
        return seconds, newest, rows


class Dump(Tool):
    name = "pg_dump"

    def full(self) -> None:
        self.sh("pg_dump --format custom --compress zstd --file /repository/dump postgres")

    def restore(self, survivors: bool) -> None:
        self.sh("initdb --pgdata /restored/data --auth trust > /tmp/initdb.log"
                "&& pg_ctl -D /restored/data -w -o '-c listen_addresses= -c port=5433 -c unix_socket_directories=/tmp "
                "-c shared_buffers=256MB -c max_wal_size=2GB' -l /tmp/restored.log start"
                "&& pg_restore -h /tmp -p 5433 --dbname postgres --jobs 2 /repository/dump"
                "&& pg_ctl -D /restored/data stop")  # fmt: skip


class PgBackRest(Tool):
    name = "pgBackRest"
    image = IMAGE  # archive_command runs it in the server's container
    incremental = True
    settings = ("archive_mode=on", "archive_command=pgbackrest --stanza=main archive-push %p",
                f"archive_timeout={SHIP_SECONDS}")  # fmt: skip
    configuration = (
        "[global]\\nrepo1-path=/repository/pgbackrest\\nrepo1-cipher-type=aes-256-cbc\\nrepo1-cipher-pass=secret\\n"
        "repo1-retention-full=2\\nrepo1-block=y\\nrepo1-bundle=y\\ncompress-type=zst\\nprocess-max=2\\nstart-fast=y\\n"
        f"log-level-console=warn\\n[main]\\npg1-path={PGDATA}\\n"
    )

    def prepare(self) -> None:
        for container in (self.server, self.shop):
            write = f"printf '{self.configuration}' > /etc/pgbackrest/pgbackrest.conf"
            docker("exec", "--user", "999:999", container, "bash", "-c", write)
        self.inside("stanza-create")

    def inside(self, *arguments: str) -> None:
        docker("exec", "--user", "999:999", self.server, "pgbackrest", "--stanza=main", *arguments)

    def full(self) -> None:
        self.inside("backup", "--type=full")

    def more(self) -> None:
        self.inside("backup", "--type=incr")

    def restore(self, survivors: bool) -> None:
        self.sh("mkdir -m 700 /restored/data && pgbackrest --stanza=main --pg1-path=/restored/data restore")


class Barman(Tool):
    name = "Barman, streaming"
    incremental = True
    configuration = (
        "[barman]\\nbarman_user=postgres\\nbarman_home=/repository/barman\\nlog_file=/tmp/barman.log\\n"
        "configuration_files_directory=/tmp/barman.d\\n[main]\\ndescription=main\\n"
        "conninfo=host=server user=postgres dbname=postgres\\nstreaming_conninfo=host=server user=postgres\\n"
        "backup_method=postgres\\nstreaming_archiver=on\\nslot_name=barman\\ncreate_slot=auto\\n"
        "immediate_checkpoint=on\\nstaging_path=/restored/staging\\nstaging_location=local\\n"
    )

    def prepare(self) -> None:
        self.sh(f"mkdir -p /repository/barman /tmp/barman.d; printf '{self.configuration}' > /tmp/barman.conf")
        # its documentation runs this each minute from cron
        self.begin("while true; do barman -c /tmp/barman.conf -q cron; sleep 60; done")
        self.sh("barman -c /tmp/barman.conf receive-wal --create-slot main || true")
        wait(lambda: "active" in self.sh("psql -Atc \"select 'active' from pg_replication_slots where active\""), 90)
        self.sh("barman -c /tmp/barman.conf switch-wal --force --archive main")

    def full(self) -> None:
        self.sh("barman -c /tmp/barman.conf backup --wait main")

    def more(self) -> None:
        self.sh("barman -c /tmp/barman.conf backup --wait --incremental last-full main")

    def restore(self, survivors: bool) -> None:
        self.sh("barman -c /tmp/barman.conf archive-wal main || true; mkdir -p /restored/staging"
                "; barman -c /tmp/barman.conf restore --partial-wal --staging-path /restored/staging "
                "--staging-location local --target-tli latest main latest /restored/data")  # fmt: skip


class Native(Tool):
    name = "pg_receivewal, pg_basebackup, restic"
    incremental = True
    restic = "RESTIC_PASSWORD=secret RESTIC_CACHE_DIR=/tmp/cache restic --quiet --repo /repository/{}"

    def prepare(self) -> None:
        for kind in ("backups", "wal"):
            self.sh(f"{self.restic.format(kind)} init")
        self.begin("while true; do pg_receivewal --slot backup --create-slot --if-not-exists; "
                   "pg_receivewal --directory /wal --slot backup --synchronous; sleep 1; done")  # fmt: skip
        ship = f"{self.restic.format('wal')} backup --host ship /wal"
        self.begin(f"while true; do {ship}; sleep {SHIP_SECONDS}; done")

    def take(self, *options: str) -> None:
        # The manifest, which the next incremental one needs, is taken out of the stream on its way.
        stream = f"pg_basebackup --pgdata - --format tar --wal-method none --checkpoint fast {' '.join(options)}"
        keep = "tee >(tar -xO backup_manifest > /tmp/manifest.new)"
        self.sh(f"{self.restic.format('backups')} backup --stdin-filename base.tar --stdin-from-command -- "
                f"bash -euo pipefail -c '{stream} | {keep}' && mv /tmp/manifest.new /tmp/manifest")  # fmt: skip

    def full(self) -> None:
        self.take()

    def more(self) -> None:
        self.take("--incremental /tmp/manifest")

    def restore(self, survivors: bool) -> None:
        restic = self.restic.format("backups")
        ids = 'grep -o \'"short_id":"[^"]*\' | cut -d\'"\' -f4'
        self.sh(f"mkdir -p /restored/staging; n=0; for id in $({restic} snapshots --json | {ids}); do n=$((n+1)); "
                f"mkdir /restored/staging/$n; {restic} dump $id base.tar | tar -x -C /restored/staging/$n; done; "
                "pg_combinebackup --copy-file-range -o /restored/data $(ls -d /restored/staging/[0-9]*) "
                "|| pg_combinebackup -o /restored/data $(ls -d /restored/staging/[0-9]*)")  # fmt: skip
        if survivors:
            # twice: files get their final names meanwhile
            copy = "cp /wal/* /restored/staging/wal/ 2>&- || true"
            self.sh(f"mkdir /restored/staging/wal; {copy}; {copy}")
        else:
            self.sh(f"{self.restic.format('wal')} restore latest:/wal --target /restored/staging/wal")
        self.sh("cd /restored/staging/wal; "
                "for part in *.partial; do [ ! -e $part ] || mv $part ${part%.partial}; done; "
                "echo \"restore_command = 'cp /restored/staging/wal/%f %p'\" >> /restored/data/postgresql.auto.conf; "
                "touch /restored/data/recovery.signal")  # fmt: skip


TOOLS: tuple[type[Tool], ...] = (Tool, Dump, PgBackRest, Barman, Native)


def wait(met: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; what cannot be asked yet does not."""
    until = time.monotonic() + seconds
    while True:
        try:
            if met():
                return
        except RuntimeError:
            if time.monotonic() > until:
                raise
        if time.monotonic() > until:
            raise RuntimeError("waited in vain")
        time.sleep(0.25)


def original(rows: int) -> None:
    """The data, once: pgbench's tables and as much again of text that compresses about as well as text does."""
    docker("volume", "create", f"{PREFIX}-original")
    docker("run", "--detach", "--name", f"{PREFIX}-make", "--env", "POSTGRES_HOST_AUTH_METHOD=trust",
           "-v", f"{PREFIX}-original:/var/lib/postgresql", POSTGRES, "postgres", "-c", "wal_level=minimal",
           "-c", "max_wal_senders=0", "-c", "max_wal_size=4GB")  # fmt: skip
    inside = ("exec", "--user", "999:999", f"{PREFIX}-make")
    wait(lambda: "1" in docker(*inside, "psql", "-h", "127.0.0.1", "-Atc", "select 1"), 60)
    docker(*inside, "pgbench", "-q", "-i", "-s", str(max(1, rows // 125_000)))
    docker(*inside, "psql", "-c", f"""
        CREATE TABLE beats (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp());
        CREATE TABLE documents AS
            SELECT i AS id, 1 AS version, md5(i::text) || repeat(substr(md5((i * 7)::text), 1, 8), 4) AS body
            FROM generate_series(1, {rows}) i;
        ALTER TABLE documents ADD PRIMARY KEY (id)""")  # fmt: skip
    docker(
        *inside, "bash", "-c", f"echo 'host all all all trust\nhost replication all all trust' >> {PGDATA}/pg_hba.conf"
    )
    docker("stop", "--time", "60", f"{PREFIX}-make")
    docker("rm", f"{PREFIX}-make")


def change(tool: Tool, rows: int) -> None:
    """Change what the incremental backup has to find: 5 % of one table and 2,000 transactions all over another."""
    tool.sh(f"psql -qc 'update documents set version = 2 where id <= {rows // 20}' && pgbench -n -t 2000 postgres 2>&1")


def died(tool: Tool) -> tuple[float, float]:
    """Seconds of acknowledged writes that are gone when the server died, and when the machine died."""
    insert = "insert into beats default values returning extract(epoch from at)"
    tool.begin(f"echo '{insert} \\watch 0.02' | psql -Atq > /tmp/acked 2>&1")
    time.sleep(75 + random.uniform(0, SHIP_SECONDS))
    docker("kill", "--signal", "KILL", tool.server)
    # what is off-site at this moment
    tool.sh("cp -a /repository /tmp/offsite")
    docker("rm", "--volumes", tool.server)
    docker("volume", "rm", tool.volumes["data"])
    numbers = "grep -E '^[0-9]+[.]' /tmp/acked | tail -1"
    acked = float(tool.sh(numbers))
    _, server, _ = tool.opened(survivors=True)
    tool.sh("rm -rf /repository/* && cp -a /tmp/offsite/. /repository/")
    _, machine, _ = tool.opened(survivors=False)
    return acked - server, acked - machine


def failed_over(kind: type[Tool], rows: int) -> list[str]:
    """What a tool does after a failover: rows from before and after it that come back, and whether it goes on."""
    tool = kind()
    standby, volume = f"{PREFIX}-standby", f"{PREFIX}-standby"
    try:
        tool.start()
        tool.prepare()
        tool.full()
        docker("volume", "create", volume)
        options = " ".join(f"-c '{option}'" for option in ("summarize_wal=on", *tool.settings))
        become = f"pg_basebackup -h server -U postgres -D {PGDATA} -R -c fast && exec postgres {options}"
        docker("run", "--detach", "--name", standby, "--network", PREFIX, "--user", "999:999", "-v",
               f"{volume}:/var/lib/postgresql", "-v", f"{tool.volumes['repository']}:/repository",
               "--entrypoint", "bash", tool.image, "-c", become)  # fmt: skip
        ask = ("exec", standby, "psql", "-U", "postgres", "-Atc")
        wait(lambda: docker(*ask, "select pg_is_in_recovery()").strip() == "t", 120)
        tool.sh("psql -qc 'insert into beats select from generate_series(1, 100)'")
        wait(lambda: docker(*ask, "select count(*) from beats").strip() == "100", 60)
        if isinstance(tool, PgBackRest):
            docker("exec", standby, "bash", "-c", f"printf '{tool.configuration}' > /etc/pgbackrest/pgbackrest.conf")
        docker("rm", "--force", "--volumes", tool.server)
        docker("network", "disconnect", PREFIX, standby)
        docker("network", "connect", "--alias", "server", PREFIX, standby)
        docker(*ask, "select pg_promote()")
        tool.server = standby
        tool.sh("psql -qc 'insert into beats select from generate_series(1, 1000)'")
        # Barman's cron comes by once a minute
        time.sleep(SHIP_SECONDS + 75)
        tool.sh("psql -qc 'select pg_switch_wal()'")
        time.sleep(SHIP_SECONDS + 75)
        try:
            tool.more()
            goes_on = "yes"
        except RuntimeError as error:
            goes_on = " ".join(str(error).split())[-200:]
        try:
            tool.opened(survivors=False)
            back = f"{tool.found} of 1,100"
        except RuntimeError as error:
            back = " ".join(str(error).split())[-200:]
        return [tool.name, goes_on, back]
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", standby], capture_output=True)
        tool.end()
        subprocess.run(["docker", "volume", "rm", volume], capture_output=True)


def measure(kind: type[Tool], rows: int) -> list[str]:
    tool = kind()
    image = "official" if tool.image == POSTGRES else "with the tool in it"
    try:
        tool.start()
        tool.prepare()
        full = tool.measured(tool.full)
        found: list[object] = [tool.name, image, full, "–"]
        expected = f"{rows}|{rows}"
        if tool.incremental:
            change(tool, rows)
            found[3] = tool.measured(tool.more)
            expected = f"{rows}|{rows + rows // 20}"
        seconds, _, inside = tool.opened(survivors=True)
        assert inside == expected, f"{tool.name} restored {inside}, not {expected}"
        losses = [f"{lost:.1f}" for lost in died(tool)] if tool.incremental else ["all since the backup"] * 2
        return [str(entry) for entry in (*found, f"{seconds:.1f}", *losses)]
    finally:
        tool.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--failover", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[tool.name for tool in TOOLS])
    asked = parser.parse_args()
    build.provide([POSTGRES])
    subprocess.run(["docker", "build", "--quiet", "--tag", IMAGE, "-"], input=DOCKERFILE, text=True, check=True)
    docker("network", "create", PREFIX)
    rows = []
    try:
        original(asked.rows)
        size = docker("run", "--rm", "-v", f"{PREFIX}-original:/d", "--entrypoint", "du", IMAGE, "-sm", "/d")
        print(f"data folder: {size.split()[0]} MiB", flush=True)
        for tool in TOOLS:
            if (not asked.only or tool.name in asked.only) and (tool.incremental or not asked.failover):
                rows.append(noted((failed_over if asked.failover else measure)(tool, asked.rows)))
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{PREFIX}-make"], capture_output=True)
        subprocess.run(["docker", "volume", "rm", f"{PREFIX}-original"], capture_output=True)
        subprocess.run(["docker", "network", "rm", PREFIX], capture_output=True)
    print("\n" + table(FAILOVER_HEAD if asked.failover else HEAD, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
