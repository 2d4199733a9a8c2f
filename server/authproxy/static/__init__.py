"""Static files of `file://` upstreams."""
