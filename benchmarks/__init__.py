"""How fast measuring and training are, and in how much memory: `python -m benchmarks` writes docs/performance.md."""
