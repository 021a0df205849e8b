# The state machine without its network. Sourced by bench/run.

# limited MIB COMMAND...: in a control group that may hold so much memory, the kernel's cache of its files included.
limited() {
  local group file status=0
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    group=/sys/fs/cgroup/farshore-bench-$$ file=memory.max
  else
    group=/sys/fs/cgroup/memory/farshore-bench-$$ file=memory.limit_in_bytes
  fi
  mkdir "$group" && echo "$(($1 << 20))" >"$group/$file" || { echo "no control group for memory can be made here" >&2; return 1; }
  shift
  # What is cached already would be charged to nobody.
  sync && echo 3 >/proc/sys/vm/drop_caches
  (echo "$BASHPID" >"$group/cgroup.procs" && exec "$@") || status=$?
  rmdir "$group"
  return "$status"
}

engine() {
  local round kept
  for round in $(seq "$rounds"); do
    part "engine-creates-$round" "$bin/farshore-engine" rates --dir "$dir" --batch 64 --group 4
    part "engine-files-$round" "$bin/farshore-engine" rates --dir "$dir" --batch 64 --group 4 --shape files --files 200000
  done
  part engine-size "$bin/farshore-engine" size --dir "$dir" --files "$files" --keep
  kept=$(key "$parts/engine-size.json" kept 2>/dev/null || true)
  if [ -d "$kept" ]; then
    part engine-limited-reads limited 512 "$bin/farshore-engine" reads --state "$kept/state" --files "$files"
    part engine-limited-start limited 512 "$bin/farshore-engine" start --dir "$kept"
    rm -rf "$kept"
  else
    missing engine-limited-reads "there is no state"
    missing engine-limited-start "there is no state"
  fi
}
