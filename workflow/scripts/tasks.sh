#!/usr/bin/env bash
# tasks.sh OPTIONS COMMAND: the tasks of a training, in a job of SLURM. A training that was told to stop has saved its state and
# leaves with 75. Then the same job is queued again, and Snakemake waits for it; but a job that somebody cancelled stays cancelled.
# What the tasks say goes to standard error, which is the step's log, and to the job's own log, which no restart deletes.

trap : TERM INT HUP USR1             # srun passes them on; this waits for it
exec 3>&1
srun --kill-on-bad-exit=1 "$@" 2>&1 >&3 | (trap '' TERM INT HUP USR1; tee --append /dev/fd/3 >&2)
code=${PIPESTATUS[0]}
if [ "$code" -eq 75 ] && [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
    echo "job $SLURM_JOB_ID saved its state and is queued again"
    scontrol requeue "$SLURM_JOB_ID" && sleep 600        # SLURM ends this
fi
exit "$code"
