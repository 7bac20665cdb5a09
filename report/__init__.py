"""Every word and picture that people see of a result: pages, figures, tables and printed text.

It reads results of evaluation; training, scoring, extraction, export and the scripts may import it.
"""
