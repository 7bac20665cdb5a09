"""Rendered faces: who they are, how they look in one picture, how they are drawn."""
