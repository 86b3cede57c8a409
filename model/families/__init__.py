"""One file per model family: its config and weight names mapped onto ours, nothing else."""
