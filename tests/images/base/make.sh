#!/bin/bash
# Writes the root file system of a minimal Debian as a tar archive on standard output.
# Usage: make.sh SUITE   (root; needs debootstrap; the mirror is the one this machine's apt uses)
set -euo pipefail

suite=$1
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Component: main' "Release: $codename" | head -n 1)
scripts=/usr/share/debootstrap/scripts
script=$scripts/$suite
[ -e "$script" ] || script=$scripts/sid # an older debootstrap does not know the newest suites by name

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    "$suite" "$root" "$mirror" "$script" >&2

cat > "$root/etc/apt/apt.conf.d/90drop-in" <<'CONF'
APT::Install-Recommends "false";
// a machine's clock may be ahead of a mirror of a suite that still moves
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
CONF
cat > "$root/etc/dpkg/dpkg.cfg.d/90drop-in" <<'CONF'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
CONF
rm -rf "$root"/usr/share/{doc,info,locale,man}/* "$root"/var/{cache,lib}/apt/* "$root"/var/log/*.log
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
tar -C "$root" --one-file-system -c .
