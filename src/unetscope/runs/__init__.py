"""Run folders and the jobs that fill them: experiment, recorder, retraining, slimming, forecast, trackers."""
