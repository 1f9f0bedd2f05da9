"""One module per source: `NAME`, `PATTERNS` of its usual file names, `sniff(head, path)` and `read(path)`."""
