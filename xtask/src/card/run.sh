#!/usr/bin/env bash
# Measures `surgery` on this machine: the correctness of its results, the default operation, and its speed, with and
# without PyTorch for comparison. `cargo xtask card` creates this folder.
#
#     bash run.sh [FOLDER] [SECONDS]
#
# Writes card.jsonl into FOLDER (default: $OUT, or else ./card-results): a line of JSON about the machine, then one for
# each part. A part's line is added when the part ends, so a later failure does not lose it. While a part runs, its
# output is in NAME.stdout and NAME.stderr. All parts end within SECONDS (default: the value in `settings`): each has its
# own time limit, and at most the remaining time. PYTHON is the Python with PyTorch (default: python3).
set -u

card=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
backend='' profile='' commit='' seconds=0 parity_limit=0 operation_limit=0 benches=()
# shellcheck source=/dev/null
. "$card/settings"
python=${PYTHON:-python3}
total=${2:-$seconds}
# Reserve in seconds: a part that ignores its time limit is killed 5 seconds later.
reserve=10
# Minimum time in seconds to start a part.
least=5

out=${1:-${OUT:-card-results}}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
record=$out/card.jsonl
if [ -e "$record" ]; then
    echo "error: $record exists already; name another folder" >&2
    exit 1
fi
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# The end of standard input as a JSON string, without control characters.
json_string() {
    printf '"'
    tail -c 200000 | LC_ALL=C tr -d '\000-\010\013-\037' | LC_ALL=C sed 's/[\\"]/\\&/g; s/\t/\\t/g; s/$/\\n/' | tr -d '\n'
    printf '"'
}

# The words as one JSON string.
json_word() {
    printf '%s' "$*" | json_string | sed 's/\\n"$/"/'
}

milliseconds() {
    date +%s%3N
}

# part NAME LIMIT COMMAND…: runs the command for at most LIMIT seconds. `code` is its exit code: 124 if it was stopped,
# or 137 if it had to be killed.
part() {
    local name=$1 limit=$2 left=$((total - reserve - SECONDS)) started took
    shift 2
    if [ "$left" -lt "$least" ]; then
        code=124
        skip "$name" "no time was left"
        return
    fi
    if [ "$limit" -gt "$left" ]; then
        limit=$left
    fi
    started=$(milliseconds)
    timeout --kill-after=5 "$limit" "$@" </dev/null >"$out/$name.stdout" 2>"$out/$name.stderr"
    code=$?
    took=$(($(milliseconds) - started))
    printf '{"part":"%s","command":%s,"limit":%d,"seconds":%d.%03d,"exit_code":%d,"stdout":%s,"stderr":%s}\n' \
        "$name" "$(json_word "$@")" "$limit" $((took / 1000)) $((took % 1000)) "$code" \
        "$(json_string <"$out/$name.stdout")" "$(json_string <"$out/$name.stderr")" >>"$record"
    rm -f "$out/$name.stdout" "$out/$name.stderr"
    printf '%-34s %4d s  exit code %d\n' "$name" $((took / 1000)) "$code"
}

# skip NAME REASON: records a part that is skipped.
skip() {
    printf '{"part":"%s","skipped":%s}\n' "$1" "$(json_word "$2")" >>"$record"
    printf '%-34s skipped: %s\n' "$1" "$2"
}

