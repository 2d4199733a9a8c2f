"""Claims of tokens, and the identity headers that are made from them."""
