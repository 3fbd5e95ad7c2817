"""The training of a net, on one or several devices."""
