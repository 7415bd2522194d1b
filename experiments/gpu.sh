#!/bin/sh
# What a machine with a CUDA device is for, the most valuable first: can it be trusted, then the main command on the
# full-size 3B with random fp16 weights. Nothing is measured twice. Leaves clocks and power limits alone.
#
#     sh experiments/gpu.sh [--dry-run] [STAGE ...]      all stages when none is named; --dry-run only says what would run
#
#     OUT=FOLDER      where results go, packed into a few files as each stage ends, so that an interrupted run keeps what
#                     is done: results-FIRST.tgz, after the first stage asked for, and traces-STAGE.tgz. Without it they
#                     lie open in experiments/results/DEVICE/.
#     PYTHON=python3  the interpreter
#     SWEEP=reference the experiment of the stage `sweep`; batch_size alone takes 5 minutes
#     DEVICE=cpu      a dress rehearsal without a GPU: the bundled model, no energy
#
# A stage that fails stops none after it; the exit status tells. README.md of the results sets each figure beside what it
# had to prove (experiments/gpu_report.py).
#
# layerprof has to be installed, since hooks are found by their entry points. Without a package index, on a machine that
# has torch (what else is missing there can lie on PYTHONPATH):
#
#     python3 -m pip install --no-deps --no-build-isolation --no-index --editable .
set -u
cd "$(dirname "$0")/.." || exit
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
STAGES="machine probe tests traces batch1 batch16 graph request formats towers compiled teardown peers sweep"

# Minutes on a data-centre card, loading included.
minutes() {
    case $1 in
    machine) echo 1 ;;
    probe) echo 1 ;;
    tests) echo 2 ;;
    traces) echo 1 ;;
    batch1) echo 4 ;;
    batch16) echo 4 ;;
    graph) echo 3 ;;
    request) echo 3 ;;
    formats) echo 6 ;;
    towers) echo 4 ;;
    compiled) echo 2 ;;
    teardown) echo 1 ;;
    peers) echo 8 ;;
    sweep) echo 30 ;;
    esac
}

# Run a command for at most so many seconds, keep what it prints in a file of the results, and show the end of it.
# Interrupted, a run saves what it has finished. A failure is remembered, and nothing after it is left out.
keep() {
    file=$1 limit=$2
    shift 2
    if [ -n "$dry" ]; then
        for word in "$@"; do
            case $word in *" "*) word="'$word'" ;; esac
            line="${line:-   } $word"
        done
        echo "$line"
        line=""
        return
    fi
    # In the background, so that a signal to this script is handled at once.
    timeout -s INT -k 20 "$limit" "$@" >"$results/$file" 2>&1 &
    child=$!
    wait $child
    status=$?
    child=""
    tail -n "${LINES_SHOWN:-40}" "$results/$file"
    [ $status = 0 ] && return
    echo "FAILED with status $status, in stage $name: $*" >&2
    failed="$failed $name"
}

# Ctrl-C, or a job that outran its time: end what runs, which saves what it has, and keep it.
stop() {
    trap '' INT TERM HUP
    echo "== interrupted in stage $name" >&2
    if [ -n "$child" ]; then
        kill -INT "$child" 2>/dev/null
        wait "$child"
    fi
    pack
    echo "results so far in $results${OUT:+, packed into $OUT}" >&2
    exit 130
}

# The full-size 3B; what every figure of a layer comes from: one run gives spans, FLOPs, kernels and joules.
profile() {
    run=$1 limit=$2
    shift 2
    if [ "$DEVICE" = cpu ]; then
        set -- --model demo "$@"
    else
        set -- --model qwen2.5-vl-3b --weights random --dtype fp16 --energy replay --energy-budget 150 "$@"
    fi
    keep "$run.txt" "$limit" "$PYTHON" -m layerprof profile --source bundled --dataset textvqa --device "$DEVICE" \
        --fixed-tokens --trace-batches 1 --output "$results/$run" "$@"
}

