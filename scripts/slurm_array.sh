#!/usr/bin/env bash
# Example of SLURM array jobs: one step of the path on each call, its parts or folds as tasks of the array.
# Copy it, change what is below "Yours", and hand in one step after the other:
#
#   prepared=$(sbatch --parsable --array=0 slurm_array.sh prepare)
#   embedded=$(sbatch --parsable --array=0-3 --gres=gpu:1 --dependency=afterok:$prepared slurm_array.sh embed)
#   trained=$(sbatch --parsable --array=0-4 --gres=gpu:1 --dependency=afterok:$embedded slurm_array.sh train)
#   sbatch --array=0-3 --gres=gpu:1 --dependency=afterok:$trained slurm_array.sh relabel
#   sbatch --array=0-3 --gres=gpu:1 --dependency=afterok:$trained slurm_array.sh ask
#
# Leave out embed unless the generalist is sam or mobile_sam; the others have nothing to embed. Every task may be killed
# and handed in again, alone (--array=2): it goes on where it was. docs/cluster.md says why, and what to keep apart.
#
#SBATCH --job-name=gmabs
#SBATCH --cpus-per-task=12
#SBATCH --mem=48G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x_%A_%a.log
set -euo pipefail

# ---- Yours: the environment with nnunet_gmabs, nnU-Net's folders (on a disk that all nodes see), and what is trained.
# source /path/to/venv/bin/activate
export nnUNet_raw="${nnUNet_raw:-$HOME/nnunet/nnUNet_raw}"
export nnUNet_preprocessed="${nnUNet_preprocessed:-$HOME/nnunet/nnUNet_preprocessed}"
export nnUNet_results="${nnUNet_results:-$HOME/nnunet/nnUNet_results}"
DATASET="${DATASET:-4}"
CONFIGURATION="${CONFIGURATION:-3d_fullres}"
PLANS="${PLANS:-nnUNetPlans}"
TRAINER="${TRAINER:-nnUNetTrainerGMABS}"
PARTS="${PARTS:-4}"      # of embed, relabel and ask: hand in --array=0-3. Not SLURM_ARRAY_TASK_COUNT, which is 1 when
                         # one part is handed in again
SCANS="${SCANS:-4}"      # that ask chooses

# ---- The same for all steps.
step="${1:?name a step: prepare, embed, train, relabel or ask}"
task="${SLURM_ARRAY_TASK_ID:?hand this in with sbatch --array=...}"
cores="${SLURM_CPUS_PER_TASK:-4}"
# nnU-Net counts the cores of the machine, not those of the job.
export nnUNet_def_n_proc="$cores"
export nnUNet_n_proc_DA="$((cores > 1 ? cores - 1 : 1))"
# Compiled kernels of this job alone, on the node's own disk.
export TORCHINDUCTOR_CACHE_DIR="${TMPDIR:-/tmp}/inductor_${SLURM_JOB_ID:-here}"
model=("$nnUNet_results"/Dataset"$(printf %03d "$DATASET")"_*/"${TRAINER}__${PLANS}__${CONFIGURATION}")

case "$step" in
    prepare) # one task; a second one at the same time is refused
        gmabs prepare -d "$DATASET" -c "$CONFIGURATION" -p "$PLANS"
        ;;
    embed) # all slices of all scans for the generalist, which trainings and relabel then only read
        gmabs embed -d "$DATASET" -c "$CONFIGURATION" -p "$PLANS" -num_parts "$PARTS" -part_id "$task"
        ;;
    train) # the task is the fold, on one GPU; --c goes on after a kill, and begins where there is no checkpoint yet
        nnUNetv2_train "$DATASET" "$CONFIGURATION" "$task" -tr "$TRAINER" -p "$PLANS" --c
        ;;
    relabel) # labels of all scans by the generalist, prompted by the model of fold 0
        gmabs relabel -d "$DATASET" --from "${model[0]}" -f 0 -num_parts "$PARTS" -part_id "$task"
        ;;
    ask) # the last part that is done writes the round
        gmabs ask -d "$DATASET" --from "${model[0]}" --strategy uncertainty-diverse --scans "$SCANS" -num_parts "$PARTS" -part_id "$task"
        ;;
    *)
        echo "unknown step $step; prepare, embed, train, relabel or ask" >&2
        exit 2
        ;;
esac
