"""The compiled library as Python sees it: found, checked and described once, reached by ctypes.

It knows nothing of Python, and a call leaves the interpreter to other threads. It is built when
Stele is installed, if a C++ compiler is there; without one, or on another CPU, there is none.
"""

import ctypes
import functools
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_size_t, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import SimpleNamespace


class Shape(ctypes.Structure):
    """Sizes and choices of a network; its fields are those of `Shape` in network.h, in order."""

    _fields_ = [
        *(
            (name, c_int32)
            for name in (
                "width",
                "encoder_layers",
                "decoder_layers",
                "encoder_heads",
                "decoder_heads",
                "encoder_head_width",
                "decoder_head_width",
                "encoder_hidden",
                "decoder_hidden",
                "vocabulary",
                "activation",
                "is_gated",
                "is_pre_norm",
                "has_final_norm",
                "has_embedding_norm",
                "position_offset",
                "padding",
                "relative_span",
            )
        ),
        *(
            (name, c_float)
            for name in ("encoder_scale", "decoder_scale", "embedding_scale", "output_scale")
        ),
    ]


class Ask(ctypes.Structure):
    """What one decode step is asked for; its fields are those of `Ask` in network.h."""

    _fields_ = [
        ("count", c_int),
        ("rows", c_void_p),
        ("tokens", c_void_p),
        ("positions", c_void_p),
        ("widths", c_void_p),
        ("lines", c_void_p),
        ("most", c_int),
    ]


class Found(ctypes.Structure):
    """Where a decode step writes what it found; its fields are those of `Found` in network.h."""

    _fields_ = [
        ("tokens", c_void_p),
        ("values", c_void_p),
        ("healthy", c_void_p),
        ("logits", c_void_p),
        ("attention", c_void_p),
        ("attention_stride", c_int),
    ]


class Run(ctypes.Structure):
    """Rows that go on by themselves; its fields are those of `Run` in network.h."""

    _fields_ = [
        ("count", c_int),
        *((name, c_void_p) for name in ("rows", "tokens", "positions", "rooms")),
        ("steps", c_int),
        ("end", c_int32),
        *((name, c_void_p) for name in ("interruption", "gained", "counts", "healthy")),
    ]


def check(code: int) -> None:
    """Raise what a function's result says: there can be no memory, or no thread."""
    if code:
        raise MemoryError("there was no memory for a step of the model")


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "stele_network": (c_void_p, [POINTER(Shape), c_int, c_double]),
    "stele_network_delete": (None, [c_void_p]),
    "stele_network_bytes": (c_size_t, [c_void_p]),
    "stele_linear": (c_int, [c_void_p, *[c_int] * 5, c_void_p, c_void_p]),
    "stele_norm": (None, [c_void_p, *[c_int] * 4, c_void_p, c_void_p, c_float]),
    "stele_tables": (None, [c_void_p, c_int, c_void_p, c_int, c_void_p, c_void_p]),
    "stele_suppress": (c_int, [c_void_p, c_int, c_void_p]),
    "stele_cache": (c_void_p, [c_int] * 5),
    "stele_cache_delete": (None, [c_void_p]),
    "stele_close_source": (None, [c_void_p, c_int]),
    "stele_bind": (None, [c_void_p, c_int, c_int]),
    "stele_reorder": (c_int, [c_void_p, c_int, c_void_p, c_void_p, c_int]),
    "stele_encode": (c_int, [c_void_p, c_int, c_void_p, c_void_p, c_void_p]),
    "stele_add_sources": (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 3]),
    "stele_begin_sources": (c_int, [c_void_p, c_void_p, c_int, *[c_void_p] * 3]),
    "stele_help": (c_int, [c_void_p, c_int, POINTER(c_int32)]),
    "stele_forget": (c_int, [c_void_p, c_void_p, c_int]),
    "stele_source_state": (c_int, [c_void_p, c_int]),
    "stele_take_latent": (None, [c_void_p, c_int, c_void_p, c_size_t]),
    "stele_decode": (c_int, [c_void_p, c_void_p, POINTER(Ask), POINTER(Found)]),
    "stele_run": (c_int, [c_void_p, c_void_p, POINTER(Run)]),
}


# What is over in a microsecond or a few keeps the interpreter: to have it back costs up to a
# switch interval while another thread computes.
_SHORT = {
    "stele_network_bytes",
    "stele_norm",
    "stele_tables",
    "stele_suppress",
    "stele_begin_sources",
    "stele_source_state",
    "stele_take_latent",
    "stele_close_source",
    "stele_bind",
    "stele_reorder",
}

Library = SimpleNamespace  # of the functions, by name


@functools.cache
def library() -> Library | None:
    """Return the library, or None where it was not built or this CPU cannot run it."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_stele{suffix}")
        if path.exists():
            free, held = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
            if not free.stele_is_supported():
                return None
            found = Library()
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(held if name in _SHORT else free, name)
                function.restype, function.argtypes = result, arguments
                setattr(found, name, function)
            return found
    return None
