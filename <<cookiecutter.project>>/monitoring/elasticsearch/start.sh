#!/bin/bash
# Puts the configuration together in memory, makes the users from the secrets and hands over to the image's entrypoint.
# users.sh takes a changed password without a restart.
set -euo pipefail

config=$ES_PATH_CONF
umask 077
mkdir -p "$config"
cp -R /usr/share/elasticsearch/config/. "$config"
cp /etc/elasticsearch-stack/elasticsearch.yml /etc/elasticsearch-stack/roles.yml "$config"
# it would fetch databases from the internet, to which there is no way. Without the module the setting is unknown, and an error
if [ -d /usr/share/elasticsearch/modules/ingest-geoip ]; then
    echo "ingest.geoip.downloader.enabled: false" >> "$config/elasticsearch.yml"
fi

bash /etc/elasticsearch-stack/users.sh

exec /usr/local/bin/docker-entrypoint.sh eswrapper
