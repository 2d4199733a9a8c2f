"""Log lines: records, formats, redaction, writers, files."""
