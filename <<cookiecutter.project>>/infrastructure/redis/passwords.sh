#!/bin/sh
# Read by start.sh and sentinel.sh: how a password stands in a configuration file.

# digest TEXT: for a user's line, which names no password itself
digest() {
    printf %s "$1" | sha256sum | cut -d' ' -f1
}

# quoted TEXT: as a string of the configuration file
quoted() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}
