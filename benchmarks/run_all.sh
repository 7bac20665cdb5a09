#!/usr/bin/env bash
# All benchmarks on this machine, in one command:
#
#   bash benchmarks/run_all.sh OUT_DIR [--quick] [--only NAME,NAME,...]
#
# Needs nothing but the checkout with its environment: faces are rendered into OUT_DIR/faces, weights
# are random. Writes NAME.json, NAME.txt and NAME.err of each benchmark, and summary.md. A benchmark
# that fails is named and the others go on; the exit code is then 1. --quick takes minutes on two
# cores and shows that everything runs, not how fast.
#
#   PYTHON           interpreter (.venv/bin/python of the checkout, else python)
#   FACES, WEIGHTS   real faces and the mobilefacenet of them, for the ranking of benchmarks/
#                    mc_dropout.py; rendered faces and random weights say nothing about it
set -uo pipefail

usage() {
    echo "usage: bash benchmarks/run_all.sh OUT_DIR [--quick] [--only NAME,NAME,...]" >&2
    exit 2
}

[[ $# -ge 1 && $1 != -* ]] || usage
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
shift
quick=false
only=
while [[ $# -gt 0 ]]; do
    case $1 in
        --quick) quick=true ;;
        --only) only=,${2-},; shift ;;
        *) usage ;;
    esac
    shift
done

cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
[[ -z ${PYTHON:-} && -x .venv/bin/python ]] && python=.venv/bin/python
device=$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')") || exit 2
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)
pack=$out/faces/train.rec
weights=$out/mobilefacenet.pth
known=()
names=()
failed=()

# bench NAME SCRIPT ARGUMENT...: run one, unless --only names others; its numbers go to NAME.json.
bench() {
    local name=$1 script=benchmarks/$2
    shift 2
    known+=("$name")
    [[ -z $only || $only == *",$name,"* ]] || return 0
    names+=("$name")
    rm -f "$out/$name".{json,txt,err,cmd}
    if [[ ! -f $script ]]; then
        echo "skipped: there is no $script" | tee "$out/$name.txt"
        return 0
    fi
    echo "$name ..."
    echo "OMP_NUM_THREADS=${OMP_NUM_THREADS:-default} python $script $*" >"$out/$name.cmd"
    local start=$SECONDS
    if "$python" "$script" "$@" --json "$out/$name.json" >"$out/$name.txt" 2>"$out/$name.err"; then
        echo "$name: $((SECONDS - start)) s"
    else
        failed+=("$name")
        echo "$name: FAILED after $((SECONDS - start)) s: $(reason "$name")"
    fi
}

# reason NAME: the last thing it said before it failed.
reason() {
    grep -v '^[[:space:]]*$' "$out/$1.err" | tail -n 1
}

make_inputs() {
    local faces=200000
    $quick && faces=640
    [[ -f $pack ]] || only= bench make_pack make_pack.py --faces $faces --workers "$cores" --out "$pack"
    "$python" - "$weights" <<'PYTHON' || exit 2
import sys

import torch

from models.backbones.mobilefacenet import MobileFaceNet

torch.manual_seed(0)
torch.save(MobileFaceNet().state_dict(), sys.argv[1])
PYTHON
}

on_gpu() {
    local many=(--device cuda --pack "$pack" --workers "$cores" --images 20000)
    local steps=(--steps_per_batch 1 2 6 12)
    $quick && many=(--device cuda --pack "$pack" --workers "$cores" --images 960) && steps=(--steps_per_batch 1 6)
    for execution in eager cuda_graph compile; do
        bench "step_$execution" step.py "${many[@]}" "${steps[@]}" --executions $execution
    done
    bench step_cudnn_benchmark step.py "${many[@]}" "${steps[@]}" --cudnn_benchmark --heads
    local length=()
    $quick && length=(--epochs 2 --steps_per_epoch 20 --pairs 200)
    for execution in eager cuda_graph; do
        bench "whole_run_$execution" whole_run.py --pack "$pack" --device cuda --workers "$cores" \
            --execution $execution "${length[@]}"
    done
}

on_cpu() {
    local length=(--epochs 2 --steps_per_epoch 5 --pairs 60) net=iresnet50 size=(--images 320)
    $quick && length=(--epochs 2 --steps_per_epoch 1 --pairs 12) && net=iresnet18 && size=(--batch 32 --images 32 --repeats 1 --heads 1 4)
    OMP_NUM_THREADS=1 bench step_1_thread step.py --device cpu --pack "$pack" --backbone_name $net \
        "${size[@]}"
    if [[ $cores -gt 1 ]] && ! $quick; then
        OMP_NUM_THREADS=$cores bench step_all_threads step.py --device cpu --pack "$pack" \
            --backbone_name $net "${size[@]}"
    fi
    bench whole_run whole_run.py --pack "$pack" --device cpu --backbone_name $net "${length[@]}"
}

anywhere() {
    local faces=${FACES:-$pack} net=${WEIGHTS:-$weights} small=()
    $quick && small=(--quick)
    OMP_NUM_THREADS=1 bench input input.py --workers "$cores" "${small[@]}"
    $quick && small=(--images 128 --shard_images 64 --batch_size 32 --runs 1 --heads 1)
    bench extraction extraction.py "${small[@]}"
    $quick && small=(--count 32 --truth 50 --runs 1)
    bench mc_dropout mc_dropout.py --backbone_weights "$net" --images "$faces" "${small[@]}"
    $quick && small=(--runs 1 --images 640)
    OMP_NUM_THREADS=1 bench evaluation evaluation.py "${small[@]}"
    $quick && small=(--runs 1)
    OMP_NUM_THREADS=1 bench startup startup.py "${small[@]}"
    $quick && small=(--images 2000)
    bench all_pairs all_pairs.py "${small[@]}"
    $quick && small=(--sets 20)
    OMP_NUM_THREADS=1 bench risk risk.py "${small[@]}"
    $quick || OMP_NUM_THREADS=1 bench coverage coverage.py
    small=(--inputs 1000 100000)
    $quick && small=(--inputs 100 400)
    OMP_NUM_THREADS=1 bench score_images score_images.py "${small[@]}"
    small=(--random iresnet50 --faces 48 --runs 3)
    $quick && small=(--random mobilefacenet --faces 40 --runs 2)
    OMP_NUM_THREADS=1 bench onnx onnx.py "${small[@]}"
    small=()
    $quick && small=(--steps 4 --only train extract)
    OMP_NUM_THREADS=1 bench same_answer same_answer.py "${small[@]}"
}

summarise() {
    {
        echo "# Benchmarks"
        echo
        "$python" - "$device" <<'PYTHON'
import sys

from benchmarks._common import machine

for name, value in machine(sys.argv[1]).items():
    if name not in ("command", "threads"):
        print(f"- {name}: {value}")
PYTHON
        for name in "${names[@]}"; do
            printf '\n## %s\n\n' "$name"
            [[ -f $out/$name.cmd ]] && printf '```bash\n%s\n```\n\n' "$(cat "$out/$name.cmd")"
            [[ " ${failed[*]} " == *" $name "* ]] && printf 'FAILED: %s\n\n' "$(reason "$name")"
            cat "$out/$name.txt"
        done
    } >"$out/summary.md"
    echo "summary: $out/summary.md"
}

make_inputs
if [[ $device == cuda ]]; then on_gpu; else on_cpu; fi
anywhere
summarise
for name in ${only//,/ }; do
    if [[ " ${known[*]} " != *" $name "* ]]; then
        echo "--only $name: no such benchmark here (known: ${known[*]})" >&2
        failed+=("$name")
    fi
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
