"""Train a network with checkpoints and exact resume; the configuration of a run."""
