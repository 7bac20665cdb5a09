"""MXNet RecordIO packs: format, index, labels, reader and writer."""
