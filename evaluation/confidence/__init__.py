"""How sure the numbers are, and what can be promised from them."""
