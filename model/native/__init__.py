"""The compiled int8 network: its C++ sources, and the functions that Python calls."""
