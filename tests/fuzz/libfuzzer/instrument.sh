#!/bin/sh
# A RUSTC_WRAPPER: counters of coverage, and operands of comparisons, for libFuzzer. In our crates alone, so
# that dependencies are taken as the workspace has compiled them; build scripts have no libFuzzer to report to.
rustc=$1
shift
case "$CARGO_PKG_NAME $*" in
*"--crate-name build_script_"*) exec "$rustc" "$@" ;;
medic-*) ;;
*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
