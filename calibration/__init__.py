"""The calibration study: every estimator, many times over, where the truth is known; `python -m calibration`."""