# A sweep of few samples over one experiment, and its tables.
cells() {
    table=$1 limit=$2
    if [ "$DEVICE" = cpu ]; then model=demo; else model=qwen2.5-vl-3b; fi
    keep "$table.txt" "$limit" "$PYTHON" -m layerprof sweep "experiments/$table.toml" --model "$model" --weights random \
        --samples 16 --set source=bundled --output "$results/$table" --timeout 120
    keep "$table-report.txt" 60 "$PYTHON" -m layerprof report "$results/$table" -o "$results/$table.md"
    keep "$table-report.txt" 60 "$PYTHON" -m layerprof report "$results/$table" -o "$results/$table.csv"
}

stage() {
    case $1 in
    machine)
        keep nvidia-smi.txt 20 nvidia-smi -q
        keep packages.txt 20 "$PYTHON" -m pip list
        LINES_SHOWN=60 keep doctor.txt 90 "$PYTHON" -m layerprof doctor --json "$results/doctor.json"
        ;;
    probe)
        keep probe.txt 90 "$PYTHON" experiments/gpu_probe.py --json "$results/probe.json"
        ;;
    teardown)
        # In some versions of kineto a second session with this setting ends the process: so late, and briefly.
        keep teardown.txt 60 env TEARDOWN_CUPTI=1 "$PYTHON" experiments/gpu_probe.py \
            --json "$results/probe-teardown.json"
        ;;
    tests)
        # Joules before traces, whose profiler stays attached; what the full-size runs show anyway is left to them.
        keep tests.txt 240 env KINETO_LOG_LEVEL=2 "$PYTHON" -m pytest -m gpu -q -ra --durations 6 \
            --basetemp "$results/tests" -k "not full_size and not repeats" \
            tests/gpu/test_energy_gpu.py tests/gpu/test_latency_gpu.py tests/gpu/test_own_loop_gpu.py \
            tests/gpu/test_kernels_gpu.py
        ;;
    traces) LINES_SHOWN=80 keep traces.txt 120 "$PYTHON" experiments/gpu_traces.py "$results/traces" ;;
    batch1) profile batch1 285 --batch-size 1 --samples 8 --max-new-tokens 16 ;;
    batch16) profile batch16 285 --batch-size 16 --samples 96 --max-new-tokens 16 ;;
    graph)
        # Its tests first: a capture that goes wrong there says more than one inside a run.
        keep tests-graph.txt 120 "$PYTHON" -m pytest -m gpu -q -ra --basetemp "$results/tests" tests/gpu/test_graph_gpu.py
        if [ "$DEVICE" = cpu ]; then model=demo; else model=qwen2.5-vl-3b; fi
        keep graph.txt 120 "$PYTHON" -m layerprof profile --model "$model" --weights random --source bundled \
            --dataset textvqa --device "$DEVICE" --optimization graph --samples 4 --max-new-tokens 16 --fixed-tokens \
            --energy off --trace-batches 1 --output "$results/graph"
        ;;
    request)
        keep tests-request.txt 120 "$PYTHON" -m pytest -m gpu -q -ra --basetemp "$results/tests" \
            tests/gpu/test_request_gpu.py tests/gpu/test_memory_gpu.py
        if [ "$DEVICE" = cpu ]; then model=demo; else model=qwen2.5-vl-3b; fi
        keep request.txt 150 "$PYTHON" -m layerprof profile --model "$model" --weights random --source bundled \
            --dataset textvqa --device "$DEVICE" --samples 96 --instrumented 16 --image-size 448 --batch-size 4 \
            --max-new-tokens 16 --fixed-tokens --energy off --no-trace --memory --prefetch 2 --output "$results/request"
        ;;
    formats)
        # Weights in each format whose package is here: the others are cells that say so.
        keep tests-formats.txt 120 "$PYTHON" -m pytest -m gpu -q -ra --basetemp "$results/tests" tests/gpu/test_formats_gpu.py
        cells quantization 300
        ;;
    towers)
        keep tests-towers.txt 90 "$PYTHON" -m pytest -m gpu -q -ra --basetemp "$results/tests" tests/gpu/test_attention_gpu.py
        cells attention 240
        ;;
    compiled)
        keep compiled.txt 180 "$PYTHON" -m layerprof profile --model demo --device "$DEVICE" --optimization compile \
            --samples 2 --max-new-tokens 4 --fixed-tokens --energy off --trace-batches 1 --output "$results/compiled"
        ;;
    peers)
        # Needs no extras: a peer that is not installed is a row that says so (`make peers` installs them).
        keep peers.txt 900 env OUT="$results" PYTHON="$PYTHON" sh experiments/peers/all.sh overhead flops energy
        ;;
    sweep)
        table=${SWEEP:-reference}
        keep "$table.txt" 2400 "$PYTHON" -m layerprof sweep "experiments/$table.toml" --model qwen2.5-vl-3b \
            --weights random --samples 16 --set source=bundled --output "$results/$table" --timeout 120
        keep "$table-report.txt" 60 "$PYTHON" -m layerprof report "$results/$table" -o "$results/$table.md"
        keep "$table-report.txt" 60 "$PYTHON" -m layerprof report "$results/$table" -o "$results/$table.csv"
        ;;
    esac
}

