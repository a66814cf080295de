"""Thin callbacks for training frameworks: `lightning` and `monai`. Each imports its framework, and the recorder."""
