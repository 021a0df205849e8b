# The same loads on mounts, each by the kernel: ext4 (or whatever the disk has), Farshore, JuiceFS CE on both Redis. Sourced by bench/run.

mounted=()

# Where a peer is mounted; makes it so. The plain directory is no mount.
mount_peer() {
  local peer=$1 at=$dir/mnt-$1
  mkdir -p "$at"
  case $peer in
    plain) ;;
    farshore) "$bin/farshore" mount demo "$at" --background --no-bgjob --dir "$world" >&2 ;;
    farshore-close) "$bin/farshore" mount demo "$at" --background --no-bgjob --durable close --dir "$world" >&2 ;;
    juicefs-*)
      "$juicefs" mount --no-usage-report -d --cache-dir "$dir/cache-$peer" --log "$dir/$peer.log" "$(redis_url "${peer#juicefs-}")" "$at" >&2
      ;;
  esac || return 1
  [ "$peer" = plain ] || mounted+=("$peer")
}

unmount_peers() {
  local peer
  for peer in "${mounted[@]}"; do
    case $peer in
      farshore*) "$bin/farshore" umount "$dir/mnt-$peer" >&2 || umount -l "$dir/mnt-$peer" || true ;;
      *) "$juicefs" umount "$dir/mnt-$peer" >&2 || umount -l "$dir/mnt-$peer" || true ;;
    esac
  done
  mounted=()
}

# Created, looked at with the kernel's caches dropped, removed.
mdtest_of() {
  # The results name no path of one machine.
  "$bin/farshore" mdtest "$dir/mnt-$1" --threads "$2" --dirs 8 --depth 1 --files "$3" --drop-caches --json | tr -d '\n' | sed "s#$dir/##g"
}

# One client, one thread: in a plain tar every call waits for the one before it.
untar() {
  local at=$dir/mnt-$1/untar-$2 begun ended
  mkdir "$at" || return 1
  sync
  begun=$(date +%s.%N)
  tar xf "$dir/small.tar" -C "$at" || return 1
  ended=$(date +%s.%N)
  awk -v a="$begun" -v b="$ended" 'BEGIN { printf "{\"seconds\":%.3f,\"files\":10000}\n", b-a }'
  rm -rf "$at"
}

# JuiceFS has no mirror: beside it stands Farshore without one, in the same minute. The mounts are those of `mounts`.
untar_without_mirror() {
  local peer round
  kill_mirror
  for round in $(seq "$rounds"); do
    for peer in farshore farshore-close juicefs-always; do
      case " ${ready[*]} " in
        *" $peer "*) part "untar-alone-$peer-$round" untar "$peer" "alone-$round" ;;
        *) missing "untar-alone-$peer-$round" "it is not mounted" ;;
      esac
    done
  done
  all_up
}

mounts() {
  local peer round why
  "$bin/farshore-bench" tree --out "$dir/small" >&2
  tar cf "$dir/small.tar" -C "$dir" small
  local peers=(plain farshore farshore-close juicefs-always juicefs-everysec) ready=()
  for peer in "${peers[@]}"; do
    case $peer in juicefs-*) why=$(no_juicefs) ;; *) why= ;; esac
    if [ -z "$why" ] && mount_peer "$peer"; then
      ready+=("$peer")
    else
      missing "mdtest-$peer" "${why:-it could not be mounted}"
      missing "untar-$peer" "${why:-it could not be mounted}"
    fi
  done
  for round in $(seq "$rounds"); do
    for peer in "${ready[@]}"; do part "untar-$peer-$round" untar "$peer" "$round"; done
    for peer in "${ready[@]}"; do part "mdtest-$peer-1-$round" mdtest_of "$peer" 1 50; done
    for peer in "${ready[@]}"; do part "mdtest-$peer-64-$round" mdtest_of "$peer" 64 10; done
  done
  untar_without_mirror
  unmount_peers
}
