"""Shapes, scalar operations and layouts as immutable values; imports no IR."""
