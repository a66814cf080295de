"""What experiment trackers are given of a run folder: scalars and figures.

RUN/tracking/tensorboard/   event files: tensorboard --logdir RUN/tracking/tensorboard
RUN/tracking/mlflow/        a store with one run: mlflow ui --backend-store-uri sqlite:///RUN/tracking/mlflow/mlflow.db
RUN/tracking/wandb/         an offline run: wandb sync RUN/tracking/wandb/offline-run-*
RUN/tracking/TRACKER.json   which run of the tracker this is, and the figures that it was given

The tables of the run folder are the truth, and what a tracker has of them is asked of the tracker, or written anew. So
nothing is written twice, whatever moment a kill comes. Nothing leaves the machine, unless MLFLOW_TRACKING_URI or
WANDB_MODE say so: where they are set they are followed, as are MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT and WANDB_ENTITY.
"""

from unetscope.runs.trackers.tracked import TRACKERS, Follower, Tracked, check_tracker, track

__all__ = ["TRACKERS", "Follower", "Tracked", "check_tracker", "track"]
