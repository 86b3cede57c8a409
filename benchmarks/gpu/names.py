"""The models measured, by the names that figures have."""

OPUS, NLLB, BART, T5 = "OPUS-MT base", "NLLB-600M", "BART-large-CNN", "T5-small"
MODELS = (OPUS, NLLB, BART, T5)
