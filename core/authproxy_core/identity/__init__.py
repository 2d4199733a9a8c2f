"""Claims, and the identity headers built from them."""
