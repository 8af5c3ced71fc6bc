#!/bin/sh
# Before nginx starts: fill /etc/nginx/templates/*.template from the environment, run /docker-entrypoint.d/*.sh.
set -eu

fill_templates() {
    names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')
    for template in /etc/nginx/templates/*.template; do
        [ -e "$template" ] || continue
        target=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}/$(basename "$template" .template)
        envsubst "$names" < "$template" > "$target"
    done
}

run_scripts() {
    for script in /docker-entrypoint.d/*; do
        case "$script" in
        *.envsh) . "$script" ;;
        *.sh) if [ -x "$script" ]; then "$script"; else echo "not executable, ignored: $script" >&2; fi ;;
        esac
    done
}

if [ "${1-}" = nginx ]; then
    run_scripts
    fill_templates
fi
exec "$@"
