"""Trials on the hosts of a Ray cluster (extra `cluster`).

`RayExecutor` runs in the process of the run. It starts a process, the driver, which alone uses Ray: Ray ends its driver
when the head is lost, and answers a wrong token with silence. The driver starts an actor for each slot, on its host.
The actor owns a `SlotProcess`.
"""
