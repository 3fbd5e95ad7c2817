"""What README and docs quote about speed, as commands; every figure is a ratio within one run."""
