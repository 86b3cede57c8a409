"""Thin HTTP handlers, one file a dialect, schemas beside them."""
