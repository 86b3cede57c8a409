"""HTTP around `model`: batching, streaming, metrics."""

__version__ = "0.1.0"
