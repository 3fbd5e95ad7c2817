"""Whose tiles run next, in which batch, and the threads that run them."""
