"""Where trials run: slots of this machine and of other hosts, and the executors that carry out work on them."""