# Kernels are compiled at run time with the headers and the compiler (NVRTC) of the CUDA toolkit. If these are not in
# their usual places, pip packages may contain them.
find_toolkit() {
    local roots=("${CUDA_PATH:-/none}" "${CUDA_HOME:-/none}" /usr/local/cuda /opt/cuda /usr/local/cuda-*) folder root
    if folder=$(command -v nvcc); then
        roots+=("$(dirname "$(dirname "$(readlink -f "$folder")")")")
    fi
    while read -r folder; do
        roots+=("$folder"/nvidia/*)
    done < <("$python" -c 'import sys; print("\n".join(sys.path))' 2>/dev/null)
    for root in "${roots[@]}"; do
        if [ -f "$root/include/cuda_runtime.h" ]; then
            export CUDA_PATH=$root
            break
        fi
    done
    if PATH=$PATH:/sbin:/usr/sbin ldconfig -p | grep -q 'libnvrtc\.so'; then
        return
    fi
    # Only NVRTC, so that PyTorch still uses its own libraries.
    for root in "${CUDA_PATH:-/none}" "${roots[@]}"; do
        for folder in "$root/lib64" "$root/lib"; do
            if compgen -G "$folder/libnvrtc.so*" >"$work/found"; then
                mkdir "$work/nvrtc"
                ln -s "$folder"/libnvrtc* "$work/nvrtc"
                ln -sf "$(head -n 1 "$work/found")" "$work/nvrtc/libnvrtc.so"
                export LD_LIBRARY_PATH=$work/nvrtc${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
                return
            fi
        done
    done
}

# Unpacks the programs with xz or with Python's decompressor.
unpack() {
    if command -v xz >/dev/null; then
        xz --decompress --stdout "$card/programs.tar.xz"
    else
        "$python" -c '
import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$card/programs.tar.xz"
    fi
}

# Whether $python has PyTorch, and for CUDA, whether that PyTorch detects the card.
has_pytorch() {
    part pytorch 60 "$python" -c '
import json, sys, torch, transformers
gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "gpu": gpu}))
if sys.argv[1] == "cuda" and gpu is None:
    sys.exit("PyTorch sees no GPU")' "$backend"
    [ "$code" = 0 ]
}

# The same, but installs PyTorch for this run if it is missing and the network responds within seconds.
find_pytorch() {
    has_pytorch && return
    if [ "$backend" != cuda ]; then
        return 1
    fi
    part pip-answers 5 "$python" -m pip --timeout 3 --retries 0 index versions torch
    if [ "$code" != 0 ]; then
        return 1
    fi
    part pip-install 150 "$python" -m pip install --quiet --target "$work/site" torch transformers
    export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
    has_pytorch
}

if [ "$backend" = cuda ]; then
    find_toolkit
fi
export SURGERY_GOLDEN=$card/golden
unpack | tar --extract --directory "$work" || exit 1
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
{
    printf '{"card":1,"date":"%s","command":%s,"seconds":%d' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$(json_word "bash run.sh $*")" "$total"
    printf ',"backend":"%s","profile":"%s","commit":"%s"' "$backend" "$profile" "$commit"
    printf ',"cpu":%s,"cores":%d,"memory_bytes":%d,"kernel":%s' \
        "$(json_word "$cpu")" "$(nproc)" $((memory * 1024)) "$(json_word "$(uname -sr)")"
    printf ',"cuda_path":%s,"library_path":%s' \
        "$(json_word "${CUDA_PATH:-}")" "$(json_word "${LD_LIBRARY_PATH:-}")"
    printf ',"folders":{"CARD":%s,"OUT":%s,"WORK":%s}}\n' \
        "$(json_word "$card")" "$(json_word "$out")" "$(json_word "$work")"
} >"$record"

if command -v nvidia-smi >/dev/null; then
    part nvidia-smi 20 nvidia-smi
else
    skip nvidia-smi "this machine has no nvidia-smi"
fi
part doctor 30 "$work/surgery" doctor --json
part parity "$parity_limit" "$work/parity" "$backend"
part operation "$operation_limit" "$work/surgery" run --json --backend "$backend" --output "$work/operation"
for file in metrics.jsonl report.html; do
    cp "$work/operation/$file" "$out" 2>/dev/null
done
# Not tried yet, then yes or no.
pytorch=''
for bench in "${benches[@]}"; do
    read -r limit shape precision peer <<<"$bench"
    name=bench-$shape-$precision${peer:+-$peer}
    command=("$work/surgery-bench" --json --backend "$backend" --shape "$shape" --precision "$precision" --steps 3)
    if [ -n "$peer" ]; then
        if [ -z "$pytorch" ]; then
            find_pytorch && pytorch=yes || pytorch=no
        fi
        if [ "$pytorch" = yes ]; then
            command+=(--peer --python "$python" --script "$card/peer.py")
        else
            skip "$name" "PyTorch is missing or does not run; see the part pytorch"
            name=bench-$shape-$precision
        fi
    fi
    part "$name" "$limit" "${command[@]}"
done
echo "results: $record, after $SECONDS s"
