"""Rendered faces: who they are, how they look in one picture, and how they are drawn."""
