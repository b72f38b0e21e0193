#!/bin/bash
# A study on Slurm: one Ray node a machine, the study on the first of them.
#
#   sbatch configs/cluster/slurm.sh --phase I --profile sd21 --data /shared/data --study.output /shared/runs \
#     --study.name phase-i
#
# The arguments are those of `woundray tune`; --study.output must be on a file system that all machines share. Slurm
# sends SIGINT ten minutes before the time is up: trials finish their epoch, and `--resume phase-i` goes on.
#SBATCH --job-name=woundray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=1
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@600
#SBATCH --output=woundray-%j.log
set -euo pipefail
umask 077

# Only who has this token may use the cluster. It travels in the environment, never on a command line.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(echo "$nodes" | head -n 1)
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000)) # others on this machine may have a cluster, too
export RAY_ADDRESS="$ip:$port"

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap --export=ALL \
  ray start --head --node-ip-address="$ip" --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" \
  --dashboard-host=127.0.0.1 --disable-usage-stats --block &
for node in $(echo "$nodes" | tail -n +2); do
  srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap --export=ALL \
    ray start --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block &
done
until ray status > /dev/null 2>&1; do sleep 2; done # the study itself waits for the other machines

python -m woundray.tune "$@" &
study=$!
trap 'kill -INT "$study"' INT TERM
status=0
wait "$study" || status=$?
if [ "$status" -gt 128 ]; then # the wait was broken off by the signal: the study is finishing its epochs
  status=0
  wait "$study" || status=$?
fi
exit "$status" # Slurm ends what `srun` started
