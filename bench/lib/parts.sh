# Parts of a run: one figure or more each, as JSON in a file of its own. Sourced by bench/run.

# Busy and total ticks of all cores.
ticks() { awk '/^cpu /{ print $2+$3+$4+$7+$8+$9, $2+$3+$4+$5+$6+$7+$8+$9 }' /proc/stat; }

# part NAME COMMAND...: one figure of the results; a failure is kept with its reason, and the run goes on.
part() {
  local name=$1 busy total busy_after total_after
  shift
  say "$name"
  read -r busy total < <(ticks)
  if "$@" >"$parts/$name.out" 2>"$parts/$name.err"; then
    read -r busy_after total_after < <(ticks)
    mv "$parts/$name.out" "$parts/$name.json"
    awk -v b="$busy" -v t="$total" -v B="$busy_after" -v T="$total_after" 'BEGIN { printf "%.3f\n", (B-b)/(T-t) }' >"$parts/$name.cpu"
    { head -c 400 "$parts/$name.json"; echo; } >&2
  else
    { tail -n 3 "$parts/$name.err" | grep . || echo "it failed without a word"; } >"$parts/$name.failed"
    say "failed: $(cat "$parts/$name.failed")"
  fi
}

missing() { printf '%s\n' "$2" >"$parts/$1.failed"; say "missing: $1: $2"; }

# A key of a JSON object on one line.
key() { sed -n "s/.*\"$2\": *\"\{0,1\}\([^,\"}]*\).*/\1/p" "$1"; }

driver() { local verb=$1; shift; "$bin/farshore-bench" "$verb" --dir "$world" "$@"; }
farshore() { "$bin/farshore" "$@" --dir "$world"; }

