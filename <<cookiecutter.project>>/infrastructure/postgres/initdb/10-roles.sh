#!/bin/bash
# Runs once, on an empty volume, against a server that listens on its socket only.
# Without the executable bit the image sources this file instead, hence a process of its own.
bash /etc/postgresql/roles.sh
