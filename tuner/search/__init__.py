"""The search: samplers that propose candidates, the simulator behind one of them, and the stopping rule."""
