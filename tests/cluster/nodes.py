"""Several machines on one: each node is a set of Linux namespaces (process, mount, network, host name, IPC).

Programs run on a node at their default paths without seeing this machine's, and the death of its first process is a
power cut: everything is gone at once, and the disk stays.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.lab import Lab, run, wait_for
from tests.cluster.programs import Programs, Unavailable

# What a node has for itself: these folders lie on its disk.
PRIVATE = (
    "/etc/cni",
    "/etc/containerd",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log",
)
BOOT = """
set -e
disk=$1 node=$2 name_server=$3 first=$4; shift 4
mount --make-rshared /  # a peer group of its own: kubelet and containerd pass mounts to each other
mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/lock /run/netns
for folder in "$@"; do mount --bind "$disk$folder" "$folder"; done
echo "nameserver $name_server" > /run/resolv.conf && mount --bind /run/resolv.conf "$(readlink -f /etc/resolv.conf)"
hostname "$node"
ip link set lo up
exec "$first"
"""
NAMESPACES = ("--pid", "--fork", "--mount", "--net", "--uts", "--ipc", "--mount-proc", "--propagation", "private")
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
# The default of 128 is less than three kubelets and what they run take.
INOTIFY_INSTANCES = 1024


def hub_up(lab: Lab) -> None:
    """Make the switch: a network namespace with a bridge, and a cable from it to this machine."""
    if hub_is_up(lab):
        return
    cable = f"{lab.hub}-host"
    run("ip", "netns", "add", lab.hub)
    run("ip", "link", "add", cable, "type", "veth", "peer", "name", "host", "netns", lab.hub)
    run("ip", "addr", "add", f"{lab.host}/24", "dev", cable)
    run("ip", "link", "set", cable, "up")
    script = f"""
        ip link set lo up
        ip link add br0 type bridge && ip addr add {lab.server}/24 dev br0 && ip link set br0 up
        ip link set host master br0 && ip link set host up
        sysctl -q -w net.ipv4.ip_forward=1"""
    run(*lab.in_hub("sh", "-ec", script))
    lab.folder.mkdir(parents=True, exist_ok=True)
    if not (before := inotify_before(lab)).is_file():
        before.write_text(INOTIFY.read_text(encoding="ascii"), encoding="ascii")
        INOTIFY.write_text(str(max(INOTIFY_INSTANCES, int(INOTIFY.read_text(encoding="ascii")))), encoding="ascii")
    lab.begin("nxdomain", lab.in_hub(sys.executable, Path(__file__).with_name("nxdomain.py"), lab.server))


def hub_is_up(lab: Lab) -> bool:
    """Whether the switch is there."""
    return (Path("/run/netns") / lab.hub).exists()


def hub_down(lab: Lab) -> None:
    """Take the switch away; the cables to it vanish with it."""
    lab.end("nxdomain")
    if hub_is_up(lab):
        run("ip", "link", "del", f"{lab.hub}-host", check=False)
        run("ip", "netns", "del", lab.hub)
    if (before := inotify_before(lab)).is_file() and not list(Path("/run/netns").glob("cluster*")):
        INOTIFY.write_text(before.read_text(encoding="ascii"), encoding="ascii")
        before.unlink()


def inotify_before(lab: Lab) -> Path:
    """What this machine allowed before the first of its clusters."""
    return lab.folder.parent / "inotify"


def disk(lab: Lab, node: str) -> Path:
    """What a node has on disk."""
    return lab.folder / "nodes" / node


def init(lab: Lab, node: str) -> int:
    """The first process of a running node. Raises Unavailable when the node is off."""
    pid = lab.pid(node)
    if pid is None:
        raise Unavailable(f"node {node} is off")
    return pid


def is_on(lab: Lab, node: str) -> bool:
    """Whether a node has power."""
    return lab.pid(node) is not None


def on(lab: Lab, programs: Programs, node: str) -> None:
    """Power a node on, with the disk as it was."""
    if is_on(lab, node):
        raise Unavailable(f"node {node} is on already")
    for folder in PRIVATE:
        Path(f"{disk(lab, node)}{folder}").mkdir(parents=True, exist_ok=True)
        if not Path(folder).is_dir():
            Path(folder).mkdir(parents=True)
            with made_folders(lab).open("a", encoding="utf-8") as made:
                made.write(f"{folder}\n")
    lab.logs.mkdir(parents=True, exist_ok=True)
    first = programs.bin / "pause"
    arguments = [str(disk(lab, node)), node, lab.server, str(first), *PRIVATE]
    with (lab.logs / f"{node}.log").open("ab") as log:
        outer = subprocess.Popen(
            ["unshare", *NAMESPACES, "bash", "-c", BOOT, "boot", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

    def booted() -> int:
        """The first process, once it is the program that stays."""
        try:
            child = children.read_text(encoding="ascii").split()[0]
            return int(child) if Path(f"/proc/{child}/exe").readlink() == first.resolve() else 0
        except (OSError, IndexError):
            return 0

    if not wait_for(booted, 20, 0.05):
        raise Unavailable(f"node {node} did not start: see {lab.logs / node}.log")
    pid = booted()
    lab.note(node, pid)
    # The kernel takes its time with the cable of a node that has just lost its power.
    run(*lab.in_hub("ip", "link", "del", f"v{node}"), check=False)
    here = ("ip", "link", "add", f"v{node}", "netns", lab.hub)
    # The same hardware address each time, as a machine has it: others remember it for a minute.
    mac = f"02:00:00:00:{lab.number:02d}:{int(node.removeprefix('n')):02d}"
    run(*here, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", str(pid))
    run(*lab.in_hub("sh", "-ec", f"ip link set v{node} master br0 && ip link set v{node} up"))
    script = f"""
        ip addr add {lab.address(node)}/24 dev eth0 && ip link set eth0 up
        ip route add default via {lab.server}
        sysctl -q -w net.ipv4.ip_forward=1"""
    run(*inside(lab, node, "sh", "-ec", script))


def inside(lab: Lab, node: str, *command: str | Path) -> list[str]:
    """A command line that runs on a node."""
    return ["nsenter", "-t", str(init(lab, node)), "-p", "-m", "-n", "-u", "-i", "--", *map(str, command)]


def kill(lab: Lab, node: str) -> None:
    """A power cut: every process of the node is gone at once."""
    lab.end(node, signal.SIGKILL)


def cut(lab: Lab, node: str) -> None:
    """Pull the network cable."""
    run(*lab.in_hub("ip", "link", "set", f"v{node}", "down"))


def plug(lab: Lab, node: str) -> None:
    """Put the network cable back."""
    run(*lab.in_hub("ip", "link", "set", f"v{node}", "up"))


def clean(lab: Lab) -> None:
    """Remove the folders that nodes needed on this machine to put theirs over, unless another cluster is there.

    A folder that is removed takes what is mounted over it away from every node, also of other clusters.
    """
    if (made := made_folders(lab)).is_file() and not list(Path("/run/netns").glob("cluster*")):
        for folder in made.read_text(encoding="utf-8").split():
            if Path(folder).is_dir() and not any(Path(folder).iterdir()):
                Path(folder).rmdir()
        made.unlink()


def made_folders(lab: Lab) -> Path:
    """Where it is noted which folders were made, for all clusters of this machine."""
    return lab.folder.parent / "folders"
