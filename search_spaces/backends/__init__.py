"""What is known of each backend's parameters, one YAML file each; `tuner.space.knowledge` has their schema."""
