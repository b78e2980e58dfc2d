#!/bin/sh
# Counts hook calls without Arrakis: keeps what the client wrote to standard input, one file a call. A file is whole once
# it has its last name. SIGTERM is ignored as the real hook ignores it.
trap '' TERM INT HUP
cd "${REAL_CLIENT_SEEN:?}" || exit 0
name=$(date +%s%N)-$$
cat >"$name.part" && mv "$name.part" "$name.json"
exit 0
