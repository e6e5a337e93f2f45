# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Functions for benchmarks inside of a guest, whose disk is recorded or not; needs
# scripts/functions.sh and tests/guest/guest.sh, and the directory $temp.
#
#   find_kinds            sets kinds: raw, and ttjournal or each mode of disk-flush that the
#                         driver knows
#   make_empty MIB        $temp/empty: an ext4 for a guest to begin with
#   boot KIND INITRAMFS LIMIT
#                         one guest with a fresh copy of that as /dev/vda, ended when this
#                         returns; what it told is in $temp/guest/guest.log
#   in_turns ROUNDS COMMAND
#                         COMMAND KIND for each kind in each round, in an order that changes
#
# QEMU_BUILD and TTJ_BUILD say where the programs are, as for tests/integration.

recorded_build=${TTJ_BUILD:-$guest_root/build}
recorded_qemu=${QEMU_BUILD:-$guest_root/build/qemu}
# shellcheck disable=SC2034 # guest.sh uses it
QEMU_SYSTEM=$recorded_qemu/qemu-system-x86_64

# The driver complains of disk-flush, or of the nodes that are not there.
find_kinds() {
    local said
    said=$("$recorded_qemu/qemu-storage-daemon" \
        --blockdev driver=ttjournal,node-name=t,disk-flush=lazy,file=none,journal=none 2>&1) || true
    case $said in
        *"'disk-flush'"*) kinds=(raw ttjournal) ;;
        *"node-name='none'"*) kinds=(raw guest lazy) ;;
        *) die "$said" ;;
    esac
}

# Written, so that no kind pays for the disk's allocation.
make_empty() {
    # shellcheck disable=SC2154 # the caller's
    dd if=/dev/zero of="$temp/empty" bs=1M count="$1" status=none
    mkfs.ext4 -q -E lazy_itable_init=0 "$temp/empty"
}

boot() {
    local kind=$1 initramfs=$2 limit=$3
    local file=driver=file,cache.direct=on,aio=io_uring top=disk flush='' options
    cp --sparse=never "$temp/empty" "$temp/disk"
    options=(-blockdev "$file,node-name=disk,filename=$temp/disk")
    if [ "$kind" != raw ]; then
        rm -f "$temp/journal"
        "$recorded_build/tools/ttjournal" create "$temp/journal" --disk "$temp/disk" >"$temp/create.log"
        [ "$kind" = ttjournal ] || flush=,disk-flush=$kind
        top=top
        options+=(-blockdev "$file,node-name=journal,filename=$temp/journal"
            -blockdev "driver=ttjournal,node-name=top,file=disk,journal=journal$flush")
    fi
    mkdir -p "$temp/guest"
    sync -f "$temp"
    guest_start "$temp/guest" "$initramfs" "${options[@]}" -device "virtio-blk-pci,drive=$top"
    guest_end "$limit"
}

in_turns() {
    local rounds=$1 command=$2 round i
    for ((round = 0; round < rounds; round++)); do
        for ((i = 0; i < ${#kinds[@]}; i++)); do
            "$command" "${kinds[(i + round) % ${#kinds[@]}]}"
        done
        say "round $((round + 1)) of $rounds"
    done
}
