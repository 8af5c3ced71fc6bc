"""Passwords of RabbitMQ: its users, and the cookie of its nodes. Connections that are open stay."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ops import engine
from ops.base.errors import OpsError
from ops.base.waiting import until
from ops.parts.credentials.base import Credential
from ops.parts.rabbitmq import running as nodes
from ops.parts.rabbitmq.ownership import entry_of

__all__ = ["Cookie", "User", "nodes"]

# The node's program starts an Erlang machine for each of these.
_SECONDS = 120

# rabbitmqctl reads standard input only on a terminal, so what it is told goes through a file in memory.
_IMPORT = r"""
set -euo pipefail
umask 077
file=$(mktemp)
trap 'rm -f "$file"' EXIT
cat >"$file"
rabbitmqctl --quiet import_definitions "$file"
"""
_LOGIN = r"""
set -euo pipefail
umask 077
file=$(mktemp)
trap 'rm -f "$file"' EXIT
cat >"$file"
rabbitmqctl --quiet eval "{ok, P} = file:read_file(\"$file\"),
    case rabbit_access_control:check_user_pass_login(<<\"$1\">>, P) of {ok, _} -> accepted; _ -> refused end."
"""

# A cookie is a file of the home folder. Erlang wants it readable for nobody else.
_WITH_COOKIE = r"""
set -euo pipefail
umask 077
HOME=$(mktemp -d)
export HOME
trap 'rm -rf "$HOME"' EXIT
cat >"$HOME/.erlang.cookie"
chmod 0400 "$HOME/.erlang.cookie"
"""
_TRY_COOKIE = f"{_WITH_COOKIE}exec rabbitmqctl --quiet eval 'ok.'"
# Again after a kill: the node may know the new cookie already, while the old one is still in the file.
_SET_COOKIE = rf"""
old=$HOME
{_WITH_COOKIE}
if ! rabbitmqctl --quiet eval 'ok.' >/dev/null 2>&1; then
    HOME=$old rabbitmqctl --quiet eval '{{ok, C}} = file:read_file("/run/secrets/RABBITMQ_COOKIE"),
        erlang:set_cookie(binary_to_atom(string:trim(C))).' >/dev/null
fi
cp "$HOME/.erlang.cookie" "$old/.erlang.cookie.new"
mv -f "$old/.erlang.cookie.new" "$old/.erlang.cookie"
"""


@dataclass(frozen=True)
class User(Credential):
    """The password of a user. definitions: the file that holds its hash; None: a service's, which is in no file."""

    user: str
    definitions: Path | None = None

    def switch(self, new: str) -> None:
        """Import the user with its new hash; all nodes of a cluster share users."""
        if self.holders:
            if self.definitions:
                users = json.loads(self.definitions.read_text(encoding="utf-8"))["users"]
            else:
                users = [entry_of(self.user, new)]
            mine = {"users": [each for each in users if each["name"] == self.user]}
            engine.exec_(self.holders[0].id, ["bash", "-c", _IMPORT], input=json.dumps(mine), timeout=_SECONDS)
            # The import goes on after the command has ended.
            if not until(lambda: all(self.accepts(new).values()), _SECONDS, 0.5):
                raise OpsError(
                    f"RabbitMQ does not take the new password of {self.user}.", "invoke logs --service rabbitmq"
                )

    def accepts(self, value: str) -> dict[str, bool]:
        """Let the broker compare."""
        found = {}
        for each in self.holders[:1]:
            argv = ["bash", "-c", _LOGIN, "bash", self.user]
            done = engine.exec_(each.id, argv, input=value, check=False, timeout=_SECONDS)
            if done.stdout.strip() not in {"accepted", "refused"}:
                raise OpsError(f"{each.service} cannot be asked: {engine.reason(done.stderr)}")
            found[each.service] = done.stdout.strip() == "accepted"
        return found


@dataclass(frozen=True)
class Cookie(Credential):
    """What nodes and their command-line tools know each other by. Nodes that are connected stay connected."""

    def switch(self, new: str) -> None:
        """Set it in every node, and where its tools find it."""
        for each in self.holders:
            engine.exec_(each.id, ["bash", "-c", _SET_COOKIE], input=new, timeout=_SECONDS)

    def accepts(self, value: str) -> dict[str, bool]:
        """Call every node with it."""
        found = {}
        for each in self.holders:
            argv = ["bash", "-c", _TRY_COOKIE]
            found[each.service] = engine.exec_(each.id, argv, input=value, check=False, timeout=_SECONDS).ok
        return found
