# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Functions for the host's side of a guest made by make-initramfs; needs scripts/functions.sh.
#
#   guest_start DIR INITRAMFS [QEMU OPTION...]
#                         boot it under -accel tcg with these options for disks and so on
#                         added. DIR, which must exist, gets: console.log, and
#                         guest.log with the lines that the guest told. The guest's
#                         process is $guest_pid; it is ended with the script at the latest.
#   guest_heard LIMIT LINE
#                         wait until the guest has told exactly this line; die, with the
#                         end of its console, when LIMIT seconds pass or the guest ends
#   guest_go N            answer the guest's `step N`, so that it goes on
#   guest_say LINE        send any line
#   guest_end LIMIT       wait for the guest's END and for the end of QEMU
#
# One guest at a time. QEMU is $QEMU_SYSTEM, or the one in build/qemu.

guest_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

guest_start() {
    guest_dir=$1
    local initramfs=$2 qemu=${QEMU_SYSTEM:-$guest_root/build/qemu/qemu-system-x86_64}
    shift 2
    [ -x "$qemu" ] || die "no $qemu: run scripts/build-qemu"
    rm -f "$guest_dir"/line.in "$guest_dir"/line.out
    mkfifo "$guest_dir/line.in" "$guest_dir/line.out"
    : >"$guest_dir/guest.log"
    # Open both ends, so that nobody waits for the other one to open.
    exec {guest_line}<>"$guest_dir/line.in"
    cat "$guest_dir/line.out" >"$guest_dir/guest.log" &
    guest_reader=$!
    at_exit stop "$guest_reader"
    "$qemu" -nodefaults -no-user-config -display none -no-reboot -accel tcg -m 256 \
        -kernel "$guest_root/build/guest/vmlinuz" -initrd "$initramfs" \
        -append 'console=ttyS0 quiet panic=-1' \
        -serial "file:$guest_dir/console.log" \
        -chardev "pipe,id=line,path=$guest_dir/line" -serial chardev:line \
        "$@" </dev/null {guest_line}>&- &
    guest_pid=$!
    at_exit stop "$guest_pid"
}

guest_failed() {
    tail -n 20 "$guest_dir/console.log" >&2 2>/dev/null || true
    die "$1; above is the end of its console"
}

guest_heard() {
    local limit=$1 line=$2 log=$guest_dir/guest.log
    wait_for "grep -qxF -e '$line' '$log' || grep -q '^FAILED ' '$log' || gone $guest_pid" \
        "$limit" "the guest's '$line'" || guest_failed "the guest is silent"
    if gone "$guest_pid"; then
        # Its last words may still be in the pipe, and if it never opened that, cat waits for it.
        : <>"$guest_dir/line.out"
        wait_for "gone $guest_reader" 10 "the end of the guest's line" || true
    fi
    grep -qxF -e "$line" "$log" || guest_failed "the guest ended or failed before '$line'"
}

guest_say() {
    printf '%s\n' "$1" >&"$guest_line"
}

guest_go() {
    guest_say "go $1"
}

guest_end() {
    guest_heard "$1" END
    wait_for "gone $guest_pid" "$1" 'the end of QEMU' || guest_failed "the guest does not power off"
    wait "$guest_pid" || guest_failed "QEMU ended with status $?"
    exec {guest_line}>&-
    stop "$guest_reader"
}
