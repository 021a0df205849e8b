# One worker and rclone copy the same blocks between the same buckets. Sourced by bench/run.

remote() { # NAME REGION PORT: an S3 remote for rclone, in the environment
  export "RCLONE_CONFIG_$1_TYPE=s3" "RCLONE_CONFIG_$1_PROVIDER=Other" "RCLONE_CONFIG_$1_ENDPOINT=http://127.0.0.1:$3"
  export "RCLONE_CONFIG_$1_ACCESS_KEY_ID=$(key "$world/secrets/$2.json" access_key)"
  export "RCLONE_CONFIG_$1_SECRET_ACCESS_KEY=$(key "$world/secrets/$2.json" secret_key)"
  export "RCLONE_CONFIG_$1_NO_CHECK_BUCKET=true"
}

# The same objects from the same server to the same server, under a name that the volume does not use.
rclone_copy() {
  local begun ended
  begun=$(date +%s.%N)
  env -u AWS_CA_BUNDLE rclone --config /dev/null sync "SRC:us-east/demo/chunks" "DST:eu-west/rclone-$1" --transfers "$slots" >&2
  ended=$(date +%s.%N)
  env -u AWS_CA_BUNDLE rclone --config /dev/null size --json "DST:eu-west/rclone-$1" >"$dir/size.json"
  printf '{"seconds":%.3f,"objects":%s,"bytes":%s}\n' "$(awk -v a="$begun" -v b="$ended" 'BEGIN { print b-a }')" \
    "$(key "$dir/size.json" count)" "$(key "$dir/size.json" bytes)"
}

# From the start of the worker's process until the mirror's ledger owes nothing.
worker_copy() {
  local result=0
  # Not by the function: the pid must be the worker's own.
  "$bin/farshore" worker demo --slots "$slots" --dir "$world" >&2 &
  worker_pid=$!
  driver synced || result=$?
  kill "$worker_pid" 2>/dev/null
  wait "$worker_pid" 2>/dev/null || true
  worker_pid=
  return "$result"
}

copies() {
  say "writing $mib MiB into us-east"
  head -c "${mib}M" /dev/urandom >"$dir/input"
  # A `cp` copies blocks too while it runs, unless replication is paused.
  farshore replication pause demo --reason "a measurement" >&2
  farshore cp "$dir/input" demo:/input >&2
  farshore replication resume demo >&2
  part copy-owed driver synced --once
  remote SRC us-east "${ports}421"
  remote DST eu-west "${ports}441"
  if command -v rclone >/dev/null; then
    part copy-rclone-1 rclone_copy 1
  else
    missing copy-rclone-1 "rclone is not installed"
  fi
  part copy-worker worker_copy
  command -v rclone >/dev/null && part copy-rclone-2 rclone_copy 2
  return 0
}

