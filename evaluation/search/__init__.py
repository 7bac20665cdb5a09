"""One probe against a gallery of people: who is nearest, and what errors and doubts that leaves."""
