"""A gallery of people: who is nearest to a face (1:N), what errors that makes, and what to mend.

Imports evaluation and what lies below; report and everything above may import it.
"""
