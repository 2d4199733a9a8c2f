"""HTML pages, challenges and plain responses."""
