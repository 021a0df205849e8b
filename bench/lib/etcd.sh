# Three etcd members on loopback. Sourced by bench/run.

# Three members with etcd's own defaults, on the same disk.
start_etcd() {
  local number cluster= member
  command -v etcd >/dev/null || return 1
  for number in 1 2 3; do cluster+="${cluster:+,}m$number=http://127.0.0.1:${ports}58$number"; done
  for number in 1 2 3; do
    etcd --name "m$number" --data-dir "$dir/etcd-$number" --initial-cluster "$cluster" --initial-cluster-state new \
      --listen-peer-urls "http://127.0.0.1:${ports}58$number" --initial-advertise-peer-urls "http://127.0.0.1:${ports}58$number" \
      --listen-client-urls "http://127.0.0.1:${ports}57$number" --advertise-client-urls "http://127.0.0.1:${ports}57$number" \
      >"$dir/etcd-$number.log" 2>&1 &
    etcd_pids+=($!)
  done
  for _ in $(seq 100); do
    "$bin/farshore-bench" etcd-puts --members "$members" --callers 1 --seconds 0.1 >/dev/null 2>&1 && return 0
    for member in "${etcd_pids[@]}"; do kill -0 "$member" 2>/dev/null || return 1; done
    sleep 0.1
  done
  return 1
}
members=127.0.0.1:${ports}571,127.0.0.1:${ports}572,127.0.0.1:${ports}573

# Separated by commas.
pids_of_etcd() { (IFS=,; echo "${etcd_pids[*]}"); }

stop_etcd() {
  [ ${#etcd_pids[@]} -gt 0 ] || return 0
  kill "${etcd_pids[@]}" 2>/dev/null || true
  wait "${etcd_pids[@]}" 2>/dev/null || true
  etcd_pids=()
}

