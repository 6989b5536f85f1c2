#!/usr/bin/env bash
# tasks.sh OPTIONS COMMAND: the tasks of a training, in a job of SLURM. A training that was told to stop has saved its state and
# leaves with 75. Then the same job is queued again, and Snakemake waits for it; but a job that somebody cancelled stays cancelled.
# What the tasks say goes to standard error, which is the step's log, and to the job's own log, which no restart deletes.

options=()
while [[ $1 == --* ]]; do options+=("$1"); shift; done

# srun leaves with the highest code of its tasks. Where one fails, the others are told to stop, and leave with 75: so a failure
# must be higher, or the job would be queued again for ever.
task='trap : TERM INT HUP USR1; "$@"; code=$?; [ $code -eq 0 ] || [ $code -eq 75 ] || code=$((code | 128)); exit $code'

trap : TERM INT HUP USR1             # srun passes them on; this waits for it
exec 3>&1
srun --kill-on-bad-exit=1 "${options[@]}" bash -c "$task" task "$@" 2>&1 >&3 |
    (trap '' TERM INT HUP USR1; tee --append /dev/fd/3 >&2)
code=${PIPESTATUS[0]}
tries=6                              # a busy SLURM may leave a question without an answer
while [ "$code" -eq 75 ] && [ $((tries--)) -gt 0 ]; do
    if state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T); then
        [ "$state" = RUNNING ] || break
        echo "job $SLURM_JOB_ID saved its state and is queued again"
        if scontrol requeue "$SLURM_JOB_ID"; then sleep 600; break; fi          # SLURM ends this
    fi
    sleep 10
done
exit "$code"
