#!/bin/sh
# What a container runs: the schema, then the server, which gets the container's signals. Hosts that choose
# a port say so in PORT.
set -eu
arrakis migrate
exec arrakis-server --no-migrate --listen "${ARRAKIS_LISTEN_HOST:-0.0.0.0}:${PORT:-3000}"
