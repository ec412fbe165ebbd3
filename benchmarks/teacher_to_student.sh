#!/usr/bin/env bash
# The paper in miniature, end to end on a CPU: a two-stream teacher-s, and a one-stream student-t distilled from it,
# exported, and measured on held-out sequences through the engine.
#
#     DATA=../shared/data PRETRAINED=dinov2_vits14.safetensors benchmarks/teacher_to_student.sh runs/miniature
#
# Under 30 minutes on two cores. Interrupted, the same command goes on. TEACHER_STEPS, STUDENT_STEPS and SAMPLES change
# the budget. Needs the train extra, and matplotlib for the picture of the curves (skipped without).
set -euo pipefail
: "${DATA:?the folder of docs/training.md}" "${PRETRAINED:?a pretrained ViT-S (docs/checkpoints.md)}"
export DATA PRETRAINED
run="${1:?usage: $0 OUTPUT}"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
duotrack="${DUOTRACK:-duotrack}"
python="${PYTHON:-python}"
started=$SECONDS

say() { printf '\n== %s (after %d s)\n' "$1" $((SECONDS - started)); }

say "teacher-s, ${TEACHER_STEPS:=120} steps"
"$duotrack" train teacher-s --output "$run/teacher-s" \
    --set steps="$TEACHER_STEPS" --set batch=16 --set schedule.warmup=15 --set average_decay=0.97 \
    --set log_every=10 --set save_every=20 \
    --set validation.every="$TEACHER_STEPS" --set validation.frames=40

export TEACHER="$run/teacher-s/teacher-s.safetensors"
student=(--set steps="${STUDENT_STEPS:=250}" --set schedule.warmup=30 --set average_decay=0.985 --set log_every=10
    --set validation.every="$STUDENT_STEPS" --set distillation.cache_samples="${SAMPLES:=1600}")

say "student-t from teacher-s, $STUDENT_STEPS steps; the teacher's outputs for $SAMPLES samples come first"
"$duotrack" distill student-t-distilled --output "$run/student-t" --cache "$run/cache" "${student[@]}"

say "export"
"$duotrack" export "$run/student-t/student-t.safetensors" --output "$run/model"

say "held-out sequences, through the engine"
"$python" "$here/validation_auc.py" --data "$DATA" --model "$run/model" --only student static

"$python" "$here/training_curves.py" "$run"/{teacher-s,student-t}/log.jsonl --output "$run/curves.svg" ||
    echo "no picture of the curves"
say "done"
