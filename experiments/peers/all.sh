#!/bin/sh
# Every benchmark beside its peers, then the tables into docs/peers.md; on a GPU where there is one.
#
#     sh experiments/peers/all.sh [overhead] [flops] [attribution] [graphs] [quality] [energy] [harness]   (all when none is named)
#
# About 20 minutes on two quiet cores. Figures land in experiments/results/<device>/peers/.
set -eu
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
cuda=$($PYTHON -c 'import torch; print(torch.cuda.is_available())')
device=$($PYTHON -c 'import torch; c = torch.cuda
print(c.get_device_name(0).lower().replace(" ", "-") if c.is_available() else "cpu")')
results=${OUT:-experiments/results/$device}/peers
failed=""
on=cpu
[ "$cuda" = False ] || on=cuda

for name in ${*:-overhead flops attribution graphs quality energy harness}; do
    case $name in
    overhead) set -- --device $on --rounds "${ROUNDS:-$([ $on = cpu ] && echo 64 || echo 16)}" ;;
    flops) set -- --device $on ;;
    energy) set -- --device $on --seconds "$([ $on = cpu ] && echo 10 || echo 20)" ;;
    *) set -- ;;
    esac
    $PYTHON experiments/peers/"$name".py "$@" --json "$results/$name.json" || failed="$failed $name"
done
$PYTHON experiments/peers/page.py
[ -z "$failed" ] || { echo "failed:$failed" >&2; exit 1; }
