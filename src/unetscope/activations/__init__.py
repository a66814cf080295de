"""Run a network and see its tensors: tracing, capture, memory, precision, several processes."""
