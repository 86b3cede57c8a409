"""What was predicted on paper for one H100 before anything was measured, in each figure's unit.

By what, model, rows and case: the lowest, the central and the highest value.
"""

from benchmarks.gpu.names import BART, NLLB, OPUS, T5

Named = tuple[str, str, int, str]
Range = tuple[float, float, float]

FORCED_CASE, STOPPED_CASE = "forced", "stopped"  # the two protocols of whole batches
LAUNCHES_CASE = "launches"
_STEPS: dict[tuple[str, int], Range] = {  # us
    (OPUS, 1): (200, 262, 397),
    (OPUS, 8): (200, 262, 398),
    (OPUS, 32): (201, 265, 400),
    (OPUS, 64): (207, 270, 404),
    (OPUS, 128): (220, 289, 419),
    (OPUS, 256): (260, 338, 467),
    (T5, 1): (180, 236, 363),
    (T5, 8): (183, 237, 363),
    (T5, 64): (245, 304, 433),
    (BART, 1): (470, 575, 798),
    (BART, 8): (516, 616, 837),
    (BART, 32): (696, 809, 1056),
    (BART, 64): (938, 1072, 1369),
    (BART, 128): (1420, 1599, 1995),
    (NLLB, 1): (604, 714, 956),
    (NLLB, 64): (660, 789, 1020),
    (NLLB, 128): (730, 894, 1139),
}
_ATTENTION: dict[tuple[str, str], Range] = {  # us, by shape and kernel
    ("128 x 16 x 350", "triton"): (68, 74, 80),
    ("128 x 16 x 350", "flash"): (70, 80, 90),
    ("128 x 16 x 350", "efficient"): (90, 110, 130),
    ("128 x 16 x 350", "cudnn"): (75, 92, 110),
    ("128 x 16 x 350", "bmm"): (110, 130, 150),
    ("64 x 8 x 32", "triton"): (3, 3.5, 4),
    ("64 x 8 x 32", "flash"): (5, 5.5, 6),
    ("64 x 8 x 32", "efficient"): (6, 7, 8),
}
_OTHERS: dict[Named, Range] = {
    ("copy", "", 0, ""): (2900, 3000, 3100),
    ("product", "", 0, ""): (750, 790, 830),
    ("add in a graph", "", 0, ""): (1.5, 2.0, 2.5),
    ("launch", "", 0, "torch"): (4, 5.5, 7),
    ("launch", "", 0, "triton"): (10, 17, 25),
    ("replay on the host", "", 0, ""): (5, 10, 15),
    ("gap between replays", "", 0, ""): (3, 5.5, 8),
    ("product with the vocabulary", OPUS, 64, ""): (24, 27, 30),
    ("product with the vocabulary", BART, 64, ""): (40, 43, 46),
    ("product with the vocabulary", NLLB, 64, ""): (200, 210, 220),
    ("kernels in a step", OPUS, 64, ""): (76, 76, 88),
    ("kernels in a step", BART, 128, ""): (148, 148, 172),
    ("kernels in a step", NLLB, 64, ""): (136, 136, 160),
    ("kernels in a step", T5, 64, ""): (70, 70, 82),
    ("whole batch", BART, 32, FORCED_CASE): (100, 111, 150),
    ("whole batch", BART, 64, FORCED_CASE): (140, 154, 200),
    ("whole batch", BART, 128, FORCED_CASE): (215, 238, 305),
    ("whole batch", BART, 32, STOPPED_CASE): (92, 101, 134),
    ("whole batch", BART, 64, STOPPED_CASE): (118, 130, 169),
    ("whole batch", BART, 128, STOPPED_CASE): (172, 191, 243),
    ("worst error", "", 0, "append_attend, float32"): (0, 4e-7, 1e-6),
    ("worst error", "", 0, "append_attend, float16"): (0, 3e-4, 6e-4),
    ("worst error", "", 0, "append_attend, bfloat16"): (0, 4e-3, 8e-3),
    ("worst error", "", 0, "cross_attend, float32"): (0, 4e-7, 1e-6),
    ("worst error", "", 0, "cross_attend, float16"): (0, 3e-4, 6e-4),
    ("worst error", "", 0, "cross_attend, bfloat16"): (0, 4e-3, 8e-3),
    ("capture of a step", OPUS, 64, ""): (0.1, 0.2, 0.4),
    ("capture of a step", BART, 64, ""): (0.1, 0.2, 0.4),
    ("first token", T5, 1, ""): (1.0, 1.25, 1.5),
    ("between tokens", T5, 1, ""): (0.25, 0.32, 0.4),
    ("product, 512 wide", "", 64, ""): (2.5, 3.5, 4.5),
    ("product, 1024 wide", "", 64, ""): (3, 4.5, 6),
}

PREDICTED: dict[Named, Range] = (
    _OTHERS
    | {("decode step", model, rows, ""): found for (model, rows), found in _STEPS.items()}
    | {("cross-attention", "", 0, f"{s}, {k}"): found for (s, k), found in _ATTENTION.items()}
)
