"""Faces in: folders, lists, packs and .bin sets; batches out."""
