"""The GPU benchmark: `python -m benchmarks.gpu`. docs/gpu.md says what it measures, and how."""
