"""One module for each way that a vocabulary is stored."""
