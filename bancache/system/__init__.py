"""What the other rooms need of the machine: files, locks, signals, ranks, devices, buffers, progress."""
