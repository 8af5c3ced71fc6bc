"""A restic repository at a target: what is saved, found, copied, forgotten and checked in it.

All that is known of restic is in this module. Its password and the keys of targets are in files only: no command line,
no environment and no line of a log has them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ops.base.errors import OpsError
from ops.recovery.settings import Kind, Settings, Target

# How long an operation goes on while its target is out of reach. restic itself would try for 15 minutes.
PATIENCE_SECONDS = 90.0
# How long an operation waits for another one that must have the repository to itself.
LOCK_SECONDS = 600.0
# restic removes its lock from the target when it is asked to end; after so many seconds it is killed.
_FAREWELL_SECONDS = 20
_NICE = 10


class RepositoryError(OpsError):
    """An operation on a repository failed. location: the target's."""

    def __init__(self, location: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.location = location


class Unreachable(RepositoryError):
    """The target does not answer, or does not let us in."""


class Missing(RepositoryError):
    """There is no repository at the target."""


class WrongKey(RepositoryError):
    """The repository was made with another BACKUP_KEY."""


class Locked(RepositoryError):
    """Another operation has had the repository to itself for too long."""


class Full(RepositoryError):
    """The target takes no more data."""


class Damaged(RepositoryError):
    """The target gave something back that is not what was saved."""


class Unreadable(RepositoryError):
    """Files to save could not be read. snapshot: what was saved without them."""

    def __init__(self, location: str, snapshot: str, complaints: Sequence[str]) -> None:
        super().__init__(location, f"Not everything could be read: {'; '.join(complaints[:5])}.")
        self.snapshot = snapshot


class CommandFailed(RepositoryError):
    """The command whose output was to be saved failed. Nothing was saved."""


@dataclass(frozen=True)
class Snapshot:
    """What was saved in one step. time: when, with its time zone; size: bytes before, added: after compression and
    without what the repository had already; original: the id at the target it was copied from, else its own."""

    id: str
    time: datetime
    tags: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    size: int = 0
    added: int = 0
    original: str = ""

    def tag(self, name: str) -> str:
        """The value of the tag NAME=value; "" when there is none."""
        return next((each.partition("=")[2] for each in self.tags if each.startswith(f"{name}=")), "")


@dataclass(frozen=True)
class Listing:
    """The snapshots that could be read, oldest first, and complaints about those that could not."""

    snapshots: tuple[Snapshot, ...]
    unreadable: tuple[str, ...] = ()


class Repository:
    """One repository. Every method raises RepositoryError (Unreachable, WrongKey, Locked, Full, Damaged …).

    patience: seconds that a target may be out of reach; lock_seconds: that an operation waits for a lock.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        kind: Kind,
        *,
        patience: float = PATIENCE_SECONDS,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self.settings = settings
        self.target = target
        self.kind = kind
        self.location = target.repository(kind)
        self._patience = patience
        self._lock_seconds = lock_seconds

    # ── the repository itself ─────────────────────────────────────────────────────────────────────────────────────────

    def exists(self) -> bool:
        """Whether there is a repository that our key opens. Raises WrongKey when another one does."""
        try:
            self._run(["cat", "config", "--no-lock"])
        except Missing:
            return False
        return True

    def ensure(self, like: Repository | None = None) -> None:
        """Make the repository where there never was one. Raises Missing where there was: a disk that is not mounted
        must not get an empty one in its place. like: the one to cut data like, so that what is copied is found.
        """
        if not self.exists():
            self.refuse_lost()
            alike = [*_from(like), "--copy-chunker-params"] if like else []
            self._run(["init", *alike], lock=False)
        self._known.parent.mkdir(parents=True, exist_ok=True)
        self._known.touch()

    def refuse_lost(self) -> None:
        """Raise Missing when the repository, which does not exist, did so before."""
        if self._known.exists():
            raise Missing(
                self.location,
                f"The backup repository at {self.location} is gone; there was one before.",
                "Mount it, or correct BACKUP_TARGETS. If it is lost for good, begin a new one: invoke backup --init",
            )

    def give_up_lost(self) -> None:
        """Let `ensure` begin a new repository where one is gone."""
        if not self.exists():
            self._known.unlink(missing_ok=True)

    @property
    def _known(self) -> Path:
        """There was a repository at this place. With the WAL, because the cache can be lost."""
        return self.settings.paths.wal / "repositories" / self.place

    def check(self, read_data: str = "") -> None:
        """Raise Damaged unless the repository is whole. read_data: how much data to read again, such as 5% or 2G."""
        self._run(["check", "--no-lock", *([f"--read-data-subset={read_data}"] if read_data else [])])

    def repair(self, work: Path) -> list[str]:
        """Take what is damaged or gone out of the index, so that it is stored again with what is saved next; the ids of
        the packs that were damaged. Reads all data. work: an empty folder, for copies of those packs."""
        self._run(["repair", "index"])
        said = self._run(["check", "--read-data", "--no-lock"], codes=(0, 1))
        found = [json.loads(line) for line in said.splitlines() if '"message_type":"summary"' in line]
        if not found:
            raise RepositoryError(self.location, f"{self.location}: the check ended without a verdict.")
        packs = [str(each) for each in found[-1]["broken_packs"] or ()]
        if packs:
            self._run(["repair", "packs", *packs], work=work)
        return packs

    # ── saving ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def save_paths(self, paths: Sequence[Path], tags: Iterable[str], exclude: Sequence[str] = ()) -> str:
        """Save files and folders as they are; the id of the snapshot.

        A file that vanishes meanwhile is left out. Raises Unreadable for one that cannot be read.
        """
        options = [*_backup(tags), *(f"--exclude={each}" for each in exclude)]
        try:
            return _saved(self._run([*options, "--", *map(str, paths)]))
        except _Incomplete as found:
            complaints = [each for each in found.complaints if not _VANISHED.search(each)]
            if not any(_FORMER.search(each) for each in complaints):
                return self._complete(found, complaints)
            self.forget([_saved(found.out)])
        # Without the snapshot before, which is damaged.
        try:
            return _saved(self._run([*options, "--force", "--", *map(str, paths)]))
        except _Incomplete as found:
            return self._complete(found, [each for each in found.complaints if not _VANISHED.search(each)])

    def _complete(self, found: _Incomplete, complaints: Sequence[str]) -> str:
        """The snapshot that was saved, unless there are complaints. Raises Unreadable."""
        if complaints:
            raise Unreadable(self.location, _saved(found.out), complaints)
        return _saved(found.out)

    def save_output(
        self, argv: Sequence[str], name: str, tags: Iterable[str], environment: Mapping[str, str] | None = None
    ) -> str:
        """Save what a command writes to its standard output as the file /NAME; the id of the snapshot.

        Nothing is saved unless it exits with 0: raises CommandFailed with its last words. environment: variables of it.
        """
        options = [f"--stdin-filename={name}", "--stdin-from-command", "--", *_COMPLAINING, *argv]
        try:
            return _saved(self._run([*_backup(tags), *options], environment=environment))
        except _Incomplete:
            raise CommandFailed(self.location, f"The command wrote nothing: {argv[0]}.") from None

    def save_text(self, name: str, text: str, tags: Iterable[str]) -> str:
        """Save a text as the file /NAME; the id of the snapshot."""
        return _saved(self._run([*_backup(tags), f"--stdin-filename={name}", "--stdin"], text=text))

    def copy(self, ids: Sequence[str], other: Repository) -> None:
        """Copy snapshots to another repository, with their tags and times. What it has already is left out."""
        if ids:
            other._run(["copy", *_from(self), *ids])

    # ── finding and reading ───────────────────────────────────────────────────────────────────────────────────────────

    def listing(self, tags: Iterable[str] = ()) -> Listing:
        """The snapshots that have all of these tags, and what could not be read."""
        wanted = frozenset(tags)
        complaints: list[str] = []
        found = json.loads(self._run(["snapshots", "--no-lock"], complaints=complaints) or "[]")
        snapshots = sorted((_snapshot(each) for each in found or ()), key=lambda each: each.time)
        return Listing(
            tuple(each for each in snapshots if wanted <= each.tags),
            # One that is removed while we look is not damaged.
            tuple(each for each in complaints if each.startswith("Ignoring") and not _VANISHED.search(each)),
        )

    def snapshots(self, tags: Iterable[str] = ()) -> list[Snapshot]:
        """The snapshots that have all of these tags and can be read, oldest first."""
        return list(self.listing(tags).snapshots)

    def restore(self, id: str, into: Path, include: Sequence[str] = (), folder: str = "") -> None:
        """Write a snapshot's files below a folder. include: paths or patterns of those wanted, all without;
        folder: the one in the snapshot whose content is wanted, as if it were the whole."""
        source = f"{id}:{folder}" if folder else id
        patterns = [f"--include={each}" for each in include]
        self._run(["restore", source, f"--target={into}", *patterns])

    def dump(self, id: str, path: str, sink: IO[bytes]) -> None:
        """Write a file of a snapshot to a stream; a folder as a tar archive with owners and modes."""
        self._run(["dump", id, path], sink=sink)

    def text(self, id: str, path: str) -> str:
        """The text of a file in a snapshot."""
        return self._run(["dump", id, path])

    # ── cleaning up ───────────────────────────────────────────────────────────────────────────────────────────────────

    def forget(self, ids: Sequence[str]) -> None:
        """Remove snapshots. Their data goes with the next `prune`."""
        # What is in one command line is limited.
        for start in range(0, len(ids), 500):
            self._run(["forget", *ids[start : start + 500]])

    def prune(self, repack: str = "2G", seconds: float = 1800) -> bool:
        """Remove data that no snapshot needs, writing at most so much anew; whether it was done within so many seconds.

        Nobody else can write meanwhile. What is not done is done the next time.
        """
        options = [f"--max-repack-size={repack}", "--repack-small", "--max-unused=10%"]
        try:
            self._run(["prune", *options], seconds=seconds)
        except _TimeIsUp:
            return False
        return True

    # ── running restic ────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, argv: Sequence[str], *, lock: bool = True, **options: Any) -> str:
        """What restic says, once nobody holds the repository for themselves; options as of `_once`."""
        ends = time.monotonic() + self._lock_seconds
        while True:
            try:
                with self._holding() if lock and "--no-lock" not in argv else contextlib.nullcontext(None) as holder:
                    return self._once(argv, holder, **options)
            except Locked:
                if not self._release_dead():
                    if time.monotonic() >= ends:
                        raise
                    time.sleep(2)

    def _once(
        self,
        argv: Sequence[str],
        holder: int | None = None,
        *,
        text: str | None = None,
        sink: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float | None = None,
        complaints: list[str] | None = None,
        codes: Collection[int] = (0,),
        work: Path | None = None,
    ) -> str:
        """What one call of restic writes to standard output (or into `sink`).

        environment: what the command that restic runs gets besides. complaints: takes what restic says of its work.
        codes: exit codes that are an answer. work: the folder it runs in.
        """
        with tempfile.TemporaryDirectory(dir=self.settings.paths.memory, prefix="restic-") as folder:
            keys = _Keys(self.settings, Path(folder))
            stdin = Path(folder) / "stdin"
            stdin.write_text(text or "", encoding="utf-8")
            said = Path(folder) / "said"
            command = ["nice", "-n", str(_NICE), "restic", "--json", f"--repo={self.location}", *keys.options(), *argv]
            with stdin.open("rb") as source:
                child = subprocess.Popen(
                    command,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **(environment or {}), **keys.environment(), "TMPDIR": folder, _SAID: str(said)},
                    cwd=work,
                    pass_fds=() if holder is None else (holder,),
                    start_new_session=True,
                )
                watch = _Watch(child, self._patience, seconds)
                try:
                    out = _drained(child, sink)
                    child.wait()
                finally:
                    _end(child)
                    watch.join()
            command_said, ssh_said = tail(said), tail(Path(folder) / _SSH_LOG)
        if complaints is not None:
            complaints += watch.lines
        if child.returncode in codes and not watch.gave_up:
            return out
        if watch.time_is_up:
            raise _TimeIsUp(self.location, f"{self.location}: not done within {seconds:.0f} s.")
        lines = [*watch.lines, *([f"ssh: {ssh_said}"] if ssh_said else [])]
        raise _error(self.location, argv[0], child.returncode, out, lines, command_said)

    # restic refreshes the lock of a run every five minutes and takes it for dead after thirty. A container that was
    # killed leaves its lock, and no other one can tell whether its process lives. So each container holds a file for
    # each repository while it works there, and a lock is dead when its container holds that file no more.

    @property
    def _holders(self) -> Path:
        return self.settings.paths.cache / "holders" / self.place

    @property
    def place(self) -> str:
        """The location as the name of a file."""
        return hashlib.sha256(self.location.encode()).hexdigest()[:16]

    @contextlib.contextmanager
    def _holding(self) -> Iterator[int]:
        """While this lasts, and while a child has the descriptor, everybody sees that this container works there."""
        self._holders.mkdir(parents=True, exist_ok=True)
        file = os.open(self._holders / socket.gethostname(), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield file
        finally:
            os.close(file)

    def _dead(self, host: str) -> bool:
        """Whether a container of this machine worked there and does so no more."""
        try:
            file = os.open(self._holders / Path(host).name, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True

    def _release_dead(self) -> bool:
        """Remove the locks of runs that were killed; whether there was one."""
        found = [each for line in self._once(["list", "locks", "--no-lock"]).split() if (each := line.strip('"'))]
        hosts = set()
        for each in found:
            with contextlib.suppress(RepositoryError):  # released meanwhile
                hosts.add(str(json.loads(self._once(["cat", "lock", each, "--no-lock"]))["hostname"]))
        dead = {each for each in hosts if self._dead(each)}
        # restic removes all locks, or those that it takes for dead itself.
        self._once(["unlock", *(["--remove-all"] if dead and dead == hosts else [])])
        return bool(dead and dead == hosts)


# ── what restic gets ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Keys:
    """The keys of all targets, as files that only this user may read, in a folder that lives as long as one run."""

    settings: Settings
    folder: Path

    def environment(self) -> dict[str, str]:
        """Variables of restic. None of them is secret."""
        settings, key = self.settings, str(self.settings.paths.secrets / "BACKUP_KEY")
        found = {
            "RESTIC_PASSWORD_FILE": key,
            "RESTIC_FROM_PASSWORD_FILE": key,
            "RESTIC_CACHE_DIR": str(settings.paths.cache / "restic"),
            "RESTIC_PROGRESS_FPS": "0.1",
            "GOGC": "50",
        }
        if limit := memory_limit():
            found["GOMEMLIMIT"] = str(limit)
        if settings.s3_region:
            found["AWS_DEFAULT_REGION"] = settings.s3_region
        if key_id := settings.secret("BACKUP_S3_KEY_ID"):
            secret = settings.secret("BACKUP_S3_SECRET")
            text = f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n"
            found["AWS_SHARED_CREDENTIALS_FILE"] = self._file("s3", text)
        return found

    def options(self) -> list[str]:
        """Options of restic, before its command."""
        found = ["--stuck-request-timeout=2m"]
        if self.settings.upload_kib:
            found.append(f"--limit-upload={self.settings.upload_kib}")
        authority = self.settings.paths.configuration / "ca.pem"
        if authority.is_file():
            found.append(f"--cacert={authority}")
        if key := self.settings.secret("BACKUP_SSH_KEY"):
            ssh = {
                "BatchMode": "yes",
                "IdentitiesOnly": "yes",
                "IdentityFile": self._file("ssh", key.replace("\r\n", "\n") + "\n"),
                "UserKnownHostsFile": str(self.settings.paths.configuration / "known_hosts"),
                "StrictHostKeyChecking": "yes",
                "ConnectTimeout": "15",
                "ServerAliveInterval": "15",
                "ServerAliveCountMax": "4",
            }
            # Whatever its configuration says on this machine.
            arguments = [
                "-F",
                "none",
                "-E",
                str(self.folder / _SSH_LOG),
                *(part for key, value in ssh.items() for part in ("-o", f"{key}={value}")),
            ]
            found += ["-o", f"sftp.args={' '.join(arguments)}"]
        return found

    def _file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)


# restic loses the last words of programs that fail.
_SSH_LOG = "ssh.log"
_SAID = "COMMAND_SAID"
_COMPLAINING = ("sh", "-c", f'exec "$0" "$@" 2> "${_SAID}"')


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that restic should stay below: half of what the container has; 0 where it has no limit."""
    try:
        return int(cgroup.read_text(encoding="ascii")) // 2
    except (OSError, ValueError):
        return 0


def _from(repository: Repository) -> list[str]:
    return [f"--from-repo={repository.location}"]


def _backup(tags: Iterable[str]) -> list[str]:
    # Every container has a name of its own, and restic looks for the snapshot before this one by host and paths.
    return ["backup", "--quiet", "--host=backup", *(f"--tag={each}" for each in sorted(tags))]


def tail(file: Path, lines: int = 5) -> str:
    """The last lines of a text file, in one; "" when there is none."""
    try:
        text = file.read_bytes()[-4000:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "; ".join([each.strip() for each in text.splitlines() if each.strip()][-lines:]).rstrip(". ")


# ── what comes back ───────────────────────────────────────────────────────────────────────────────────────────────────


class _TimeIsUp(RepositoryError):
    pass


class _Incomplete(RepositoryError):
    """restic saved a snapshot without some files."""

    def __init__(self, location: str, out: str, complaints: Sequence[str]) -> None:
        super().__init__(location, f"{location}: some files could not be read.")
        self.out = out
        self.complaints = complaints


_RETRY = re.compile(r"returned error, retrying after")
_RECOVERED = re.compile(r"operation successful after \d+ retries")
# What the target says, in the words of file systems, S3 servers and ssh.
_FULL = re.compile(
    r"no space left|quota[\w ]*exceeded|QuotaExceeded|StorageFull|InsufficientStorage|insufficient storage"
    r"|minimum free drive threshold|\b507\b",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist", re.IGNORECASE)
_REFUSED = re.compile(
    r"AccessDenied|Access Denied|InvalidAccessKeyId|SignatureDoesNotMatch|signature we calculated|access key ID"
    r"|permission denied|Host key verification failed|read-only file system|certificate|no credentials found"
    r"|\b40[13]\b",
    re.IGNORECASE,
)
_DAMAGED = re.compile(
    r"invalid data returned|ciphertext verification failed|unexpected file size|zero size|contains errors"
    r"|hash mismatch|does not match|not found in (the )?(index|repository)|unable to load|truncated|invalid header"
    r"|(index|pack|snapshot|tree|blob|data)\S* .*(no such file|does not exist|not found)|load\w*\(<",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"connection (refused|reset|timed out)|no such host|timeout|timed out|unreachable|no route to host|network is down"
    r"|sftp session|ssh command exited|connection lost|unexpected EOF|context canceled|Could not resolve|dial tcp"
    r"|\b50[0234]\b|SlowDown",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"Fatal: command failed: (.*)")
_VANISHED = re.compile(r"no such file or directory|does not exist|not exist")
# What restic says of the snapshot that it compares with. It reads and stores the files then.
_FORMER = re.compile(r"not found in the repository index; storing the file again|tree \w+ is not known")
_SUBPROCESS = re.compile(r"subprocess [^:]+: ")


class _Watch(threading.Thread):
    """Reads what restic complains of, and ends it when it goes on for too long without the target.

    lines: plain text, the messages of JSON lines unpacked.
    """

    def __init__(self, child: subprocess.Popen[bytes], patience: float, seconds: float | None) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.gave_up = False
        self.time_is_up = False
        self._child = child
        self._patience = patience
        self._away_since: float | None = None
        self._timer = threading.Timer(seconds, self._end_of_time) if seconds else None
        if self._timer:
            self._timer.daemon = True
            self._timer.start()
        self.start()

    def run(self) -> None:
        """Until restic has ended."""
        assert self._child.stderr
        with self._child.stderr as stream:
            for raw in stream:
                line = _plain(raw.decode(errors="replace").strip())
                if line:
                    self.lines.append(line)
                    self._consider(line)
        if self._timer:
            self._timer.cancel()

    def _consider(self, line: str) -> None:
        now = time.monotonic()
        if _RECOVERED.search(line):
            self._away_since = None
        elif _RETRY.search(line):
            self._away_since = self._away_since or now
            lasting = any(kind.search(line) for kind in (_FULL, _REFUSED, _NO_BUCKET))
            if lasting or now - self._away_since >= self._patience:
                self._give_up()

    def _give_up(self) -> None:
        self.gave_up = True
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGTERM)

    def _end_of_time(self) -> None:
        self.time_is_up = True
        self._give_up()


def _plain(line: str) -> str:
    """A line of restic without its JSON."""
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line)
    except ValueError:
        return line
    message = found.get("message") or (found.get("error") or {}).get("message") or ""
    return str(message).strip()


def _drained(child: subprocess.Popen[bytes], sink: IO[bytes] | None) -> str:
    assert child.stdout
    with child.stdout as stream:
        if sink is None:
            return stream.read().decode(errors="replace")
        try:
            shutil.copyfileobj(stream, sink, 1 << 20)
        except BaseException:
            # Before the pipe breaks: that would end it at once, and its lock would stay.
            child.send_signal(signal.SIGTERM)
            while stream.read(1 << 20):
                pass
            raise
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing of it is left afterwards. It gets time to remove its lock."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_FAREWELL_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _snapshot(found: Mapping[str, Any]) -> Snapshot:
    summary = found.get("summary") or {}
    return Snapshot(
        id=str(found["id"]),
        time=datetime.fromisoformat(_microseconds(str(found["time"]))),
        tags=frozenset(found.get("tags") or ()),
        paths=tuple(found.get("paths") or ()),
        size=int(summary.get("total_bytes_processed") or 0),
        added=int(summary.get("data_added_packed") or 0),
        original=str(found.get("original") or found["id"]),
    )


def _microseconds(moment: str) -> str:
    """A moment with no more digits than Python reads."""
    return re.sub(r"(\.\d{6})\d+", r"\1", moment)


def _saved(out: str) -> str:
    """The id of the snapshot in the summary of `restic backup`."""
    for line in reversed(out.splitlines()):
        with contextlib.suppress(ValueError, AttributeError):
            if found := json.loads(line).get("snapshot_id"):
                return str(found)
    raise OpsError(f"restic said nothing of a snapshot: {out.strip()[:200]}")


def _error(
    location: str, command: str, code: int, out: str, lines: Sequence[str], command_said: str = ""
) -> RepositoryError:
    """What went wrong, from restic's exit code and words, and those of the command that it ran."""
    words = [each for each in lines if "signal terminated received" not in each and "context canceled" not in each]
    said = "\n".join(words)
    detail = _detail(words) or f"restic {command} ended with exit code {code}"
    if code == 12:
        return WrongKey(
            location,
            f"{location} was made with another key than the secret BACKUP_KEY.",
            "Put the key that you kept when it was made into config/<env>/secrets/BACKUP_KEY.",
        )
    if code == 11:
        return Locked(
            location,
            f"{location} is in use: {detail}.",
            "It is free when that run ends, or 30 minutes after it was killed. Run this again then.",
        )
    if code == 10 or _NO_BUCKET.search(said):
        return Missing(
            location,
            f"There is no backup repository at {location}.",
            "Check BACKUP_TARGETS and whether it is mounted. The first backup makes it: invoke backup",
        )
    if failed := _COMMAND.search(said):
        reason = command_said or "it said nothing"
        return CommandFailed(location, f"The command failed ({failed[1] or failed[0]}): {reason}.")
    if _FULL.search(said):
        return Full(
            location,
            f"{location} is full: {detail}.",
            "Free or add space there, or keep fewer entries (BACKUP_KEEP_…). Entries that are complete stay usable.",
        )
    if command == "backup" and code == 3:
        return _Incomplete(location, out, _complaints(lines))
    if _REFUSED.search(said):
        return Unreachable(
            location,
            f"{location} does not let us in: {detail}.",
            "Check its keys and what they may do: BACKUP_S3_KEY_ID with its secret, or BACKUP_SSH_KEY and known_hosts.",
        )
    if _AWAY.search(said):
        return Unreachable(
            location,
            f"{location} cannot be reached: {detail}.",
            "Check the network and the target; the next run catches up.",
        )
    if _DAMAGED.search(said):
        return _damaged(location, detail)
    return RepositoryError(location, f"{location}: {detail}.")


def _damaged(location: str, detail: str) -> Damaged:
    return Damaged(
        location,
        f"{location} is damaged: {detail}.",
        'Use another target for restores, and see docs/recovery.md, "A damaged target".',
    )


def _complaints(lines: Iterable[str]) -> list[str]:
    """What restic says of files that it could not read."""
    return [each for each in lines if not each.startswith(("Warning:", "subprocess "))]


def _detail(lines: Sequence[str]) -> str:
    """The line that says most, short enough for a sentence."""
    plain = [_SUBPROCESS.sub("", each.splitlines()[0]) for each in lines if each.strip()]
    specific = [each for each in plain if any(kind.search(each) for kind in (_FULL, _REFUSED, _AWAY, _DAMAGED))]
    for each in (specific or plain)[-1:]:
        text = _RETRY.sub("failed,", each.replace("Fatal: ", ""))
        text = re.sub(r"^.*failed, \S+: ", "", text)
        return text.rstrip(". ")[:300]
    return ""
