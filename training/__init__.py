"""How the bundled checkpoints are made: one command from parallel text to `model/bundled`."""
