"""Identity providers: data first, one small module for each true exception."""
