"""Proposes the next candidate: samplers, the simulator behind one of them, and when to stop."""
