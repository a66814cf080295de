"""Experiment trackers of a run folder: scalars and figures.

RUN/tracking/tensorboard/   event files: tensorboard --logdir RUN/tracking/tensorboard
RUN/tracking/mlflow/        a store with one run: mlflow ui --backend-store-uri sqlite:///RUN/tracking/mlflow/mlflow.db
RUN/tracking/wandb/         an offline run: wandb sync RUN/tracking/wandb/offline-run-*
RUN/tracking/TRACKER.json   which run of the tracker this is, and the figures that it was given

Nothing leaves the machine, unless MLFLOW_TRACKING_URI or WANDB_MODE are set to send it. MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT
and WANDB_ENTITY are respected too.

A further tracker is a subclass of `Tracker` and an entry in `TRACKERS`:

    TRACKERS["comet"] = Comet
"""

from unetscope.runs.trackers.interface import Point, Points, Session, Tracker
from unetscope.runs.trackers.tracked_run import TRACKERS, Follower, TrackedRun, check_tracker, track

__all__ = ["TRACKERS", "Follower", "Point", "Points", "Session", "TrackedRun", "Tracker", "check_tracker", "track"]
