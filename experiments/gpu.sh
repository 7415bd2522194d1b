#!/bin/sh
# What a machine with a CUDA device is for: the GPU tests, then the main command on the full-size 3B with random
# fp16 weights. Results land in experiments/results/<device>/. Leaves clocks and power limits alone.
#
#     sh experiments/gpu.sh [tests] [batch1] [batch16] [replay] [peers] [sweep]     (all of them when none is named)
#
# Each stage stays under ten minutes on a data-centre card, so that they can be run one by one.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
device=$($PYTHON -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))')
results=${OUT:-experiments/results/$device}
mkdir -p "$results"

profile() {
    name=$1
    shift
    $PYTHON -m layerprof profile --model qwen2.5-vl-3b --weights random --source bundled --dataset textvqa \
        --dtype fp16 --device cuda --image-size 224 --max-new-tokens 32 --fixed-tokens \
        --output "$results/$name" "$@" | tee "$results/$name.txt"
}

stage() {
    case $1 in
    tests)
        $PYTHON -m layerprof doctor --json "$results/doctor.json"
        $PYTHON -m pytest -m gpu -q
        ;;
    batch1) profile qwen2.5-vl-3b-batch1 --batch-size 1 --samples 8 ;;
    batch16) profile qwen2.5-vl-3b-batch16 --batch-size 16 --samples 64 ;;
    replay)
        # Class representatives: one call of each kind of layer, in prefill and in decode.
        profile replay-batch1 --batch-size 1 --samples 4 --no-trace --energy replay --energy-budget 150
        profile replay-batch16 --batch-size 16 --samples 16 --no-trace --energy replay --energy-budget 150
        ;;
    peers)
        # Needs no extras: a peer that is not installed is a row that says so (`make peers` installs them).
        OUT=$results PYTHON=$PYTHON sh experiments/peers/all.sh overhead flops energy
        ;;
    sweep)
        $PYTHON -m layerprof sweep experiments/reference.toml --model qwen2.5-vl-3b --weights random --samples 16 \
            --set source=bundled --output "$results/reference" --timeout 120 | tee "$results/reference.txt"
        $PYTHON -m layerprof report "$results/reference" -o "$results/reference.md"
        $PYTHON -m layerprof report "$results/reference" -o "$results/reference.csv"
        ;;
    *)
        echo "unknown stage $1: tests batch1 batch16 replay peers sweep" >&2
        exit 2
        ;;
    esac
}

for name in ${*:-tests batch1 batch16 replay peers sweep}; do
    stage "$name"
done
