"""Everything that has weights: backbones, heads, and how they are loaded."""
