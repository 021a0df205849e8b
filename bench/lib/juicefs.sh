# JuiceFS CE on Redis, as a peer: found as $JUICEFS or `juicefs` in PATH, never built here. Sourced by bench/run.
#
# Two volumes, each on a Redis of its own: `always` syncs its log at every write, `everysec` once a second. Objects go into the bucket of
# the world, under names of their own; no data is written but in mounts.sh.

juicefs=${JUICEFS:-$(command -v juicefs || true)}
declare -A redis_port=([always]="${ports}631" [everysec]="${ports}632")
redis_pids=()

# Why there is no JuiceFS; nothing when there is.
no_juicefs() {
  [ -n "$juicefs" ] && [ -x "$juicefs" ] || { echo "JuiceFS CE is not there: put it into PATH or name it with JUICEFS"; return; }
  command -v redis-server >/dev/null || echo "redis-server is not installed"
}

redis_url() { echo "redis://127.0.0.1:${redis_port[$1]}/1"; }

# One of the keys of the world's first bucket.
bucket_key() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' "$world/secrets/us-east.json"; }

start_juicefs() {
  local sync
  [ -z "$(no_juicefs)" ] || return 1
  for sync in always everysec; do
    mkdir -p "$dir/redis-$sync"
    redis-server --port "${redis_port[$sync]}" --bind 127.0.0.1 --dir "$dir/redis-$sync" --appendonly yes --appendfsync "$sync" \
      --save '' --maxmemory-policy noeviction >"$dir/redis-$sync.log" 2>&1 &
    redis_pids+=($!)
    for _ in $(seq 100); do
      redis-cli -p "${redis_port[$sync]}" ping >/dev/null 2>&1 && break
      sleep 0.1
    done
    ACCESS_KEY=$(bucket_key access_key) SECRET_KEY=$(bucket_key secret_key) \
      "$juicefs" format --storage s3 --bucket "http://127.0.0.1:${ports}421/us-east" --trash-days 0 "$(redis_url "$sync")" "peer-$sync" \
      >"$dir/juicefs-$sync-format.log" 2>&1 || return 1
  done
}

stop_juicefs() {
  [ ${#redis_pids[@]} -gt 0 ] || return 0
  kill "${redis_pids[@]}" 2>/dev/null || true
  wait "${redis_pids[@]}" 2>/dev/null || true
  redis_pids=()
}

# juicefs_reads CLIENTS lookups|stats CALLERS: the callers are shared by so many clients, whose rates are added.
juicefs_reads() {
  local clients=$1 what=$2 callers=$3 pids=() client
  for client in $(seq "$clients"); do
    "$JUICEFS_READS" "$(redis_url always)" "$what" "$(((callers + client - 1) / clients))" "$seconds" >"$dir/juicefs-reads-$client" &
    pids+=($!)
  done
  for client in $(seq "$clients"); do wait "${pids[client - 1]}" || return 1; done
  for client in $(seq "$clients"); do echo "$(key "$dir/juicefs-reads-$client" ops) $(key "$dir/juicefs-reads-$client" ops_per_second)"; done |
    awk -v callers="$callers" '{ ops += $1; rate += $2 } END { printf "{\"ops\":%d,\"ops_per_second\":%.1f,\"callers\":%d}\n", ops, rate, callers }'
}

# juicefs_creates SYNC CALLERS NAME: its own `mdtest` on the metadata engine, without FUSE. The callers go through 65 directories, each
# in an order of its own, so that they seldom meet in one.
juicefs_creates() {
  local sync=$1 callers=$2 name=$3 files
  case $callers in 1) files=40 ;; 64) files=4 ;; *) files=1 ;; esac
  "$juicefs" mdtest --no-usage-report --threads "$callers" --dirs 64 --depth 1 --files "$files" --cache-dir "$dir/juicefs-cache" \
    "$(redis_url "$sync")" "/$name" >"$dir/juicefs-mdtest.log" 2>&1 || { tail -n 2 "$dir/juicefs-mdtest.log" >&2; return 1; }
  # Created N files in 1m2.3s (R files/s)
  sed -n 's/.*Created \([0-9]*\) files in .* (\([0-9]*\) files\/s).*/{"ops":\1,"ops_per_second":\2,"callers":'"$callers"'}/p' \
    "$dir/juicefs-mdtest.log" | grep .
}
