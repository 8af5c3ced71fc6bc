#!/bin/sh
# The users that services have (the label ops.redis), of a node or a sentinel. What ACL SETUSER makes is gone with the process, and no
# replica gets it, so each of them keeps names and SHA-256 of passwords on its volume, and begins with these.
#
#   users.sh config   the lines of the configuration file that make them (start.sh, sentinel.sh)
#   users.sh list     "NAME DIGEST" of each that is kept and that the server accepts
#   users.sh keep     keeps those that are given as "NAME DIGEST" lines, beside the others
#   users.sh set      keeps them, and makes them in the server that runs: each has that password and no other
#   users.sh remove NAME   for an operator: forgets one. Its keys stay
set -euf

KEPT=/data/users
umask 077

# shellcheck source=infrastructure/redis/passwords.sh
. /etc/redis/passwords.sh

# rules NAME DIGEST: on a node its own keys and channels, and no command that concerns others; on a sentinel questions only
rules() {
    if [ -n "${SENTINEL-}" ]; then
        echo "reset on #$2 &* $ASKS"
    else
        echo "reset on #$2 ~$1:* &$1:* +@all -@dangerous -@admin -function -script +script|load +script|exists +info +role"
    fi
}

# Whoever has no `operator` is a sentinel; asked while it starts, sentinel.sh says so itself.
[ -e /run/redis/operator ] || SENTINEL=${SENTINEL-yes}

keep() {
    touch "$KEPT"
    awk 'NF == 2 { kept[$1] = $2 } END { for (name in kept) print name, kept[name] }' "$KEPT" - | sort >"$KEPT.new"
    mv "$KEPT.new" "$KEPT"
}

case "${1-}" in
config)
    [ ! -e "$KEPT" ] || while read -r name digest; do
        echo "user $name $(rules "$name" "$digest")"
    done <"$KEPT"
    ;;
list)
    [ ! -e "$KEPT" ] || while read -r name digest; do
        if sh /etc/redis/cli.sh acl getuser "$name" </dev/null | grep -qx "$digest"; then
            echo "$name $digest"
        fi
    done <"$KEPT"
    ;;
keep) keep ;;
remove)
    touch "$KEPT"
    awk -v gone="${2:?usage: users.sh remove NAME}" '$1 != gone' "$KEPT" >"$KEPT.new"
    mv "$KEPT.new" "$KEPT"
    sh /etc/redis/cli.sh acl deluser "$2"
    ;;
set)
    given=$(cat)
    echo "$given" | keep
    echo "$given" | while read -r name digest; do
        echo "ACL SETUSER $name $(rules "$name" "$digest")"
    done | sh /etc/redis/cli.sh
    ;;
*) echo 'usage: users.sh config|list|keep|set|remove NAME' >&2 && exit 2 ;;
esac
