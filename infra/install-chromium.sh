#!/usr/bin/env bash
# Installs Debian's Chromium for the browser test of the report where it is missing and we may (as root, with apt-get).
# The test skips, and says so, where there is none.
set -euo pipefail

if command -v chromium >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "No Chromium, and no right to install one: the browser test of the report will be skipped." >&2
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium >/dev/null
