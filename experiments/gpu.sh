#!/bin/sh
# What a machine with a CUDA device is for: the GPU tests, then the main command on the full-size 3B with random
# fp16 weights. Results land in experiments/results/<device>/. Leaves clocks and power limits alone.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-}
device=$($PYTHON -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))')
results=${OUT:-experiments/results/$device}
mkdir -p "$results"
$PYTHON -m layerprof doctor --json "$results/doctor.json"
$PYTHON -m pytest -m gpu -q
for batch in 1 16; do
    $PYTHON -m layerprof profile --model qwen2.5-vl-3b --weights random --source bundled --dataset textvqa \
        --dtype fp16 --device cuda --image-size 224 --batch-size $batch --samples $((batch * 4)) \
        --max-new-tokens 32 --fixed-tokens --output "$results/qwen2.5-vl-3b-batch$batch" | tee "$results/batch$batch.txt"
done
