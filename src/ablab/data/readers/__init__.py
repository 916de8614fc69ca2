"""One file a format. Every reader streams: it holds one document (or one batch of rows) at a time.

A reader takes a path and yields `Document`s; a row it cannot use is a DataError that names file and row.
"""
