"""Model uncertainty by Monte Carlo dropout."""
