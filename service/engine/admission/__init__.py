"""What may come in: memory, disk and seconds of the net, counted before anything is promised."""
