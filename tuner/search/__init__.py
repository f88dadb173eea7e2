"""The search: samplers that propose candidates, the simulator for the sampler `twin`, and the stopping rule."""
