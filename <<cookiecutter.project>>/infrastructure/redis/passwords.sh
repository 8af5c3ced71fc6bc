#!/bin/sh
# Read by start.sh, sentinel.sh and users.sh: how a password stands in a configuration file, and what a sentinel may be asked.

# digest TEXT: for a user's line, which names no password itself
digest() {
    printf %s "$1" | sha256sum | cut -d' ' -f1
}

# quoted TEXT: as a string of the configuration file
quoted() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}

# shellcheck disable=SC2034
ASKS="+ping +info +role +hello +auth +command +client|setname +client|setinfo +subscribe +psubscribe"
for question in get-master-addr-by-name master masters replicas slaves sentinels ckquorum myid; do
    ASKS="$ASKS +sentinel|$question"
done