# Put what there is so far where it survives: everything but traces in one file, this stage's traces in another.
pack() {
    timeout 60 "$PYTHON" experiments/gpu_report.py "$results" >"$results/report.txt" 2>&1 || cat "$results/report.txt"
    [ -n "${OUT:-}" ] || return 0
    left_out="--exclude=trace --exclude=events.out.* --exclude=./tests --exclude=./traces"
    # shellcheck disable=SC2086 # words, none of them a pattern of files here
    tar czf "$OUT/results.part" -C "$results" $left_out . &&
        mv "$OUT/results.part" "$OUT/results-$first.tgz"
    (cd "$results" && find "$name" \( -name 'batch*.json.gz' -o -path 'traces/*.json.gz' \) 2>/dev/null) >"$results/traces.list"
    [ -s "$results/traces.list" ] || return 0
    tar czf "$OUT/traces.part" -C "$results" -T "$results/traces.list" && mv "$OUT/traces.part" "$OUT/traces-$name.tgz"
}

dry="" child="" stages=""
for word in "$@"; do
    case " $STAGES " in
    *" $word "*) stages="$stages $word" ;;
    *)
        case $word in
        --dry-run) dry=yes ;;
        --help | -h)
            sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
            exit 0
            ;;
        *)
            echo "unknown stage $word: choose from $STAGES" >&2
            exit 2
            ;;
        esac
        ;;
    esac
done
[ -n "$stages" ] || stages=$STAGES

failed=""
if [ -n "$dry" ]; then
    results=${OUT:-experiments/results/DEVICE}
else
    if ! why=$(timeout 120 "$PYTHON" -c 'import layerprof.registry as r; [r.find(name) for name in r.names()]' 2>&1); then
        echo "layerprof cannot be loaded here: $(echo "$why" | tail -n 1)" >&2
        echo "Where that names layerprof: $PYTHON -m pip install --no-deps --no-build-isolation --no-index --editable ." >&2
        echo "Where it names another package: install that, or put its wheel on PYTHONPATH." >&2
        exit 2
    fi
    if ! device=$(timeout 120 "$PYTHON" -c 'import sys, torch
on = sys.argv[1]
print("cpu" if on == "cpu" else torch.cuda.get_device_name(on).lower().replace(" ", "-"))' "$DEVICE" 2>&1); then
        echo "The device $DEVICE cannot be used: $(echo "$device" | tail -n 1)" >&2
        echo "DEVICE=cpu rehearses without a GPU." >&2
        exit 2
    fi
    if [ -n "${OUT:-}" ]; then
        mkdir -p "$OUT" || exit
        results=$(mktemp -d traces/gpu-XXXXXX) || exit  # runs name their folder: no path of this machine
    else
        results=experiments/results/$device
        mkdir -p "$results" || exit
    fi
fi

total=0
first=${stages# }
first=${first%% *}
[ -n "$dry" ] || trap stop INT TERM HUP
for name in $stages; do
    total=$((total + $(minutes "$name")))
    echo "== $name, about $(minutes "$name") min$([ -n "$dry" ] || date +', begun at %H:%M:%S')"
    stage "$name"
    [ -n "$dry" ] || pack
done
if [ -n "$dry" ]; then
    echo "== $total min in all; results in $results"
    exit 0
fi
cat "$results/report.txt"
echo "== done at $(date +%H:%M:%S), results in $results${OUT:+, packed into $OUT}${failed:+; failed in:$failed}"
[ -z "$failed" ]
