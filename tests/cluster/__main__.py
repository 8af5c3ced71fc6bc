"""Start and stop a real Kubernetes on this machine: `python -m tests.cluster up`, `… kubectl get nodes`, `… down`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.cluster import nodes, programs, registry
from tests.cluster.cluster import Cluster
from tests.cluster.lab import Lab
from tests.cluster.programs import Unavailable


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument(
        "--number",
        type=int,
        default=77,
        choices=range(1, 100),
        metavar="N",
        help="of the cluster, whose addresses are 10.N.0.0/24 (default 77)",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the programs that are missing")
    up = commands.add_parser("up", help="start the cluster, or what of it is not running")
    up.add_argument("--nodes", type=int, default=3, choices=range(10), metavar="N", help="0: the control plane only")
    down = commands.add_parser("down", help="stop it and remove what it has on disk")
    down.add_argument("--keep", action="store_true", help="leave disks, logs and the registry's store")
    commands.add_parser("status", help="what is running")
    commands.add_parser("registry", help="start the image registry alone")
    push = commands.add_parser("push", help="push local images into its registry")
    push.add_argument("images", nargs="+", metavar="IMAGE")
    for name, text in (
        ("kill", "cut the power of a node"),
        ("start", "power a node on"),
        ("cut", "pull the network cable of a node"),
        ("plug", "put the network cable of a node back"),
    ):
        commands.add_parser(name, help=text).add_argument("node")
    run = commands.add_parser("run", help="run a command on a node")
    run.add_argument("node")
    run.add_argument("rest", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("kubectl", help="kubectl as administrator", add_help=False)
    return parser


def status(cluster: Cluster) -> None:
    """Print what is running."""
    lab = cluster.lab
    for name in sorted(lab.noted()):
        print(f"{name:<28} {'on' if lab.pid(name) else 'off'}")
    print(f"KUBECONFIG={lab.kubeconfig}\nkubectl: {cluster.programs.kubectl}\nregistry: {lab.registry}")


def act(given: argparse.Namespace, rest: Sequence[str]) -> None:
    """Do what the command line says. Raises Unavailable when that is not possible."""
    cluster = Cluster(Lab(given.number))
    match given.command:
        case "up":
            cluster.start(given.nodes)
        case "down":
            cluster.stop(given.keep)
        case "status":
            status(cluster)
        case "registry":
            nodes.hub_up(cluster.lab)
            registry.up(cluster.lab, cluster.programs)
            print(f"registry: {cluster.lab.registry}")
        case "push":
            cluster.push(given.images)
        case "kill":
            cluster.power_off(given.node)
        case "start":
            cluster.power_on(given.node)
        case "cut":
            cluster.cut(given.node)
        case "plug":
            cluster.plug(given.node)
        case "run":
            command = nodes.inside(cluster.lab, given.node, *given.rest)
            os.execvp(command[0], command)
        case "kubectl":
            command = cluster.command(*rest)
            os.execv(command[0], command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given, rest = parser().parse_known_args(arguments)
    if rest and given.command != "kubectl":
        parser().error(f"unknown: {' '.join(rest)}")
    try:
        if given.command == "build":
            programs.provide()
        else:
            act(given, rest)
    except Unavailable as error:
        print(f"tests.cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
