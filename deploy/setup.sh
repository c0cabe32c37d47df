#!/usr/bin/env bash
# Checks for what a build of Medic needs: Rust, a C and C++ compiler, libclang (RocksDB's bindings are
# generated at build time). With --tests also: nginx, which the tests heal for real, nftables, which
# experiments and campaigns cut networks with, iproute2, with which campaigns make them, libfaketime, with which campaigns set clocks wrong, and Prometheus, its
# node exporter and Alertmanager, which tests talk to.
# Installs what is missing with the system's package manager when it may; else says what to install.
set -euo pipefail

want_tests=false
[ "${1:-}" = "--tests" ] && want_tests=true

has_libclang() {
  if [ -n "${LIBCLANG_PATH:-}" ]; then return 0; fi
  local found
  # The names bindgen looks for; libclang-cpp is another library.
  found=$(find /usr/lib /usr/lib64 /usr/local/lib /opt/homebrew/opt/llvm/lib \( -name 'libclang.so*' -o -name 'libclang-[0-9]*.so*' -o -name 'libclang.dylib' \) 2>/dev/null | head -1 || true)
  [ -n "$found" ]
}

missing=()
command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs, then run this again." >&2; exit 1; }
command -v cc >/dev/null && command -v c++ >/dev/null || missing+=(compiler)
has_libclang || missing+=(libclang)
if $want_tests; then
  PATH="$PATH:/usr/sbin:/sbin" command -v nginx >/dev/null || missing+=(nginx)
  PATH="$PATH:/usr/sbin:/sbin" command -v nft >/dev/null || [ "$(uname)" != Linux ] || missing+=(nftables)
  PATH="$PATH:/usr/sbin:/sbin" command -v ip >/dev/null || [ "$(uname)" != Linux ] || missing+=(iproute2)
  command -v faketime >/dev/null || [ "$(uname)" != Linux ] || missing+=(faketime)
  # Elsewhere they have other names: the test that needs them says so.
  ! command -v apt-get >/dev/null || for program in prometheus prometheus-node-exporter prometheus-alertmanager; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
fi
[ ${#missing[@]} -eq 0 ] && exit 0

packages() { # package names by package manager
  for item in "${missing[@]}"; do
    case "$1:$item" in
      apt:compiler) echo build-essential ;;
      apt:libclang) echo libclang-dev ;;
      dnf:compiler) echo gcc gcc-c++ ;;
      dnf:libclang) echo clang-devel ;;
      apk:compiler) echo build-base ;;
      apk:libclang) echo clang-dev ;;
      pacman:compiler) echo base-devel ;;
      pacman:libclang) echo clang ;;
      brew:compiler) ;;
      brew:libclang) echo llvm ;;
      *:nginx) echo nginx ;;
      *:nftables) echo nftables ;;
      dnf:iproute2) echo iproute ;;
      *:iproute2) echo iproute2 ;;
      apt:prometheus*) echo "$item" ;;
      apt:faketime) echo faketime ;;
      *:faketime) echo libfaketime ;;
    esac
  done
}

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo -n); else as_root=(false); fi
fi
may_install() { [ "${as_root[*]:-}" != "false" ]; }

if command -v apt-get >/dev/null; then
  list=$(packages apt | xargs)
  if may_install; then
    echo "installing: $list"
    "${as_root[@]}" apt-get update -qq
    # A freshly installed nginx would start itself on port 80, a Prometheus on 9090: keep services down.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
      "${as_root[@]}" chmod 0755 "$policy"
      trap '"${as_root[@]}" rm -f "$policy"' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 "${as_root[@]}" apt-get install -y -qq --no-install-recommends $list >/dev/null
    exit 0
  fi
  echo "Missing: ${missing[*]}. Run: sudo apt-get install $list" >&2
elif command -v dnf >/dev/null; then
  list=$(packages dnf | xargs)
  if may_install; then echo "installing: $list"; "${as_root[@]}" dnf install -y -q $list; exit 0; fi
  echo "Missing: ${missing[*]}. Run: sudo dnf install $list" >&2
elif command -v apk >/dev/null; then
  list=$(packages apk | xargs)
  if may_install; then echo "installing: $list"; "${as_root[@]}" apk add --quiet $list; exit 0; fi
  echo "Missing: ${missing[*]}. Run: sudo apk add $list" >&2
elif command -v pacman >/dev/null; then
  echo "Missing: ${missing[*]}. Run: sudo pacman -S --needed $(packages pacman | xargs)" >&2
elif command -v brew >/dev/null; then
  list=$(packages brew | xargs)
  echo "installing: $list"; brew install $list; exit 0
else
  echo "Missing: ${missing[*]}. Install a C/C++ compiler, libclang's development files and (for the tests) nginx." >&2
fi
exit 1
