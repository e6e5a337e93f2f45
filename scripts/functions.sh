# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Functions that the scripts share.  Source it from bash, with `set -euo pipefail`:
#
#   . "$(dirname "$0")/functions.sh"
#
#   say TEXT...                 one line about what is being done, on stderr
#   die TEXT...                 one line about what is wrong and what to do; exit 1
#   requires COMMAND...         die unless every command is there
#   wait_for CONDITION LIMIT [WHAT]
#                               run CONDITION (bash code) until it succeeds; after LIMIT
#                               seconds say that WHAT did not happen, and return 1
#   at_exit COMMAND [ARG...]    run this when the script ends, however it ends (not by
#                               kill -9); the last one registered runs first
#   undo_now                    run everything registered so far, at once
#   temp_dir VARIABLE           a fresh directory, removed at the end
#   stop PID [LIMIT]            end a process of ours and wait for it (TERM, then KILL)
#   private_apt DIR ARG...      apt-get (or apt-cache, see there) with its lists and cache
#                               in DIR: it needs no root and leaves the machine's alone
#   fetch_deb PACKAGE DIR       download the machine's version of a package into DIR,
#                               without installing it; print the name of the file
#
# at_exit, temp_dir and stop belong to the shell that called them: do not use them inside
# $(...) or ( ... ) for something that the outer shell should undo.

# The tools of e2fsprogs, kmod and util-linux, for a user who has no sbin in PATH.
case ":$PATH:" in
    *:/usr/sbin:*) ;;
    *) PATH=$PATH:/usr/sbin:/sbin ;;
esac

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

requires() {
    local command missing=()
    for command; do
        type -P -- "$command" >/dev/null || missing+=("$command")
    done
    [ ${#missing[@]} -eq 0 ] ||
        die "not found: ${missing[*]}; 'scripts/deps build qemu demo test' installs all that is needed"
}

wait_for() {
    local condition=$1 limit=$2 what=${3:-$1} end
    end=$((${EPOCHREALTIME/[.,]/} + limit * 1000000))
    until eval "$condition"; do
        if [ "${EPOCHREALTIME/[.,]/}" -ge "$end" ]; then
            say "not within $limit s: $what"
            return 1
        fi
        sleep 0.02
    done
}

# The commands to run at the end, each one as a word list quoted by printf %q.
undo_stack=()

undo_now() {
    local i
    for ((i = ${#undo_stack[@]} - 1; i >= 0; i--)); do
        eval "${undo_stack[i]}" || say "clean-up failed: ${undo_stack[i]}"
    done
    undo_stack=()
}

undo_on_exit() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    undo_now
    exit "$status"
}

at_exit() {
    local command
    printf -v command '%q ' "$@"
    undo_stack+=("$command")
    trap undo_on_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}

temp_dir() {
    local directory
    directory=$(mktemp -d "${TMPDIR:-/tmp}/ttjournal.XXXXXXXX")
    at_exit rm -rf -- "$directory"
    printf -v "$1" '%s' "$directory"
}

# True once PID is gone; a child that has ended and was not waited for counts as gone.
gone() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
    [ -z "$state" ] || [ "$state" = Z ]
}

stop() {
    local pid=$1 limit=${2:-5}
    gone "$pid" || kill "$pid" 2>/dev/null || true
    if ! wait_for "gone $pid" "$limit" "the end of process $pid; killing it"; then
        kill -KILL "$pid" 2>/dev/null || true
        wait_for "gone $pid" "$limit" "the end of process $pid after kill -9"
    fi
    wait "$pid" 2>/dev/null || true
}

# The tool comes after the directory when it is not apt-get: private_apt DIR apt-cache ...
# DIR/sources.sources, if there, replaces the machine's sources.
private_apt() {
    local directory=$1 tool=apt-get options=()
    shift
    case ${1:-} in
        apt-*) tool=$1; shift ;;
    esac
    mkdir -p "$directory"/lists/partial "$directory"/cache/archives/partial
    directory=$(realpath "$directory")
    options=(-q=2 -o "Dir::State::lists=$directory/lists" -o "Dir::Cache=$directory/cache"
        -o APT::Sandbox::User=root -o APT::Update::Post-Invoke-Success::= -o Acquire::Retries=3)
    if [ -e "$directory/sources.sources" ]; then
        options+=(-o "Dir::Etc::sourcelist=$directory/sources.sources" -o Dir::Etc::sourceparts=/dev/null)
    fi
    "$tool" "${options[@]}" "$@"
}

fetch_deb() {
    local package=$1 directory=$2 temp file
    mkdir -p "$directory"
    temp=$(mktemp -d "$directory/.fetch.XXXXXX")
    # The machine's lists may be missing, or so old that the archive has moved on.
    if ! (cd "$temp" && apt-get -q=2 -o APT::Sandbox::User=root download "$package" >/dev/null 2>&1); then
        if ! private_apt "$directory/.apt" update >&2 ||
            ! (cd "$temp" && private_apt ../.apt download "$package" >&2); then
            rm -rf "$temp"
            die "cannot download the package $package; does 'apt-get update' work on this machine?"
        fi
    fi
    file=$(cd "$temp" && echo *.deb)
    mv "$temp/$file" "$directory/$file"
    rmdir "$temp"
    printf '%s\n' "$directory/$file"
}
