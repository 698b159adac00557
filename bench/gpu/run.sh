#!/usr/bin/env bash
# Tests and measures the CUDA backend on this machine: builds sdar-gpu-bench for its card, runs it, all in 8 minutes.
#   bench/gpu/run.sh [options of sdar-gpu-bench]       --help lists them
# Needs CMake 3.20, g++ 11 and nvcc 12.4 or newer, no Node and no network; or a built executable brought along:
#   SDAR_GPU_BENCH=/path/to/sdar-gpu-bench bench/gpu/run.sh
# The build goes to build/gpu-bench, results to ./gpu-bench unless --out says otherwise.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
begin=$SECONDS

has() { command -v "$1" >/dev/null; }
given() { # option, arguments…
  local option=$1 argument
  shift
  for argument; do [ "$argument" = "$option" ] && return 0; done
  return 1
}

# The architecture of the first card as nvcc names it; both that matter most where nobody answers.
architectures() {
  local version
  version=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d ' .') || true
  case "$version" in
    "" | *[!0-9]*) echo "80;90a" ;;
    90) echo 90a ;;
    *) echo "$version" ;;
  esac
}

build() {
  local folder=$root/build/gpu-bench log
  log=$folder/build.log
  for tool in cmake g++; do
    has "$tool" || { echo "$tool was not found: install it (Debian: apt-get install cmake g++ make)" >&2; return 1; }
  done
  has nvcc || export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin"
  has nvcc || echo "nvcc was not found: only --device cpu can be measured" >&2
  mkdir -p "$folder"
  echo "# building for $(architectures), log in $log"
  local generator=()
  if has ninja && [ ! -e "$folder/CMakeCache.txt" ]; then generator=(-G Ninja); fi
  if ! { cmake -S "$root" -B "$folder" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DSDAR_ADDON=OFF -DSDAR_CUDA=OFF -DSDAR_GPU_BENCH=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$(architectures)" &&
    cmake --build "$folder" --target sdar-gpu-bench --parallel "$(nproc)"; } >"$log" 2>&1; then
    grep -nE -m 20 -A 4 "error|Error" "$log" >&2 || tail -n 20 "$log" >&2
    echo "the build failed; the full log is $log" >&2
    return 1
  fi
  echo "# built in $((SECONDS - begin)) s"
}

# cuBLASLt is a yardstick, not a need: it may lie where the loader does not look.
find_cublaslt() {
  ldconfig -p 2>/dev/null | grep -q libcublasLt && return 0
  local file
  file=$(find /usr/local /opt /usr/lib "${CUDA_HOME:-/usr/local/cuda}/" -name "libcublasLt.so.1*" -print -quit 2>/dev/null) || true
  [ -z "$file" ] || export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$(dirname "$file")"
}

if given --help "$@"; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  sed -n '/kUsage.. = R"(/,/)";/p' "$root/bench/gpu/options.cc" | sed 's/.*R"(//; /)";/d'
  exit 0
fi
executable=${SDAR_GPU_BENCH:-}
if [ -z "$executable" ]; then
  build
  executable=$root/build/gpu-bench/bench/gpu/sdar-gpu-bench
elif [ ! -x "$executable" ]; then
  echo "SDAR_GPU_BENCH is \"$executable\", which is no executable" >&2
  exit 2
fi
find_cublaslt
minutes=()
if ! given --minutes "$@"; then
  left=$((480 - (SECONDS - begin)))
  [ "$left" -gt 60 ] || left=60
  minutes=(--minutes "$((left / 60)).$((left % 60 / 6))")
fi
exec "$executable" "${minutes[@]}" "$@"
