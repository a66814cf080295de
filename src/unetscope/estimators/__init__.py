"""Statistics in, nats out. Each estimator is a small frozen description and the pure functions that it stands for."""
