#!/bin/sh
# What a machine with a CUDA device is for: the GPU tests, then the main command on the full-size 3B with random
# fp16 weights. Results land in experiments/results/<device>/, or in $RESULTS. Leaves clocks and power limits alone.
#
#     sh experiments/gpu.sh [tests] [books] [batch1] [batch16] [replay1] [replay16] [peers] [sweep]     (all when none)
#
# Minutes on a data-centre card, estimated: tests 5, books 6, batch1 3, batch16 3, replay1 4, replay16 4, peers 11,
# sweep 30 (SWEEP=batch_size for that table alone: 5). A stage that fails stops none after it; the exit status tells.
#
# layerprof has to be installed, since hooks are found by their entry points. Without a package index, on a machine
# that has torch (what else is missing there can lie on PYTHONPATH):
#
#     python3 -m pip install --no-deps --no-build-isolation --no-index --editable .
set -u
cd "$(dirname "$0")/.." || exit
PYTHON=${PYTHON:-python3}
if ! $PYTHON -c 'import layerprof.hooks.latency, layerprof.registry as r; r.load("latency")'; then
    echo "layerprof is not installed: $PYTHON -m pip install --no-deps --no-build-isolation --no-index --editable ." >&2
    exit 2
fi
device=$($PYTHON -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))') || exit
results=${RESULTS:-experiments/results/$device}
mkdir -p "$results"
failed=""

# Run a command; when it fails, say so, remember its stage, and go on.
try() {
    "$@" && return
    echo "FAILED with status $?, in stage $name: $*" >&2
    failed="$failed $name"
}

# Run a command, show what it prints and keep it in a file; the status is the command's, not tee's.
kept() {
    file=$1
    shift
    exec 4>&1
    status=$({ { "$@" 3>&- 4>&-; echo $? >&3; } | tee "$file" >&4; } 3>&1)
    exec 4>&-
    return "$status"
}

profile() {
    run=$1
    shift
    try kept "$results/$run.txt" $PYTHON -m layerprof profile --model qwen2.5-vl-3b --weights random --source bundled \
        --dataset textvqa --dtype fp16 --device cuda --image-size 224 --max-new-tokens 32 --fixed-tokens \
        --output "$results/$run" "$@"
}

stage() {
    case $1 in
    tests)
        try $PYTHON -m layerprof doctor --json "$results/doctor.json"
        try kept "$results/tests.txt" $PYTHON -m pytest -m gpu -q -ra --durations 10 -k "not replayed_layers" tests/gpu
        ;;
    books)
        try kept "$results/books.txt" $PYTHON -m pytest -m gpu -q -ra -k replayed_layers tests/gpu/test_energy_gpu.py
        ;;
    batch1) profile qwen2.5-vl-3b-batch1 --batch-size 1 --samples 8 ;;
    batch16) profile qwen2.5-vl-3b-batch16 --batch-size 16 --samples 64 ;;
    # Class representatives: one call of each kind of layer, in prefill and in decode.
    replay1) profile replay-batch1 --batch-size 1 --samples 4 --no-trace --energy replay --energy-budget 150 ;;
    replay16) profile replay-batch16 --batch-size 16 --samples 16 --no-trace --energy replay --energy-budget 150 ;;
    peers)
        # Needs no extras: a peer that is not installed is a row that says so (`make peers` installs them).
        try env OUT="$results" PYTHON="$PYTHON" sh experiments/peers/all.sh overhead flops energy
        ;;
    sweep)
        table=${SWEEP:-reference}
        try kept "$results/$table.txt" $PYTHON -m layerprof sweep "experiments/$table.toml" --model qwen2.5-vl-3b \
            --weights random --samples 16 --set source=bundled --output "$results/$table" --timeout 120
        try $PYTHON -m layerprof report "$results/$table" -o "$results/$table.md"
        try $PYTHON -m layerprof report "$results/$table" -o "$results/$table.csv"
        ;;
    *)
        echo "unknown stage $1: tests books batch1 batch16 replay1 replay16 peers sweep" >&2
        exit 2
        ;;
    esac
}

for name in ${*:-tests books batch1 batch16 replay1 replay16 peers sweep}; do
    echo "== $name, begun at $(date +%H:%M:%S)"
    stage "$name"
done
echo "== done at $(date +%H:%M:%S)${failed:+; failed in:$failed}"
[ -z "$failed" ]
