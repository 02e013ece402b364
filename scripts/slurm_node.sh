#!/usr/bin/env bash
# What srun runs once on every machine, for scripts/slurm_run.sh: the command given as arguments, a torchrun.
#
# Slurm sends a step's signals to all of its processes: to this shell, to torchrun and to those that torchrun started.
# SIGUSR1, the early warning, would kill torchrun, so that ignores it; the training processes get it from slurm
# directly. torchrun ends with status 1 whatever its processes ended with, so the warning is remembered here: a command
# that does not end well after one ends with 128 + SIGUSR1. SIGTERM, which torchrun passes on, is left to it.
set -uo pipefail

warned=0
trap 'warned=1' USR1
trap : TERM
(
    trap '' USR1
    trap - TERM
    exec "$@"
) &
command=$!

status=0
while :; do # a trap ends a wait early
    wait "$command"
    status=$?
    if [ "$status" -le 128 ] || ! kill -0 "$command" 2>/dev/null; then break; fi
done
if [ "$warned" = 1 ] && [ "$status" -ne 0 ]; then
    status=$((128 + $(kill -l USR1)))
    sleep 5 # srun ends all machines as soon as one of them ends like this
fi
exit "$status"
