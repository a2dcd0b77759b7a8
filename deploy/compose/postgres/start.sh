#!/bin/sh
# Makes the cluster once, gives the role `console` the password of the file, and becomes the server.
set -eu
umask 077
cluster=/data/15
password=$(cat /secrets/console_database_password)
case "$password" in
  '' | *[!0-9A-Za-z]*)
    echo "/secrets/console_database_password must be letters and digits; remove it, and secrets draws another" >&2
    exit 1 ;;
esac

# No server listens yet. Of a statement that fails the log shall not show the text, which has the password. It reads no
# pipe: a server that was killed has left behind the number that this shell has once more, and a server takes that for
# another one at work unless it is its own parent's.
alone() { postgres --single -D "$1" -c log_min_error_statement=panic postgres >/dev/null; }

if [ ! -d "$cluster" ]; then
  # Under another name until it is whole: what a kill leaves behind is begun anew.
  rm -rf /data/new
  initdb --pgdata=/data/new --username=postgres --auth=reject --encoding=UTF8 --locale=C.UTF-8 --data-checksums >/dev/null
  alone /data/new <<'END'
CREATE ROLE console LOGIN;
CREATE DATABASE console OWNER console;
END
  mv /data/new "$cluster"
fi
alone "$cluster" <<END
ALTER ROLE console PASSWORD '$password';
END
unset password
exec postgres -D "$cluster" -c listen_addresses='*' -c unix_socket_directories=/tmp -c hba_file=/etc/postgresql/pg_hba.conf
