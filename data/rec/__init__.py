"""MXNet RecordIO packs (`.rec`, `.idx`): format, index, labels, reader and writer."""
