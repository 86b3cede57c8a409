"""The captured decode step: one fixed sequence of operations on tensors that never move."""
