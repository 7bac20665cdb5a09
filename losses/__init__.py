"""One file per loss; the file name is the name a config gives."""
