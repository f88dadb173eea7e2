"""The twin: a simulation of Triton's batcher, fitted to what was measured, that foresees what was not."""
