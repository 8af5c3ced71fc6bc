#!/bin/bash
# guard.sh primary|replica|node COMMAND…: becomes the command, if this image can work with what the volume holds.
#
# Each major version of PostgreSQL has a folder of its own in the volume, <major>/docker, and cannot read another's. One that finds
# no database in its folder sets up an empty one, beside the full one of another major. So here nothing starts unless the newest
# database in the volume is this image's, or there is none. Folders whose names begin with a dot are at work or put aside.
#
# Without a command it only judges, for `invoke deploy` and `invoke doctor`. Exit code when refused: 3; the first line says what is
# wrong, the second what to do.
set -euo pipefail

readonly REFUSED=3
role=${1:?usage: guard.sh primary|replica|node COMMAND…}
shift
major=${PG_MAJOR:?the image does not say which major version of PostgreSQL it is}
volume=${PGDATA%"/$major/docker"}
to="--env ${ENVIRONMENT:-dev}"
watched=$#

refuse() {
    printf 'postgres: %s\n' "$@" >&2
    if ((watched)); then
        # the restart policy would repeat this line every second
        trap 'exit $REFUSED' INT TERM
        sleep 30 &
        wait $!
    fi
    exit $REFUSED
}

# "MAJOR FOLDER" of every database in the volume, relative to it, the newest last. Also of folders as older images or other
# people lay them out: the volume itself, data, 17/main.
databases() {
    [ -d "$volume" ] || return 0
    local file folder
    (cd "$volume" && find . -maxdepth 3 \( -path '*/.*' -o -path '*/base/*' \) -prune -o -name PG_VERSION -size +0 -print) |
        while read -r file; do
            folder=${file%/PG_VERSION}
            echo "$(cut -d. -f1 "$volume/$file") ${folder#./}"
        done | sort -n
}

judge() {
    local newest=0 folder='' found where other='' elsewhere=''
    while read -r found where; do
        if [ "$where" = "$found/docker" ]; then
            newest=$found folder=$where
        else
            other=$found elsewhere=$where
        fi
    done < <(databases)

    if ((newest > major)); then
        refuse "$volume holds a database of PostgreSQL $newest in $folder; this image is PostgreSQL $major and cannot read it. Nothing was touched." \
            "Set POSTGRES_IMAGE to PostgreSQL $newest again. Where an older major was kept: invoke upgrade-database --back $to"
    elif ((newest == major)); then
        return
    elif ((newest)) && [ -e "$volume/$major/upgraded-from" ]; then
        # a replica copies its primary, which has been upgraded, and a node of a cluster waits for one; a primary has nobody to copy
        [ "$role" = primary ] || return 0
        refuse "$volume holds a database of PostgreSQL $newest in $folder, and an upgrade to $major that did not come to its end. Nothing was touched." \
            "invoke upgrade-database $to starts again; with --back it returns to PostgreSQL $newest."
    elif ((newest)); then
        refuse "$volume holds a database of PostgreSQL $newest in $folder; this image is PostgreSQL $major and would set up an empty one beside it. Nothing was touched." \
            "invoke upgrade-database $to moves the data, with a backup first and a way back. Or set POSTGRES_IMAGE to PostgreSQL $newest again."
    elif [ -n "$elsewhere" ]; then
        refuse "$volume holds a database of PostgreSQL $other in ${elsewhere/#./its top folder}; this image looks in $major/docker and would set up an empty one there. Nothing was touched." \
            "docs/upgrade-database.md, \"A volume with another layout\", says how to bring it in."
    fi
}

if [ "$volume" = "$PGDATA" ]; then
    refuse "this image keeps its data in $PGDATA, in a volume of its own that is lost with the container." \
        "Set POSTGRES_IMAGE to an image that keeps it in /var/lib/postgresql/$major/docker, as the official ones do from 18 on."
fi
judge
((watched)) || exit 0
exec "$@"
