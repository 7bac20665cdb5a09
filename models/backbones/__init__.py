"""One file per backbone; the file name is the name a config gives."""
